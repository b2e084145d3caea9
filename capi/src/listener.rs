//! Listeners: those with a handler in C, and those with a front end by its name.

use std::ffi::{c_char, c_void};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use seaprox::config::Config;
use seaprox::{Bind, Endpoint, Handler, Id, ListenConfig, Loop, Proto, Timeouts, VerbError, bind};
use seaprox_proxies::Parts;
use seaprox_proxies::embedded::{self, ListenError};

use crate::datagram::DatagramCallbacks;
use crate::error::{Error, system_code};
use crate::handle::{RawLoop, Record, id, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::memory::{Buffer, Chars, Out, Struct, Versioned};

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_listen_options {
    size: u32,
    backlog: u32,
    address: *const c_char,
    address_len: usize,
    name: *const c_char,
    name_len: usize,
    kind: *const c_char,
    kind_len: usize,
    link: u64,
    handshake_timeout_ms: u32,
    connect_timeout_ms: u32,
    idle_timeout_ms: u32,
    half_closed_timeout_ms: u32,
}

// SAFETY: integers and pointers that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_listen_options {}

impl seaprox_listen_options {
    fn timeouts(&self, of_loop: &Timeouts) -> Timeouts {
        let time = |ms: u32, usual| if ms == 0 { usual } else { Duration::from_millis(ms.into()) };
        Timeouts {
            handshake: time(self.handshake_timeout_ms, of_loop.handshake),
            connect: time(self.connect_timeout_ms, of_loop.connect),
            idle: time(self.idle_timeout_ms, of_loop.idle),
            half_closed: time(self.half_closed_timeout_ms, of_loop.half_closed),
            ..of_loop.clone()
        }
    }
}

export! {
    fn seaprox_listen(
        raw: RawLoop,
        options: Struct<seaprox_listen_options>,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
        listener: Out<u64>,
    ) {
        listener.set(0);
        let options = options.read()?;
        with(raw, |record, core| {
            let callbacks = Callbacks::read(record, handler, user)?;
            let ids = listen(core, &options, callbacks)?;
            listener.set(keep(record, ids)?);
            Ok(0)
        })
    }

    fn seaprox_listen_front_end(
        raw: RawLoop,
        front_end: Chars,
        front_end_len: usize,
        address: Chars,
        address_len: usize,
        toml: Chars,
        toml_len: usize,
        listener: Out<u64>,
    ) {
        listener.set(0);
        let (name, address, toml) = (front_end.of(front_end_len)?, address.of(address_len)?, toml.of(toml_len)?);
        with(raw, |record, core| {
            let parsed = embedded::parse_listener(name, address, toml, core.config()).map_err(Error::config)?;
            let ids = embedded::listen(core, &parts(record), &parsed).map_err(|error| match error {
                ListenError::Config(error) => Error::config(error),
                ListenError::Bind(error) => bind_error(&error),
                ListenError::Loop(error) => error.into(),
            })?;
            listener.set(keep(record, ids)?);
            Ok(0)
        })
    }

    fn seaprox_listener_close(raw: RawLoop, listener: u64) {
        let first = id(listener)?;
        with(raw, |record, core| {
            core.listener(first)?.unlisten()?;
            let others = record.listeners.borrow_mut().remove(&first).unwrap_or_default();
            // One that is gone is closed.
            others.into_iter().for_each(|id| _ = core.listener(id).and_then(|listener| listener.unlisten()));
            Ok(0)
        })
    }

    fn seaprox_listener_address(raw: RawLoop, listener: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let id = id(listener)?;
        let text = with(raw, |_, core| Ok(core.listener(id)?.status().address()))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_listener_port(raw: RawLoop, listener: u64) {
        let id = id(listener)?;
        with(raw, |_, core| match core.listener(id)?.addr() {
            Endpoint::Ip(_, addr) => Ok(addr.port().into()),
            _ => Ok(0),
        })
    }
}

/// Opens a listener of UDP.
pub fn listen_datagrams(
    core: &mut Loop<'_>,
    options: &seaprox_listen_options,
    callbacks: DatagramCallbacks,
) -> Result<Vec<Id>, Error> {
    let make = || {
        let none = || -> Box<dyn Handler> { unreachable!("a socket of UDP has no connections") };
        let new = ListenConfig::new("c", Box::new(none));
        ListenConfig { datagrams: Some(callbacks.front_end()), ..new }
    };
    listen_as(core, options, Proto::Udp, make)
}

fn listen(core: &mut Loop<'_>, options: &seaprox_listen_options, callbacks: Callbacks) -> Result<Vec<Id>, Error> {
    listen_as(core, options, Proto::Tcp, || ListenConfig::new("c", callbacks.front_end()))
}

fn listen_as(
    core: &mut Loop<'_>,
    options: &seaprox_listen_options,
    proto: Proto,
    make: impl Fn() -> ListenConfig,
) -> Result<Vec<Id>, Error> {
    let text = |text: *const c_char, len| Chars::from(text).some(len);
    let address = text(options.address, options.address_len)?.unwrap_or_default();
    let place = Bind::parse(address).map_err(|error| Error::invalid(format!("{address:?}: {error}")))?;
    let place = if proto == Proto::Udp { place.with_proto(proto) } else { place };
    let (name, kind) = (text(options.name, options.name_len)?, text(options.kind, options.kind_len)?);
    let link = if options.link == 0 { None } else { Some(id(options.link)?) };
    let (mut ids, loops) = (Vec::new(), core.config().clone());
    for mut bound in bind(&place, 1, &loops)? {
        let new = make();
        let kind = kind.map_or_else(|| new.kind.clone(), |kind| kind.to_owned().into());
        let name = name.filter(|_| ids.is_empty()).map(str::to_owned);
        let timeouts = Some(options.timeouts(&loops.timeouts));
        let backlog = (options.backlog > 0).then_some(options.backlog);
        match core.listen(&mut bound, ListenConfig { name, kind, link, timeouts, backlog, ..new }) {
            Ok(id) => ids.push(id),
            Err(error) => {
                ids.into_iter().for_each(|id| _ = core.listener(id).and_then(|listener| listener.unlisten()));
                return Err(error.into());
            }
        }
    }
    Ok(ids)
}

/// Keeps the listeners of one address together. Returns the first.
pub fn keep(record: &Record, ids: Vec<Id>) -> Result<u64, Error> {
    let mut ids = ids.into_iter();
    let first = ids.next().ok_or(VerbError::Invalid)?;
    let others: Vec<_> = ids.collect();
    if !others.is_empty() {
        record.listeners.borrow_mut().insert(first, others);
    }
    Ok(first.to_u64())
}

/// Returns what makes the front ends of this loop.
pub fn parts(record: &Rc<Record>) -> Arc<Parts> {
    let mut parts = record.parts.borrow_mut();
    Arc::clone(parts.get_or_insert_with(|| Arc::new(Parts::new(&Config::default()))))
}

/// Returns the error of an address that cannot be bound: that of the system.
fn bind_error(error: &seaprox::config::ApplyError) -> Error {
    match &error.failure {
        seaprox::config::ApplyFailure::Bind(_, system) => Error::new(system_code(system), error.to_string()),
        _ => Error::config(error),
    }
}
