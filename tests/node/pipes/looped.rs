//! Pipes that a loop drives: by watches of their descriptors, and by wakers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seaprox::pipes::{MemoryPipe, Pipe, Readiness, loop_waker};
use seaprox::{Config, Interest, Proxy};

use crate::node_kit::pipes::*;

/// Sends back what comes, and the FIN.
fn echo(pipe: &mut dyn Pipe, waiting: &mut Vec<u8>) {
    let ended = waiting.len() < 1 << 20 && receive_some(pipe, waiting);
    let sent = send_some(pipe, waiting);
    waiting.drain(..sent);
    if ended && waiting.is_empty() {
        pipe.finish().unwrap();
    }
}

/// Sends `bytes` and a FIN, and turns the loop until all of it has come back.
#[track_caller]
fn expect_echo(proxy: &mut Proxy, pipe: &mut dyn Pipe, bytes: &[u8]) {
    let (mut sent, mut got, mut patience) = (0, Vec::new(), Patience::new());
    loop {
        assert!(!patience.is_over(), "{sent} sent, {} have come back", got.len());
        pipe.drive(Readiness::BOTH).unwrap();
        let before = (sent, got.len());
        sent += if sent < bytes.len() { send_some(pipe, &bytes[sent..]) } else { 0 };
        if sent == bytes.len() {
            pipe.finish().unwrap();
        }
        if receive_some(pipe, &mut got) {
            break;
        }
        if (sent, got.len()) != before {
            patience.restart();
        }
        proxy.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert!(got == bytes);
}

fn interest(pipe: &dyn Pipe) -> Option<Interest> {
    match (pipe.wants_read(), pipe.wants_write()) {
        (true, true) => Some(Interest::Both),
        (true, false) => Some(Interest::Readable),
        (false, true) => Some(Interest::Writable),
        (false, false) => None,
    }
}

#[test]
fn a_loop_drives_a_pipe_with_a_descriptor_by_a_watch() {
    let mut proxy = Proxy::new(Config::default(), None).unwrap();
    let [mut near, far] = tls(tcp());
    let (far, mut waiting) = (Rc::new(RefCell::new(far)), Vec::new());
    let driven = Rc::clone(&far);
    let borrowed = far.borrow();
    proxy
        .core()
        .watch(borrowed.descriptor().unwrap(), Interest::Readable, move |core, id, ready| {
            let mut pipe = driven.borrow_mut();
            pipe.drive(Readiness { read: ready.readable || ready.closed, write: ready.writable }).unwrap();
            echo(&mut *pipe, &mut waiting);
            match interest(&*pipe) {
                Some(interest) => core.modify_watch(id, interest).unwrap(),
                None => core.unwatch(id).unwrap(),
            }
        })
        .unwrap();
    drop(borrowed);
    expect_echo(&mut proxy, &mut near, &vec![7; 3_000_000]);
    assert!(far.borrow().fin_sent() && far.borrow().fin_received());
}

#[test]
fn a_loop_drives_a_pipe_without_a_descriptor_by_a_waker() {
    let mut proxy = Proxy::new(Config::default(), None).unwrap();
    let (mut near, far) = MemoryPipe::pair(10_000);
    let far = Arc::new(Mutex::new((far, Vec::new())));
    let driven = Arc::clone(&far);
    let waker = loop_waker(&proxy.remote(), move |_| {
        let (pipe, waiting) = &mut *driven.lock().unwrap();
        echo(pipe, waiting);
    });
    far.lock().unwrap().0.set_waker(&waker);
    expect_echo(&mut proxy, &mut near, &vec![7; 300_000]);
    assert!(far.lock().unwrap().0.fin_sent());
}
