//! The observer: tells the caller of connections, sides, listeners, links and forwards as they change.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

use seaprox::{Event, Id, Loop, Observer, Role};

use crate::current::lend;
use crate::handle::{self, RawLoop, Record, number, with};
use crate::handler::ending_numbers;
use crate::numbers::{self, SEAPROX_CONNECTED, SEAPROX_CONNECTING};
use crate::reason::number_of;

/// A function that is told of events.
pub type EventFn = Option<unsafe extern "C" fn(RawLoop, *const seaprox_event, *mut c_void)>;

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_event {
    size: u32,
    kind: c_int,
    id: u64,
    side: u64,
    data: *mut c_void,
    state: c_int,
    reason: c_int,
    ending: c_int,
    fault: c_int,
    sent: u64,
    received: u64,
    dest_data: *mut c_void,
}

/// The observer of a loop, which has the callback once there is one.
#[derive(Clone, Default)]
pub struct Bell(Rc<Wires>);

#[derive(Default)]
struct Wires {
    handle: Cell<usize>,
}

thread_local! {
    /// The callback of each loop of this thread that has one.
    static CALLBACKS: std::cell::RefCell<std::collections::HashMap<usize, (EventFn, *mut c_void)>> =
        std::cell::RefCell::default();
}

impl Bell {
    /// Tells the loop that it observes.
    pub fn belongs_to(&self, record: &Record) {
        self.0.handle.set(record.handle);
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let _ = CALLBACKS.try_with(|all| all.borrow_mut().remove(&self.handle.get()));
    }
}

impl Observer for Bell {
    fn event(&mut self, core: &mut Loop<'_>, event: Event) {
        let handle = self.0.handle.get();
        let Ok(record) = handle::record(handle::raw(handle)) else { return };
        let told = described(core, &event).map(|described| with_data(&record, described, &event));
        if let Event::ConnectionEnded { connection, .. } = event {
            record.data.borrow_mut().remove(&connection);
        }
        let callback = CALLBACKS.with_borrow(|all| all.get(&handle).copied());
        if let (Some(told), Some((Some(callback), user))) = (told, callback) {
            // SAFETY: the header says what the function is called with; the event lives until it returns.
            lend(handle, core, || unsafe { callback(handle::raw(handle), &raw const told, user) });
        }
    }
}

export! {
    fn seaprox_set_events(raw: RawLoop, callback: EventFn, user: *mut c_void) {
        with(raw, |record, _| {
            CALLBACKS.with_borrow_mut(|all| match callback {
                Some(_) => _ = all.insert(record.handle, (callback, user)),
                None => _ = all.remove(&record.handle),
            });
            Ok(0)
        })
    }
}

/// Returns an event without data; none if this version of the header has no number for it.
fn described(core: &mut Loop<'_>, event: &Event) -> Option<seaprox_event> {
    let size = size_of::<seaprox_event>() as u32;
    let none = std::ptr::null_mut();
    let nothing = seaprox_event {
        size,
        kind: 0,
        id: 0,
        side: 0,
        data: none,
        state: 0,
        reason: 0,
        ending: 0,
        fault: 0,
        sent: 0,
        received: 0,
        dest_data: none,
    };
    let mut side_of = |connection: Id, role| number(core.connection(connection).ok().and_then(|it| it.side_of(role)));
    Some(match *event {
        Event::ConnectionOpened { connection } => {
            let side = side_of(connection, Role::Source);
            seaprox_event {
                kind: numbers::SEAPROX_EVENT_OPENED,
                id: connection.to_u64(),
                side,
                state: SEAPROX_CONNECTED,
                ..nothing
            }
        }
        Event::ConnectionConnecting { connection } => {
            let side = side_of(connection, Role::Dest);
            seaprox_event {
                kind: numbers::SEAPROX_EVENT_CONNECTING,
                id: connection.to_u64(),
                side,
                state: SEAPROX_CONNECTING,
                ..nothing
            }
        }
        Event::ConnectionConnected { connection } => {
            let side = side_of(connection, Role::Dest);
            seaprox_event {
                kind: numbers::SEAPROX_EVENT_CONNECTED,
                id: connection.to_u64(),
                side,
                state: SEAPROX_CONNECTED,
                ..nothing
            }
        }
        Event::ConnectionEnded { connection, reason, ending, fault, sent, received } => {
            let (ending, fault) = ending_numbers((ending, fault));
            let reason = number_of(reason);
            seaprox_event {
                kind: numbers::SEAPROX_EVENT_ENDED,
                id: connection.to_u64(),
                reason,
                ending,
                fault,
                sent,
                received,
                ..nothing
            }
        }
        Event::ListenerOpened { listener } => {
            seaprox_event { kind: numbers::SEAPROX_EVENT_LISTENER_OPENED, id: listener.to_u64(), ..nothing }
        }
        Event::ListenerClosed { listener } => {
            seaprox_event { kind: numbers::SEAPROX_EVENT_LISTENER_CLOSED, id: listener.to_u64(), ..nothing }
        }
        Event::Link { link, state } => seaprox_event {
            kind: numbers::SEAPROX_EVENT_LINK,
            id: link.to_u64(),
            state: crate::link::state_number(state),
            ..nothing
        },
        Event::Forward { forward, state } => seaprox_event {
            kind: numbers::SEAPROX_EVENT_FORWARD,
            id: forward.to_u64(),
            state: crate::forward::state_number(state),
            ..nothing
        },
        _ => return None,
    })
}

/// Adds the data of the side that has changed; of a connection that has ended that of both sides.
fn with_data(record: &Record, told: seaprox_event, event: &Event) -> seaprox_event {
    let (connection, role) = match *event {
        Event::ConnectionOpened { connection } | Event::ConnectionEnded { connection, .. } => (connection, 0),
        Event::ConnectionConnecting { connection } | Event::ConnectionConnected { connection } => (connection, 1),
        _ => return told,
    };
    let data = record.data.borrow().get(&connection).copied().unwrap_or_default();
    let dest_data = if told.kind == numbers::SEAPROX_EVENT_ENDED { data[1] } else { 0 };
    seaprox_event { data: data[role] as *mut c_void, dest_data: dest_data as *mut c_void, ..told }
}
