//! The policy of a link in C: which keys may have a link, and what their nodes may do here. Whatever no callback permits is
//! refused.
//!
//! The library asks in the middle of a turn, so the callbacks get no loop, and functions answer `SEAPROX_ERR_BUSY` to them.

use std::ffi::{c_char, c_int, c_void};
use std::net::SocketAddr;
use std::sync::Arc;

use seaprox::node::{PeerKey, Policy, Request, Verdict};
use seaprox::{Bind, Proto, Target};

use crate::error::Error;
use crate::handle::{self, Record};
use crate::key;
use crate::memory::{Struct, Versioned};
use crate::numbers::{SEAPROX_ASK, SEAPROX_BY_ADDRESS, SEAPROX_HANDLE, SEAPROX_PERMIT, SEAPROX_REFUSE};

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_policy {
    size: u32,
    max_num_streams: u32,
    max_bytes_per_second: u64,
    admit: Option<unsafe extern "C" fn(*const u8, *mut c_void) -> c_int>,
    open: Option<unsafe extern "C" fn(*const u8, *const c_char, usize, *mut c_void) -> c_int>,
    reach: Option<unsafe extern "C" fn(*const u8, *const c_char, usize, *const c_char, usize, *mut c_void) -> c_int>,
    listen: Option<unsafe extern "C" fn(*const u8, *const c_char, usize, *mut c_void) -> c_int>,
}

// SAFETY: integers and functions that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_policy {}

/// The policy of one link or server.
#[derive(Clone)]
pub struct Rules {
    handle: usize,
    calls: seaprox_policy,
    user: *mut c_void,
    /// The one key that is admitted without a callback.
    peer_key: Option<PeerKey>,
    /// The policy of the files of keys that the text of the options names.
    files: Option<Arc<dyn Policy>>,
    /// There are no callbacks, so the files of keys say what peers may do.
    is_of_files: bool,
    /// The name of the peer, if it is the one that this node dials.
    name: Option<Arc<str>>,
    /// The program has a handler for streams, and one for datagrams.
    handlers: (bool, bool),
}

// SAFETY: the callbacks run in the thread of the loop alone, which `is_here` checks; the pointers are not followed here.
unsafe impl Send for Rules {}
// SAFETY: as above.
unsafe impl Sync for Rules {}

impl Rules {
    /// Reads a policy.
    pub fn read(
        record: &Record,
        policy: Struct<seaprox_policy>,
        user: *mut c_void,
        peer_key: Option<PeerKey>,
        files: Option<Arc<dyn Policy>>,
    ) -> Result<Rules, Error> {
        let (calls, is_of_files) = (policy.read()?, policy.is_null() && files.is_some());
        if calls.admit.is_none() && peer_key.is_none() && files.is_none() {
            return Err(Error::invalid("nothing says which key the peer must have"));
        }
        let handle = record.handle;
        Ok(Rules { handle, calls, user, peer_key, files, is_of_files, name: None, handlers: (false, false) })
    }

    /// Sets the name of the peer.
    pub fn named(self, name: &str) -> Rules {
        Rules { name: Some(name.into()), ..self }
    }

    /// Sets whether the program has a handler for streams, and one for datagrams.
    pub fn handled(self, streams: bool, datagrams: bool) -> Rules {
        Rules { handlers: (streams, datagrams), ..self }
    }

    /// Returns true if a stream or a flow that is permitted is the handler's.
    pub fn takes(&self, key: &PeerKey, target: &Target) -> bool {
        self.has_handler(target) && (self.is_of_files || self.verdict(key, target) == SEAPROX_HANDLE)
    }

    fn has_handler(&self, target: &Target) -> bool {
        if target.proto() == Proto::Udp { self.handlers.1 } else { self.handlers.0 }
    }

