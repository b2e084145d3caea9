//! The `seaprox` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    seaprox_proxies::main()
}
