//! A server on a link: whatever name a peer asks for, its stream is ours, and we shout back; an address is connected. A
//! handler that panics ends its own stream only.
//!
//! `cargo run --example streams ADDR SECRET`; the peer runs `seaprox static --via ADDR` with the same secret.
use std::{error::Error, sync::Arc};

use seaprox::auth::NodeKey;
use seaprox::node::{Identity, SameKey, ServeConfig};
use seaprox::{Bind, Config, Cx, Failure, Handler, Proxy, Target, bind};

/// One stream: a pipe in both directions.
struct Shout;

impl Handler for Shout {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        assert!(!input.starts_with(b"panic"), "as asked");
        if cx.reply(&input.to_ascii_uppercase()) { input.len() } else { 0 }
    }

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, place, secret] = &args[..] else { return Err("streams ADDR SECRET".into()) };
    let key = NodeKey::from_any_secret(secret.as_bytes())?;
    let mut proxy = Proxy::new(Config::default(), None)?;
    for bound in &mut bind(&Bind::parse(place)?, 1, &Config::default())? {
        let mut config = ServeConfig::new(Identity::new(&key), Arc::new(SameKey(key.public())));
        config.on_stream = Some(Box::new(|_, target| match target {
            Target::Name(..) => Some(Box::new(Shout)),
            _ => None,
        }));
        proxy.core().serve_links(bound, config)?;
        println!("listening on {}", bound.addr());
    }
    Ok(proxy.run()?)
}
