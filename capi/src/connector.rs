//! The external connector: code of the caller that connects dests in place of the loop, in threads of its own.
//!
//! ```text
//!   connect ─► Proxied keeps the answer under a number ─► the next turn ─► C callback ─► any thread ─► connected | failed
//! ```

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use seaprox::{Answer, Connector, Failure, Reason, Remote, Target, VerbError};

use crate::adopt::duplex;
use crate::current::lend;
use crate::error::Error;
use crate::handle::{self, RawLoop, with};
use crate::reason::reason_of;

/// A `seaprox_connect_request *`. Like that of a loop, it is a number.
pub type RawRequest = *mut c_void;

/// A function that begins to connect.
pub type ConnectFn = Option<unsafe extern "C" fn(RawLoop, RawRequest, u64, *const c_char, usize, u16, *mut c_void)>;

struct External {
    handle: usize,
    remote: Remote,
    callback: unsafe extern "C" fn(RawLoop, RawRequest, u64, *const c_char, usize, u16, *mut c_void),
    user: *mut c_void,
}

/// The requests of all loops that were not answered yet, each with the handle of its loop.
static REQUESTS: Mutex<BTreeMap<usize, (usize, Answer)>> = Mutex::new(BTreeMap::new());

/// Numbers of requests are multiples of 16, as those of loops are, and never given twice.
static NEXT: AtomicUsize = AtomicUsize::new(16);

/// The user pointer on its way through the mailbox of its own loop. It stays in the thread of the loop.
struct Own(*mut c_void);

// SAFETY: the loop that gets it runs in the thread that it comes from.
unsafe impl Send for Own {}

impl Own {
    fn take(self) -> *mut c_void {
        self.0
    }
}

impl Connector for External {
    fn wants(&self, _: &Target) -> bool {
        true
    }

    fn connect(&mut self, target: &Target, answer: Answer) {
        let (host, port) = match target {
            Target::Unix(path) => (format!("unix:{}", path.display()), 0),
            Target::Ip(_, addr) => (addr.ip().to_string(), addr.port()),
            Target::Name(_, name, port) => (name.as_str().to_owned(), *port),
        };
        // No host contains a zero.
        let host = CString::new(host).unwrap_or_default();
        let (handle, callback, user, side) = (self.handle, self.callback, Own(self.user), answer.side().to_u64());
        let number = NEXT.fetch_add(16, Ordering::Relaxed);
        requests().insert(number, (handle, answer));
        // The loop is in the middle of a verb, so the callback runs when it is not.
        let called = self.remote.call(move |core| {
            let (user, len) = (user.take(), host.as_bytes().len());
            let request = number as RawRequest;
            lend(handle, core, || {
                // SAFETY: the header says what the function is called with.
                unsafe { callback(handle::raw(handle), request, side, host.as_ptr(), len, port, user) };
            });
        });
        if called.is_err()
            && let Some((_, answer)) = take(number)
        {
            answer.failed(Failure::new(Reason::LimitReached, "too many calls wait for the loop"));
        }
    }
}

export! {
    fn seaprox_set_connector(raw: RawLoop, callback: ConnectFn, user: *mut c_void) {
        let callback = callback.ok_or_else(|| Error::invalid("the function is null"))?;
        with(raw, |record, core| {
            let (handle, remote) = (record.handle, core.remote());
            core.set_connector(Box::new(External { handle, remote, callback, user }));
            Ok(0)
        })
    }

    fn seaprox_connector_connected(request: RawRequest, fd: c_int) {
        if fd < 0 {
            return Err(Error::invalid("the descriptor is negative"));
        }
        let (_, answer) = take(request as usize).ok_or(VerbError::Stale)?;
        answer.connected(duplex(fd, -1)?);
        Ok(0)
    }

    fn seaprox_connector_failed(request: RawRequest, reason: c_int, os_error: c_int) {
        let reason = reason_of(reason)?;
        let (_, answer) = take(request as usize).ok_or(VerbError::Stale)?;
        answer.failed(match os_error {
            0 => reason.into(),
            number => Failure::new(reason, io::Error::from_raw_os_error(number.saturating_abs()).to_string()),
        });
        Ok(0)
    }
}

/// Drops the requests of a loop that is freed: later answers are stale.
pub fn forget(handle: usize) {
    let gone: Vec<_> = {
        let mut requests = requests();
        let numbers: Vec<_> = requests.iter().filter(|(_, it)| it.0 == handle).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| requests.remove(&number)).collect()
    };
    // The drop of an answer posts a mail, so the lock is released first.
    drop(gone);
}

fn take(number: usize) -> Option<(usize, Answer)> {
    requests().remove(&number)
}

fn requests() -> MutexGuard<'static, BTreeMap<usize, (usize, Answer)>> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}
