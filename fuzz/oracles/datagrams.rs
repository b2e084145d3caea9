//! Properties of the datagrams of a pipe.

use seaprox::pipes::{Datagram, MemoryPipe, Pipe, PipeError, varint};

/// Checks the parser of lengths and datagrams: the pieces in which the bytes come make no difference, each datagram stands in
/// the input behind its one encoding, and the end is a FIN only behind the last byte of a datagram.
pub fn datagrams(bytes: &[u8]) {
    let (datagrams, end) = received(bytes, 1);
    assert_eq!(received(bytes, bytes.len().max(1)), (datagrams.clone(), end.clone()));
    let mut again = Vec::new();
    for datagram in &datagrams {
        let (length, count) = varint::encode(datagram.len()).unwrap();
        again.extend_from_slice(&length[..count]);
        again.extend_from_slice(datagram);
    }
    assert!(bytes.starts_with(&again));
    match end {
        None => assert_eq!(again.len(), bytes.len()),
        Some(PipeError::TooLong { bytes, limit }) => assert!(bytes > limit && limit == LIMIT),
        Some(error) => assert!(matches!(error, PipeError::Truncated | PipeError::InvalidLength)),
    }
}

/// Passes in the bytes in pieces, and a FIN. Returns the datagrams, and the error if the pipe broke.
fn received(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<PipeError>) {
    let (mut raw, end) = MemoryPipe::pair(bytes.len().max(1));
    let (mut pipe, mut datagrams, mut buf) = (Datagram::with_limit(end, LIMIT), Vec::new(), [0; LIMIT]);
    let mut pieces = bytes.chunks(piece);
    loop {
        match pipe.receive(&mut buf) {
            Ok(0) => return (datagrams, None),
            Ok(count) => datagrams.push(buf[..count].to_vec()),
            Err(PipeError::WouldBlock) => match pieces.next() {
                Some(piece) => assert_eq!(raw.send(piece), Ok(piece.len())),
                None => raw.finish().unwrap(),
            },
            Err(error) => {
                assert_eq!(pipe.broken(), Some(error.clone()));
                return (datagrams, Some(error));
            }
        }
    }
}

const LIMIT: usize = 1000;
