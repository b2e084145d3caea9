//! Streams whose OPEN is in flight: the limits on their number and time, and the route of their data.
//!
//! Frames take different subflows, so a frame of a stream can overtake its OPEN. With [`Capability::OrderedOpens`] both
//! ends limit that:
//!
//! - **The sender** has at most [`OPENS_MAX`] unacknowledged OPENs. DATA follows its OPEN on the same lane until the
//!   lane has acknowledged the OPEN. If the OPEN is lost with its lane, it is sent again first. So an honest peer sends
//!   no data ahead of an OPEN.
//! - **The receiver** creates a record only for the id in a frame, and keeps the ids below it as ranges. More than
//!   [`OPENS_MAX`] ids without an OPEN are a violation. A record without an OPEN is aborted after
//!   [`OPEN_US`] of time with a live subflow, because the OPEN may wait on a dying subflow or
//!   for the session to resume.
//! - **Both** limit the streams ahead: the receiver allows [`OPENS_MAX`] streams beyond those whose OPEN it has
//!   processed, at most as many at once as [`Config::streams_max`](crate::link::Config) and the peer's key permit, and
//!   none if the key permits none.
//!
//! A peer without the capability may open streams up to the limit, in any order.

use super::config::{OPEN_US, OPENS_MAX};
use super::unopened::Route;

use super::event::Event;
use super::state::Session;
use crate::link::stream::state::{Stream, StreamState};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::hello::{Capability, Limits};
use crate::link::wire::ids::{STREAMS_EVER, StreamId, SubflowId, Time};

/// Number of unacknowledged OPENs below which the application may open again.
const OPENS_FEW: u32 = OPENS_MAX / 4 * 3;
/// Maximum number of streams aborted in one call.
const GIVEN_UP_MAX: usize = 256;

/// The sender of OPENs.
impl Session {
    /// Returns the subflows that may carry DATA of a stream.
    pub(super) fn route_of(&self, stream: &Stream) -> Route {
        if !stream.is_local || stream.opening_acked || !self.has_capability(Capability::OrderedOpens) {
            return Route::Any;
        }
        if stream.open_on == [None; 2] { Route::Blocked } else { Route::BehindOpen(stream.open_on) }
    }

    /// Notes that the OPEN of a stream was sent on a subflow; `again` is true for a duplicate.
    pub(super) fn on_open_sent(&mut self, id: StreamId, subflow: SubflowId, again: bool) {
        let Some(slot) = self.streams.live_slot(id) else { return };
        if let Some(stream) = self.streams.get_mut(slot) {
            let [first, second] = stream.open_on;
            stream.open_on = if again { [first, second.or(Some(subflow))] } else { [Some(subflow), None] };
        }
        self.update_stream(slot);
    }

    /// Notes that the OPEN of a stream may be lost, so that it is sent again before any data.
    pub(super) fn on_open_lost(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.by_id(id) {
            stream.open_on = [None; 2];
        }
    }

    /// Notes that the peer has acknowledged the OPEN or OPEN_RESULT of a stream.
    pub(super) fn on_opening_acked(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let was_waiting = stream.is_local && !stream.opening_acked;
        stream.on_opening_acked();
        if was_waiting {
            self.tx.opens -= 1;
            self.wake_openers();
        }
    }

    /// Returns true if the peer has never allowed this end a stream, because its key permits none.
    pub fn may_open_nothing(&self) -> bool {
        self.peer_boot.is_some() && self.tx.streams == 0
    }

    /// Returns true if a refused open can be tried again soon, because OPENs are unacknowledged.
    pub(super) fn waits_for_openings(&self) -> bool {
        self.has_capability(Capability::OrderedOpens)
            && self.tx.opens > 0
            && (self.tx.opens >= OPENS_MAX || self.streams.opened(true) >= self.tx.streams)
    }

    /// Tells the application, if an open was refused for now, when it may try again.
    pub(super) fn wake_openers(&mut self) {
        let has_room = self.tx.opens <= OPENS_FEW && self.streams.opened(true) < self.tx.streams;
        if self.tx.open_refused && (has_room || self.tx.opens == 0) {
            self.tx.open_refused = false;
            self.push_event(Event::Openable);
        }
    }
}

/// The receiver of OPENs.
impl Session {
    /// Returns the number of ids up to the peer's highest that have had no OPEN.
    fn unopened(&self) -> u32 {
        self.rx.unopened.count + self.streams.gaps().ids()
    }

    /// Returns the number of the peer's streams with a record but without an OPEN.
    pub fn streams_unopened(&self) -> usize {
        self.rx.unopened.count as usize
    }

