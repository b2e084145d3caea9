//! The dialer of a link: the subflows that the link is to have, and the times of the next tries.
//!
//! A lost subflow is dialed again at once, then after pauses that double. The pauses have a random part, so that the nodes
//! of a network do not come back at the same moment. The longest pause is shorter while connections of clients wait for the
//! link, and while the session has another subflow, so that a path that is back is soon used again. The first subflow of a
//! session is dialed alone, or with a short head start before the carrier beside it: see `auto`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::{Session, SessionId, SessionRole};
use crate::relay::dial::Egress;
use crate::relay::io::Io;
use crate::relay::side::{Owner, Side, SideState};
use crate::transport::{self, CarrierKind, Congestion, Protocol};
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::auto::{BESIDE_KIND, Pair};
use super::carrier::{Carrier, CarrierStage};
use super::config::{Identity, LinkEvent, Path, PeerKey, Policy};
use super::control::Node;
use super::fresh::Fresh;
use super::nested::Over;
use super::proof;
use super::verbs::setup;

/// The dialer of one link.
pub(crate) struct Dialer {
    pub endpoints: Endpoints,
    pub peer: Target,
    /// The streams that carry the link, if it is a nested one.
    pub over: Option<Over>,
    /// The key of this node.
    pub key: PeerKey,
    /// Subflows over each path.
    pub subflows: usize,
    /// The peer may dial this node at the same time.
    pub simultaneous: bool,
    /// The peer has dialed this node at the same time and has its key, so that chance decides if a carrier fits the session.
    pub is_by_chance: bool,
    pub slots: Vec<SubflowSlot>,
    /// The pairs of slots with two carriers over one path.
    pub pairs: Vec<Pair>,
    /// The longest round trip of the subflows in microseconds, when all of them were silent last.
    pub silent_us: u64,
    pub instance: Option<u32>,
}

/// One subflow that the link is to have.
pub(crate) struct SubflowSlot {
    pub path: Path,
    pub carrier: Option<Id>,
    /// Consecutive failed tries.
    pub tries: u32,
    pub next_ms: u64,
    /// The failure of the last try, and its time.
    pub failed: Option<(Failure, u64)>,
    /// The time since which the subflow is up.
    pub up_ms: Option<u64>,
    /// It was up, and no dial of it has failed since while another subflow was up.
    pub was_up: bool,
    /// The path was removed.
    pub removed: bool,
    /// The slot over the same path that this one is dialed beside, with another carrier.
    pub beside: Option<usize>,
    /// The time of the last try.
    pub dialed_ms: u64,
    /// The carrier that is dialed beside a silent one.
    pub fresh: Option<Fresh>,
    /// A node that does not know the session answered the last try. The next try goes to the address of a live subflow, and
    /// not to the first address of the peer's name.
    pub astray: bool,
}

/// The endpoints of a link, one for each kind of carrier that its paths have.
pub(crate) struct Endpoints {
    /// The kind on paths that name none.
    pub kind: CarrierKind,
    identity: Identity,
    simultaneous: bool,
    congestion: Congestion,
    made: Vec<transport::CarrierEndpoint>,
}

impl Endpoints {
    /// Makes the endpoint of the kind on paths that name none, and of the one beside it.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the key or the ciphers cannot be used.
    pub fn new(
        kind: CarrierKind,
        identity: &Identity,
        policy: &Arc<dyn Policy>,
        simultaneous: bool,
        congestion: Congestion,
    ) -> Result<Endpoints, VerbError> {
        let mut endpoints = Endpoints { kind, identity: identity.clone(), simultaneous, congestion, made: Vec::new() };
        endpoints.make(kind, policy)?;
        if kind == CarrierKind::Auto {
            endpoints.make(BESIDE_KIND, policy)?;
        }
        Ok(endpoints)
    }

