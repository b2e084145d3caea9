//! A relay with a connector of its own: the loop hands each dial to another thread.
//!
//! The thread connects in its own way and answers with a descriptor or with a failure. Use a connector to reach targets
//! through a tunnel, or to resolve names by other means than the system's.
//!
//! `cargo run --example connector -- 7001 localhost:22`, then `ssh -p 7001 localhost`
use std::error::Error;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};

use seaprox::{Answer, Bind, Config, Connector, Cx, Failure, Handler, ListenConfig, Proxy, Target, bind};

/// Relays every client to one target.
struct Static(Rc<Target>);

impl Handler for Static {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        _ = cx.connect(Rc::clone(&self.0), None);
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0 // Consumes nothing: the loop keeps the client's first bytes and relays them after `relay`.
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

/// The part that runs in the loop. It must not block, so it only sends each dial to the thread.
struct Outside(Sender<(Target, Answer)>);

impl Connector for Outside {
    fn wants(&self, target: &Target) -> bool {
        !matches!(target, Target::Unix(_)) // The loop itself connects to Unix sockets.
    }

    fn connect(&mut self, target: &Target, answer: Answer) {
        // If the thread has ended, `send` drops the answer, and a dropped answer fails the dial.
        let _ = self.0.send((target.clone(), answer));
    }
}

/// The part that runs in the thread. It may block and may answer in any order; the loop discards a late answer.
fn connect(target: &Target, answer: Answer) {
    match TcpStream::connect(target.to_string()) {
        Ok(socket) => answer.connected(socket),
        Err(error) => answer.failed(Failure::from(&error)),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let addr = Bind::parse(&args.next().unwrap_or("7001".into()))?;
    let target = Rc::new(Target::parse(&args.next().unwrap_or("127.0.0.1:22".into()))?);

    let (sender, dials) = mpsc::channel::<(Target, Answer)>();
    std::thread::spawn(move || dials.iter().for_each(|(target, answer)| connect(&target, answer)));

    let config = Config::default();
    let mut bounds = bind(&addr, 1, &config)?;
    let mut proxy = Proxy::new(config, None)?; // No workers: the connector resolves the names.
    proxy.core().set_connector(Box::new(Outside(sender)));
    for bound in &mut bounds {
        println!("listening on {}", bound.addr());
        let target = Rc::clone(&target);
        let front_end = Box::new(move || -> Box<dyn Handler> { Box::new(Static(Rc::clone(&target))) });
        proxy.core().listen(bound, ListenConfig::new("static", front_end))?;
    }
    Ok(proxy.run()?)
}
