//! The external connector: code of the caller that connects dests in place of the loop, in threads of its own.
//!
//! ```text
//!   connect ─► a request keeps the answer under a number ─► the next turn ─► C callback ─► any thread ─► connected | failed
//!                                  │
//!                                  └─ cancelled: the connect timeout, the end of the connection or of the loop
//! ```
//! A request lives as long as its dest waits, so there are at most as many as dests.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use seaprox::{Answer, Connector, Duplex, Failure, Id, Loop, Remote, Target, VerbError};

use crate::adopt::{check_open, own};
use crate::current::lend;
use crate::error::Error;
use crate::handle::{self, RawLoop, with};
use crate::reason::reason_of;

/// A `seaprox_connect_request *`. Like that of a loop, it is a number.
pub type RawRequest = *mut c_void;

/// A function that begins to connect.
pub type ConnectFn = Option<unsafe extern "C" fn(RawLoop, RawRequest, u64, *const c_char, usize, u16, *mut c_void)>;

type Callback = unsafe extern "C" fn(RawLoop, RawRequest, u64, *const c_char, usize, u16, *mut c_void);

struct External {
    handle: usize,
    remote: Remote,
    callback: Callback,
    user: *mut c_void,
}

/// A dest that the callback will be told of.
pub struct Wanted {
    request: usize,
    side: u64,
    host: CString,
    port: u16,
    callback: Callback,
    user: *mut c_void,
}

/// The requests of all loops that wait for an answer.
struct Requests {
    answers: BTreeMap<usize, Answer>,
    /// The number of each request, by its loop and its side.
    numbers: BTreeMap<(usize, Id), usize>,
    places: BTreeMap<usize, (usize, Id)>,
    /// Numbers of requests are multiples of 16, as those of loops are, and never given twice.
    next: usize,
}

static REQUESTS: Mutex<Requests> =
    Mutex::new(Requests { answers: BTreeMap::new(), numbers: BTreeMap::new(), places: BTreeMap::new(), next: 16 });

impl Requests {
    fn add(&mut self, handle: usize, answer: Answer) -> usize {
        let (number, place) = (self.next, (handle, answer.side()));
        self.next += 16;
        self.answers.insert(number, answer);
        self.numbers.insert(place, number);
        self.places.insert(number, place);
        number
    }

    fn take(&mut self, number: usize) -> Option<Answer> {
        let answer = self.answers.remove(&number)?;
        let place = self.places.remove(&number)?;
        self.numbers.remove(&place);
        Some(answer)
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
            // Only a link reaches it, so the loop asks no connector.
            Target::End(_) => return answer.failed(seaprox::Reason::NotPermitted.into()),
        };
        // No host contains a zero.
        let host = CString::new(host).unwrap_or_default();
        // The drop of an answer reports a failure.
        let Ok(record) = handle::record(handle::raw(self.handle)) else { return };
        let (handle, callback, user, side) = (self.handle, self.callback, self.user, answer.side().to_u64());
        let request = requests().add(handle, answer);
        let mut wanted = record.wanted.borrow_mut();
        wanted.push_back(Wanted { request, side, host, port, callback, user });
        if wanted.len() == 1 {
            // The loop is in the middle of a verb, so the callback runs when it is not.
            self.remote.call_sole(move |core| ask(handle, core));
        }
    }

    fn cancelled(&mut self, side: Id) {
        let mut all = requests();
        let answer = all.numbers.get(&(self.handle, side)).copied().and_then(|number| all.take(number));
        // The drop of an answer posts a mail, so the lock is released first.
        drop(all);
        drop(answer);
    }
}

/// Tells the callback of all dests that are wanted. Those that it wants itself wait for the next call.
fn ask(handle: usize, core: &mut Loop<'_>) {
    let Ok(record) = handle::record(handle::raw(handle)) else { return };
    for Wanted { request, side, host, port, callback, user } in record.wanted.take() {
        if !requests().answers.contains_key(&request) {
            continue;
        }
        let (raw, len) = (handle::raw(handle), host.as_bytes().len());
        // SAFETY: the header says what the function is called with; the host lives until it returns.
        lend(handle, core, || unsafe { callback(raw, request as RawRequest, side, host.as_ptr(), len, port, user) });
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
        check_open(fd)?;
        let answer = take(request)?;
        answer.connected(Duplex::new(own(fd)?));
        Ok(0)
    }

    fn seaprox_connector_failed(request: RawRequest, reason: c_int, os_error: c_int) {
        let reason = reason_of(reason)?;
        let answer = take(request)?;
        answer.failed(match os_error {
            0 => reason.into(),
            number => Failure::new(reason, io::Error::from_raw_os_error(number.saturating_abs()).to_string()),
        });
        Ok(0)
    }
}

/// Drops the requests of a loop that is gone: later answers are stale.
pub fn forget(handle: usize) {
    let mut all = requests();
    let numbers: Vec<_> =
        all.numbers.iter().filter(|(place, _)| place.0 == handle).map(|(_, number)| *number).collect();
    let gone: Vec<_> = numbers.into_iter().filter_map(|number| all.take(number)).collect();
    drop(all);
    drop(gone);
}

fn take(request: RawRequest) -> Result<Answer, Error> {
    let answer = requests().take(request as usize);
    answer.ok_or_else(|| Error::new(VerbError::Stale.code(), "nobody waits for the answer to this request any more"))
}

fn requests() -> MutexGuard<'static, Requests> {
    REQUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}
