//! A front end in sixty lines: the client sends the line `HOST PORT` and is relayed to that target, or reads `ERR
//! reason`.
//!
//! `cargo run --example line`, then `printf 'example.org 80\nHEAD / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 7000`
use std::error::Error;

use seaprox::{Bind, Config, Cx, Failure, Handler, ListenConfig, Proxy, Reason, Target, Workers, bind};

/// Reads the line, connects to the target that it names, then lets the loop relay. There is one `Line` for each client.
struct Line;

impl Handler for Line {
    fn opened(&mut self, _: &mut Cx<'_>) {} // The client speaks first.

    /// Returns how many bytes it has consumed. 0 means: not enough yet, call again when more has arrived.
    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return 0 };
        match parse(&input[..end]) {
            Some(target) => _ = cx.connect(target, None),
            None => refuse(cx, Reason::ProtocolError),
        }
        end + 1 // The bytes after the line are the first to be relayed.
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(), // From here on the loop moves the bytes, without a callback.
            Err(failure) => refuse(cx, failure.reason),
        }
    }
}

fn parse(line: &[u8]) -> Option<Target> {
    let (host, port) = std::str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
    Target::from_host(host, port.parse().ok()?).ok()
}

fn refuse(cx: &mut Cx<'_>, reason: Reason) {
    _ = cx.reply(format!("ERR {reason}\n").as_bytes());
    cx.close_after_flush(reason); // Closes after the client has received the reply; `cx.end` would discard it.
}

fn main() -> Result<(), Box<dyn Error>> {
    let addr = Bind::parse(&std::env::args().nth(1).unwrap_or("7000".into()))?;
    let config = Config::default();
    let workers = Workers::start(4, config.limits.lookups)?; // Threads that resolve names.
    let mut bounds = bind(&addr, 1, &config)?; // One address or several: a bare port is 127.0.0.1 and ::1.
    let mut proxy = Proxy::new(config, Some(workers))?;
    for bound in &mut bounds {
        println!("listening on {}", bound.addr());
        proxy.core().listen(bound, ListenConfig::new("line", Box::new(|| Box::new(Line))))?;
    }
    Ok(proxy.run()?)
}
