//! Calls into running loops, and the addresses that were opened in them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::apply_error::ApplyFailure;
use super::listener::Listener;
use super::maker::{MadeFrontEnd, MadeServer};
use crate::engine::bound::Bound;
use crate::engine::control::Loop;
use crate::engine::limits::Timeouts;
use crate::engine::listener::{ListenConfig, ListenerMut};
use crate::engine::mailbox::Remote;
use crate::node::{ForwardConfig, LinksOfServer, Service};
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

/// An address on which loops listen.
#[derive(Clone)]
pub(super) struct Opened {
    /// The address as the configuration has it, which may stand for several.
    pub place: Bind,
    /// The bound addresses.
    pub addrs: Vec<Endpoint>,
    records: Records,
}

/// The terms on which the clients of a listener are served.
#[derive(Clone)]
pub(super) struct Terms {
    /// The listener, with everything that it inherits.
    pub listener: Arc<Listener>,
    /// The timers of the loop, for those that a listener does not have.
    pub timeouts: Timeouts,
    /// The front end.
    pub front_end: MadeFrontEnd,
    /// The link that the clients go over.
    pub link: Option<Id>,
}

/// The records of an address in the loops.
#[derive(Clone)]
enum Records {
    /// The listener of each loop, beginning with the first.
    Listeners(Vec<Id>),
    /// A forward in the first loop.
    Forward(Id),
    /// The server of links in the first loop.
    Server(Id),
}

impl Opened {
    /// Listens for clients in these loops.
    pub fn listen(remotes: &[Remote], place: &Bind, bound: Bound, terms: &Terms) -> Result<Opened, ApplyFailure> {
        let addrs = vec![bound.addr().clone()];
        let bound = Arc::new(Mutex::new(bound));
        let mut ids = Vec::new();
        for remote in remotes {
            let (shared, terms) = (Arc::clone(&bound), terms.clone());
            let result = on_loop(remote, move |core| {
                let mut bound = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let name = terms.free_name(core, bound.addr());
                core.listen(&mut bound, ListenConfig { name: Some(name), ..terms.config() })
            });
            match result.and_then(|id| id.map_err(refused)) {
                Ok(id) => ids.push(id),
                Err(failure) => {
                    let opened = Opened { place: place.clone(), addrs, records: Records::Listeners(ids) };
                    opened.close(remotes, LinksOfServer::GoOn);
                    return Err(failure);
                }
            }
        }
        Ok(Opened { place: place.clone(), addrs, records: Records::Listeners(ids) })
    }

    /// Listens on all addresses of a place; on none if one of them fails.
    pub fn listen_each(
        remotes: &[Remote],
        place: &Bind,
        bounds: Vec<Bound>,
        terms: &Terms,
    ) -> Result<Vec<Opened>, ApplyFailure> {
        let mut all = Vec::new();
        for bound in bounds {
            match Opened::listen(remotes, place, bound, terms) {
                Ok(opened) => all.push(opened),
                Err(failure) => {
                    all.iter().for_each(|opened: &Opened| opened.close(remotes, LinksOfServer::GoOn));
                    return Err(failure);
                }
            }
        }
        Ok(all)
    }

    /// Opens a local forward in the first loop.
    pub fn forward(first: &Remote, place: &Bind, bounds: Vec<Bound>, terms: &Terms) -> Result<Opened, ApplyFailure> {
        let Some(link) = terms.link else { return Err(ApplyFailure::Verb(VerbError::Stale)) };
        let addrs = bounds.iter().map(|bound| bound.addr().clone()).collect();
        let (listen, terms) = (place.clone(), terms.clone());
        let opened = on_loop(first, move |core| {
            free_forward_name(core, &terms.listener.name, None)?;
            let service = Service::Local { listener: Box::new(terms.config()), bounds, to: terms.target() };
            core.open_forward(ForwardConfig { name: Some(terms.listener.name.clone()), link, listen, service })
        })?;
        let id = opened.map_err(refused)?;
        Ok(Opened { place: place.clone(), addrs, records: Records::Forward(id) })
    }

    /// Gives the clients that come from now on another front end, other settings and another link.
    pub fn replace(&self, remotes: &[Remote], terms: &Terms) -> Result<(), ApplyFailure> {
        match &self.records {
            Records::Listeners(ids) => {
                for (remote, id) in remotes.iter().zip(ids.iter().copied()) {
                    let terms = terms.clone();
                    on_loop(remote, move |core| replace_listener(core, id, &terms))?.map_err(refused)?;
                }
                Ok(())
            }
            Records::Forward(id) => {
                let (id, terms) = (*id, terms.clone());
                on_loop(&remotes[0], move |core| replace_forward(core, id, &terms))?.map_err(refused)
            }
            Records::Server(_) => Ok(()),
        }
    }

    /// Accepts links in the first loop.
    pub fn serve(first: &Remote, place: &Bind, bound: Bound, made: &MadeServer) -> Result<Opened, ApplyFailure> {
        let (addrs, made, mut bound) = (vec![bound.addr().clone()], Arc::clone(made), bound);
        let served = on_loop(first, move |core| core.serve_links(&mut bound, made()))?;
        let id = served.map_err(refused)?;
        Ok(Opened { place: place.clone(), addrs, records: Records::Server(id) })
    }

