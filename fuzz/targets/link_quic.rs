//! Fuzzes `link_quic::link_quic`.
#![no_main]

#[path = "../oracles/link_quic.rs"]
mod link_quic;

libfuzzer_sys::fuzz_target!(|data: &[u8]| link_quic::link_quic(data));
