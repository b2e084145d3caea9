//! The configuration of a loop, made from the command line and the limits of the system.

use seaprox::units::format_size;
use seaprox::{Config, DESCRIPTORS_RESERVED, Family, Limits, Timeouts};

use crate::cli::{self, Parsed, UsageError};

/// Returns the configuration that the options ask for, with the connections reduced to what the descriptor limit of the
/// system allows.
///
/// # Errors
/// Fails if the value of an option is wrong.
pub fn config(parsed: &Parsed) -> Result<Config, UsageError> {
    let Config { limits, timeouts, .. } = Config::default();
    let number = |long| parsed.number(long).map(|number| number as usize);
    let size = |long| parsed.size(long).map(|bytes| bytes as usize);
    let per_source = "max-connections-per-source";
    let per_source = if parsed.knows(per_source) { number(per_source)? } else { 0 };
    let mut config = Config {
        limits: Limits {
            connections: number("max-connections")?,
            connections_per_source: per_source,
            block_bytes: size("buffer")?,
            buffer_bytes: size("buffer-memory")?,
            link_bytes: size("link-memory-total")?,
            pipes: if parsed.flag("no-splice")? { 0 } else { number("pipes")? },
            pipe_bytes: size("pipe-size")?,
            backlog: number("backlog")? as u32,
            ..limits
        },
        timeouts: Timeouts {
            handshake: parsed.duration("handshake-timeout")?,
            connect: parsed.duration("connect-timeout")?,
            keep_alive: parsed.duration("keepalive-timeout")?,
            idle: parsed.duration("idle-timeout")?,
            half_closed: parsed.duration("half-closed-timeout")?,
            name_cache: parsed.duration("dns-cache")?,
            ..timeouts
        },
        family: family(parsed)?,
        nodelay: !parsed.flag("no-nodelay")?,
        tcp_keepalive: parsed.duration("tcp-keepalive")?,
    };
    if config.limits.block_bytes > config.limits.buffer_bytes {
        let [buffer, memory] = [config.limits.block_bytes, config.limits.buffer_bytes].map(|it| format_size(it as u64));
        return Err(parsed.error(format!("--buffer {buffer}: expected at most the {memory} of --buffer-memory")));
    }
    fit_descriptors(&mut config.limits);
    Ok(config)
}

fn family(parsed: &Parsed) -> Result<Family, UsageError> {
    Ok(match (parsed.only()?, parsed.prefer()?) {
        (Some(cli::Family::Ipv4), _) => Family::OnlyIpv4,
        (Some(cli::Family::Ipv6), _) => Family::OnlyIpv6,
        (None, cli::Family::Ipv4) => Family::PreferIpv4,
        (None, cli::Family::Ipv6) => Family::PreferIpv6,
    })
}

/// Raises the descriptor limit as far as the system allows, and reduces pipes and connections to it. A connection takes two
/// descriptors, and so does a pipe.
fn fit_descriptors(limits: &mut Limits) {
    let granted = match seaprox::raise_descriptor_limit() {
        Ok(granted) => usize::try_from(granted).unwrap_or(usize::MAX),
        Err(error) => {
            return log::warn!(target: "seaprox::settings", error = error.to_string(); "the descriptor limit cannot be read");
        }
    };
    // Under a small limit descriptors are better spent on connections than on pipes.
    limits.pipes = limits.pipes.min(granted / 8);
    let room = granted.saturating_sub(DESCRIPTORS_RESERVED.min(granted / 2) + 2 * limits.pipes) / 2;
    if limits.connections > room {
        // A warning if the user set a number that cannot be reached, or if the result is low even for the default.
        let is_surprise = room < FEW_CONNECTIONS || limits.connections != Limits::default().connections;
        let level = if is_surprise { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "seaprox::settings", level, descriptors = granted, wished = limits.connections, connections = room; "the descriptor limit allows fewer connections than --max-connections");
        limits.connections = room.max(1);
    }
}

/// The number of connections below which a reduced default is logged as a warning.
const FEW_CONNECTIONS: usize = 1000;
