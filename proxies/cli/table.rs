//! The one table of options. Parsing, help, the manual page and the completions are made from it.

use super::command::{Command, Commands};

/// An option, as all that is made from the table sees it.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name behind `--`.
    pub long: &'static str,
    /// The letter behind `-`.
    pub short: Option<char>,
    /// What it takes.
    pub value: Value,
    /// What holds when neither flag nor environment says anything.
    pub default: Option<&'static str>,
    /// A command with a different default, and that default.
    pub other_default: Option<(Command, &'static str)>,
    /// What it does, without a full stop.
    pub help: &'static str,
    /// Whether the environment may set it.
    pub env: bool,
    /// Whether it may be given more than once.
    pub repeat: bool,
    /// The commands that know it.
    pub commands: Commands,
    /// Where help shows it.
    pub group: Group,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: it is given or not.
    None,
    /// An address to listen on, or a range of them.
    Listen,
    /// A target, or a range of them.
    Target,
    /// A rule.
    Rule,
    /// A path.
    File,
    /// A path to a directory.
    Directory,
    /// Where the status is served.
    Socket,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A duration; `0` is off.
    Duration,
    /// A size in bytes, from the first to the second.
    Size(u64, u64),
    /// A number, from the first to the second.
    Number(u64, u64),
    /// A peer of links.
    Peer,
    /// Text of its own grammar, which this stands for.
    Text(&'static str),
}

/// A heading in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where from and where to.
    Addresses,
    /// Who may do what.
    Access,
    /// Who a node is.
    Keys,
    /// How targets are connected.
    Connecting,
    /// How links are.
    Links,
    /// How long things may take.
    Timers,
    /// How much there may be of what.
    Limits,
    /// What is said of it.
    Reporting,
    /// The rest.
    General,
}

impl OptionSpec {
    /// The variable in the environment, if a command looks at one. `cat`, `link` and `status` do not take addresses from
    /// it: what is meant for a front end would make them do something else than they were asked to.
    pub fn env_name(&self, command: Command) -> Option<String> {
        let addresses = matches!(self.value, Value::Listen | Value::Target | Value::Peer);
        let deaf = matches!(command, Command::Cat | Command::Link);
        let heeds = self.env && self.commands.has(command) && !(addresses && deaf);
        heeds.then(|| format!("SEAPROX_{}", self.long.replace('-', "_").to_ascii_uppercase()))
    }

    /// What holds for a command when nothing else is said.
    pub fn default_for(&self, command: Command) -> Option<&'static str> {
        match self.other_default {
            _ if self.value == Value::Listen => command.spec().listen,
            Some((other, default)) if other == command => Some(default),
            _ => self.default,
        }
    }

    /// The word that stands for the value in help; `None` for a flag.
    pub fn placeholder(&self) -> Option<String> {
        Some(match self.value {
            Value::None => return None,
            Value::Choice(words) => words.join("|"),
            Value::Listen => "ADDR".to_owned(),
            Value::Target => "HOST:PORT".to_owned(),
            Value::Rule => "RULE".to_owned(),
            Value::File => "FILE".to_owned(),
            Value::Directory => "DIR".to_owned(),
            Value::Socket => "unix:/path|none".to_owned(),
            Value::Duration => "TIME".to_owned(),
            Value::Size(..) => "SIZE".to_owned(),
            Value::Number(..) => "N".to_owned(),
            Value::Peer => "HOST[:PORT]".to_owned(),
            Value::Text(form) => form.to_owned(),
        })
    }

    /// The help up to its first detail.
    pub fn brief(&self) -> &'static str {
        let details = ["; ", ": ", " (", ", such as", " of name:"];
        let end = details.iter().filter_map(|detail| self.help.find(detail)).min();
        &self.help[..end.unwrap_or(self.help.len())]
    }

    const fn short(self, short: char) -> OptionSpec {
        OptionSpec { short: Some(short), ..self }
    }

    const fn default(self, default: &'static str) -> OptionSpec {
        OptionSpec { default: Some(default), ..self }
    }

    const fn default_for_command(self, command: Command, default: &'static str) -> OptionSpec {
        OptionSpec { other_default: Some((command, default)), ..self }
    }

    const fn repeat(self) -> OptionSpec {
        OptionSpec { repeat: true, ..self }
    }

    const fn no_env(self) -> OptionSpec {
        OptionSpec { env: false, ..self }
    }

    const fn only(self, commands: Commands) -> OptionSpec {
        OptionSpec { commands, ..self }
    }
}

