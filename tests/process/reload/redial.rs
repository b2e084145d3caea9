//! A link that is dialed again, and the listeners whose clients go over it.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use seaprox::config::{Forward, FrontEndConfig, Listener, Service};
use seaprox::link::Mode;
use seaprox::{Proto, Target};

use super::world::World;
use crate::config::{Client, Process, relay};

#[test]
fn no_client_is_refused_while_a_link_is_dialed_again_and_its_forwards_change() {
    let world = World::new(1);
    let to = |index: usize| FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, world.targets[index]));
    let config = |turn: usize| {
        let mut config = world.empty(2);
        let mut link = world.link("home", 0);
        link.mode = Some(if turn.is_multiple_of(2) { Mode::Single } else { Mode::Stripe });
        let listen = world.near_addrs[0].into();
        let name = if turn.is_multiple_of(3) { "db" } else { "data" };
        link.forwards = vec![Forward { name: name.into(), listen, service: Service::Local(to(turn % 2)) }];
        config.links = vec![link];
        let over = relay("over", &world.near_addrs[1].to_string(), world.targets[0]);
        config.listeners = vec![Listener { link: Some("home".into()), backlog: Some(8 + turn as u32), ..over }];
        config.loops.timeouts.idle = std::time::Duration::from_secs(100 + turn as u64);
        config
    };
    let mut process = Process::start(config(0));
    let is_done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = world.near_addrs[..2]
        .iter()
        .map(|addr| {
            let (addr, is_done) = (*addr, Arc::clone(&is_done));
            thread::spawn(move || {
                let (mut dialed, mut answered) = (0, 0);
                while !is_done.load(Ordering::Relaxed) {
                    let client = TcpStream::connect(addr).expect("the address never closes");
                    dialed += 1;
                    // The session may end before the answer.
                    answered += usize::from(Client::of(client).ask().is_ok());
                }
                (dialed, answered)
            })
        })
        .collect();
    for turn in 1..12 {
        let diff = process.running.apply(config(turn)).unwrap();
        assert!(diff.links.changed[0].is_redialed);
        let answer = Client::connect(world.near_addrs[0]).ask().unwrap();
        assert_eq!(answer, b'1' + (turn % 2) as u8, "a client waits for the new session");
        assert_eq!(Client::connect(world.near_addrs[1]).ask().unwrap(), b'1');
    }
    is_done.store(true, Ordering::Relaxed);
    for client in clients {
        let (dialed, answered) = client.join().unwrap();
        assert!(answered > 0 && dialed >= answered);
    }
}
