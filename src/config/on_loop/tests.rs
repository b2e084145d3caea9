//! Calls into a loop that does not answer in time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::*;
use crate::Proxy;
use crate::engine::limits::{Config, Limits};

const SHORT: Duration = Duration::from_millis(20);

fn proxy(calls: usize) -> Proxy {
    let limits = Limits { calls, ..Limits::default() };
    Proxy::new(Config { limits, ..Config::default() }, None).unwrap()
}

#[test]
fn a_call_that_a_loop_has_not_begun_in_time_never_runs() {
    let (mut proxy, ran) = (proxy(8), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&ran);
    let result = on_loop_within(SHORT, &proxy.core().remote(), move |_| count.fetch_add(1, Ordering::Relaxed));
    assert!(matches!(result, Err(ApplyFailure::NoAnswer)));
    proxy.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 0);
}

#[test]
fn the_state_is_unknown_if_a_loop_does_not_end_a_call_that_it_has_begun() {
    let (mut proxy, since) = (proxy(8), Instant::now());
    loop {
        let remote = proxy.core().remote();
        let (caller_lives, is_over) = mpsc::channel::<()>();
        // The call ends after its caller has given up.
        let caller = thread::spawn(move || {
            let _lives = caller_lives;
            on_loop_within(SHORT * 10, &remote, move |_| is_over.recv())
        });
        while !caller.is_finished() {
            proxy.turn(Some(Duration::from_millis(1))).unwrap();
        }
        match caller.join().unwrap() {
            Err(ApplyFailure::Unknown) => break,
            // The loop began too late, on a busy machine.
            other => assert!(matches!(other, Err(ApplyFailure::NoAnswer)) && since.elapsed() < PATIENCE, "{other:?}"),
        }
    }
}

#[test]
fn a_call_waits_for_room_in_a_full_mailbox() {
    let mut proxy = proxy(1);
    let remote = proxy.core().remote();
    remote.call(|_| ()).unwrap();
    assert!(matches!(on_loop_within(SHORT, &remote, |_| ()), Err(ApplyFailure::NoAnswer)), "there is no room");
    let caller = thread::spawn(move || on_loop(&remote, |_| 7));
    let since = Instant::now();
    while !caller.is_finished() {
        assert!(since.elapsed() < PATIENCE, "the caller waits on");
        proxy.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(caller.join().unwrap().unwrap(), 7);
}

#[test]
fn a_loop_that_has_ended_does_not_answer() {
    let mut proxy = proxy(1);
    let remote = proxy.core().remote();
    drop(proxy);
    assert!(matches!(on_loop(&remote, |_| ()), Err(ApplyFailure::NoAnswer)));
}
