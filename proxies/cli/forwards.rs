//! The grammar of forwards, which is that of ssh: the address to listen on, and the target of its clients.
//!
//! ```text
//! -L  LISTEN:HOST:PORT | LISTEN:end:NAME             listens here, connects from the far end
//! -R  FAR:HOST:PORT | FAR:unix:/path | FAR:end:NAME  listens at the far end, connects from here
//! -D, -H  LISTEN                   listens here, connects from the far end to the target that the client names
//! -W  HOST:PORT | end:NAME         connects standard input and output from the far end
//!
//! LISTEN = [BIND:]PORT | unix:/path            FAR = [BIND:]PORT
//! BIND   = address | name | [IPV6] | * or an empty text (every address) | localhost (loopback, as without BIND)
//! ```
//!
//! The name of an end begins with a letter, so `end:80` is a port of a host called `end`.
//!
//! `-L` and `-R` may begin with `udp:`, and carry datagrams then; the others refuse it. So a host called `udp` is written with a
//! final dot. A link carries TCP and UDP, so Unix sockets are possible at this end only. All functions are pure: they resolve no name.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use seaprox::{Bind, EndName, Proto, Target};

/// A forward of `-L` or `-R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The address to listen on.
    pub listen: Bind,
    /// The target of the clients.
    pub to: Target,
}

/// The error of a malformed forward: the wrong part, and the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardError(Cow<'static, str>);

/// Parses the value of `-L`.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn local(text: &str) -> Result<Forward, ForwardError> {
    of_datagrams(text, local_of)
}

fn local_of(text: &str) -> Result<Forward, ForwardError> {
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, to) = split_tail(rest)?;
        return Ok(Forward { listen: unix_bind(path)?, to });
    }
    let fields = fields(text)?;
    if fields.iter().skip(1).any(|field| *field == "unix") {
        return Err(expected(FAR_UNIX));
    }
    match fields[..] {
        [listen, host, to] => Ok(Forward { listen: place(None, listen)?, to: target(host, to)? }),
        [listen, host, to, rest] if has_rest(listen, host) => Err(unexpected(&[listen, host, to], rest)),
        [bind, listen, host, to] => Ok(Forward { listen: place(Some(bind), listen)?, to: target(host, to)? }),
        _ => Err(misshapen(&fields, LOCAL_FORM)),
    }
}

/// Parses the value of `-R`.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn reverse(text: &str) -> Result<Forward, ForwardError> {
    of_datagrams(text, reverse_of)
}

fn reverse_of(text: &str) -> Result<Forward, ForwardError> {
    if text.starts_with("unix:") {
        return Err(expected(FAR_UNIX));
    }
    // A path may contain colons, so it is the rest of the text.
    if let Some((listen, path)) = text.split_once(":unix:") {
        let listen = match fields(listen)?[..] {
            [port] => place(None, port)?,
            [bind, port] => place(Some(bind), port)?,
            _ => return Err(expected(REVERSE_FORM)),
        };
        return Ok(Forward { listen, to: unix_target(path)? });
    }
    let fields = fields(text)?;
    match fields[..] {
        [listen, host, to] => Ok(Forward { listen: place(None, listen)?, to: target(host, to)? }),
        [listen, host, to, rest] if has_rest(listen, host) => Err(unexpected(&[listen, host, to], rest)),
        [bind, listen, host, to] => Ok(Forward { listen: place(Some(bind), listen)?, to: target(host, to)? }),
        [_] | [_, _] => Err(expected(REVERSE_FIXED)),
        _ => Err(misshapen(&fields, REVERSE_FORM)),
    }
}

/// Parses the value of `-D` or `-H`.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn listen(text: &str) -> Result<Bind, ForwardError> {
    refuse_udp(text)?;
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_bind(path);
    }
    let fields = fields(text)?;
    match fields[..] {
        [port] => place(None, port),
        [bind, port] => place(Some(bind), port),
        _ => Err(misshapen(&fields, LISTEN_FORM)),
    }
}

/// Parses the value of `-W`.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn far_target(text: &str) -> Result<Target, ForwardError> {
    refuse_udp(text)?;
    if text.starts_with("unix:") {
        return Err(expected(FAR_UNIX));
    }
    let fields = fields(text)?;
    match fields[..] {
        [host, port] => target(host, port),
        _ => Err(misshapen(&fields, TARGET_FORM)),
    }
}

/// Parses a forward whose text may begin with `udp:`. Both of its addresses have that protocol.
fn of_datagrams(text: &str, parse: fn(&str) -> Result<Forward, ForwardError>) -> Result<Forward, ForwardError> {
    let (proto, rest) = Proto::split(text);
    let Forward { listen, to } = parse(rest)?;
    if proto == Proto::Udp && (matches!(listen, Bind::Unix(_)) || matches!(to, Target::Unix(_) | Target::End(_))) {
        return Err(expected(UDP_UNIX));
    }
    Ok(Forward { listen: listen.with_proto(proto), to: to.with_proto(proto) })
}

