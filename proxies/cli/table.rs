//! The one table of options. The parser, the help, the manual page and the completions are made from it.

use seaprox::node::{CarrierKind, Congestion, LINKS_MAX};
use seaprox::rules::Action;

use super::command::{Command, Commands};
use super::field::Field;
use super::fields::{
    ADMIN, ADMIN_GROUP, ADMIN_HOST, BIND_SOURCE, CARRIER, CIPHER, CONGESTION, CPU, KEY_EXCHANGE, KEY_FILE, KNOWN_NODES,
    LOG_FORMAT, MODE, ONLY, PATH, PATHS, PEER_KEY, PERMIT_END, PREFER, PROXY_ACCEPT, PROXY_SEND, PROXY_SEND_LINKS,
    PROXY_SEND_TO, PROXY_UDP, SECRET_FILE, SOURCE, STATUS_SOCKET, STRICT_MODES, UNIX_MODE, UNIX_OWNER, USERS,
};
use super::section::{Section, Sections};

/// An option, as the parser, the help and the completions see it.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The name behind `--`.
    pub long: &'static str,
    /// The letter behind `-`.
    pub short: Option<char>,
    /// The kind of its value.
    pub value: Value,
    /// The field of the configuration, whose default is the value if neither a flag nor the environment sets one.
    pub field: Field,
    /// A command for which the option fills another field.
    pub other_field: Option<(Command, Field)>,
    /// The help: one sentence without a full stop, then its details.
    pub help: &'static str,
    /// True if the environment may set the option.
    pub env: bool,
    /// True if the option may be given more than once.
    pub repeat: bool,
    /// The heading in the help.
    pub group: Group,
    /// The sections of a file in which the option is a key.
    pub sections: Sections,
    /// The commands that have the option, beside the front ends that name it in their own specification.
    commands: Commands,
}

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value: the option is a flag.
    None,
    /// An address to listen on, or a range of ports.
    Listen,
    /// A target, or a range of ports.
    Target,
    /// An access rule.
    Rule,
    /// A path of a file.
    File,
    /// A path of a directory.
    Directory,
    /// The address of the status socket.
    Socket,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A duration; `0` switches the timer off.
    Duration,
    /// A size in bytes, from the least to the greatest.
    Size(u64, u64),
    /// A number, from the least to the greatest.
    Number(u64, u64),
    /// The address of a peer of links.
    Peer,
    /// Text of its own grammar; holds the placeholder in the help.
    Text(&'static str),
}

/// A heading in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Addresses,
    Access,
    Keys,
    Connecting,
    Links,
    Timers,
    Limits,
    Reporting,
    General,
}

impl OptionSpec {
    /// Returns true if a command has this option.
    pub fn belongs_to(&self, command: Command) -> bool {
        let is_own = match command {
            Command::FrontEnd(kind) => kind.spec().has_flag(self.long),
            // A command that reads a file has the options that fill fields of the process: they take precedence over the file.
            Command::Run | Command::Check => {
                self.sections.has(Section::Process) || self.sections.has(Section::Defaults)
            }
            _ => false,
        };
        self.commands.has(command) || is_own
    }

    /// Returns the commands that have this option, in the order of the help.
    pub fn commands(&self) -> impl Iterator<Item = Command> {
        Command::ALL.into_iter().filter(|command| self.belongs_to(*command))
    }

    /// Returns the environment variable that sets the option for a command, if there is one. `cat`, `link` and `status` take
    /// no addresses from the environment: a variable that is meant for a front end would change what they do.
    pub fn env_name(&self, command: Command) -> Option<String> {
        let is_address = matches!(self.value, Value::Listen | Value::Target | Value::Peer);
        let is_ignored = is_address
            && matches!(command, Command::Cat | Command::Link | Command::Send | Command::Receive | Command::Get);
        let is_read = self.env && self.belongs_to(command) && !is_ignored;
        is_read.then(|| format!("SEAPROX_{}", self.long.replace('-', "_").to_ascii_uppercase()))
    }

    /// Returns the field that the option fills for a command.
    pub fn field_for(&self, command: Command) -> Field {
        match self.other_field {
            Some((other, field)) if other == command => field,
            _ => self.field,
        }
    }

    /// Returns the field that the option fills in a section of a file.
    pub fn field_in(&self, section: Section) -> Field {
        match section {
            Section::Link | Section::Serve => self.field_for(Command::Link),
            _ => self.field,
        }
    }

    /// Returns the default for a command, if there is one.
    pub fn default_for(&self, command: Command) -> Option<String> {
        match self.value {
            Value::Listen => command.spec().listen.map(str::to_owned),
            value => self.field_for(command).default_text(value),
        }
    }

    /// Returns the placeholder of the value in the help; none for a flag.
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

    /// Returns the help up to its first detail, for the short help.
    pub fn brief(&self) -> &'static str {
        let details = ["; ", ": ", " (", ", such as", " of name:"];
        let end = details.iter().filter_map(|detail| self.help.find(detail)).min();
        &self.help[..end.unwrap_or(self.help.len())]
    }

    const fn short(self, short: char) -> OptionSpec {
        OptionSpec { short: Some(short), ..self }
    }

    const fn fills(self, field: Field) -> OptionSpec {
        OptionSpec { field, ..self }
    }

    const fn fills_for(self, command: Command, field: Field) -> OptionSpec {
        OptionSpec { other_field: Some((command, field)), ..self }
    }

    const fn repeat(self) -> OptionSpec {
        OptionSpec { repeat: true, ..self }
    }

    const fn no_env(self) -> OptionSpec {
        OptionSpec { env: false, ..self }
    }

    const fn key(self, sections: Sections) -> OptionSpec {
        OptionSpec { sections, ..self }
    }

    const fn only(self, commands: Commands) -> OptionSpec {
        OptionSpec { commands, ..self }
    }
}

