//! Models of the mailbox: loom runs each of them under every order of its threads' steps (`make race`).

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread::{self, JoinHandle};

use super::*;
use crate::types::reason::Reason;

/// Returns a mailbox without a poll: [`wait`] stands for it.
pub(in crate::engine) fn mailbox(calls_max: usize) -> Arc<Mailbox> {
    let queue = Mutex::new(Queue::new());
    Arc::new(Mailbox { queue, waker: Waker::unregistered(), calls_max, room: Condvar::new() })
}

/// Waits for a wake-up and takes the mails, as the loop does. Returns the sides of the answers and the count of calls.
pub(in crate::engine) fn wait(mailbox: &Mailbox) -> (Vec<u64>, usize) {
    mailbox.waker.wait();
    let (mut mails, mut sides, mut calls) = (VecDeque::new(), Vec::new(), 0);
    mailbox.take(&mut mails);
    for mail in mails {
        match mail {
            Mail::Connected(side, _) => sides.push(side.index() as u64),
            Mail::Call(_) => calls += 1,
            Mail::Resolved(_) => sides.push(0),
            Mail::Accepted(_) | Mail::Finish(_) | Mail::SoleCall(_) => panic!("no model sends this"),
        }
    }
    (sides, calls)
}

/// Returns a mail that is never refused, with a number from 1.
pub(in crate::engine) fn answer(number: u64) -> Mail {
    Mail::Connected(Id::from_u64(1 << 32 | 2 << 28 | number).unwrap(), Err(Reason::Internal.into()))
}

/// Returns the side's number in a mail from [`answer`].
fn number(side: u64) -> u64 {
    side & u64::from(u32::MAX)
}

/// Counts how often it is dropped.
struct Drops(Arc<AtomicUsize>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn call(mailbox: &Mailbox, drops: &Arc<AtomicUsize>) -> Result<(), Full> {
    let held = Drops(Arc::clone(drops));
    mailbox.post(Mail::Call(Box::new(move |_| drop(held))))
}

fn spawn<T: 'static>(mailbox: &Arc<Mailbox>, body: impl FnOnce(&Mailbox) -> T + 'static) -> JoinHandle<T> {
    let mailbox = Arc::clone(mailbox);
    thread::spawn(move || body(&mailbox))
}

/// A wake-up that is lost, or that is sent before its mail is in the queue, leaves the loop waiting: a deadlock.
#[test]
fn each_mail_arrives_once_and_in_the_order_of_its_sender() {
    loom::model(|| {
        let mailbox = mailbox(0);
        let senders: Vec<_> = [10, 20]
            .into_iter()
            .map(|first| {
                spawn(&mailbox, move |mailbox| {
                    mailbox.post(answer(first)).unwrap();
                    mailbox.post(answer(first + 1)).unwrap();
                })
            })
            .collect();
        let mut got = Vec::new();
        while got.len() < 4 {
            got.extend(wait(&mailbox).0.into_iter().map(number));
        }
        let of = |first: u64| got.iter().copied().filter(|number| number / 10 * 10 == first).collect::<Vec<_>>();
        assert_eq!((of(10), of(20)), (vec![10, 11], vec![20, 21]));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_full_mailbox_refuses_calls_and_takes_one_again_when_one_has_run() {
    loom::model(|| {
        let (mailbox, drops) = (mailbox(1), Arc::default());
        let callers: Vec<_> = [1, 2]
            .into_iter()
            .map(|caller| {
                let drops = Arc::clone(&drops);
                spawn(&mailbox, move |mailbox| {
                    let is_taken = call(mailbox, &drops).is_ok();
                    mailbox.post(answer(caller)).unwrap();
                    is_taken
                })
            })
            .collect();
        let (mut answers, mut calls_run) = (0, 0);
        while answers < 2 {
            let (sides, calls) = wait(&mailbox);
            assert!(calls <= 1, "{calls} calls waited");
            answers += sides.len();
            calls_run += calls;
            mailbox.ran(calls);
        }
        let taken = callers.into_iter().filter_map(|caller| caller.join().unwrap().then_some(())).count();
        assert!(taken >= 1 && taken == calls_run);
        assert_eq!(drops.load(Ordering::Relaxed), 2, "a refused call is dropped, not kept");
        assert_eq!(call(&mailbox, &drops), Ok(()), "there is room again");
    });
}

#[test]
fn a_loop_that_is_gone_refuses_calls_beyond_the_limit_and_runs_none() {
    loom::model(|| {
        let (mailbox, drops) = (mailbox(2), Arc::default());
        let callers = [(); 2].map(|()| {
            let drops = Arc::clone(&drops);
            spawn(&mailbox, move |mailbox| (0..2).filter(|_| call(mailbox, &drops).is_ok()).count())
        });
        // The loop ends after one batch, whatever has come until then.
        let (mut mails, mut calls_run) = (VecDeque::new(), 0);
        mailbox.take(&mut mails);
        calls_run += mails.drain(..).count();
        mailbox.ran(calls_run);
        let taken: usize = callers.map(|caller| caller.join().unwrap()).iter().sum();
        assert!((2..=2 + calls_run).contains(&taken), "{taken} taken, {calls_run} of them run");
        let waiting = taken - calls_run;
        let later = (waiting..3).map(|_| call(&mailbox, &drops)).collect::<Vec<_>>();
        assert_eq!(later.last(), Some(&Err(Full)));
        assert_eq!(later.iter().filter(|later| later.is_ok()).count(), 2 - waiting);
        drop(mailbox);
        assert_eq!(drops.load(Ordering::Relaxed), 4 + later.len(), "nothing is leaked");
    });
}

/// A call that waits in a mailbox when the loop ends must be dropped, because its caller waits for that.
#[test]
fn a_mailbox_that_closes_while_calls_are_posted_keeps_none_of_them() {
    loom::model(|| {
        let (mailbox, drops) = (mailbox(2), Arc::default());
        let callers = [(); 2].map(|()| {
            let drops = Arc::clone(&drops);
            spawn(&mailbox, move |mailbox| call(mailbox, &drops))
        });
        mailbox.close();
        callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), Ok(())));
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

/// The loop must hear of the order, and the shortest time counts, whoever is first.
#[test]
fn orders_to_finish_wake_the_loop_and_the_shortest_time_is_heard() {
    loom::model(|| {
        let mailbox = mailbox(0);
        let orders = [3, 1].map(|seconds| spawn(&mailbox, move |mailbox| mailbox.finish(Duration::from_secs(seconds))));
        let (mut mails, mut shortest) = (VecDeque::new(), u64::MAX);
        while shortest > 1 {
            mailbox.waker.wait();
            mailbox.take(&mut mails);
            for mail in mails.drain(..) {
                let Mail::Finish(time) = mail else { panic!("no other mail is sent") };
                shortest = shortest.min(time.as_secs());
            }
        }
        orders.into_iter().for_each(|order| order.join().unwrap());
    });
}
