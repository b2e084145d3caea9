//! The bodies of OPEN, LISTEN and their results: targets, addresses and options.
//!
//! ```text
//! OPEN, LISTEN:  kind u8 | flags u8 | port u16 | listener u32 | host | options (type u8, len u8, value) ...
//! ..._RESULT:    code u16 (0 = ok) | errno u16 | port u16 | host | text
//! host:          0 | 1 + 4 bytes (IPv4) | 4 + 16 bytes (IPv6) | 3 + len u8 + name
//! options:       1 weight u8 | 3 timeout u32 (ms) | 4 source, a text | 5 client: host | port u16 | host | port u16
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::code::Code;
use super::cursor::{Put, Reader, clipped};
use super::header::FrameError;

/// Maximum length in bytes of a host name and of an option.
pub const NAME_BYTES_MAX: usize = 255;
/// Maximum length in bytes of the text of a result; longer texts are truncated.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The kind of traffic of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A byte stream to a TCP target.
    #[default]
    Tcp,
    /// Datagrams to a UDP target. The byte stream is unused.
    Udp,
    /// A byte stream to the peer itself.
    Internal,
}

impl Kind {
    /// Returns true if a stream of this kind carries datagrams.
    pub(in crate::link) fn has_datagrams(self) -> bool {
        self == Kind::Udp
    }
}

/// A host: an address, a name that the peer resolves, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// No address.
    #[default]
    None,
    /// An IPv4 or IPv6 address.
    Addr(IpAddr),
    /// A name of at most [`NAME_BYTES_MAX`] bytes.
    Name(String),
}

/// A request to connect (OPEN), or to listen and forward the connections (LISTEN).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// The kind of traffic.
    pub kind: Kind,
    /// The receiver's listener that accepted the connection, or 0.
    pub listener: u32,
    /// The host to connect to, or to listen on.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Weight of the stream in scheduling; 0 means 1.
    pub weight: u8,
    /// Timeout of the connect in milliseconds; 0 leaves it to the peer.
    pub timeout_ms: u32,
    /// A description of the client, at most [`NAME_BYTES_MAX`] bytes.
    pub source: String,
    /// The addresses of the client, if it has any. The receiver decides if it believes them.
    pub client: Option<ClientAddrs>,
}

/// The addresses of the client of a stream, as the PROXY protocol has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddrs {
    /// The address of the client.
    pub client: SocketAddr,
    /// The address that the client has connected to.
    pub local: SocketAddr,
}

/// The result of an OPEN or a LISTEN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The reason of a failure; none after success.
    pub failure: Option<Code>,
    /// The error number of the system that belongs to the failure, or 0.
    pub errno: u16,
    /// The bound address.
    pub host: Host,
    /// The bound port.
    pub port: u16,
    /// A description of the failure, at most [`TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

const OPTION_WEIGHT: u8 = 1;
const OPTION_TIMEOUT: u8 = 3;
const OPTION_SOURCE: u8 = 4;
const OPTION_CLIENT: u8 = 5;

/// Formats the target for logs and messages.
impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Udp {
            f.write_str("udp:")?;
        }
        match &self.host {
            Host::Addr(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) if self.kind == Kind::Internal => f.write_str(name),
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::None => write!(f, "listener {}", self.listener),
        }
    }
}

impl Open {
    /// Returns a request for a TCP connection to a host name.
    pub fn name(name: &str, port: u16) -> Open {
        Open { host: Host::Name(name.to_owned()), port, ..Open::default() }
    }

    /// Returns true if every field fits its place on the wire.
    pub fn is_valid(&self) -> bool {
        self.host.is_valid() && self.source.len() <= NAME_BYTES_MAX
    }

    pub(in crate::link) fn decode(r: &mut Reader<'_>) -> Result<Open, FrameError> {
        let kind = match r.u8()? {
            0 => Kind::Tcp,
            1 => Kind::Udp,
            2 => Kind::Internal,
            _ => return Err(FrameError::Value),
        };
        let _flags = r.u8()?;
        let (port, listener, host) = (r.u16()?, r.u32()?, Host::decode(r)?);
        let mut open = Open { kind, listener, host, port, ..Open::default() };
        while !r.is_empty() {
            open.decode_option(r)?;
        }
        Ok(open)
    }

