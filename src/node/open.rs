//! Opening streams over a link, and accepting the streams that the peer opens.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::handler::Handler;
use crate::link::{Bound, ClientAddrs, Host, Kind, Open, Refused, Session, StreamId};
use crate::relay::connection::{Connection, Stage};
use crate::relay::dial::Permit;
use crate::relay::io::Io;
use crate::relay::side::{Owner, Role};
use crate::types::address::{Endpoint, Target};
use crate::types::end::End;
use crate::types::id::{Id, Kind as IdKind};
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::accept::TARGET;
use super::config::{LinkEvent, PeerKey, Policy, Request, Verdict};
use super::control::Node;
use super::ends::{EndPeer, EndStream, end_name};
use super::opened_stream::{AppStream, FirstBytes, Forwarded};
use super::service::open_of_service;
use crate::streams::{LinkSession, Slot, StreamAt, kind_of};

impl Loop<'_> {
    /// Decides about a stream that [`LinkEvent::Asked`] has reported.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if no such stream waits any more, [`VerbError::Invalid`] if the id is that of another kind of
    /// record.
    pub fn permit(&mut self, connection: Id, may: bool) -> Result<(), VerbError> {
        if connection.kind() != IdKind::Connection {
            return Err(VerbError::Invalid);
        }
        let (core, node) = self.parts::<Node>();
        let side = core.side(connection, Role::Source).and_then(|side| core.sides.get(side));
        let at = side.and_then(|side| side.io.stream()).ok_or(VerbError::Stale)?;
        let link = node.links.get_mut(at.link).ok_or(VerbError::Stale)?;
        let index = link.asked.iter().position(|(asked, _)| *asked == connection).ok_or(VerbError::Stale)?;
        let (_, target) = link.asked.swap_remove(index);
        if may {
            return self.connection(connection)?.connect(target, None);
        }
        core.stats.streams_refused += 1;
        core.pools
            .sessions
            .answer(at, Err(Bound::of_failure(&Failure::new(Reason::NotPermitted, "somebody was asked, and said no"))));
        core.close(connection, Reason::NotPermitted);
        Ok(())
    }
}

impl Node {
    /// Connects a dest over a link, or over a link of a group. The dest waits if the link is not up.
    pub(crate) fn dial_stream(&mut self, core: &mut Core, dest: Id, link: Id) {
        if link.kind() == IdKind::Group {
            return self.dial_over(core, dest, link);
        }
        let failure = match self.try_open(core, dest, link) {
            Ok(()) => return self.hasten(core, link),
            Err(Refused::NotYet | Refused::NotNow) if self.wait_for_link(core, dest, link) => {
                return self.hasten(core, link);
            }
            Err(Refused::Closed) if self.is_renewed(core, link) && self.wait_for_link(core, dest, link) => {
                return self.hasten(core, link);
            }
            Err(Refused::NotYet | Refused::NotNow) => Failure::new(Reason::LimitReached, "too many wait for the link"),
            Err(refused) => self.refusal(core, link, refused),
        };
        core.queues.dialled.push_back((dest, Err(failure)));
    }

    /// Returns the failure of a dest whose stream a session does not take.
    pub(super) fn refusal(&self, core: &Core, link: Id, refused: Refused) -> Failure {
        match refused {
            Refused::Limit if self.may_open_nothing(core, link) => {
                Failure::new(Reason::NotPermitted, "the far node permits this key no connections")
            }
            Refused::Limit => Failure::new(Reason::LimitReached, "the link carries no more streams"),
            Refused::Closed | Refused::Exhausted => Failure::new(Reason::LinkLost, "the link is being closed"),
            refused => Failure::new(Reason::Other, format!("the link takes no such stream: {refused:?}")),
        }
    }

    pub(super) fn try_open(&mut self, core: &mut Core, dest: Id, link: Id) -> Result<(), Refused> {
        let open = self.open_of(core, dest).ok_or(Refused::Gone)?;
        let now = core.pools.sessions.now;
        let record = core.pools.sessions.get_mut(link).ok_or(Refused::Closed)?;
        let session = record.session.as_mut().ok_or(Refused::NotYet)?;
        let is_flow = open.kind == Kind::Udp;
        let id = session.open(now, open)?;
        record.streams.insert(id, Slot::new(dest));
        let endpoint = Endpoint::Link(Arc::clone(&record.name), id.0);
        let at = StreamAt { link, epoch: record.epoch, id };
        if let Some(side) = core.sides.get_mut(dest) {
            (side.io, side.endpoint) = (Io::Stream(at), endpoint);
        }
        core.pools.sessions.touch(link);
        if is_flow {
            core.flow_stream_opened(dest);
        }
        Ok(())
    }

