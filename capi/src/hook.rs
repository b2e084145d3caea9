//! Hooks: code of the caller that sees the bytes of a connection, and may change them.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use seaprox::{Hook, Reason, Role, Transit, VerbError};

use crate::connection::with_connection;
use crate::error::Error;
use crate::handle::RawLoop;
use crate::memory::{Bytes, Out, Struct, Versioned};
use crate::reason::{number_of, reason_of};
use crate::side::role_number;

/// A `seaprox_transit *`: a number that is good for one callback.
pub type RawTransit = *mut c_void;

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_hook {
    size: u32,
    reserved: u32,
    connected: Option<unsafe extern "C" fn(u64, *mut c_void)>,
    data: Option<unsafe extern "C" fn(u64, c_int, RawTransit, *mut c_void) -> c_int>,
    fin: Option<unsafe extern "C" fn(u64, c_int, RawTransit, *mut c_void) -> c_int>,
    ended: Option<unsafe extern "C" fn(u64, c_int, *mut c_void)>,
}

// SAFETY: integers and functions that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_hook {
    fn reserved(&self) -> u32 {
        self.reserved
    }
}

struct Hooked {
    connection: u64,
    calls: seaprox_hook,
    user: *mut c_void,
}

thread_local! {
    /// The bytes that the running callback sees, with their number.
    static TRANSIT: Cell<(usize, *mut Transit<'static>)> = const { Cell::new((0, std::ptr::null_mut())) };
}

/// Numbers of transits are multiples of 16, as those of loops are, and never given twice in the process.
static NEXT: AtomicUsize = AtomicUsize::new(16);

impl Hooked {
    fn call(
        &self,
        call: unsafe extern "C" fn(u64, c_int, RawTransit, *mut c_void) -> c_int,
        from: Role,
        transit: &mut Transit<'_>,
    ) -> Result<(), Reason> {
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                TRANSIT.set((0, std::ptr::null_mut()));
            }
        }
        let number = NEXT.fetch_add(16, Ordering::Relaxed);
        TRANSIT.set((number, std::ptr::from_mut(transit).cast()));
        let _end = End;
        // SAFETY: the header says what the function is called with.
        match unsafe { call(self.connection, role_number(from), number as RawTransit, self.user) } {
            0 => Ok(()),
            reason => Err(reason_of(reason).unwrap_or(Reason::Other)),
        }
    }
}

impl Hook for Hooked {
    fn connected(&mut self) {
        if let Some(call) = self.calls.connected {
            // SAFETY: the header says what the function is called with.
            unsafe { call(self.connection, self.user) };
        }
    }

    fn data(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        match self.calls.data {
            Some(call) => self.call(call, from, transit),
            None => {
                transit.pass(usize::MAX);
                Ok(())
            }
        }
    }

    fn fin(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        match self.calls.fin {
            Some(call) => self.call(call, from, transit),
            None => {
                transit.pass(usize::MAX);
                Ok(())
            }
        }
    }

    fn ended(&mut self, reason: Reason) {
        if let Some(call) = self.calls.ended {
            // SAFETY: the header says what the function is called with.
            unsafe { call(self.connection, number_of(reason), self.user) };
        }
    }
}

export! {
    fn seaprox_connection_set_hook(raw: RawLoop, connection: u64, hook: Struct<seaprox_hook>, user: *mut c_void) {
        let calls = hook.read()?;
        with_connection(raw, connection, |it| Ok(it.set_hook(Box::new(Hooked { connection, calls, user }))?))?;
        Ok(0)
    }

    fn seaprox_transit_input(transit: RawTransit, input: Out<*const u8>, len: Out<usize>) {
        input.set(std::ptr::null());
        len.set(0);
        with_transit(transit, |transit| {
            input.set(transit.input().as_ptr());
            len.set(transit.input().len());
            Ok(0)
        })
    }

    fn seaprox_transit_room(transit: RawTransit, room: Out<usize>) {
        room.set(0);
        with_transit(transit, |transit| {
            room.set(transit.room());
            Ok(0)
        })
    }

    fn seaprox_transit_consume(transit: RawTransit, count: usize) {
        with_transit(transit, |transit| {
            transit.consume(count);
            Ok(0)
        })
    }

    fn seaprox_transit_write(transit: RawTransit, data: Bytes, len: usize, written: Out<usize>) {
        written.set(0);
        let bytes = data.of(len)?;
        with_transit(transit, |transit| {
            written.set(transit.write(bytes));
            Ok(0)
        })
    }

    fn seaprox_transit_pass(transit: RawTransit, count: usize, passed: Out<usize>) {
        passed.set(0);
        with_transit(transit, |transit| {
            passed.set(transit.pass(count));
            Ok(0)
        })
    }

    fn seaprox_transit_call_again(transit: RawTransit) {
        with_transit(transit, |transit| {
            transit.call_again();
            Ok(0)
        })
    }
}

fn with_transit<T>(transit: RawTransit, call: impl FnOnce(&mut Transit<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let (number, pointer) = TRANSIT.get();
    if pointer.is_null() || number != transit as usize {
        return Err(Error::new(VerbError::Stale.code(), "the callback of these bytes does not run"));
    }
    // SAFETY: the callback runs in this thread, and `Hooked::call` has the exclusive reference until it returns, which it does
    // not use meanwhile. The functions above call no code of the caller, so the bytes are borrowed once.
    call(unsafe { &mut *pointer })
}
