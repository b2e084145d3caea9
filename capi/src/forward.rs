//! Forwards: addresses whose clients go over a link, with the end of the link that listens.

use std::ffi::c_int;

use seaprox::node::{ForwardConfig, ForwardMut, Service};
use seaprox::{Bind, Endpoint, ForwardState, Loop, Target, bind};
use seaprox_proxies::embedded;

use crate::error::Error;
use crate::handle::{RawLoop, id, with};
use crate::listener::parts;
use crate::memory::{Buffer, Chars, Out};

export! {
    fn seaprox_forward_local(
        raw: RawLoop,
        link: u64,
        listen: Chars,
        listen_len: usize,
        target: Chars,
        target_len: usize,
        forward: Out<u64>,
    ) {
        forward.set(0);
        let (listen, target) = (place_of(listen.of(listen_len)?)?, target_of(target.of(target_len)?)?);
        with(raw, |_, core| {
            let config = ForwardConfig::local(id(link)?, listen, target);
            forward.set(open(core, config)?);
            Ok(0)
        })
    }

    fn seaprox_forward_remote(
        raw: RawLoop,
        link: u64,
        listen: Chars,
        listen_len: usize,
        target: Chars,
        target_len: usize,
        forward: Out<u64>,
    ) {
        forward.set(0);
        let (listen, target) = (place_of(listen.of(listen_len)?)?, target_of(target.of(target_len)?)?);
        with(raw, |_, core| {
            let config = ForwardConfig::remote(id(link)?, listen, target);
            forward.set(open(core, config)?);
            Ok(0)
        })
    }

    fn seaprox_forward_dynamic(
        raw: RawLoop,
        link: u64,
        listen: Chars,
        listen_len: usize,
        front_end: Chars,
        front_end_len: usize,
        toml: Chars,
        toml_len: usize,
        forward: Out<u64>,
    ) {
        forward.set(0);
        let (listen, name) = (listen.of(listen_len)?, front_end.of(front_end_len)?);
        let (place, toml) = (place_of(listen)?, toml.of(toml_len)?);
        with(raw, |record, core| {
            let link = id(link)?;
            let parsed = embedded::parse_listener(name, listen, toml, core.config()).map_err(Error::config)?;
            let config = embedded::forward(core, &parts(record), &parsed, link, place).map_err(Error::config)?;
            forward.set(open(core, config)?);
            Ok(0)
        })
    }

    fn seaprox_forward_close(raw: RawLoop, forward: u64) {
        with_forward(raw, forward, |it| Ok(it.close()?))?;
        Ok(0)
    }

    fn seaprox_forward_state(raw: RawLoop, forward: u64) {
        with_forward(raw, forward, |it| Ok(state_number(it.status()?.state)))
    }

    fn seaprox_forward_port(raw: RawLoop, forward: u64) {
        with_forward(raw, forward, |it| {
            let port = it.status()?.bound.iter().find_map(Endpoint::ip).map_or(0, |addr| addr.port());
            Ok(port.into())
        })
    }

    fn seaprox_forward_failure(raw: RawLoop, forward: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let failure = with_forward(raw, forward, |it| Ok(it.status()?.failure))?;
        let text = failure.map(|failure| failure.to_string()).unwrap_or_default();
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_forward_bytes(raw: RawLoop, forward: u64, sent: Out<u64>, received: Out<u64>) {
        sent.set(0);
        received.set(0);
        let (from_clients, to_clients) = with(raw, |_, core| {
            let mut after = None;
            while let Some((last, _)) = core.settle(after, SETTLED) {
                after = Some(last);
            }
            Ok(core.forward(id(forward)?)?.status()?.bytes)
        })?;
        sent.set(from_clients);
        received.set(to_clients);
        Ok(0)
    }
}

/// Opens a forward. A name to listen on is looked up here, because forwards look up none.
fn open(core: &mut Loop<'_>, mut config: ForwardConfig) -> Result<u64, Error> {
    if let (Bind::Name(..), Service::Local { bounds, .. }) = (&config.listen, &mut config.service) {
        *bounds = bind(&config.listen, 1, core.config())?;
    }
    Ok(core.open_forward(config)?.to_u64())
}

/// Runs a function with a forward.
fn with_forward<T>(
    raw: RawLoop,
    forward: u64,
    call: impl FnOnce(&mut ForwardMut<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    with(raw, |_, core| call(&mut core.forward(id(forward)?)?))
}

/// Returns the number of a state in the header.
pub fn state_number(state: ForwardState) -> c_int {
    state as c_int + 1
}

fn place_of(text: &str) -> Result<Bind, Error> {
    Bind::parse(text).map_err(|error| Error::invalid(format!("{text:?}: {error}")))
}

/// Parses a target.
pub fn target_of(text: &str) -> Result<Target, Error> {
    Target::parse(text).map_err(|error| Error::invalid(format!("{text:?}: {error}")))
}

/// Connections whose bytes are added up in one step.
const SETTLED: usize = 1024;
