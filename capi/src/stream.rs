//! Streams of links for handlers of the caller: opened here, or by the peer to a service of this node.

use std::ffi::{c_char, c_int, c_void};

use seaprox::Role;

use crate::connection::with_connection;
use crate::error::Error;
use crate::forward::target_of;
use crate::handle::{RawLoop, id, number, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::link::with_link;
use crate::memory::{Chars, Out, Struct};

/// A function that says if a peer may use a service.
pub type ServiceFn = Option<unsafe extern "C" fn(*const u8, *const c_char, usize, *mut c_void) -> c_int>;

export! {
    fn seaprox_stream_open(
        raw: RawLoop,
        link: u64,
        target: Chars,
        target_len: usize,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
        connection: Out<u64>,
    ) {
        connection.set(0);
        let target = target_of(target.of(target_len)?)?;
        let callbacks = with(raw, |record, _| Callbacks::read(record, handler, user))?;
        let opened = with_link(raw, link, |it| Ok(it.open_stream(target, callbacks.boxed())?))?;
        connection.set(opened.to_u64());
        Ok(0)
    }

    fn seaprox_service_open(
        raw: RawLoop,
        link: u64,
        service: Chars,
        service_len: usize,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
        connection: Out<u64>,
    ) {
        connection.set(0);
        let name = service.of(service_len)?;
        with(raw, |record, core| {
            let callbacks = Callbacks::read(record, handler, user)?;
            connection.set(core.open_service(id(link)?, name, callbacks.boxed())?.to_u64());
            Ok(0)
        })
    }

    fn seaprox_set_service(
        raw: RawLoop,
        service: Chars,
        service_len: usize,
        handler: Struct<seaprox_handler>,
        permit: ServiceFn,
        user: *mut c_void,
    ) {
        let name = service.some(service_len)?.ok_or_else(|| Error::invalid("a name is expected"))?.to_owned();
        with(raw, |record, core| {
            if handler.is_null() {
                core.remove_service(&name)?;
                return Ok(0);
            }
            let callbacks = Callbacks::read(record, handler, user)?;
            let text = name.clone();
            let make = move |peer: &seaprox::node::ServicePeer<'_>| {
                // SAFETY: the header says what the function is called with.
                let may = permit.is_none_or(|call| unsafe { call(peer.key.as_ptr(), text.as_ptr().cast(), text.len(), user) } != 0);
                may.then(|| callbacks.boxed())
            };
            core.set_service(&name, Box::new(make));
            Ok(0)
        })
    }
}

export_found! {
    fn seaprox_connection_link(raw: RawLoop, connection: u64) -> u64, 0; {
        with_connection(raw, connection, |it| Ok(number(it.link(Role::Source).or_else(|| it.link(Role::Dest)))))
    }
}
