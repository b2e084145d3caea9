//! Captures the packets that pass a device in a file in the format of tcpdump, which is searched afterwards.
//!
//! A thread reads a packet socket for as long as the capture runs. The packets that it missed are counted: a test that
//! asserts that something was never sent also asserts that none was missed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Host;

/// A running capture.
pub struct Capture {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Captured>>,
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Captured {
    pub file: PathBuf,
    pub packets: u64,
    /// The number of packets that passed and are not in the file.
    pub missed: u64,
}

/// The bytes that one end of a TCP connection sent, in order and without repetitions. After a gap, another stream
/// begins.
#[derive(Clone, Debug)]
pub struct Stream {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Begins a capture: every packet that passes after the return is in the file.
    #[track_caller]
    pub fn start(host: &Host, device: &str, file: PathBuf) -> Capture {
        let socket = host.inside(|| open(device));
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || record(socket, file, &told).expect("a capture"));
        Capture { is_over, thread: Some(thread) }
    }

    /// Ends the capture: every packet that passed before the call is in the file.
    #[track_caller]
    pub fn stop(mut self) -> Captured {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().expect("not stopped").join().expect("a capture")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Captured {
    /// Returns true if these bytes are in a packet, or in the stream of a TCP connection, however it was cut into
    /// packets.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let holds = |all: &[u8]| all.windows(bytes.len()).any(|window| window == bytes);
        self.each_packet().iter().any(|packet| holds(packet))
            || self.streams().iter().any(|stream| holds(&stream.bytes))
    }

    /// Returns the bytes that each end of each TCP connection sent; less than 4 GiB each.
    pub fn streams(&self) -> Vec<Stream> {
        let mut flows: HashMap<(SocketAddr, SocketAddr), Vec<Flow>> = HashMap::new();
        for packet in self.each_packet() {
            let Some(segment) = Segment::of(&packet) else { continue };
            let flows = flows.entry((segment.from, segment.to)).or_default();
            let is_new = |flow: &Flow| segment.is_syn && flow.first != segment.sequence;
            if flows.last().is_none_or(is_new) {
                flows.push(Flow { first: segment.sequence, pieces: BTreeMap::new() });
            }
            flows.last_mut().expect("at least one flow").put(&segment);
        }
        let streams = |((from, to), flows): ((SocketAddr, SocketAddr), Vec<Flow>)| {
            let runs: Vec<Vec<u8>> = flows.into_iter().flat_map(Flow::runs).collect();
            runs.into_iter().map(move |bytes| Stream { from, to, bytes })
        };
        flows.into_iter().flat_map(streams).collect()
    }

    /// Returns the IP packets in the file.
    pub fn each_packet(&self) -> Vec<Vec<u8>> {
        let all = std::fs::read(&self.file).expect("the file of the capture");
        let (mut packets, mut rest) = (Vec::new(), &all[FILE_HEADER.len() * 4..]);
        while let Some((header, behind)) = rest.split_at_checked(16) {
            let len = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let (packet, behind) = behind.split_at(len);
            packets.push(packet.to_vec());
            rest = behind;
        }
        packets
    }
}

/// Opens a packet socket on a device, with a receive buffer that is large enough for a thread that runs late.
fn open(device: &str) -> Socket {
    // Without a protocol, the socket receives nothing before it is bound, so nothing of other devices.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None).expect("a packet socket");
    let name = std::ffi::CString::new(device).expect("a name");
    // SAFETY: the string outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no device {device}");
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the storage is zeroed and larger than the address, all of whose fields are valid for any bits.
    let ((), addr) = unsafe {
        SockAddr::try_init(|storage, len| {
            let addr: *mut libc::sockaddr_ll = storage.cast();
            (*addr).sll_family = libc::AF_PACKET as u16;
            (*addr).sll_protocol = all;
            (*addr).sll_ifindex = index.cast_signed();
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("an address");
    let size: libc::c_int = ROOM;
    // SAFETY: the value is an integer that outlives the call, and its length is given.
    unsafe {
        let len = size_of_val(&size) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const size).cast(), len);
    }
    socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a socket");
    socket.bind(&addr).expect("bound to the device");
    socket
}

fn record(mut socket: Socket, path: PathBuf, is_over: &AtomicBool) -> std::io::Result<Captured> {
    let mut file = BufWriter::new(File::create(&path)?);
    for word in FILE_HEADER {
        file.write_all(&word.to_ne_bytes())?;
    }
    let (mut packets, mut buf) = (0, vec![0; PACKET_MAX]);
    loop {
        // Read first: packets that passed before the end of the capture are in the socket by then.
        let is_last = is_over.load(Ordering::Relaxed);
        match socket.read(&mut buf) {
            // Only IP, no ARP.
            Ok(got) if got > 0 && matches!(buf[0] >> 4, 4 | 6) => {
                packets += 1;
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                for word in [since.as_secs() as u32, since.subsec_micros(), got as u32, got as u32] {
                    file.write_all(&word.to_ne_bytes())?;
                }
                file.write_all(&buf[..got])?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && is_last => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) if is_last => break,
            Err(error) => return Err(error),
        }
    }
    file.flush()?;
    Ok(Captured { file: path, packets, missed: missed(&socket) })
}

/// Returns the number of packets that found no room in the socket.
fn missed(socket: &Socket) -> u64 {
    // struct tpacket_stats: packets, and drops.
    let mut stats = [0_u32; 2];
    let mut len = size_of_val(&stats) as libc::socklen_t;
    let (fd, to) = (socket.as_raw_fd(), (&raw mut stats).cast());
    // SAFETY: the array is as long as the kernel's record, and the length says so.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, to, &raw mut len) };
    assert_eq!(result, 0, "PACKET_STATISTICS: {}", std::io::Error::last_os_error());
    stats[1].into()
}

/// The fields of a TCP packet that matter here.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    is_syn: bool,
    payload: &'a [u8],
}

impl Segment<'_> {
    fn of(packet: &[u8]) -> Option<Segment<'_>> {
        let (from, to, protocol, header_len, total): (IpAddr, IpAddr, u8, usize, usize) = match packet.first()? >> 4 {
            4 => {
                let addr = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                (addr(12)?, addr(16)?, packet[9], usize::from(packet[0] & 15) * 4, be16(packet, 2)?)
            }
            _ => {
                let addr = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                (addr(8)?, addr(24)?, packet[6], 40, be16(packet, 4)? + 40)
            }
        };
        // A packet that is segmented further down may have no length in its header.
        let end = if total <= header_len { packet.len() } else { total.min(packet.len()) };
        let tcp = packet.get(header_len..end).filter(|_| protocol == libc::IPPROTO_TCP as u8)?;
        let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
        let sequence = u32::from_be_bytes(<[u8; 4]>::try_from(&tcp[4..8]).ok()?);
        let (from, to) = (SocketAddr::new(from, be16(tcp, 0)? as u16), SocketAddr::new(to, be16(tcp, 2)? as u16));
        Some(Segment { from, to, sequence, is_syn: tcp[13] & 2 != 0, payload })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
}

