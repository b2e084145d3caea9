//! Models of the workers: loom runs each of them under every order of its threads' steps (`make race`).

use std::sync::atomic::AtomicUsize;

use loom::sync::Notify;

use super::*;
use crate::engine::mailbox::models::{answer, mailbox, wait};

const A: Asker = Asker::Key([1; 32]);
const B: Asker = Asker::Key([2; 32]);

/// Waits for as many answers as jobs have to post.
fn wait_for(mailbox: &Mailbox, count: usize) {
    let mut got = 0;
    while got < count {
        got += wait(mailbox).0.len();
    }
    assert_eq!(got, count, "each job runs once");
}

/// Ends the workers as a drop does. Loom reports a deadlock if one of their threads does not end.
fn stop(workers: Arc<Workers>) {
    drop(workers);
}

#[test]
fn a_job_wakes_a_worker_that_waits_and_a_stop_ends_all_workers() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(2, 4).unwrap(), mailbox(0));
        for number in [1, 2] {
            let mailbox = Arc::clone(&mailbox);
            workers.run(move || mailbox.post(answer(number)).unwrap()).unwrap();
        }
        wait_for(&mailbox, 2);
        stop(workers);
    });
}

#[test]
fn a_stop_while_jobs_wait_runs_each_once_or_drops_it() {
    loom::model(|| {
        let mut workers = Workers::start(2, 4).unwrap();
        let (ran, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        for _ in 0..2 {
            let (ran, held) = (Arc::clone(&ran), Arc::clone(&held));
            workers.run(move || drop((held, ran.fetch_add(1, Ordering::Relaxed)))).unwrap();
        }
        let threads = std::mem::take(&mut Arc::get_mut(&mut workers).unwrap().threads);
        stop(workers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(ran.load(Ordering::Relaxed) <= 2);
        assert_eq!(Arc::strong_count(&held), 1, "a job is left");
    });
}

#[test]
fn a_full_queue_refuses_a_job_and_runs_those_that_it_took() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(1, 1).unwrap(), mailbox(0));
        let post = |number| {
            let mailbox = Arc::clone(&mailbox);
            workers.run(move || mailbox.post(answer(number)).unwrap())
        };
        let taken = [1, 2, 3].map(post).iter().filter(|taken| taken.is_ok()).count();
        assert!(taken >= 1);
        wait_for(&mailbox, taken);
        stop(workers);
    });
}

/// Half of two threads is one: it has both connects one after the other, while the other thread runs another kind of job.
#[test]
fn connects_that_block_leave_half_of_the_threads_to_other_jobs() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(2, 4).unwrap(), mailbox(0));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let release = Arc::new(Notify::new());
        for (asker, number) in [(A, 1), (B, 2)] {
            let (mailbox, running, most) = (Arc::clone(&mailbox), Arc::clone(&running), Arc::clone(&most));
            let release = Arc::clone(&release);
            let connect = move || {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                if number == 1 {
                    release.wait();
                }
                mailbox.post(answer(number)).unwrap();
                running.fetch_sub(1, Ordering::Relaxed);
            };
            workers.connect(asker, connect).unwrap();
        }
        workers.run(move || release.notify()).unwrap();
        wait_for(&mailbox, 2);
        assert_eq!(most.load(Ordering::Relaxed), 1, "connects run at once");
        stop(workers);
    });
}

#[test]
fn an_own_connect_of_the_process_runs_beside_one_of_an_asker_that_blocks() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(2, 4).unwrap(), mailbox(0));
        let release = Arc::new(Notify::new());
        let (blocks, posts) = (Arc::clone(&release), Arc::clone(&mailbox));
        workers
            .connect(A, move || {
                blocks.wait();
                posts.post(answer(1)).unwrap();
            })
            .unwrap();
        workers.connect(Asker::Own, move || release.notify()).unwrap();
        wait_for(&mailbox, 1);
        stop(workers);
    });
}

/// The end of the first connect of the process frees two places: one for a connect of an asker, one for the next of the
/// process. The worker that becomes free takes one, and must wake the other worker.
#[test]
fn a_place_that_becomes_free_wakes_a_worker_that_waits() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(2, 4).unwrap(), mailbox(0));
        let release = Arc::new(Notify::new());
        let (blocks, posts) = (Arc::clone(&release), Arc::clone(&mailbox));
        workers.connect(A, || ()).unwrap();
        workers.connect(Asker::Own, || ()).unwrap();
        workers
            .connect(B, move || {
                blocks.wait();
                posts.post(answer(1)).unwrap();
            })
            .unwrap();
        workers.connect(Asker::Own, move || release.notify()).unwrap();
        wait_for(&mailbox, 1);
        stop(workers);
    });
}

#[test]
fn the_answer_of_a_lookup_wakes_its_loop() {
    loom::model(|| {
        let (workers, mailbox) = (Workers::start(1, 4).unwrap(), mailbox(0));
        // The lookup is late at once, so that the model does not ask a resolver.
        let patience = Duration::from_nanos(1);
        let mut lookup = Lookup::new(Name::new("localhost").unwrap(), patience, Arc::clone(&mailbox), Arc::default());
        lookup.since = lookup.since.checked_sub(patience).unwrap();
        workers.look_up(A, lookup).unwrap();
        wait_for(&mailbox, 1);
        stop(workers);
    });
}
