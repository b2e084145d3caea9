//! Servers: the addresses on which peers dial links to this node.

use std::ffi::c_int;
use std::sync::Arc;

use seaprox::node::{LinksOfServer, Policy};
use seaprox::{Endpoint, Id, Loop, VerbError};
use seaprox_proxies::embedded;

use crate::error::Error;
use crate::handle::{RawLoop, Record, id, with};
use crate::link::seaprox_link_options;
use crate::link_event::on_event;
use crate::listener::keep;
use crate::memory::{Buffer, Out, Struct};

export! {
    fn seaprox_link_serve(raw: RawLoop, options: Struct<seaprox_link_options>, server: Out<u64>) {
        server.set(0);
        let options = options.read()?;
        with(raw, |record, core| {
            let ids = serve(record, core, &options)?;
            server.set(keep(record, ids)?);
            Ok(0)
        })
    }

    fn seaprox_server_close(raw: RawLoop, server: u64, closes_links: c_int) {
        let links = if closes_links == 0 { LinksOfServer::GoOn } else { LinksOfServer::Close };
        with(raw, |record, core| {
            let first = id(server)?;
            core.server(first)?.stop(links)?;
            let others = record.listeners.borrow_mut().remove(&first).unwrap_or_default();
            // One that is gone has stopped.
            others.into_iter().for_each(|id| _ = core.server(id).and_then(|mut server| server.stop(links)));
            Ok(0)
        })
    }

    fn seaprox_server_address(raw: RawLoop, server: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with(raw, |_, core| Ok(address(&core.server(id(server)?)?.address())))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_server_port(raw: RawLoop, server: u64) {
        with(raw, |_, core| Ok(core.server(id(server)?)?.address().ip().map_or(0, |addr| addr.port().into())))
    }
}

fn serve(record: &Record, core: &mut Loop<'_>, options: &seaprox_link_options) -> Result<Vec<Id>, Error> {
    let (text, toml) = options.texts()?;
    let (config, server, place) = embedded::parse_server(text, toml).map_err(Error::config)?;
    let rules = options.rules(record, embedded::server_policy(&server).map_err(Error::config)?)?;
    let identity = options.identity()?;
    let policy: Arc<dyn Policy> = Arc::new(rules.clone());
    let mut ids: Vec<Id> = Vec::new();
    for mut bound in embedded::carrier(&config, &server).bind(&place, core.config())? {
        let mut new = embedded::serve_config(&config, &server, &identity, &policy);
        let (event, user) = options.event();
        (new.on_stream, new.on_event) = (options.on_stream(record, &rules)?, on_event(record.handle, event, user));
        new.on_datagrams = options.on_datagrams(record, &rules)?;
        match core.serve_links(&mut bound, new) {
            Ok(id) => ids.push(id),
            Err(error) => {
                ids.into_iter().for_each(|id| _ = core.server(id).and_then(|mut it| it.stop(LinksOfServer::Close)));
                return Err(error.into());
            }
        }
    }
    if ids.is_empty() { Err(VerbError::Invalid.into()) } else { Ok(ids) }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.ip().map_or_else(|| endpoint.to_string(), |addr| addr.to_string())
}