/// One direction of a TCP connection: its data by the offset from the first sequence number.
struct Flow {
    first: u32,
    pieces: BTreeMap<u32, Vec<u8>>,
}

impl Flow {
    fn put(&mut self, segment: &Segment) {
        let place = segment.sequence.wrapping_sub(self.first);
        let kept = self.pieces.get(&place).map_or(0, Vec::len);
        if segment.payload.len() > kept {
            self.pieces.insert(place.wrapping_add(segment.is_syn.into()), segment.payload.to_vec());
        }
    }

    /// Returns the pieces of data without a gap.
    fn runs(self) -> Vec<Vec<u8>> {
        let (mut runs, mut end): (Vec<Vec<u8>>, Option<u64>) = (Vec::new(), None);
        for (place, piece) in self.pieces {
            let (place, len) = (u64::from(place), piece.len() as u64);
            match (end, runs.last_mut()) {
                (Some(end), Some(run)) if place <= end => {
                    run.extend_from_slice(piece.get((end - place) as usize..).unwrap_or_default());
                }
                _ => runs.push(piece),
            }
            end = Some(end.unwrap_or(0).max(place + len));
        }
        runs
    }
}

/// The size of the socket's receive buffer, in bytes.
const ROOM: libc::c_int = 256 << 20;

/// The largest packet in bytes, before the device segments it.
const PACKET_MAX: usize = 256 << 10;

/// The header of a pcap file: magic, version 2.4, two words of no meaning, the longest packet, and raw IP.
const FILE_HEADER: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, PACKET_MAX as u32, 101];
