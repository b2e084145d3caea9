//! A pair of nodes that only copies and seals: a connection between the nodes for each client, and on it records of up to
//! 16 KiB in the form of TLS 1.3, without a handshake.
//!
//! One call reads up to 16 records' bytes, each to its place, so that they are sealed where they lie and one call sends
//! them. What arrives is opened where it lies, and one call sends the pieces. There are no streams, no windows and no
//! acknowledgements.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{Connection, Turn, dial, unblocked};

/// The connection of a node whose socket `CARRIER` carries records: 1 at the client's end, 0 at the target's.
pub struct Sealed<const CARRIER: usize> {
    sockets: [TcpStream; 2],
    sealing: Sealing,
    opening: Opening,
    /// True for each socket whose end has been passed on.
    shut: [bool; 2],
}

impl<const CARRIER: usize> Connection for Sealed<CARRIER> {
    fn open(accepted: TcpStream, dest: SocketAddr) -> io::Result<Self> {
        let dialed = dial(dest, |socket| socket.set_tcp_nodelay(true))?;
        Ok(Sealed {
            sockets: [accepted, dialed],
            // The two directions of a connection share a key, and their nonces differ in the first byte.
            sealing: Sealing::new(CARRIER as u8)?,
            opening: Opening::new(1 - CARRIER as u8)?,
            shut: [false; 2],
        })
    }

    fn socket(&self, end: usize) -> &TcpStream {
        &self.sockets[end]
    }

    fn turn(&mut self, from: usize, ended: bool) -> io::Result<Turn> {
        if self.shut[from] {
            return Ok(Turn::Blocked);
        }
        let (source, dest) = (&self.sockets[from], &self.sockets[1 - from]);
        let mut next = Next::More;
        for _ in 0..CHUNKS_PER_TURN {
            next = match from == CARRIER {
                true => self.opening.chunk(source, dest)?,
                false => self.sealing.chunk(source, dest)?,
            };
            // A read that found fewer bytes than it could take has emptied the socket, but for its end.
            let at_end = next == Next::Blocked && ended && !self.waits_for_room(from);
            if next != Next::More && !at_end {
                break;
            }
            next = Next::More;
        }
        if next == Next::Ended {
            self.shut[from] = true;
            dest.shutdown(Shutdown::Write)?;
        }
        Ok(if next == Next::More { Turn::More } else { Turn::Blocked })
    }

    fn waits_for_room(&self, from: usize) -> bool {
        if from == CARRIER { !self.opening.opened.is_empty() } else { !self.sealing.unsent.is_empty() }
    }

    fn is_over(&self) -> bool {
        self.shut == [true; 2]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Blocked,
    More,
    Ended,
}

struct Cipher {
    key: LessSafeKey,
    direction: u8,
    records: u64,
}

impl Cipher {
    fn new(direction: u8) -> io::Result<Cipher> {
        let key = UnboundKey::new(&AES_128_GCM, &KEY).map_err(|_| io::Error::other("the key has a wrong length"))?;
        Ok(Cipher { key: LessSafeKey::new(key), direction, records: 0 })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[0] = self.direction;
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.records.to_be_bytes());
        self.records += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Plain bytes on their way to the carrier.
struct Sealing {
    cipher: Cipher,
    buf: Box<[u8]>,
    /// The sealed bytes that have not been sent.
    unsent: Range<usize>,
}

impl Sealing {
    fn new(direction: u8) -> io::Result<Sealing> {
        let buf = vec![0; RECORDS * RECORD_LEN].into_boxed_slice();
        Ok(Sealing { cipher: Cipher::new(direction)?, buf, unsent: 0..0 })
    }

    fn chunk(&mut self, mut source: &TcpStream, mut dest: &TcpStream) -> io::Result<Next> {
        let mut len = 0;
        if self.unsent.is_empty() {
            let mut slots = self.buf.chunks_exact_mut(RECORD_LEN);
            let mut slots: [IoSliceMut; RECORDS] = std::array::from_fn(|_| {
                let slot = slots.next().map_or(&mut [][..], |slot| &mut slot[HEADER_LEN..HEADER_LEN + PLAIN_LEN]);
                IoSliceMut::new(slot)
            });
            len = match unblocked(source.read_vectored(&mut slots))? {
                None => return Ok(Next::Blocked),
                Some(0) => return Ok(Next::Ended),
                Some(len) => len,
            };
            self.unsent = 0..self.seal(len)?;
        }
        self.unsent.start += unblocked(dest.write(&self.buf[self.unsent.clone()]))?.unwrap_or(0);
        // A read that did not fill all records has emptied the socket.
        let more = self.unsent.is_empty() && (len == 0 || len == RECORDS * PLAIN_LEN);
        Ok(if more { Next::More } else { Next::Blocked })
    }

