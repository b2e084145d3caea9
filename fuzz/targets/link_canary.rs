//! A target that must fail, with an ACK that has a line for lane 1. A fuzzer that does not find it does not work.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seaprox::link::frame::{Frame, HEADER_BYTES, Header};

fuzz_target!(|data: &[u8]| {
    let Some((head, body)) = data.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = Header::decode(*head) else { return };
    let Some(body) = body.get(..header.len) else { return };
    if let Ok(Frame::Ack { lanes }) = Frame::decode(header, body) {
        assert!(lanes.iter().all(|ack| ack.lane != 1), "the planted defect was found, as it should be");
    }
});
