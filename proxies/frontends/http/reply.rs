//! The responses of the proxy itself: the start of a tunnel, and errors.
//!
//! This file must never write a line end into a head that comes from elsewhere.

use super::head::RequestKind;

/// The response to CONNECT when the target is connected; the tunnel begins behind it (RFC 9110, section 9.3.6).
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The required field of a 407 (RFC 9110, section 11.7.1).
pub const PROXY_AUTHENTICATE: (&str, &str) = ("Proxy-Authenticate", "Basic realm=\"seaprox\"");

/// Returns a complete response with one line of text as its body. Control characters in `text` become spaces. `field` is an
/// additional field. A response to HEAD has no body (RFC 9110, section 9.3.2).
pub fn error_response(
    status: u16,
    text: &str,
    field: Option<(&'static str, &'static str)>,
    keep_alive: bool,
    kind: RequestKind,
) -> Vec<u8> {
    let mut body: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    body.push('\n');
    let mut out = format!("HTTP/1.1 {status} {}\r\n", phrase(status));
    out.push_str("Content-Type: text/plain; charset=utf-8\r\n");
    out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    if let Some((name, value)) = field {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !keep_alive {
        out.push_str("Connection: close\r\n");
    }
    out.push_str("\r\n");
    if kind != RequestKind::Head {
        out.push_str(&body);
    }
    out.into_bytes()
}

/// Returns the phrase of a status (RFC 9110, section 15, and RFC 6585, section 5).
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_error_response_has_a_text_body_unless_the_request_was_head() {
        let refusal = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\n\
                       Connection: close\r\n\r\nconnection refused\n";
        assert_eq!(text(error_response(502, "connection refused", None, false, RequestKind::Connect)), refusal);
        let without_body = refusal.strip_suffix("connection refused\n").unwrap();
        assert_eq!(text(error_response(502, "connection refused", None, false, RequestKind::Head)), without_body);
    }

    #[test]
    fn a_407_can_keep_the_connection() {
        let response = error_response(407, "who are you?", Some(PROXY_AUTHENTICATE), true, RequestKind::Other);
        assert_eq!(
            text(response),
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 13\r\nProxy-Authenticate: Basic realm=\"seaprox\"\r\n\r\nwho are you?\n"
        );
    }

    #[test]
    fn control_characters_in_a_text_become_spaces() {
        let response = text(error_response(502, "a\r\nb\0", None, false, RequestKind::Other));
        assert!(response.ends_with("\r\n\r\na  b \n"), "{response:?}");
    }

    #[test]
    fn each_status_in_use_has_a_phrase() {
        for status in [400, 403, 407, 408, 431, 500, 501, 502, 503, 504, 505] {
            assert_ne!(phrase(status), "", "{status}");
        }
    }
}
