//! A model of the sources: loom runs it under every order of its threads' steps (`make race`).

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use super::*;

#[test]
fn clients_of_one_network_on_three_loops_never_exceed_its_limit() {
    loom::model(|| {
        let network = PeerNetwork::V4([10, 0, 0, 1].into());
        let (sources, inside) = (Sources::new(1), Arc::new(AtomicUsize::new(0)));
        let client = move |sources: &Sources, inside: &AtomicUsize| {
            let is_taken = sources.enter(network);
            if is_taken {
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::Relaxed);
                sources.leave(network);
            }
            is_taken
        };
        let others = [(); 2].map(|()| {
            let (sources, inside) = (Arc::clone(&sources), Arc::clone(&inside));
            thread::spawn(move || client(&sources, &inside))
        });
        let own = client(&sources, &inside);
        let taken = others.map(|other| other.join().unwrap());
        assert!(own || taken.contains(&true), "the first client of all is taken");
        assert!(sources.counts.lock().unwrap().is_empty());
    });
}
