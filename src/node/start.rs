//! Loops with links: gives each event loop the control of its links, which the engine knows only as a trait.

use std::io;
use std::sync::Arc;

use crate::engine::bound::Bound;
use crate::engine::control::Control;
use crate::engine::event_loop::Proxy;
use crate::engine::limits::Config;
use crate::engine::threads::{self, Loops, Setup};
use crate::engine::workers::Workers;

use super::control::Node;

impl Proxy {
    /// Makes a loop. `workers` look names up; without workers the loop connects literal addresses only.
    ///
    /// # Errors
    /// The system has no descriptors for the loop.
    pub fn new(config: Config, workers: Option<Arc<Workers>>) -> io::Result<Proxy> {
        let control = control(&config);
        Proxy::with_control(config, workers, control)
    }
}

impl Loops {
    /// Starts `count` loops, at least one, over addresses that were bound for as many. Each loop gets its share of the
    /// limits.
    ///
    /// # Errors
    /// The system has no more threads or descriptors, or the setup failed.
    pub fn start(
        count: usize,
        config: &Config,
        workers: Option<&Arc<Workers>>,
        bounds: Vec<Bound>,
        setup: &Setup,
    ) -> io::Result<Loops> {
        let weights = threads::weights(count.max(1), &bounds);
        Loops::start_with(control, &weights, config, workers, bounds, setup)
    }

    /// Starts a loop for each weight, which listen nowhere yet. The loops divide the limits in proportion to their weights,
    /// and equally if all weights are 0.
    ///
    /// # Errors
    /// The system has no more threads or descriptors.
    pub fn start_idle(weights: &[usize], config: &Config, workers: Option<&Arc<Workers>>) -> io::Result<Loops> {
        let setup: Setup = Arc::new(|_, _, _| Ok(()));
        let weights = &threads::some_weight(weights);
        Loops::start_with(control, weights, config, workers, Vec::new(), &setup)
    }
}

fn control(config: &Config) -> Box<dyn Control> {
    Box::new(Node::new(config.limits.link_bytes))
}