impl Group {
    /// All headings, in the order of the help.
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

    /// Returns the heading as text.
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

/// Returns the options of a command, in the order of the table.
pub fn options_of(command: Command) -> impl Iterator<Item = &'static OptionSpec> {
    OPTIONS.iter().filter(move |option| option.belongs_to(command))
}

/// Returns an option of the servers that the environment may set; the methods change single properties.
const fn option(group: Group, long: &'static str, value: Value, help: &'static str) -> OptionSpec {
    OptionSpec {
        long,
        short: None,
        value,
        field: Field::None,
        other_field: None,
        help,
        env: true,
        repeat: false,
        commands: SERVERS,
        group,
        sections: Sections::NONE,
    }
}

/// For options that front ends name in their own specification.
const NAMED: Commands = Commands::NONE;
const NAMED_AND_LINK: Commands = LINK;
const FRONT_ENDS: Commands = Commands::FRONT_ENDS;
/// Commands that run until a signal stops them.
const SERVERS: Commands = FRONT_ENDS.and(&[Command::Link]);
/// Commands that relay connections.
const RELAYS: Commands = SERVERS.and(&[Command::Cat, Command::Send, Command::Receive, Command::Get]);
/// Commands that listen.
const LISTENING: Commands = SERVERS.and(&[Command::Cat, Command::Receive]);
/// Commands that dial links.
const DIALING: Commands = SERVERS.and(&[Command::Cat, Command::Send, Command::Get]);
const RECEIVE: Commands = Commands::of(&[Command::Receive]);
/// Commands that take `--via`.
const ROUTED: Commands = FRONT_ENDS.and(&[Command::Cat, Command::Send, Command::Get]);
const REPORTING: Commands = SERVERS.and(&[Command::Status, Command::Ctl, Command::Top, Command::Console]);
/// Commands that ask a running process.
const ASKING: Commands = Commands::of(&[Command::Status, Command::Ctl]);
const TOP: Commands = Commands::of(&[Command::Top]);
const CTL: Commands = Commands::of(&[Command::Ctl]);
/// Commands that give names to records.
const NAMING: Commands = SERVERS.and(&[Command::Ctl]);
/// Commands that open forwards.
const FORWARDING: Commands = LINK.and(&[Command::Ctl]);
const LINK: Commands = Commands::of(&[Command::Link]);
const RUN: Commands = Commands::of(&[Command::Run]);
const CHECK: Commands = Commands::of(&[Command::Check]);
const KEYGEN: Commands = Commands::of(&[Command::Keygen]);
const PUBKEY: Commands = Commands::of(&[Command::Pubkey]);
const INVITE: Commands = Commands::of(&[Command::Invite]);
const JOIN: Commands = Commands::of(&[Command::Join]);
const INVITATIONS: Commands = INVITE.and(&[Command::Join]);
const KEYS: Commands = Commands::of(&[Command::Keygen, Command::Pubkey]);
/// Commands that have links.
const DIALERS: Commands = RELAYS.and(&[Command::Console]);
const CONSOLE: Commands = Commands::of(&[Command::Console]);
/// Commands that use files of the configuration directory.
const CONFIGURED: Commands = DIALERS.and(&[Command::Keygen, Command::Pubkey, Command::Invite, Command::Join]);
/// Commands that use the key of the node.
const KEYED: Commands = DIALERS.and(&[Command::Invite, Command::Join]);
/// Commands that read files whose owner and mode are checked.
const READING: Commands = DIALERS.and(&[Command::Pubkey, Command::Invite, Command::Join]);
const EVERY: Commands = Commands::ALL;
const FAMILIES: Value = Value::Choice(&["ipv4", "ipv6"]);
const BALANCE: Value = Value::Choice(crate::frontends::r#static::BALANCES);
const UDP_FILTERS: Value = Value::Choice(crate::frontends::socks::associate::FILTERS);
const SOURCES: &[&str] = &["host", "transparent"];
const MODES: Value = Value::Choice(&["stripe", "single", "redundant"]);
const FORWARD: Value = Value::Text("[BIND:]PORT:HOST:PORT");
const LISTEN: Value = Value::Text("[BIND:]PORT");

/// All options, in the order of the help.
#[rustfmt::skip] // One option takes one or two lines.
pub static OPTIONS: &[OptionSpec] = &[
    option(Group::Addresses, "listen", Value::Listen, "address to listen on: PORT (loopback), :PORT (every address), \
        HOST:PORT, unix:/path, fd:NAME (sockets that the service manager passes), each of UDP after udp:; HOST:3000-3010 is a range; \
        link uses port 23232 if none is given").short('l').repeat().only(LISTENING)
        .key(Sections::LISTENED),
    option(Group::Addresses, "to", Value::Target, "target to connect to; the first --to belongs to the first --listen and so \
        on, a single --to to all of them; several targets of one --listen stand in one --to with commas between them; a target \
        is HOST:PORT, unix:/path, or a service of DNS such as srv:_http._tcp.example.org").repeat().only(NAMED)
        .key(Sections::LISTENERS),
    option(Group::Addresses, "udp", Value::None, "listen for datagrams of UDP, and send them to the targets; an address after udp: \
        needs no --udp").only(NAMED)
        .fills(Field::Flag(|d| &mut d.udp, true)).key(Sections::LISTENERS),
    option(Group::Addresses, "tcp", Value::None, "listen for TCP, too, beside --udp").only(NAMED)
        .fills(Field::Flag(|d| &mut d.tcp, true)).key(Sections::LISTENERS),
    option(Group::Addresses, "balance", BALANCE, "choice among the targets of a listener; with it, each address of a name is \
        a target of its own; source-hash sends a client address to the same target for as long as that is there").only(NAMED)
        .key(Sections::LISTENERS),
    option(Group::Addresses, "via", Value::Peer, "carry the connections over a link to this peer; the peer resolves names; \
        the port is 23232 if none is given; several peers, or a service of DNS, are servers that stand for one another")
        .repeat().only(ROUTED)
        .key(Sections::LISTENERS),
    option(Group::Addresses, "name", Value::Text("NAME"), "name of the listener or the link in log and status; behind a forward, \
        the name of that forward (default: made of the address)").repeat().no_env().only(NAMING)
        .key(Sections::NAMED),
    option(Group::Addresses, "connect", Value::Peer, "peer to link with; the port is 23232 if none is given; several peers, with \
        commas between them, or a service of DNS such as srv:_seaprox._tcp.example.org, are servers that stand for one another: \
        there is a link to each of them, and each connection takes the one with the least delay and load")
        .repeat().only(LINK)
        .key(Sections::DIALED),
    option(Group::Addresses, "port", Value::Number(1, 65_535), "port of the peer, if its address has none").short('p').no_env().only(LINK),
    option(Group::Addresses, "local", FORWARD, "listen here and connect from the far end, as ssh -L does; without BIND on \
        loopback, with * on every address; unix:/path:HOST:PORT listens on a Unix socket, PORT:end:NAME leads to an end of the far node, udp:53:HOST:53 carries \
        datagrams").short('L').repeat().no_env().only(FORWARDING),
    option(Group::Addresses, "remote", FORWARD, "listen at the far end and connect from here, as ssh -R does; without BIND on \
        loopback; [BIND:]PORT:unix:/path connects to a Unix socket, [BIND:]PORT:end:NAME to an end of --permit-end; udp:53:HOST:53 carries \
        datagrams").short('R').repeat().no_env().only(FORWARDING),
    option(Group::Addresses, "dynamic", LISTEN, "offer a SOCKS proxy here; the far end connects").short('D').repeat().no_env().only(FORWARDING),
    option(Group::Addresses, "http", LISTEN, "offer an HTTP proxy here; the far end connects").short('H').repeat().no_env()
        .only(FORWARDING),
    option(Group::Addresses, "stdio", Value::Text("HOST:PORT"), "connect standard input and output to a target of the far \
        end, or to its end end:NAME; for ProxyCommand of ssh").short('W').no_env().only(LINK),
    option(Group::Access, "allow", Value::Rule, "permit connections that match, such as 10.0.0.0/8, example.org:443, \
        *.example.org or from:10.0.0.0/8,to:*:80-443; the first matching rule decides, and with any --allow the rest is denied; \
        udp:*:53 is about datagrams, which rules that do not mention udp: deny")
        .repeat().no_env().only(FRONT_ENDS)
        .fills(Field::Rules(Some(Action::Allow))).key(Sections::CLIENTS),
    option(Group::Access, "deny", Value::Rule, "deny connections that match; without any --allow the rest is permitted")
        .repeat().no_env().only(FRONT_ENDS)
        .fills(Field::Rules(Some(Action::Deny))).key(Sections::CLIENTS),
    option(Group::Access, "rule", Value::Text("allow|deny RULE"), "permit or deny connections that match; the same as --allow \
        and --deny, for lists in which both alternate").repeat().no_env().only(FRONT_ENDS)
        .fills(Field::Rules(None)).key(Sections::CLIENTS),
    option(Group::Addresses, "udp-advertise", Value::Text("IP"), "address that a client of UDP ASSOCIATE is told to send its datagrams \
        to, if clients reach this host by another one than its own (default: the address that the client has connected to)").only(NAMED_AND_LINK)
        .key(Sections::LISTENERS),
    option(Group::Addresses, "bind-advertise", Value::Text("IP"), "address that a client of BIND is told for the connection that it \
        waits for, if hosts reach this one by another address than its own (default: the address that the client has connected to)")
        .only(NAMED).key(Sections::LISTENERS),
    option(Group::Access, "udp-any-source", Value::None, "take the first datagram of an association from any address, and not only \
        from that of its connection; the later ones come from where the first one came from").only(NAMED_AND_LINK).key(Sections::LISTENERS),
    option(Group::Access, "udp-filter", UDP_FILTERS, "datagrams that pass to the client of an association: those of hosts that it \
        has sent to, or all; over a link a target alone answers, whatever is set").only(NAMED).key(Sections::LISTENERS),
    option(Group::Access, "users", Value::File, "require a user and a password from a file of name:password lines").only(NAMED)
        .fills(USERS).key(Sections::CLIENTS),
    option(Group::Access, "proxy-protocol-accept-from", Value::Text("NETWORK"), "networks whose clients begin with a header of the PROXY \
        protocol, version 1 or 2, such as 10.0.0.0/8 or unix; other clients are refused, and the header's address counts as the client's")
        .repeat().no_env().only(FRONT_ENDS)
        .fills(PROXY_ACCEPT).key(Sections::LISTENERS),
    option(Group::Access, "proxy-protocol-send", Value::Choice(&["v1", "v2"]), "begin each connection to a target with a header of \
        the PROXY protocol of this version; over links it has the client that the peer tells, if the key of the peer has \
        permit-source= for it, otherwise the peer").only(SERVERS)
        .fills(PROXY_SEND).fills_for(Command::Link, PROXY_SEND_LINKS).key(Sections::NAMED),
    option(Group::Access, "proxy-protocol-send-to", Value::Text("TARGET=VERSION"), "header of the PROXY protocol for one target, v1, v2 \
        or none, whatever --proxy-protocol-send says, such as 10.0.0.5:80=v2; a service stands for its hosts")
        .repeat().no_env().only(FRONT_ENDS)
        .fills(PROXY_SEND_TO).key(Sections::LISTENERS),
    option(Group::Access, "proxy-protocol-udp", Value::Choice(&["each", "first"]), "datagrams of a flow that have a header, of those that \
        are accepted and sent; datagrams always have version 2").only(FRONT_ENDS)
        .fills(PROXY_UDP).key(Sections::LISTENERS),
    option(Group::Access, "yes", Value::None, "accept all that keys in authorized_keys send, without asking").short('y').no_env()
        .only(RECEIVE),
    option(Group::Access, "yes-from", Value::Text("KEY|SHA256:...|NAME"), "accept what the peer with this key, fingerprint or name in \
        authorized_keys sends, without asking").repeat().no_env().only(RECEIVE),
    option(Group::Access, "quota", Value::Size(0, 1 << 50), "bytes that all peers together may place while this process runs; an \
        offer that exceeds them is refused (default: no limit)").no_env().only(RECEIVE),
    option(Group::Access, "once", Value::None, "stop when one file or folder has arrived").no_env().only(RECEIVE),
    option(Group::Access, "no-strict-modes", Value::None, "accept files of keys, users and paths that other users can change or \
        replace, and private keys that other users can read; without this option such files are refused").only(READING)
        .fills(STRICT_MODES).key(Sections::PROCESS),
    option(Group::Keys, "config-dir", Value::Directory, "directory of key, authorized_keys, known_nodes and secret (default: \
        $XDG_CONFIG_HOME/seaprox, else $HOME/.config/seaprox, else /etc/seaprox)").only(CONFIGURED)
        .fills(Field::Path(|d| &mut d.process.directory)).key(Sections::PROCESS),
    option(Group::Keys, "key", Value::File, "file of the node's key, or of the shared secret with --secret (default: key \
        or secret in --config-dir; the variable never names the file of the secret)").only(KEYS),
    option(Group::Keys, "secret", Value::None, "make or read a secret that two nodes share; both nodes derive the same key \
        from it").no_env().only(KEYS),
    option(Group::Keys, "key", Value::File, "file of the node's key; the first use makes it (default: key in \
        --config-dir)").short('i').only(KEYED)
        .fills(KEY_FILE).key(Sections::PROCESS),
    option(Group::Keys, "secret", Value::File, "file of a secret that both nodes share instead of keys; each node that has it \
        may do everything, in both directions").only(DIALERS)
        .fills(SECRET_FILE).key(Sections::PROCESS),
    option(Group::Keys, "secret", Value::File, "refused, because a node with a shared secret takes no invitations").only(INVITE),
    option(Group::Keys, "force", Value::None, "replace an existing file; peers that know the old key refuse the new one")
        .no_env().only(KEYGEN),
    option(Group::Keys, "fingerprint", Value::None, "also print the fingerprint: SHA-256 of the public key in DER")
        .no_env().only(PUBKEY),
    option(Group::Keys, "file", Value::File, "read the invitation from a file that other users cannot read").no_env().only(JOIN),
    option(Group::Keys, "permit-open", Value::Text("PLACE"), "permit the other node to have this one connect to a target, such as \
        db:5432, 10.0.0.0/8:80-443 or '*'; without it, it may open nothing").repeat().no_env().only(INVITATIONS),
    option(Group::Keys, "permit-listen", Value::Text("[ADDR:]PORT"), "permit the other node to have this one listen on an address, such as \
        2222 (loopback) or '*:8000-8010'; without it, it may listen nowhere").repeat().no_env().only(INVITATIONS),
    option(Group::Keys, "permit-source", Value::Text("NETWORK"), "take the other node's word that a client has an address of this network, \
        such as 10.0.0.0/8 or '*', in headers of the PROXY protocol and in the log; without it, its clients have its own address")
        .repeat().no_env().only(INVITATIONS),
    option(Group::Keys, "name", Value::Text("NAME"), "name of the other node in logs").no_env().only(INVITATIONS),
    option(Group::Keys, "address", Value::Text("HOST[:PORT]"), "address at which the other node dials this one, up to 8; :PORT is \
        a port of the addresses of the interfaces (default: these addresses, the public ones if there are any, and port 23232)")
        .repeat().no_env().only(INVITE),
    option(Group::Keys, "expires", Value::Duration, "time for which the invitation may be used, at most 30d")
        .fills(Field::Timer(|d| &mut d.invitation.expires)).no_env().only(INVITE),
    option(Group::Keys, "uses", Value::Number(1, 1_000), "number of nodes that the invitation may join")
        .fills(Field::Number32(|d| &mut d.invitation.uses)).no_env().only(INVITE),
    option(Group::Keys, "valid-for", Value::Duration, "time from joining on for which the key of the other node is valid; \
        0 for ever").fills(Field::Duration(|d| &mut d.invitation.valid_for)).no_env().only(INVITE),
    option(Group::Keys, "key-uses", Value::Number(0, 1_000_000_000), "number of sessions that the key of the other node may begin; \
        0 for no limit").fills(Field::Number(|d| &mut d.invitation.key_uses)).no_env().only(INVITE),
    option(Group::Connecting, "prefer", FAMILIES, "address family that is tried first")
        .fills(PREFER).only(RELAYS)
        .key(Sections::CLIENTS),
    option(Group::Connecting, "only", FAMILIES, "only address family that is tried").only(RELAYS)
        .fills(ONLY)
        .key(Sections::CLIENTS),
    option(Group::Connecting, "source", Value::Text("SOURCE"), "source of connections to targets: ADDRESS[:PORT][%INTERFACE], such \
        as 10.0.0.2 or %eth1").only(FRONT_ENDS)
        .fills(SOURCE).key(Sections::CLIENTS),
    option(Group::Connecting, "bind-source", Value::Choice(SOURCES), "address from which targets are connected: that of this host, \
        or with transparent that of the client, which the target sees then; this needs Linux, CAP_NET_ADMIN, and routes that lead \
        the answers here; no effect over a link").only(FRONT_ENDS)
        .fills(BIND_SOURCE).key(Sections::CLIENTS),
    option(Group::Connecting, "mark", Value::Number(0, u32::MAX as u64), "mark of the packets of all connections that this process \
        makes, by which rules of the system know them; 0 for none; this needs Linux and CAP_NET_ADMIN; queries to name servers have \
        no mark").only(RELAYS)
        .fills(Field::Number32(|d| &mut d.process.loops.mark)).key(Sections::PROCESS),
    option(Group::Connecting, "dns-cache", Value::Duration, "time for which a resolved name is used again; 0 disables the cache")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.name_cache))
        .key(Sections::PROCESS),
    option(Group::Connecting, "no-nodelay", Value::None, "do not set TCP_NODELAY").only(RELAYS)
        .fills(Field::Flag(|d| &mut d.process.loops.nodelay, false))
        .key(Sections::CLIENTS),
    option(Group::Connecting, "no-splice", Value::None, "copy bytes through buffers instead of moving them in the kernel")
        .only(RELAYS)
        .fills(Field::Flag(|d| &mut d.splices, false)).key(Sections::PROCESS),
    option(Group::Links, "authorized-keys", Value::File, "file of the keys that may dial this node, each with its permissions \
        (default: authorized_keys in --config-dir)").only(LINK.and(&[Command::Join, Command::Console, Command::Receive]))
        .fills(Field::Path(|d| &mut d.server.authorized_keys))
        .key(Sections::SERVED),
    option(Group::Links, "permit-end", Value::Text("NAME=KIND:..."), "end that the peers may open by its name: NAME=unix:/path, \
        NAME=read:/path, NAME=append:/path or NAME=command:/path ARGUMENTS, such as motd=read:/etc/motd; authorized_keys has \
        ends for single keys").repeat().no_env().only(LINK.and(&[Command::Invite, Command::Join, Command::Console]))
        .fills(PERMIT_END).key(Sections::LINKED),
    option(Group::Links, "ask", Value::None, "ask on the terminal when a peer requests a target or a listener that its key does \
        not permit; the answer holds until SIGHUP").no_env().only(LINK)
        .fills(Field::Flag(|d| &mut d.server.asks, true))
        .key(Sections::SERVED),
    option(Group::Links, "known-nodes", Value::File, "file of the keys of peers (default: known_nodes in --config-dir)").only(DIALING.and(&[Command::Join, Command::Console]))
        .fills(KNOWN_NODES).key(Sections::DIALED),
    option(Group::Links, "peer-key", Value::Text("KEY|SHA256:..."), "the only key or fingerprint that the peer may have; \
        known_nodes is not read").only(DIALING.and(&[Command::Console]))
        .fills(PEER_KEY).key(Sections::DIALED),
    option(Group::Links, "links-max", Value::Number(1, 64), "links to the servers at most; with it, each address of a name is a \
        server; without it, there is a link to each name and each address, and to 8 hosts of a service")
        .fills(Field::SomeNumber(|d| &mut d.link.links_max)).only(DIALING)
        .key(Sections::DIALED),
    option(Group::Links, "subflows", Value::Number(1, 16), "transport connections of the link over each path")
        .fills(Field::Number(|d| &mut d.link.subflows)).only(DIALING)
        .key(Sections::DIALED),
    option(Group::Links, "path", Value::Text("PATH"), "path to the peer: [CARRIER:]SOURCE[,SOURCE]...[:PORT][%INTERFACE][->HOST[:PORT]], \
        such as 10.0.0.2, %wlan0, sctp:10.0.0.2,10.1.0.2 or 10.0.0.2->198.51.100.7").repeat().only(DIALING)
        .fills(PATH).key(Sections::DIALED),
    option(Group::Links, "paths", Value::File, "file of paths, one path per line; changes are applied while the link is up").only(DIALING)
        .fills(PATHS).key(Sections::DIALED),
    option(Group::Links, "local-port", Value::Number(1, 65535), "source port of the link, for each --path that names none").only(DIALING)
        .fills(Field::SomeNumber(|d| &mut d.local_port)).key(Sections::DIALED),
    option(Group::Links, "simultaneous", Value::None, "the peer dials this node at the same time, to --local-port, and neither \
        listens; authorized_keys says what the peer may do here").only(DIALING)
        .fills(Field::Flag(|d| &mut d.link.simultaneous, true)).key(Sections::DIALED),
    option(Group::Links, "mode", MODES, "use of the subflows: all of them, one at a time, or two for small data")
        .fills(MODE).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "carrier", Value::Choice(CarrierKind::NAMES), "transport of the subflows; mptcp falls back to tcp where \
        this system or the peer has none, sctp does not; quic goes over UDP; auto has tcp and, where UDP \
        passes, quic beside it").fills(CARRIER).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "congestion", Value::Choice(Congestion::NAMES), "congestion control of subflows, for the data that this node \
        sends; bbr keeps its rate on a path that loses packets. Over QUIC everywhere, where system means cubic; over TCP on \
        Linux and FreeBSD, where the system has it")
        .fills(CONGESTION).only(RELAYS).key(Sections::LINKS),
    option(Group::Links, "cipher", Value::Text("LIST"), "ciphers in order of preference: aes-128-gcm, aes-256-gcm, \
        chacha20-poly1305 (default: the fastest on this processor first)").only(RELAYS)
        .fills(CIPHER).key(Sections::PROCESS),
    option(Group::Links, "key-exchange", Value::Text("LIST"), "key exchanges in order of preference: x25519mlkem768, x25519 \
        (default: both, the first one where the processor has the instructions)").only(RELAYS)
        .fills(KEY_EXCHANGE).key(Sections::PROCESS),
    option(Group::Links, "exit-on-failure", Value::None, "exit when the link or a forward cannot be set up (69) or is lost (75); \
        without this option it is tried again").only(SERVERS)
        .fills(Field::Flag(|d| &mut d.link.exits_on_failure, true))
        .key(Sections::DIALED),
    option(Group::Links, "link-keepalive", Value::Duration, "idle time before a keepalive probe is sent")
        .fills(Field::Timer(|d| &mut d.process.node.timing.keepalive)).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "link-dead", Value::Duration, "idle time after which a subflow is closed as dead")
        .fills(Field::Timer(|d| &mut d.process.node.timing.dead)).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "link-hold", Value::Duration, "time for which connections survive the loss of all subflows")
        .fills(Field::Timer(|d| &mut d.process.node.timing.hold)).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "link-retry-max", Value::Duration, "longest delay between two attempts to dial a subflow; the delays \
        double from {redial-first}, and are {redial-awaited} at most while clients wait, and {redial-beside} at most for a path that does \
        not answer while another subflow is up")
        .fills(Field::Timer(|d| &mut d.process.node.timing.redial.1)).only(DIALING)
        .key(Sections::LINKS),
    option(Group::Links, "link-memory", Value::Size(1 << 20, 1 << 40), "memory of one link for received data; the same amount \
        again for data to send")
        .fills(Field::Size64(|d| &mut d.process.node.timing.memory_bytes)).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "link-memory-total", Value::Size(8 << 20, 1 << 40), "memory of all links for received data; the same \
        amount again for data to send; one key has at most half of it, one link a quarter")
        .fills(Field::Size(|d| &mut d.process.loops.limits.link_bytes)).only(RELAYS)
        .key(Sections::PROCESS),
    option(Group::Links, "link-streams", Value::Number(1, 1_000_000), "connections at a time over one link")
        .fills(Field::Number32(|d| &mut d.process.node.timing.streams)).only(RELAYS)
        .key(Sections::LINKS),
    option(Group::Links, "link-max", Value::Number(1, LINKS_MAX as u64), "links at a time that peers have dialed")
        .fills(Field::Number(|d| &mut d.process.node.timing.links)).only(LINK)
        .key(Sections::SERVED_DEFAULTS),
    option(Group::Links, "link-key-max", Value::Number(1, LINKS_MAX as u64), "links at a time that one key has dialed")
        .fills(Field::Number(|d| &mut d.process.node.timing.links_per_key)).only(LINK)
        .key(Sections::SERVED_DEFAULTS),
    option(Group::Timers, "handshake-timeout", Value::Duration, "time for a client to name its target, and for the peer of \
        a link to prove its key; shorter while many peers are in the handshake")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.handshake)).fills_for(Command::Link, Field::Timer(|d| &mut d.process.node.timing.handshake)).only(NAMED_AND_LINK)
        .key(Sections::RECORDS),
    option(Group::Timers, "connect-timeout", Value::Duration, "time to resolve a name and to connect to its target")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.connect)).only(RELAYS.and(&[Command::Join]))
        .key(Sections::CLIENTS),
    option(Group::Timers, "idle-timeout", Value::Duration, "time without a byte in either direction")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.idle)).only(RELAYS)
        .key(Sections::CLIENTS),
    option(Group::Timers, "half-closed-timeout", Value::Duration, "time without a byte after one direction is closed")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.half_closed)).only(RELAYS)
        .key(Sections::CLIENTS),
    option(Group::Timers, "keepalive-timeout", Value::Duration, "time for an HTTP client to send its next request")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.keep_alive)).only(NAMED_AND_LINK)
        .key(Sections::CLIENTS),
    option(Group::Timers, "udp-first-answer-timeout", Value::Duration, "time without a datagram in a flow of UDP whose target has not \
        answered").only(NAMED_AND_LINK)
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.first_answer)).key(Sections::CLIENTS),
    option(Group::Timers, "udp-idle-timeout", Value::Duration, "time without a datagram in a flow of UDP whose target has answered")
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.flow_idle)).only(NAMED_AND_LINK).key(Sections::CLIENTS),
    option(Group::Timers, "udp-association-timeout", Value::Duration, "time without a datagram in an association of SOCKS5, after \
        which it and its connection end").only(NAMED_AND_LINK)
        .fills(Field::Duration(|d| &mut d.process.loops.timeouts.association_idle)).key(Sections::CLIENTS),
    option(Group::Timers, "drain-timeout", Value::Duration, "time for connections to end by themselves after SIGTERM")
        .fills(Field::Duration(|d| &mut d.process.drain))
        .key(Sections::PROCESS),
    option(Group::Timers, "tcp-keepalive", Value::Duration, "idle time before TCP sends a keepalive probe")
        .fills(Field::Duration(|d| &mut d.process.loops.tcp_keepalive)).only(RELAYS)
        .key(Sections::CLIENTS),
    option(Group::Limits, "max-connections", Value::Number(1, 10_000_000), "connections at a time")
        .fills(Field::Number(|d| &mut d.process.loops.limits.connections))
        .key(Sections::PROCESS),
    option(Group::Limits, "max-connections-per-source", Value::Number(0, 10_000_000), "connections at a time from one IPv4 \
        client address or one /64 of IPv6; 0 for no limit")
        .fills(Field::Number(|d| &mut d.process.loops.limits.connections_per_source)).only(SERVERS)
        .key(Sections::PROCESS),
    option(Group::Limits, "udp-flows", Value::Number(1, 10_000_000), "flows of UDP at a time, each between one client and one target; \
        beyond them a new one ends one that has no answer, or the one that was idle for longest").only(NAMED_AND_LINK)
        .fills(Field::Number(|d| &mut d.process.loops.limits.flows)).key(Sections::PROCESS),
    option(Group::Limits, "udp-flows-per-source", Value::Number(0, 10_000_000), "flows of UDP at a time from one IPv4 client address or \
        one /64 of IPv6; 0 for no limit").only(NAMED_AND_LINK)
        .fills(Field::Number(|d| &mut d.process.loops.limits.flows_per_source)).key(Sections::PROCESS),
    option(Group::Limits, "threads", Value::Number(1, 1024), "event loops, each with one thread; links, and the clients \
        that go over them, are in the first").fills(Field::Number(|d| &mut d.process.threads)).only(SERVERS)
        .key(Sections::PROCESS),
    option(Group::Limits, "cpu", Value::Text("LIST"), "processors of the event loops, such as 0,4-7: one for each loop in turn; \
        several loops get the clients whose packets arrive at their processors").only(SERVERS).fills(CPU)
        .key(Sections::PROCESS),
    option(Group::Limits, "workers", Value::Number(1, 1024), "threads that resolve names; half of them at once, a quarter for \
        one key or client address")
        .fills(Field::Number(|d| &mut d.process.workers))
        .key(Sections::PROCESS),
    option(Group::Limits, "buffer", Value::Size(4 << 10, 16 << 20), "size of one buffer; each direction of a connection holds \
        one while it has bytes")
        .fills(Field::Size(|d| &mut d.process.loops.limits.block_bytes))
        .key(Sections::PROCESS),
    option(Group::Limits, "buffer-memory", Value::Size(64 << 10, 1 << 40), "memory of all buffers")
        .fills(Field::Size(|d| &mut d.process.loops.limits.buffer_bytes))
        .key(Sections::PROCESS),
    option(Group::Limits, "pipes", Value::Number(0, 1_000_000), "pipes for moving bytes in the kernel")
        .fills(Field::Number(|d| &mut d.process.loops.limits.pipes))
        .key(Sections::PROCESS),
    option(Group::Limits, "pipe-size", Value::Size(4 << 10, 1 << 30), "size of one pipe")
        .fills(Field::Size(|d| &mut d.process.loops.limits.pipe_bytes))
        .key(Sections::PROCESS),
    option(Group::Limits, "backlog", Value::Number(1, 65_535), "connections that wait to be accepted")
        .fills(Field::Number32(|d| &mut d.process.loops.limits.backlog))
        .key(Sections::CLIENTS),
    option(Group::Access, "unix-mode", Value::Text("MODE"), "octal mode of the files of listening Unix sockets, such as 0660; \
        the umask decides otherwise").only(LISTENING)
        .fills(UNIX_MODE).key(Sections::CLIENTS),
    option(Group::Access, "unix-owner", Value::Text("USER[:GROUP]"), "owner of the files of listening Unix sockets; :GROUP sets \
        the group alone").only(LISTENING)
        .fills(UNIX_OWNER).key(Sections::CLIENTS),
    option(Group::Reporting, "log-format", Value::Choice(&["text", "json"]), "format of the log on stderr")
        .fills(LOG_FORMAT).only(RELAYS)
        .key(Sections::PROCESS),
    option(Group::Reporting, "verbose", Value::None, "log debug messages; twice to log everything").short('v').repeat().no_env().only(EVERY),
    option(Group::Reporting, "quiet", Value::None, "log warnings and errors only").short('q').repeat().no_env().only(EVERY),
    option(Group::Reporting, "status", Value::Socket, "socket on which the process answers seaprox status (default: a socket of \
        its own in the user's runtime directory)").only(REPORTING)
        .fills(STATUS_SOCKET).key(Sections::PROCESS),
    option(Group::Reporting, "admin", Value::Text("ADDR"), "further address of the admin server, which has /metrics, /healthz, /status \
        and more: PORT (loopback), HOST:PORT or unix:/path; other hosts reach it only with --admin-token-file").repeat()
        .fills(ADMIN).key(Sections::PROCESS),
    option(Group::Reporting, "admin-token-file", Value::File, "file of the token that a client over TCP sends to command the process, \
        and to read its status and metrics; at least 16 bytes")
        .fills(Field::Path(|d| &mut d.process.admin.token_file)).key(Sections::PROCESS),
    option(Group::Reporting, "admin-group", Value::Text("GROUP"), "group whose members may use the Unix sockets of --admin").no_env()
        .fills(ADMIN_GROUP).key(Sections::PROCESS),
    option(Group::Reporting, "admin-host", Value::Text("NAME"), "name under which clients know an address of --admin; requests for other \
        names are refused, because a web page could send them").repeat()
        .fills(ADMIN_HOST).key(Sections::PROCESS),
    option(Group::Reporting, "console-script", Value::File, "Lua script that runs beside the services from the start on, as at seaprox \
        console --attach; what it prints stands in the log")
        .fills(Field::Path(|d| &mut d.process.console_script)).key(Sections::PROCESS),
    option(Group::Reporting, "process", Value::Text("PID|NAME"), "process to command: its number, its command, an address, or the \
        name of a listener or a link (default: the only one of this user)").no_env().only(CTL.and(&[Command::Console])),
    option(Group::Reporting, "json", Value::None, "print JSON").no_env().only(ASKING),
    option(Group::Reporting, "once", Value::None, "print the rates of one second as text, and exit").no_env().only(TOP),
    option(Group::Reporting, "print", Value::None, "print the whole configuration with its defaults, as a file that means the same")
        .no_env().only(CHECK),
    option(Group::General, "execute", Value::Text("CODE"), "run this Lua code").short('e').no_env().only(CONSOLE),
    option(Group::General, "attach", Value::None, "open the console of a running process, which --process or --status names, by its admin \
        socket; its links and forwards are the objects").no_env().only(CONSOLE),
    option(Group::General, "unsafe", Value::None, "let scripts use files, processes and packages: io, os.execute, require")
        .no_env().only(CONSOLE),
    option(Group::General, "no-command", Value::None, "accepted and ignored, as a link runs no command; for those who type ssh -N")
        .short('N').repeat().no_env().only(LINK),
    option(Group::General, "no-terminal", Value::None, "accepted and ignored, as a link has no terminal; for those who type ssh -T")
        .short('T').repeat().no_env().only(LINK),
    option(Group::General, "watch", Value::None, "read the file again when it, or a file that it includes, changes").only(RUN),
    option(Group::General, "help", Value::None, "print help: short for -h, long for --help").short('h').no_env().only(EVERY),
    option(Group::General, "version", Value::None, "print the version").short('V').no_env().only(EVERY),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontends::FrontEndKind;
    use std::collections::HashSet;

    #[test]
    fn a_command_has_each_name_once_and_names_are_lower_case() {
        // Two commands may have options of the same name and different kinds; one command may not.
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
    fn the_variable_and_the_default_depend_on_the_command() {
        let listen = OPTIONS.iter().find(|option| option.long == "listen").unwrap();
        let of = |name| Command::FrontEnd(FrontEndKind::find(name).unwrap());
        assert_eq!(listen.env_name(of("socks")).as_deref(), Some("SEAPROX_LISTEN"));
        assert_eq!(listen.env_name(Command::Cat), None);
        assert_eq!(listen.default_for(of("http")).as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(listen.default_for(of("static")).as_deref(), Some("127.0.0.1:55555"));
        let handshake = OPTIONS.iter().find(|option| option.long == "handshake-timeout").unwrap();
        assert_eq!([of("socks"), Command::Link].map(|command| handshake.default_for(command).unwrap()), ["10s", "5s"]);
    }

    #[test]
    fn the_options_that_front_ends_name_are_in_the_table() {
        for kind in FrontEndKind::ALL {
            let spec = kind.spec();
            for name in spec.options.iter().map(|option| option.name).chain(spec.flags.iter().copied()) {
                assert!(options_of(Command::FrontEnd(kind)).any(|option| option.long == name), "{name}");
            }
        }
    }
}
