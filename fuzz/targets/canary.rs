//! Must fail: a fuzzer that does not find the defect that is planted here finds nothing elsewhere either.
#![no_main]

#[path = "../oracles.rs"]
mod oracles;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracles::canary(data));
