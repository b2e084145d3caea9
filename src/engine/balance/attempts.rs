//! The connects of one client: one target after the other, until one is connected or the time is over.
//!
//! All attempts of a client share the connect timeout of its listener. An attempt that has others behind it gets a quarter of
//! that time, so a target that drops packets does not use it up.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::pool::Chosen;
use super::{Balancer, Shared};
use crate::engine::core::Core;
use crate::engine::handler::Cx;
use crate::metrics::Stats;
use crate::relay::io::Io;
use crate::relay::side::{Role, SideState};
use crate::types::address::Target;
use crate::types::reason::{Failure, Reason};
use crate::types::units::format_duration;
#[cfg(doc)]
use crate::{ConnectOptions, Handler};

/// The attempts of one client to connect to a target of a [`Balancer`]. A front end keeps it in its handler: the client
/// counts as a connection of its target until this is dropped.
pub struct Attempts {
    shared: Arc<Shared>,
    lease: Option<Lease>,
    /// The targets that could not be connected.
    tried: Vec<u64>,
    /// The time at which the client is given up, and at which the present attempt is, in milliseconds of the loop.
    until_ms: u64,
    attempt_until_ms: u64,
    /// The client waits for the first answer of a lookup.
    is_waiting: bool,
    is_connected: bool,
}

/// The next step of a client.
#[derive(Debug)]
#[must_use = "the client waits for its next step"]
pub enum Next {
    /// Connect to this target, at this address of its name if there is one; see [`ConnectOptions::address`].
    Connect(Rc<Target>, Option<SocketAddr>),
    /// Wait: [`Handler::woken`] is called when targets are known.
    Wait,
    /// There is no target.
    Fail(Failure),
}

/// The meaning of a wake-up.
#[derive(Debug)]
#[must_use = "a client may have to go on"]
pub enum Woken {
    /// Nothing is to be done.
    Nothing,
    /// Call [`Attempts::next`].
    TryNext,
    /// The attempts are over.
    Fail(Failure),
}

/// The use of a target by a client. The target has one client less when this is dropped.
pub struct Lease {
    shared: Arc<Shared>,
    id: u64,
    is_trial: bool,
    is_suspect: bool,
    has_others: bool,
}

impl Attempts {
    /// Makes the attempts of a client.
    pub fn new(balancer: &Balancer) -> Attempts {
        Attempts {
            shared: Arc::clone(&balancer.shared),
            lease: None,
            tried: Vec::new(),
            until_ms: 0,
            attempt_until_ms: 0,
            is_waiting: false,
            is_connected: false,
        }
    }

    /// Chooses the target of the next attempt. The front end connects to it at once.
    pub fn next(&mut self, cx: &mut Cx<'_>) -> Next {
        let (source, id) = (cx.peer(Role::Source).ip().map(|addr| addr.ip()), cx.id());
        let now_ms = self.shared.now_ms();
        self.lease = None;
        let mut state = self.shared.lock();
        let Some(chosen) = state.pool.choose(source, &self.tried, now_ms) else {
            if state.pool.is_awaited() && state.waiting.len() < WAITING_MAX {
                state.waiting.push((cx.core().remote(), id));
                self.is_waiting = true;
                return Next::Wait;
            }
            return Next::Fail(Failure::new(Reason::NameResolutionFailure, "the list has no target"));
        };
        drop(state);
        self.is_waiting = false;
        let Chosen { id, target, address, is_trial, is_suspect, has_others } = chosen;
        self.lease = Some(Lease { shared: Arc::clone(&self.shared), id, is_trial, is_suspect, has_others });
        self.set_deadlines(cx, has_others);
        Next::Connect(target.into(), address)
    }

    /// Sets the time of the present attempt, and a wake-up at its end if the connect timer of the connection ends later.
    fn set_deadlines(&mut self, cx: &mut Cx<'_>, has_others: bool) {
        let connection = cx.id();
        let core: &Core = cx.core();
        let record = core.connections.get(connection);
        let timeout = record.map_or(Duration::ZERO, |record| core.settings_of(record).timeouts.connect);
        let (now_ms, timeout_ms) = (core.now_ms, timeout.as_millis() as u64);
        if self.until_ms == 0 {
            self.until_ms = if timeout_ms == 0 { u64::MAX } else { now_ms.saturating_add(timeout_ms) };
        }
        let attempt_ms = match timeout_ms {
            0 => ATTEMPT_MS,
            timeout_ms => (timeout_ms / ATTEMPTS_IN_TIME).max(1),
        };
        self.attempt_until_ms =
            if has_others { now_ms.saturating_add(attempt_ms).min(self.until_ms) } else { self.until_ms };
        if self.attempt_until_ms != u64::MAX && (has_others || !self.tried.is_empty()) {
            let wait = Duration::from_millis(self.attempt_until_ms.saturating_sub(now_ms));
            // A wake-up that is pending is early, and sets the next one.
            let _ = cx.wake_after(wait);
        }
    }