    /// Makes the endpoints of the kinds that these paths name, if there are none.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn make_for<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a Path>,
        policy: &Arc<dyn Policy>,
    ) -> Result<(), VerbError> {
        paths.into_iter().filter_map(|path| path.carrier).try_for_each(|kind| self.make(kind, policy))
    }

    fn make(&mut self, kind: CarrierKind, policy: &Arc<dyn Policy>) -> Result<(), VerbError> {
        if self.made.iter().any(|endpoint| endpoint.kind() == kind) {
            return Ok(());
        }
        let (simultaneous, congestion) = (self.simultaneous, self.congestion);
        let setup = transport::Setup { simultaneous, congestion, ..setup(&self.identity, policy) };
        self.made.push(transport::CarrierEndpoint::client(kind, &setup).map_err(|_| VerbError::Invalid)?);
        Ok(())
    }

    /// Returns the endpoint for the carriers of a path.
    fn of(&self, path: &Path) -> Option<&transport::CarrierEndpoint> {
        let kind = path.carrier.unwrap_or(self.kind);
        self.made.iter().find(|endpoint| endpoint.kind() == kind)
    }
}

impl SubflowSlot {
    pub fn new(path: Path) -> SubflowSlot {
        SubflowSlot {
            path,
            carrier: None,
            tries: 0,
            next_ms: 0,
            failed: None,
            up_ms: None,
            was_up: false,
            removed: false,
            beside: None,
            dialed_ms: 0,
            fresh: None,
            astray: false,
        }
    }
}

impl Dialer {
    /// Returns true if the link is dialed from each local port of these paths, and by simultaneous open if these are.
    pub fn has_ports_of(&self, paths: &[Path], simultaneous: bool) -> bool {
        let mut ports = paths.iter().filter_map(|path| path.local_port);
        let has = |port| self.slots.iter().any(|slot| !slot.removed && slot.path.local_port == Some(port));
        self.simultaneous == simultaneous && ports.all(has)
    }

    /// Returns the slots whose subflow is not up.
    pub fn missing(&self) -> impl Iterator<Item = &SubflowSlot> {
        self.slots.iter().filter(|slot| slot.up_ms.is_none() && !slot.removed)
    }

    /// Returns the slots whose subflow is not up, except for those beside another one: UDP may be blocked for ever.
    pub fn missing_paths(&self) -> impl Iterator<Item = &SubflowSlot> {
        self.missing().filter(|slot| slot.beside.is_none())
    }

    /// Returns the slots beside another one whose subflow is not up.
    pub fn missing_beside(&self) -> impl Iterator<Item = &SubflowSlot> {
        self.missing().filter(|slot| slot.beside.is_some())
    }

    /// Frees all slots, because their subflows belong to a session that was set aside. They are dialed at once, or after the
    /// first pause if the session was established only a moment ago.
    pub fn leave_all(&mut self, hardly_up: Option<u64>, first: Duration) {
        for slot in &mut self.slots {
            (slot.carrier, slot.up_ms, slot.tries, slot.next_ms, slot.fresh) = (None, None, 0, 0, None);
            if let Some(now_ms) = hardly_up {
                (slot.tries, slot.next_ms) = (1, now_ms + jittered(first).as_millis() as u64);
            }
        }
    }
}

impl Node {
    /// Dials all due subflows. Returns the time of the next try, if any subflow is missing.
    pub(crate) fn dial_missing(&mut self, core: &mut Core, link: Id) -> Option<u64> {
        let mut next_ms: Option<u64> = None;
        for place in 0.. {
            let Some(record) = self.links.get(link) else { break };
            let Some(dialer) = record.dialer.as_ref().filter(|_| !record.closing && !self.closing) else {
                break;
            };
            let Some(slot) = dialer.slots.get(place) else { break };
            if slot.carrier.is_some() || slot.removed {
                continue;
            }
            // A session accepts its second subflow only after the first is up. Only the two over one path race, and a QUIC that
            // does not answer does not keep other paths waiting.
            let is_first = slot.beside.is_none();
            let is_ahead = |other: &SubflowSlot| other.carrier.is_some() && !(is_first && other.beside.is_some());
            let is_second = !record.was_established && dialer.slots.iter().any(is_ahead);
            let due_ms = match dialer.after_head_start(slot) {
                _ if dialer.is_refused(slot) && !record.was_established => continue,
                Some(due_ms) if is_second => due_ms.max(slot.next_ms),
                None if is_second => continue,
                _ => slot.next_ms,
            };
            if due_ms <= core.now_ms {
                self.dial_carrier(core, link, place);
            } else {
                next_ms = Some(next_ms.map_or(due_ms, |ms| ms.min(due_ms)));
            }
        }
        next_ms
    }

