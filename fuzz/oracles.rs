//! Properties that every parser must keep for any bytes: one function for each parser, which panics when one is broken.
//!
//! The fuzz targets call these functions. A normal test calls them too, with the seeds and with mutations of the seeds,
//! so this file includes the parsers by path and needs only `seaprox`, `httparse`, `proxy-header`, `bytes` and `ring`. No function here may read a clock
//! or random numbers: the same bytes give the same answer.
#![allow(
    dead_code,
    unused_imports,
    reason = "a fuzz target uses one of the oracles, and no oracle uses all of a parser"
)]

use std::fmt::Debug;

#[path = "../proxies/admin"]
mod admin {
    pub mod head;
}

#[path = "../proxies/frontends/http"]
mod http {
    pub mod chunked;
    pub mod head;
    pub mod request;
    pub mod response;
    pub mod rewrite;
}

#[path = "../proxies/frontends/proxy_protocol"]
mod proxy_protocol {
    pub mod header;
}

#[path = "../proxies/frontends/socks"]
mod socks {
    pub mod proto;
    pub mod udp;
}

#[path = "../src/tls"]
mod tls {
    pub mod buffers;
    pub mod client_hello;
    pub mod outgoing;
    pub mod records;
}

#[path = "oracles/admin_requests.rs"]
mod admin_requests;
#[path = "oracles/chunked.rs"]
mod chunked;
#[path = "oracles/client_hellos.rs"]
mod client_hellos;
#[path = "oracles/datagrams.rs"]
mod datagrams;
#[path = "oracles/heads.rs"]
mod heads;
#[path = "oracles/invitations.rs"]
mod invitations;
#[path = "oracles/proxy_headers.rs"]
mod proxy_headers;
#[path = "oracles/records.rs"]
mod records;
#[path = "oracles/requests.rs"]
mod requests;
#[path = "oracles/texts.rs"]
mod texts;

pub use admin_requests::admin_request;
pub use chunked::http_chunked;
pub use client_hellos::client_hello;
pub use datagrams::datagrams;
pub use heads::{http_request, http_response};
pub use invitations::{claim, invitation};
pub use proxy_headers::proxy_header;
pub use records::records;
pub use requests::{canary, socks_proto, socks_udp};
pub use texts::{address, rules};

/// Panics if the bytes break a property.
pub type Oracle = fn(&[u8]);

/// All oracles, each with the name of its fuzz target, which is also the name of its directory in `seeds/`.
pub const ALL: [(&str, Oracle); 14] = [
    ("socks_proto", socks_proto),
    ("socks_udp", socks_udp),
    ("http_request", http_request),
    ("http_response", http_response),
    ("http_chunked", http_chunked),
    ("address", address),
    ("rules", rules),
    ("datagrams", datagrams),
    ("claim", claim),
    ("invitation", invitation),
    ("admin_request", admin_request),
    ("proxy_header", proxy_header),
    ("client_hello", client_hello),
    ("records", records),
];

/// Returns a copy of `seed` that is changed in one to four places, for a test that runs without a fuzzer. `state` is
/// the state of the generator (xorshift) and must not be 0; the same state gives the same mutation.
pub fn mutate(seed: &[u8], state: &mut u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let mut random = |below: usize| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) as usize % below.max(1)
    };
    for _ in 0..=random(4) {
        let at = random(bytes.len() + 1);
        match random(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random(256) as u8),
            2 if at < bytes.len() => bytes[at] = random(256) as u8,
            3 if at < bytes.len() => bytes[at] ^= 1 << random(8),
            4 => drop(bytes.splice(at..at, WORDS[random(WORDS.len())].iter().copied())),
            _ => {
                let end = (at + random(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
        }
    }
    bytes
}

/// Byte strings that parsers of these formats often get wrong.
const WORDS: [&[u8]; 20] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: host, via, content-length\r\n",
    b"HTTP/1.0",
    b"chunked",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"[::1]",
    b"65536",
    b"unix:",
];

/// Checks a parser that is called with all bytes received so far. Its result must be the same when the bytes arrive in
/// pieces and when more bytes follow.
///
/// `all_at_once` returns true for a message that takes all bytes present, so that its length depends on the pieces.
fn check_prefixes<'a, T: PartialEq + Debug, E: PartialEq + Debug>(
    data: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Result<Option<(T, usize)>, E>,
    all_at_once: impl Fn(&T) -> bool,
) {
    let whole = parse(data);
    let taken = match &whole {
        Ok(Some((message, _))) if all_at_once(message) => return,
        Ok(Some((_, consumed))) => *consumed,
        Ok(None) | Err(_) => data.len(),
    };
    assert!(taken <= data.len(), "more bytes were consumed than the input has");
    assert!(taken > 0 || !matches!(whole, Ok(Some(_))), "a message has no bytes");
    if let Ok(Some(_)) = whole {
        assert_eq!(parse(&data[..taken]), whole, "bytes after a message changed it");
    }
    // A few lengths are enough: the fuzzer chooses the data.
    let stride = taken / 24 + 1;
    for len in (0..taken).step_by(stride).chain(taken.saturating_sub(5)..taken) {
        match parse(&data[..len]) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("{len} bytes were a whole message, and more bytes changed that"),
            early => assert_eq!(early, whole, "{len} bytes were refused, and more bytes changed that"),
        }
    }
}
