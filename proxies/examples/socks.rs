//! A SOCKS proxy in a program of its own: the front ends are a library, and a configuration says where they listen.
//!
//! usage: socks [ADDR]

use std::error::Error;

use seaprox::Bind;
use seaprox::config::{Config, FrontEndConfig, Listener};

fn main() -> Result<(), Box<dyn Error>> {
    let addr = Bind::parse(&std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1080".to_owned()))?;
    let socks = Listener::new("socks", vec![addr], FrontEndConfig::new("socks"));
    let config = Config { listeners: vec![socks], ..Config::default() };
    let (running, loops) = seaprox_proxies::start(config)?;
    running.listening().iter().for_each(|it| println!("listening on {}", it.addr));
    Ok(loops.join()?)
}
