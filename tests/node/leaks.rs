//! A link holds no resources after thousands of connections that ended in every way, with cuts of the link. Over real
//! sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::Bind;
use seaprox::node::{CarrierKind, LinkEvent, SubflowState};

/// Ends a socket in one of four ways.
fn end(mut socket: TcpStream, how: usize) {
    match how % 4 {
        0 => socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap(),
        1 => drop(socket.write_all(&[7; 3000])),
        2 => {
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
            let _ = socket.read(&mut [0; 1000]);
        }
        _ => {}
    }
}

/// Starts a server that ends its connections in the same four ways as its clients.
fn fickle(listener: TcpListener) {
    thread::spawn(move || {
        for (how, socket) in listener.incoming().flatten().enumerate() {
            thread::spawn(move || end(socket, how / 3));
        }
    });
}

#[test]
fn thousands_of_connections_leave_no_resources() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let (listener, inner) = target();
    fickle(listener);
    let link = client.link_with(cutter.addr, move |config| {
        (config.carrier, config.subflows) = (CarrierKind::Tcp, 2);
        config.reverse = vec![Node::reverse(Bind::parse("127.0.0.1:0").unwrap(), inner)];
    });
    let front = client.forward(link, inner.into());
    until("the remote listener is up", || client.has(|h| matches!(h, LinkEvent::Listening { .. })));
    let port = client.links()[0].listeners[0].port.unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Most cuts meet what is there after 40 ms. Some meet an established link, however slow the machine is.
            for cut in 1.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                cutter.cut();
                thread::sleep(Duration::from_millis(40)); // The interval of the cuts.
                if cut % 4 == 0 {
                    let is_live =
                        || client.links()[0].subflows.iter().any(|subflow| subflow.state == SubflowState::Live);
                    until("the link has a live subflow", is_live);
                }
            }
        });
        let workers = [0, 1, 2, 3].map(|worker| {
            scope.spawn(move || {
                for how in 0..500 {
                    let addr = if how % 5 == 0 { ([127, 0, 0, 1], port).into() } else { front };
                    end(connect(addr), how + worker);
                }
            })
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    for node in [&client, &server] {
        until("the node has no connection left", || node.ask(|core| core.usage().connections) == 0);
        until("no stream is left", || node.links()[0].streams == 0);
        until("the link has two live subflows", || {
            node.links()[0].subflows.iter().filter(|s| s.state == SubflowState::Live).count() == 2
        });
        let usage = node.ask(|core| core.usage());
        assert_eq!((usage.sides, usage.buffer_bytes, usage.pipes), (2, 0, 0), "{usage:?}");
    }
    client.ask(move |core| core.link(link).unwrap().close().unwrap());
    for node in [&client, &server] {
        until("the link is gone", || node.links().is_empty());
        assert_eq!(node.ask(|core| core.usage().sides), 0);
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the remote port is closed");
}
