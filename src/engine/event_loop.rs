//! The proxy: one event loop, in one thread, and everything that it owns.
//!
//! ```text
//!      +--> poll(timeout) --> note readiness, queue sides --> take completions and calls --+
//!      |                                                                                 |
//!      +-- reap closed <-- fire due timers <-- tell dials <-- run queue (relay | handler) <-+
//!          timeout = 0 if anything is queued, else the next deadline, which the timer takes if it is near
//! ```
//! The proxy owns the core and, beside it, the handlers and the control of links. They are borrowed separately, so a handler
//! can borrow the whole core. Handlers that a call installed take over when the call returns, before the next reap.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::engine::control::{Control, Loop, Request};
use crate::engine::core::{Core, OneOff, Run};
use crate::engine::flow::Next;
use crate::engine::handler::{Cause, Cx, Handler};
use crate::engine::handler_input::Input;
use crate::engine::limits::Config;
use crate::engine::mailbox::{Mail, Mailbox, Remote};
use crate::engine::observer::Observer;
use crate::engine::side_view::SideMut;
use crate::engine::stopping::Stopping;
use crate::engine::wake_timer::{self, WakeTimer};
use crate::engine::workers::Workers;
use crate::relay::connection::Stage;
use crate::relay::side::{Owner, Role, SideState};
use crate::relay::timer::TimerClass;
use crate::types::id::{Id, Kind};
use crate::types::reason::{Failure, Reason};

/// An event loop.
///
/// A program gives its thread to [`Proxy::run`], or calls [`Proxy::turn`] itself. On Unix a loop can also be a part of
/// another loop: its descriptor ([`AsFd`](std::os::fd::AsFd)) is readable when there are events, level-triggered and
/// edge-triggered alike, and [`Proxy::next_timeout`] is the longest time until a turn is due without an event. The other loop
/// calls `turn(Some(Duration::ZERO))` after each event and each timeout, until that returns false:
///
/// ```
/// # #[cfg(unix)] fn main() -> std::io::Result<()> {
/// use std::os::fd::{AsFd, AsRawFd};
/// use std::time::Duration;
/// use mio::{Events, Interest, Poll, Token, unix::SourceFd};
/// use seaprox::{Config, Proxy};
///
/// let mut proxy = Proxy::new(Config::default(), None)?;
/// # proxy.core().after(Duration::from_millis(1), |core| core.stop()).unwrap();
/// let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
/// let fd = proxy.as_fd().as_raw_fd();
/// poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE)?;
/// loop {
///     poll.poll(&mut events, proxy.next_timeout())?;
///     // Here the program handles the events of its own descriptors.
///     if !proxy.turn(Some(Duration::ZERO))? {
///         break;
///     }
/// }
/// # Ok(()) }
/// # #[cfg(not(unix))] fn main() {}
/// ```
/// A turn is bounded: each of its steps has a budget, and what is left makes `next_timeout` zero. A verb that is called
/// between two turns may make a turn due, so ask for the timeout after it.
pub struct Proxy {
    pub(crate) core: Core,
    /// The control of links, beside the core.
    control: Box<dyn Control>,
    /// The handler of each side, at the index of the side, with the id of the side.
    handlers: Vec<Option<(Id, Box<dyn Handler>)>>,
    observer: Option<Box<dyn Observer>>,
    /// Set while handlers are being installed; handlers that are installed meanwhile wait.
    settling: bool,
    /// Set while connections are told that they are over; they get no other callback then.
    reaping: bool,
    poll: Poll,
    wake_timer: WakeTimer,
    events: Events,
}

