//! The numbers that the header promises, under its names: `scripts/check-capi` compares each with the header. The code has no
//! other numbers for callers than these and those of the enums of the library, which the test below compares.

use std::ffi::c_int;

// The errors.
pub const SEAPROX_ERR_THREAD: c_int = -1;
pub const SEAPROX_ERR_BUSY: c_int = -16;
pub const SEAPROX_ERR_INVALID: c_int = -22;
pub const SEAPROX_ERR_FULL: c_int = -28;
pub const SEAPROX_ERR_STALE: c_int = -53;
pub const SEAPROX_ERR_CONFIG: c_int = -74;
pub const SEAPROX_ERR_OVER: c_int = -108;
pub const SEAPROX_ERR_ALREADY: c_int = -114;
pub const SEAPROX_ERR_PANIC: c_int = -131;

// No kind of an id.
pub const SEAPROX_KIND_NONE: c_int = 0;

// The roles of sides.
pub const SEAPROX_SOURCE: c_int = 1;
pub const SEAPROX_DEST: c_int = 2;

// The states of sides.
pub const SEAPROX_IDLE: c_int = 0;
pub const SEAPROX_CONNECTING: c_int = 1;
pub const SEAPROX_CONNECTED: c_int = 2;

// The stages of connections.
pub const SEAPROX_STAGE_HANDSHAKE: c_int = 1;
pub const SEAPROX_STAGE_CONNECTING: c_int = 2;
pub const SEAPROX_STAGE_ESTABLISHED: c_int = 3;
pub const SEAPROX_STAGE_KEEP_ALIVE: c_int = 4;
pub const SEAPROX_STAGE_CLOSING: c_int = 5;
pub const SEAPROX_STAGE_CLOSED: c_int = 6;

// The ends of connections as their peers see them.
pub const SEAPROX_GRACEFUL: c_int = 1;
pub const SEAPROX_ABORTED: c_int = 2;

// The parties that cause an end.
pub const SEAPROX_FAULT_SOURCE: c_int = 1;
pub const SEAPROX_FAULT_DEST: c_int = 2;
pub const SEAPROX_FAULT_PROXY: c_int = 3;

// The ends of the input of one side.
pub const SEAPROX_CAUSE_FIN: c_int = 1;
pub const SEAPROX_CAUSE_RESET: c_int = 2;

// The levels of the log.
pub const SEAPROX_LOG_OFF: c_int = 0;
pub const SEAPROX_LOG_ERROR: c_int = 1;
pub const SEAPROX_LOG_WARN: c_int = 2;
pub const SEAPROX_LOG_INFO: c_int = 3;
pub const SEAPROX_LOG_DEBUG: c_int = 4;
pub const SEAPROX_LOG_TRACE: c_int = 5;

// The readiness of a descriptor, as bits.
pub const SEAPROX_READABLE: c_int = 1;
pub const SEAPROX_WRITABLE: c_int = 2;
pub const SEAPROX_CLOSED: c_int = 4;
pub const SEAPROX_FAILED: c_int = 8;

// The answers of a policy.
pub const SEAPROX_REFUSE: c_int = 0;
pub const SEAPROX_PERMIT: c_int = 1;
pub const SEAPROX_ASK: c_int = 2;
pub const SEAPROX_BY_ADDRESS: c_int = 3;
pub const SEAPROX_HANDLE: c_int = 4;

// The kinds of events of links.
pub const SEAPROX_LINK_EVENT_UP: c_int = 1;
pub const SEAPROX_LINK_EVENT_SUSPENDED: c_int = 2;
pub const SEAPROX_LINK_EVENT_RESUMED: c_int = 3;
pub const SEAPROX_LINK_EVENT_DRAINING: c_int = 4;
pub const SEAPROX_LINK_EVENT_DRAINED: c_int = 5;
pub const SEAPROX_LINK_EVENT_SUBFLOW_UP: c_int = 6;
pub const SEAPROX_LINK_EVENT_SUBFLOW_LOST: c_int = 7;
pub const SEAPROX_LINK_EVENT_WRONG_KEY: c_int = 8;
pub const SEAPROX_LINK_EVENT_REJECTED: c_int = 9;
pub const SEAPROX_LINK_EVENT_EXPIRED: c_int = 10;
pub const SEAPROX_LINK_EVENT_ASKED_OPEN: c_int = 11;
pub const SEAPROX_LINK_EVENT_ASKED_LISTEN: c_int = 12;
pub const SEAPROX_LINK_EVENT_MESSAGE: c_int = 13;
pub const SEAPROX_LINK_EVENT_CLOSED: c_int = 14;
pub const SEAPROX_LINK_EVENT_ENDED: c_int = 15;

