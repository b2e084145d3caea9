//! The static front end: every client of a listener goes to one target.

use std::rc::Rc;
use std::sync::Arc;

use seaprox::{Cx, Failure, Handler, Target};

use crate::frontends::access::Gate;

/// The handler of one client.
pub struct Fixed {
    gate: Arc<Gate>,
    target: Rc<Target>,
}

impl Fixed {
    /// A handler that connects its client to `target`.
    pub fn new(gate: Arc<Gate>, target: Rc<Target>) -> Fixed {
        Fixed { gate, target }
    }
}

impl Handler for Fixed {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if let Err(failure) = self.gate.connect(cx, Rc::clone(&self.target)) {
            cx.end(failure.reason);
        }
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.end(failure.reason),
        }
    }
}
