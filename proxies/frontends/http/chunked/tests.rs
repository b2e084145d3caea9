//! Unit and property tests of [`super`].

use super::*;
use proptest::prelude::*;

/// Decodes a body that arrives in pieces of the given sizes, as the proxy does: the reader sees the framing and not the data.
/// Returns the data and the length of the body in the input, or `None` if the body does not end.
fn decode(input: &[u8], pieces: &[usize]) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    let mut reader = ChunkedReader::new();
    let (mut data, mut start, mut end, mut owed) = (Vec::new(), 0, 0, 0u64);
    let mut pieces = pieces.iter().copied().chain([usize::MAX]);
    loop {
        let now = owed.min((end - start) as u64);
        data.extend_from_slice(&input[start..start + now as usize]);
        (start, owed) = (start + now as usize, owed - now);
        let step = if owed > 0 { ChunkStep::NeedMore } else { reader.next(&input[start..end])? };
        match step {
            ChunkStep::Chunk { consumed, size } => (start, owed) = (start + consumed, size),
            ChunkStep::End { consumed } => return Ok(Some((data, start + consumed))),
            ChunkStep::NeedMore => match pieces.next() {
                Some(piece) => end = input.len().min(end.saturating_add(piece)),
                None => return Ok(None),
            },
        }
    }
}

/// Decodes a complete and valid body by searching for line ends.
fn decode_naively(mut input: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let line_len = input.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let line = str::from_utf8(&input[..line_len]).unwrap();
        let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&input[line_len + 2..line_len + 2 + size]);
        input = &input[line_len + 2 + size + 2..];
    }
}

/// Returns a body of these chunks, each with an extension, and with a trailer field for each byte of `trailers`.
fn encode(chunks: &[Vec<u8>], extension: &str, trailers: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(CHUNK_END);
    }
    out.extend_from_slice(format!("0{extension}\r\n").as_bytes());
    for byte in trailers {
        out.extend_from_slice(format!("x-{byte}: {byte}\r\n").as_bytes());
    }
    [out, b"\r\n".to_vec()].concat()
}

#[test]
fn a_small_body_is_read_in_steps() {
    let mut reader = ChunkedReader::new();
    assert_eq!(reader.next(b"5;a=b\r\nhello"), Ok(ChunkStep::Chunk { consumed: 7, size: 5 }));
    assert_eq!(reader.next(b"\r\n00000000000000fF\r\n"), Ok(ChunkStep::Chunk { consumed: 20, size: 255 }));
    assert_eq!(reader.next(b"\r\n0\r\nA: b\r\n\r\nGET"), Ok(ChunkStep::End { consumed: 13 }));
    assert_eq!(reader.next(b"GET"), Ok(ChunkStep::End { consumed: 0 }));
}

/// RFC 9110, section 5.6.3: bad white space is parsed and removed.
#[test]
fn white_space_around_a_size_and_an_extension_is_dropped() {
    for line in ["5 \r\n", "5\t\r\n", "5 ;a=b\r\n", "5  ; a = b \r\n", "5;a=b \r\n"] {
        let chunk = Ok(ChunkStep::Chunk { consumed: line.len(), size: 5 });
        assert_eq!(ChunkedReader::new().next(line.as_bytes()), chunk, "{line:?}");
    }
    assert_eq!(ChunkedReader::new().next(b"0 \r\n\r\n"), Ok(ChunkStep::End { consumed: 6 }));
    let line = |len: usize| format!("1{}\r\n", " ".repeat(len));
    assert!(ChunkedReader::new().next(line(EXTENSION_BYTES_MAX).as_bytes()).is_ok());
    let long = Err(ChunkError::ExtensionTooLong);
    assert_eq!(ChunkedReader::new().next(line(EXTENSION_BYTES_MAX + 1).as_bytes()), long);
}

#[test]
fn an_incomplete_step_consumes_nothing() {
    for whole in [&b"5;a=b\r\n"[..], b"0\r\n\r\n", b"0;x\r\nA: b\r\nC:\r\n\r\n", b"ffffffffffffffff\r\n"] {
        for len in 0..whole.len() {
            assert_eq!(ChunkedReader::new().next(&whole[..len]), Ok(ChunkStep::NeedMore), "{len}");
        }
        assert_ne!(ChunkedReader::new().next(whole), Ok(ChunkStep::NeedMore));
    }
}

