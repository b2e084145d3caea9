//! A bare pair of quinn-proto: one connection of QUIC with one stream, and nothing beside it. It shows what the protocol and
//! its packets cost by themselves, with the library, the ciphers, the length of datagrams and the sockets of links.
//!
//! The two ends are this program in two processes of their own, as the nodes of links are. In the bare pair the near end sends
//! one chunk again and again, and the far one drops what arrives, and writes its number of bytes into a file. In the bare relay
//! the bytes come from a connection of TCP and go to another one, as those of a link do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use bytes::{Buf, Bytes, BytesMut};
use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    ServerConfig, StreamId, Transmit, TransportConfig, VarInt, WriteError,
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use crate::figures::{Figures, Meter};
use crate::kit::program::Program;
use crate::kit::{Scratch, until};
use crate::net_kit::{Host, Net, own_ip};
use crate::ways::{Carried, Failure};

/// Measures a pair over a network.
pub fn measure(net: &Net, time: Duration) -> Figures {
    let scratch = Scratch::new();
    let count = scratch.write("count", "12345678");
    let addr = SocketAddr::from((own_ip(1), PORT));
    let far = start(net.far(), "far", addr, &count);
    let near = start(net.near(), "near", addr, &count);
    let file = File::open(&count).expect("a file");
    let arrived = || {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).expect("a count");
        u64::from_le_bytes(bytes)
    };
    until("bytes arrive", || (1..u64::from_le_bytes(*b"12345678")).contains(&arrived()));
    let meter = Meter::start(&[near.0.id(), far.0.id()], arrived);
    thread::sleep(time);
    meter.figures(arrived(), Vec::new())
}

/// Starts a relay over a network: one connection, from the near host to the far one.
pub fn relay(net: &Net) -> Result<Carried, Failure> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let [near, far] = [net.near(), net.far()].map(|host| host.inside(bind));
    let addr = SocketAddr::from((own_ip(1), PORT));
    let local = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    let ends =
        [start(net.far(), "relay-far", addr, &local(&far)), start(net.near(), "relay-near", addr, &local(&near))];
    let pids = ends.iter().map(|end| end.0.id()).collect();
    let accept = |listener: &TcpListener| listener.accept().expect("a connection").0;
    let pair = RefCell::new(Some((accept(&near), accept(&far))));
    let connect = Box::new(move || pair.take().expect("the only connection"));
    Ok(Carried { pids, connect, has_echoes: false, _held: Box::new(ends) })
}

fn start(host: &Host, end: &str, addr: SocketAddr, other: &str) -> Program {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args([ARGUMENT, end, &addr.to_string(), other]).stdin(Stdio::null());
    host.enter(&mut command);
    Program(command.spawn().expect("this program"))
}

/// Runs one end of a pair if this process is one.
pub fn run_end() -> bool {
    let words: Vec<String> = env::args().skip(1).collect();
    let [first, end, addr, other] = words.as_slice() else { return false };
    if first != ARGUMENT {
        return false;
    }
    let addr = addr.parse().expect("an address");
    let near = || End::new(SocketAddr::from(([0; 4], 0)), None);
    let far = || End::new(addr, Some(server()));
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    match end.as_str() {
        "far" => far().receive(Counter::new(File::options().write(true).open(other).expect("a file"))),
        "near" => near().send(addr, || Some(chunk.clone())),
        "relay-far" => {
            let mut end = far();
            let to = Outlet { socket: end.connect_local(other), chunks: VecDeque::new() };
            end.receive(to)
        }
        _ => {
            let mut end = near();
            let mut from = end.connect_local(other);
            end.send(addr, move || read(&mut from))
        }
    }
    .expect("an end of the pair");
    true
}

