//! The commands of the binary: what each does, how it is called, and examples that work as they stand.

/// What the binary is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Relay to a fixed target.
    Static,
    /// A SOCKS proxy.
    Socks,
    /// An HTTP proxy.
    Http,
    /// Links between two nodes.
    Link,
    /// Standard input and output.
    Cat,
    /// What a running process is doing.
    Status,
    /// Both ends of a link, tried out on this host.
    Selftest,
    /// A new key.
    Keygen,
    /// The public key of a key.
    Pubkey,
    /// A completion script.
    Completions,
    /// The manual page.
    Man,
}

/// What help and the manual page say of a command.
pub struct CommandSpec {
    /// The word on the command line.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// What follows the name, one line for each way to call it.
    pub synopsis: &'static [&'static str],
    /// How many arguments it takes beside its options.
    pub frees: (usize, usize),
    /// What `--listen` is when it is not given.
    pub listen: Option<&'static str>,
    /// Command lines without the leading `seaprox`, and what each does.
    pub examples: &'static [(&'static str, &'static str)],
}

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commands(u16);

impl Command {
    /// Every command, in the order of the help.
    pub const ALL: [Command; 11] = [
        Command::Static,
        Command::Socks,
        Command::Http,
        Command::Link,
        Command::Cat,
        Command::Status,
        Command::Selftest,
        Command::Keygen,
        Command::Pubkey,
        Command::Completions,
        Command::Man,
    ];

    /// The command of this name.
    pub fn from_name(name: &str) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.name() == name)
    }

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What help says of it.
    pub fn spec(self) -> &'static CommandSpec {
        &SPECS[self as usize]
    }
}

impl Commands {
    /// The set of these.
    pub const fn of(commands: &[Command]) -> Commands {
        let mut bits = 0;
        let mut index = 0;
        while index < commands.len() {
            bits |= 1 << commands[index] as u16;
            index += 1;
        }
        Commands(bits)
    }

    /// Whether a command is in the set.
    pub const fn has(self, command: Command) -> bool {
        self.0 & (1 << command as u16) != 0
    }

    /// The commands in the set, in the order of the help.
    pub fn iter(self) -> impl Iterator<Item = Command> {
        Command::ALL.into_iter().filter(move |command| self.has(*command))
    }
}

