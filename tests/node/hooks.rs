//! Hooks of connections whose sides are streams of links.

use crate::node_kit::*;

use std::io::Read;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;

use seaprox::node::{OnStream, Policy, ServeConfig};
use seaprox::{Bind, Cause, Cx, Failure, Handler, Hook, ListenConfig, Reason, Role, Target, Transit, bind};

/// Adds one to each byte of the source, and writes each byte of the dest twice.
struct Both(Arc<Mutex<Vec<String>>>);

impl Hook for Both {
    fn connected(&mut self) {
        self.0.lock().unwrap().push("connected".into());
    }

    fn data(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        match from {
            Role::Source => _ = transit.pass_each(|byte| byte.wrapping_add(1)),
            Role::Dest => {
                while transit.room() >= 2 && !transit.input().is_empty() {
                    let byte = transit.input()[0];
                    transit.write(&[byte, byte]);
                    transit.consume(1);
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, reason: Reason) {
        self.0.lock().unwrap().push(reason.as_str().into());
    }
}

/// Relays its client to a target, through the hook.
struct Hooked(Rc<Target>, Arc<Mutex<Vec<String>>>);

impl Handler for Hooked {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.set_hook(Box::new(Both(Arc::clone(&self.1)))).unwrap();
        cx.connect(Rc::clone(&self.0), None).unwrap();
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }

    fn ended(&mut self, _: &mut Cx<'_>, _: Cause) {}
}

/// Sends 1 MB from the client to the target, which answers with 500 kB, and checks both, the FINs and the calls.
fn exchange(front: std::net::SocketAddr, listener: &std::net::TcpListener, heard: &Arc<Mutex<Vec<String>>>) {
    const UP: u64 = 1_000_000;
    const DOWN: u64 = 500_000;
    let (mut near, mut far) = (connect(front), accept(listener));
    let target = thread::spawn(move || {
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got.len() as u64, UP);
        assert!((0..UP).all(|at| got[at as usize] == pattern(1, at).wrapping_add(1)));
        send_pattern(&mut far, 2, DOWN);
        far.shutdown(Shutdown::Write).unwrap();
    });
    send_pattern(&mut near, 1, UP);
    near.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    near.read_to_end(&mut got).unwrap();
    assert_eq!(got.len() as u64, 2 * DOWN);
    assert!((0..2 * DOWN).all(|at| got[at as usize] == pattern(2, at / 2)));
    target.join().unwrap();
    until("the hook hears of the end", || *heard.lock().unwrap() == ["connected", "source_fin"]);
}

#[test]
fn a_hook_changes_bytes_on_their_way_into_a_link_and_out_of_it() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    client.until_up();
    let ((listener, inner), heard) = (target(), Arc::default());
    let calls = Arc::clone(&heard);
    let front = client.ask(move |core| {
        let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let target = Rc::new(Target::from(inner));
        let front = move || -> Box<dyn Handler> { Box::new(Hooked(Rc::clone(&target), Arc::clone(&calls))) };
        let config = ListenConfig { link: Some(link), ..ListenConfig::new("static", Box::new(front)) };
        core.listen(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    });
    exchange(front, &listener, &heard);
}

#[test]
fn a_hook_changes_the_bytes_of_a_stream_that_the_peer_opened() {
    let (server, client) = (Node::start(), Node::start());
    let ((listener, inner), heard): (_, Arc<Mutex<Vec<String>>>) = (target(), Arc::default());
    let calls = Arc::clone(&heard);
    let policy = Arc::clone(&server.policy) as Arc<dyn Policy>;
    let addr = server.ask(move |core| {
        let takes: OnStream = Box::new(move |_, target| {
            Some(Box::new(Hooked(Rc::new(target.clone()), Arc::clone(&calls))) as Box<dyn Handler>)
        });
        let config = ServeConfig { on_stream: Some(takes), timing: timing(), ..ServeConfig::new(identity(2), policy) };
        let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        core.serve_links(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    });
    let front = client.forward(client.link(addr), inner.into());
    exchange(front, &listener, &heard);
}
