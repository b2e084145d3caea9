//! What the proxy itself says to an HTTP client: the opening of a tunnel, and refusals.
//!
//! It owns the wording of these responses. It must never put a line end into a head that was not written here.

use super::head::Asked;

/// The response to CONNECT once the target is there; the tunnel begins behind it (RFC 9110, section 9.3.6).
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The field that a 407 must have (RFC 9110, section 11.7.1).
pub const PROXY_AUTHENTICATE: (&str, &str) = ("Proxy-Authenticate", "Basic realm=\"seaprox\"");

/// A whole response with one line of text as its body; control characters in `text` become spaces. `field` is one more
/// field, which must be fit for a head. After a response to HEAD there is no body (RFC 9110, section 9.3.2).
pub fn error_response(
    status: u16,
    text: &str,
    field: Option<(&'static str, &'static str)>,
    keep_alive: bool,
    asked: Asked,
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
    if asked != Asked::Head {
        out.push_str(&body);
    }
    out.into_bytes()
}

/// RFC 9110, section 15, and RFC 6585, section 5.
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
    fn a_refusal_is_byte_exact() {
        let refusal = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 19\r\n\
                       Connection: close\r\n\r\nconnection refused\n";
        assert_eq!(text(error_response(502, "connection refused", None, false, Asked::Connect)), refusal);
        let without_body = refusal.strip_suffix("connection refused\n").unwrap();
        assert_eq!(text(error_response(502, "connection refused", None, false, Asked::Head)), without_body);
    }

    #[test]
    fn a_connection_can_be_kept_for_the_password() {
        let response = error_response(407, "who are you?", Some(PROXY_AUTHENTICATE), true, Asked::Other);
        assert_eq!(
            text(response),
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 13\r\nProxy-Authenticate: Basic realm=\"seaprox\"\r\n\r\nwho are you?\n"
        );
    }

    #[test]
    fn a_text_stays_one_line() {
        let response = text(error_response(502, "a\r\nb\0", None, false, Asked::Other));
        assert!(response.ends_with("\r\n\r\na  b \n"), "{response:?}");
    }

    #[test]
    fn every_status_in_use_has_a_phrase() {
        for status in [400, 403, 407, 408, 431, 500, 501, 502, 503, 504, 505] {
            assert_ne!(phrase(status), "", "{status}");
        }
    }
}
