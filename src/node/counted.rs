//! Sessions of keys that may begin a limited number of them. Each is counted on the disk before it begins, so its HELLO waits
//! here while another thread writes. The carrier is not read meanwhile, and has the deadline of a handshake.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::mailbox::Remote;
use crate::link::{Hello, HelloAck, Intent, Status};
use crate::types::id::Id;
use crate::types::reason::Failure;

use super::accept::TARGET;
use super::config::PeerKey;
use super::control::Node;

/// A HELLO that waits until its session is counted.
#[derive(Debug)]
pub(super) struct Waiting {
    hello: Hello,
    /// The bytes that have come with it.
    rest: Vec<Bytes>,
}

/// The way back to a peer whose session is counted. Dropped without an answer, it refuses the session.
pub struct SessionReply {
    carrier: Id,
    remote: Option<Remote>,
}

impl SessionReply {
    /// Permits or refuses the session. Any thread may call this.
    pub fn send(mut self, is_permitted: bool) {
        self.answer(is_permitted);
    }

    fn answer(&mut self, is_permitted: bool) {
        let carrier = self.carrier;
        // At the limit of the mailbox, the deadline of the peer closes it.
        let _ = self.remote.take().map(|remote| remote.call(move |core| core.session_counted(carrier, is_permitted)));
    }
}

impl fmt::Debug for SessionReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionReply({})", self.carrier)
    }
}

impl Drop for SessionReply {
    fn drop(&mut self) {
        self.answer(false);
    }
}

impl Loop<'_> {
    fn session_counted(&mut self, carrier: Id, is_permitted: bool) {
        let (core, node) = self.parts::<Node>();
        node.session_counted(core, carrier, is_permitted);
    }
}

impl Node {
    /// Returns true if a HELLO begins a session that must be counted first. The HELLO is kept until then.
    pub(super) fn must_count_session(&mut self, core: &mut Core, id: Id, hello: &Hello, key: &PeerKey) -> bool {
        let Some(carrier) = self.carriers.get(id) else { return false };
        let Some(server) = carrier.server.and_then(|server| self.servers.get(server)) else { return false };
        let is_counted = carrier.is_counted || hello.intent != Intent::New || !server.policy.counts_sessions(key);
        if is_counted || self.is_unused_session(core, hello, key) {
            return false;
        }
        let policy = Arc::clone(&server.policy);
        if let Some(carrier) = self.carriers.get_mut(id) {
            carrier.waiting = Some(Box::new(Waiting { hello: hello.clone(), rest: Vec::new() }));
        }
        policy.count_session(key, SessionReply { carrier: id, remote: Some(core.remote()) });
        true
    }

    /// Returns true if a HELLO begins a session again whose peer has sent no frame: the answer to its first HELLO was lost.
    fn is_unused_session(&self, core: &Core, hello: &Hello, key: &PeerKey) -> bool {
        let link = self.served.get(&hello.session).copied();
        let is_its = |link: &Id| self.links.get(*link).is_some_and(|record| record.key == Some(*key));
        let session = link.filter(is_its).and_then(|link| core.pools.sessions.session(link));
        session.is_some_and(|session| session.stats().frames[1] == 0)
    }

    /// Keeps bytes that follow a HELLO that waits. Returns false if none waits.
    pub(super) fn keeps_for_later(&mut self, id: Id, bytes: &Bytes) -> bool {
        let waiting = self.carriers.get_mut(id).and_then(|carrier| carrier.waiting.as_mut());
        waiting.map(|waiting| waiting.rest.push(bytes.clone())).is_some()
    }

    /// Returns true if a HELLO of the carrier waits. The carrier is not read meanwhile.
    pub(super) fn awaits_count(&self, id: Id) -> bool {
        self.carriers.get(id).is_some_and(|carrier| carrier.waiting.is_some())
    }

    fn session_counted(&mut self, core: &mut Core, id: Id, is_permitted: bool) {
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        let Some(waiting) = carrier.waiting.take() else { return };
        carrier.is_counted = true;
        let side = carrier.side;
        let result = if is_permitted {
            self.begin_counted(core, id, *waiting)
        } else {
            self.refuse_counted(core, id, &waiting.hello);
            Ok(())
        };
        match result.and_then(|()| self.flush_carrier(core, id)) {
            // The carrier was not read while its HELLO waited.
            Ok(()) => core.enqueue(side),
            Err(failure) => self.carrier_failed(core, id, &failure),
        }
    }

    fn begin_counted(&mut self, core: &mut Core, id: Id, waiting: Waiting) -> Result<(), Failure> {
        self.hello_received(core, id, &waiting.hello)?;
        waiting.rest.into_iter().try_for_each(|bytes| self.give(core, id, 0, bytes))
    }

    /// Refuses a session of a key that has begun as many as it may.
    fn refuse_counted(&mut self, core: &mut Core, id: Id, hello: &Hello) {
        let Some(carrier) = self.carriers.get(id) else { return };
        let key = carrier.transport.as_ref().and_then(|transport| transport.peer_key());
        let instance = carrier.server.and_then(|server| self.servers.get(server)?.instance);
        if let Some(suppressed) = key.and_then(|key| core.may_log_key(&key)) {
            let key = super::link_event::fingerprint(key.as_ref());
            log::warn!(target: TARGET, key, suppressed; "session refused: its key has begun as many sessions as it may, or they cannot be counted");
        }
        self.refuse(id, &HelloAck::refusal(Status::Limit, hello, self.boot(instance)));
    }
}
