//! `seaprox selftest`: both ends of a link on loopback in one process, and a line for each thing that must work.

mod client;
mod ends;
mod relay;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use seaprox::node::SubflowStatus;
use seaprox::units::{format_rate, format_size};

use crate::cli::Parsed;
use crate::{Exit, Failed};
use ends::{Closed, Ends, SUBFLOWS};

/// One thing that must work: what there is to say of it, or what is wrong.
type Check = fn(&Bench) -> Result<String, String>;

/// What the checks work with.
struct Bench {
    ends: Ends,
    echo: SocketAddr,
    /// Listens, and may not be opened.
    forbidden: SocketAddr,
}

/// Runs the checks, and prints a line for each.
///
/// # Errors
/// One of them fails.
pub fn run(_parsed: &Parsed) -> Result<(), Failed> {
    let failed = |text: String| Failed::new(Exit::Failure, format!("seaprox selftest: {text}"));
    let guard = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| failed(error.to_string()))?;
    let forbidden = guard.local_addr().map_err(|error| failed(error.to_string()))?;
    let echo = client::start_echo().map_err(|error| failed(error.to_string()))?;
    let bench = Bench { ends: Ends::start(forbidden.port()).map_err(failed)?, echo, forbidden };
    let mut bad = Vec::new();
    for (name, check) in CHECKS {
        let line = match check(&bench) {
            Ok(text) => format!("ok {name} {text}\n"),
            Err(text) => {
                bad.push(*name);
                format!("FAILED {name}: {text}\n")
            }
        };
        crate::process::print(&line)?;
        if bad == ["link"] {
            break;
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(failed(format!("failed: {}", bad.join(", ")))) }
}

/// In this order: nothing works without the first.
const CHECKS: &[(&str, Check)] = &[
    ("link", link),
    ("bytes", bytes),
    ("striping", striping),
    ("half-close", half_close),
    ("refusal", refusal),
    ("resume", resume),
];

fn link(bench: &Bench) -> Result<String, String> {
    let since = Instant::now();
    bench.ends.wait_until_up(PATIENCE)?;
    let cipher = bench.ends.status()?.cipher.unwrap_or("-");
    Ok(format!("up in {}, {cipher}", seconds(since.elapsed())))
}

fn bytes(bench: &Bench) -> Result<String, String> {
    let since = Instant::now();
    bench.swap(BULK_BYTES, |_| {})?;
    Ok(format!("{} in {}", format_size(BULK_BYTES), seconds(since.elapsed())))
}

/// The echo says how much it got only once our direction is closed, and we hear it because the other is not.
fn half_close(bench: &Bench) -> Result<String, String> {
    for bytes in [0, 1, 100_000] {
        bench.swap(bytes, |_| {}).map_err(|error| format!("with {bytes} bytes: {error}"))?;
    }
    Ok("an end in one direction leaves the other open".to_owned())
}

fn refusal(bench: &Bench) -> Result<String, String> {
    // Bound and not listened on until the check is over.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|socket| socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).map(|()| socket))
        .map_err(|error| error.to_string())?;
    let refusing = closed.local_addr().ok().and_then(|addr| addr.as_socket()).ok_or("no address")?;
    for (target, code, word) in [(refusing, 5, "connection_refused"), (bench.forbidden, 2, "not_permitted")] {
        let before = bench.ends.closed()?;
        match client::connect(bench.ends.socks(), target).map_err(|error| format!("{word}: {error}"))? {
            Err(reply) if reply == code => {}
            Err(reply) => {
                return Err(format!("{word}: the reply is {reply}, not {code}; {}", bench.why(&before)));
            }
            Ok(_) => return Err(format!("{word}: it was connected")),
        }
    }
    Ok("connection_refused and not_permitted arrive as such".to_owned())
}

