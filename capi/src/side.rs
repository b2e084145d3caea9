//! Sides: the two ends of a connection, their data, and the bytes of each.

use std::ffi::{c_int, c_void};

use seaprox::{Role, SideMut, SideState};

use crate::error::Error;
use crate::handle::{RawLoop, id, number, with};
use crate::memory::{Buffer, Bytes, Out};
use crate::numbers::{SEAPROX_CONNECTED, SEAPROX_CONNECTING, SEAPROX_DEST, SEAPROX_IDLE, SEAPROX_SOURCE};

/// Runs a function with a side.
fn with_side<T>(raw: RawLoop, side: u64, call: impl FnOnce(&mut SideMut<'_>) -> Result<T, Error>) -> Result<T, Error> {
    with(raw, |_, core| call(&mut core.side(id(side)?)?))
}

/// Returns the role with this number of the header.
pub fn role_of(number: c_int) -> Result<Role, Error> {
    match number {
        SEAPROX_SOURCE => Ok(Role::Source),
        SEAPROX_DEST => Ok(Role::Dest),
        _ => Err(Error::invalid("a role is SEAPROX_SOURCE or SEAPROX_DEST")),
    }
}

/// Returns the number of a role in the header.
pub fn role_number(role: Role) -> c_int {
    match role {
        Role::Source => SEAPROX_SOURCE,
        Role::Dest => SEAPROX_DEST,
    }
}

export_found! {
    fn seaprox_side_connection(raw: RawLoop, side: u64) -> u64, 0; {
        with_side(raw, side, |it| Ok(it.id().to_u64()))
    }

    fn seaprox_side_other(raw: RawLoop, side: u64) -> u64, 0; {
        with_side(raw, side, |it| Ok(number(it.other())))
    }

    fn seaprox_side_of_data(raw: RawLoop, data: *mut c_void) -> u64, 0; {
        with(raw, |_, core| match data as usize as u64 {
            0 => Ok(0),
            token => Ok(number(core.side_of_token(token))),
        })
    }

    fn seaprox_side_data(raw: RawLoop, side: u64) -> *mut c_void, std::ptr::null_mut(); {
        let token = with_side(raw, side, |it| Ok(it.token()))?;
        Ok(token.map_or(std::ptr::null_mut(), |token| token as usize as *mut c_void))
    }
}

export! {
    fn seaprox_side_set_data(raw: RawLoop, side: u64, data: *mut c_void) {
        with(raw, |record, core| {
            let mut side = core.side(id(side)?)?;
            side.set_token((!data.is_null()).then_some(data as usize as u64));
            let mut all = record.data.borrow_mut();
            let of_connection = all.entry(side.id()).or_default();
            of_connection[usize::from(side.role() == Role::Dest)] = data as usize;
            if *of_connection == [0, 0] {
                all.remove(&side.id());
            }
            Ok(0)
        })
    }

    fn seaprox_side_state(raw: RawLoop, side: u64) {
        if side == 0 {
            return with(raw, |_, _| Ok(0));
        }
        with_side(raw, side, |it| {
            Ok(match it.state(it.role()) {
                Some(SideState::Connecting) => SEAPROX_CONNECTING,
                Some(SideState::Connected) => SEAPROX_CONNECTED,
                Some(SideState::Idle) | None => SEAPROX_IDLE,
            })
        })
    }

    fn seaprox_side_role(raw: RawLoop, side: u64) {
        if side == 0 {
            return with(raw, |_, _| Ok(0));
        }
        with_side(raw, side, |it| Ok(role_number(it.role())))
    }

    fn seaprox_side_peer(raw: RawLoop, side: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with_side(raw, side, |it| Ok(it.peer(it.role()).to_string()))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_side_local(raw: RawLoop, side: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with_side(raw, side, |it| Ok(it.local(it.role()).to_string()))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_side_send(raw: RawLoop, side: u64, data: Bytes, len: usize) {
        let bytes = data.of(len)?;
        with_side(raw, side, |it| {
            let role = it.role();
            it.send(role, bytes)?;
            Ok(0)
        })
    }

    fn seaprox_side_queued(raw: RawLoop, side: u64, bytes: Out<usize>) {
        bytes.set(0);
        with_side(raw, side, |it| {
            bytes.set(it.queued(it.role()));
            Ok(0)
        })
    }

    fn seaprox_side_relay(raw: RawLoop, side: u64, count: u64) {
        with_side(raw, side, |it| {
            let role = it.role();
            it.relay_bytes(role, count);
            Ok(0)
        })
    }

    fn seaprox_side_pause(raw: RawLoop, side: u64) {
        with_side(raw, side, |it| {
            let role = it.role();
            it.pause_reading(role);
            Ok(0)
        })
    }

    fn seaprox_side_resume(raw: RawLoop, side: u64) {
        with_side(raw, side, |it| {
            let role = it.role();
            it.resume_reading(role);
            Ok(0)
        })
    }
}
