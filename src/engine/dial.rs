//! Dials: connects dests.
//!
//! ```text
//!   address ------------------------------+
//!   unix path ----------------------------+--> attempt --> connected
//!   name --> cache, or lookup by a worker-+       |
//!                 ^                               +-- failed, or 250 ms without an answer --> next address
//!                 +-- cached addresses all failed: once --+
//! ```
//! All of it runs in the loop, without blocking: a target that drops packets holds no thread. A literal address needs
//! only its side. A name with several addresses has a [`Dial`]: the first attempt is the dest's own
//! socket, and attempts that start beside it (happy eyeballs, RFC 8305) are sides of their own, whose socket moves
//! to the dest when they win. The dial as a whole has one deadline, the connect timer of its connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::Token;

use crate::engine::connector::Answer;
use crate::engine::control::Control;
use crate::engine::core::{Core, OneOff};
use crate::engine::dial_socket::start_connect;
use crate::engine::fair::Asker;
use crate::engine::guarded::Guarded;
use crate::engine::limits::{Family, RACERS};
use crate::engine::observer::Event;
use crate::engine::redirected::note_dial;
use crate::engine::resolve::{self, Resolved, Wanted};
use crate::engine::workers::Lookup;
use crate::relay::connection::Stage;
use crate::relay::dial::{Dial, Egress, Permit};
use crate::relay::half::{Flow, SMALL_BYTES};
use crate::relay::io::Io;
use crate::relay::side::{Owner, Role, Side, SideState};
use crate::sys::{self, duplex::Duplex};
use crate::types::address::{Endpoint, Name, Target};
use crate::types::id::{Id, Kind};
use crate::types::reason::{Failure, Reason};

