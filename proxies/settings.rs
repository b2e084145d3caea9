//! From the command line to the configuration of a loop.

use seaprox::{Config, DESCRIPTORS_RESERVED, Family, Limits, Timeouts};

use crate::options::{self, Parsed, UsageError};

/// The configuration that the options ask for, within what the system grants.
///
/// # Errors
/// An option that cannot be read.
pub fn config(parsed: &Parsed) -> Result<Config, UsageError> {
    let defaults = Config::default();
    let (limits, timeouts) = (defaults.limits, defaults.timeouts);
    let has = |long| parsed.knows(long);
    let number = |long, default| if has(long) { parsed.number(long).map(|n| n as usize) } else { Ok(default) };
    let size = |long, default| if has(long) { parsed.size(long).map(|bytes| bytes as usize) } else { Ok(default) };
    let duration = |long, default| if has(long) { parsed.duration(long) } else { Ok(default) };
    let mut config = Config {
        limits: Limits {
            connections: number("max-connections", limits.connections)?,
            block_bytes: size("buffer", limits.block_bytes)?,
            buffer_bytes: size("buffer-memory", limits.buffer_bytes)?,
            pipes: if parsed.flag("no-splice")? { 0 } else { number("pipes", limits.pipes)? },
            pipe_bytes: size("pipe-size", limits.pipe_bytes)?,
            backlog: number("backlog", limits.backlog as usize)? as u32,
            ..limits
        },
        timeouts: Timeouts {
            handshake: duration("handshake-timeout", timeouts.handshake)?,
            connect: duration("connect-timeout", timeouts.connect)?,
            keep_alive: duration("keepalive-timeout", timeouts.keep_alive)?,
            idle: duration("idle-timeout", timeouts.idle)?,
            half_closed: duration("half-closed-timeout", timeouts.half_closed)?,
            name_cache: duration("dns-cache", timeouts.name_cache)?,
            ..timeouts
        },
        family: family(parsed)?,
        nodelay: !parsed.flag("no-nodelay")?,
        tcp_keepalive: duration("tcp-keepalive", defaults.tcp_keepalive)?,
    };
    fit_descriptors(&mut config.limits);
    Ok(config)
}

fn family(parsed: &Parsed) -> Result<Family, UsageError> {
    Ok(match (parsed.only()?, parsed.prefer()?) {
        (Some(options::Family::Ipv4), _) => Family::OnlyIpv4,
        (Some(options::Family::Ipv6), _) => Family::OnlyIpv6,
        (None, options::Family::Ipv4) => Family::PreferIpv4,
        (None, options::Family::Ipv6) => Family::PreferIpv6,
    })
}

/// A connection takes two descriptors. What the system does not grant cannot be promised.
fn fit_descriptors(limits: &mut Limits) {
    let granted = match seaprox::raise_descriptor_limit() {
        Ok(granted) => usize::try_from(granted).unwrap_or(usize::MAX),
        Err(error) => return log::warn!(error = error.to_string(); "the limit of descriptors is not known"),
    };
    // A small limit is better spent on connections than on pipes.
    limits.pipes = limits.pipes.min(granted / 8);
    let room = granted.saturating_sub(DESCRIPTORS_RESERVED.min(granted / 2) + 2 * limits.pipes) / 2;
    if limits.connections > room {
        let level =
            if limits.connections == Limits::default().connections { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, descriptors = granted, wished = limits.connections, connections = room; "the limit of descriptors allows fewer connections");
        limits.connections = room.max(1);
    }
}