fn refuse_udp(text: &str) -> Result<(), ForwardError> {
    let (proto, _) = Proto::split(text);
    proto.require_tcp().map_err(|error| ForwardError(error.to_string().into()))
}

/// Splits a text at the colons outside of brackets.
fn fields(text: &str) -> Result<Vec<&str>, ForwardError> {
    let (mut fields, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, char) in text.char_indices() {
        match (char, inside) {
            ('[', false) if at == start => inside = true,
            (']', true) => inside = false,
            ('[' | ']', _) => return Err(expected(BRACKETS)),
            (':', false) => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[start..]);
    if inside { Err(expected(BRACKETS)) } else { Ok(fields) }
}

/// Splits `HOST:PORT` off the end of a text.
fn split_tail(text: &str) -> Result<(&str, Target), ForwardError> {
    let tail = text.rsplit_once(':').and_then(|(rest, port)| {
        // Colons in brackets belong to the address.
        let at = if rest.ends_with(']') { rest.rfind(":[") } else { rest.rfind(':') }?;
        Some((&rest[..at], &rest[at + 1..], port))
    });
    let (head, host, port) = tail.ok_or(expected(LOCAL_UNIX_FORM))?;
    Ok((head, target(host, port)?))
}

fn place(bind: Option<&str>, port: &str) -> Result<Bind, ForwardError> {
    let port = number(port, 0)?;
    match bind {
        None | Some("localhost") => Ok(Bind::Loopback(Proto::Tcp, port)),
        Some("" | "*") => Ok(Bind::Any(Proto::Tcp, port)),
        Some(host) => Bind::from_host(host, port).map_err(|_| part("the address to listen on", host, BIND_FORM)),
    }
}

fn target(host: &str, port: &str) -> Result<Target, ForwardError> {
    if let Some(Ok(name)) = (host == "end").then(|| EndName::new(port)) {
        return Ok(Target::End(name));
    }
    let port = number(port, 1)?;
    Target::from_host(host, port).map_err(|_| part("the host", host, HOST_FORM))
}

fn number(text: &str, least: u16) -> Result<u16, ForwardError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    let form = if least == 0 { "a number from 0 to 65535" } else { "a number from 1 to 65535" };
    port.filter(|port| *port >= least).ok_or_else(|| part("the port", text, form))
}

fn unix_bind(path: &str) -> Result<Bind, ForwardError> {
    unix(path).map(Bind::Unix)
}

fn unix_target(path: &str) -> Result<Target, ForwardError> {
    unix(path).map(Target::Unix)
}

fn unix(path: &str) -> Result<PathBuf, ForwardError> {
    match Target::parse(&format!("unix:{path}")) {
        Ok(Target::Unix(path)) => Ok(path),
        _ => Err(part("the path", path, "1 to 107 bytes")),
    }
}

/// Returns true if the first of four parts is a port and the second is not: the last part is then one too many.
fn has_rest(first: &str, second: &str) -> bool {
    number(first, 0).is_ok() && number(second, 0).is_err()
}

fn unexpected(parts: &[&str], rest: &str) -> ForwardError {
    ForwardError(format!("unexpected {:?} behind {}", format!(":{rest}"), parts.join(":")).into())
}

/// Returns the error for a wrong number of parts. Too many parts mostly come from an IPv6 address without brackets.
fn misshapen(fields: &[&str], form: &'static str) -> ForwardError {
    let hex = |field: &&str| field.len() <= 4 && field.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bare = fields.len() > 4 || fields.windows(2).any(|pair| pair[0].is_empty() && hex(&pair[1]));
    let hint = if bare && fields.len() > 2 { "; an IPv6 address needs brackets, such as [::1]" } else { "" };
    ForwardError(format!("expected {form}{hint}").into())
}

fn part(what: &str, text: &str, form: &str) -> ForwardError {
    ForwardError(format!("{what} {text:?}: expected {form}").into())
}