    /// Returns the OPEN for a dest: with its target, or with the listener that its source came from.
    fn open_of(&self, core: &Core, dest: Id) -> Option<Open> {
        match core.sides.get(dest)?.owner {
            Owner::Carrier(carrier) => return self.open_of_carrier(core, carrier),
            Owner::Flow(flow, _) => return core.open_of_flow(flow),
            Owner::Connection(..) | Owner::Race(_) => {}
        }
        let (connection, _) = core.owner(dest)?;
        let record = core.connections.get(connection)?;
        let source = core.sides.get(record.source).map(|side| side.endpoint.to_string()).unwrap_or_default();
        let timeout_ms = u32::try_from(core.settings_of(record).timeouts.connect.as_millis()).unwrap_or(0);
        if let Some(open) = open_of_service(record, timeout_ms) {
            return Some(open);
        }
        let open = Open { timeout_ms, source, client: client_of(core, record), ..Open::default() };
        if let Some(listener) = record.returns_to {
            return Some(Open { listener, ..open });
        }
        open.to(record.asked.as_deref()?)
    }

    /// Connects a client of a listener for the peer of a link.
    pub(crate) fn connect_back(&mut self, core: &mut Core, connection: Id, link: Id, listener: u32) {
        let Some(dest) = core.new_dest(connection, None) else { return };
        if let Some(record) = core.connections.get_mut(connection) {
            (record.returns_to, record.via) = (Some(listener), Some(link));
        }
        self.charge(core, connection, link);
        if self.has_its_share(core, link) {
            return core.close(connection, Reason::LimitReached);
        }
        self.dial_stream(core, dest, link);
    }

    /// Takes a dest out of those that wait for a link. Returns none if it does not wait, otherwise the failure to report.
    ///
    /// The last try to reach the peer tells why the link is not up. A key that is refused is the reason itself; anything
    /// else is about the link, and not about the target, so it is the detail.
    pub(super) fn stop_waiting(&mut self, core: &Core, dest: Id, waited: &str) -> Option<Failure> {
        let (connection, _) = core.owner(dest)?;
        let via = core.connections.get(connection)?.via?;
        let failed = match via.kind() {
            IdKind::Group => self.stop_waiting_for_group(via, dest)?,
            _ => {
                let link = self.links.get_mut(via)?;
                link.waiting.remove(dest).then(|| link.failed.as_ref().map(|(failure, _)| failure.clone()))?
            }
        };
        Some(match failed {
            Some(failure) if failure.reason == Reason::AuthFailed => failure,
            Some(failure) => Failure::new(Reason::LinkLost, format!("the link was not up within {waited}: {failure}")),
            None => Failure::new(Reason::LinkLost, format!("the link was not up within {waited}")),
        })
    }

    /// Returns true if a session that takes no streams will be replaced: it is over, or its peer is about to stop, and the
    /// event about that may not have been delivered yet.
    fn is_renewed(&mut self, core: &mut Core, link: Id) -> bool {
        let Some(record) = self.links.get(link) else { return false };
        let session = core.pools.sessions.session(link);
        let (is_over, is_left) =
            (session.is_none_or(Session::is_ended), session.is_some_and(Session::is_peer_going_away));
        let is_dialed = record.dialer.is_some() && !record.closing && !self.closing;
        is_dialed && (is_over || is_left && self.peer_leaves(core, link))
    }

    /// Adds a dest to those that wait for a link. Dests that are gone make room.
    fn wait_for_link(&mut self, core: &mut Core, dest: Id, link: Id) -> bool {
        let sides = &core.sides;
        let Some(record) = self.links.get_mut(link) else { return false };
        record.waiting.push(dest, core.now_ms, |dest| sides.get(dest).is_some())
    }

    /// Opens the streams of the dests that wait for a link or for its group, because the link is up now.
    pub(super) fn open_waiting(&mut self, core: &mut Core, link: Id) {
        self.open_waiting_at(core, link);
        self.member_opens(core, link);
    }