    /// Returns true if the peer has used more ids than allowed without their OPENs.
    pub(super) fn is_too_far_ahead(&self) -> bool {
        self.has_capability(Capability::OrderedOpens) && self.unopened() > OPENS_MAX
    }

    /// Notes a stream that a frame named before its OPEN has arrived.
    pub(super) fn record_unopened(&mut self, now: Time, id: StreamId) {
        const SLACK: usize = 64;
        let unopened = &mut self.rx.unopened;
        if unopened.queue.len() > 2 * unopened.count as usize + SLACK {
            let is_waiting = |id: StreamId| self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
            unopened
                .queue
                .retain(|(id, _)| is_waiting(*id).is_some_and(|stream| stream.state == StreamState::Implicit));
        }
        let read = unopened.clock.read(now);
        unopened.queue.push_back((id, read));
    }

    /// Notes that a stream has had its OPEN, or will never have one.
    pub(super) fn on_opened(&mut self, id: StreamId) {
        let unopened = &mut self.rx.unopened;
        unopened.count -= 1;
        if unopened.queue.back().is_some_and(|(last, _)| *last == id) {
            unopened.queue.pop_back();
        }
        self.announce_streams();
    }

    /// Returns the time at which the next stream without an OPEN is aborted.
    pub(super) fn unopened_timeout(&self) -> Option<Time> {
        let (_, since) = self.rx.unopened.queue.front()?;
        self.rx.unopened.clock.time_of(since + OPEN_US)
    }

    /// Aborts the streams whose OPEN has not arrived in time.
    pub(super) fn abort_unopened(&mut self, now: Time) {
        for _ in 0..GIVEN_UP_MAX {
            if self.unopened_timeout().is_none_or(|at| at > now) {
                return;
            }
            let Some((id, _)) = self.rx.unopened.queue.pop_front() else { return };
            if self.streams.by_id(id).is_some_and(|stream| stream.state == StreamState::Implicit) {
                self.stats.unopened_given_up += 1;
                self.abort_stream(now, id, Code::TimedOut);
            }
        }
    }

    /// Sets the number of live streams that the peer's key permits: see
    /// [`Config::streams_permitted`](crate::link::Config::streams_permitted). Streams that were allowed before stay
    /// allowed.
    pub fn set_streams_permitted(&mut self, streams: u32) {
        self.config.streams_permitted = streams;
        if self.peer_boot.is_some() {
            self.announce_streams();
        }
        self.finish_call();
    }

    /// Returns this end's limits for HELLO or HELLO_ACK, and applies them from now on.
    pub(super) fn limits(&mut self) -> Limits {
        if self.peer_boot.is_some() {
            self.rx.streams_announced = self.rx.streams_announced.max(self.streams_allowed());
        }
        Limits { streams: self.rx.streams_announced, ..self.config.limits() }
    }

    /// Returns the number of streams that the peer may open in all.
    pub(super) fn streams_allowed(&self) -> u32 {
        let ever = |at_once: u32| at_once.saturating_add(self.rx.streams_gone).min(STREAMS_EVER);
        if !self.has_capability(Capability::OrderedOpens) {
            return ever(self.config.streams_max);
        }
        let opened = self.streams.opened(false).saturating_sub(self.unopened());
        ever(self.config.streams_max.min(self.config.streams_permitted)).min(opened.saturating_add(OPENS_MAX))
    }

    /// Queues MAX_STREAMS if it allows many more streams, or if the peer may soon need more.
    pub(super) fn announce_streams(&mut self) {
        let gain = self.streams_allowed().saturating_sub(self.rx.streams_announced);
        let at_once = self.config.streams_max.min(self.config.streams_permitted);
        let step = at_once.min(OPENS_MAX) / 4;
        let left = self.rx.streams_announced.saturating_sub(self.streams.opened(false));
        if gain > step || gain > 0 && (left <= step || self.streams.live(false) == 0) {
            self.queue_control(Key::MaxStreams);
        }
    }

    /// Panics if the counts of openings do not match the streams.
    pub(super) fn check_openings(&self) {
        if self.is_ended() {
            return;
        }
        self.streams.gaps().check();
        let count = |of: &dyn Fn(&Stream) -> bool| self.streams.iter().filter(|(_, stream)| of(stream)).count();
        assert_eq!(
            count(&|s| s.state == StreamState::Implicit),
            self.rx.unopened.count as usize,
            "streams without an OPEN"
        );
        assert_eq!(count(&|s| s.is_local && !s.opening_acked), self.tx.opens as usize, "OPENs not acknowledged");
        assert!(!self.is_too_far_ahead(), "{} ids without an OPEN", self.unopened());
        if self.has_capability(Capability::OrderedOpens) {
            assert!(self.tx.opens <= OPENS_MAX, "{} OPENs not acknowledged", self.tx.opens);
        }
    }
}
