//! The chunked coding: splits, a second decoder that shares no code with the first, and the forwarded body.

use super::http::chunked::{CHUNK_END, ChunkError, ChunkStep, ChunkedReader, LAST_CHUNK, chunk_line};

/// Checks a chunked body. The first byte gives the size of the pieces in which it arrives.
pub fn http_chunked(data: &[u8]) {
    let Some((&selector, input)) = data.split_first() else { return };
    let at_once = relay(input, usize::MAX);
    let in_pieces = relay(input, usize::from(selector % 16) + 1);
    assert_eq!(at_once, in_pieces, "the pieces change the meaning");
    let Ok(Some(body)) = at_once else { return };
    assert!(body.consumed <= input.len());
    assert_eq!(decode_plainly(&input[..body.consumed]), Some(body.data.clone()));

    // The next reader finds the same data in the forwarded body, and no bytes after it.
    let forwarded = relay(&body.forwarded, usize::MAX)
        .expect("the forwarded body is valid")
        .expect("the forwarded body is complete");
    assert_eq!((forwarded.consumed, &forwarded.data), (body.forwarded.len(), &body.data));
    assert_eq!(decode_plainly(&body.forwarded), Some(body.data));
}

#[derive(Debug, PartialEq, Eq)]
struct Relayed {
    /// The data of all chunks.
    data: Vec<u8>,
    /// The body as it is forwarded.
    forwarded: Vec<u8>,
    /// Bytes of the input that belong to the body.
    consumed: usize,
}

/// Relays a body that arrives in pieces of `piece` bytes. Returns `None` if the input ends before the body does.
fn relay(input: &[u8], piece: usize) -> Result<Option<Relayed>, ChunkError> {
    let mut reader = ChunkedReader::new();
    let mut relayed = Relayed { data: Vec::new(), forwarded: Vec::new(), consumed: 0 };
    let (mut received, mut owed) = (0, 0u64);
    loop {
        let unread = &input[relayed.consumed..received];
        if owed > 0 {
            let now = owed.min(unread.len() as u64);
            relayed.data.extend_from_slice(&unread[..now as usize]);
            relayed.forwarded.extend_from_slice(&unread[..now as usize]);
            relayed.consumed += now as usize;
            owed -= now;
            if owed == 0 {
                relayed.forwarded.extend_from_slice(CHUNK_END);
            }
        }
        let unread = &input[relayed.consumed..received];
        let step = if owed > 0 { ChunkStep::NeedMore } else { reader.next(unread)? };
        match step {
            ChunkStep::NeedMore if received == input.len() => return Ok(None),
            ChunkStep::NeedMore => received = received.saturating_add(piece).min(input.len()),
            ChunkStep::Chunk { consumed, size } => {
                assert!((1..=unread.len()).contains(&consumed) && size > 0);
                relayed.consumed += consumed;
                owed = size;
                chunk_line(size, &mut relayed.forwarded);
            }
            ChunkStep::End { consumed } => {
                assert!(consumed <= unread.len());
                relayed.consumed += consumed;
                relayed.forwarded.extend_from_slice(LAST_CHUNK);
                assert_eq!(
                    reader.next(b"more"),
                    Ok(ChunkStep::End { consumed: 0 }),
                    "the reader goes on after the last chunk"
                );
                return Ok(Some(relayed));
            }
        }
    }
}

/// Decodes a whole body by searching for line ends. Returns `None` unless the body ends with the last byte.
fn decode_plainly(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let line = take_line(&mut input)?;
        // White space behind the size counts for nothing (RFC 9112, section 7.1.1; RFC 9110, section 5.6.3).
        let digits = str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?.trim_end_matches([' ', '\t']);
        let size = usize::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
        if size == 0 {
            while !take_line(&mut input)?.is_empty() {}
            return input.is_empty().then_some(data);
        }
        let (chunk, rest) = input.split_at_checked(size)?;
        data.extend_from_slice(chunk);
        input = rest;
        take_line(&mut input).filter(|line| line.is_empty())?;
    }
}

fn take_line<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = input.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = (&input[..len], &input[len + 2..]);
    *input = rest;
    Some(line)
}