fn striping(bench: &Bench) -> Result<String, String> {
    let since = Instant::now();
    let is_live = |it: &&SubflowStatus| it.state == "live";
    // The first is up alone; one that never comes is told below.
    while bench.ends.status()?.subflows.iter().filter(is_live).count() < SUBFLOWS && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.ends.relay.slow_down(CHUNK_PAUSE);
    let before = bench.ends.relay.carried();
    let result = bench.swap(SLOW_BYTES, |_| {});
    bench.ends.relay.slow_down(Duration::ZERO);
    result?;
    let after = bench.ends.relay.carried();
    if (before.len(), after.len()) != (SUBFLOWS, SUBFLOWS) {
        return Err(format!("there were {} subflows before and {} after, not {SUBFLOWS}", before.len(), after.len()));
    }
    let carried: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let percent: Vec<u64> = carried.iter().map(|bytes| bytes * 100 / carried.iter().sum::<u64>().max(1)).collect();
    let shares = percent.iter().map(|share| format!("{share} %")).collect::<Vec<_>>().join(" and ");
    if percent.iter().all(|share| *share >= SHARE_MIN) {
        return Ok(shares);
    }
    let subflow = |it: &SubflowStatus| {
        format!("{} rtt {}us rate {}", it.state, it.rtt.as_micros(), it.rate.map_or("-".into(), format_rate))
    };
    let subflows: Vec<_> = bench.ends.status()?.subflows.iter().map(subflow).collect();
    Err(format!("{shares}; {}", subflows.join(", ")))
}

fn resume(bench: &Bench) -> Result<String, String> {
    let (before, mut next, mut cut) = (bench.ends.status()?.resumes, BULK_BYTES / (CUTS + 1), 0);
    let since = Instant::now();
    bench.swap(BULK_BYTES, |came| {
        if came >= next && cut < CUTS {
            bench.ends.relay.cut();
            cut += 1;
            next = (cut + 1) * BULK_BYTES / (CUTS + 1);
        }
    })?;
    let resumes = bench.ends.status()?.resumes.saturating_sub(before);
    match resumes {
        0 => Err(format!("{cut} cuts, and no resume")),
        _ => Ok(format!("{} in {}, {cut} cuts, {resumes} resumes", format_size(BULK_BYTES), seconds(since.elapsed()))),
    }
}

impl Bench {
    /// The reasons that connections have ended for since `before`, at both ends: a reply of 1 stands for many.
    fn why(&self, before: &[Closed; 2]) -> String {
        let since = Instant::now();
        loop {
            let after = match self.ends.closed() {
                Ok(after) => after,
                Err(error) => return error,
            };
            let reasons = |end: usize| {
                let old =
                    |reason| before[end].iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count);
                let new = after[end].iter().filter(|(reason, count)| *count > old(*reason));
                new.map(|(reason, _)| reason.as_str()).collect::<Vec<_>>().join(" and ")
            };
            let (near, far) = (reasons(0), reasons(1));
            // The near end may not have freed it yet.
            if !near.is_empty() || since.elapsed() > PATIENCE {
                let word = |reasons: String| if reasons.is_empty() { "nothing".to_owned() } else { reasons };
                return format!("the near end says {}, the far end {}", word(near), word(far));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn swap(&self, bytes: u64, progress: impl FnMut(u64)) -> Result<(), String> {
        let connected = client::connect(self.ends.socks(), self.echo).map_err(|error| format!("SOCKS: {error}"))?;
        let stream = connected.map_err(|code| format!("SOCKS: the reply is {code}"))?;
        client::swap(stream, bytes, progress)
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

const PATIENCE: Duration = Duration::from_secs(10);
const BULK_BYTES: u64 = 64 << 20;
/// Through a relay that takes [`CHUNK_PAUSE`] for each 64 KiB, so that one subflow is not enough.
const SLOW_BYTES: u64 = 16 << 20;
const CHUNK_PAUSE: Duration = Duration::from_millis(5);
const CUTS: u64 = 3;
/// Percent that each subflow has to carry.
const SHARE_MIN: u64 = 10;