    fn dial_carrier(&mut self, core: &mut Core, link: Id, place: usize) {
        let carrier = self.dial_at(core, link, place);
        let dialer = self.links.get_mut(link).and_then(|record| record.dialer.as_mut());
        let Some(slot) = dialer.and_then(|dialer| dialer.slots.get_mut(place)) else { return };
        (slot.carrier, slot.dialed_ms) = (carrier, core.now_ms);
        if carrier.is_none() {
            self.try_later(core, link, place, &Failure::new(Reason::LimitReached, "the tables are full"));
        }
    }

    /// Dials a carrier for a slot, which does not have it yet. Returns none if there is no room for another one.
    pub(super) fn dial_at(&mut self, core: &mut Core, link: Id, place: usize) -> Option<Id> {
        let (side, carrier) = (core.sides.next_id()?, self.carriers.next_id()?);
        let record = self.links.get_mut(link)?;
        let dialer = record.dialer.as_mut()?;
        let slot = dialer.slots.get_mut(place)?;
        let known = std::mem::take(&mut slot.astray).then(|| slot.path.clone());
        let Path { source, more_sources, local_port, interface, .. } = &slot.path;
        let simultaneous = dialer.simultaneous;
        let egress = Egress {
            source: *source,
            more_sources: more_sources.clone(),
            port: *local_port,
            interface: interface.clone(),
            simultaneous,
            avoids_cut: slot.path.is_routed() && !simultaneous,
            ..Egress::default()
        };
        let target = slot.path.peer.clone().unwrap_or_else(|| dialer.peer.clone());
        let known = known.and_then(|path| self.address_of_session(core, link, &path));
        let target = Rc::new(known.map_or(target, Target::from));
        let record = self.links.get_mut(link)?;
        record.carriers.push(carrier);
        let mut made = Carrier::new(side, CarrierStage::Dialing);
        (made.link, made.place) = (Some(link), place);
        let fresh = Side::new(Owner::Carrier(carrier), SideState::Connecting, Io::None, Endpoint::Unknown);
        let placed = core.sides.insert(fresh).is_ok() && self.carriers.insert(made).is_ok();
        debug_assert!(placed, "both tables had room");
        let wait = core.config.timeouts.connect.max(Duration::from_secs(1)) + record.timing.handshake;
        let deadline_ms = core.now_ms + wait.as_millis() as u64;
        core.one_offs.push(deadline_ms, OneOff::Control(Deadline::Carrier(carrier)));
        let dialer = self.links.get(link)?.dialer.as_ref()?;
        if let Some(over) = dialer.over {
            self.dial_stream(core, side, over.link());
        } else if let Some(endpoint) = dialer.slots.get(place).and_then(|slot| dialer.endpoints.of(&slot.path)) {
            endpoint.dial(core, side, &target, egress);
        }
        Some(carrier)
    }

    /// Returns the address of a live subflow of the session, for a path that has no address of its own and can reach that
    /// one.
    fn address_of_session(&self, core: &Core, link: Id, path: &Path) -> Option<SocketAddr> {
        let carriers = self.links.get(link)?.carriers.iter().filter_map(|id| self.carriers.get(*id));
        let live = carriers.filter(|carrier| carrier.stage == CarrierStage::Live && carrier.subflow.is_some());
        let mut addrs = live.filter_map(|carrier| core.sides.get(carrier.side)?.endpoint.ip());
        let is_reached = |addr: &SocketAddr| path.source.is_none_or(|source| source.is_ipv4() == addr.is_ipv4());
        addrs.find(is_reached).filter(|_| path.peer.is_none())
    }