fn expected(form: &'static str) -> ForwardError {
    ForwardError(format!("expected {form}").into())
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ForwardError {}

const LOCAL_FORM: &str = "[BIND:]PORT:HOST:PORT, such as 8080:db:5432, or unix:/path:HOST:PORT";
const LOCAL_UNIX_FORM: &str = "unix:/path:HOST:PORT";
const REVERSE_FORM: &str = "[BIND:]PORT:HOST:PORT, such as 2222:127.0.0.1:22, or [BIND:]PORT:unix:/path";
const REVERSE_FIXED: &str =
    "a target behind the port, such as 2222:127.0.0.1:22 or 2222:unix:/path; -R without a target is not supported";
const LISTEN_FORM: &str = "[BIND:]PORT, such as 1080, or unix:/path";
const TARGET_FORM: &str = "HOST:PORT, such as db:5432 or [::1]:22";
const UDP_UNIX: &str = "addresses and ports after udp:, because Unix sockets and ends carry no datagrams here";
const FAR_UNIX: &str = "a TCP port at the far end, because Unix sockets are possible at this end only";
const BIND_FORM: &str = "an address, a name, [IPV6], or * for every address";
const HOST_FORM: &str = "a host name of letters, digits, '-', '_' and '.', an address, or [IPV6]";
const BRACKETS: &str = "brackets around an IPv6 address only, such as [::1]";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the forward as `listen -> to`, or the error.
    fn shown(result: Result<Forward, ForwardError>) -> String {
        result.map_or_else(|error| error.to_string(), |it| format!("{} -> {}", it.listen, it.to))
    }

    #[test]
    fn local_forwards_have_the_grammar_of_ssh() {
        for (text, meaning) in [
            ("8080:db:5432", "8080 -> db:5432"),
            ("0:db:5432", "0 -> db:5432"),
            ("localhost:8080:db:5432", "8080 -> db:5432"),
            ("127.0.0.1:8080:db:5432", "127.0.0.1:8080 -> db:5432"),
            ("*:8080:db:5432", ":8080 -> db:5432"),
            (":8080:db:5432", ":8080 -> db:5432"),
            ("0.0.0.0:8080:10.0.0.1:80", "0.0.0.0:8080 -> 10.0.0.1:80"),
            ("[::1]:8080:[2001:db8::1]:80", "[::1]:8080 -> [2001:db8::1]:80"),
            ("[::]:8080:localhost:80", "[::]:8080 -> localhost:80"),
            ("gate.example:8080:db.example:1", "gate.example:8080 -> db.example:1"),
            ("8080:[::1]:65535", "8080 -> [::1]:65535"),
            ("[fe80::1%eth0]:8080:[fe80::2%eth1]:80", "[fe80::1%eth0]:8080 -> [fe80::2%eth1]:80"),
            ("unix:/tmp/db:db:5432", "unix:/tmp/db -> db:5432"),
            ("unix:/tmp/a:b:db:5432", "unix:/tmp/a:b -> db:5432"),
            ("unix:/tmp/db:[::1]:5432", "unix:/tmp/db -> [::1]:5432"),
            ("2000:end:backup", "2000 -> end:backup"),
            ("*:2000:end:backup", ":2000 -> end:backup"),
            ("unix:/tmp/b:end:backup", "unix:/tmp/b -> end:backup"),
            ("2000:end:80", "2000 -> end:80"),
        ] {
            assert_eq!(shown(local(text)), meaning, "{text}");
        }
    }

    #[test]
    fn errors_in_local_forwards_name_the_part_and_the_expected_form() {
        let form = format!("expected {LOCAL_FORM}");
        let brackets = format!("{form}; an IPv6 address needs brackets, such as [::1]");
        for (text, error) in [
            ("", form.as_str()),
            ("8080", &form),
            ("8080:db", &form),
            ("8080:::1:22", &brackets),
            ("::1:8080:db:22", &brackets),
            ("a:b:c:d:e", &brackets),
            ("x:db:5432", "the port \"x\": expected a number from 0 to 65535"),
            (":db:5432", "the port \"\": expected a number from 0 to 65535"),
            ("65536:db:5432", "the port \"65536\": expected a number from 0 to 65535"),
            ("+1:db:5432", "the port \"+1\": expected a number from 0 to 65535"),
            ("8080:db:0", "the port \"0\": expected a number from 1 to 65535"),
            ("8080:db:", "the port \"\": expected a number from 1 to 65535"),
            ("8080:db:http", "the port \"http\": expected a number from 1 to 65535"),
            ("8080::80", &format!("the host \"\": expected {HOST_FORM}")),
            ("8080:d b:80", &format!("the host \"d b\": expected {HOST_FORM}")),
            ("8080:[x]:80", &format!("the host \"[x]\": expected {HOST_FORM}")),
            ("a/b:8080:db:80", &format!("the address to listen on \"a/b\": expected {BIND_FORM}")),
            ("8080:db:5432:9", "unexpected \":9\" behind 8080:db:5432"),
            ("gate:db:5432:9", "the port \"db\": expected a number from 0 to 65535"),
            ("8080:[::1:80", &format!("expected {BRACKETS}")),
            ("8080:::1]:80", &format!("expected {BRACKETS}")),
            ("8080:x[::1]:80", &format!("expected {BRACKETS}")),
            ("8080:[[::1]]:80", &format!("expected {BRACKETS}")),
            ("8080:unix:/run/docker.sock", &format!("expected {FAR_UNIX}")),
            ("unix:/x", "expected unix:/path:HOST:PORT"),
            ("unix:/x:80", "expected unix:/path:HOST:PORT"),
            ("unix::db:80", "the path \"\": expected 1 to 107 bytes"),
        ] {
            assert_eq!(shown(local(text)), error, "{text}");
        }
    }

    #[test]
    fn reverse_forwards_have_the_grammar_of_ssh() {
        for (text, meaning) in [
            ("2222:127.0.0.1:22", "2222 -> 127.0.0.1:22"),
            ("0:localhost:22", "0 -> localhost:22"),
            ("localhost:2222:host:22", "2222 -> host:22"),
            ("*:2222:host:22", ":2222 -> host:22"),
            (":2222:host:22", ":2222 -> host:22"),
            ("[::]:2222:[::1]:22", "[::]:2222 -> [::1]:22"),
            ("2222:unix:/run/a.sock", "2222 -> unix:/run/a.sock"),
            ("0.0.0.0:2222:unix:/run/a:b.sock", "0.0.0.0:2222 -> unix:/run/a:b.sock"),
            ("[::1]:2222:unix:/run/a.sock", "[::1]:2222 -> unix:/run/a.sock"),
            ("2222:end:motd", "2222 -> end:motd"),
        ] {
            assert_eq!(shown(reverse(text)), meaning, "{text}");
        }
    }

    #[test]
    fn errors_in_reverse_forwards_name_the_part_and_the_expected_form() {
        let form = format!("expected {REVERSE_FORM}");
        for (text, error) in [
            ("2222", format!("expected {REVERSE_FIXED}")),
            ("127.0.0.1:2222", format!("expected {REVERSE_FIXED}")),
            ("", format!("expected {REVERSE_FIXED}")),
            ("unix:/x:host:22", format!("expected {FAR_UNIX}")),
            ("1:2:3:unix:/x", form.clone()),
            ("1:2:3:4:5", format!("{form}; an IPv6 address needs brackets, such as [::1]")),
            ("2222:db:5432:9", "unexpected \":9\" behind 2222:db:5432".to_owned()),
            ("2222:unix:", "the path \"\": expected 1 to 107 bytes".to_owned()),
            ("2222:host:0", "the port \"0\": expected a number from 1 to 65535".to_owned()),
            ("70000:unix:/x", "the port \"70000\": expected a number from 0 to 65535".to_owned()),
        ] {
            assert_eq!(shown(reverse(text)), error, "{text}");
        }
    }

    #[test]
    fn a_listener_without_an_address_is_on_loopback() {
        let shown = |text| listen(text).map_or_else(|error| error.to_string(), |bind| bind.to_string());
        assert_eq!(listen("1080"), Ok(Bind::Loopback(Proto::Tcp, 1080)));
        assert_eq!(listen("localhost:1080"), Ok(Bind::Loopback(Proto::Tcp, 1080)));
        for (text, meaning) in [
            ("1080", "1080"),
            (":1080", ":1080"),
            ("*:1080", ":1080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:1080", "[::1]:1080"),
            ("name:1080", "name:1080"),
            ("unix:/tmp/s", "unix:/tmp/s"),
            ("", "the port \"\": expected a number from 0 to 65535"),
            ("name", "the port \"name\": expected a number from 0 to 65535"),
            ("a:b:c", &format!("expected {LISTEN_FORM}")),
            ("::1:80", &format!("expected {LISTEN_FORM}; an IPv6 address needs brackets, such as [::1]")),
        ] {
            assert_eq!(shown(text), meaning, "{text}");
        }
    }

    #[test]
    fn the_target_of_stdio_is_a_tcp_target() {
        let shown = |text| far_target(text).map_or_else(|error| error.to_string(), |target| target.to_string());
        for (text, meaning) in [
            ("host:22", "host:22"),
            ("10.0.0.1:22", "10.0.0.1:22"),
            ("[::1]:22", "[::1]:22"),
            ("22", &format!("expected {TARGET_FORM}")),
            ("host", &format!("expected {TARGET_FORM}")),
            ("::1:22", &format!("expected {TARGET_FORM}; an IPv6 address needs brackets, such as [::1]")),
            ("host:0", "the port \"0\": expected a number from 1 to 65535"),
            (":22", &format!("the host \"\": expected {HOST_FORM}")),
            ("unix:/x", &format!("expected {FAR_UNIX}")),
        ] {
            assert_eq!(shown(text), meaning, "{text}");
        }
    }

    #[test]
    fn no_text_panics() {
        for text in [":", "::", ":::", "[", "]", "[]", "[]:", ":[]", "unix", "unix:", "unix:::", "é:é:é", ":unix:"] {
            let _ = (local(text), reverse(text), listen(text), far_target(text));
        }
    }
}
