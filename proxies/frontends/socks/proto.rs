//! The messages of SOCKS4, SOCKS4a and SOCKS5, from the view of the server, as pure functions over bytes.
//!
//! Each `parse_*` function takes all bytes that were received and not consumed. It returns `Ok(None)` while the message is
//! incomplete, otherwise the message and the number of consumed bytes. Nothing is kept between calls, so any split of the
//! input gives the same results.
//!
//! A well-formed request that cannot be served, for example with an unknown address type or a malformed name, is parsed with
//! a [`BadTarget`] in it, because its client expects a reply code. A [`SocksError`] is returned for bytes that are not SOCKS:
//! such a client could read no reply.
//!
//! This file must never resolve a name, and never wait for more than [`MESSAGE_BYTES_MAX`] bytes.
//!
//! RFC 1928 defines SOCKS5, RFC 1929 its login. SOCKS4 and SOCKS4a are memos of the 1990s by Ying-Da Lee.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use seaprox::Target;

/// The longest message of any version: a SOCKS4a request with a user and a name of 255 bytes each.
pub const MESSAGE_BYTES_MAX: usize = REQUEST4_FIXED_BYTES + 2 * (TEXT_BYTES_MAX + 1);

/// The longest user id or name in SOCKS4, and the greatest value of a length byte in SOCKS5.
pub const TEXT_BYTES_MAX: usize = 255;

/// The protocol of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or SOCKS4a, which differ in the request only.
    Four,
    /// SOCKS5.
    Five,
}

/// The authentication methods that a SOCKS5 client offers (RFC 1928, section 3). Other methods are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// Method 0: no authentication.
    pub no_auth: bool,
    /// Method 2: user and password (RFC 1929).
    pub user_pass: bool,
}

/// The method that the server selects (RFC 1928, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// No authentication; the request follows.
    NoAuth = 0,
    /// User and password follow (RFC 1929).
    UserPass = 2,
    /// No acceptable method; the client must close.
    NoneAcceptable = 0xff,
}

/// A user and a password (RFC 1929, section 2), as bytes because the RFC defines no character set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// 0 to 255 bytes.
    pub user: &'a [u8],
    /// 0 to 255 bytes.
    pub password: &'a [u8],
}

/// The command of a request (RFC 1928, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: connect to the target.
    Connect,
    /// 2: listen for one connection from the target.
    Bind,
    /// 3: relay datagrams. SOCKS4 does not have it.
    UdpAssociate,
    /// An undefined command.
    Other(u8),
}

/// A SOCKS5 request (RFC 1928, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request5 {
    /// The command.
    pub command: Command,
    /// The target of the command.
    pub target: Result<Target, BadTarget>,
}

/// A SOCKS4 or SOCKS4a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request4<'a> {
    /// The command.
    pub command: Command,
    /// The target of the command.
    pub target: Result<Target, BadTarget>,
    /// The user id, 0 to 255 bytes. It proves nothing.
    pub user: &'a [u8],
}

/// The error of a target in a well-formed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// An address type that RFC 1928, section 5, does not define.
    AddressType,
    /// A name that is not a host name.
    Name,
    /// Port 0, to which nothing can be connected.
    Port,
}

/// The reply codes of SOCKS5 (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply5 {
    /// The request is granted.
    Succeeded = 0,
    /// A failure without a code of its own.
    GeneralFailure = 1,
    /// A rule forbids it.
    NotAllowed = 2,
    /// No route to the network.
    NetworkUnreachable = 3,
    /// The host cannot be reached, or its name does not resolve.
    HostUnreachable = 4,
    /// The host refuses connections to the port.
    ConnectionRefused = 5,
    /// The connection has timed out.
    TtlExpired = 6,
    /// BIND, UDP ASSOCIATE or an unknown command.
    CommandNotSupported = 7,
    /// An undefined address type.
    AddressTypeNotSupported = 8,
}

/// The reply codes of SOCKS4, without those about identd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply4 {
    /// The request is granted.
    Granted = 90,
    /// Rejected or failed.
    Rejected = 91,
}

/// The error of bytes that are not SOCKS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocksError {
    /// A message begins with the wrong version.
    Version(u8),
    /// A user id or a name in SOCKS4 does not end within 255 bytes.
    TooLong,
}

impl Version {
    /// Returns the version of a client from its first byte, or `None` if the byte is no version.
    pub fn detect(first: u8) -> Option<Version> {
        match first {
            SOCKS4 => Some(Version::Four),
            SOCKS5 => Some(Version::Five),
            _ => None,
        }
    }
}

impl Command {
    fn from_code(code: u8) -> Command {
        match code {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::UdpAssociate,
            other => Command::Other(other),
        }
    }
}

