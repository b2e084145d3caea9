//! The events of links: of one that this node dials, or of all that peers have dialed at a server.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use seaprox::node::{LinkEvent, OnLinkEvent, PeerKey, Request};
use seaprox::{Id, Loop};

use crate::current::lend;
use crate::handle::{self, RawLoop, number};
use crate::numbers;
use crate::reason::number_of;

/// A function that is told of the events of links.
pub type LinkEventFn = Option<unsafe extern "C" fn(RawLoop, *const seaprox_link_event, *mut c_void)>;

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_link_event {
    size: u32,
    kind: c_int,
    link: u64,
    connection: u64,
    key: *const u8,
    text: *const c_char,
    text_len: usize,
    reason: c_int,
    is_new: c_int,
    subflow: u32,
    tries: u32,
}

/// The contents of an event, with the memory that the struct points to.
#[derive(Default)]
struct Told {
    kind: c_int,
    connection: u64,
    key: Option<PeerKey>,
    text: String,
    reason: c_int,
    is_new: bool,
    subflow: u32,
    tries: u32,
}

/// Returns the handler of the events of a link or of a server.
pub fn on_event(handle: usize, callback: LinkEventFn, user: *mut c_void) -> OnLinkEvent {
    let Some(callback) = callback else { return Box::new(|_, _, _| {}) };
    Box::new(move |core, link, event| {
        let Some(told) = told(core, link, event) else { return };
        let event = seaprox_link_event {
            size: size_of::<seaprox_link_event>() as u32,
            kind: told.kind,
            link: link.to_u64(),
            connection: told.connection,
            key: told.key.as_ref().map_or(ptr::null(), |key| key.as_ptr()),
            text: if told.text.is_empty() { ptr::null() } else { told.text.as_ptr().cast() },
            text_len: told.text.len(),
            reason: told.reason,
            is_new: told.is_new.into(),
            subflow: told.subflow,
            tries: told.tries,
        };
        // SAFETY: the header says what the function is called with; the event lives until it returns.
        lend(handle, core, || unsafe { callback(handle::raw(handle), &raw const event, user) });
    })
}

/// Returns what an event says; none if this version of the header has no number for it. Forwards have events of their own.
fn told(core: &mut Loop<'_>, link: Id, event: &LinkEvent) -> Option<Told> {
    let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    Some(match event {
        LinkEvent::Up { key, fresh } => {
            Told { kind: numbers::SEAPROX_LINK_EVENT_UP, key: Some(*key), is_new: *fresh, ..Told::default() }
        }
        LinkEvent::Suspended => Told { kind: numbers::SEAPROX_LINK_EVENT_SUSPENDED, ..Told::default() },
        LinkEvent::Resumed => Told { kind: numbers::SEAPROX_LINK_EVENT_RESUMED, ..Told::default() },
        LinkEvent::Draining => Told { kind: numbers::SEAPROX_LINK_EVENT_DRAINING, ..Told::default() },
        LinkEvent::Drained => Told { kind: numbers::SEAPROX_LINK_EVENT_DRAINED, ..Told::default() },
        LinkEvent::SubflowUp { place: at, tries } => {
            Told { kind: numbers::SEAPROX_LINK_EVENT_SUBFLOW_UP, subflow: place(*at), tries: *tries, ..Told::default() }
        }
        LinkEvent::NoSubflow { place: at, failure, tries } => Told {
            kind: numbers::SEAPROX_LINK_EVENT_SUBFLOW_LOST,
            subflow: place(*at),
            tries: *tries,
            reason: number_of(failure.reason),
            text: failure.detail.as_deref().unwrap_or_default().to_owned(),
            ..Told::default()
        },
        LinkEvent::WrongKey { key } => {
            Told { kind: numbers::SEAPROX_LINK_EVENT_WRONG_KEY, key: Some(*key), ..Told::default() }
        }
        LinkEvent::Rejected => Told { kind: numbers::SEAPROX_LINK_EVENT_REJECTED, ..Told::default() },
        LinkEvent::Expired => Told { kind: numbers::SEAPROX_LINK_EVENT_EXPIRED, ..Told::default() },
        LinkEvent::Asked { key, request, connection } => {
            let (kind, text) = match request {
                Request::Open(target) => (numbers::SEAPROX_LINK_EVENT_ASKED_OPEN, target.to_string()),
                Request::Listen(place) => (numbers::SEAPROX_LINK_EVENT_ASKED_LISTEN, place.to_string()),
            };
            Told { kind, key: Some(*key), connection: number(*connection), text, ..Told::default() }
        }
        LinkEvent::Message { text } => {
            let key = core.link(link).ok().and_then(|link| link.status().ok()?.key);
            Told { kind: numbers::SEAPROX_LINK_EVENT_MESSAGE, key, text: text.clone(), ..Told::default() }
        }
        LinkEvent::Closed => Told { kind: numbers::SEAPROX_LINK_EVENT_CLOSED, ..Told::default() },
        LinkEvent::Ended { reason, text } => Told {
            kind: numbers::SEAPROX_LINK_EVENT_ENDED,
            reason: number_of(*reason),
            text: text.clone(),
            ..Told::default()
        },
        _ => return None,
    })
}