#[test]
fn framing_that_another_parser_may_read_differently_is_refused() {
    for (bytes, error) in [
        (&b"5\n"[..], ChunkError::Size),
        (b"\r\n5\r\n", ChunkError::Size),
        (b" 5\r\n", ChunkError::Size),
        (b"5 0\r\n", ChunkError::Size),
        (b"5 \n", ChunkError::Size),
        (b"5 \r5", ChunkError::LineEnd),
        (b"0x5\r\n", ChunkError::Size),
        (b"+5\r\n", ChunkError::Size),
        (b"-1\r\n", ChunkError::Size),
        (b"5_0\r\n", ChunkError::Size),
        (b"g\r\n", ChunkError::Size),
        (b";a\r\n", ChunkError::Size),
        (b"00000000000000005", ChunkError::Size),
        (b"10000000000000000\r\n", ChunkError::Size),
        (b"5\r5", ChunkError::LineEnd),
        (b"5;a\n\r\n", ChunkError::LineEnd),
        (b"5;a\rb\r\n", ChunkError::LineEnd),
        (b"5;a\0\r\n", ChunkError::Control),
        (b"0\r\nA: b\n\r\n", ChunkError::LineEnd),
        (b"0\r\n\rA", ChunkError::LineEnd),
        (b"0\r\n: b\r\n", ChunkError::Trailer),
        (b"0\r\nA : b\r\n", ChunkError::Trailer),
        (b"0\r\n folded: b\r\n", ChunkError::Trailer),
        (b"0\r\nGET / HTTP/1.1\r\n", ChunkError::Trailer),
    ] {
        assert_eq!(ChunkedReader::new().next(bytes), Err(error), "{}", bytes.escape_ascii());
    }
    let mut reader = ChunkedReader::new();
    assert!(reader.next(b"1\r\n").is_ok());
    assert_eq!(reader.next(b"\n5\r\n"), Err(ChunkError::LineEnd));
    assert_eq!(reader.next(b"5\r\n"), Err(ChunkError::LineEnd));
}

#[test]
fn extensions_and_trailers_that_are_too_long_are_refused() {
    let line = |len: usize| format!("1;{}\r\n", "a".repeat(len - 1));
    assert!(ChunkedReader::new().next(line(EXTENSION_BYTES_MAX).as_bytes()).is_ok());
    let long = line(EXTENSION_BYTES_MAX + 1);
    assert_eq!(ChunkedReader::new().next(long.as_bytes()), Err(ChunkError::ExtensionTooLong));
    assert_eq!(ChunkedReader::new().next(&long.as_bytes()[..long.len() - 2]), Err(ChunkError::ExtensionTooLong));

    let mut reader = ChunkedReader::new();
    reader.next(line(EXTENSION_BYTES_MAX).as_bytes()).unwrap();
    let next = format!("\r\n{}", line(EXTENSION_BYTES_MAX));
    let taken = (0..1000).take_while(|_| reader.next(next.as_bytes()).is_ok()).count();
    assert_eq!((taken + 1) * EXTENSION_BYTES_MAX, EXTENSIONS_BYTES_MAX);

    let trailers = |len: usize| format!("0\r\n{}A: {}\r\n\r\n", "B: c\r\n".repeat(10), "a".repeat(len - 67));
    assert!(ChunkedReader::new().next(trailers(TRAILER_BYTES_MAX).as_bytes()).is_ok());
    let long = trailers(TRAILER_BYTES_MAX + 1);
    assert_eq!(ChunkedReader::new().next(long.as_bytes()), Err(ChunkError::TrailerTooLong));
    let endless = format!("0\r\n{}", "A: b\r\n".repeat(TRAILER_BYTES_MAX));
    assert_eq!(ChunkedReader::new().next(endless.as_bytes()), Err(ChunkError::TrailerTooLong));
}

#[test]
fn a_written_body_can_be_read() {
    let mut out = Vec::new();
    chunk_line(u64::MAX, &mut out);
    assert_eq!(out, b"ffffffffffffffff\r\n");
    assert_eq!(ChunkedReader::new().next(&out), Ok(ChunkStep::Chunk { consumed: 18, size: u64::MAX }));
    assert_eq!(ChunkedReader::new().next(LAST_CHUNK), Ok(ChunkStep::End { consumed: LAST_CHUNK.len() }));
}

proptest! {
    #[test]
    fn any_split_of_a_body_decodes_to_the_same_data(
        chunks in prop::collection::vec(any::<Vec<u8>>(), 0..8),
        extension in "(;[a-z]{1,9}(=\"[ -!#-~]{0,9}\")?)?",
        trailers: Vec<u8>,
        rest: Vec<u8>,
        pieces in prop::collection::vec(0usize..40, 0..200),
    ) {
        let body = encode(&chunks, &extension, &trailers);
        let input = [&body[..], &rest[..]].concat();
        let data = decode_naively(&body);
        prop_assert_eq!(&data, &chunks.concat());
        prop_assert_eq!(decode(&input, &pieces), Ok(Some((data.clone(), body.len()))));
        prop_assert_eq!(decode(&input, &vec![1; input.len()]), Ok(Some((data, body.len()))));
    }

    #[test]
    fn any_bytes_return_a_result(bytes: Vec<u8>, text in "[0-2a\r\n;: ]{0,40}", pieces: Vec<usize>) {
        let _ = decode(&bytes, &pieces);
        let pieces: Vec<usize> = pieces.into_iter().map(|piece| piece % 8).collect();
        let (at_once, in_pieces) = (decode(text.as_bytes(), &[]), decode(text.as_bytes(), &pieces));
        prop_assert_eq!(at_once, in_pieces);
    }
}
