//! Links that this node dials, and the verbs on all links.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;

use seaprox::auth::NodeKey;
use seaprox::node::{Identity, LinkMut, OnDatagrams, OnStream, Path, Policy};
use seaprox::{LinkState, VerbError};
use seaprox_proxies::embedded;
use seaprox_proxies::links::addresses;

use crate::datagram::{DatagramCallbacks, seaprox_datagram_handler};
use crate::error::Error;
use crate::handle::{RawLoop, Record, id, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::key::{Key, key_of};
use crate::link_event::LinkEventFn;
use crate::memory::{Buffer, Bytes, Chars, Out, Struct, Versioned};
use crate::policy::{Rules, seaprox_policy};

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_link_options {
    size: u32,
    reserved: u32,
    address: *const c_char,
    address_len: usize,
    toml: *const c_char,
    toml_len: usize,
    key: *const u8,
    peer_key: *const u8,
    policy: *const seaprox_policy,
    event: LinkEventFn,
    user: *mut c_void,
    handler: *const seaprox_handler,
    handler_user: *mut c_void,
    datagram_handler: *const seaprox_datagram_handler,
    datagram_user: *mut c_void,
}

// SAFETY: integers, pointers and functions that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_link_options {
    fn reserved(&self) -> u32 {
        self.reserved
    }
}

impl seaprox_link_options {
    /// Returns the address and the text of further options.
    pub fn texts(&self) -> Result<(&str, &str), Error> {
        Ok((Chars::from(self.address).of(self.address_len)?, Chars::from(self.toml).of(self.toml_len)?))
    }

    /// Returns the identity of this node. Without a key it is a new one.
    pub fn identity(&self) -> Result<Identity, Error> {
        let key = match self.key.is_null() {
            true => NodeKey::generate().map_err(|error| Error::invalid(error.to_string()))?,
            false => NodeKey::from_bytes(&key_of(Bytes::from(self.key))?),
        };
        Ok(Identity::new(&key))
    }

    /// Returns the policy, with that of the files of keys which the text names.
    pub fn rules(&self, record: &Record, files: Option<Arc<dyn Policy>>) -> Result<Rules, Error> {
        let peer_key = Bytes::from(self.peer_key);
        let peer_key = if self.peer_key.is_null() { None } else { Some(key_of(peer_key)?) };
        let rules = Rules::read(record, Struct::from(self.policy), self.user, peer_key, files)?;
        Ok(rules.handled(!self.handler.is_null(), !self.datagram_handler.is_null()))
    }

    /// Returns what gives streams of peers to the handler of the program, if there is one.
    pub fn on_stream(&self, record: &Record, rules: &Rules) -> Result<Option<OnStream>, Error> {
        if self.handler.is_null() {
            return Ok(None);
        }
        let callbacks = Callbacks::read(record, Struct::from(self.handler), self.handler_user)?;
        let rules = rules.clone();
        Ok(Some(Box::new(move |key, target| rules.takes(key, target).then(|| callbacks.boxed()))))
    }

    /// Returns what gives flows of datagrams of peers to the handler of the program, if there is one.
    pub fn on_datagrams(&self, record: &Record, rules: &Rules) -> Result<Option<OnDatagrams>, Error> {
        if self.datagram_handler.is_null() {
            return Ok(None);
        }
        let callbacks = DatagramCallbacks::read(record, Struct::from(self.datagram_handler), self.datagram_user)?;
        let rules = rules.clone();
        Ok(Some(Box::new(move |key, target| rules.takes(key, target).then(|| callbacks.shared()))))
    }

    /// Returns the callback of events, and the user pointer.
    pub fn event(&self) -> (LinkEventFn, *mut c_void) {
        (self.event, self.user)
    }
}

/// Runs a function with a link.
pub fn with_link<T>(
    raw: RawLoop,
    link: u64,
    call: impl FnOnce(&mut LinkMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    with(raw, |_, core| call(&mut core.link(id(link)?)?))
}

export! {
    fn seaprox_link_dial(raw: RawLoop, options: Struct<seaprox_link_options>, link: Out<u64>) {
        link.set(0);
        let options = options.read()?;
        let (address, toml) = options.texts()?;
        let parsed = embedded::parse_link(address, toml).map_err(Error::config)?;
        let files = embedded::link_policy(&parsed.1).map_err(Error::config)?;
        let identity = options.identity()?;
        with(raw, |record, core| {
            let rules = options.rules(record, files)?.named(address);
            let (on_stream, on_datagrams) =
                (options.on_stream(record, &rules)?, options.on_datagrams(record, &rules)?);
            let mut config = embedded::link_config(&parsed, identity, Arc::new(rules));
            let (event, user) = options.event();
            (config.on_stream, config.on_datagrams) = (on_stream, on_datagrams);
            config.on_event = crate::link_event::on_event(record.handle, event, user);
            let dialed = core.connect_link(config)?;
            if !dialed.is_new {
                return Err(VerbError::Already.into());
            }
            link.set(dialed.id.to_u64());
            Ok(0)
        })
    }

    fn seaprox_link_close(raw: RawLoop, link: u64) {
        with_link(raw, link, |it| Ok(it.close()?))?;
        Ok(0)
    }

    fn seaprox_link_state(raw: RawLoop, link: u64) {
        with_link(raw, link, |it| Ok(state_number(it.state())))
    }

    fn seaprox_link_key(raw: RawLoop, link: u64, public_key: Out<Key>) {
        let unknown = || Error::invalid("the key of the peer is not known yet");
        public_key.give(with_link(raw, link, |it| it.status()?.key.ok_or_else(unknown)))
    }

    fn seaprox_link_json(raw: RawLoop, link: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let status = with_link(raw, link, |it| Ok(it.status()?))?;
        buf.fill(cap, len, embedded::link_json(&status).as_bytes());
        Ok(0)
    }

    fn seaprox_link_redial(raw: RawLoop, link: u64) {
        with_link(raw, link, |it| Ok(it.redial()?))?;
        Ok(0)
    }

    fn seaprox_link_add_path(raw: RawLoop, link: u64, path: Chars, len: usize) {
        let path = path_of(path.of(len)?)?;
        with_link(raw, link, |it| Ok(it.add_path(&path)?))?;
        Ok(0)
    }

    fn seaprox_link_remove_path(raw: RawLoop, link: u64, path: Chars, len: usize) {
        let path = path_of(path.of(len)?)?;
        with_link(raw, link, |it| Ok(it.remove_path(&path)?))?;
        Ok(0)
    }

    fn seaprox_recheck_links(raw: RawLoop) {
        with(raw, |_, core| {
            core.recheck_links();
            Ok(0)
        })
    }

    fn seaprox_permit(raw: RawLoop, connection: u64, may: c_int) {
        with(raw, |_, core| Ok(core.permit(id(connection)?, may != 0)?))?;
        Ok(0)
    }

    fn seaprox_send_message(raw: RawLoop, link: u64, text: Chars, len: usize) {
        let text = text.of(len)?;
        with_link(raw, link, |it| Ok(it.send_message(text)?))?;
        Ok(0)
    }
}

/// Returns the number of a state in the header.
pub fn state_number(state: LinkState) -> c_int {
    state as c_int + 1
}

fn path_of(text: &str) -> Result<Path, Error> {
    addresses::path(text, addresses::PORT).map_err(|error| Error::invalid(error.to_string()))
}
