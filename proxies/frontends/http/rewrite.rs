//! The writer of forwarded heads: requests to the origin server, responses to the client.
//!
//! Fields about a single connection are dropped (RFC 9110, section 7.6.1), a Via field is added (section 7.6.3), and the
//! framing fields and Host are written from the parsed values. So a Connection field cannot remove the framing, and the
//! forwarded head contains nothing that the parser has not understood.
//!
//! This file must never copy a framing field.

use std::borrow::Cow;

use super::head::{Body, Fields, Version};
use super::request::{Absolute, Client, RequestHead};
use super::response::ResponseHead;

/// The framing of a response for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The framing of the body. [`Body::UntilClose`] for a [`Body::Chunked`] of the server means that only the data of the
    /// chunks is forwarded, because the client speaks HTTP/1.0.
    pub body: Body,
    /// True if the client's connection is kept after the body. The head says the same.
    pub keep_alive: bool,
}

/// Appends the head of a request in origin-form. `absolute` is the form of `head`. The server's connection persists (RFC
/// 9112, section 9.3); the framing of the body is `head.body`.
pub fn request(head: &RequestHead<'_>, absolute: &Absolute<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&absolute.path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9112, section 3.2.2: the received Host is replaced by the host of the URI.
    field("Host", without_zone(absolute.authority).as_bytes(), out);
    for (name, value) in end_to_end(&head.fields) {
        match name {
            name if name.eq_ignore_ascii_case("host") => {}
            // RFC 9110, section 10.1.1: HTTP/1.0 has no Expect, and its client cannot read a 100.
            name if name.eq_ignore_ascii_case("expect") && head.version == Version::Http10 => {}
            name if name.eq_ignore_ascii_case("max-forwards") && head.max_forwards.is_some() => {}
            name => field(name, value, out),
        }
    }
    if let Some(count) = head.max_forwards {
        field("Max-Forwards", count.to_string().as_bytes(), out);
    }
    if head.asks_upgrade() {
        upgrade(&head.fields, out);
    }
    framing(head.body, out);
    via(head.version, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response for this client. Returns the framing of the body.
///
/// An interim response for an HTTP/1.0 client is dropped (RFC 9110, section 15.2).
pub fn response(head: &ResponseHead<'_>, client: Client, out: &mut Vec<u8>) -> Outgoing {
    if head.is_interim() && client.version == Version::Http10 {
        return Outgoing { body: Body::None, keep_alive: client.keep_alive };
    }
    let body = match head.body {
        // RFC 9112, section 6.1: no transfer coding unless the client is known to speak HTTP/1.1.
        Body::Chunked if client.version == Version::Http10 => Body::UntilClose,
        body => body,
    };
    let keep_alive = client.keep_alive && body != Body::UntilClose;
    out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", head.status, head.reason).as_bytes());
    for (name, value) in end_to_end(&head.fields) {
        field(name, value, out);
    }
    match head.length {
        // RFC 9110, section 8.6: the length of the response to GET, or of the representation that the client has.
        Some(length) if body == Body::None && !head.is_unframed() => framing(Body::Length(length), out),
        _ => framing(body, out),
    }
    via(head.version, out);
    if head.is_switching() {
        upgrade(&head.fields, out);
    } else if !keep_alive && !head.is_interim() {
        field("Connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
    Outgoing { body, keep_alive }
}

/// Returns the end-to-end fields: not the fields about the connection, and not those that Connection names (RFC 9110,
/// section 7.6.1).
fn end_to_end<'a>(fields: &Fields<'a>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let options: Vec<&[u8]> = fields.elements("connection").collect();
    fields.iter().filter(move |(name, _)| {
        let is_dropped = DROPPED.iter().any(|dropped| name.eq_ignore_ascii_case(dropped));
        !is_dropped && !options.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Removes the zone from an IPv6 address: it names an interface of this host, and means nothing to the server (RFC 6874,
/// section 4).
fn without_zone(authority: &str) -> Cow<'_, str> {
    match (authority.split_once('%'), authority.rsplit_once(']')) {
        (Some((host, _)), Some((_, port))) if host.starts_with('[') => format!("{host}]{port}").into(),
        _ => authority.into(),
    }
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends Upgrade, and Connection that names it, because Upgrade is a hop-by-hop field (RFC 9110, section 7.8).
fn upgrade(fields: &Fields<'_>, out: &mut Vec<u8>) {
    field("Connection", b"Upgrade", out);
    fields.named("upgrade").for_each(|value| field("Upgrade", value, out));
}

fn framing(body: Body, out: &mut Vec<u8>) {
    match body {
        Body::None | Body::UntilClose => {}
        Body::Length(length) => field("Content-Length", length.to_string().as_bytes(), out),
        Body::Chunked => field("Transfer-Encoding", b"chunked", out),
    }
}

/// Appends Via: the version of the received message, and the name of the recipient (RFC 9110, section 7.6.3).
fn via(received: Version, out: &mut Vec<u8>) {
    let value = match received {
        Version::Http10 => "1.0 seaprox",
        Version::Http11 => "1.1 seaprox",
    };
    field("Via", value.as_bytes(), out);
}

/// Fields that are not forwarded (RFC 9110, sections 7.6.1, 10.1.4, 11.7 and 7.8). `framing` writes the last two. Trailer is
/// dropped because trailers are (section 6.5.1).
const DROPPED: [&str; 11] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "transfer-encoding",
    "content-length",
];

#[cfg(test)]
mod tests;
