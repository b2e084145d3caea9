//! The server's side of SOCKS4, SOCKS4a and SOCKS5, as pure functions over bytes.
//!
//! Each `parse_*` function is given all that was received and not yet consumed. It answers `Ok(None)` while the message
//! is not whole, and otherwise the message and how many bytes it took; what lies behind belongs to whatever comes next.
//! Nothing is kept between calls, so any split of the input gives the same answers.
//!
//! A request that is well formed but cannot be served (a type of address that nobody knows, a name that is none) is a
//! parsed request with a [`BadTarget`] in it, because the client is owed its own reply code. A [`SocksError`] is for
//! bytes that are not SOCKS: there is no reply that such a client could read.
//!
//! This file owns no socket and no state. It must never look a name up, and never wait for more than
//! [`MESSAGE_BYTES_MAX`] bytes.
//!
//! RFC 1928 is SOCKS5, RFC 1929 its user and password. SOCKS4 and SOCKS4a are memos of the 1990s by Ying-Da Lee.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use seaprox::Target;

/// The longest message of any version: a SOCKS4a request with a user and a name of 255 bytes each.
pub const MESSAGE_BYTES_MAX: usize = REQUEST4_FIXED_BYTES + 2 * (TEXT_BYTES_MAX + 1);

/// The longest user id or name in SOCKS4, and what one length byte can say in SOCKS5.
pub const TEXT_BYTES_MAX: usize = 255;

/// Which protocol the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// SOCKS4 or SOCKS4a; only the request tells which.
    Four,
    /// SOCKS5.
    Five,
}

/// What a SOCKS5 client says that it can do about authentication (RFC 1928, section 3). Other methods are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    /// Method 0: none.
    pub no_auth: bool,
    /// Method 2: user and password (RFC 1929).
    pub user_pass: bool,
}

/// The method that the server picks (RFC 1928, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// The request follows at once.
    NoAuth = 0,
    /// User and password follow (RFC 1929).
    UserPass = 2,
    /// None of the methods will do; the client has to close.
    NoneAcceptable = 0xff,
}

/// A user and a password (RFC 1929, section 2), as raw bytes: the RFC names no character set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// 0 to 255 bytes.
    pub user: &'a [u8],
    /// 0 to 255 bytes.
    pub password: &'a [u8],
}

/// What the client wants done (RFC 1928, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: connect to the target.
    Connect,
    /// 2: listen for one connection from the target.
    Bind,
    /// 3: relay datagrams. SOCKS4 does not have it.
    UdpAssociate,
    /// Anything else.
    Other(u8),
}

/// A SOCKS5 request (RFC 1928, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request5 {
    /// What to do.
    pub command: Command,
    /// With or to whom.
    pub target: Result<Target, BadTarget>,
}

/// A SOCKS4 or SOCKS4a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request4<'a> {
    /// What to do.
    pub command: Command,
    /// With or to whom.
    pub target: Result<Target, BadTarget>,
    /// Who the client claims to be: 0 to 255 bytes that prove nothing.
    pub user: &'a [u8],
}

/// Why a target in a well-formed request is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// A type of address that RFC 1928, section 5, does not define.
    AddressType,
    /// A name that no resolver could be asked for.
    Name,
    /// Port 0, to which nothing can be connected.
    Port,
}

/// The reply codes of SOCKS5 (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply5 {
    /// It is done.
    Succeeded = 0,
    /// Anything that has no code of its own.
    GeneralFailure = 1,
    /// A rule forbids it.
    NotAllowed = 2,
    /// No route to the network.
    NetworkUnreachable = 3,
    /// The host is not there, or its name does not resolve.
    HostUnreachable = 4,
    /// Nothing listens there.
    ConnectionRefused = 5,
    /// It took too long.
    TtlExpired = 6,
    /// BIND, UDP ASSOCIATE or an unknown command.
    CommandNotSupported = 7,
    /// A type of address that is not defined.
    AddressTypeNotSupported = 8,
}

/// The reply codes of SOCKS4 that do not speak of identd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply4 {
    /// It is done.
    Granted = 90,
    /// Rejected or failed.
    Rejected = 91,
}

/// Bytes that are not SOCKS. The connection is closed, after a reply if they are a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocksError {
    /// A message begins with a version that does not belong there.
    Version(u8),
    /// A user id or a name in SOCKS4 does not end within 255 bytes.
    TooLong,
}

impl Version {
    /// The version that the client's first byte announces, if any.
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
    /// The code to answer with.
    pub fn reply5(self) -> Reply5 {
        match self {
            BadTarget::AddressType => Reply5::AddressTypeNotSupported,
            BadTarget::Name => Reply5::HostUnreachable,
            BadTarget::Port => Reply5::GeneralFailure,
        }
    }
}

/// The client's first message (RFC 1928, section 3): version, count, that many methods.
pub fn parse_greeting5(bytes: &[u8]) -> Result<Option<(Methods, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(SOCKS5)?;
    let Some(methods) = reader.counted() else { return Ok(None) };
    let offers = |method: Method| methods.contains(&(method as u8));
    Ok(Some((Methods { no_auth: offers(Method::NoAuth), user_pass: offers(Method::UserPass) }, reader.consumed)))
}