    /// Seals `len` plain bytes in their places. Returns the length of the records.
    fn seal(&mut self, mut len: usize) -> io::Result<usize> {
        let mut end = 0;
        for slot in self.buf.chunks_exact_mut(RECORD_LEN) {
            if len == 0 {
                break;
            }
            let plain = len.min(PLAIN_LEN);
            let sealed = (plain + TAG_LEN) as u16;
            let (header, rest) = slot.split_at_mut(HEADER_LEN);
            header[..3].copy_from_slice(&[23, 3, 3]);
            header[3..].copy_from_slice(&sealed.to_be_bytes());
            let (body, after) = rest.split_at_mut(plain);
            let nonce = self.cipher.nonce();
            let tag = self.cipher.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
            let tag = tag.map_err(|_| io::Error::other("a record is too long"))?;
            after[..TAG_LEN].copy_from_slice(tag.as_ref());
            end += HEADER_LEN + plain + TAG_LEN;
            len -= plain;
        }
        Ok(end)
    }
}

/// Records on their way to the plain socket.
struct Opening {
    cipher: Cipher,
    buf: Box<[u8]>,
    /// The received bytes from the first record that has not been opened.
    sealed: Range<usize>,
    /// The opened bytes that have not been sent.
    opened: Vec<Range<usize>>,
}

impl Opening {
    fn new(direction: u8) -> io::Result<Opening> {
        let buf = vec![0; (RECORDS + 1) * RECORD_LEN].into_boxed_slice();
        Ok(Opening { cipher: Cipher::new(direction)?, buf, sealed: 0..0, opened: Vec::with_capacity(RECORDS) })
    }

    fn chunk(&mut self, mut source: &TcpStream, mut dest: &TcpStream) -> io::Result<Next> {
        let mut full = true;
        if self.opened.is_empty() {
            self.buf.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
            let room = &mut self.buf[self.sealed.end..];
            let len = match unblocked(source.read(room))? {
                None => return Ok(Next::Blocked),
                Some(0) => return Ok(Next::Ended),
                Some(len) => len,
            };
            full = len == room.len();
            self.sealed.end += len;
            self.open()?;
        }
        let pieces: Vec<IoSlice> = self.opened.iter().map(|piece| IoSlice::new(&self.buf[piece.clone()])).collect();
        if !pieces.is_empty() {
            let sent = unblocked(dest.write_vectored(&pieces))?.unwrap_or(0);
            drop(pieces);
            self.sent(sent);
        }
        Ok(if full && self.opened.is_empty() { Next::More } else { Next::Blocked })
    }

    /// Opens all records that are complete.
    fn open(&mut self) -> io::Result<()> {
        while self.sealed.len() >= HEADER_LEN {
            let start = self.sealed.start;
            let (header, rest) = self.buf[start..self.sealed.end].split_at_mut(HEADER_LEN);
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let Some(body) = rest.get_mut(..len) else { break };
            let nonce = self.cipher.nonce();
            let plain = self.cipher.key.open_in_place(nonce, Aad::from(&*header), body);
            let plain = plain.map_err(|_| io::Error::other("a record is forged"))?.len();
            self.opened.push(start + HEADER_LEN..start + HEADER_LEN + plain);
            self.sealed.start += HEADER_LEN + len;
        }
        Ok(())
    }

    fn sent(&mut self, mut len: usize) {
        self.opened.retain_mut(|piece| {
            let gone = len.min(piece.len());
            len -= gone;
            piece.start += gone;
            piece.start < piece.end
        });
    }
}

/// The key protects nothing: the nodes live only during a run, and send what the bench makes up.
const KEY: [u8; 16] = [7; 16];
const PLAIN_LEN: usize = 16 * 1024;
const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
const RECORD_LEN: usize = HEADER_LEN + PLAIN_LEN + TAG_LEN;
/// Records in a call.
const RECORDS: usize = 16;
const CHUNKS_PER_TURN: usize = 4;
