//! A whole configuration from text. It is put into effect as `seaprox run` does: the loop runs meanwhile, because a helper
//! thread makes the parts and hands them to the loop.

use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use seaprox::config::{ApplyErrors, Config, Link, Maker, Running, StatusSocket};
use seaprox_proxies::{Parts, embedded};

use crate::current;
use crate::error::Error;
use crate::handle::{RawLoop, Record, number, record, with};
use crate::memory::Chars;
use crate::the_loop::turn;

export! {
    fn seaprox_apply(raw: RawLoop, toml: Chars, len: usize) {
        let record = record(raw)?;
        let text = toml.of(len)?;
        if current::is_lent(record.handle) {
            return Err(Error::busy());
        }
        let config = embedded::parse(text).map_err(Error::config)?;
        apply(&record, config)?;
        Ok(0)
    }

    fn seaprox_check(toml: Chars, len: usize) {
        embedded::parse(toml.of(len)?).map_err(Error::config)?;
        Ok(0)
    }
}

export_found! {
    fn seaprox_link_named(raw: RawLoop, name: Chars, len: usize) -> u64, 0; {
        let name = name.of(len)?;
        with(raw, |record, core| {
            let running = record.running.try_borrow().map_err(|_| Error::busy())?;
            // There is none while a change is made.
            let Some(group) = running.as_ref().and_then(|running| running.group(name)) else { return Ok(0) };
            let is_group = running.as_ref().and_then(|it| it.config().link(name)).is_some_and(Link::is_group);
            let links = core.group(group)?.links();
            Ok(number(links.first().copied().filter(|_| !is_group).or(Some(group))))
        })
    }
}

fn apply(record: &Rc<Record>, config: Config) -> Result<c_int, Error> {
    let (config, remote) = {
        let mut proxy = record.proxy.try_borrow_mut().map_err(|_| Error::busy())?;
        let core = proxy.core();
        (fitted(config, core.config()), core.remote())
    };
    let (tell, told) = mpsc::channel();
    let (give, given) = mpsc::channel::<Option<Running>>();
    let first_parts = Arc::new(Parts::new(&config));
    let work = move || {
        let Ok(known) = given.recv() else { return };
        let result = match known {
            Some(mut running) => {
                let result = running.apply(config).map(drop);
                (Some(running), result)
            }
            None => {
                let maker: Arc<dyn Maker> = first_parts;
                match Running::over(&remote, config, maker) {
                    Ok(running) => (Some(running), Ok(())),
                    Err(errors) => (None, Err(errors)),
                }
            }
        };
        // The receiver waits for this.
        let _ = tell.send(result);
        remote.wake();
    };
    let thread = thread::Builder::new().name("apply".into()).spawn(work)?;
    // The thread waits for it, and keeps it if it panics.
    let _ = give.send(record.running.take());
    let (running, result) = wait(record, &told)?;
    // It has sent its result.
    let _ = thread.join();
    record.running.replace(running);
    result.map(|()| 0).map_err(Error::config)
}

type Applied = (Option<Running>, Result<(), ApplyErrors>);

/// Runs the loop until the thread has its result.
fn wait(record: &Record, told: &mpsc::Receiver<Applied>) -> Result<Applied, Error> {
    let gone = || Error::config("the change has failed");
    loop {
        match told.try_recv() {
            Ok(applied) => return Ok(applied),
            Err(mpsc::TryRecvError::Disconnected) => return Err(gone()),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if !turn(record, Some(TURN))? {
            // The mailbox of a loop that has ended drops all calls, so the thread does not wait for it.
            return match told.recv_timeout(PATIENCE) {
                Ok(applied) => Ok(applied),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(gone()),
            };
        }
    }
}

/// Returns the configuration with what the loop has had from its start.
fn fitted(config: Config, of_loop: &seaprox::Config) -> Config {
    let loops = seaprox::Config { limits: of_loop.limits.clone(), ..config.loops };
    Config { threads: 1, status: StatusSocket::Off, loops, ..config }
}

/// The longest turn while a change is made; the thread wakes the loop.
const TURN: Duration = Duration::from_millis(50);
/// The longest wait for the thread of a loop that has ended.
const PATIENCE: Duration = Duration::from_secs(5);