    /// Returns the answer of the callback about a target.
    fn verdict(&self, key: &PeerKey, target: &Target) -> c_int {
        let Some(call) = self.calls.open.filter(|_| self.is_here()) else { return SEAPROX_REFUSE };
        let text = target.to_string();
        // SAFETY: the header says what the function is called with.
        unsafe { call(key.as_ptr(), text.as_ptr().cast(), text.len(), self.user) }
    }

    /// Returns the answer of the callback about an address to listen on.
    fn verdict_on(&self, key: &PeerKey, place: &Bind) -> c_int {
        let Some(call) = self.calls.listen.filter(|_| self.is_here()) else { return SEAPROX_REFUSE };
        let text = place.to_string();
        // SAFETY: as above.
        unsafe { call(key.as_ptr(), text.as_ptr().cast(), text.len(), self.user) }
    }

    /// Returns the policy of files if it decides what peers may do.
    fn files(&self) -> Option<&dyn Policy> {
        self.files.as_deref().filter(|_| self.is_of_files)
    }

    fn is_here(&self) -> bool {
        handle::record(handle::raw(self.handle)).is_ok()
    }
}

impl Policy for Rules {
    fn admits(&self, key: &PeerKey) -> bool {
        match (self.calls.admit, &self.files) {
            // SAFETY: as above.
            (Some(call), _) => self.is_here() && unsafe { call(key.as_ptr(), self.user) } != 0,
            (None, files) => {
                self.peer_key.as_ref() == Some(key) || files.as_ref().is_some_and(|files| files.admits(key))
            }
        }
    }

    fn name(&self, key: &PeerKey) -> String {
        match (&self.name, &self.files) {
            (Some(name), _) => name.to_string(),
            (None, Some(files)) => files.name(key),
            (None, None) => key::brief(key),
        }
    }

    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        if let Some(files) = self.files() {
            return files.may_open(key, target);
        }
        match self.verdict(key, target) {
            SEAPROX_PERMIT => Verdict::Yes,
            SEAPROX_HANDLE if self.has_handler(target) => Verdict::Yes,
            SEAPROX_BY_ADDRESS => Verdict::ByAddress,
            _ => Verdict::No,
        }
    }

    fn may_open_any(&self, key: &PeerKey) -> bool {
        // Services need streams, too.
        self.files().is_none_or(|files| self.handlers.0 || files.may_open_any(key))
    }

    fn may_reach(&self, key: &PeerKey, target: &Target, addr: SocketAddr) -> bool {
        if let Some(files) = self.files() {
            return files.may_reach(key, target, addr);
        }
        let Some(call) = self.calls.reach.filter(|_| self.is_here()) else { return false };
        let (target, addr, user) = (target.to_string(), addr.ip().to_string(), self.user);
        let (text, len) = (target.as_ptr().cast(), target.len());
        // SAFETY: as above.
        unsafe { call(key.as_ptr(), text, len, addr.as_ptr().cast(), addr.len(), user) == SEAPROX_PERMIT }
    }

    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.files().map_or_else(|| self.verdict_on(key, place) == SEAPROX_PERMIT, |files| files.may_listen(key, place))
    }

    fn asks(&self, key: &PeerKey, request: &Request) -> bool {
        if let Some(files) = self.files() {
            return files.asks(key, request);
        }
        match request {
            Request::Open(target) => self.verdict(key, target) == SEAPROX_ASK,
            Request::Listen(place) => self.verdict_on(key, place) == SEAPROX_ASK,
        }
    }

    fn is_expired(&self, key: &PeerKey) -> bool {
        self.calls.admit.is_none() && self.files.as_ref().is_some_and(|files| files.is_expired(key))
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        let of_files = self.files.as_ref().and_then(|files| files.streams_max(key));
        Some(self.calls.max_num_streams).filter(|max| *max > 0).or(of_files)
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        let of_files = self.files.as_ref().and_then(|files| files.rate_max(key));
        Some(self.calls.max_bytes_per_second).filter(|max| *max > 0).or(of_files)
    }
}
