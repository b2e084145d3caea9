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
pub(crate) struct Tls;
impl Tls {
    pub fn client(_: &[u8; 32], _: &[Cipher], _: Verify) -> Result<Tls, TlsError> {
        Ok(Tls)
    }
    pub fn server(_: &[u8; 32], _: &[Cipher], _: Verify) -> Result<Tls, TlsError> {
        Ok(Tls)
    }
    pub fn connect(&self) -> TlsPipe {
        TlsPipe
    }
    pub fn accept(&self) -> TlsPipe {
        TlsPipe
    }
}
pub(crate) struct TlsPipe;
impl TlsPipe {
    pub fn room(&mut self) -> &mut [u8] {
        &mut []
    }
    pub fn filled(&mut self, _: usize) {}
    pub fn open(&mut self, _: &mut Vec<Bytes>) -> Result<(), TlsError> {
        Ok(())
    }
    pub fn seal<'a>(&mut self, _: impl Iterator<Item = &'a [u8]>) {}
    pub fn unsent(&self) -> usize {
        0
    }
    pub fn write_to(&mut self, f: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        Ok(0)
    }
    pub fn is_handshaking(&self) -> bool {
        false
    }
    pub fn peer_key(&self) -> Option<[u8; 32]> {
        None
    }
    pub fn cipher(&self) -> &'static str {
        ""
    }
    pub fn exporter(&self, _: &[u8], _: &[u8]) -> Result<[u8; 32], TlsError> {
        Ok([0; 32])
    }
}