    /// Accepts links under another configuration from now on.
    pub fn replace_server(&self, first: &Remote, made: &MadeServer) -> Result<(), ApplyFailure> {
        let Records::Server(id) = self.records else { return Ok(()) };
        let made = Arc::clone(made);
        let replaced = on_loop(first, move |core| core.server(id).and_then(|mut server| server.replace(made())))?;
        replaced.map_err(ApplyFailure::Verb)
    }

    /// Returns the server of links.
    pub fn server(&self) -> Option<Id> {
        if let Records::Server(id) = self.records { Some(id) } else { None }
    }

    /// Closes the address. The connections that were accepted live on; `links` says what becomes of links that were dialed to it.
    pub fn close(&self, remotes: &[Remote], links: LinksOfServer) {
        // A loop that has ended listens no more.
        match &self.records {
            Records::Listeners(ids) => {
                for (remote, id) in remotes.iter().zip(ids.iter().copied()) {
                    let _ = on_loop(remote, move |core| core.listener(id).and_then(ListenerMut::unlisten));
                }
            }
            Records::Forward(id) => {
                let id = *id;
                let _ = on_loop(&remotes[0], move |core| core.forward(id).and_then(|mut forward| forward.close()));
            }
            Records::Server(id) => {
                let id = *id;
                let _ = on_loop(&remotes[0], move |core| core.server(id).and_then(|mut server| server.stop(links)));
            }
        }
    }
}

impl Terms {
    /// Returns the name of a listener in a loop: that of the configuration, with the address if another address has it.
    fn free_name(&self, core: &Loop<'_>, addr: &Endpoint) -> String {
        let name = &self.listener.name;
        match core.listener_named(name) {
            Some(_) => self.name_at(addr),
            None => name.clone(),
        }
    }

    fn name_at(&self, addr: &Endpoint) -> String {
        format!("{} {addr}", self.listener.name)
    }

    /// Returns the first target of the front end, for the status.
    fn target(&self) -> Option<Target> {
        self.listener.front_end.all_upstreams().find_map(|(_, upstream)| upstream.target().cloned())
    }

    /// Returns the configuration of one listener, in the thread of its loop.
    fn config(&self) -> ListenConfig {
        self.listener.listen_config(&self.front_end, &self.timeouts, self.link)
    }
}

fn replace_listener(core: &mut Loop<'_>, id: Id, terms: &Terms) -> Result<(), DescriptorError> {
    let view = core.listener(id)?;
    let (name, addr) = (view.name().to_owned(), view.addr().clone());
    // Another listener has handed the address over if the name is a different one.
    let is_own = name == terms.listener.name || name == terms.name_at(&addr);
    let name = (!is_own).then(|| terms.free_name(core, &addr));
    core.listener(id)?.replace(ListenConfig { name, ..terms.config() })
}

fn replace_forward(core: &mut Loop<'_>, id: Id, terms: &Terms) -> Result<(), DescriptorError> {
    let (name, link) = (&terms.listener.name, terms.link.ok_or(VerbError::Stale)?);
    free_forward_name(core, name, Some(id))?;
    let mut forward = core.forward(id)?;
    forward.rename(name)?;
    forward.route(link)?;
    forward.replace(terms.config(), terms.target())
}

/// Takes a name from another forward, whose address has moved and which gets its new name in the same change.
pub(super) fn free_forward_name(core: &mut Loop<'_>, name: &str, own: Option<Id>) -> Result<(), VerbError> {
    match core.forward_named(name).filter(|other| Some(*other) != own) {
        Some(other) => core.forward(other)?.rename(&format!("{name} {other}")),
        None => Ok(()),
    }
}

/// Returns the failure of a verb that opens something.
pub(super) fn refused(error: DescriptorError) -> ApplyFailure {
    match error {
        DescriptorError::Verb(error) => ApplyFailure::Verb(error),
        DescriptorError::Unsuitable(text) => ApplyFailure::System(io::Error::other(text)),
        DescriptorError::System(error) => ApplyFailure::System(error),
    }
}

/// Runs a function in a loop, and returns its answer. A call that the loop has not begun when the patience ends is taken
/// back: it never runs.
pub(super) fn on_loop<T: Send + 'static>(
    remote: &Remote,
    call: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
) -> Result<T, ApplyFailure> {
    on_loop_within(PATIENCE, remote, call)
}

fn on_loop_within<T: Send + 'static>(
    patience: Duration,
    remote: &Remote,
    call: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
) -> Result<T, ApplyFailure> {
    let call = Arc::new(Mutex::new(Some(call)));
    let theirs = Arc::clone(&call);
    let run = move |core: &mut Loop<'_>| taken(&theirs).map(|call| call(core));
    let pending = remote.ask_within(patience, run).map_err(|_| ApplyFailure::NoAnswer)?;
    let mut answer = pending.wait_for(patience);
    if matches!(answer, Ok(None)) && taken(&call).is_none() {
        // The loop runs the call now.
        answer = pending.wait_for(patience);
        if matches!(answer, Ok(None)) {
            return Err(ApplyFailure::Unknown);
        }
    }
    answer.ok().flatten().flatten().ok_or(ApplyFailure::NoAnswer)
}

fn taken<C>(call: &Mutex<Option<C>>) -> Option<C> {
    call.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Longest wait for a busy loop: for room in its mailbox, and again for its answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
