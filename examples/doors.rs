//! Opens and closes a listener, forwards and a link while traffic runs, and prints each event of the loop.
//!
//! `cargo run --example doors PEER:PORT SECRET TARGET:PORT`; the peer runs `seaprox link` with the same secret. Commands are
//! lines of standard input: `open` or `close`, and `echo`, `local` or `remote`; and `close link`.
use std::{error::Error, io, sync::Arc, time::Duration};

use seaprox::auth::NodeKey;
use seaprox::node::{ForwardConfig, Identity, LinkConfig, SameKey};
use seaprox::{Bind, Config, Cx, Event, Failure, Handler, Id, ListenConfig, Loop, Observer, Proxy, Target, bind};

struct Prints;
impl Observer for Prints {
    fn event(&mut self, core: &mut Loop<'_>, event: Event) {
        println!("{event:?}");
        core.forwards().iter().for_each(|it| println!("{} {} {}", it.name, it.state, it.addresses().join(" ")));
        core.listeners().iter().for_each(|it| println!("{} {}", it.name, it.address()));
    }
}

struct Echo;
impl Handler for Echo {
    fn opened(&mut self, _: &mut Cx<'_>) {}
    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}
    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        _ = cx.reply(input);
        input.len()
    }
}

fn run(core: &mut Loop<'_>, link: Id, target: Target, command: &str) -> Result<(), Box<dyn Error>> {
    let (name, place) = (command.split_once(' ').map(|(_, name)| name.to_owned()), Bind::parse("127.0.0.1:0")?);
    match command {
        "open echo" => {
            let (echo, mut bounds) = (Box::new(|| Box::new(Echo) as _), bind(&place, 1, core.config())?);
            core.listen(&mut bounds[0], ListenConfig { name, ..ListenConfig::new("echo", echo) }).map(drop)?;
        }
        "open local" => _ = core.open_forward(ForwardConfig { name, ..ForwardConfig::local(link, place, target) })?,
        "open remote" => _ = core.open_forward(ForwardConfig { name, ..ForwardConfig::remote(link, place, target) })?,
        "close echo" => {
            let listener = core.listener_named("echo").ok_or("closed")?;
            core.listener(listener)?.unlisten()?;
        }
        "close link" => core.link(link)?.close()?,
        command => {
            let forward = core.forward_named(command.trim_start_matches("close ")).ok_or("closed, or no command")?;
            core.forward(forward)?.close()?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, peer, secret, target] = &args[..] else { return Err("doors PEER SECRET TARGET".into()) };
    let (key, target, mut proxy) =
        (NodeKey::from_secret(secret.as_bytes())?, Target::parse(target)?, Proxy::new(Config::default(), None)?);
    proxy.core().set_observer(Box::new(Prints));
    let config = LinkConfig::new(Identity::new(&key), Arc::new(SameKey(key.public())), Target::parse(peer)?);
    let (link, remote) = (proxy.core().connect_link(config)?.id, proxy.remote());
    std::thread::spawn(move || {
        for command in io::stdin().lines().map_while(Result::ok) {
            let target = target.clone();
            let call = move |core: &mut Loop<'_>| run(core, link, target, &command).unwrap_or_else(|e| println!("{e}"));
            _ = remote.call(call);
        }
        _ = remote.call(|core| core.drain(Duration::from_secs(1)));
    });
    Ok(proxy.run()?)
}
