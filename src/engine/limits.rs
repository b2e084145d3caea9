//! All limits and durations of a loop, with their defaults.

use std::time::Duration;

use crate::relay::timer::TimerClass;
use crate::types::unix_file::{UnixMode, UnixOwner};

/// The limits of one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent connections. Further clients wait in the listener's backlog.
    pub connections: usize,
    /// Concurrent connections of the clients of one network (an IPv4 /32 or an IPv6 /64), all loops together; 0 for no
    /// limit. Further clients are closed.
    pub connections_per_source: usize,
    /// Concurrent flows of datagrams. A flow that is opened beyond them ends the one that needs its place least.
    pub flows: usize,
    /// Concurrent flows of the clients of one network (an IPv4 /32 or an IPv6 /64) in one loop; 0 for no limit. A flow that is
    /// opened beyond them ends another one of its network.
    pub flows_per_source: usize,
    /// Bytes of one block: the most that one read takes, and the most that one direction of a connection holds if its
    /// reader is slow (a spliced direction holds the content of its pipe).
    pub block_bytes: usize,
    /// Bytes of all blocks together. Without a free block the loop reads nothing.
    pub buffer_bytes: usize,
    /// Received bytes that all links together may hold, and the same number of sent bytes until their peers have them.
    pub link_bytes: usize,
    /// The loops of a process that have links: the first ones. They divide `link_bytes`. A link lives in one loop.
    pub link_loops: usize,
    /// Pipes for splicing; 0 switches splicing off.
    pub pipes: usize,
    /// Requested capacity of one pipe in bytes; the system may grant less.
    pub pipe_bytes: usize,
    /// Bytes of an incomplete request that a front end may wait for, such as a SOCKS greeting or an HTTP head.
    pub handshake_bytes: usize,
    /// Connections in the backlog of a listener; the system may grant less.
    pub backlog: u32,
    /// Names that wait for a lookup, all loops together. Further lookups are refused.
    pub lookups: usize,
    /// Names in the cache.
    pub cached_names: usize,
    /// Addresses of one name that a dial tries.
    pub addresses_per_name: usize,
    /// Calls from other threads that wait for the loop. Further calls are refused.
    pub calls: usize,
    /// Foreign descriptors that the loop watches; see [`Core::watch`](crate::Core::watch).
    pub watches: usize,
    /// Timers of callers; see [`Core::after`](crate::Core::after).
    pub timers: usize,
    /// Records that ended, whose ids are answered with the reason ([`VerbError::Over`](crate::VerbError::Over)).
    pub ended_records: usize,
    /// Events taken from the system in one turn.
    pub events_per_turn: usize,
    /// Connections accepted in one turn. Each listener gets at least four, even if the others have used up the limit.
    pub accepts_per_turn: usize,
    /// Bytes moved in one direction of one connection in one turn.
    pub relay_bytes_per_turn: usize,
    /// The reduced limit while another connection sends little and often, so that a keystroke waits for no more than these
    /// bytes of each bulk transfer.
    pub relay_bytes_interactive: usize,
    /// Messages of other threads processed in one turn.
    pub mails_per_turn: usize,
    /// Timers fired in one turn.
    pub timers_per_turn: usize,
    /// Callbacks of watches called in one turn, and as many of callers' timers.
    pub callbacks_per_turn: usize,
    /// Dests connected in one turn after their names have been resolved.
    pub dials_per_turn: usize,
}

/// The durations of one loop's timers. Zero switches a timer off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Wait for the client's request.
    pub handshake: Duration,
    /// Wait for the connect to the target, the lookup of its name included.
    pub connect: Duration,
    /// Wait for the next request on a kept-alive connection.
    pub keep_alive: Duration,
    /// Wait for a byte in either direction.
    pub idle: Duration,
    /// Wait for the first answer to a flow of datagrams, after the last datagram of its client.
    pub first_answer: Duration,
    /// Wait for a datagram in either direction of a flow that was answered.
    pub flow_idle: Duration,
    /// Wait for a datagram in either direction of an association, which ends with its connection.
    pub association_idle: Duration,
    /// Wait for a byte in the direction that is still open after the other was closed.
    pub half_closed: Duration,
    /// Wait for the client's close after the proxy's; the client's bytes are discarded meanwhile (RFC 9112, section 9.6).
    pub linger: Duration,
    /// Delay before a dial tries the next address of a name beside one that has not answered (RFC 8305, section 8).
    pub happy_eyeballs: Duration,
    /// Lifetime of a cached name.
    pub name_cache: Duration,
    /// Delay before TCP keepalive is enabled at the dest; short connections skip the system calls.
    pub keepalive_delay: Duration,
    /// Delay before accepting and connecting go on after a lack of descriptors.
    pub descriptors_retry: Duration,
}

