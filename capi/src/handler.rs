//! The handler of a front end in C.

use std::ffi::{c_char, c_int, c_void};

use seaprox::{Cause, Cx, Ending, Failure, Fault, FrontEnd, Handler, Role, Stage};

use crate::current::lend;
use crate::error::Error;
use crate::handle::{self, RawLoop, Record};
use crate::memory::{Struct, Versioned};
use crate::numbers::{
    SEAPROX_ABORTED, SEAPROX_CAUSE_FIN, SEAPROX_CAUSE_RESET, SEAPROX_FAULT_DEST, SEAPROX_FAULT_PROXY,
    SEAPROX_FAULT_SOURCE, SEAPROX_GRACEFUL,
};
use crate::reason::number_of;

type Call = Option<unsafe extern "C" fn(RawLoop, u64, *mut c_void)>;

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_handler {
    size: u32,
    reserved: u32,
    opened: Call,
    readable: Option<unsafe extern "C" fn(RawLoop, u64, *const u8, usize, *mut c_void) -> usize>,
    connected: Option<unsafe extern "C" fn(RawLoop, u64, c_int, *const c_char, usize, *mut c_void)>,
    writable: Call,
    timeout: Call,
    woken: Call,
    ended: Option<unsafe extern "C" fn(RawLoop, u64, c_int, *mut c_void)>,
    closed: Option<unsafe extern "C" fn(RawLoop, u64, *const seaprox_end, *mut c_void)>,
}

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_end {
    size: u32,
    reason: c_int,
    ending: c_int,
    fault: c_int,
    sent: u64,
    received: u64,
    source_data: *mut c_void,
    dest_data: *mut c_void,
}

// SAFETY: integers and functions that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_handler {
    fn reserved(&self) -> u32 {
        self.reserved
    }
}

/// The handler of one connection.
#[derive(Clone, Copy)]
pub struct Callbacks {
    handle: usize,
    calls: seaprox_handler,
    user: *mut c_void,
}

impl Callbacks {
    /// Reads a handler.
    pub fn read(record: &Record, handler: Struct<seaprox_handler>, user: *mut c_void) -> Result<Callbacks, Error> {
        Ok(Callbacks { handle: record.handle, calls: handler.read()?, user })
    }

    /// Returns a front end that gives each client this handler.
    pub fn front_end(self) -> FrontEnd {
        Box::new(move || Box::new(self))
    }

    /// Returns the handler of one connection.
    pub fn boxed(self) -> Box<dyn Handler> {
        Box::new(self)
    }

    fn call(&self, call: Call, cx: &mut Cx<'_>, id: u64) {
        if let Some(call) = call {
            // SAFETY: the header says what the function is called with.
            lend(self.handle, cx.core(), || unsafe { call(handle::raw(self.handle), id, self.user) });
        }
    }

    /// Tells that the connection is over.
    fn close(&self, cx: &mut Cx<'_>, reason: c_int) {
        let Some(call) = self.calls.closed else { return };
        let connection = cx.id();
        let data = handle::record(handle::raw(self.handle)).ok();
        let data = data.and_then(|record| record.data.borrow().get(&connection).copied()).unwrap_or_default();
        let (ending, fault) = cx.ending().map_or((0, 0), ending_numbers);
        let end = seaprox_end {
            size: size_of::<seaprox_end>() as u32,
            reason,
            ending,
            fault,
            sent: cx.bytes(Role::Source),
            received: cx.bytes(Role::Dest),
            source_data: data[0] as *mut c_void,
            dest_data: data[1] as *mut c_void,
        };
        let (raw, user) = (handle::raw(self.handle), self.user);
        // SAFETY: as above; the end lives until the call returns.
        lend(self.handle, cx.core(), || unsafe { call(raw, connection.to_u64(), &raw const end, user) });
    }
}

impl Handler for Callbacks {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let id = cx.id().to_u64();
        self.call(self.calls.opened, cx, id);
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let Some(call) = self.calls.readable else { return 0 };
        let (raw, side, user) = (handle::raw(self.handle), cx.side().to_u64(), self.user);
        // SAFETY: as above; the input lives until the call returns.
        lend(self.handle, cx.core(), || unsafe { call(raw, side, input.as_ptr(), input.len(), user) })
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        let side = cx.side().to_u64();
        self.call(self.calls.writable, cx, side);
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        let is_stream = cx.side_of(Role::Dest).is_none();
        if result.is_ok() && is_stream {
            // A stream has no handshake behind it that would need a timer.
            cx.set_stage(Stage::Established);
        }
        let Some(call) = self.calls.connected else {
            match result {
                Ok(()) if is_stream => {}
                Ok(()) => cx.relay(),
                Err(failure) => cx.close(failure.reason),
            }
            return;
        };
        let reason = result.err().map_or(0, |failure| number_of(failure.reason));
        let detail = result.err().and_then(|failure| failure.detail.as_deref()).unwrap_or_default();
        let (raw, id, user) = (handle::raw(self.handle), cx.id().to_u64(), self.user);
        // SAFETY: as above; the detail lives until the call returns.
        lend(self.handle, cx.core(), || unsafe { call(raw, id, reason, detail.as_ptr().cast(), detail.len(), user) });
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        if self.calls.timeout.is_none() {
            return cx.close(seaprox::Reason::HandshakeTimeout);
        }
        let id = cx.id().to_u64();
        self.call(self.calls.timeout, cx, id);
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        let id = cx.id().to_u64();
        self.call(self.calls.woken, cx, id);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        let cause = match cause {
            Cause::Over(reason) => return self.close(cx, number_of(reason)),
            Cause::Fin => SEAPROX_CAUSE_FIN,
            Cause::Reset => SEAPROX_CAUSE_RESET,
        };
        let Some(call) = self.calls.ended else {
            let reason = if cause == SEAPROX_CAUSE_FIN { cx.fin_reason() } else { seaprox::Reason::DestReset };
            return cx.close(reason);
        };
        let (raw, side, user) = (handle::raw(self.handle), cx.side().to_u64(), self.user);
        // SAFETY: as above.
        lend(self.handle, cx.core(), || unsafe { call(raw, side, cause, user) });
    }
}

/// Returns an ending and the party that caused it as numbers of the header.
pub fn ending_numbers((ending, fault): (Ending, Fault)) -> (c_int, c_int) {
    let ending = match ending {
        Ending::Graceful => SEAPROX_GRACEFUL,
        Ending::Aborted => SEAPROX_ABORTED,
    };
    let fault = match fault {
        Fault::Source => SEAPROX_FAULT_SOURCE,
        Fault::Dest => SEAPROX_FAULT_DEST,
        Fault::Proxy => SEAPROX_FAULT_PROXY,
    };
    (ending, fault)
}
