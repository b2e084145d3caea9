//! Fuzzes `oracles::socks_udp`.
#![no_main]

#[path = "../oracles.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::socks_udp(data));