impl Group {
    /// The headings, in the order of the help.
    pub const ALL: [Group; 9] = [
        Group::Addresses,
        Group::Access,
        Group::Keys,
        Group::Connecting,
        Group::Links,
        Group::Timers,
        Group::Limits,
        Group::Reporting,
        Group::General,
    ];

    /// The heading as text.
    pub fn title(self) -> &'static str {
        match self {
            Group::Addresses => "Addresses",
            Group::Access => "Access",
            Group::Keys => "Keys",
            Group::Connecting => "Connecting",
            Group::Links => "Links",
            Group::Timers => "Timers (0 = off)",
            Group::Limits => "Limits",
            Group::Reporting => "Log and status",
            Group::General => "General",
        }
    }
}

/// The options that a command knows, in the order of the table.
pub fn options_of(command: Command) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.commands.has(command))
}

/// An option of every server, until the builder says otherwise.
const fn option(group: Group, long: &'static str, value: Value, help: &'static str) -> OptionSpec {
    OptionSpec {
        long,
        short: None,
        value,
        default: None,
        other_default: None,
        help,
        env: true,
        repeat: false,
        commands: SERVERS,
        group,
    }
}

const FRONT_ENDS: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http]);
const SERVERS: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Link]);
const RELAYS: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Cat, Command::Link]);
const ROUTED: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Cat]);
const ASKING: Commands = Commands::of(&[Command::Socks, Command::Http]);
const SAYING: Commands = Commands::of(&[Command::Socks, Command::Http, Command::Link]);
const REPORTING: Commands =
    Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Link, Command::Status]);
const STATIC: Commands = Commands::of(&[Command::Static]);
const HTTP: Commands = Commands::of(&[Command::Http, Command::Link]);
const LINK: Commands = Commands::of(&[Command::Link]);
const STATUS: Commands = Commands::of(&[Command::Status]);
const KEYGEN: Commands = Commands::of(&[Command::Keygen]);
const PUBKEY: Commands = Commands::of(&[Command::Pubkey]);
const NODES: Commands = Commands::of(&[
    Command::Static,
    Command::Socks,
    Command::Http,
    Command::Cat,
    Command::Link,
    Command::Keygen,
    Command::Pubkey,
]);
const READING: Commands =
    Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Cat, Command::Link, Command::Pubkey]);
const KEYS: Commands = Commands::of(&[Command::Keygen, Command::Pubkey]);
const EVERY: Commands = Commands::of(&Command::ALL);
const FAMILIES: Value = Value::Choice(&["ipv4", "ipv6"]);
const MODES: Value = Value::Choice(&["stripe", "single", "redundant"]);
const FORWARD: Value = Value::Text("[BIND:]PORT:HOST:PORT");
const PLACE: Value = Value::Text("[BIND:]PORT");