    fn open_waiting_at(&mut self, core: &mut Core, link: Id) {
        let waiting = self.links.get(link).map_or(0, |record| record.waiting.dests.len());
        // Each waiting dest is tried once. The first that must go on waiting moves to the end, with all dests behind it.
        for left in (0..waiting).rev() {
            let Some(record) = self.links.get_mut(link) else { return };
            let Some(dest) = record.waiting.dests.pop_front() else { return };
            if !core.is_dialing(dest) {
                continue;
            }
            self.dial_stream(core, dest, link);
            let Some(record) = self.links.get_mut(link) else { return };
            if record.waiting.dests.back() == Some(&dest) {
                return record.waiting.dests.rotate_left(left);
            }
        }
    }

    fn may_open_nothing(&self, core: &Core, link: Id) -> bool {
        let session = core.pools.sessions.session(link);
        session.is_some_and(crate::link::Session::may_open_nothing)
    }

    /// Fails the dests that wait for a link, which will not be up.
    pub(super) fn fail_waiting(&mut self, core: &mut Core, link: Id, failure: &Failure) {
        let Some(record) = self.links.get_mut(link) else { return };
        for dest in std::mem::take(&mut record.waiting.dests) {
            core.queues.dialled.push_back((dest, Err(failure.clone())));
        }
    }

