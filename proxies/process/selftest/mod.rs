//! `seaprox selftest`: runs both ends of a link on loopback in one process, and prints a line for each check.

mod client;
mod ends;
mod relay;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use seaprox::node::{SubflowState, SubflowStatus};
use seaprox::units::{format_rate, format_size};

use super::exit::{Exit, Failed};
use super::output::print;
use ends::{Closed, LinkEnds, SUBFLOWS};

/// A check. Returns a short result for its line, or an error.
type Check = fn(&Bench) -> Result<String, String>;

/// The link under test and its servers.
struct Bench {
    ends: LinkEnds,
    echo: SocketAddr,
    /// The address of a listener that the far end may not open.
    forbidden: SocketAddr,
}

/// Runs the checks and prints a line for each.
///
/// # Errors
/// Fails if a check fails.
pub fn run() -> Result<(), Failed> {
    let failed = |text: String| Failed::new(Exit::Failure, format!("seaprox selftest: {text}"));
    let guard = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| failed(error.to_string()))?;
    let forbidden = guard.local_addr().map_err(|error| failed(error.to_string()))?;
    let echo = client::start_echo().map_err(|error| failed(error.to_string()))?;
    let bench = Bench { ends: LinkEnds::start(forbidden.port()).map_err(failed)?, echo, forbidden };
    let mut failures = Vec::new();
    for (name, check) in CHECKS {
        let line = match check(&bench) {
            Ok(text) => format!("ok {name} {text}\n"),
            Err(text) => {
                failures.push(*name);
                format!("FAILED {name}: {text}\n")
            }
        };
        print(&line)?;
        if failures == ["link"] {
            break;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failed(format!("failed: {}", failures.join(", ")))) }
}

/// The checks in their order. The others need the first one to pass.
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
    bench.ends.wait_until_up(TIMEOUT)?;
    let cipher = bench.ends.status()?.cipher.unwrap_or("-");
    Ok(format!("up in {}, {cipher}", seconds(since.elapsed())))
}

fn bytes(bench: &Bench) -> Result<String, String> {
    let since = Instant::now();
    bench.exchange(BULK_BYTES, |_| {})?;
    Ok(format!("{} in {}", format_size(BULK_BYTES), seconds(since.elapsed())))
}

/// The echo server sends its count after this direction is closed, and the count arrives because the other direction is
/// still open.
fn half_close(bench: &Bench) -> Result<String, String> {
    for bytes in [0, 1, 100_000] {
        bench.exchange(bytes, |_| {}).map_err(|error| format!("with {bytes} bytes: {error}"))?;
    }
    Ok("closing one direction leaves the other open".to_owned())
}

fn refusal(bench: &Bench) -> Result<String, String> {
    // The socket is bound and does not listen, so its port refuses connections and no other program gets it.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .and_then(|socket| socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).map(|()| socket))
        .map_err(|error| error.to_string())?;
    let refusing = closed.local_addr().ok().and_then(|addr| addr.as_socket()).ok_or("no address")?;
    for (target, code, word) in [(refusing, 5, "connection_refused"), (bench.forbidden, 2, "not_permitted")] {
        let before = bench.ends.closed()?;
        match client::connect(bench.ends.socks(), target).map_err(|error| format!("{word}: {error}"))? {
            Err(reply) if reply == code => {}
            Err(reply) => {
                return Err(format!(
                    "{word}: the SOCKS reply is {reply}, expected {code}; {}",
                    bench.reasons_since(&before)
                ));
            }
            Ok(_) => return Err(format!("{word}: the connection was made")),
        }
    }
    Ok("connection_refused and not_permitted reach the client".to_owned())
}

fn striping(bench: &Bench) -> Result<String, String> {
    let since = Instant::now();
    let is_live = |it: &&SubflowStatus| it.state == SubflowState::Live;
    // The link is up with its first subflow. A missing second one is reported below.
    while bench.ends.status()?.subflows.iter().filter(is_live).count() < SUBFLOWS && since.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.ends.relay.slow_down(CHUNK_PAUSE);
    let before = bench.ends.relay.carried();
    let result = bench.exchange(SLOW_BYTES, |_| {});
    bench.ends.relay.slow_down(Duration::ZERO);
    result?;
    let after = bench.ends.relay.carried();
    if (before.len(), after.len()) != (SUBFLOWS, SUBFLOWS) {
        return Err(format!("{} subflows before and {} after, expected {SUBFLOWS}", before.len(), after.len()));
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
    let (before, mut next, mut cut) = (bench.ends.status()?.stats.resumes, BULK_BYTES / (CUTS + 1), 0);
    let since = Instant::now();
    bench.exchange(BULK_BYTES, |received| {
        if received >= next && cut < CUTS {
            bench.ends.relay.cut();
            cut += 1;
            next = (cut + 1) * BULK_BYTES / (CUTS + 1);
        }
    })?;
    let resumes = bench.ends.status()?.stats.resumes.saturating_sub(before);
    match resumes {
        0 => Err(format!("{cut} cuts and no resume")),
        _ => Ok(format!("{} in {}, {cut} cuts, {resumes} resumes", format_size(BULK_BYTES), seconds(since.elapsed()))),
    }
}

impl Bench {
    /// Returns the reasons of the connections that have ended since `before`, at both ends, because one SOCKS reply stands for
    /// many reasons.
    fn reasons_since(&self, before: &[Closed; 2]) -> String {
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
            // The near end may not have freed the connection yet.
            if !near.is_empty() || since.elapsed() > TIMEOUT {
                let word = |reasons: String| if reasons.is_empty() { "none".to_owned() } else { reasons };
                return format!("reasons at the near end: {}, at the far end: {}", word(near), word(far));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn exchange(&self, bytes: u64, progress: impl FnMut(u64)) -> Result<(), String> {
        let connected = client::connect(self.ends.socks(), self.echo).map_err(|error| format!("SOCKS: {error}"))?;
        let stream = connected.map_err(|code| format!("SOCKS: the reply is {code}, expected 0"))?;
        client::exchange(stream, bytes, progress)
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}s", duration.as_secs_f64())
}

/// Longest wait for the link and its subflows.
const TIMEOUT: Duration = Duration::from_secs(10);
const BULK_BYTES: u64 = 64 << 20;
/// Bytes through a relay that pauses for [`CHUNK_PAUSE`] after each 64 KiB, so that one subflow is too slow.
const SLOW_BYTES: u64 = 16 << 20;
const CHUNK_PAUSE: Duration = Duration::from_millis(5);
const CUTS: u64 = 3;
/// Percentage of the bytes that each subflow must carry.
const SHARE_MIN: u64 = 10;
