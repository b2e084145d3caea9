//! Connections: the verbs on them, and what is known of them.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use seaprox::{ConnectionMut, Role, Stage, Target};

use crate::error::Error;
use crate::handle::{RawLoop, id, number, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::memory::{Buffer, Chars, Out, Struct};
use crate::numbers;
use crate::reason::reason_of;
use crate::side::role_of;

/// Runs a function with a connection.
pub fn with_connection<T>(
    raw: RawLoop,
    connection: u64,
    call: impl FnOnce(&mut ConnectionMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    with(raw, |_, core| call(&mut core.connection(id(connection)?)?))
}

export_found! {
    fn seaprox_connection_source(raw: RawLoop, connection: u64) -> u64, 0; {
        with_connection(raw, connection, |it| Ok(number(it.side_of(Role::Source))))
    }

    fn seaprox_connection_dest(raw: RawLoop, connection: u64) -> u64, 0; {
        with_connection(raw, connection, |it| Ok(number(it.side_of(Role::Dest))))
    }

    fn seaprox_connection_listener(raw: RawLoop, connection: u64) -> u64, 0; {
        with_connection(raw, connection, |it| Ok(number(it.listener())))
    }
}

export! {
    fn seaprox_connection_describe(raw: RawLoop, connection: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with_connection(raw, connection, |it| Ok(it.description()))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_connection_target(raw: RawLoop, connection: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with_connection(raw, connection, |it| Ok(it.asked().map(Target::to_string).unwrap_or_default()))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_connection_stage(raw: RawLoop, connection: u64) {
        with_connection(raw, connection, |it| Ok(stage_number(it.stage())))
    }

    fn seaprox_connection_set_stage(raw: RawLoop, connection: u64, stage: c_int) {
        let settable = [Stage::Handshake, Stage::Established, Stage::KeepAlive];
        let stage = settable.into_iter().find(|it| stage_number(*it) == stage);
        let stage = stage.ok_or_else(|| Error::invalid("no program can set this stage"))?;
        with_connection(raw, connection, |it| {
            it.set_stage(stage);
            Ok(0)
        })
    }

    fn seaprox_connection_bytes(raw: RawLoop, connection: u64, sent: Out<u64>, received: Out<u64>) {
        sent.set(0);
        received.set(0);
        with_connection(raw, connection, |it| {
            sent.set(it.bytes(Role::Source));
            received.set(it.bytes(Role::Dest));
            Ok(0)
        })
    }

    fn seaprox_connection_connect(raw: RawLoop, connection: u64, target: Chars, len: usize) {
        let text = target.of(len)?;
        let target = Target::parse(text).map_err(|error| Error::invalid(format!("{text:?}: {error}")))?;
        with_connection(raw, connection, |it| Ok(it.connect(target, None)?))?;
        Ok(0)
    }

    fn seaprox_connection_disconnect(raw: RawLoop, connection: u64) {
        with_connection(raw, connection, |it| Ok(it.disconnect()?))?;
        Ok(0)
    }

    fn seaprox_connection_route(raw: RawLoop, connection: u64, link: u64) {
        with_connection(raw, connection, |it| Ok(it.route(id(link)?)?))?;
        Ok(0)
    }

    fn seaprox_connection_relay(raw: RawLoop, connection: u64) {
        with_connection(raw, connection, |it| {
            it.relay();
            Ok(0)
        })
    }

    fn seaprox_connection_finish(raw: RawLoop, connection: u64) {
        with_connection(raw, connection, |it| Ok(it.finish()?))?;
        Ok(0)
    }

    fn seaprox_connection_close(raw: RawLoop, connection: u64, reason: c_int) {
        let reason = reason_of(reason)?;
        with_connection(raw, connection, |it| {
            it.close(reason);
            Ok(0)
        })
    }

    fn seaprox_connection_close_after_flush(raw: RawLoop, connection: u64, reason: c_int) {
        let reason = reason_of(reason)?;
        with_connection(raw, connection, |it| {
            it.close_after_flush(reason);
            Ok(0)
        })
    }

    fn seaprox_connection_abort(raw: RawLoop, connection: u64, reason: c_int) {
        let reason = reason_of(reason)?;
        with_connection(raw, connection, |it| {
            it.abort(reason);
            Ok(0)
        })
    }

    fn seaprox_connection_wake_after(raw: RawLoop, connection: u64, ms: u64) {
        with_connection(raw, connection, |it| Ok(it.wake_after(Duration::from_millis(ms))?))?;
        Ok(0)
    }

    fn seaprox_connection_set_user(raw: RawLoop, connection: u64, user: Chars, len: usize) {
        let user = user.of(len)?;
        with_connection(raw, connection, |it| {
            it.set_user(user);
            Ok(0)
        })
    }

    fn seaprox_connection_set_kind(raw: RawLoop, connection: u64, kind: Chars, len: usize) {
        let kind = kind.of(len)?.to_owned();
        with_connection(raw, connection, |it| {
            it.set_kind(kind);
            Ok(0)
        })
    }

    fn seaprox_connection_set_handler(
        raw: RawLoop,
        connection: u64,
        role: c_int,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
    ) {
        let role = role_of(role)?;
        with(raw, |record, core| {
            let callbacks = Callbacks::read(record, handler, user)?;
            core.connection(id(connection)?)?.set_handler(role, Box::new(callbacks))?;
            Ok(0)
        })
    }
}

/// Returns the number of a stage in the header.
fn stage_number(stage: Stage) -> c_int {
    match stage {
        Stage::Handshake => numbers::SEAPROX_STAGE_HANDSHAKE,
        Stage::Connecting => numbers::SEAPROX_STAGE_CONNECTING,
        Stage::Established => numbers::SEAPROX_STAGE_ESTABLISHED,
        Stage::KeepAlive => numbers::SEAPROX_STAGE_KEEP_ALIVE,
        Stage::Closing => numbers::SEAPROX_STAGE_CLOSING,
        Stage::Closed => numbers::SEAPROX_STAGE_CLOSED,
    }
}