/// Reads a chunk of a connection, if there is one now.
fn read(from: &mut TcpStream) -> Option<Bytes> {
    let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
    match from.read(&mut chunk) {
        Ok(0) => std::process::exit(0),
        Ok(got) => {
            chunk.truncate(got);
            Some(chunk.freeze())
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// The taker of the bytes that arrive at the far end.
trait Sink {
    /// Returns true if it takes more.
    fn has_room(&self) -> bool;
    fn take(&mut self, chunk: Bytes);
    /// Passes on what it has taken.
    fn flush(&mut self);
}

/// Counts bytes, and writes their number into a file.
struct Counter {
    file: File,
    total: u64,
    told: Instant,
}

impl Counter {
    fn new(file: File) -> Counter {
        Counter { file, total: 0, told: Instant::now() }
    }
}

impl Sink for Counter {
    fn has_room(&self) -> bool {
        true
    }

    fn take(&mut self, chunk: Bytes) {
        self.total += chunk.len() as u64;
    }

    fn flush(&mut self) {
        if self.told.elapsed() > Duration::from_millis(10) {
            self.told = Instant::now();
            self.file.write_all_at(&u64::to_le_bytes(self.total), 0).expect("a file");
        }
    }
}

/// Writes bytes to a connection.
struct Outlet {
    socket: TcpStream,
    chunks: VecDeque<Bytes>,
}

impl Sink for Outlet {
    fn has_room(&self) -> bool {
        self.chunks.len() < CHUNKS_MAX
    }

    fn take(&mut self, chunk: Bytes) {
        self.chunks.push_back(chunk);
    }

    fn flush(&mut self) {
        while !self.chunks.is_empty() {
            let slices: Vec<IoSlice<'_>> = self.chunks.iter().take(SLICES).map(|chunk| IoSlice::new(chunk)).collect();
            let mut written = match self.socket.write_vectored(&slices) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => std::process::exit(0),
            };
            while let Some(first) = self.chunks.front_mut().filter(|_| written > 0) {
                let step = first.len().min(written);
                first.advance(step);
                written -= step;
                if first.is_empty() {
                    self.chunks.pop_front();
                }
            }
        }
    }
}

struct End {
    poll: Poll,
    socket: UdpSocket,
    state: UdpSocketState,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    buffers: Vec<u8>,
    out: Vec<u8>,
    kept: Option<Transmit>,
}

impl End {
    fn new(addr: SocketAddr, server: Option<ServerConfig>) -> End {
        let mut socket = UdpSocket::bind(addr).expect("a socket");
        let poll = Poll::new().expect("a poll");
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(0), both).expect("a socket in the poll");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a socket");
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), server.map(Arc::new), true, None);
        let buffers = vec![0; BATCH_SIZE * BUFFER_BYTES];
        End { poll, socket, state, endpoint, connection: None, buffers, out: Vec::new(), kept: None }
    }

    /// Connects to a port of this host.
    fn connect_local(&mut self, addr: &str) -> TcpStream {
        let socket = std::net::TcpStream::connect(addr).expect("a connection");
        socket.set_nonblocking(true).expect("a socket");
        let mut socket = TcpStream::from_std(socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(1), both).expect("a socket in the poll");
        socket
    }

    /// Sends the chunks that `next` returns.
    fn send(mut self, to: SocketAddr, mut next: impl FnMut() -> Option<Bytes>) -> io::Result<()> {
        let made = self.endpoint.connect(Instant::now(), client(), to, "bare").map_err(io::Error::other)?;
        self.connection = Some(made);
        let mut chunk = [Bytes::new()];
        let mut stream: Option<StreamId> = None;
        self.turns(|connection| {
            if stream.is_none() && !connection.is_handshaking() {
                stream = connection.streams().open(Dir::Uni);
            }
            let Some(stream) = stream else { return };
            loop {
                if chunk[0].is_empty() {
                    let Some(next) = next() else { return };
                    chunk = [next];
                }
                match connection.send_stream(stream).write_chunks(&mut chunk) {
                    Ok(_) => {}
                    Err(WriteError::Blocked) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    fn receive(mut self, mut sink: impl Sink) -> io::Result<()> {
        let mut stream = None;
        self.turns(|connection| {
            stream = stream.or_else(|| connection.streams().accept(Dir::Uni));
            let Some(stream) = stream else { return };
            let mut incoming = connection.recv_stream(stream);
            let Ok(mut chunks) = incoming.read(true) else { return };
            while sink.has_room() {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => sink.take(chunk.bytes),
                    Ok(None) | Err(ReadError::Blocked) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let _ = chunks.finalize();
            sink.flush();
        })
    }

    /// Runs turns without end: takes what has arrived, does `work`, and sends.
    fn turns(&mut self, mut work: impl FnMut(&mut Connection)) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        loop {
            let is_drained = self.take_in()?;
            let now = Instant::now();
            let mut timeout = None;
            if let Some((handle, connection)) = &mut self.connection {
                if connection.poll_timeout().is_some_and(|at| at <= now) {
                    connection.handle_timeout(now);
                }
                while let Some(event) = connection.poll_endpoint_events() {
                    if let Some(event) = self.endpoint.handle_event(*handle, event) {
                        connection.handle_event(event);
                    }
                }
                while let Some(event) = connection.poll() {
                    if let Event::ConnectionLost { reason } = event {
                        return Err(io::Error::other(reason));
                    }
                }
                work(connection);
                self.transmit(now)?;
                timeout = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
            }
            if is_drained {
                let wait = timeout.map(|at| at.saturating_duration_since(Instant::now()));
                self.poll.poll(&mut events, wait)?;
            }
        }
    }

    /// Takes one batch of datagrams in. Returns true if there are no more.
    fn take_in(&mut self) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut chunks = self.buffers.chunks_mut(BUFFER_BYTES);
        let mut slices: [io::IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| io::IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        for (meta, buffer) in metas.iter().zip(self.buffers.chunks(BUFFER_BYTES)).take(count) {
            let mut rest = BytesMut::from(&buffer[..meta.len]);
            while !rest.is_empty() {
                let datagram = rest.split_to(meta.stride.min(rest.len()));
                self.out.clear();
                let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
                match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut self.out) {
                    Some(DatagramEvent::ConnectionEvent(_, event)) => {
                        if let Some((_, connection)) = &mut self.connection {
                            connection.handle_event(event);
                        }
                    }
                    Some(DatagramEvent::NewConnection(incoming)) => {
                        let accepted = self.endpoint.accept(incoming, now, &mut self.out, None);
                        self.connection = accepted.ok();
                    }
                    Some(DatagramEvent::Response(_)) | None => {}
                }
            }
        }
        Ok(false)
    }

    fn transmit(&mut self, now: Instant) -> io::Result<()> {
        let Some((_, connection)) = &mut self.connection else { return Ok(()) };
        loop {
            let transmit = match self.kept.take() {
                Some(kept) => kept,
                None => {
                    self.out.clear();
                    match connection.poll_transmit(now, SEGMENTS, &mut self.out) {
                        Some(transmit) => transmit,
                        None => return Ok(()),
                    }
                }
            };
            let datagrams = quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: &self.out[..transmit.size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            };
            match self.state.try_send(UdpSockRef::from(&self.socket), &datagrams) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.kept = Some(transmit);
                    return Ok(());
                }
                // A datagram that does not leave is lost, and is sent again.
                _ => {}
            }
        }
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(SEND_BYTES)
        .send_fairness(false)
        .max_idle_timeout(None);
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

fn client() -> ClientConfig {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("a cipher for QUIC")));
    config.transport_config(transport());
    config
}

fn server() -> ServerConfig {
    let der = [&PKCS8_PREFIX[..], &[7; 32]].concat();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).expect("a key");
    let certified = CertifiedKey::new(vec![CertificateDer::from(vec![0; 32])], key);
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Same(Arc::new(certified))));
    let mut config =
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).expect("a cipher for QUIC")));
    config.transport_config(transport());
    config
}

/// Has one certificate for all clients.
#[derive(Debug)]
struct Same(Arc<CertifiedKey>);

impl ResolvesServerCert for Same {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Trusts every server: the pair is alone in its network.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::HandshakeNotComplete)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

const ARGUMENT: &str = "--bare-end";
const PORT: u16 = 4_433;
const SOCKET_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 64 << 10;
const SEGMENTS: usize = 44;
const WINDOW_BYTES: u32 = 32 << 20;
const SEND_BYTES: u64 = 2 << 20;
/// Chunks that wait for a connection, and those of one write.
const CHUNKS_MAX: usize = 1_024;
const SLICES: usize = 256;
/// The bytes before the seed in an ed25519 PrivateKeyInfo (PKCS #8, version 1).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
