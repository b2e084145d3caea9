//! A client on a link: opens a stream to a target through a peer, sends a line and prints the answer.
//!
//! The stream has no socket at this end: a handler writes and reads its bytes.
//!
//! `cargo run --example stream PEER:PORT SECRET TARGET:PORT [LINE]`; the peer runs `seaprox link` with the same secret.
use std::{error::Error, sync::Arc, time::Duration};

use seaprox::auth::NodeKey;
use seaprox::node::{Identity, LinkConfig, SameKey};
use seaprox::{Cause, Config, Cx, Failure, Handler, Proxy, Target};

/// Sends one line and prints the line that comes back.
struct Ask(String);

impl Handler for Ask {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => _ = cx.reply(format!("{}\n", self.0).as_bytes()),
            Err(failure) => println!("refused: {failure}"), // The stream ends, and `ended` stops the program.
        }
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return 0 };
        println!("{}", String::from_utf8_lossy(&input[..end]));
        let reason = cx.fin_reason();
        cx.close(reason);
        end + 1
    }

    fn ended(&mut self, cx: &mut Cx<'_>, _: Cause) {
        cx.core().drain(Duration::from_secs(5)); // Closes the link in order, then `run` returns.
        let reason = cx.fin_reason();
        cx.close(reason);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, peer, secret, target, line @ ..] = &args[..] else { return Err("stream PEER SECRET TARGET [LINE]".into()) };
    let line = line.first().map_or("hello", String::as_str).to_owned();
    let key = NodeKey::from_secret(secret.as_bytes())?; // Both nodes derive the same key from the secret.
    let mut proxy = Proxy::new(Config::default(), None)?;
    let config = LinkConfig::new(Identity::new(&key), Arc::new(SameKey(key.public())), Target::parse(peer)?);
    let link = proxy.core().connect_link(config)?.id;
    proxy.core().link(link)?.open_stream(Target::parse(target)?, Box::new(Ask(line)))?;
    Ok(proxy.run()?)
}
