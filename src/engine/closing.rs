//! Closing: the log line of a connection that is over, its counts, and the release of what it held.

use std::fmt;
use std::time::Duration;

use log::Level;

use crate::engine::core::Core;
use crate::engine::datagrams::association::AssociationTotals;
use crate::engine::observer::Event;
use crate::relay::connection::Connection;
use crate::relay::half::Phase;
use crate::relay::side::Role;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;
use crate::types::units::format_duration;

impl Core {
    /// Sets the requested address for the log if it is not a valid target: the unusable name as it was received.
    pub(crate) fn set_asked_text(&mut self, connection: Id, text: &str) {
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.notes().asked = Some(text.into());
        }
    }

    /// Frees a connection that is over, and releases everything that it held.
    pub(crate) fn free(&mut self, id: Id) {
        let Some(connection) = self.connections.get(id) else { return };
        let reason = connection.reason.unwrap_or(Reason::Internal);
        let (payer, is_empty_failure) = (connection.payer, connection.is_empty_failure(reason));
        let counts = reason.is_futile() && connection.returns_to.is_none();
        let totals = self.end_association(id, reason);
        if self.may_log_closed(payer.filter(|_| is_empty_failure))
            && let Some(connection) = self.connections.get(id)
        {
            self.log_closed(id, connection, reason, totals.as_deref());
        }
        if let Some(source) = self.counted_source(id) {
            self.sources.leave(source);
        }
        payer.into_iter().for_each(|payer| self.peers.release(payer, counts, self.now_ms));
        self.timers.stop(id, self.now_ms);
        self.stop_awaiting(id);
        self.end_hook(id, reason);
        let Some(mut connection) = self.connections.remove(id) else { return };
        self.profiles.leave(connection.profile, &mut self.timers);
        let [sent, received] = [Role::Source, Role::Dest].map(|role| connection.halves[role.out()].bytes);
        self.settle_one(&mut connection);
        if let Some(origin) = connection.listener {
            self.end_tally(origin, reason, is_empty_failure);
        }
        let (ending, fault) = connection.ending(reason);
        self.ended.note_connection([Some(id), Some(connection.source), connection.dest], reason);
        self.observe(Event::ConnectionEnded { connection: id, reason, ending, fault, sent, received });
        self.stats.closed[reason as usize] += 1;
        for role in [Role::Source, Role::Dest] {
            let Some(side) = connection.side(role) else { continue };
            let into = &connection.halves[role.into()];
            let is_settled = !into.dead && connection.halves.iter().all(|half| half.phase == Phase::Shut);
            // Both directions of the side were closed in order; a reset could only destroy data.
            if (reason.resets_peers() || connection.cut) && !is_settled {
                let io = self.sides.get(side).map(|side| &side.io);
                io.into_iter().for_each(|io| io.close_with_reset(&mut self.pools.sessions));
            }
            if let Some(stream) = self.sides.get(side).and_then(|side| side.io.stream())
                && into.is_cut_short()
            {
                // The far end must not take the received part for the whole, whatever the reason is.
                self.pools.sessions.reset(stream);
            }
            self.drop_side(side);
        }
        for half in &mut connection.halves {
            half.clear(&mut self.pools.blocks, &mut self.pools.splice_pipes);
        }
    }

    /// Returns the network that a connection counts against, if it is counted.
    pub(crate) fn counted_source(&self, id: Id) -> Option<PeerNetwork> {
        let connection = self.connections.get(id).filter(|connection| connection.is_counted)?;
        self.sides.get(connection.source).map(|source| (&source.endpoint).into())
    }

    /// Returns the name of the link that the dest was reached over, or `direct`.
    fn via_of(&self, connection: &Connection) -> String {
        let dest = connection.dest.and_then(|dest| self.sides.get(dest));
        if let Some(Endpoint::Link(peer, _)) = dest.map(|side| &side.endpoint) {
            return peer.to_string();
        }
        // A refused connection has no dest any more; the link still has its name, unless it is gone too.
        let Some(link) = connection.via else { return "direct".to_owned() };
        let group = || self.link_groups.get(&link).map_or("link", |name| name).to_owned();
        self.pools.sessions.get(link).map_or_else(group, |link| link.name.to_string())
    }

    /// Returns the address of the client that the peer of a link tells.
    pub(crate) fn told_client(&self, connection: &Connection) -> Option<Endpoint> {
        connection.notes.as_ref()?.client.map(Endpoint::from)
    }

    /// Logs the line of a connection that is over.
    fn log_closed(&self, id: Id, connection: &Connection, reason: Reason, totals: Option<&AssociationTotals>) {
        let level = if reason == Reason::Internal { Level::Error } else { Level::Info };
        if !log::log_enabled!(target: TARGET, level) {
            return;
        }
        let notes = connection.notes.as_deref();
        let dest = connection.dest.map(|dest| self.peer(dest));
        let asked = Shown::or_text(connection.asked.as_deref(), notes.and_then(|notes| notes.asked.as_deref()));
        let dialled = Shown::or_text(dest.as_ref(), notes.and_then(|notes| notes.dialled.as_deref()));
        let age = Duration::from_millis(self.now_ms.saturating_sub(connection.opened_ms));
        let (ending, fault) = connection.ending(reason);
        let dial = connection.dial_ms.map(|ms| format_duration(Duration::from_millis(ms.into())));
        let listener = connection.listener.and_then(|listener| self.listeners.get(listener));
        let [sent, received] = [Role::Source, Role::Dest].map(|role| connection.halves[role.out()].bytes);
        if let Some(totals) = totals {
            let detail = notes.and_then(|notes| notes.detail.as_deref().map(str::to_owned)).or_else(|| totals.detail());
            log::log!(
                target: TARGET, level,
                id:% = id,
                conn:% = self.described(connection),
                listener = listener.map_or("-", |listener| &*listener.name),
                user = notes.and_then(|notes| notes.user.as_deref()).unwrap_or("-"),
                asked:% = asked,
                dialled:% = dialled,
                via = self.via_of(connection),
                duration = format_duration(age),
                sent = totals.sent.bytes,
                received = totals.received.bytes,
                datagrams:% = format_args!("{}/{}", totals.sent.datagrams, totals.received.datagrams),
                dropped = totals.dropped(),
                reason = reason.as_str(),
                end = ending.as_str(),
                by = fault.as_str(),
                detail = detail.as_deref().unwrap_or("-");
                "closed"
            );
            return;
        }
        // The values are formatted into the line, without an allocation for each.
        log::log!(
            target: TARGET, level,
            id:% = id,
            conn:% = self.described(connection),
            listener = listener.map_or("-", |listener| &*listener.name),
            user = notes.and_then(|notes| notes.user.as_deref()).unwrap_or("-"),
            client:% = Shown::or_text(self.told_client(connection).as_ref(), None),
            asked:% = asked,
            dialled:% = dialled,
            via = self.via_of(connection),
            dial = dial.as_deref().unwrap_or("-"),
            duration = format_duration(age),
            sent = sent,
            received = received,
            reason = reason.as_str(),
            end = ending.as_str(),
            by = fault.as_str(),
            detail = notes.and_then(|notes| notes.detail.as_deref()).unwrap_or("-");
            "closed"
        );
    }
}

/// A value of the log, a text in its place, or `-`.
enum Shown<'a, T> {
    Value(&'a T),
    Text(&'a str),
}

impl<'a, T> Shown<'a, T> {
    fn or_text(value: Option<&'a T>, text: Option<&'a str>) -> Shown<'a, T> {
        value.map_or(Shown::Text(text.unwrap_or("-")), Shown::Value)
    }
}

impl<T: fmt::Display> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Value(value) => value.fmt(f),
            Shown::Text(text) => f.write_str(text),
        }
    }
}

/// The log target of lines about connections.
const TARGET: &str = "seaprox::connection";
