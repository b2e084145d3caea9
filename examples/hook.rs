//! A hook in forty lines: `cargo run --example hook -- 7004 HOST:PORT` rotates all letters in both directions by 13.
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
        // A new connection has no hook and no dest.
        let _ = cx.set_hook(Box::new(Rot13)).and_then(|()| cx.connect(Rc::clone(&self.0), None));
    }
    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0 // The hook gets what the client sends when the target is there.
    }
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (addr, target) = (std::env::args().nth(1), std::env::args().nth(2));
    let target = Rc::new(Target::parse(&target.ok_or("expected ADDR HOST:PORT")?)?);
    let mut bound = bind(&Bind::parse(&addr.unwrap_or_default())?, 1, &Config::default())?.remove(0);
    println!("listening on {}", bound.addr());
    let mut proxy = Proxy::new(Config::default(), None)?;
    let front = move || -> Box<dyn Handler> { Box::new(Front(Rc::clone(&target))) };
    proxy.core().listen(&mut bound, ListenConfig::new("rot13", Box::new(front)))?;
    Ok(proxy.run()?)
}