    /// Notes that the target was connected.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.is_connected = true;
        let Some(lease) = &mut self.lease else { return };
        lease.is_trial = false;
        if lease.is_suspect {
            self.shared.lock().pool.connected(lease.id, self.shared.now_ms());
        }
        if !self.tried.is_empty() {
            // The failure of another target is not that of this connection.
            let id = cx.id();
            let notes = cx.core().connections.get_mut(id).and_then(|record| record.notes.as_mut());
            notes.into_iter().for_each(|notes| notes.detail = None);
        }
    }

    /// Notes that the target could not be connected. Returns true if another one is to be tried: call [`Attempts::next`].
    pub fn failed(&mut self, cx: &mut Cx<'_>, failure: &Failure) -> bool {
        let core: &mut Core = cx.core();
        let Some(mut lease) = self.lease.take() else { return false };
        let is_trial = std::mem::take(&mut lease.is_trial);
        let was_up = self.shared.lock().pool.failed(lease.id, failure, is_trial, self.shared.now_ms());
        core.stats.targets_left_out += u64::from(was_up);
        self.tried.push(lease.id);
        let may_go_on = lease.has_others
            && self.tried.len() < ATTEMPTS_MAX
            && core.now_ms < self.until_ms
            && !matches!(failure.reason, Reason::LinkLost | Reason::Internal | Reason::Drained);
        core.stats.connects_retried += u64::from(may_go_on);
        may_go_on
    }

    /// Handles [`Handler::woken`]: ends an attempt that has got no answer in its time.
    pub fn woken(&mut self, cx: &mut Cx<'_>) -> Woken {
        if std::mem::take(&mut self.is_waiting) {
            return Woken::TryNext;
        }
        let (connection, now_ms) = (cx.id(), cx.core().now_ms);
        if self.is_connected || cx.state(Role::Dest) != Some(SideState::Connecting) {
            return Woken::Nothing;
        }
        if now_ms < self.attempt_until_ms {
            let _ = cx.wake_after(Duration::from_millis(self.attempt_until_ms - now_ms));
            return Woken::Nothing;
        }
        let core: &mut Core = cx.core();
        let dest = core.side(connection, Role::Dest);
        let is_over_link = core.connections.get(connection).is_some_and(|record| record.via.is_some());
        let has_no_stream = dest.and_then(|dest| core.sides.get(dest)).is_some_and(|dest| matches!(dest.io, Io::None));
        if is_over_link && has_no_stream {
            // It waits for the link, and the connect timer ends that. The target is not at fault.
            return Woken::Nothing;
        }
        let since = core.connections.get(connection).map_or(0, |record| now_ms.saturating_sub(record.dial_since_ms));
        let after = format_duration(Duration::from_millis(since));
        let failure = Failure::new(Reason::TimedOut, format!("no answer within {after}"));
        core.stats.connect_failures[Reason::TimedOut as usize] += 1;
        dest.into_iter().for_each(|dest| core.forget_name_of(dest));
        let may_go_on = self.failed(cx, &failure);
        cx.set_detail(failure.detail.as_deref().unwrap_or_default());
        if !may_go_on {
            return Woken::Fail(failure);
        }
        match cx.disconnect() {
            Ok(()) => Woken::TryNext,
            Err(_) => Woken::Nothing,
        }
    }

    /// Returns true if the client waits for the first answer of a lookup.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}

impl Balancer {
    /// Chooses the target of a flow of datagrams, for a client at this address: the target, the address of its name if that
    /// is known, and the use of the target.
    ///
    /// # Errors
    /// Fails if the list has no target, or none is known yet.
    pub fn choose(&self, source: Option<IpAddr>) -> Result<(Target, Option<SocketAddr>, Lease), Failure> {
        let chosen = self.shared.lock().pool.choose(source, &[], self.shared.now_ms());
        let none = || Failure::new(Reason::NameResolutionFailure, "the list has no target");
        let Chosen { id, target, address, is_trial, is_suspect, has_others } = chosen.ok_or_else(none)?;
        let lease = Lease { shared: Arc::clone(&self.shared), id, is_trial, is_suspect, has_others };
        Ok((target, address, lease))
    }
}

impl Lease {
    /// Notes that the target of a flow could not be reached.
    pub(crate) fn failed(mut self, stats: &mut Stats, reason: Reason) {
        let is_trial = std::mem::take(&mut self.is_trial);
        let was_up = self.shared.lock().pool.failed(self.id, &reason.into(), is_trial, self.shared.now_ms());
        stats.targets_left_out += u64::from(was_up);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.lock().pool.release(self.id, self.is_trial);
    }
}

/// Connections that wait for the first answer of the lookups of one list.
const WAITING_MAX: usize = 65_536;
/// Attempts of one client.
const ATTEMPTS_MAX: usize = 16;
/// Attempts without an answer that have room in the connect timeout of a client.
const ATTEMPTS_IN_TIME: u64 = 4;
/// The time of an attempt if there is no connect timeout, in milliseconds.
const ATTEMPT_MS: u64 = 2_500;
