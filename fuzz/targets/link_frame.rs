//! Any bytes decode to a frame or to an error, and a decoded frame that is encoded again has the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaprox::link::HelloReader;
use seaprox::link::frame::{Frame, HEADER_BYTES, Header};

fuzz_target!(|data: &[u8]| {
    let _ = HelloReader::default().feed(data);
    let Some((head, body)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = Header::decode(*head) else { return };
    let header = Header { len: body.len().min(header.len), ..header };
    let Ok(frame) = Frame::decode(header, &body[..header.len]) else { return };
    if matches!(frame, Frame::Extension { .. }) {
        return;
    }
    let mut again = Vec::new();
    frame.encode(&mut again);
    let header = Header::decode(*again.first_chunk().unwrap()).unwrap();
    assert_eq!(Frame::decode(header, &again[HEADER_BYTES..]), Ok(frame));
});
