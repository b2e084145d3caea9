//! Properties of the records of TLS.
//!
//! The bytes are a script: which records a peer seals, what is altered on the way, and how the reads split the wire. The peer
//! here seals by itself, with the cipher alone.

use bytes::{Bytes, BytesMut};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::tls::records::slots::Slots;
use super::tls::records::{ALERT, Aead, DATA, Fault, HANDSHAKE, KeySchedule, Opener};

/// Checks the reader of records: the split of the reads makes no difference, everything that it hands out was sealed, in this
/// order and from the start, nothing is missing unless something was altered or out of place, and no piece holds more than twice
/// its length.
pub fn records(script: &[u8]) {
    let (head, script) = script.split_at(script.len().min(3));
    let [options, high, low] = [0, 1, 2].map(|at| head.get(at).copied().unwrap_or_default());
    let is_client = options & 1 == 0;
    let step = 1 + usize::from(u16::from_be_bytes([high, low])) % 40_000;
    let sent = Sent::of(script);
    let by_step = read(&sent.wire, is_client, |_| step);
    let by_record = read(&sent.wire, is_client, |wire| match wire {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => wire.len(),
    });
    assert_eq!(by_step, by_record, "the split of the reads makes a difference");
    let (data, end) = by_step;
    assert!(sent.data.starts_with(&data), "bytes that were not sealed");
    if sent.is_intact {
        assert_eq!((data.len(), end), (sent.data.len(), Ok(false)), "bytes that were sealed are missing");
    }
}

/// A wire, and what was sealed on it.
#[derive(Default)]
struct Sent {
    wire: Vec<u8>,
    data: Vec<u8>,
    /// Nothing was altered, and nothing stands where it must not.
    is_intact: bool,
}

impl Sent {
    fn of(script: &[u8]) -> Sent {
        let mut sent = Sent { is_intact: true, ..Sent::default() };
        let (mut key, mut number, mut barren) = (0, 0, 0);
        let mut script = script.iter().copied();
        while let (Some(what), Some(a), Some(b)) = (script.next(), script.next(), script.next()) {
            let length = usize::from(u16::from_be_bytes([a, b]));
            let few = || script.clone().take(length % 12).collect::<Vec<u8>>();
            let (kind, content) = match what % 8 {
                0..=2 => (DATA, (0..length % 16_385).map(|at| (at + sent.data.len()) as u8).collect()),
                3 => (HANDSHAKE, vec![24, 0, 0, 1, b & 1]),
                4 => (HANDSHAKE, few()),
                5 => (ALERT, few()),
                6 => {
                    let at = length % sent.wire.len().max(1);
                    sent.wire.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (what / 8 % 8));
                    sent.is_intact &= sent.wire.is_empty();
                    continue;
                }
                _ => {
                    let raw = few();
                    sent.is_intact &= raw.is_empty();
                    sent.wire.extend(raw);
                    continue;
                }
            };
            // The padding that follows the type.
            let padding = usize::from(what / 8) * 31;
            let padding = padding.min(16_384 - content.len());
            sent.wire.extend(seal(key, number, kind, &content, padding));
            number += 1;
            barren = if kind == DATA && !content.is_empty() { 0 } else { barren + 1 };
            sent.is_intact &= kind == DATA || what % 8 == 3;
            sent.is_intact &= barren <= 32;
            match kind {
                DATA => sent.data.extend(content),
                HANDSHAKE if what % 8 == 3 => (key, number) = (key + 1, 0),
                _ => {}
            }
        }
        sent
    }
}

/// Seals a record with the key of this number.
fn seal(key: u8, number: u64, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
    let mut inner = [content, &[kind], &vec![0; padding]].concat();
    let [high, low] = (inner.len() as u16 + 16).to_be_bytes();
    let header = [23, 3, 3, high, low];
    let mut nonce = [key; 12];
    nonce.iter_mut().rev().zip(number.to_le_bytes()).for_each(|(byte, number)| *byte ^= number);
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[key; 16]).unwrap());
    cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut inner).unwrap();
    [&header[..], &inner].concat()
}

/// Reads a wire in parts. Returns the data and the end: close_notify, the end of the wire, or a fault.
fn read(mut wire: &[u8], is_client: bool, step: impl Fn(&[u8]) -> usize) -> (Vec<u8>, Result<bool, Fault>) {
    let slots = Slots::default();
    let mut keys = Numbered(0);
    let mut opener = Opener::new(keys.key(), is_client, &[], &slots);
    let mut data = Vec::new();
    let mut left = 0;
    while !wire.is_empty() {
        if left == 0 {
            left = step(wire).min(wire.len());
        }
        let got = opener.read(left, &slots, |room| {
            let mut rest = &wire[..left];
            for buf in room {
                let (part, others) = rest.split_at(buf.len().min(rest.len()));
                buf[..part.len()].copy_from_slice(part);
                rest = others;
            }
            Ok(left - rest.len())
        });
        let got = got.unwrap();
        assert!(got > 0, "a read has room");
        (wire, left) = (&wire[got..], left - got);
        let mut out = Vec::new();
        let opened = opener.open(&mut keys, &slots, &mut out);
        data.extend(out.iter().flatten());
        out.into_iter().for_each(check_memory);
        match opened {
            Ok(progress) if progress.is_ended => return (data, Ok(true)),
            Ok(_) => {}
            Err(fault) => return (data, Err(fault)),
        }
    }
    (data, Ok(false))
}

/// The pool refers to a slot that was handed out, so only a piece with memory of its own can be taken apart.
fn check_memory(piece: Bytes) {
    let bytes = piece.len();
    let held = piece.try_into_mut().map_or(16_406, |piece: BytesMut| piece.capacity());
    assert!(bytes > 0 && held <= 2 * bytes, "{held} bytes for {bytes}");
}

/// Keys by their number.
struct Numbered(u8);

impl Numbered {
    fn key(&self) -> Aead {
        Aead::new(&AES_128_GCM, &[self.0; 16], &[self.0; 12], 0).unwrap()
    }
}

impl KeySchedule for Numbered {
    fn next_opening(&mut self) -> Result<Aead, Fault> {
        self.0 = self.0.wrapping_add(1);
        Ok(self.key())
    }

    fn next_sealing(&mut self) -> Result<Aead, Fault> {
        Err(Fault::Internal("nothing is sealed"))
    }
}