impl BadTarget {
    /// Returns the reply code for this error.
    pub fn reply5(self) -> Reply5 {
        match self {
            BadTarget::AddressType => Reply5::AddressTypeNotSupported,
            BadTarget::Name => Reply5::HostUnreachable,
            BadTarget::Port => Reply5::GeneralFailure,
        }
    }
}

/// Parses the first message of a SOCKS5 client (RFC 1928, section 3): version, count, methods.
pub fn parse_greeting5(bytes: &[u8]) -> Result<Option<(Methods, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(SOCKS5)?;
    let Some(methods) = reader.counted() else { return Ok(None) };
    let offers = |method: Method| methods.contains(&(method as u8));
    Ok(Some((Methods { no_auth: offers(Method::NoAuth), user_pass: offers(Method::UserPass) }, reader.consumed)))
}

/// Parses user and password (RFC 1929, section 2). Empty ones, which the RFC does not permit, are parsed and match no user.
pub fn parse_auth(bytes: &[u8]) -> Result<Option<(Auth<'_>, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(AUTH_VERSION)?;
    let (Some(user), Some(password)) = (reader.counted(), reader.counted()) else { return Ok(None) };
    Ok(Some((Auth { user, password }, reader.consumed)))
}

/// Parses a SOCKS5 request (RFC 1928, sections 4 and 5).
///
/// The length of an address of an undefined type is unknown. Such a request consumes all `bytes`; the caller must reply and
/// close. The reserved byte is ignored.
pub fn parse_request5(bytes: &[u8]) -> Result<Option<(Request5, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(SOCKS5)?;
    let Some([code, _reserved, address_type]) = reader.array() else { return Ok(None) };
    let command = Command::from_code(code);
    let Some(host) = Host::read(&mut reader, address_type) else {
        return Ok(None);
    };
    if host == Host::UnknownType {
        let request = Request5 { command, target: Err(BadTarget::AddressType) };
        return Ok(Some((request, bytes.len())));
    }
    let Some(port) = reader.array() else { return Ok(None) };
    let target = host.with_port(u16::from_be_bytes(port), command);
    Ok(Some((Request5 { command, target }, reader.consumed)))
}

/// Parses a SOCKS4 request: version, command, port, IPv4 address, user id, NUL. In SOCKS4a the address is 0.0.0.x, x not 0,
/// and a name and another NUL follow.
pub fn parse_request4(bytes: &[u8]) -> Result<Option<(Request4<'_>, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(SOCKS4)?;
    let Some([code]) = reader.array() else { return Ok(None) };
    let (Some(port), Some(ip)) = (reader.array(), reader.array()) else { return Ok(None) };
    let Some(user) = reader.terminated()? else { return Ok(None) };
    let host = match ip {
        [0, 0, 0, last] if last != 0 => match reader.terminated()? {
            Some(name) => Host::Name(name),
            None => return Ok(None),
        },
        ip => Host::V4(ip.into()),
    };
    let command = Command::from_code(code);
    let target = host.with_port(u16::from_be_bytes(port), command);
    Ok(Some((Request4 { command, target, user }, reader.consumed)))
}

/// Returns the host and port of a refused request for the log: UTF-8 as it is, other bytes escaped. Returns `None` for an
/// undefined address type.
pub fn asked(request: &[u8]) -> Option<String> {
    let mut reader = Reader::new(request);
    let [version] = reader.array()?;
    let (host, port) = if version == SOCKS4 {
        let ([_command], port, ip) = (reader.array()?, reader.array()?, reader.array()?);
        let _user = reader.terminated().ok()??;
        match ip {
            [0, 0, 0, last] if last != 0 => (Host::Name(reader.terminated().ok()??), port),
            ip => (Host::V4(ip.into()), port),
        }
    } else {
        let [_command, _reserved, address_type] = reader.array()?;
        (Host::read(&mut reader, address_type)?, reader.array()?)
    };
    let port = u16::from_be_bytes(port);
    match host {
        Host::V4(ip) => Some(format!("{ip}:{port}")),
        Host::V6(ip) => Some(format!("[{ip}]:{port}")),
        Host::Name(name) => Some(match std::str::from_utf8(name) {
            Ok(name) => format!("{name}:{port}"),
            Err(_) => format!("{}:{port}", name.escape_ascii()),
        }),
        Host::UnknownType => None,
    }
}

/// Returns the reply to a greeting (RFC 1928, section 3).
pub fn method_reply(method: Method) -> [u8; 2] {
    [SOCKS5, method as u8]
}

/// Returns the reply to user and password (RFC 1929, section 2). After a failure the connection must be closed.
pub fn auth_reply(ok: bool) -> [u8; 2] {
    [AUTH_VERSION, u8::from(!ok)]
}

