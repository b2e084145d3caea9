//! The SOCKS front end: SOCKS4, SOCKS4a and SOCKS5 on one port. `proto` parses and writes the messages; the handler here
//! checks the login, asks for the target to be connected, and answers; `bind` waits for a target that connects. `associate` and
//! `udp` are UDP ASSOCIATE and its datagrams.
//!
//! ```text
//!   Greeting --4--> (request in the same message) ---------\
//!      |                                                    +--> Dialing --> relay
//!      +--5--> Login (if users are required) --> Request --+--> Associated (UDP ASSOCIATE)
//! ```

pub mod associate;
mod bind;
mod proto;
mod udp;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use seaprox::{Cx, Endpoint, Failure, Handler, Limits, Reason, Role, Target};

use super::access::AccessPolicy;
use super::spec::FrontEndSpec;
use associate::Settings;
use proto::{BadTarget, Command, Method, Reply4, Reply5, SocksError, Version};

/// The SOCKS front end in the registry.
pub const SPEC: FrontEndSpec = FrontEndSpec {
    name: "socks",
    summary: "SOCKS4, 4a and 5 proxy: CONNECT, BIND and UDP ASSOCIATE",
    synopsis: "[--listen ADDR] [OPTION]...",
    default_address: "127.0.0.1:1080",
    options: associate::OPTIONS,
    flags: &[
        "users",
        "handshake-timeout",
        "udp-idle-timeout",
        "udp-association-timeout",
        "udp-flows",
        "udp-flows-per-source",
    ],
    serves_redirected: false,
    examples: &[
        ("socks", "serve on 127.0.0.1:1080"),
        ("socks -l :1080 --users users.txt", "serve on every address, with passwords"),
        ("socks --deny 127.0.0.0/8 --deny ::1", "keep clients away from the proxy's own host"),
        ("socks -l :1080 --udp-advertise 203.0.113.5", "serve UDP behind a translation of this address"),
        ("socks --via remote", "let the node remote resolve names and connect"),
        ("socks --allow 'from:10.0.0.0/8,to:*.example.org:443'", "permit these connections and no others"),
    ],
    make: |config, access, _| {
        let (access, settings) = (Arc::clone(access), Settings::of(config)?);
        Some(Box::new(move || handler(Arc::clone(&access), settings)))
    },
    make_datagrams: None,
};

/// The handler of one client.
struct Socks {
    access: Arc<AccessPolicy>,
    settings: Settings,
    step: Step,
    version: Version,
    /// The command that is being done.
    command: Command,
}

/// The message that is expected next, or the reason why none is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    Login,
    /// The login has failed, and its answer is delayed.
    Denied,
    Request,
    Dialing,
    /// The client has an association, which ends with the connection.
    Associated,
}

/// Returns a handler for a client that has sent nothing yet.
pub fn handler(access: Arc<AccessPolicy>, settings: Settings) -> Box<dyn Handler> {
    let (step, version, command) = (Step::Greeting, Version::Five, Command::Connect);
    Box::new(Socks { access, settings, step, version, command })
}