    /// Handles an OPEN of the peer.
    pub(super) fn stream_opened(&mut self, core: &mut Core, link: Id, id: StreamId, open: &Open) {
        if self.accept_nested(core, link, id, open)
            || self.service_opened(core, link, id, open)
            || end_name(open).is_none() && self.answer_observed_address(core, link, id, open)
        {
            return;
        }
        let admitted = self.admit(core, link, open).and_then(|admitted| match open.kind {
            Kind::Udp => self.make_room_for_flow(core, link).map(|()| admitted),
            _ => Ok(admitted),
        });
        let mut admitted = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return self.decline(core, link, id, open, &failure),
        };
        if open.kind == Kind::Udp {
            return self.datagrams_opened(core, link, id, admitted);
        }
        let Some(at) = core.pools.sessions.stream_at(link, id) else { return };
        let Some(record) = core.pools.sessions.get(link) else { return };
        let name = Arc::clone(&record.name);
        let endpoint = Endpoint::Link(Arc::clone(&name), id.0);
        let (handler, is_taken) = match self.handler_of(core, link, &name, &mut admitted) {
            Ok(made) => made,
            Err(failure) => return self.decline(core, link, id, open, &failure),
        };
        let Admitted { target, waits, forward, client, .. } = admitted;
        let adopted = core.adopt_io(Io::Stream(at), endpoint, "link", None, handler);
        match adopted.ok().and_then(|connection| Some((connection, core.connections.get(connection)?.source))) {
            Some((connection, side)) => {
                if let Some(record) = core.connections.get_mut(connection) {
                    if is_taken {
                        // This node connects to no target that would be noted.
                        record.asked = Some(Rc::clone(&target));
                    }
                    let notes = record.notes();
                    (notes.user, notes.client) = (Some(name), client.map(|client| client.client));
                }
                forward.into_iter().for_each(|forward| core.begin_tally(forward, connection));
                self.charge(core, connection, link);
                if let Some(record) = core.pools.sessions.get_mut(link) {
                    record.streams.insert(id, Slot::new(side));
                }
                if waits {
                    self.ask_about(core, link, connection, target);
                }
            }
            None => self.refuse_stream(
                core,
                link,
                id,
                &Failure::new(Reason::LimitReached, "the table of connections is full"),
            ),
        }
    }

    /// Makes the handler of a stream that was admitted. Returns it with true if it is one of the application.
    ///
    /// # Errors
    /// [`Reason::LimitReached`] if too many ends are open.
    fn handler_of(
        &mut self,
        core: &Core,
        link: Id,
        name: &Arc<str>,
        admitted: &mut Admitted,
    ) -> Result<(Box<dyn Handler>, bool), Failure> {
        let taken = if admitted.waits { None } else { self.taken(link, &admitted.target) };
        if let Some(handler) = taken {
            return Ok((Box::new(AppStream { handler }), true));
        }
        let record = self.links.get(link).ok_or(Reason::LinkLost)?;
        let first = record.preface.clone().map(|preface| {
            let addrs = admitted.client.or_else(|| self.addrs_of_peer(core, link));
            Box::new(FirstBytes { preface, addrs })
        });
        if let Some(end) = admitted.end.take() {
            let peer = EndPeer { key: record.key.ok_or(Reason::NotPermitted)?, name: Arc::clone(name) };
            return Ok((Box::new(EndStream::new(end, peer, first)?), false));
        }
        let (target, is_configured) = (Rc::clone(&admitted.target), admitted.forward.is_some());
        let (permit, waits) = (admitted.permit.take(), admitted.waits);
        Ok((Box::new(Forwarded { target, permit, is_configured, waits, first }), false))
    }

    /// Refuses a stream, with a line in the log.
    fn decline(&mut self, core: &mut Core, link: Id, id: StreamId, open: &Open, failure: &Failure) {
        self.log_refused(core, link, open, failure);
        core.stats.streams_refused += 1;
        if failure.reason != Reason::LimitReached {
            // A refusal by a limit is cheap, and an honest peer tries again, so it does not count as futile.
            self.was_futile(core, link);
        }
        self.refuse_stream(core, link, id, failure);
    }

    /// Lets a stream wait for an approval.
    fn ask_about(&mut self, core: &mut Core, link: Id, connection: Id, target: Rc<Target>) {
        let Some(record) = self.links.get_mut(link) else { return };
        let Some(key) = record.key else { return };
        let request = Request::Open(Target::clone(&target));
        core.set_asked(connection, Rc::clone(&target));
        let Some(record) = self.links.get_mut(link) else { return };
        record.asked.push((connection, target));
        // A user who is asked for approval may take as long as a connect to a distant target.
        core.set_stage(connection, Stage::Connecting);
        self.tell(core, link, &LinkEvent::Asked { key, request, connection: Some(connection) });
    }

    fn log_refused(&mut self, core: &mut Core, id: Id, open: &Open, failure: &Failure) {
        let Some(suppressed) = self.may_log(core, id) else { return };
        let peer = core.pools.sessions.name(id).to_owned();
        log::info!(target: TARGET, link = id.to_string(), peer = peer, asked = open.to_string(), reason = failure.reason.as_str(), detail = failure.detail.as_deref().unwrap_or("-"), suppressed; "stream refused");
    }

    /// Decides about an OPEN of the peer. Returns the target, or the failure to answer with.
    fn admit(&mut self, core: &mut Core, link: Id, open: &Open) -> Result<Admitted, Failure> {
        let connections = &core.connections;
        if let Some(record) = self.links.get_mut(link) {
            record.asked.retain(|(connection, _)| connections.get(*connection).is_some());
        }
        let record = self.links.get(link).ok_or(Reason::LinkLost)?;
        let key = record.key.ok_or(Reason::NotPermitted)?;
        let end = end_name(open).transpose()?;
        if end.is_none() && !matches!(open.kind, Kind::Tcp | Kind::Udp) {
            return Err(Failure::new(Reason::NotPermitted, "this node carries byte streams and datagrams only"));
        }
        let is_flow = open.kind == Kind::Udp;
        self.check_limits(core, link, &key, is_flow)?;
        let record = self.links.get(link).ok_or(Reason::LinkLost)?;
        if core.is_draining() && !self.takes_late(core, link, open.listener) {
            return Err(Failure::new(Reason::Drained, "the node is stopping"));
        }
        let client = open.client.filter(|told| record.policy.may_tell_source(&key, told.client.ip()));
        let admitted = |target| Admitted { client, ..Admitted::at_once(target) };
        if let Some(name) = end {
            let end = Some(self.end_of(link, &name)?);
            return Ok(Admitted { end, ..admitted(Target::End(name)) });
        }
        if open.listener != 0 {
            let remote = record.remotes.iter().find(|remote| remote.number == Some(open.listener));
            let remote = remote.ok_or_else(|| Failure::new(Reason::NotPermitted, "there is no such listener"))?;
            if kind_of(remote.reverse.listen.proto()) != open.kind {
                return Err(Failure::new(Reason::NotPermitted, "the listener has another protocol"));
            }
            let (forward, to) = (Some(remote.forward), remote.reverse.to.clone());
            let end = if let Target::End(name) = &to { Some(self.end_of(link, name)?) } else { None };
            return Ok(Admitted { forward, end, ..admitted(to) });
        }
        let target = target_of(open)?.with_proto(if is_flow { Proto::Udp } else { Proto::Tcp });
        match record.policy.may_open(&key, &target) {
            Verdict::Yes => Ok(admitted(target)),
            Verdict::No if is_flow && record.policy.asks(&key, &Request::Open(target.clone())) => {
                // A flow does not wait for a user: one of the next datagrams opens another.
                let request = Request::Open(target);
                self.tell(core, link, &LinkEvent::Asked { key, request, connection: None });
                Err(Failure::new(Reason::NotPermitted, "somebody is asked"))
            }
            Verdict::No
                if !is_flow
                    && record.asked.len() < ASKED_MAX
                    && record.policy.asks(&key, &Request::Open(target.clone())) =>
            {
                Ok(Admitted { waits: true, ..admitted(target) })
            }
            Verdict::No => Err(Failure::new(Reason::NotPermitted, "the peer's key may not open it")),
            Verdict::ByAddress => {
                let permit = by_address(&record.policy, key, &target);
                Ok(Admitted { permit: Some(permit), ..admitted(target) })
            }
        }
    }

    /// Checks that the limits of a key have room for one more stream of its link.
    ///
    /// # Errors
    /// Fails with [`Reason::LimitReached`].
    pub(super) fn check_limits(
        &mut self,
        core: &mut Core,
        link: Id,
        key: &PeerKey,
        is_flow: bool,
    ) -> Result<(), Failure> {
        let record = self.links.get(link).ok_or(Reason::LinkLost)?;
        if record.policy.streams_max(key).is_some_and(|max| self.streams_with(core, key) >= max as usize) {
            return Err(Failure::new(Reason::LimitReached, "the peer's limit of streams is reached"));
        }
        if !is_flow && self.has_its_share(core, link) {
            return Err(Failure::new(Reason::LimitReached, "the peer has its share of the connections"));
        }
        let now_ms = core.now_ms;
        if !core.peers.of(key, now_ms).may_try(now_ms) {
            return Err(Failure::new(Reason::LimitReached, "too many of the peer's streams come to nothing"));
        }
        Ok(())
    }

    /// Returns the addresses of a subflow of a link: that of the peer, and that of this node.
    pub(super) fn addrs_of_peer(&self, core: &Core, link: Id) -> Option<ClientAddrs> {
        let carriers = self.links.get(link)?.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier));
        let mut sides = carriers.filter_map(|carrier| Some((carrier, core.sides.get(carrier.side)?)));
        sides.find_map(|(carrier, side)| {
            let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
            Some(ClientAddrs { client: plain(side.endpoint.ip()?), local: plain(carrier.local(side).ip()?) })
        })
    }

    /// Returns the streams of a key over all its links, with streams whose OPEN has not arrived and those with undelivered
    /// data. So several links, or reconnects, give a key no more streams than one link.
    fn streams_with(&self, core: &Core, key: &PeerKey) -> usize {
        let its = self.links.iter().filter(|(_, link)| link.key.as_ref() == Some(key) && !link.closing);
        let its = its.filter_map(|(id, _)| core.pools.sessions.get(id));
        let unopened = |link: &LinkSession| link.session.as_ref().map_or(0, Session::streams_unopened);
        its.map(|link| link.streams.len() + unopened(link)).sum::<usize>() + core.pools.sessions.undelivered.count(key)
    }

    /// Counts a connection against the key of a link's peer.
    pub(super) fn charge(&mut self, core: &mut Core, connection: Id, link: Id) {
        let Some(key) = self.links.get(link).and_then(|link| link.key) else { return };
        if let Some(record) = core.connections.get_mut(connection) {
            let before = record.payer.replace(core.peers.charge(&key, core.now_ms));
            before.into_iter().for_each(|payer| core.peers.release(payer, false, core.now_ms));
        }
    }

    /// Returns true if the key of a link's peer has its share of the connections: as many as are free, so one key alone gets half.
    pub(super) fn has_its_share(&mut self, core: &mut Core, link: Id) -> bool {
        let Some(key) = self.links.get(link).and_then(|link| link.key) else { return false };
        let account = core.peers.of(&key, core.now_ms);
        account.connections() >= core.connections.capacity().saturating_sub(core.connections.len())
    }

    /// Makes room for one more flow of datagrams of the key of a link's peer. The key has at most half of the flows. With its
    /// share it gives up one of its own flows, as a full table does, because strangers may flood a listener for the peer.
    ///
    /// # Errors
    /// Fails with [`Reason::LimitReached`] if it has its share, and no flow that can end.
    pub(super) fn make_room_for_flow(&mut self, core: &mut Core, link: Id) -> Result<(), Failure> {
        let Some(key) = self.links.get(link).and_then(|link| link.key) else { return Ok(()) };
        let share = core.datagrams.flows.capacity().div_ceil(2);
        if core.peers.of(&key, core.now_ms).flows() < share || core.end_flow_of(&key, share) {
            return Ok(());
        }
        Err(Failure::new(Reason::LimitReached, "the peer has its share of the flows"))
    }

    /// Counts a stream of the peer that was refused or failed.
    pub(super) fn was_futile(&mut self, core: &mut Core, link: Id) {
        let key = self.links.get(link).and_then(|link| link.key);
        key.into_iter().for_each(|key| core.peers.of(&key, core.now_ms).was_futile(core.now_ms));
    }

    /// Makes the handler of a stream, if the application wants the stream. A panic of the maker is counted, and makes none.
    fn taken(&mut self, link: Id, target: &Target) -> Option<Box<dyn Handler>> {
        let record = self.links.get(link)?;
        let (takes, key) = (record.takes.clone()?, record.key?);
        let mut takes = takes.try_borrow_mut().ok()?;
        let made = catch_unwind(AssertUnwindSafe(|| takes(&key, target)));
        self.panics.fetch_add(u64::from(made.is_err()), Ordering::Relaxed);
        made.ok().flatten()
    }

    pub(super) fn refuse_stream(&mut self, core: &mut Core, link: Id, id: StreamId, failure: &Failure) {
        let now = core.pools.sessions.now;
        if let Some(session) = core.pools.sessions.session_mut(link) {
            // A stream that is gone already needs no answer.
            let _ = session.refuse(now, id, Bound::of_failure(failure));
        }
        core.pools.sessions.touch(link);
    }
}

