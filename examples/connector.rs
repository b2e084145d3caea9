//! A connector of one's own: every dial of the loop is handed to another thread, which connects as it likes and answers
//! with a descriptor or with a reason. A program that tunnels, or that resolves names by other means, does it like this.
//!
//! `cargo run --example connector -- 7001 localhost:22`, and then `ssh -p 7001 localhost`
use std::error::Error;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc::{self, Sender};

use seaprox::{Answer, Bind, Config, Connector, Cx, Failure, Handler, Proxy, Target, bind};

/// Relays every client to one target.
struct Static(Rc<Target>);

impl Handler for Static {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.connect(Rc::clone(&self.0), None);
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.end(failure.reason),
        }
    }
}

/// The loop's half of the connector: it only passes on what there is to do.
struct Outside(Sender<(Target, Answer)>);

impl Connector for Outside {
    fn wants(&self, target: &Target) -> bool {
        !matches!(target, Target::Unix(_)) // The loop connects those itself.
    }

    fn connect(&mut self, target: &Target, answer: Answer) {
        // If the thread is gone the answer is dropped, which fails the dial.
        let _ = self.0.send((target.clone(), answer));
    }
}

/// The other half: it may block, and it may answer in any order. An answer that comes too late is harmless.
fn connect(target: &Target, answer: Answer) {
    match TcpStream::connect(target.to_string()) {
        Ok(socket) => answer.connected(socket.into()),
        Err(error) => answer.failed(Failure::from(&error)),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let place = Bind::parse(&args.next().unwrap_or("7001".into()))?;
    let target = Rc::new(Target::parse(&args.next().unwrap_or("127.0.0.1:22".into()))?);

    let (sender, dials) = mpsc::channel::<(Target, Answer)>();
    std::thread::spawn(move || dials.iter().for_each(|(target, answer)| connect(&target, answer)));

    let config = Config::default();
    let mut bounds = bind(&place, 1, &config)?;
    let mut proxy = Proxy::new(config, None)?; // It looks no names up, so it needs no workers.
    proxy.core().set_connector(Box::new(Outside(sender)));
    for bound in &mut bounds {
        println!("listening on {}", bound.addr());
        let target = Rc::clone(&target);
        proxy.core().listen(bound, &[], "static", Box::new(move || Box::new(Static(Rc::clone(&target)))))?;
    }
    Ok(proxy.run()?)
}
