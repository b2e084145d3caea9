//! Clients that the system redirects to a listener: a front end of a few lines connects them where they wanted to go.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use seaprox::{Bind, Config, Cx, Failure, Handler, ListenConfig, Proxy, Reason, Target, bind};

use crate::kit::Step::{Put, Take};
use crate::kit::names::{ip, isolated};
use crate::kit::{Peer, has_namespaces};

/// Relays each client to the address that it connected to.
struct Redirect;

impl Handler for Redirect {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        match cx.original_dest() {
            Some(addr) => _ = cx.connect(Target::from(addr), None),
            None => cx.close(Reason::NotPermitted),
        }
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_redirected_client_reaches_the_address_that_it_connected_to() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        for addr in ["198.51.100.7/32", "2001:db8::7/128"] {
            ip(&format!("addr add {addr} dev lo{}", if addr.contains(':') { " nodad" } else { "" }));
        }
        let mut bounds = bind(&Bind::parse(":0").unwrap(), 1, &Config::default()).unwrap();
        let port = bounds[0].addr().ip().unwrap().port();
        let rules = format!(
            "table inet redirected {{ chain out {{ type nat hook output priority -100; \
             tcp sport 1000-2000 tcp dport 81 redirect to :{port}; }}; }}"
        );
        let servers = ["198.51.100.7:81", "[2001:db8::7]:81"].map(|at| TcpListener::bind(at).unwrap());
        let ran = Command::new("nft").arg(rules).output().unwrap();
        assert!(ran.status.success(), "nft: {}", String::from_utf8_lossy(&ran.stderr));
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut proxy = Proxy::new(Config::default(), None).unwrap();
                proxy
                    .core()
                    .listen(&mut bounds[0], ListenConfig::new("redirect", Box::new(|| Box::new(Redirect))))
                    .unwrap();
                tell.send(proxy.remote()).unwrap();
                proxy.run().unwrap();
            });
            let remote = told.recv().unwrap();
            for (number, server) in servers.iter().enumerate() {
                let to = server.local_addr().unwrap();
                let mut client = connect_from(1000 + number as u16, to);
                let mut server = Peer::accept(server);
                client.run(&[Put(b"ask")]);
                server.run(&[Take(b"ask"), Put(b"answer")]);
                client.run(&[Take(b"answer")]);
            }
            // A client of the port itself was not redirected.
            let direct = Peer::connect(SocketAddr::from(([127, 0, 0, 1], port)));
            assert_eq!(direct.socket().read(&mut [0]).unwrap_or(0), 0);
            remote.call(|core| core.stop()).unwrap();
        });
    });
}

/// Connects from a port that the rule applies to. The connects of the proxy come from other ports.
fn connect_from(port: u16, to: SocketAddr) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], port).into() } else { ([0; 8], port).into() };
    socket.bind(&any.into()).unwrap();
    socket.connect_timeout(&to.into(), Duration::from_secs(20)).unwrap();
    Peer::of(socket, true)
}
