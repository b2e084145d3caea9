//! Rules of nft at both ends of all paths, for the packets of links.

use super::Net;
use super::nodes::PORT;

/// Lets both hosts judge what arrives by these rules of nft, or by none, in place of the rules of an earlier call.
#[track_caller]
pub fn filter(net: &Net, rules: &str) {
    for host in [net.near(), net.far()] {
        host.nft(&format!(
            "table inet links\ndelete table inet links\n\
             table inet links {{ chain in {{ type filter hook input priority -300; {rules} }}; }}\n"
        ));
    }
}

/// Returns rules for the packets of links over `proto`, in both directions.
pub fn of_links(proto: &str, verdict: &str) -> String {
    format!("{proto} sport {PORT} {verdict}; {proto} dport {PORT} {verdict};")
}
