//! A target that must fail: if the fuzzer cannot find this, it finds nothing. It takes an ACK with one line for lane 1.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaprox::link::frame::{Frame, HEADER_BYTES, Header};

fuzz_target!(|data: &[u8]| {
    let Some((head, body)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = Header::decode(*head) else { return };
    let Some(body) = body.get(..header.len) else { return };
    if let Ok(Frame::Ack { lanes }) = Frame::decode(header, body) {
        assert!(lanes.iter().all(|ack| ack.lane != 1), "the canary sings");
    }
});