/// A stream that was admitted.
pub(super) struct Admitted {
    pub target: Rc<Target>,
    pub permit: Option<Permit>,
    /// The end, if the target is one.
    pub end: Option<Arc<End>>,
    /// The stream waits for an approval.
    pub waits: bool,
    /// The forward that its client came from.
    pub forward: Option<Id>,
    /// The addresses of its client, if the peer may tell them.
    pub client: Option<ClientAddrs>,
}

impl Admitted {
    fn at_once(target: Target) -> Admitted {
        Admitted { target: Rc::new(target), permit: None, end: None, waits: false, forward: None, client: None }
    }
}

/// Returns the addresses of a client for the peer of a link; none for a client without an address.
fn client_of(core: &Core, record: &Connection) -> Option<ClientAddrs> {
    let source = core.sides.get(record.source)?;
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let client = source.endpoint.ip()?;
    let told = record.notes.as_ref().and_then(|notes| notes.local.as_deref()).map(Endpoint::ip);
    let local = told.unwrap_or_else(|| source.io.local().ip())?;
    Some(ClientAddrs { client: plain(client), local: plain(local) })
}

fn target_of(open: &Open) -> Result<Target, Failure> {
    match &open.host {
        Host::Addr(ip) => Ok(SocketAddr::from((*ip, open.port)).into()),
        Host::Name(name) => Target::from_host(name, open.port)
            .map_err(|_| Failure::new(Reason::NameResolutionFailure, "that is no name of a host")),
        Host::None => Err(Failure::new(Reason::NotPermitted, "no target was named")),
    }
}

fn by_address(policy: &Arc<dyn Policy>, key: PeerKey, target: &Target) -> Permit {
    let (policy, target) = (Arc::clone(policy), target.clone());
    Rc::new(move |addr| policy.may_reach(&key, &target, addr))
}

/// Maximum of the streams of one link that wait for an approval.
const ASKED_MAX: usize = 16;
