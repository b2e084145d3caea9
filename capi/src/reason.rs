//! Reasons as numbers: those of the link protocol.

use std::ffi::{CStr, c_char, c_int};

use seaprox::Reason;

use crate::error::Error;

/// Returns the number of a reason.
pub fn number_of(reason: Reason) -> c_int {
    reason as c_int + 1
}

/// Returns the reason with this number.
pub fn reason_of(number: c_int) -> Result<Reason, Error> {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let reason = index.and_then(|index| Reason::ALL.get(index));
    reason.copied().ok_or_else(|| Error::invalid("there is no reason with this number"))
}

export_value! {
    fn seaprox_reason_name(reason: c_int) -> *const c_char, c"".as_ptr(); {
        let index = usize::try_from(reason).ok().and_then(|number| number.checked_sub(1));
        index.and_then(|index| NAMES.get(index)).unwrap_or(&c"").as_ptr()
    }
}

/// The words of the reasons, in the order of their numbers.
const NAMES: [&CStr; Reason::ALL.len()] = [
    c"name_resolution_failure",
    c"connection_refused",
    c"timed_out",
    c"network_unreachable",
    c"host_unreachable",
    c"not_permitted",
    c"limit_reached",
    c"other",
    c"source_fin",
    c"dest_fin",
    c"source_reset",
    c"dest_reset",
    c"idle_timeout",
    c"half_closed_timeout",
    c"handshake_timeout",
    c"protocol_error",
    c"auth_failed",
    c"link_lost",
    c"drained",
    c"killed",
    c"internal",
    c"address_in_use",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_and_words_are_those_of_the_link_protocol() {
        for ((reason, code), name) in Reason::ALL.into_iter().zip(seaprox::link::Code::ALL).zip(NAMES) {
            assert_eq!(number_of(reason), c_int::from(code.to_wire()));
            assert_eq!((reason.as_str(), code.as_str()), (name.to_str().unwrap(), name.to_str().unwrap()));
            assert_eq!(reason_of(number_of(reason)), Ok(reason));
        }
        assert!([0, -1, 23, i32::MIN, i32::MAX].into_iter().all(|number| reason_of(number).is_err()));
    }
}