/// User and password (RFC 1929, section 2). Empty ones, which the RFC rules out, are parsed: they match nobody.
pub fn parse_auth(bytes: &[u8]) -> Result<Option<(Auth<'_>, usize)>, SocksError> {
    let mut reader = Reader::new(bytes);
    reader.version(AUTH_VERSION)?;
    let (Some(user), Some(password)) = (reader.counted(), reader.counted()) else { return Ok(None) };
    Ok(Some((Auth { user, password }, reader.consumed)))
}

/// A SOCKS5 request (RFC 1928, sections 4 and 5).
///
/// Nobody knows how long an address of an undefined type is: such a request takes all of `bytes`, and can only be
/// answered and closed. The reserved byte is not looked at, since nothing depends on it.
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

/// A SOCKS4 request: version, command, port, IPv4 address, user id, NUL. In SOCKS4a the address is 0.0.0.x, x not 0,
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

/// The host and the port that a request names, which cannot be used, for the log: as text where it is UTF-8, else with
/// escapes. A host of an undefined type has none.
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

/// The answer to a greeting (RFC 1928, section 3).
pub fn method_reply(method: Method) -> [u8; 2] {
    [SOCKS5, method as u8]
}

/// The answer to user and password (RFC 1929, section 2). After a failure the connection must be closed.
pub fn auth_reply(ok: bool) -> [u8; 2] {
    [AUTH_VERSION, u8::from(!ok)]
}

/// The answer to a SOCKS5 request (RFC 1928, section 6): the bytes, and how many of them are to be sent.
/// `bound` is the address of our own end of the new connection; without one it is 0.0.0.0:0.
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

/// The answer to a SOCKS4 request: 0, code, port, IPv4 address. SOCKS4 cannot say an IPv6 address: `None` is for those
/// too.
pub fn reply4(code: Reply4, bound: Option<SocketAddrV4>) -> [u8; 8] {
    let bound = bound.unwrap_or(UNSPECIFIED);
    let ([p, q], [a, b, c, d]) = (bound.port().to_be_bytes(), bound.ip().octets());
    [0, code as u8, p, q, a, b, c, d]
}

/// The host of a request, before its port is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host<'a> {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(&'a [u8]),
    UnknownType,
}

impl<'a> Host<'a> {
    /// RFC 1928, section 5. `None` while the address is not whole.
    fn read(reader: &mut Reader<'a>, address_type: u8) -> Option<Host<'a>> {
        match address_type {
            ADDRESS_V4 => reader.array::<4>().map(|octets| Host::V4(octets.into())),
            ADDRESS_V6 => reader.array::<16>().map(|octets| Host::V6(octets.into())),
            ADDRESS_NAME => reader.counted().map(Host::Name),
            _ => Some(Host::UnknownType),
        }
    }

    /// Port 0 is refused only where it would be connected to; a client may say it in BIND and UDP ASSOCIATE
    /// (RFC 1928, section 7, asks for zeros when the client does not know its port yet).
    fn with_port(self, port: u16, command: Command) -> Result<Target, BadTarget> {
        let target = match self {
            Host::V4(ip) => Target::Ip((ip, port).into()),
            Host::V6(ip) => Target::Ip((ip, port).into()),
            Host::Name(name) => {
                let name = str::from_utf8(name).map_err(|_| BadTarget::Name)?;
                Target::from_host(name, port).map_err(|_| BadTarget::Name)?
            }
            Host::UnknownType => return Err(BadTarget::AddressType),
        };
        if port == 0 && command == Command::Connect { Err(BadTarget::Port) } else { Ok(target) }
    }
}

/// Takes bytes off the front. Each method answers `None` when there are not enough.
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

    /// The first byte of a message. One that has not come yet is no error.
    fn version(&mut self, expected: u8) -> Result<(), SocksError> {
        match self.array() {
            Some([version]) if version != expected => Err(SocksError::Version(version)),
            _ => Ok(()),
        }
    }

    /// One byte of length and that many bytes.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let [count] = self.array()?;
        self.take(count.into())
    }

    /// At most 255 bytes and a NUL, which is taken but not part of the answer.
    fn terminated(&mut self) -> Result<Option<&'a [u8]>, SocksError> {
        match self.rest.iter().take(TEXT_BYTES_MAX + 1).position(|byte| *byte == 0) {
            Some(len) => Ok(self.take(len + 1).and_then(|taken| taken.get(..len))),
            None if self.rest.len() > TEXT_BYTES_MAX => Err(SocksError::TooLong),
            None => Ok(None),
        }
    }
}

/// Says nothing of the password.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth {{ user: {:?}, .. }}", self.user.escape_ascii().to_string())
    }
}

impl fmt::Display for SocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocksError::Version(version) => write!(f, "a message of SOCKS does not begin with byte {version} here"),
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