impl Socks {
    /// Handles one message at the start of the input. Returns its length, or 0 while it is incomplete.
    fn message(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> Result<usize, SocksError> {
        match self.step {
            Step::Greeting => match input.first().map(|first| (Version::detect(*first), *first)) {
                None => Ok(0),
                Some((Some(Version::Four), _)) => self.request4(cx, input),
                Some((Some(Version::Five), _)) => self.greeting5(cx, input),
                Some((None, first)) => Err(SocksError::Version(first)),
            },
            Step::Login => self.login(cx, input),
            Step::Request => self.request5(cx, input),
            Step::Denied | Step::Dialing => Ok(0),
            // Nothing else is said on the connection of an association (RFC 1928, section 7).
            Step::Associated => Ok(input.len()),
        }
    }

    fn greeting5(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> Result<usize, SocksError> {
        let Some((methods, consumed)) = proto::parse_greeting5(input)? else { return Ok(0) };
        cx.set_kind("socks5");
        let wants_login = self.access.users().is_some();
        let method = match (wants_login, methods) {
            (true, methods) if methods.user_pass => Method::UserPass,
            (false, methods) if methods.no_auth => Method::NoAuth,
            _ => Method::NoneAcceptable,
        };
        _ = cx.reply(&proto::method_reply(method));
        match method {
            Method::UserPass => self.step = Step::Login,
            Method::NoAuth => self.step = Step::Request,
            Method::NoneAcceptable => refuse(cx, Reason::AuthFailed, "no method of authentication in common"),
        }
        Ok(consumed)
    }

    fn login(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> Result<usize, SocksError> {
        let Some((auth, consumed)) = proto::parse_auth(input)? else { return Ok(0) };
        if self.access.users().is_none_or(|users| users.check(auth.user, auth.password)) {
            _ = cx.reply(&proto::auth_reply(true));
            cx.set_user(&String::from_utf8_lossy(auth.user));
            self.step = Step::Request;
            return Ok(consumed);
        }
        self.step = Step::Denied;
        cx.set_detail("wrong user or password");
        match self.access.login_failed(cx) {
            Some(delay) => {
                cx.pause_reading(Role::Source);
                // A wake-up that is pending already also ends the delay.
                let _ = cx.wake_after(delay);
            }
            None => cx.close(Reason::AuthFailed),
        }
        Ok(consumed)
    }

    fn request5(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> Result<usize, SocksError> {
        let Some((request, consumed)) = proto::parse_request5(input)? else { return Ok(0) };
        self.request(cx, request.command, request.target, input);
        Ok(consumed)
    }

    fn request4(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> Result<usize, SocksError> {
        let Some((request, consumed)) = proto::parse_request4(input)? else { return Ok(0) };
        let named = matches!(request.target, Ok(Target::Name(..)) | Err(BadTarget::Name));
        cx.set_kind(if named { "socks4a" } else { "socks4" });
        self.version = Version::Four;
        if self.access.users().is_some() {
            // The user id of SOCKS4 proves nothing, because there is no password.
            self.reply(cx, Reply5::NotAllowed);
            refuse(cx, Reason::AuthFailed, "SOCKS4 has no passwords");
        } else {
            self.request(cx, request.command, request.target, input);
        }
        Ok(consumed)
    }

    /// Handles the request at the start of `input`.
    fn request(&mut self, cx: &mut Cx<'_>, command: Command, target: Result<Target, BadTarget>, input: &[u8]) {
        self.step = Step::Dialing;
        if command == Command::Bind {
            return self.bind(cx, target, input);
        }
        let is_known = match self.version {
            Version::Four => command == Command::Connect,
            Version::Five => matches!(command, Command::Connect | Command::UdpAssociate),
        };
        if !is_known {
            self.reply(cx, Reply5::CommandNotSupported);
            return refuse(cx, Reason::ProtocolError, "only CONNECT, BIND and, in SOCKS5, UDP ASSOCIATE are supported");
        }
        match target {
            Err(bad) => {
                self.reply(cx, bad.reply5());
                let reason = if bad == BadTarget::Name { Reason::NameResolutionFailure } else { Reason::ProtocolError };
                proto::asked(input).into_iter().for_each(|text| cx.set_asked_text(&text));
                refuse(cx, reason, "the target cannot be used");
            }
            Ok(target) if command == Command::UdpAssociate => self.associate(cx, &target),
            Ok(target) => {
                if let Err(failure) = self.access.connect(cx, Rc::new(target)) {
                    self.fail(cx, &failure);
                }
            }
        }
    }

    /// Opens an association for the datagrams of the client, which has announced their source.
    fn associate(&mut self, cx: &mut Cx<'_>, announced: &Target) {
        cx.set_kind("socks5-udp");
        match self.settings.associate(cx, &self.access, announced) {
            Ok(bound) => {
                self.step = Step::Associated;
                let (bytes, len) = proto::reply5(Reply5::Succeeded, Some(bound));
                _ = cx.reply(&bytes[..len]);
            }
            Err(failure) => {
                cx.set_detail(failure.detail.as_deref().unwrap_or_default());
                self.fail(cx, &failure);
            }
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_>, failure: &Failure) {
        self.reply(cx, reply_for(failure.reason));
        cx.close_after_flush(failure.reason);
    }

    /// Replies to a request that is not granted.
    fn reply(&mut self, cx: &mut Cx<'_>, code: Reply5) {
        // A reply is short, and the first bytes to the client always have room.
        _ = match self.version {
            Version::Four => cx.reply(&proto::reply4(Reply4::Rejected, None)),
            Version::Five => {
                let (bytes, len) = proto::reply5(code, None);
                cx.reply(&bytes[..len])
            }
        };
    }

    /// Replies to a request that is granted, with the local address of the dest.
    fn grant(&mut self, cx: &mut Cx<'_>) {
        if self.command == Command::Bind {
            return cx.peer(Role::Dest).ip().into_iter().for_each(|addr| self.bound(cx, plain(addr)));
        }
        let bound = match cx.local(Role::Dest) {
            Endpoint::Ip(_, addr) => Some(addr),
            _ => None,
        };
        _ = match (self.version, bound) {
            (Version::Four, Some(std::net::SocketAddr::V4(addr))) => {
                cx.reply(&proto::reply4(Reply4::Granted, Some(addr)))
            }
            (Version::Four, _) => cx.reply(&proto::reply4(Reply4::Granted, None)),
            (Version::Five, bound) => {
                let (bytes, len) = proto::reply5(Reply5::Succeeded, bound);
                cx.reply(&bytes[..len])
            }
        };
    }
}

impl Handler for Socks {
    fn opened(&mut self, _cx: &mut Cx<'_>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        match self.message(cx, input) {
            Ok(consumed) => consumed,
            Err(error) => {
                if error == SocksError::TooLong {
                    // An overlong field occurs only in a SOCKS4 request, so the client can read a SOCKS4 reply.
                    cx.set_kind("socks4");
                    self.version = Version::Four;
                    self.reply(cx, Reply5::GeneralFailure);
                    refuse(cx, Reason::ProtocolError, &error.to_string());
                } else {
                    cx.set_detail(&error.to_string());
                    cx.close(Reason::ProtocolError);
                }
                input.len()
            }
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        if self.step == Step::Denied {
            // After a failure the connection must be closed (RFC 1929, section 2).
            _ = cx.reply(&proto::auth_reply(false));
            cx.close_after_flush(Reason::AuthFailed);
        }
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        cx.close(if self.step == Step::Denied { Reason::AuthFailed } else { Reason::HandshakeTimeout });
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                self.grant(cx);
                cx.relay();
            }
            Err(failure) => self.fail(cx, failure),
        }
    }
}

fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Ends a connection whose client has its reply already.
fn refuse(cx: &mut Cx<'_>, reason: Reason, detail: &str) {
    cx.set_detail(detail);
    cx.close_after_flush(reason);
}

/// Returns the reply code of a reason (RFC 1928, section 6).
fn reply_for(reason: Reason) -> Reply5 {
    match reason {
        Reason::NotPermitted => Reply5::NotAllowed,
        Reason::NetworkUnreachable => Reply5::NetworkUnreachable,
        Reason::HostUnreachable | Reason::NameResolutionFailure => Reply5::HostUnreachable,
        Reason::ConnectionRefused => Reply5::ConnectionRefused,
        Reason::TimedOut => Reply5::TtlExpired,
        _ => Reply5::GeneralFailure,
    }
}

// The longest message fits in the input that a handler sees at once, even with the smallest blocks.
const _: () = assert!(proto::MESSAGE_BYTES_MAX <= Limits::BLOCK_BYTES_MIN / 2);
