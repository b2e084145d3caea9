//! Every limit and every duration of a loop, in one place: named, with its default, shown in the status.

use std::time::Duration;

use crate::relay::timer::TimerClass;

/// What one loop may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. The next one waits in the listener's backlog.
    pub connections: usize,
    /// Connections of the clients of one network (a /32 of IPv4, a /64 of IPv6), all loops together; 0 for as many as there
    /// are. The next one is closed.
    pub connections_per_source: usize,
    /// Bytes of one block: what one read takes, and what one direction of a connection holds at most when its reader
    /// is slow (a spliced direction holds what is in its pipe).
    pub block_bytes: usize,
    /// Bytes of all blocks together. Without a block nothing is read.
    pub buffer_bytes: usize,
    /// Bytes that all links may hold of what they have received, and as many of what they hold until their peers have it.
    pub link_bytes: usize,
    /// Pipes for splicing; 0 switches splicing off.
    pub pipes: usize,
    /// Bytes that one pipe is wished to hold; the system may grant less.
    pub pipe_bytes: usize,
    /// Bytes of a request that a front end waits for: a SOCKS greeting, an HTTP head.
    pub handshake_bytes: usize,
    /// Connections that a listener keeps waiting (the system may grant less).
    pub backlog: u32,
    /// Names that are being looked up at once, all loops together; the next one is refused.
    pub lookups: usize,
    /// Names in the cache.
    pub cached_names: usize,
    /// Addresses of one name that are tried.
    pub addresses_per_name: usize,
    /// Calls from other threads that wait for the loop; the next one is refused.
    pub calls: usize,
    /// Events taken from the system in one turn.
    pub events_per_turn: usize,
    /// Connections accepted in one turn; each listener gets four even when the others have accepted as many.
    pub accepts_per_turn: usize,
    /// Bytes moved in one direction of one connection in one turn.
    pub relay_bytes_per_turn: usize,
    /// The same while somebody else sends little and often: a keystroke waits for no more than this of each transfer.
    pub relay_bytes_interactive: usize,
    /// Completions and calls taken in one turn.
    pub mails_per_turn: usize,
    /// Timers fired in one turn.
    pub timers_per_turn: usize,
    /// Dests that are connected in one turn because their names have been looked up.
    pub dials_per_turn: usize,
}

/// How long a loop waits for what. Zero switches a timer off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The client's request.
    pub handshake: Duration,
    /// The connection to the target, looking up its name included.
    pub connect: Duration,
    /// The next request on a kept-alive connection.
    pub keep_alive: Duration,
    /// A byte in either direction.
    pub idle: Duration,
    /// A byte in the direction that is still open, once the other is closed.
    pub half_closed: Duration,
    /// The client's close after ours, while what it still sends is thrown away (RFC 9112, section 9.6).
    pub linger: Duration,
    /// Before the next address of a name is tried beside the one that has not answered (RFC 8305, section 8).
    pub happy_eyeballs: Duration,
    /// How old a cached name may become.
    pub name_cache: Duration,
    /// The delay before TCP keepalive is enabled at the dest; short connections skip the system calls.
    pub keepalive_delay: Duration,
    /// Before accepting and connecting are tried again when there are no descriptors.
    pub descriptors_retry: Duration,
}

/// Which addresses of a name are tried, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv6 first, IPv4 in turn with it.
    #[default]
    PreferIpv6,
    /// IPv4 first, IPv6 in turn with it.
    PreferIpv4,
    /// IPv6 only.
    OnlyIpv6,
    /// IPv4 only.
    OnlyIpv4,
}

/// All that a loop is told at its birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What it may use.
    pub limits: Limits,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// Which addresses of a name it tries.
    pub family: Family,
    /// Send small writes at once (`TCP_NODELAY`) on both legs.
    pub nodelay: bool,
    /// TCP keepalive on both legs: the idle time before the first probe; zero switches it off.
    pub tcp_keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 100_000,
            connections_per_source: 0,
            block_bytes: 32 << 10,
            buffer_bytes: 256 << 20,
            link_bytes: 512 << 20,
            pipes: 64,
            pipe_bytes: 1 << 20,
            handshake_bytes: 16 << 10,
            backlog: 4096,
            lookups: 1024,
            cached_names: 1024,
            addresses_per_name: 16,
            calls: 4096,
            events_per_turn: 1024,
            accepts_per_turn: 64,
            relay_bytes_per_turn: 4 << 20,
            relay_bytes_interactive: 128 << 10,
            mails_per_turn: 1024,
            timers_per_turn: 128,
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
        }
    }
}

impl Limits {
    /// The smallest block that a whole request and what a front end adds to it fit in.
    pub const BLOCK_BYTES_MIN: usize = 4096;

    /// Sides at once: two for each connection, a few that race for names with several addresses, and the sockets of
    /// links.
    pub(crate) fn sides(&self) -> usize {
        self.connections.saturating_mul(2).saturating_add(RACERS + CARRIERS_MAX)
    }

    /// Bytes of input that a handler is shown at once.
    pub(crate) fn input_bytes(&self) -> usize {
        self.handshake_bytes.min(self.block_bytes / 2)
    }
}

impl Timeouts {
    pub(crate) fn of_classes(&self) -> [Duration; TimerClass::COUNT] {
        let mut durations = [Duration::ZERO; TimerClass::COUNT];
        durations[TimerClass::Handshake as usize] = self.handshake;
        durations[TimerClass::Connect as usize] = self.connect;
        durations[TimerClass::KeepAlive as usize] = self.keep_alive;
        durations[TimerClass::KeepaliveDelay as usize] = self.keepalive_delay;
        durations[TimerClass::Idle as usize] = self.idle;
        durations[TimerClass::HalfClosed as usize] = self.half_closed;
        durations[TimerClass::Linger as usize] = self.linger;
        durations
    }
}

/// Descriptors of one process that are not for connections: the loop's own, listeners, logs, pipes in the making.
pub const DESCRIPTORS_RESERVED: usize = 64;

/// Addresses that are being tried beside the first, all connections together.
pub(crate) const RACERS: usize = 1024;

/// Carriers of one loop: 16 of each of the 256 links that others may dial, those of peers that have not joined a session yet
/// (256), and as many for what this node dials and for last words.
pub(crate) const CARRIERS_MAX: usize = 256 * 16 + 256 + 256;