/// Returns the reply to a SOCKS5 request (RFC 1928, section 6) and its length. `bound` is the local address of the new
/// connection; `None` is written as 0.0.0.0:0.
pub fn reply5(code: Reply5, bound: Option<SocketAddr>) -> ([u8; 22], usize) {
    let bound = bound.unwrap_or(UNSPECIFIED.into());
    let mut reply = [0; 22];
    let (address_type, len) = match bound {
        SocketAddr::V4(addr) => {
            reply[4..8].copy_from_slice(&addr.ip().octets());
            (ADDRESS_V4, 10)
        }
        SocketAddr::V6(addr) => {
            reply[4..20].copy_from_slice(&addr.ip().octets());
            (ADDRESS_V6, 22)
        }
    };
    reply[..4].copy_from_slice(&[SOCKS5, code as u8, 0, address_type]);
    reply[len - 2..len].copy_from_slice(&bound.port().to_be_bytes());
    (reply, len)
}

/// Returns the reply to a SOCKS4 request: 0, code, port, IPv4 address. `bound` is `None` for IPv6, too, which SOCKS4 cannot
/// express.
pub fn reply4(code: Reply4, bound: Option<SocketAddrV4>) -> [u8; 8] {
    let bound = bound.unwrap_or(UNSPECIFIED);
    let ([p, q], [a, b, c, d]) = (bound.port().to_be_bytes(), bound.ip().octets());
    [0, code as u8, p, q, a, b, c, d]
}

/// The host of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host<'a> {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(&'a [u8]),
    UnknownType,
}

impl<'a> Host<'a> {
    /// Parses a host (RFC 1928, section 5). Returns `None` while it is incomplete.
    fn read(reader: &mut Reader<'a>, address_type: u8) -> Option<Host<'a>> {
        match address_type {
            ADDRESS_V4 => reader.array::<4>().map(|octets| Host::V4(octets.into())),
            ADDRESS_V6 => reader.array::<16>().map(|octets| Host::V6(octets.into())),
            ADDRESS_NAME => reader.counted().map(Host::Name),
            _ => Some(Host::UnknownType),
        }
    }

    /// Returns the target. Port 0 is an error in CONNECT only: in UDP ASSOCIATE it means that the client does not know its
    /// port yet (RFC 1928, section 7).
    fn with_port(self, port: u16, command: Command) -> Result<Target, BadTarget> {
        let target = match self {
            Host::V4(ip) => Target::from(SocketAddr::from((ip, port))),
            Host::V6(ip) => Target::from(SocketAddr::from((ip, port))),
            // A client that does not know the address of its datagrams; some write an empty name instead of zeros.
            Host::Name(b"") if command == Command::UdpAssociate => {
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()
            }
            Host::Name(name) => {
                let name = str::from_utf8(name).map_err(|_| BadTarget::Name)?;
                Target::from_host(name, port).map_err(|_| BadTarget::Name)?
            }
            Host::UnknownType => return Err(BadTarget::AddressType),
        };
        if port == 0 && command == Command::Connect { Err(BadTarget::Port) } else { Ok(target) }
    }
}

/// Reads bytes from the front. The methods return `None` if there are not enough bytes.
struct Reader<'a> {
    rest: &'a [u8],
    consumed: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, consumed: 0 }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        self.consumed += count;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Reads the first byte of a message. A missing byte is no error.
    fn version(&mut self, expected: u8) -> Result<(), SocksError> {
        match self.array() {
            Some([version]) if version != expected => Err(SocksError::Version(version)),
            _ => Ok(()),
        }
    }

    /// Reads a length byte and this number of bytes.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let [count] = self.array()?;
        self.take(count.into())
    }

    /// Reads at most 255 bytes up to a NUL, which is consumed but not returned.
    fn terminated(&mut self) -> Result<Option<&'a [u8]>, SocksError> {
        match self.rest.iter().take(TEXT_BYTES_MAX + 1).position(|byte| *byte == 0) {
            Some(len) => Ok(self.take(len + 1).and_then(|taken| taken.get(..len))),
            None if self.rest.len() > TEXT_BYTES_MAX => Err(SocksError::TooLong),
            None => Ok(None),
        }
    }
}

/// Does not show the password.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth {{ user: {:?}, .. }}", self.user.escape_ascii().to_string())
    }
}

impl fmt::Display for SocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocksError::Version(version) => write!(f, "a SOCKS message begins with the wrong byte {version}"),
            SocksError::TooLong => write!(f, "a user id or name of more than {TEXT_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for SocksError {}

const SOCKS4: u8 = 4;
const SOCKS5: u8 = 5;
const AUTH_VERSION: u8 = 1;
const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;
const REQUEST4_FIXED_BYTES: usize = 8;
const UNSPECIFIED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

#[cfg(test)]
mod tests;
