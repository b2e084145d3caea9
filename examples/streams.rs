//! A server on a link: a handler answers each stream that a peer opens to a name, in capitals.
//!
//! The streams have no socket at this end. A stream to an address, not to a name, is connected as usual. A handler that
//! panics ends its own stream only.
//!
//! `cargo run --example streams ADDR SECRET`; the peer runs `seaprox static --via ADDR` with the same secret.
use std::{error::Error, sync::Arc};

use seaprox::auth::NodeKey;
use seaprox::node::{Identity, SameKey, ServeConfig};
use seaprox::{Bind, Config, Cx, Failure, Handler, Proxy, Target, bind};

/// Handles one stream: replies to all bytes with the same bytes in capitals.
struct Shout;

impl Handler for Shout {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        assert!(!input.starts_with(b"panic"), "the client asked for a panic");
        // A reply is taken whole or not at all. If it was not, the input is left for the next call.
        if cx.reply(&input.to_ascii_uppercase()).is_ok() { input.len() } else { 0 }
    }

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, addr, secret] = &args[..] else { return Err("streams ADDR SECRET".into()) };
    let key = NodeKey::from_secret(secret.as_bytes())?; // Both nodes derive the same key from the secret.
    let mut proxy = Proxy::new(Config::default(), None)?;
    for bound in &mut bind(&Bind::parse(addr)?, 1, &Config::default())? {
        let mut config = ServeConfig::new(Identity::new(&key), Arc::new(SameKey(key.public())));
        config.on_stream = Some(Box::new(|_, target| match target {
            Target::Name(..) => Some(Box::new(Shout)), // This handler takes the stream.
            _ => None,                                 // The node connects to the address.
        }));
        proxy.core().serve_links(bound, config)?;
        println!("listening on {}", bound.addr());
    }
    Ok(proxy.run()?)
}
