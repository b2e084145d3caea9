//! Messages of a routing socket (route(4)), which reports far more than changes of addresses and routes: also lookups that
//! found no route, answers to other processes, and the entries of neighbours.

/// Returns true if a message reports a change of an address, an interface or a route. An entry that the system makes for a
/// neighbour, or for a destination by cloning another route, is none: each connect may lead to one. A message that is cut
/// short counts as a change.
pub(crate) fn is_network_change(message: &[u8]) -> bool {
    let Some(kind) = message.get(KIND_AT) else { return true };
    match *kind {
        RTM_NEWADDR | RTM_DELADDR | RTM_IFINFO => true,
        RTM_ADD | RTM_DELETE | RTM_CHANGE => {
            let flags = message.get(FLAGS_AT..FLAGS_AT + 4).and_then(|bytes| bytes.try_into().ok());
            flags.is_none_or(|flags| u32::from_ne_bytes(flags) & (RTF_LLINFO | RTF_WASCLONED) == 0)
        }
        _ => false,
    }
}

/// The offset of the kind of a message, which is the same in all messages, and of the flags of a message about a route
/// (`rtm_type` and `rtm_flags` of `struct rt_msghdr`, net/route.h).
const KIND_AT: usize = 3;
const FLAGS_AT: usize = 8;

// net/route.h of macOS and FreeBSD, which have the same numbers.
const RTM_ADD: u8 = 1;
const RTM_DELETE: u8 = 2;
const RTM_CHANGE: u8 = 3;
const RTM_NEWADDR: u8 = 12;
const RTM_DELADDR: u8 = 13;
const RTM_IFINFO: u8 = 14;
/// The route is the entry of a neighbour (`RTF_LLDATA` on FreeBSD).
const RTF_LLINFO: u32 = 0x400;
/// The system has made the route from another one, for one destination. FreeBSD does not set this flag.
const RTF_WASCLONED: u32 = 0x2_0000;

#[cfg(test)]
mod tests {
    use super::*;

    const RTF_UP: u32 = 1;
    const RTF_GATEWAY: u32 = 2;

    /// Returns a message as the systems send it: the fields of the header that count, and room for addresses.
    fn message(kind: u8, flags: u32) -> Vec<u8> {
        let mut message = vec![0; 128];
        message[..2].copy_from_slice(&128_u16.to_ne_bytes());
        (message[2], message[3]) = (5, kind);
        message[8..12].copy_from_slice(&flags.to_ne_bytes());
        message
    }

    #[test]
    fn changes_of_addresses_interfaces_and_routes_are_changes() {
        for kind in [RTM_NEWADDR, RTM_DELADDR, RTM_IFINFO] {
            // In these messages the flags are those of an interface.
            assert!(is_network_change(&message(kind, RTF_LLINFO)), "{kind}");
        }
        for kind in [RTM_ADD, RTM_DELETE, RTM_CHANGE] {
            assert!(is_network_change(&message(kind, RTF_UP | RTF_GATEWAY)), "{kind}");
        }
    }

    #[test]
    fn lookups_neighbours_and_cloned_routes_are_no_changes() {
        // RTM_GET, RTM_LOSING, RTM_REDIRECT, RTM_MISS, RTM_LOCK, RTM_RESOLVE, multicast addresses, and what is newer.
        for kind in [0, 4, 5, 6, 7, 8, 11, 15, 16, 17, 18, 20, 255] {
            assert!(!is_network_change(&message(kind, RTF_UP)), "{kind}");
        }
        for kind in [RTM_ADD, RTM_DELETE, RTM_CHANGE] {
            assert!(!is_network_change(&message(kind, RTF_UP | RTF_LLINFO)), "{kind}");
            assert!(!is_network_change(&message(kind, RTF_UP | RTF_WASCLONED)), "{kind}");
        }
    }

    #[test]
    fn a_message_that_is_cut_short_is_a_change() {
        let whole = message(RTM_ADD, RTF_LLINFO);
        assert!((0..12).all(|len| is_network_change(&whole[..len])));
        assert!(!is_network_change(&whole[..12]));
    }
}