/// In the order of the enum.
const SPECS: [CommandSpec; 11] = [
    CommandSpec {
        name: "static",
        summary: "relay TCP connections to a fixed target",
        synopsis: &["[--listen ADDR] --to HOST:PORT [OPTION]..."],
        frees: (0, 0),
        listen: Some("127.0.0.1:55555"),
        examples: &[
            ("static --to 127.0.0.1:22", "offer the SSH server of this host on port 55555 of loopback"),
            ("static --listen 9000 --to example.org:80", "carry connections to port 9000 of loopback to example.org"),
            ("static -l :3000-3010 --to 10.0.0.5:4000-4010", "carry eleven ports of every address, each to its own"),
            ("static -l unix:/tmp/web.sock --to 127.0.0.1:8000", "offer a TCP service on a Unix socket"),
            ("static -l 5900 --to desk:5900 --via remote", "carry them over a link; remote looks for desk"),
        ],
    },
    CommandSpec {
        name: "socks",
        summary: "SOCKS4, SOCKS4a and SOCKS5 proxy on one port",
        synopsis: &["[--listen ADDR] [OPTION]..."],
        frees: (0, 0),
        listen: Some("127.0.0.1:1080"),
        examples: &[
            ("socks", "serve on 127.0.0.1:1080"),
            ("socks -l :1080 --users users.txt", "serve on every address, with passwords"),
            ("socks --deny 127.0.0.0/8 --deny ::1", "keep clients away from the proxy's own host"),
            ("socks --via remote", "let remote resolve names and connect"),
            ("socks --allow 'from:10.0.0.0/8,to:*.example.org:443'", "permit this and nothing else"),
        ],
    },
    CommandSpec {
        name: "http",
        summary: "HTTP proxy: CONNECT, and requests for http:// addresses",
        synopsis: &["[--listen ADDR] [OPTION]..."],
        frees: (0, 0),
        listen: Some("127.0.0.1:8080"),
        examples: &[
            ("http", "serve on 127.0.0.1:8080"),
            ("http --allow '*:443' --allow '*:80'", "permit the two ports of the web"),
        ],
    },
    CommandSpec {
        name: "link",
        summary: "encrypted link between two nodes, with the forwards of ssh",
        synopsis: &[
            "--listen ADDR [OPTION]...",
            "--connect HOST[:PORT] [-L|-R|-D|-H FORWARD]... [OPTION]...",
            "--connect HOST[:PORT] -W HOST:PORT [OPTION]...",
        ],
        frees: (0, 0),
        listen: None,
        examples: &[
            ("link --listen 0.0.0.0:23232", "take in the keys of authorized_keys, each for what it may do there"),
            ("link --connect remote -L 8080:db:5432", "offer port 5432 of db, as remote reaches it, on port 8080 here"),
            ("link --connect remote -R 2222:127.0.0.1:22", "offer the SSH server of this host on port 2222 of remote"),
            ("link --connect remote -D 1080 -H 8080", "browse from remote, with SOCKS and with an HTTP proxy"),
            ("link --connect remote -W host:22", "connect standard input and output, as a ProxyCommand of ssh"),
            ("link --connect remote -D 1080 --path %eth0 --path %wlan0", "use two uplinks at once"),
        ],
    },
    CommandSpec {
        name: "cat",
        summary: "connect standard input and output",
        synopsis: &["[OPTION]... HOST PORT", "[OPTION]... unix:/path", "[OPTION]... -l ADDR"],
        frees: (0, 2),
        listen: None,
        examples: &[
            ("cat example.org 80", "connect to a port"),
            ("cat -l 9000", "wait for one connection to port 9000 of loopback"),
        ],
    },
    CommandSpec {
        name: "status",
        summary: "show what a running process is doing",
        synopsis: &["[--json] [PID]", "[--json] --status unix:/path"],
        frees: (0, 1),
        listen: None,
        examples: &[("status", "show the one process that runs"), ("status --json", "the same for programs")],
    },
    CommandSpec {
        name: "selftest",
        summary: "try out both ends of a link on this host",
        synopsis: &["[OPTION]..."],
        frees: (0, 0),
        listen: None,
        examples: &[("selftest", "a line for each check; exit code 1 if one fails")],
    },
    CommandSpec {
        name: "keygen",
        summary: "make a key, or a secret to share with another node",
        synopsis: &["[--force] [--key FILE]", "--secret [--force] [--key FILE]"],
        frees: (0, 0),
        listen: None,
        examples: &[
            ("keygen", "make a key; the line that it prints goes into authorized_keys of other nodes"),
            ("keygen --secret --key shared.secret", "make a secret; two nodes that have this file trust each other"),
        ],
    },
    CommandSpec {
        name: "pubkey",
        summary: "print the public key of this node, or of a file",
        synopsis: &["[--fingerprint] [FILE]", "--secret [--fingerprint] [FILE]"],
        frees: (0, 1),
        listen: None,
        examples: &[
            ("pubkey", "print the line that goes into authorized_keys of other nodes"),
            ("pubkey --fingerprint", "print it and, on a second line, what people compare by eye"),
        ],
    },
    CommandSpec {
        name: "completions",
        summary: "print a completion script for bash, zsh or fish",
        synopsis: &["bash|zsh|fish"],
        frees: (1, 1),
        listen: None,
        examples: &[("completions bash", "print it; source it, or save it where bash looks for completions")],
    },
    CommandSpec {
        name: "man",
        summary: "print the manual page",
        synopsis: &[""],
        frees: (0, 0),
        listen: None,
        examples: &[("man", "print it in roff, for `man -l -`")],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_in_the_order_of_their_specs() {
        for (index, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, index);
            assert_eq!(Command::from_name(command.name()), Some(command));
            assert!(command.spec().examples.iter().all(|(line, _)| line.starts_with(command.name())));
        }
        assert_eq!(Command::from_name("sock"), None);
    }

    #[test]
    fn sets_hold_what_they_were_given() {
        let set = Commands::of(&[Command::Man, Command::Static]);
        assert!(set.iter().eq([Command::Static, Command::Man]));
    }
}