impl Proxy {
    /// Makes a loop around the control of its links.
    pub(crate) fn with_control(
        config: Config,
        workers: Option<Arc<Workers>>,
        control: Box<dyn Control>,
    ) -> io::Result<Proxy> {
        let poll = Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(poll.registry(), WAKER, config.limits.calls)?);
        let events = Events::with_capacity(config.limits.events_per_turn);
        let handlers = Vec::with_capacity(config.limits.sides());
        let core = Core::new(config, poll.registry().try_clone()?, mailbox, workers);
        let wake_timer = WakeTimer::new(poll.registry());
        Ok(Proxy { core, control, handlers, observer: None, settling: false, reaping: false, poll, wake_timer, events })
    }

    /// Returns the loop, for use between its turns.
    pub fn core(&mut self) -> Loop<'_> {
        self.core.tick();
        Loop::new(&mut self.core, &mut *self.control)
    }

    /// Returns a handle of the loop for other threads.
    pub fn remote(&self) -> Remote {
        self.core.remote()
    }

    /// Runs until [`Core::stop`], or until [`Core::drain`] has nothing left to wait for.
    ///
    /// # Errors
    /// Polling fails, so that the loop cannot go on; the error is the system's.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(None)? {}
        Ok(())
    }

    /// Runs one turn, which waits for at most `patience` if there is no work. Returns false when the loop has stopped.
    ///
    /// # Errors
    /// Polling fails; the error is the system's.
    pub fn turn(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        self.core.tick();
        self.settle();
        let timeout = self.timeout(patience, self.core.now_ms);
        let timeout = self.wake_timer.cover(timeout, !self.events.is_empty(), || self.core.age());
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        self.core.tick();
        self.core.stats.turns += 1;
        self.core.interactive_turns = self.core.interactive_turns.saturating_sub(1);
        self.note_events();
        self.core.enqueue_due();
        self.read_mails();
        self.call_watches();
        self.run_queue();
        self.control.run_handshakes(&mut self.core);
        if self.control.deliver_events(&mut self.core) {
            // Sides that events of links have woken run in the same turn, so that their output leaves with the answers.
            self.run_queue();
        }
        self.tell_dials();
        self.fire_timers();
        self.fire_caller_timers();
        self.tell_flow_handlers();
        self.reap();
        self.control.drive(&mut self.core);
        let is_draining = matches!(self.core.stopping, Stopping::Draining { .. });
        if is_draining && self.core.is_empty() && !self.control.is_owing(&self.core) {
            self.control.close_all(&mut self.core);
        }
        let is_stopping = matches!(self.core.stopping, Stopping::Now { .. });
        while is_stopping && !self.core.queues.closed.is_empty() {
            self.reap();
        }
        if is_stopping {
            self.control.close_all(&mut self.core);
            self.control.drive(&mut self.core);
        }
        self.tell_observer();
        if self.is_done() {
            self.close_mailbox();
        }
        Ok(!self.is_done())
    }

    /// Returns the longest time that the loop may wait for events before its next turn: zero if there is work, and none if
    /// it waits for events alone. This is for a loop around this one; see [`Proxy`].
    pub fn next_timeout(&self) -> Option<Duration> {
        // The system may have more events than one turn takes.
        if self.core.is_unsettled() || self.events.iter().count() >= self.core.config.limits.events_per_turn {
            return Some(Duration::ZERO);
        }
        self.timeout(None, self.core.age().as_millis() as u64)
    }

    /// Delivers the events that are queued now. Events that the observer causes wait for the next turn.
    fn tell_observer(&mut self) {
        if let Some(observer) = self.core.queues.observer.take() {
            self.observer = Some(observer);
        }
        for _ in 0..self.core.queues.events.len() {
            let Some(event) = self.core.queues.events.pop_front() else { break };
            let Some(observer) = &mut self.observer else { continue };
            let mut core = Loop::new(&mut self.core, &mut *self.control);
            if catch_unwind(AssertUnwindSafe(|| observer.event(&mut core, event))).is_err() {
                self.core.stats.panics += 1;
            }
            self.settle();
        }
    }

    /// Delivers what the handlers of flows are to be told now. What they cause waits for the next turn.
    fn tell_flow_handlers(&mut self) {
        for _ in 0..self.core.datagrams.told.len() {
            let Some((flow, end, told)) = self.core.datagrams.told.pop() else { break };
            let mut core = Loop::new(&mut self.core, &mut *self.control);
            if catch_unwind(AssertUnwindSafe(|| end.tell(&mut core, flow, &told))).is_err() {
                self.core.stats.panics += 1;
            }
            self.settle();
        }
    }

    fn timeout(&self, patience: Option<Duration>, now_ms: u64) -> Option<Duration> {
        if self.core.is_busy() || self.control.is_busy(&self.core) || self.is_done() {
            return Some(Duration::ZERO);
        }
        let due = self.core.next_deadline_ms().map(|due_ms| due_ms.saturating_sub(now_ms));
        // One millisecond is added, so that the deadline has passed when the clock is read.
        let due = due.map(|wait_ms| Duration::from_millis(wait_ms.saturating_add(1)));
        let alarm =
            self.core.alarms.first().map(|(at_us, _)| Duration::from_micros(*at_us).saturating_sub(self.core.age()));
        [patience, due, alarm].into_iter().flatten().min()
    }

    /// Drops what other threads have sent, so that none of them waits for an answer.
    fn close_mailbox(&mut self) {
        self.core.mailbox.close();
        self.core.queues.mails.clear();
    }

    fn is_done(&self) -> bool {
        self.core.is_done(|| self.control.has_links())
    }

    fn note_events(&mut self) {
        for event in &self.events {
            let token = event.token();
            if token == WAKER {
                self.core.mailbox.take(&mut self.core.queues.mails);
                continue;
            }
            if token == wake_timer::TOKEN {
                self.wake_timer.end();
                continue;
            }
            let id = Id::from_u64(token.0 as u64);
            let Some((id, side)) = id.and_then(|id| self.core.sides.get_mut(id).map(|side| (id, side))) else {
                match id {
                    Some(id) if id.kind() == Kind::Listener => self.core.listener_event(id),
                    Some(id) if matches!(id.kind(), Kind::Flow | Kind::Association) => {
                        _ = self.core.datagrams_ready(id)
                    }
                    Some(id) => self.core.note_watch(id, event),
                    None => self.core.stats.stale += 1,
                }
                continue;
            };
            side.ready.readable |= event.is_readable() || event.is_read_closed();
            side.ready.writable |= event.is_writable() || event.is_write_closed();
            side.ready.urgent |= event.is_priority();
            side.ready.error |= event.is_error();
            side.ready.fin |= event.is_read_closed() && !event.is_error() && !side.ready.failed;
            self.core.enqueue(id);
        }
    }

    fn read_mails(&mut self) {
        let mut calls = 0;
        for _ in 0..self.core.config.limits.mails_per_turn {
            match self.core.queues.mails.pop_front() {
                None => break,
                Some(Mail::Resolved(resolved)) => self.core.resolved(resolved),
                Some(Mail::Connected(side, result)) => self.core.answered(side, result),
                Some(Mail::Accepted(accepted)) => self.core.take_in(accepted),
                Some(Mail::Finish(time)) => self.core.finish(time),
                Some(Mail::Call(what)) => {
                    calls += 1;
                    // A call that panics is a bug of its sender and has been printed; the loop goes on.
                    self.run_call(what);
                }
                Some(Mail::SoleCall(what)) => _ = self.run_call(what),
            }
        }
        self.core.mailbox.ran(calls);
        self.core.connect_found();
        self.settle();
    }

    /// Calls the callbacks of watches that have readiness to report.
    fn call_watches(&mut self) {
        for _ in 0..self.core.ready_watches().min(self.core.config.limits.callbacks_per_turn) {
            let Some((id, seen, mut callback)) = self.core.next_watch() else { continue };
            let done = seen.is_none() || self.run_call(|core| callback(core, id, seen));
            self.core.put_back(id, callback, !done);
        }
    }

    /// Runs a function of a caller. Returns false if it panicked, which is a bug of the caller and has been printed.
    fn run_call(&mut self, what: impl FnOnce(&mut Loop<'_>)) -> bool {
        let view = &mut Loop::new(&mut self.core, &mut *self.control);
        let done = catch_unwind(AssertUnwindSafe(|| what(view))).is_ok();
        self.core.stats.panics += u64::from(!done);
        self.settle();
        done
    }

    /// Runs the entries that are in the queue now. Later entries wait for the next turn.
    fn run_queue(&mut self) {
        for _ in 0..self.core.queues.run.len() {
            match self.core.queues.run.pop_front() {
                None => break,
                Some(Run::Listener(index)) => {
                    self.core.accept(index);
                    self.settle();
                }
                Some(Run::Side(side)) => self.run_side(side),
                Some(Run::Datagrams(id)) => self.core.run_datagrams(id),
            }
        }
    }

    fn run_side(&mut self, id: Id) {
        let Some(side) = self.core.sides.get_mut(id) else { return };
        side.ready.queued = false;
        if let Owner::Flow(flow, role) = side.owner {
            return self.core.run_flow_stream(flow, role);
        }
        if side.state == SideState::Connecting {
            return self.core.attempt_ready(id);
        }
        let (connection, role) = match side.owner {
            Owner::Connection(connection, role) => (connection, role),
            Owner::Carrier(carrier) => return self.control.run_carrier(&mut self.core, carrier),
            Owner::Race(_) | Owner::Flow(..) => return,
        };
        self.advance(connection, role);
        self.advance(connection, role.other());
        if self.core.sides.get(id).is_some_and(|side| side.ready.error) {
            self.core.announce_error(connection, role);
        }
    }

    /// Moves the half that `role`'s side feeds, and shows the handler its part of the input.
    fn advance(&mut self, connection: Id, role: Role) {
        let waited = self.core.has_out(connection, role);
        let mut rounds = ROUNDS_PER_TURN;
        loop {
            let next = self.core.move_half(connection, role);
            if next == Next::Wait || !self.feed(connection, role, next == Next::CountReached) {
                break;
            }
            rounds -= 1;
            if rounds == 0 {
                self.core.side(connection, role).into_iter().for_each(|side| self.core.enqueue(side));
                break;
            }
        }
        if waited && !self.core.has_out(connection, role) {
            self.call(connection, role.other(), |handler, cx| handler.writable(cx));
        }
    }

    /// Shows input to the handler until it wants no more or there is none. `passed` makes one call even without input,
    /// because the requested count of bytes was relayed. Returns true if the half is to be moved again.
    fn feed(&mut self, id: Id, role: Role, mut passed: bool) -> bool {
        for _ in 0..FEEDS_PER_TURN {
            let side = self.core.side(id, role);
            let Some(input) = self.core.take_input(id, role) else { return false };
            if !input.is_empty() || std::mem::take(&mut passed) {
                passed = false;
                let consumed = self.call(id, role, |handler, cx| handler.readable(cx, input.bytes()));
                let consumed = consumed.unwrap_or(input.len()).min(input.len());
                let full = consumed == 0 && input.len() >= self.core.config.limits.input_bytes();
                self.core.put_back_input(id, role, side, input, consumed);
                if !self.core.is_handlers(id, role) {
                    return true;
                }
                if full {
                    self.core.close(id, Reason::ProtocolError);
                    return false;
                }
                if consumed > 0 {
                    continue;
                }
            }
            match self.core.read_input(id, role) {
                Input::More => {}
                Input::None => return false,
                Input::Ended(cause) => {
                    self.call(id, role, |handler, cx| handler.ended(cx, cause));
                    return !self.core.is_handlers(id, role);
                }
            }
        }
        self.core.side(id, role).into_iter().for_each(|side| self.core.enqueue(side));
        false
    }

    fn tell_dials(&mut self) {
        for _ in 0..self.core.queues.dialled.len().min(DIALS_TOLD_PER_TURN) {
            let Some((dest, result)) = self.core.queues.dialled.pop_front() else { break };
            self.tell_dial(dest, result.as_ref().copied());
        }
    }

    fn tell_dial(&mut self, dest: Id, result: Result<(), &Failure>) {
        match self.core.sides.get(dest).map(|side| side.owner) {
            Some(Owner::Carrier(carrier)) => return self.control.carrier_dialled(&mut self.core, carrier, result),
            Some(Owner::Flow(flow, _)) => return self.core.flow_answered(flow, result),
            _ => {}
        }
        let Some(connection) = self.core.settle_dial(dest, result) else {
            self.core.stats.stale += 1;
            return;
        };
        let is_source = self.core.side(connection, Role::Source) == Some(dest);
        let role = if result.is_ok() && !is_source { Role::Dest } else { Role::Source };
        self.call(connection, role, |handler, cx| handler.connected(cx, result));
        if let (true, Err(failure)) = (is_source, result) {
            // A connection without its source is over.
            self.core.close(connection, failure.reason);
        }
        for role in [Role::Dest, Role::Source] {
            // Both sides run now, so their entries in the queue need not cost a turn.
            self.core.side(connection, role).into_iter().for_each(|side| self.core.unqueue(side));
        }
        self.advance(connection, Role::Source);
        self.advance(connection, Role::Dest);
    }

    fn fire_timers(&mut self) {
        for _ in 0..self.core.config.limits.timers_per_turn {
            let Some((connection, class)) = self.core.timers.expire(self.core.now_ms) else { break };
            match class {
                TimerClass::Handshake | TimerClass::HttpKeepAlive => {
                    self.call(connection, Role::Source, |handler, cx| handler.timeout(cx));
                }
                TimerClass::Connect if self.core.dial_timed_out(connection, &mut *self.control) => {}
                TimerClass::Connect => _ = self.call(connection, Role::Source, |handler, cx| handler.timeout(cx)),
                TimerClass::TcpKeepaliveDelay => self.core.enable_keepalive(connection),
                TimerClass::Idle | TimerClass::Association => self.core.close(connection, Reason::IdleTimeout),
                TimerClass::HalfClosed => self.core.close(connection, Reason::HalfClosedTimeout),
                TimerClass::Linger => self.core.end_lingering(connection),
            }
        }
        self.core.expire_flows();
        for _ in 0..self.core.config.limits.timers_per_turn {
            match self.core.one_offs.expire(self.core.now_ms) {
                None => break,
                Some(OneOff::NextAddress(dest)) => self.core.next_address(dest),
                Some(OneOff::ConnectAgain(side)) => self.core.connect_again(side),
                Some(OneOff::Descriptors) => self.core.descriptors_again(),
                Some(OneOff::Reset(connection, role, waited_ms)) => {
                    self.core.pass_reset_again(connection, role, waited_ms)
                }
                Some(OneOff::Discard(connection, role)) => self.core.discard_more(connection, role),
                Some(OneOff::Drained) => self.core.stop(),
                Some(OneOff::Control(deadline)) => self.control.handle_deadline(&mut self.core, deadline),
                Some(OneOff::Wake(connection)) => {
                    self.core.end_wake(connection);
                    self.call(connection, Role::Source, |handler, cx| handler.woken(cx));
                }
                Some(OneOff::SuppressedLines) => self.core.report_suppressed(),
                Some(OneOff::Discovery(id, index)) => self.core.ask_again(id, index as usize),
            }
        }
    }

    /// Runs the timers of callers that are due.
    fn fire_caller_timers(&mut self) {
        for _ in 0..self.core.config.limits.callbacks_per_turn {
            let Some(callback) = self.core.caller_timers.expire(self.core.now_ms) else { break };
            self.run_call(callback);
        }
    }

    /// Frees connections that are over, after the call of their handlers and their lines in the log.
    fn reap(&mut self) {
        if !self.core.queues.closed.is_empty() {
            self.reap_closed();
        }
        self.core.after_reap();
        self.settle();
    }

    fn reap_closed(&mut self) {
        let mut closed = std::mem::take(&mut self.core.queues.closed);
        // Connections left for the next turn are over already and do no more work.
        let count = closed.len().min(REAPED_PER_TURN);
        for connection in closed.drain(..count) {
            let Some(record) = self.core.connections.get(connection) else { continue };
            let reason = record.reason.unwrap_or(Reason::Internal);
            self.reaping = true;
            self.call(connection, Role::Source, |handler, cx| handler.ended(cx, Cause::Over(reason)));
            self.reaping = false;
            self.core.free(connection);
        }
        closed.append(&mut self.core.queues.closed);
        self.core.queues.closed = closed;
    }

    /// Calls the handler of one side of a connection. A panic ends that connection and no other.
    fn call<T>(
        &mut self,
        connection: Id,
        role: Role,
        what: impl FnOnce(&mut dyn Handler, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let record = self.core.connections.get(connection)?;
        if record.stage == Stage::Closed && !self.reaping {
            return None;
        }
        let source = record.source;
        let side = record.side(role).unwrap_or(source);
        let own = self.handlers.get(side.index()).is_some_and(|slot| is_for(slot.as_ref(), side));
        let slot = if own { side } else { source };
        let (_, handler) = self.handlers.get_mut(slot.index())?.as_mut().filter(|handler| handler.0 == slot)?;
        let mut cx = SideMut::new(Loop::new(&mut self.core, &mut *self.control), side, connection, role);
        let result = catch_unwind(AssertUnwindSafe(|| what(handler.as_mut(), &mut cx)));
        if result.is_err() {
            self.core.stats.panics += 1;
            self.core.close(connection, Reason::Internal);
        }
        self.settle();
        result.ok()
    }

    /// Installs and drops handlers after calls, and hands the core's requests to the control of links.
    fn settle(&mut self) {
        let queues = &self.core.queues;
        let is_settled = queues.freed.is_empty() && queues.handlers.is_empty() && queues.requests.is_empty();
        if is_settled || std::mem::replace(&mut self.settling, true) {
            return;
        }
        self.settle_handlers();
        while let Some(request) = self.core.queues.requests.pop_front() {
            self.hand_over(request);
            self.settle_handlers();
        }
        self.settling = false;
    }

    /// Hands a request of the core to the control of links. A panic ends the connection that the request is about.
    fn hand_over(&mut self, request: Request) {
        let dest = match &request {
            Request::OpenStream { dest, .. } | Request::ReturnFlow { dest, .. } => Some(*dest),
            Request::Accept { .. } | Request::Datagrams { .. } | Request::AnnounceDrain | Request::ListenersClosed => {
                None
            }
        };
        if catch_unwind(AssertUnwindSafe(|| self.control.handle_request(&mut self.core, request))).is_err() {
            self.core.stats.panics += 1;
            let connection = dest.and_then(|dest| self.core.owner(dest));
            connection.into_iter().for_each(|(connection, _)| self.core.close(connection, Reason::Internal));
        }
    }

    /// Drops the handlers of sides that are gone, installs new handlers, and calls [`Handler::opened`] for new clients.
    fn settle_handlers(&mut self) {
        while let Some(side) = self.core.queues.freed.pop() {
            if let Some(slot) = self.handlers.get_mut(side.index()).filter(|slot| is_for(slot.as_ref(), side)) {
                *slot = None;
            }
        }
        while let Some((side, handler)) = self.core.queues.handlers.pop_front() {
            let Some((connection, role)) = self.core.owner(side) else { continue };
            if self.handlers.len() <= side.index() {
                self.handlers.resize_with(side.index() + 1, || None);
            }
            let before = self.handlers[side.index()].replace((side, handler));
            if role == Role::Source && !is_for(before.as_ref(), side) {
                self.core.opening = Some(connection);
                self.call(connection, role, |handler, cx| handler.opened(cx));
                self.core.opening = None;
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close_mailbox();
    }
}

/// The descriptor of the loop: it is readable when the next turn has events to take.
#[cfg(unix)]
impl std::os::fd::AsFd for Proxy {
    fn as_fd(&self) -> crate::sys::BorrowedSocket<'_> {
        crate::sys::poll_descriptor(&self.poll)
    }
}

fn is_for(slot: Option<&(Id, Box<dyn Handler>)>, side: Id) -> bool {
    slot.is_some_and(|(id, _)| *id == side)
}

impl Core {
    /// Ends a connection whose linger timer has passed: a side did not close in time.
    pub(crate) fn end_lingering(&mut self, id: Id) {
        let reason = self.connections.get(id).and_then(|connection| connection.reason);
        self.close(id, reason.unwrap_or(Reason::DestReset));
    }

    /// Gives the room that the reap made to listeners and to halves without a block.
    fn after_reap(&mut self) {
        if !self.connections.is_full() && !self.queues.full.is_empty() {
            self.accept_again();
        }
        let free = self.pools.blocks.available().min(self.queues.no_block.len());
        for _ in 0..free {
            let Some(side) = self.queues.no_block.pop_front() else { break };
            if let Some(record) = self.sides.get_mut(side) {
                record.ready.waits = false;
            }
            self.enqueue(side);
        }
    }
}

/// The token of the mailbox. Sides and listeners have their ids as tokens, which begin at 2^32.
const WAKER: Token = Token(u32::MAX as usize);
/// Connections freed in one turn: each takes some system calls and a line of the log.
const REAPED_PER_TURN: usize = 256;
/// Results of dials reported in one turn.
const DIALS_TOLD_PER_TURN: usize = 256;
/// Times that input is shown to one handler in one turn.
const FEEDS_PER_TURN: usize = 64;
/// Times that a half changes between relay and handler in one turn.
const ROUNDS_PER_TURN: usize = 16;

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    use crate::engine::control::{Deadline, Request};
    use crate::types::address::Target;

    /// A control that panics at each request.
    struct Panics;

    impl Control for Panics {
        fn handle_request(&mut self, _: &mut Core, _: Request) {
            panic!("(this message belongs to the test)");
        }

        fn run_carrier(&mut self, _: &mut Core, _: Id) {}
        fn carrier_dialled(&mut self, _: &mut Core, _: Id, _: Result<(), &Failure>) {}
        fn handle_deadline(&mut self, _: &mut Core, _: Deadline) {}
        fn run_handshakes(&mut self, _: &mut Core) {}
        fn deliver_events(&mut self, _: &mut Core) -> bool {
            false
        }
        fn drive(&mut self, _: &mut Core) {}
        fn stop_waiting(&mut self, _: &mut Core, _: Id, _: &str) -> Option<Failure> {
            None
        }
        fn is_busy(&self, _: &Core) -> bool {
            false
        }
        fn has_links(&self) -> bool {
            false
        }
        fn is_owing(&self, _: &Core) -> bool {
            false
        }
        fn close_all(&mut self, _: &mut Core) {}
    }

    fn group() -> Id {
        Id::from_u64(1 << 32 | (Kind::Group as u64) << 28).unwrap()
    }

    /// Connects over a link as soon as the client was accepted.
    struct ConnectsOverLink;

    impl Handler for ConnectsOverLink {
        fn opened(&mut self, cx: &mut Cx<'_>) {
            cx.route(group()).unwrap();
            cx.connect(Target::parse("127.0.0.1:9").unwrap(), None).unwrap();
        }

        fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
            0
        }

        fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}
    }

    #[test]
    fn a_panic_in_a_request_ends_its_connection_and_the_loop_goes_on() {
        let mut proxy = Proxy::with_control(Config::default(), None, Box::new(Panics)).unwrap();
        proxy.core.link_groups.insert(group(), "group".into());
        for count in 1..=2 {
            let (_client, ours) = UnixStream::pair().unwrap();
            proxy.core().adopt(ours, "test", Box::new(ConnectsOverLink)).unwrap();
            proxy.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!(proxy.core.stats.panics, count);
            assert_eq!(proxy.core.stats.closed[Reason::Internal as usize], count);
            assert!(proxy.core.connections.len() == 0 && !proxy.settling);
        }
    }
}