    /// Handles the result of the dial of a carrier's socket.
    pub(crate) fn carrier_dialled(&mut self, core: &mut Core, id: Id, result: Result<(), &Failure>) {
        let Some(carrier) = self.carriers.get(id).filter(|carrier| carrier.stage == CarrierStage::Dialing) else {
            return;
        };
        let side = carrier.side;
        if let Err(failure) = result {
            return self.carrier_failed(core, id, failure);
        }
        let Some(record) = core.sides.get_mut(side) else { return };
        (record.state, record.ready.writable) = (SideState::Connected, true);
        let racers = record.dial.take().map(|dial| dial.racers).unwrap_or_default();
        racers.into_iter().for_each(|racer| core.drop_racer(racer));
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), core.sides.get_mut(side)) else { return };
        let Some(link) = carrier.link.and_then(|link| self.links.get(link)) else { return };
        let Some(dialer) = &link.dialer else { return };
        let slot = dialer.slots.get(carrier.place);
        let Some(endpoint) = slot.and_then(|slot| dialer.endpoints.of(&slot.path)) else { return };
        match endpoint.carrier(side, record, &self.buffers) {
            Ok(mut transport) => {
                transport.tune(record, link.timing.options());
                if dialer.simultaneous {
                    record.io.reset_on_close();
                }
                carrier.transport = Some(transport);
            }
            Err(error) => {
                return self.carrier_failed(core, id, &Failure::new(Reason::Other, error.to_string()));
            }
        }
        carrier.stage = CarrierStage::Securing;
        self.run_carrier(core, id);
    }

    /// Goes on with a carrier whose TLS handshake is done: sends HELLO, or waits for that of the peer.
    pub(crate) fn secured(&mut self, core: &mut Core, id: Id) -> Result<(), Failure> {
        if self.carriers.get(id).is_none_or(|carrier| carrier.stage != CarrierStage::Securing) {
            return Ok(());
        }
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        let Some(transport) = carrier.transport.as_ref().filter(|transport| !transport.is_handshaking()) else {
            return Ok(());
        };
        if carrier.server.is_some() && transport.protocol() == Protocol::Invite {
            // The key of such a peer proves nothing, so it is not admitted.
            carrier.stage = CarrierStage::Invited;
            return Ok(());
        }
        if carrier.server.is_some() {
            carrier.stage = CarrierStage::Greeting;
            self.admitted(core, id);
            return Ok(());
        }
        let (Some(link), Some(key), cipher) = (carrier.link, transport.peer_key(), transport.cipher()) else {
            return Ok(());
        };
        let Some(record) = self.links.get_mut(link) else { return Ok(()) };
        if record.was_established && record.key != Some(key) {
            return Err(Failure::new(Reason::AuthFailed, "another node answers there"));
        }
        let Some(linked) = core.pools.sessions.get_mut(link) else { return Ok(()) };
        if !record.was_established {
            record.note_key(key, cipher);
            linked.name = record.policy.name(&key).into();
            core.peers.of(&key, core.now_ms).set_name(Arc::clone(&linked.name));
        }
        match self.session_role(core, id, link, &key)? {
            SessionRole::Client => self.send_hello(core, id, link),
            SessionRole::Server => {
                self.carriers.get_mut(id).into_iter().for_each(|carrier| carrier.stage = CarrierStage::Greeting);
                Ok(())
            }
        }
    }

    /// Sends HELLO on a dialed carrier.
    fn send_hello(&mut self, core: &mut Core, id: Id, link: Id) -> Result<(), Failure> {
        let instance = self.links.get(link).and_then(|record| record.dialer.as_ref()?.instance);
        let (boot, now) = (self.boot(instance), core.pools.sessions.now);
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), self.links.get_mut(link)) else {
            return Ok(());
        };
        let (Some(transport), Some(linked)) = (&carrier.transport, core.pools.sessions.get_mut(link)) else {
            return Ok(());
        };
        let config = record.session_config(&self.memory);
        let begin = || Session::new(SessionRole::Client, config, SessionId(super::random()), boot, now);
        let session = linked.session.get_or_insert_with(begin);
        if !record.was_established && session.subflow_ids().next().is_some() {
            // The carrier beside this one was faster.
            return Err(Failure::new(Reason::Other, "another subflow begins the session"));
        }
        if !record.was_established {
            record.secret = proof::session_secret(transport, session.id()).ok_or(Reason::Internal)?;
        }
        let subflow = session.next_subflow();
        let proofs = proof::proofs(transport, &record.secret, SessionRole::Client, session.id(), subflow)
            .ok_or(Reason::Internal)?;
        if !session.connect(now, subflow, transport.lanes(), proofs) {
            return Err(Failure::new(Reason::LimitReached, "the session takes no more subflows"));
        }
        (carrier.subflow, carrier.stage) = (Some(subflow), CarrierStage::Live);
        if let (Some(side), Some(rate)) = (core.sides.get(carrier.side), record.received.rate()) {
            transport.limit_rate(side, rate);
        }
        core.pools.sessions.touch(link);
        Ok(())
    }

    /// Frees a carrier that has failed or was too slow, and schedules the next try.
    pub(crate) fn carrier_failed(&mut self, core: &mut Core, id: Id, failure: &Failure) {
        let Some(carrier) = self.carriers.get(id) else { return };
        let (link, place, subflow) = (carrier.link, carrier.place, carrier.subflow);
        log::debug!(target: super::accept::TARGET, carrier = id.to_string(), failure = failure.to_string(); "carrier is gone");
        if carrier.server.is_some() && link.is_none() {
            core.stats.unauthenticated_failed += 1;
            let from = core.peer(carrier.side);
            if let Some(suppressed) = core.may_log_network(&from, failure.reason) {
                log::info!(target: super::accept::TARGET, from = from.to_string(), reason = failure.reason.as_str(), detail = failure.detail.as_deref().unwrap_or("-"), suppressed; "unauthenticated peer refused");
            }
        }
        self.drop_carrier(core, id);
        let Some(link) = link else { return };
        let now = core.pools.sessions.now;
        if let (Some(subflow), Some(session)) = (subflow, core.pools.sessions.session_mut(link)) {
            session.subflow_down(now, subflow);
        }
        if self.has_fresh_failed(link, place, id, failure.reason) {
            return core.pools.sessions.touch(link);
        }
        // A reset has no reason of its own.
        if matches!(failure.reason, Reason::LinkLost | Reason::Other) && subflow.is_some() {
            self.doubt_others(core, link);
        }
        self.try_later(core, link, place, failure);
        core.pools.sessions.touch(link);
    }

    /// Schedules the next try of a missing subflow: at once, or after a pause.
    pub(crate) fn try_later(&mut self, core: &mut Core, link: Id, place: usize, failure: &Failure) {
        if matches!(failure.reason, Reason::TimedOut | Reason::HandshakeTimeout) {
            self.forget_name_of_peer(core, link, place);
        }
        let (now_ms, sides) = (core.now_ms, &core.sides);
        let Some(record) = self.links.get_mut(link) else { return };
        let linked = core.pools.sessions.get(link);
        // Skip clients that have left.
        record.waiting.dests.retain(|dest| sides.get(*dest).is_some());
        let (first, longest) = (
            record.timing.redial.0,
            linked.map_or(record.timing.redial.1, |linked| record.longest_pause(linked, failure.reason, now_ms)),
        );
        let is_open = linked.and_then(|linked| linked.session.as_ref()).is_some_and(Session::is_open);
        let (was_established, closing) = (record.was_established, record.closing);
        let redial_quic = record.timing.redial_quic;
        let Some(dialer) = record.dialer.as_mut() else { return };
        let Some(slot) = dialer.slots.get_mut(place) else { return };
        if slot.beside.is_none() {
            record.failed = Some((failure.clone(), now_ms));
        }
        slot.carrier = None;
        let up_ms = slot.up_ms.take();
        slot.was_up &= up_ms.is_some() || !is_open;
        if slot.removed || closing {
            return;
        }
        if let Some(up_ms) = up_ms {
            // The first try follows at once if the subflow has lasted, otherwise after the first pause.
            slot.tries = u32::from(now_ms.saturating_sub(up_ms) < LASTED_MS);
        } else if slot.beside.is_some() {
            slot.tries = slot.tries.max(1);
        }
        dialer.hasten_beside(place, now_ms, first);
        let (first, longest) = dialer.pauses(place, (first, longest), redial_quic);
        let Some(slot) = dialer.slots.get_mut(place) else { return };
        let by_chance = if dialer.is_by_chance { TRIES_BY_CHANCE } else { 0 };
        let doublings = slot.tries.saturating_sub(1).saturating_sub(by_chance).min(16);
        let doubled = first.saturating_mul(1 << doublings).min(longest);
        let pause = if slot.tries == 0 && was_established { Duration::ZERO } else { jittered(doubled) };
        slot.tries = slot.tries.saturating_add(1);
        slot.failed = Some((failure.clone(), now_ms));
        slot.next_ms = now_ms.saturating_add(pause.as_millis() as u64);
        let (tries, failure) = (slot.tries, failure.clone());
        if slot.beside.is_none() {
            self.tell(core, link, &LinkEvent::NoSubflow { place, failure, tries });
        } else {
            self.note_blocked(core, link, &failure, tries);
        }
        core.pools.sessions.touch(link);
    }
}