/// The address families that a dial tries, and their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both families alternately, IPv6 first.
    #[default]
    PreferIpv6,
    /// Both families alternately, IPv4 first.
    PreferIpv4,
    /// IPv6 only.
    OnlyIpv6,
    /// IPv4 only.
    OnlyIpv4,
}

/// The configuration of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The limits.
    pub limits: Limits,
    /// The durations of the timers.
    pub timeouts: Timeouts,
    /// The address families that a dial tries.
    pub family: Family,
    /// True to send small writes at once (`TCP_NODELAY`) on both sides.
    pub nodelay: bool,
    /// The idle time before the first TCP keepalive probe, on both sides; zero switches keepalive off.
    pub tcp_keepalive: Duration,
    /// The mode of the files of listening Unix sockets; none to leave it to the umask.
    pub unix_mode: Option<UnixMode>,
    /// The owner of the files of listening Unix sockets; none for the user of the process.
    pub unix_owner: Option<UnixOwner>,
    /// The mark of the packets of all sockets that connect (`SO_MARK`, Linux), by which the rules of the system know them;
    /// 0 for none. The queries to name servers have no mark.
    pub mark: u32,
    /// The processors on which the loops of a process run, one for each loop in turn; empty to leave the choice to the system
    /// (Linux). Several loops get the clients whose packets arrive at their processors. A loop that the caller turns
    /// stays where its thread is.
    pub cpus: Vec<usize>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 100_000,
            connections_per_source: 0,
            flows: 16_384,
            flows_per_source: 4_096,
            block_bytes: 32 << 10,
            buffer_bytes: 256 << 20,
            link_bytes: 512 << 20,
            link_loops: 1,
            pipes: 64,
            pipe_bytes: 1 << 20,
            handshake_bytes: 16 << 10,
            backlog: 4096,
            lookups: 1024,
            cached_names: 1024,
            addresses_per_name: 16,
            calls: 4096,
            watches: 1024,
            timers: 1024,
            ended_records: 1024,
            events_per_turn: 1024,
            accepts_per_turn: 64,
            relay_bytes_per_turn: 4 << 20,
            relay_bytes_interactive: 128 << 10,
            mails_per_turn: 1024,
            timers_per_turn: 128,
            callbacks_per_turn: 128,
            dials_per_turn: 64,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            idle: Duration::ZERO,
            first_answer: Duration::from_secs(10),
            flow_idle: Duration::from_secs(60),
            // RFC 4787, REQ-5: a mapping lasts for five minutes or more.
            association_idle: Duration::from_secs(300),
            half_closed: Duration::from_secs(3600),
            linger: Duration::from_secs(5),
            happy_eyeballs: Duration::from_millis(250),
            name_cache: Duration::from_secs(30),
            keepalive_delay: Duration::from_secs(5),
            descriptors_retry: Duration::from_millis(100),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            family: Family::default(),
            nodelay: true,
            tcp_keepalive: Duration::from_secs(60),
            unix_mode: None,
            unix_owner: None,
            mark: 0,
            cpus: Vec::new(),
        }
    }
}

impl Limits {
    /// The smallest block. A complete request fits in it together with the bytes that a front end adds.
    pub const BLOCK_BYTES_MIN: usize = 4096;

    /// Returns the capacity of the table of sides: two sides for each connection and for each flow, the attempts of dials with several
    /// addresses, and the sockets of links.
    pub(crate) fn sides(&self) -> usize {
        self.connections
            .saturating_mul(2)
            .saturating_add(self.flows.saturating_mul(2))
            .saturating_add(RACERS + CARRIERS_MAX)
    }

    /// Returns the most bytes of input that a handler is shown in one call.
    pub(crate) fn input_bytes(&self) -> usize {
        self.handshake_bytes.min(self.block_bytes / 2)
    }
}

impl Timeouts {
    /// Returns each class of timers with its duration.
    pub(crate) fn of_classes(&self) -> [(TimerClass, Duration); TimerClass::COUNT] {
        TimerClass::ALL.map(|class| {
            let duration = match class {
                TimerClass::Handshake => self.handshake,
                TimerClass::Connect => self.connect,
                TimerClass::HttpKeepAlive => self.keep_alive,
                TimerClass::TcpKeepaliveDelay => self.keepalive_delay,
                TimerClass::Idle => self.idle,
                TimerClass::HalfClosed => self.half_closed,
                TimerClass::Linger => self.linger,
                TimerClass::Association => self.association_idle,
            };
            (class, duration)
        })
    }
}

/// Descriptors of one process that are not for connections: those of loops, listeners, logs, and of new pipes.
pub const DESCRIPTORS_RESERVED: usize = 64;

/// Limit of the attempts beside the first of each dial, all connections together.
pub(crate) const RACERS: usize = 1024;

/// Carriers of one loop: 16 of each of the 256 links that others may dial, those of peers that have not joined a session yet
/// (256), and as many for what this node dials and for last words.
pub(crate) const CARRIERS_MAX: usize = 256 * 16 + 256 + 256;
