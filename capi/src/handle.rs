//! The handles of loops. A `seaprox_loop *` is no address: it is the number of the loop, which is never given twice. The loop
//! itself lives in a table of its thread, so no other thread can reach it; what all threads may use stands in a table of the
//! process.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use seaprox::config::Running;
use seaprox::{Id, Interest, Loop, Proxy, Remote, VerbError, Workers};
use seaprox_proxies::Parts;

use crate::connector::Wanted;
use crate::current;
use crate::error::Error;
use crate::numbers::SEAPROX_ERR_THREAD;

/// A `seaprox_loop *`.
pub type RawLoop = *mut c_void;

/// A loop with what belongs to it.
pub struct Record {
    /// The handle.
    pub handle: usize,
    /// Borrowed while the loop runs.
    pub proxy: RefCell<Proxy>,
    /// The threads that look names up.
    pub workers: Arc<Workers>,
    /// The time of its start.
    pub since: Instant,
    /// Makes the front ends of listeners by name.
    pub parts: RefCell<Option<Arc<Parts>>>,
    /// The configuration that was applied.
    pub running: RefCell<Option<Running>>,
    /// The watched descriptors.
    pub watches: RefCell<HashMap<i32, (Id, Interest)>>,
    /// The listeners of each address, by the first one.
    pub listeners: RefCell<HashMap<Id, Vec<Id>>>,
    /// The dests that the connector will be told of; at most as many as there are sides.
    pub wanted: RefCell<VecDeque<Wanted>>,
    /// The data of the source and the dest of connections that have some.
    pub data: RefCell<HashMap<Id, [usize; 2]>>,
}

thread_local! {
    /// The loops of this thread.
    static LOOPS: RefCell<HashMap<usize, Rc<Record>>> = RefCell::new(HashMap::new());
}

/// The loops of the process.
static REMOTES: Mutex<BTreeMap<usize, Remote>> = Mutex::new(BTreeMap::new());

/// Handles are multiples of 16 from here on, as addresses are, and none is null.
static NEXT: AtomicUsize = AtomicUsize::new(16);

impl Record {
    /// Keeps a new loop. Returns its handle.
    pub fn keep(proxy: Proxy, workers: Arc<Workers>) -> Rc<Record> {
        let handle = NEXT.fetch_add(16, Ordering::Relaxed);
        remotes().insert(handle, proxy.remote());
        let record = Rc::new(Record {
            handle,
            proxy: RefCell::new(proxy),
            workers,
            since: Instant::now(),
            parts: RefCell::default(),
            running: RefCell::default(),
            watches: RefCell::default(),
            listeners: RefCell::default(),
            wanted: RefCell::default(),
            data: RefCell::default(),
        });
        LOOPS.with_borrow_mut(|loops| loops.insert(handle, Rc::clone(&record)));
        record
    }

    /// Removes the loop from the tables of the thread. What the process has of it goes with the record.
    pub fn forget(&self) {
        // The record is dropped outside of the borrow, because its drop may run code of the caller.
        let record = LOOPS.with_borrow_mut(|loops| loops.remove(&self.handle));
        drop(record);
    }

    /// Returns the handle as the caller has it.
    pub fn raw(&self) -> RawLoop {
        raw(self.handle)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A thread that ends drops its loops, too.
        remotes().remove(&self.handle);
        crate::connector::forget(self.handle);
    }
}

/// Returns the loop of this thread with this handle.
pub fn record(raw: RawLoop) -> Result<Rc<Record>, Error> {
    let handle = raw as usize;
    let found = LOOPS.try_with(|loops| loops.borrow().get(&handle).cloned()).ok().flatten();
    found.ok_or_else(|| match remote(raw) {
        Ok(_) => Error::new(SEAPROX_ERR_THREAD, "the loop belongs to another thread"),
        Err(error) => error,
    })
}

/// Returns the loop with this handle, for any thread.
pub fn remote(raw: RawLoop) -> Result<Remote, Error> {
    if raw.is_null() {
        return Err(Error::invalid("the loop is null"));
    }
    let remote = remotes().get(&(raw as usize)).cloned();
    remote.ok_or_else(|| Error::new(VerbError::Stale.code(), "the loop was freed, or never made"))
}

/// Runs a function with the loop: the one that the running callback was lent, or else the loop itself.
pub fn with<T>(raw: RawLoop, call: impl FnOnce(&Rc<Record>, &mut Loop<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let record = record(raw)?;
    if let Some(borrowed) = current::borrow(record.handle)? {
        return borrowed.run(|core| call(&record, core));
    }
    let mut proxy = record.proxy.try_borrow_mut().map_err(|_| Error::busy())?;
    let mut core = proxy.core();
    call(&record, &mut core)
}

/// Returns the handle as the caller has it.
pub fn raw(handle: usize) -> RawLoop {
    handle as RawLoop
}

/// Returns the id that a caller names. Numbers that no id can have name nothing.
pub fn id(number: u64) -> Result<Id, Error> {
    Id::from_u64(number).ok_or_else(|| VerbError::Stale.into())
}

/// Returns the number of an id for a caller; 0 for none.
pub fn number(id: Option<Id>) -> u64 {
    id.map_or(0, Id::to_u64)
}

fn remotes() -> MutexGuard<'static, BTreeMap<usize, Remote>> {
    REMOTES.lock().unwrap_or_else(PoisonError::into_inner)
}