impl Node {
    /// Drops the cached addresses of a peer that did not answer, so that the next try looks its name up again.
    fn forget_name_of_peer(&mut self, core: &mut Core, link: Id, place: usize) {
        let Some(dialer) = self.links.get(link).and_then(|record| record.dialer.as_ref()) else { return };
        let path = dialer.slots.get(place).and_then(|slot| slot.path.peer.as_ref());
        if let Target::Name(_, name, _) = path.unwrap_or(&dialer.peer) {
            core.resolver.forget(name);
        }
    }

    /// Brings tries nearer, because a connection has begun to wait for the link.
    pub(super) fn hasten(&mut self, core: &mut Core, link: Id) {
        let now_ms = core.now_ms;
        let Some(record) = self.links.get_mut(link) else { return };
        if !core.pools.sessions.get(link).is_some_and(|linked| record.is_awaited(linked)) {
            return;
        }
        let longest = record.timing.redial_awaited;
        let latest_ms = now_ms.saturating_add(longest.as_millis() as u64);
        let Some(dialer) = record.dialer.as_mut() else { return };
        let late = |slot: &&mut SubflowSlot| slot.carrier.is_none() && slot.next_ms > latest_ms;
        for slot in dialer.slots.iter_mut().filter(late) {
            slot.next_ms = now_ms.saturating_add(jittered(longest).as_millis() as u64);
        }
        core.pools.sessions.touch(link);
    }
}

/// Returns a random pause between half of the given one and all of it.
pub(super) fn jittered(pause: Duration) -> Duration {
    let [chance] = super::random::<1>();
    pause / 2 + pause.mul_f64(f64::from(chance) / 512.0)
}

/// Tries at the first pause if each fails with a chance of one half.
const TRIES_BY_CHANCE: u32 = 8;
/// Minimum age of a subflow that has lasted. Two nodes that displace each other must not do so without a pause.
pub(super) const LASTED_MS: u64 = 1_000;
