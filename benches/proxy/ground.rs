//! The state that all measurements of a run share: options, network, processors, far end, ports and a directory.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::netns::Network;
use crate::options::{Options, Placement};
use crate::sys;
use crate::target::Target;

pub struct Ground {
    pub options: Rc<Options>,
    pub network: Rc<Network>,
    pub directory: PathBuf,
    pub target: Target,
    /// Processors of the proxies with one thread. Empty: nothing is tied to a processor.
    pub proxies: Vec<usize>,
    /// Processors of the client and the far end.
    pub load: Vec<usize>,
    /// The most connections that a proxy can relay at a time: two descriptors each, less a reserve.
    pub connections_max: usize,
    next_port: Cell<u16>,
}

impl Ground {
    /// Ties the calling thread to the load's processors, and starts the far end.
    pub fn prepare(
        options: &Rc<Options>,
        network: &Rc<Network>,
        placement: Placement,
        all: &[usize],
        directory: &Path,
    ) -> io::Result<Ground> {
        let descriptors = sys::raise_descriptor_limit()? as usize;
        let connections_max = (descriptors.saturating_sub(DESCRIPTORS_SPARE) / 2).min(CONNECTIONS_ENOUGH);
        let (proxies, load) = match all.split_first() {
            Some((first, rest)) if placement == Placement::Pinned && !rest.is_empty() => (vec![*first], rest.to_vec()),
            _ => (Vec::new(), Vec::new()),
        };
        sys::pin(if load.is_empty() { all } else { &load })?;
        let next_port = Cell::new(if placement == Placement::Pinned { FIRST_PORT } else { FIRST_PORT_FREE });
        // As with most servers, the system chooses no such port for an outgoing connection, and seaprox need not ask for its
        // own.
        let target = Target::start(&load, listen_addr(network, &next_port)?)?;
        Ok(Ground {
            options: Rc::clone(options),
            network: Rc::clone(network),
            directory: directory.to_path_buf(),
            target,
            proxies,
            load,
            connections_max,
            next_port,
        })
    }

    /// Returns an address on which a proxy can listen. In a namespace of the bench's own, ports are counted up below
    /// the range of outgoing ones. On a shared loopback the system names a free port, which another program may still
    /// take.
    pub fn listen_addr(&self) -> io::Result<SocketAddr> {
        listen_addr(&self.network, &self.next_port)
    }

    /// Returns the number of connections of the idle section: as requested, or fewer if there are too few descriptors.
    pub fn idle(&self) -> usize {
        self.options.idle.min(self.connections_max)
    }

    /// Describes the processors on which proxies and load run.
    pub fn placement(&self) -> String {
        match self.proxies.is_empty() {
            true => "nothing is tied to a processor".into(),
            false => format!("proxies on processor {:?}, client and far end on {:?}", self.proxies, self.load),
        }
    }

    /// Returns the processors for a proxy: apart from the load, or all of them.
    pub fn processors_of(&self, everywhere: bool) -> Vec<usize> {
        let others = self.load.iter().filter(|_| everywhere);
        self.proxies.iter().chain(others).copied().collect()
    }
}

fn listen_addr(network: &Network, next_port: &Cell<u16>) -> io::Result<SocketAddr> {
    if network.private {
        let port = next_port.get();
        next_port.set(port + 1);
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Descriptors reserved for a proxy's listeners, pipes and libraries.
const DESCRIPTORS_SPARE: usize = 600;
const CONNECTIONS_ENOUGH: usize = 20_000;
const FIRST_PORT: u16 = 2_000;
/// Ports are not used again in the second placement, because connections to them linger.
const FIRST_PORT_FREE: u16 = 6_000;