impl Core {
    /// Starts to connect a side that has just been made. A name with an `address` is not looked up. With an `egress`, its
    /// sockets leave from there. With `is_guarded`, the target may not be a guarded address.
    pub(crate) fn dial(
        &mut self,
        dest: Id,
        target: &Rc<Target>,
        address: Option<SocketAddr>,
        permit: Option<Permit>,
        egress: Option<Rc<Egress>>,
        is_guarded: bool,
    ) {
        if let Err(error) = target.proto().require_tcp() {
            return self.queues.dialled.push_back((dest, Err(error.into())));
        }
        if let Target::End(_) = **target {
            let failure = Failure::new(Reason::NotPermitted, "an end is reached over a link only");
            return self.queues.dialled.push_back((dest, Err(failure)));
        }
        match self.offer(dest, target) {
            Ok(false) => {}
            Ok(true) if permit.is_some() => return self.make_dial(dest, target, permit, egress, is_guarded),
            Ok(true) => return,
            Err(failure) => return self.queues.dialled.push_back((dest, Err(failure))),
        }
        if let Target::Ip(_, addr) = **target
            && is_guarded
            && self.guarded.has(addr)
        {
            return self.queues.dialled.push_back((dest, Err(Guarded::failure())));
        }
        if !matches!(**target, Target::Unix(_)) {
            self.read_ahead(dest);
        }
        match &**target {
            Target::Ip(_, addr) if egress.is_none() => self.attempt(dest, *addr),
            Target::Ip(_, addr) => {
                self.make_dial(dest, target, permit, egress, is_guarded);
                let dial = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut());
                dial.into_iter().for_each(|dial| dial.addresses.push(*addr));
                self.next_address(dest);
            }
            Target::Unix(path) => self.attempt_unix(dest, path),
            // Refused above.
            Target::End(_) => {}
            Target::Name(_, name, _) => {
                self.make_dial(dest, target, permit, egress, is_guarded);
                match address {
                    Some(address) => self.found(dest, &Ok(vec![address.ip()]), false),
                    None => self.want_name(dest, name),
                }
            }
        }
    }

    /// Offers a target to the connector. Returns true if the connector takes it. A connector that panics fails the dial,
    /// because a target that it might have wanted must not be connected directly.
    fn offer(&mut self, dest: Id, target: &Target) -> Result<bool, Failure> {
        let Some(connector) = self.connector.as_mut() else { return Ok(false) };
        let mailbox = &self.mailbox;
        let offered = catch_unwind(AssertUnwindSafe(|| {
            let is_wanted = connector.wants(target);
            if is_wanted {
                connector.connect(target, Answer::new(Arc::clone(mailbox), dest));
            }
            is_wanted
        }));
        offered.map_err(|_| {
            self.stats.panics += 1;
            Failure::new(Reason::Internal, "the connector panicked")
        })
    }

    /// Tells the connector, if there is one, that a side is gone that was not connected.
    pub(crate) fn cancel_dial(&mut self, side: Id) {
        let Some(connector) = self.connector.as_mut() else { return };
        if catch_unwind(AssertUnwindSafe(|| connector.cancelled(side))).is_err() {
            self.stats.panics += 1;
        }
    }

    fn make_dial(
        &mut self,
        dest: Id,
        target: &Rc<Target>,
        permit: Option<Permit>,
        egress: Option<Rc<Egress>>,
        is_guarded: bool,
    ) {
        if let Some(side) = self.sides.get_mut(dest) {
            side.dial = Some(Box::new(Dial {
                target: Rc::clone(target),
                permit,
                addresses: Vec::new(),
                next: 0,
                racers: Vec::new(),
                failure: None,
                from_cache: false,
                egress,
                is_guarded,
            }));
        }
    }

    fn want_name(&mut self, dest: Id, name: &Name) {
        if let Some((ip, zone)) = name.zoned() {
            // This host alone resolves the zone; no name server is asked.
            let lacks = || Failure::new(Reason::NameResolutionFailure, format!("this host has no interface {zone}"));
            let found = sys::interface_index(zone).map(|_| vec![ip.into()]).ok_or_else(lacks);
            return self.found(dest, &found, false);
        }
        let asker = self.asker_of(dest);
        let (sides, now_ms) = (&self.sides, self.now_ms);
        match self.resolver.want(name, dest, asker, now_ms, |side| sides.get(side).is_some()) {
            Wanted::Waits => {}
            Wanted::Known(addresses) => self.found(dest, &Ok(addresses), true),
            Wanted::LookUp(is_answered) => {
                self.stats.lookups += 1;
                let (patience, answer_to) = (self.settings_of_side(dest).timeouts.connect, Arc::clone(&self.mailbox));
                let lookup = Lookup::new(name.clone(), patience, answer_to, is_answered);
                let asked = self.workers.as_ref().map(|workers| workers.look_up(asker, lookup));
                if asked != Some(Ok(())) {
                    self.resolver.refused(name, dest, asker);
                    let failure = Failure::new(Reason::LimitReached, "too many names are being looked up");
                    self.found(dest, &Err(failure), false);
                }
            }
        }
    }

    /// Returns the asker whose share of the workers a dest uses.
    fn asker_of(&mut self, dest: Id) -> Asker {
        let Some(record) = self.owner(dest).and_then(|(connection, _)| self.connections.get(connection)) else {
            // The side is the socket of a carrier that this node dials.
            return Asker::Own;
        };
        if let Some(peer) = record.payer.and_then(|payer| self.peers.get_mut(payer)) {
            return Asker::Key(*peer.key());
        }
        match self.sides.get(record.source).map(|source| &source.endpoint) {
            Some(endpoint @ (Endpoint::Ip(..) | Endpoint::Unix(_))) => Asker::Network(endpoint.into()),
            _ => Asker::Own,
        }
    }

    /// Queues the dests of a name that a worker has looked up.
    pub(crate) fn resolved(&mut self, resolved: Resolved) {
        let dests = self.resolver.resolved(&resolved, self.now_ms);
        if !dests.is_empty() {
            self.queues.found.push_back((dests.into(), Rc::new(resolved)));
        }
    }

    /// Connects dests whose names were looked up, as many as a turn permits. The names take turns.
    pub(crate) fn connect_found(&mut self) {
        for _ in 0..self.config.limits.dials_per_turn {
            let Some((mut dests, resolved)) = self.queues.found.pop_front() else { break };
            if let Some(dest) = dests.pop_front() {
                self.found(dest, &resolved.found, false);
            }
            if !dests.is_empty() {
                self.queues.found.push_back((dests, resolved));
            }
        }
    }

    /// Returns the address families that a dest may be connected in: that of its source address alone, if it has one.
    fn family_of(&self, dest: Id) -> Family {
        match self.egress_of(dest).and_then(|egress| egress.source) {
            Some(IpAddr::V4(_)) => Family::OnlyIpv4,
            Some(IpAddr::V6(_)) => Family::OnlyIpv6,
            None => self.settings_of_side(dest).family,
        }
    }

    /// Handles the result of the lookup of a dest's name.
    fn found(&mut self, dest: Id, found: &Result<Vec<IpAddr>, Failure>, from_cache: bool) {
        if dest.kind() == Kind::Flow {
            return self.flow_resolved(dest, found, from_cache);
        }
        let (family, count_max) = (self.family_of(dest), self.config.limits.addresses_per_name);
        let Some(dial) = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut()) else {
            self.stats.stale += 1;
            return;
        };
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(failure) => {
                dial.failure = Some(failure.clone());
                return self.give_up(dest);
            }
        };
        let mut ordered = resolve::order(addresses, dial.target.port().unwrap_or(0), family, count_max);
        if ordered.is_empty() {
            dial.failure = Some(Failure::new(Reason::NameResolutionFailure, "no address of a permitted family"));
        }
        let zone = match &*dial.target {
            Target::Name(_, name, _) => name.zoned().and_then(|(_, zone)| sys::interface_index(zone)),
            _ => None,
        };
        for addr in &mut ordered {
            if let (SocketAddr::V6(addr), Some(zone)) = (addr, zone) {
                addr.set_scope_id(zone);
            }
        }
        if let Some(permit) = dial.permit.clone().filter(|_| !ordered.is_empty()) {
            ordered.retain(|address| asks(&permit, *address));
            dial.failure =
                ordered.is_empty().then(|| Failure::new(Reason::NotPermitted, "a rule forbids its addresses"));
        }
        if dial.is_guarded && ordered.iter().any(|addr| self.guarded.has(*addr)) {
            ordered.retain(|addr| !self.guarded.has(*addr));
            dial.failure = ordered.is_empty().then(Guarded::failure);
        }
        (dial.addresses, dial.next, dial.from_cache) = (ordered, 0, from_cache);
        self.next_address(dest);
    }

    /// Tries the next address of a dest, beside the attempts without an answer. If none is left, the last attempt to fail
    /// decides.
    pub(crate) fn next_address(&mut self, dest: Id) {
        let Some(side) = self.sides.get_mut(dest) else { return };
        let (idle, Some(dial)) = (matches!(side.io, Io::None), side.dial.as_mut()) else { return };
        if side.state == SideState::Connected {
            return;
        }
        let Some(addr) = dial.addresses.get(dial.next).copied() else {
            if idle && dial.racers.is_empty() {
                self.give_up(dest);
            }
            return;
        };
        if idle {
            dial.next += 1;
            self.attempt(dest, addr);
        } else if self.racers < RACERS
            && let Ok(racer) =
                self.sides.insert(Side::new(Owner::Race(dest), SideState::Connecting, Io::None, addr.into()))
        {
            self.racers += 1;
            if let Some(dial) = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut()) {
                dial.next += 1;
                dial.racers.push(racer);
            }
            self.attempt(racer, addr);
        }
        let Some(dial) = self.sides.get(dest).and_then(|side| side.dial.as_ref()) else { return };
        if dial.next < dial.addresses.len() {
            let wait_ms = self.settings_of_side(dest).timeouts.happy_eyeballs.as_millis() as u64;
            self.one_offs.push(self.now_ms + wait_ms, OneOff::NextAddress(dest));
        }
    }

    /// Reads the first bytes of a client that was just accepted, before its dest is dialed: most clients send first, and
    /// have sent already. Only a few bytes are read, because they may wait for as long as the dial takes. A client that is
    /// gone again is dialed for all the same, as if its reset had arrived a moment later.
    fn read_ahead(&mut self, dest: Id) {
        let Some((connection, Role::Dest)) = self.owner(dest) else { return };
        if self.opening != Some(connection) {
            return;
        }
        let Some(record) = self.connections.get_mut(connection) else { return };
        let (store, source) = (&mut record.halves[Role::Source.out()].store, self.sides.get_mut(record.source));
        let Some(source) = source.filter(|source| store.is_empty() && matches!(source.io, Io::Tcp(_))) else {
            return;
        };
        let mut bytes = [0; SMALL_BYTES];
        match source.io.read_raw(&mut bytes) {
            Ok(got) => {
                store.keep_few(&bytes[..got]);
                // No event has announced these bytes, so the rest, or the end, must not wait for one.
                source.ready.readable |= got == 0 || got == bytes.len();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let error = source.note_error(error);
                self.input_broke(connection, Role::Source, &error);
            }
        }
    }

    /// Returns true if bytes wait to be sent to a dest as soon as it is connected.
    fn speaks_first(&self, dest: Id) -> bool {
        let connection = self.owner(dest).and_then(|(connection, _)| self.connections.get(connection));
        connection.is_some_and(|connection| !connection.halves[Role::Source.out()].store.is_empty())
    }

    /// Starts one connect, of a dest or of an attempt beside it.
    pub(super) fn attempt(&mut self, side: Id, addr: SocketAddr) {
        let started = start_connect(addr, self.egress_of(side), self.config.mark, self.speaks_first(side));
        started.iter().for_each(|io| note_dial(io, addr));
        match started.and_then(|io| self.wait_for_connect(side, io)) {
            Ok(()) => self.sides.get_mut(side).into_iter().for_each(|record| record.endpoint = addr.into()),
            // The error may be that of the registration: the address is tried again when there is memory for it.
            Err(error) => self.attempt_failed(side, &error, Some(addr)),
        }
    }

    /// Registers the socket of a side that is being connected, and gives it to the side.
    fn wait_for_connect(&mut self, side: Id, mut io: Io) -> io::Result<()> {
        let unpollable = io.register(&self.registry, Token(side.to_u64() as usize))?;
        if let Some(record) = self.sides.get_mut(side) {
            record.io = io;
            record.set_unpollable(unpollable);
        }
        Ok(())
    }

    fn attempt_unix(&mut self, dest: Id, path: &Path) {
        let (sender, answer) = (path.to_owned(), self.answer(dest));
        if let Some(side) = self.sides.get_mut(dest) {
            side.endpoint = Endpoint::Unix(path.into());
        }
        match sys::connect_unix(path).and_then(|socket| self.wait_for_connect(dest, Io::Unix(socket))) {
            Ok(()) => {
                answer.forget();
                self.queues.dialled.push_back((dest, Ok(())));
            }
            // The backlog is full, and no event tells when it has room, so a worker waits for it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let wait = self.settings_of_side(dest).timeouts.connect;
                let job = move || match sys::connect_unix_waiting(&sender, wait) {
                    Ok(socket) => answer.connected(socket),
                    Err(error) => answer.failed(Failure::from(&error)),
                };
                let asker = self.asker_of(dest);
                if self.workers.as_ref().map(|workers| workers.connect(asker, job)) != Some(Ok(())) {
                    // The answer of the dropped job comes too late, so the failure is queued here.
                    let failure = Failure::new(Reason::LimitReached, "too many connects wait");
                    self.queues.dialled.push_back((dest, Err(failure)));
                }
            }
            Err(error) => {
                answer.forget();
                self.attempt_failed(dest, &error, None);
            }
        }
    }

    pub(crate) fn answer(&self, side: Id) -> Answer {
        Answer::new(Arc::clone(&self.mailbox), side)
    }

    /// Handles an event of a socket that is being connected.
    pub(crate) fn attempt_ready(&mut self, side: Id) {
        let Some(record) = self.sides.get_mut(side) else { return };
        // The name is still being looked up, or the peer of a link has not answered yet.
        let waits = matches!(record.io, Io::None | Io::Stream(_));
        if waits || !(record.ready.writable || record.ready.error) {
            return;
        }
        if let Some(error) = record.ready.error.then(|| record.io.take_error(&self.pools.sessions)).flatten() {
            let addr = record.endpoint.ip();
            return self.attempt_failed(side, &error, addr);
        }
        if let Some(addr) = record.endpoint.ip().filter(|addr| record.io.leads_to_itself(*addr)) {
            return self.attempt_failed(side, &sys::connection_refused(), Some(addr));
        }
        if self.waits_to_connect_again(side) {
            return;
        }
        let Some(record) = self.sides.get_mut(side) else { return };
        match record.owner {
            Owner::Race(dest) => self.win(dest, side),
            Owner::Connection(..) | Owner::Carrier(_) | Owner::Flow(..) => {
                self.queues.dialled.push_back((side, Ok(())))
            }
        }
    }

    /// Moves the socket of an attempt that has succeeded to its dest.
    fn win(&mut self, dest: Id, racer: Id) {
        let Some(winner) = self.sides.get_mut(racer) else { return };
        let (mut io, endpoint, ready) = (std::mem::take(&mut winner.io), winner.endpoint.clone(), winner.ready);
        let registered = io.register_again(&self.registry, Token(dest.to_u64() as usize));
        let Some(record) = self.sides.get_mut(dest).filter(|record| record.state == SideState::Connecting) else {
            self.drop_racer(racer);
            return;
        };
        let queued = record.ready.queued;
        (record.io, record.endpoint, record.ready) = (io, endpoint, ready);
        record.ready.queued = queued;
        let result = registered.map_err(|error| Failure::from(&error));
        self.queues.dialled.push_back((dest, result));
    }

    /// Handles a failed connect: tries another address, or waits for descriptors.
    pub(super) fn attempt_failed(&mut self, side: Id, error: &io::Error, addr: Option<SocketAddr>) {
        if self.is_to_connect_again(side, error) {
            return;
        }
        let Some(record) = self.sides.get_mut(side) else { return };
        record.io = Io::None;
        record.ready = crate::relay::side::Ready { queued: record.ready.queued, ..Default::default() };
        let dest = match record.owner {
            Owner::Race(dest) => dest,
            Owner::Connection(..) | Owner::Carrier(_) | Owner::Flow(..) => side,
        };
        if dest != side {
            self.drop_racer(side);
            if let Some(dial) = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut()) {
                dial.racers.retain(|racer| *racer != side);
            }
        }
        if sys::is_out_of_own_descriptors(error) {
            // Flows that wait for an answer make room for the next try: a few at first, and then one for each.
            _ = if self.descriptors.since_ms.is_some() { self.end_waiting_flow() } else { self.end_waiting_flows() };
        }
        if sys::is_out_of_descriptors(error) {
            return self.dial_starves(dest, addr);
        }
        let failure = match addr {
            Some(addr) => {
                log::debug!(target: "seaprox::connection", dest = dest.to_string(), addr = addr.to_string(), error = error.to_string(); "address failed");
                Failure::of_connect(error, addr, self.egress_of(dest)).about(addr)
            }
            None => Failure::from(error),
        };
        let Some(record) = self.sides.get_mut(dest) else { return };
        let Some(dial) = record.dial.as_mut() else {
            self.queues.dialled.push_back((dest, Err(failure)));
            return;
        };
        dial.failure = Some(Failure::worse(dial.failure.take(), failure));
        self.next_address(dest);
    }

    /// Returns the egress of a side, or of the dest that an attempt belongs to.
    pub(super) fn egress_of(&self, side: Id) -> Option<&Egress> {
        let dest = match self.sides.get(side)?.owner {
            Owner::Race(dest) => dest,
            Owner::Connection(..) | Owner::Carrier(_) | Owner::Flow(..) => side,
        };
        self.sides.get(dest)?.dial.as_ref()?.egress.as_deref()
    }

    /// Lets a dest wait for a descriptor.
    fn dial_starves(&mut self, dest: Id, addr: Option<SocketAddr>) {
        if let Some(dial) = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut()) {
            if dial.next > 0 && addr.is_some() {
                dial.next -= 1;
            }
        } else if let (Some(side), Some(addr)) = (self.sides.get_mut(dest), addr) {
            side.endpoint = addr.into();
        }
        self.descriptors.dials.push_back(dest);
        self.descriptors_short();
    }

    /// Retries the dests that waited for descriptors.
    pub(crate) fn feed_starved(&mut self) {
        for _ in 0..self.descriptors.dials.len() {
            let Some(dest) = self.descriptors.dials.pop_front() else { break };
            let Some(side) = self.sides.get(dest) else { continue };
            match (&side.dial, side.endpoint.clone()) {
                (Some(_), _) => self.next_address(dest),
                (None, Endpoint::Ip(_, addr)) => self.attempt(dest, addr),
                (None, Endpoint::Unix(path)) => self.attempt_unix(dest, &path),
                (None, _) => {}
            }
            if self.descriptors.dials.back() == Some(&dest) {
                break;
            }
        }
    }

    /// Fails a dest that has no address left. If the addresses came from the cache, the name is looked up again, once.
    fn give_up(&mut self, dest: Id) {
        let Some(dial) = self.sides.get_mut(dest).and_then(|side| side.dial.as_mut()) else { return };
        let failure = dial.failure.take().unwrap_or(Reason::NameResolutionFailure.into());
        if let Target::Name(_, name, _) = &*Rc::clone(&dial.target) {
            self.resolver.forget(name);
            if std::mem::take(&mut dial.from_cache) && failure.reason != Reason::NotPermitted {
                return self.want_name(dest, name);
            }
        }
        self.queues.dialled.push_back((dest, Err(failure)));
    }

    /// Drops the cached addresses of a dest's name after they did not answer in time. The next connection looks the name up
    /// again, because its addresses may have changed.
    pub(crate) fn forget_name_of(&mut self, dest: Id) {
        let target = self.sides.get(dest).and_then(|side| side.dial.as_ref()).map(|dial| Rc::clone(&dial.target));
        if let Some(Target::Name(_, name, _)) = target.as_deref() {
            self.resolver.forget(name);
        }
    }

    /// Handles the answer of an external connector or of a worker.
    pub(crate) fn answered(&mut self, dest: Id, result: Result<Duplex, Failure>) {
        if self.state(dest) != Some(SideState::Connecting) {
            self.stats.stale += 1;
            return;
        }
        let permit = self.sides.get(dest).and_then(|side| side.dial.as_ref()?.permit.clone());
        let open = |side| Io::from_duplex(side).map_err(|error| Failure::from(&error.into()));
        let accept = |side| open(side).and_then(|io| permitted(io, permit));
        match result.and_then(accept) {
            Ok(io) => {
                if let Some(side) = self.sides.get_mut(dest).filter(|side| side.endpoint == Endpoint::Unknown) {
                    side.endpoint = io.peer();
                }
                let registered = self.wait_for_connect(dest, io).map_err(|error| Failure::from(&error));
                self.queues.dialled.push_back((dest, registered));
            }
            Err(failure) => self.queues.dialled.push_back((dest, Err(failure))),
        }
    }

    /// Returns the side of a connection that is being connected.
    pub(crate) fn dialing(&self, connection: Id) -> Option<Id> {
        let sides = [Role::Dest, Role::Source].map(|role| self.side(connection, role));
        sides.into_iter().flatten().find(|side| self.state(*side) == Some(SideState::Connecting))
    }

    /// Returns true if a side is to be connected still: it is neither released nor connected, and its connection is not
    /// over.
    pub(crate) fn is_dialing(&self, side: Id) -> bool {
        let stage = match self.sides.get(side).map(|side| &side.owner) {
            // A carrier whose dial has ended has no side.
            Some(Owner::Carrier(_) | Owner::Flow(..)) => Some(Stage::Connecting),
            _ => self.owner(side).and_then(|(connection, _)| self.stage(connection)),
        };
        self.state(side) == Some(SideState::Connecting) && stage.is_some_and(|stage| stage != Stage::Closed)
    }

    /// Handles the connect timer of a connection. Returns false if nothing is being dialed, because the connection waits for
    /// an approval.
    pub(crate) fn dial_timed_out(&mut self, connection: Id, control: &mut dyn Control) -> bool {
        let Some(dest) = self.dialing(connection) else { return false };
        self.forget_name_of(dest);
        let after = crate::types::units::format_duration(self.settings_of_side(dest).timeouts.connect);
        let no_answer = || Failure::new(Reason::TimedOut, format!("no answer within {after}"));
        let failure = control.stop_waiting(self, dest, &after).unwrap_or_else(no_answer);
        self.queues.dialled.push_back((dest, Err(failure)));
        true
    }

    /// Settles a finished dial before its handler is told: the connection returns to its handshake stage. Returns none if
    /// the dial was settled before, or the connection is gone.
    pub(crate) fn settle_dial(&mut self, dest: Id, result: Result<(), &Failure>) -> Option<Id> {
        let (connection, role) = self.owner(dest)?;
        self.stop_awaiting(connection);
        let side = self.sides.get_mut(dest).filter(|side| side.state == SideState::Connecting)?;
        let record = self.connections.get_mut(connection).filter(|record| record.stage != Stage::Closed)?;
        record.dial_ms = Some((self.now_ms - record.dial_since_ms) as u32);
        match result {
            Ok(()) => {
                self.stats.connect_duration.observe(Duration::from_millis(self.now_ms - record.dial_since_ms));
                side.state = SideState::Connected;
                side.ready.writable = true;
                side.ready.may_delay = self.profiles[record.profile].settings.nodelay;
                let racers = side.dial.take().map(|dial| dial.racers).unwrap_or_default();
                racers.into_iter().for_each(|racer| self.drop_racer(racer));
                log::debug!(target: "seaprox::connection", id = connection.to_string(); "connected");
                self.tune(dest);
                if role == Role::Dest {
                    self.observe(Event::ConnectionConnected { connection });
                }
            }
            Err(failure) => {
                let detail = failure.detail.clone();
                detail.into_iter().for_each(|detail| record.notes().detail = Some(detail));
                self.stats.connect_failures[failure.reason as usize] += 1;
                if role == Role::Dest {
                    record.dest = None;
                    self.drop_side(dest);
                }
            }
        }
        if let Some(half) = self.connections.get_mut(connection).map(|record| &mut record.halves[Role::Source.out()]) {
            half.flow = if half.flow == Flow::Hold { Flow::Handler } else { half.flow };
        }
        self.set_stage(connection, Stage::Handshake);
        Some(connection)
    }

    /// Enables TCP keepalive at a new socket, which inherits no options from a listener.
    fn tune(&self, dest: Id) {
        let Some((connection, _)) = self.owner(dest) else { return };
        let (record, side) = (self.connections.get(connection), self.sides.get(dest));
        let Some(profile) = record.map(|record| &self.profiles[record.profile]) else { return };
        if !profile.settings.tcp_keepalive.is_zero() && !profile.delays_keepalive() {
            side.into_iter().for_each(|side| side.io.set_keepalive(profile.settings.tcp_keepalive));
        }
    }
}

/// Applies the rules to a socket that an external connector has connected, once its peer is known.
fn permitted(io: Io, permit: Option<Permit>) -> Result<Io, Failure> {
    match (permit, io.peer().ip()) {
        (Some(permit), Some(addr)) if !asks(&permit, addr) => {
            Err(Failure::new(Reason::NotPermitted, "a rule forbids its address"))
        }
        _ => Ok(io),
    }
}

/// Asks a rule about an address. A rule that panics forbids the address.
fn asks(permit: &Permit, addr: SocketAddr) -> bool {
    catch_unwind(AssertUnwindSafe(|| permit(addr))).unwrap_or(false)
}