/// Every option, in the order of the help.
#[rustfmt::skip] // One option, one or two lines.
pub static OPTIONS: &[OptionSpec] = &[
    option(Group::Addresses, "listen", Value::Listen, "where to listen: PORT (loopback), :PORT (every address), \
        HOST:PORT, unix:/path; HOST:3000-3010 is a range; a link listens on port 23232 unless another is given").short('l').repeat().only(RELAYS),
    option(Group::Addresses, "to", Value::Target, "where to connect; the first --to belongs to the first --listen and so \
        on, a single one to all of them").repeat().only(STATIC),
    option(Group::Addresses, "via", Value::Peer, "carry the connections over a link to this peer; names are resolved there, \
        and the port is 23232 unless another is given").only(ROUTED),
    option(Group::Addresses, "connect", Value::Peer, "the peer to link with; the port is 23232 unless another is given")
        .only(LINK),
    option(Group::Addresses, "local", FORWARD, "listen here and connect from the far end, as ssh does; without BIND on \
        loopback, with * on every address; unix:/path:HOST:PORT listens on a Unix socket").short('L').repeat().no_env().only(LINK),
    option(Group::Addresses, "remote", FORWARD, "listen at the far end and connect from here, as ssh does; without BIND on \
        loopback; [BIND:]PORT:unix:/path connects a Unix socket").short('R').repeat().no_env().only(LINK),
    option(Group::Addresses, "dynamic", PLACE, "offer SOCKS here; the far end connects").short('D').repeat().no_env().only(LINK),
    option(Group::Addresses, "http", PLACE, "offer an HTTP proxy here; the far end connects").short('H').repeat().no_env()
        .only(LINK),
    option(Group::Addresses, "stdio", Value::Text("HOST:PORT"), "connect standard input and output to a target of the far \
        end; as a ProxyCommand of ssh").short('W').no_env().only(LINK),
    option(Group::Access, "allow", Value::Rule, "permit what matches, such as 10.0.0.0/8, example.org:443, *.example.org \
        or from:10.0.0.0/8,to:*:80-443; the first rule that matches decides, and with any --allow the rest is denied")
        .repeat().no_env().only(FRONT_ENDS),
    option(Group::Access, "deny", Value::Rule, "deny what matches; without any --allow the rest is permitted")
        .repeat().no_env().only(FRONT_ENDS),
    option(Group::Access, "users", Value::File, "require one of the users in a file of name:password lines").only(ASKING),
    option(Group::Access, "no-strict-modes", Value::None, "take files of keys, users and paths that other users may change or \
        replace, and keys that they may read; otherwise such a file is refused").only(READING),
    option(Group::Keys, "config-dir", Value::Directory, "where key, authorized_keys, known_nodes and secret are (default: \
        $XDG_CONFIG_HOME/seaprox, else $HOME/.config/seaprox, else /etc/seaprox)").only(NODES),
    option(Group::Keys, "key", Value::File, "the file of the node's key, or with --secret that of the secret (default: key \
        or secret in --config-dir; the variable never stands for the secret)").only(KEYS),
    option(Group::Keys, "secret", Value::None, "the file is a secret that two nodes share: both derive the same key from \
        it").no_env().only(KEYS),
    option(Group::Keys, "key", Value::File, "the file of the node's key; made at its first use (default: key in \
        --config-dir)").only(RELAYS),
    option(Group::Keys, "secret", Value::File, "a secret that both nodes share instead of keys; whoever has it may do \
        everything, in both directions").only(RELAYS),
    option(Group::Keys, "force", Value::None, "replace what is there; peers that know the old key refuse the new one")
        .no_env().only(KEYGEN),
    option(Group::Keys, "fingerprint", Value::None, "print the fingerprint, too: SHA-256 of the public key in DER")
        .no_env().only(PUBKEY),
    option(Group::Connecting, "prefer", FAMILIES, "which addresses of a name to try first").default("ipv6").only(RELAYS),
    option(Group::Connecting, "only", FAMILIES, "which addresses of a name to try at all").only(RELAYS),
    option(Group::Connecting, "dns-cache", Value::Duration, "how long a resolved name is used again; 0 = not at all")
        .default("30s"),
    option(Group::Connecting, "no-nodelay", Value::None, "leave TCP_NODELAY off").only(RELAYS),
    option(Group::Connecting, "no-splice", Value::None, "always copy through buffers instead of moving bytes in the kernel")
        .only(RELAYS),
    option(Group::Links, "authorized-keys", Value::File, "whom to let in, and what each may do (default: authorized_keys in \
        --config-dir)").only(LINK),
    option(Group::Links, "ask", Value::None, "ask on the terminal about what a key is not permitted to have opened or listened \
        for; the answer holds until SIGHUP").no_env().only(LINK),
    option(Group::Links, "known-nodes", Value::File, "the keys of peers (default: known_nodes in --config-dir)").only(RELAYS),
    option(Group::Links, "peer-key", Value::Text("KEY|SHA256:..."), "the one key that the peer may have; known nodes are not \
        asked then").only(RELAYS),
    option(Group::Links, "subflows", Value::Number(1, 16), "transport connections of the link, over each path").default("1")
        .only(RELAYS),
    option(Group::Links, "path", Value::Text("PATH"), "a way to the peer: SOURCE[%INTERFACE][->HOST[:PORT]], such as 10.0.0.2, \
        %wlan0 or 10.0.0.2->198.51.100.7").repeat().only(RELAYS),
    option(Group::Links, "paths", Value::File, "a file of paths, one a line; it is read again when it has changed, and paths \
        come and go while the link lives").only(RELAYS),
    option(Group::Links, "mode", MODES, "how subflows are used: all of them, one at a time, or two for what is small").default("stripe")
        .only(RELAYS),
    option(Group::Links, "cipher", Value::Text("LIST"), "ciphers in the order of preference, of aes-128-gcm, aes-256-gcm \
        and chacha20-poly1305 (default: what the processor does best)").only(RELAYS),
    option(Group::Links, "exit-on-failure", Value::None, "end when the link or a forward cannot be had (69) or is lost (75); \
        otherwise it is tried again").only(SERVERS),
    option(Group::Links, "link-keepalive", Value::Duration, "silence before the peer is asked for a sign of life").default("5s")
        .only(RELAYS),
    option(Group::Links, "link-dead", Value::Duration, "silence after which a subflow is dead").default("15s").only(RELAYS),
    option(Group::Links, "link-hold", Value::Duration, "time that connections outlive the loss of all subflows").default("10m")
        .only(RELAYS),
    option(Group::Links, "link-retry-max", Value::Duration, "longest pause before a subflow that cannot be had is dialled \
        again; the pauses double from 200ms, and are 5s at most while clients wait").default("15s").only(RELAYS),
    option(Group::Links, "link-memory", Value::Size(1 << 20, 1 << 40), "what one link holds for its readers, and as much for \
        its peer").default("64MiB").only(RELAYS),
    option(Group::Links, "link-memory-total", Value::Size(8 << 20, 1 << 40), "what all links hold of what they received, and as \
        much for their peers; one key has half of it at most, one link a quarter").default("512MiB").only(RELAYS),
    option(Group::Links, "link-streams", Value::Number(1, 1_000_000), "connections at a time over one link").default("65536")
        .only(RELAYS),
    option(Group::Links, "link-max", Value::Number(1, 65_535), "links at a time that others dial").default("256").only(LINK),
    option(Group::Links, "link-key-max", Value::Number(1, 65_535), "those of them that one key may have").default("64").only(LINK),
    option(Group::Timers, "handshake-timeout", Value::Duration, "time for a client to say what it wants, and for the peer of \
        a link to prove who it is; less when many peers are at it").default("10s").default_for_command(Command::Link, "5s")
        .only(SAYING),
    option(Group::Timers, "connect-timeout", Value::Duration, "time for a name to resolve and its target to answer")
        .default("10s").only(RELAYS),
    option(Group::Timers, "idle-timeout", Value::Duration, "time without a byte in either direction").default("0").only(RELAYS),
    option(Group::Timers, "half-closed-timeout", Value::Duration, "time without a byte once one direction is closed")
        .default("1h").only(RELAYS),
    option(Group::Timers, "keepalive-timeout", Value::Duration, "time for a client to send its next request")
        .default("60s").only(HTTP),
    option(Group::Timers, "drain-timeout", Value::Duration, "time for connections to end by themselves after SIGTERM").default("30s"),
    option(Group::Timers, "tcp-keepalive", Value::Duration, "silence before TCP asks whether the peer is there")
        .default("60s").only(RELAYS),
    option(Group::Limits, "max-connections", Value::Number(1, 10_000_000), "connections at a time").default("100000"),
    option(Group::Limits, "max-connections-per-source", Value::Number(0, 10_000_000), "connections at a time from one client \
        address, or from one /64 of IPv6; 0 for as many as there are").default("0").only(SERVERS),
    option(Group::Limits, "threads", Value::Number(1, 1024), "event loops, one thread each; a link has one").default("1")
        .only(FRONT_ENDS),
    option(Group::Limits, "workers", Value::Number(1, 1024), "threads that look names up, half of them at once, a quarter for one key or client address").default("8"),
    option(Group::Limits, "buffer", Value::Size(4 << 10, 16 << 20), "one buffer; a connection holds one for each \
        direction, only while it has bytes").default("32KiB"),
    option(Group::Limits, "buffer-memory", Value::Size(64 << 10, 1 << 40), "all buffers together").default("256MiB"),
    option(Group::Limits, "pipes", Value::Number(0, 1_000_000), "pipes for moving bytes in the kernel").default("64"),
    option(Group::Limits, "pipe-size", Value::Size(4 << 10, 1 << 30), "one such pipe").default("1MiB"),
    option(Group::Limits, "backlog", Value::Number(1, 65_535), "connections that wait to be accepted").default("4096"),
    option(Group::Reporting, "log-format", Value::Choice(&["text", "json"]), "how the log on stderr is written")
        .default("text").only(RELAYS),
    option(Group::Reporting, "verbose", Value::None, "say more; twice for everything").short('v').repeat().no_env().only(EVERY),
    option(Group::Reporting, "quiet", Value::None, "say warnings and errors only").short('q').repeat().no_env().only(EVERY),
    option(Group::Reporting, "status", Value::Socket, "where `seaprox status` finds the process (default: a socket of its \
        own in the user's runtime directory)").only(REPORTING),
    option(Group::Reporting, "json", Value::None, "print JSON").no_env().only(STATUS),
    option(Group::General, "help", Value::None, "print help: short for -h, long for --help").short('h').no_env().only(EVERY),
    option(Group::General, "version", Value::None, "print the version").short('V').no_env().only(EVERY),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_plain() {
        // What is a file to one command may be a flag to another, but no command has a name twice.
        for command in Command::ALL {
            let longs: HashSet<_> = options_of(command).map(|option| option.long).collect();
            assert_eq!(longs.len(), options_of(command).count(), "{}", command.name());
        }
        let shorts: Vec<_> = OPTIONS.iter().filter_map(|option| option.short).collect();
        assert_eq!(shorts.iter().collect::<HashSet<_>>().len(), shorts.len());
        for option in OPTIONS {
            assert!(option.long.len() > 1 && option.long.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
            assert!(!option.help.ends_with('.') && !option.help.contains("  "), "{}", option.long);
        }
    }

    #[test]
    fn the_environment_is_named_after_the_option() {
        let listen = OPTIONS.iter().find(|option| option.long == "listen").unwrap();
        assert_eq!(listen.env_name(Command::Socks).as_deref(), Some("SEAPROX_LISTEN"));
        assert_eq!(listen.env_name(Command::Cat), None);
        assert_eq!(listen.default_for(Command::Http), Some("127.0.0.1:8080"));
        assert_eq!(listen.default_for(Command::Static), Some("127.0.0.1:55555"));
        let handshake = OPTIONS.iter().find(|option| option.long == "handshake-timeout").unwrap();
        assert_eq!(
            [Command::Socks, Command::Link].map(|command| handshake.default_for(command)),
            [Some("10s"), Some("5s")]
        );
    }
}