    /// Decodes one option. Unknown options are skipped.
    fn decode_option(&mut self, r: &mut Reader<'_>) -> Result<(), FrameError> {
        let (option, len) = (r.u8()?, r.u8()?);
        let value = r.take(usize::from(len))?;
        let mut v = Reader::new(value);
        match option {
            OPTION_WEIGHT => self.weight = v.u8()?,
            OPTION_TIMEOUT => self.timeout_ms = v.u32()?,
            OPTION_SOURCE => utf8(v.rest())?.clone_into(&mut self.source),
            OPTION_CLIENT => self.client = Some(ClientAddrs::decode(&mut v)?),
            _ => return Ok(()),
        }
        v.end()
    }

    pub(in crate::link) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind as u8);
        out.put_u8(0);
        out.put_u16(self.port);
        out.put_u32(self.listener);
        self.host.encode(out);
        if self.weight != 0 {
            out.put(&[OPTION_WEIGHT, 1, self.weight]);
        }
        if self.timeout_ms != 0 {
            out.put(&[OPTION_TIMEOUT, 4]);
            out.put_u32(self.timeout_ms);
        }
        if !self.source.is_empty() {
            out.put_u8(OPTION_SOURCE);
            put_short(out, &self.source);
        }
        if let Some(addrs) = &self.client {
            addrs.encode(out);
        }
    }
}

impl ClientAddrs {
    fn decode(r: &mut Reader<'_>) -> Result<ClientAddrs, FrameError> {
        let mut addr = || match (Host::decode(r)?, r.u16()?) {
            (Host::Addr(ip), port) => Ok(SocketAddr::new(ip, port)),
            _ => Err(FrameError::Value),
        };
        Ok(ClientAddrs { client: addr()?, local: addr()? })
    }

    /// Writes the option with its type and its length.
    fn encode(&self, out: &mut Vec<u8>) {
        let bytes = |addr: SocketAddr| if addr.is_ipv4() { 7 } else { 19 };
        out.put(&[OPTION_CLIENT, bytes(self.client) + bytes(self.local)]);
        for addr in [self.client, self.local] {
            Host::Addr(addr.ip()).encode(out);
            out.put_u16(addr.port());
        }
    }
}

impl Bound {
    /// Returns the result of a refusal.
    pub fn refused(code: Code) -> Bound {
        Bound { failure: Some(code), ..Bound::default() }
    }

    pub(in crate::link) fn decode(r: &mut Reader<'_>) -> Result<Bound, FrameError> {
        let failure = match r.u16()? {
            0 => None,
            number => Some(Code::from_wire(number)),
        };
        let (errno, port, host) = (r.u16()?, r.u16()?, Host::decode(r)?);
        Ok(Bound { failure, errno, host, port, text: utf8(r.rest())?.to_owned() })
    }

    pub(in crate::link) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.failure.map_or(0, Code::to_wire));
        out.put_u16(self.errno);
        out.put_u16(self.port);
        self.host.encode(out);
        out.put(clipped(&self.text, TEXT_BYTES_MAX).as_bytes());
    }
}

impl Host {
    fn is_valid(&self) -> bool {
        match self {
            Host::Name(name) => name.len() <= NAME_BYTES_MAX,
            Host::None | Host::Addr(_) => true,
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Host, FrameError> {
        Ok(match r.u8()? {
            0 => Host::None,
            1 => Host::Addr(IpAddr::from(r.array::<4>()?)),
            4 => Host::Addr(IpAddr::from(r.array::<16>()?)),
            3 => {
                let len = usize::from(r.u8()?);
                Host::Name(utf8(r.take(len)?)?.to_owned())
            }
            _ => return Err(FrameError::Value),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Host::None => out.put_u8(0),
            Host::Addr(IpAddr::V4(addr)) => {
                out.put_u8(1);
                out.put(&addr.octets());
            }
            Host::Addr(IpAddr::V6(addr)) => {
                out.put_u8(4);
                out.put(&addr.octets());
            }
            Host::Name(name) => {
                out.put_u8(3);
                put_short(out, name);
            }
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, FrameError> {
    str::from_utf8(bytes).map_err(|_| FrameError::Value)
}

/// Writes a text after its length in one byte, truncated to 255 bytes.
fn put_short(out: &mut Vec<u8>, text: &str) {
    let text = clipped(text, NAME_BYTES_MAX);
    out.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.put(text.as_bytes());
}
