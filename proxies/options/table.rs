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
    /// The variable in the environment, if a command looks at one. `cat` and `status` do not take addresses from it:
    /// what is meant for a server would make them do something else than they were asked to.
    pub fn env_name(&self, command: Command) -> Option<String> {
        let addresses = matches!(self.value, Value::Listen | Value::Target);
        let heeds = self.env && self.commands.has(command) && !(addresses && command == Command::Cat);
        heeds.then(|| format!("SEAPROX_{}", self.long.replace('-', "_").to_ascii_uppercase()))
    }

    /// What holds for a command when nothing else is said.
    pub fn default_for(&self, command: Command) -> Option<&'static str> {
        if self.value == Value::Listen { command.spec().listen } else { self.default }
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
    pub const ALL: [Group; 8] = [
        Group::Addresses,
        Group::Access,
        Group::Keys,
        Group::Connecting,
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
    OptionSpec { long, short: None, value, default: None, help, env: true, repeat: false, commands: SERVERS, group }
}

const SERVERS: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http]);
const RELAYS: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Cat]);
const ASKING: Commands = Commands::of(&[Command::Socks, Command::Http]);
const REPORTING: Commands = Commands::of(&[Command::Static, Command::Socks, Command::Http, Command::Status]);
const STATIC: Commands = Commands::of(&[Command::Static]);
const HTTP: Commands = Commands::of(&[Command::Http]);
const STATUS: Commands = Commands::of(&[Command::Status]);
const KEYGEN: Commands = Commands::of(&[Command::Keygen]);
const PUBKEY: Commands = Commands::of(&[Command::Pubkey]);
const KEYS: Commands = Commands::of(&[Command::Keygen, Command::Pubkey]);
const EVERY: Commands = Commands::of(&Command::ALL);
const FAMILIES: Value = Value::Choice(&["ipv4", "ipv6"]);

/// Every option, in the order of the help.
#[rustfmt::skip] // One option, one or two lines.
pub static OPTIONS: &[OptionSpec] = &[
    option(Group::Addresses, "listen", Value::Listen, "where to listen: PORT (loopback), :PORT (every address), \
        HOST:PORT, unix:/path; HOST:3000-3010 is a range").short('l').repeat().only(RELAYS),
    option(Group::Addresses, "to", Value::Target, "where to connect; the first --to belongs to the first --listen and so \
        on, a single one to all of them").repeat().only(STATIC),
    option(Group::Access, "allow", Value::Rule, "permit what matches, such as 10.0.0.0/8, example.org:443, *.example.org \
        or from:10.0.0.0/8,to:*:80-443; the first rule that matches decides, and with any --allow the rest is denied")
        .repeat().no_env(),
    option(Group::Access, "deny", Value::Rule, "deny what matches; without any --allow the rest is permitted")
        .repeat().no_env(),
    option(Group::Access, "users", Value::File, "require one of the users in a file of name:password lines").only(ASKING),
    option(Group::Keys, "config-dir", Value::Directory, "where key, authorized_keys, known_nodes and secret are (default: \
        $XDG_CONFIG_HOME/seaprox, else $HOME/.config/seaprox, else /etc/seaprox)").only(KEYS),
    option(Group::Keys, "key", Value::File, "the file of the node's key, or with --secret that of the secret (default: key \
        or secret in --config-dir; the variable never stands for the secret)").only(KEYS),
    option(Group::Keys, "secret", Value::None, "the file is a secret that two nodes share: both derive the same key from \
        it").no_env().only(KEYS),
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
    option(Group::Timers, "handshake-timeout", Value::Duration, "time for a client to say what it wants").default("10s").only(ASKING),
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
    option(Group::Limits, "threads", Value::Number(1, 1024), "event loops, one thread each").default("1"),
    option(Group::Limits, "workers", Value::Number(1, 1024), "threads that look names up, half of them at once").default("8"),
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
        let longs: HashSet<_> = OPTIONS.iter().map(|option| option.long).collect();
        let shorts: Vec<_> = OPTIONS.iter().filter_map(|option| option.short).collect();
        assert_eq!(longs.len(), OPTIONS.len());
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
    }
}
