//! A hook in forty lines: everything that a client sends to the target is rotated by 13 letters, and so are the replies.
//!
//! `cargo run --example hook -- 7004 127.0.0.1:7005`, and the other end with the two ports exchanged, hide a text between them.
use std::{error::Error, rc::Rc};

use seaprox::{Bind, Config, Cx, Failure, Handler, Hook, ListenConfig, Proxy, Reason, Role, Target, Transit, bind};

struct Rot13;

impl Hook for Rot13 {
    fn data(&mut self, _from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        transit.pass_each(|byte| match byte {
            b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
            b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
            _ => byte,
        });
        Ok(()) // `Err(Reason::NotPermitted)` would end the connection.
    }
}

struct Front(Rc<Target>);

impl Handler for Front {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let connected = cx.set_hook(Box::new(Rot13)).and_then(|()| cx.connect(Rc::clone(&self.0), None));
        connected.unwrap_or_else(|_| cx.close(Reason::Internal)); // A new connection has no hook and no dest.
    }
    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0 // What the client sends is relayed, through the hook, when the target is there.
    }
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let addr = Bind::parse(&args.next().unwrap_or("7004".into()))?;
    let target = Rc::new(Target::parse(&args.next().unwrap_or("127.0.0.1:7005".into()))?);
    let mut proxy = Proxy::new(Config::default(), None)?;
    for mut bound in bind(&addr, 1, &Config::default())? {
        println!("listening on {}", bound.addr());
        let target = Rc::clone(&target);
        let front = move || -> Box<dyn Handler> { Box::new(Front(Rc::clone(&target))) };
        proxy.core().listen(&mut bound, ListenConfig::new("rot13", Box::new(front)))?;
    }
    Ok(proxy.run()?)
}