// The kinds of events.
pub const SEAPROX_EVENT_OPENED: c_int = 1;
pub const SEAPROX_EVENT_CONNECTING: c_int = 2;
pub const SEAPROX_EVENT_CONNECTED: c_int = 3;
pub const SEAPROX_EVENT_ENDED: c_int = 4;
pub const SEAPROX_EVENT_LISTENER_OPENED: c_int = 5;
pub const SEAPROX_EVENT_LISTENER_CLOSED: c_int = 6;
pub const SEAPROX_EVENT_LINK: c_int = 7;
pub const SEAPROX_EVENT_FORWARD: c_int = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use seaprox::{ForwardState, Kind, LinkState, Reason, VerbError};

    /// Returns the constants of an enum of the header, in its order.
    fn constants(name: &str) -> Vec<(&'static str, c_int)> {
        let (_, body) = include_str!("../seaprox.h").split_once(&format!("enum {name} {{")).unwrap();
        let (body, _) = body.split_once("};").unwrap();
        let lines = body.lines().filter_map(|line| line.trim().strip_prefix("SEAPROX_"));
        let constant = |line: &'static str| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name, value.split([',', ' ']).next().unwrap().parse().unwrap())
        };
        lines.map(constant).collect()
    }

    /// Checks that the header names the values of an enum of the library with these words and numbers, all of them and no other.
    fn check(name: &str, prefix: &str, values: &[(&str, c_int)]) {
        let named: Vec<_> =
            values.iter().map(|(word, number)| (prefix.to_owned() + &word.to_uppercase(), *number)).collect();
        let header: Vec<_> = constants(name).into_iter().map(|(name, number)| (name.to_owned(), number)).collect();
        assert_eq!(header, named, "{name}");
    }

    #[test]
    fn enums_of_the_library_have_the_numbers_of_the_header() {
        let reasons = Reason::ALL.map(|reason| (reason.as_str(), crate::reason::number_of(reason)));
        check("seaprox_reason", "", &reasons);
        let kinds = [
            Kind::Connection,
            Kind::Side,
            Kind::Listener,
            Kind::Link,
            Kind::Forward,
            Kind::Server,
            Kind::Watch,
            Kind::Timer,
            Kind::Carrier,
            Kind::Group,
            Kind::Flow,
            Kind::Association,
        ];
        let kinds = kinds.map(|kind| (kind.as_str(), kind as c_int));
        check("seaprox_kind", "KIND_", &[&[("none", SEAPROX_KIND_NONE)], &kinds[..]].concat());
        let states =
            [LinkState::Connecting, LinkState::Up, LinkState::Suspended, LinkState::Draining, LinkState::Ended];
        check("seaprox_link_state", "LINK_", &states.map(|state| (state.as_str(), crate::link::state_number(state))));
        let states = [ForwardState::Waiting, ForwardState::Listening, ForwardState::Failed, ForwardState::Closed];
        let states = states.map(|state| (state.as_str(), crate::forward::state_number(state)));
        check("seaprox_forward_state", "FORWARD_", &states);
        let errors = [
            (VerbError::Stale, SEAPROX_ERR_STALE),
            (VerbError::Over(Reason::Drained), SEAPROX_ERR_OVER),
            (VerbError::Full, SEAPROX_ERR_FULL),
            (VerbError::Already, SEAPROX_ERR_ALREADY),
            (VerbError::Invalid, SEAPROX_ERR_INVALID),
        ];
        assert!(errors.into_iter().all(|(error, number)| error.code() == number));
    }
}
