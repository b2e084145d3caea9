//! Stub until the real one is merged.
#![allow(missing_docs, dead_code, unused)]
use crate::node::Cipher;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::sync::Arc;
pub(crate) type Verify = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;
#[derive(Debug, Clone)]
pub(crate) enum TlsError {
    PeerRefused([u8; 32]),
    RefusedByPeer,
    Authentication,
    Other,
}
impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
impl std::error::Error for TlsError {}
pub(crate) struct Tls([u8; 32], Verify);
impl Tls {
    pub fn client(k: &[u8; 32], _: &[Cipher], v: Verify) -> Result<Tls, TlsError> {
        Ok(Tls(*k, v))
    }
    pub fn server(k: &[u8; 32], _: &[Cipher], v: Verify) -> Result<Tls, TlsError> {
        Ok(Tls(*k, v))
    }
    pub fn connect(&self) -> TlsPipe {
        TlsPipe { buf: vec![0; 131072], got: 0, out: self.0.to_vec(), sent: 0, key: None, v: self.1.clone() }
    }
    pub fn accept(&self) -> TlsPipe {
        self.connect()
    }
}
pub(crate) struct TlsPipe {
    buf: Vec<u8>,
    got: usize,
    out: Vec<u8>,
    sent: usize,
    key: Option<[u8; 32]>,
    v: Verify,
}
impl TlsPipe {
    pub fn room(&mut self) -> &mut [u8] {
        let g = self.got;
        &mut self.buf[g..]
    }
    pub fn filled(&mut self, n: usize) {
        self.got += n;
    }
    pub fn open(&mut self, p: &mut Vec<Bytes>) -> Result<(), TlsError> {
        let mut at = 0;
        if self.key.is_none() && self.got >= 32 {
            let k: [u8; 32] = self.buf[..32].try_into().unwrap();
            if !(self.v)(&k) {
                return Err(TlsError::PeerRefused(k));
            }
            self.key = Some(k);
            at = 32;
        }
        if self.key.is_some() {
            if self.got > at {
                p.push(Bytes::copy_from_slice(&self.buf[at..self.got]));
            }
            self.got = 0;
        }
        Ok(())
    }
    pub fn seal<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) {
        parts.for_each(|p| self.out.extend_from_slice(p));
    }
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }
    pub fn write_to(&mut self, f: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let n = f(&[IoSlice::new(&self.out[self.sent..])])?;
        self.sent += n;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Ok(n)
    }
    pub fn is_handshaking(&self) -> bool {
        self.key.is_none()
    }
    pub fn peer_key(&self) -> Option<[u8; 32]> {
        self.key
    }
    pub fn cipher(&self) -> &'static str {
        "null"
    }
    pub fn exporter(&self, _: &[u8], _: &[u8]) -> Result<[u8; 32], TlsError> {
        Ok([0; 32])
    }
}
