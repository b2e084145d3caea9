//! The commands of the binary: the purpose of each, its arguments, and examples that work as they stand.

use crate::frontends::{FrontEndKind, FrontEndSpec};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run a front end.
    FrontEnd(FrontEndKind),
    /// Link two nodes.
    Link,
    /// Run the front ends and links of a file.
    Run,
    /// Check a file.
    Check,
    /// Connect standard input and output.
    Cat,
    /// Send files and folders.
    Send,
    /// Receive files and folders.
    Receive,
    /// Get a file or a folder.
    Get,
    /// Show the status of a running process.
    Status,
    /// Command a running process.
    Ctl,
    /// Show what a running process does, again and again.
    Top,
    /// Run a Lua prompt or a script.
    Console,
    /// Test both ends of a link on this host.
    Selftest,
    /// Make a key.
    Keygen,
    /// Print the public key of a key.
    Pubkey,
    /// Print an invitation.
    Invite,
    /// Join a node by its invitation.
    Join,
    /// Print a completion script.
    Completions,
    /// Print the manual page.
    Man,
}

/// The properties of a command, for the parser, the help and the manual page.
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// The word on the command line.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// The arguments behind the name, one line for each way to call the command.
    pub synopsis: &'static [&'static str],
    /// The least and the greatest number of arguments that are not options.
    pub frees: (usize, usize),
    /// The default of `--listen`, if there is one.
    pub listen: Option<&'static str>,
    /// Command lines without the leading `seaprox`, each with its meaning.
    pub examples: &'static [(&'static str, &'static str)],
}

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commands(u32);

impl Command {
    /// All commands, in the order of the help: the front ends, then the others.
    pub const ALL: [Command; FRONT_ENDS + SPECS.len()] = {
        let mut all = [Command::Man; FRONT_ENDS + SPECS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = match index {
                _ if index < FRONT_ENDS => Command::FrontEnd(FrontEndKind::ALL[index]),
                _ => SPECS[index - FRONT_ENDS].0,
            };
            index += 1;
        }
        all
    };

    /// Returns the command with this name.
    pub fn from_name(name: &str) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.name() == name)
    }

    /// Returns the word on the command line.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Returns the properties of the command.
    pub fn spec(self) -> CommandSpec {
        match self {
            Command::FrontEnd(kind) => of_front_end(kind.spec()),
            other => SPECS[other.index() - FRONT_ENDS].1,
        }
    }

    /// Returns true if the command runs until a signal stops it.
    pub fn is_server(self) -> bool {
        matches!(self, Command::FrontEnd(_) | Command::Link | Command::Run)
    }

    /// Returns the place of the command in [`Command::ALL`].
    const fn index(self) -> usize {
        match self {
            Command::FrontEnd(kind) => kind.index(),
            Command::Link => FRONT_ENDS,
            Command::Run => FRONT_ENDS + 1,
            Command::Check => FRONT_ENDS + 2,
            Command::Cat => FRONT_ENDS + 3,
            Command::Send => FRONT_ENDS + 4,
            Command::Receive => FRONT_ENDS + 5,
            Command::Get => FRONT_ENDS + 6,
            Command::Status => FRONT_ENDS + 7,
            Command::Ctl => FRONT_ENDS + 8,
            Command::Top => FRONT_ENDS + 9,
            Command::Console => FRONT_ENDS + 10,
            Command::Selftest => FRONT_ENDS + 11,
            Command::Keygen => FRONT_ENDS + 12,
            Command::Pubkey => FRONT_ENDS + 13,
            Command::Invite => FRONT_ENDS + 14,
            Command::Join => FRONT_ENDS + 15,
            Command::Completions => FRONT_ENDS + 16,
            Command::Man => FRONT_ENDS + 17,
        }
    }
}

impl Commands {
    /// No command.
    pub const NONE: Commands = Commands(0);
    /// All front ends.
    pub const FRONT_ENDS: Commands = Commands((1 << FRONT_ENDS) - 1);
    /// All commands.
    pub const ALL: Commands = Commands((1 << Command::ALL.len()) - 1);

    /// Returns the set of these commands.
    pub const fn of(commands: &[Command]) -> Commands {
        Commands::NONE.and(commands)
    }

    /// Returns the set with these commands added.
    pub const fn and(self, commands: &[Command]) -> Commands {
        let (mut bits, mut index) = (self.0, 0);
        while index < commands.len() {
            bits |= 1 << commands[index].index();
            index += 1;
        }
        Commands(bits)
    }

    /// Returns true if the set contains the command.
    pub const fn has(self, command: Command) -> bool {
        self.0 & (1 << command.index()) != 0
    }
}

fn of_front_end(spec: &'static FrontEndSpec) -> CommandSpec {
    CommandSpec {
        name: spec.name,
        summary: spec.summary,
        synopsis: std::slice::from_ref(&spec.synopsis),
        frees: (0, 0),
        listen: Some(spec.default_address),
        examples: spec.examples,
    }
}

const FRONT_ENDS: usize = FrontEndKind::ALL.len();

/// The commands that are not front ends, in the order of [`Command::index`].
const SPECS: [(Command, CommandSpec); 18] = [
    (
        Command::Link,
        CommandSpec {
            name: "link",
            summary: "encrypted link between two nodes, with the forwards of ssh",
            synopsis: &[
                "--listen ADDR [OPTION]...",
                "HOST[:PORT] [-L|-R|-D|-H FORWARD]... [OPTION]...",
                "HOST[:PORT] -W HOST:PORT [OPTION]...",
            ],
            frees: (0, 1),
            listen: None,
            examples: &[
                (
                    "link --listen 0.0.0.0:23232",
                    "accept links of the keys in authorized_keys, each with the permissions that stand there",
                ),
                (
                    "link --connect remote -L 8080:db:5432",
                    "offer port 5432 of db, as remote reaches it, on port 8080 here",
                ),
                (
                    "link --connect remote -R 2222:127.0.0.1:22",
                    "offer the SSH server of this host on port 2222 of remote",
                ),
                (
                    "link remote -p 23233 -N -D 1080 -H 8080",
                    "browse from the network of remote, with SOCKS and with an HTTP proxy",
                ),
                ("link --connect remote -W host:22", "connect standard input and output, as a ProxyCommand of ssh"),
                ("link --connect remote -D 1080 --path %eth0 --path %wlan0", "use two uplinks at once"),
            ],
        },
    ),
    (
        Command::Run,
        CommandSpec {
            name: "run",
            summary: "run the listeners, links and forwards of a file",
            synopsis: &["FILE.toml [OPTION]..."],
            frees: (1, 1),
            listen: None,
            examples: &[
                ("run /etc/seaprox/seaprox.toml", "run everything that the file names, in one process"),
                ("run seaprox.toml --threads 4", "replace one value of the file"),
            ],
        },
    ),
    (
        Command::Check,
        CommandSpec {
            name: "check",
            summary: "check a file of configuration",
            synopsis: &["[--print] FILE.toml [OPTION]..."],
            frees: (1, 1),
            listen: None,
            examples: &[
                ("check seaprox.toml", "print each error with its line and column; exit with code 78 if there is one"),
                ("check --print seaprox.toml", "print the whole configuration with its defaults, as a file"),
            ],
        },
    ),
    (
        Command::Cat,
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
    ),
    (
        Command::Send,
        CommandSpec {
            name: "send",
            summary: "send files and folders over a link",
            synopsis: &["PATH... --via HOST[:PORT] [OPTION]..."],
            frees: (1, 10_000),
            listen: None,
            examples: &[(
                "send film.mkv photos --via friend",
                "send a file and a folder to the node friend, where seaprox receive runs; a transfer that was cut goes on where \
                 it stopped",
            )],
        },
    ),
    (
        Command::Receive,
        CommandSpec {
            name: "receive",
            summary: "receive files and folders of the keys in authorized_keys",
            synopsis: &["--listen ADDR [--yes] [OPTION]... [DIRECTORY]"],
            frees: (0, 1),
            listen: None,
            examples: &[
                ("receive --listen :23232 downloads", "ask about each file that is offered"),
                (
                    "receive --yes --once --listen :23232 downloads",
                    "take one file into the directory downloads, and check its SHA-256",
                ),
            ],
        },
    ),
    (
        Command::Get,
        CommandSpec {
            name: "get",
            summary: "get a file or a folder that another node shares",
            synopsis: &["NAME --via HOST[:PORT] [OPTION]... [DIRECTORY]"],
            frees: (1, 2),
            listen: None,
            examples: &[(
                "get films/film.mkv --via friend downloads",
                "get a file into the directory downloads; friend shares a folder by permit-get= in its authorized_keys",
            )],
        },
    ),
    (
        Command::Status,
        CommandSpec {
            name: "status",
            summary: "show the status of a running process",
            synopsis: &["[--json] [PID|NAME]", "[--json] --status unix:/path"],
            frees: (0, 1),
            listen: None,
            examples: &[
                ("status", "show the only running process"),
                (
                    "status socks",
                    "show the process that runs socks; an address, or the name of a listener or a link, will do",
                ),
                ("status --json", "print the same as JSON, for programs"),
            ],
        },
    ),
    (
        Command::Ctl,
        CommandSpec {
            name: "ctl",
            summary: "command a running process",
            synopsis: &[
                "[OPTION]... reload|drain|status|events|metrics|health|ready",
                "[OPTION]... close connection|flow|link|forward ID|NAME",
                "[OPTION]... open -L|-R|-D|-H FORWARD [--name NAME] [LINK]",
                "[OPTION]... paths [LINK] | add-path|remove-path PATH [LINK]",
                "[OPTION]... log-level LEVEL|TARGET=LEVEL[,...]",
            ],
            frees: (0, 3),
            listen: None,
            examples: &[
                ("ctl reload", "read the file again, and put what has changed into effect"),
                ("ctl drain", "accept nothing more, and stop when the connections have ended"),
                ("ctl close connection 7.42", "end a connection; status shows its id"),
                ("ctl open -L 8080:db:5432 office", "open a forward over the link office"),
                ("ctl add-path %wlan0", "use this interface, too, for the only link"),
                ("ctl log-level info,seaprox::link=trace", "log the frames of links from now on"),
                ("ctl events", "print what happens as it happens, until Ctrl-C"),
            ],
        },
    ),
    (
        Command::Top,
        CommandSpec {
            name: "top",
            summary: "watch a running process: rates, connections, links, ends",
            synopsis: &["[--once] [PID|NAME]", "[--once] --status unix:/path"],
            frees: (0, 1),
            listen: None,
            examples: &[
                ("top", "watch the only running process; ? shows the keys, q leaves"),
                ("top --once", "print the rates of one second, for scripts"),
            ],
        },
    ),
    (
        Command::Console,
        CommandSpec {
            name: "console",
            summary: "make links and tunnels at a Lua prompt, or by a script",
            synopsis: &["[OPTION]...", "[OPTION]... SCRIPT.lua", "[OPTION]... -e CODE"],
            frees: (0, 1),
            listen: None,
            examples: &[
                ("console", "type Lua: tc = connect(\"remote\"), tunnel(tc, 8080, \"db\", 5432), quit()"),
                ("console tunnels.lua", "run a script, and stay while a connection of it is open"),
                ("console --attach", "the links and forwards of a running process"),
                ("console -e 'listen()'", "accept links of the keys in authorized_keys on port 23232"),
            ],
        },
    ),
    (
        Command::Selftest,
        CommandSpec {
            name: "selftest",
            summary: "test both ends of a link on this host",
            synopsis: &["[OPTION]..."],
            frees: (0, 0),
            listen: None,
            examples: &[("selftest", "print a line for each check; exit with code 1 if one fails")],
        },
    ),
    (
        Command::Keygen,
        CommandSpec {
            name: "keygen",
            summary: "make a key, or a secret that two nodes share",
            synopsis: &["[--force] [--key FILE]", "--secret [--force] [--key FILE]"],
            frees: (0, 0),
            listen: None,
            examples: &[
                ("keygen", "make a key and print its line for authorized_keys of other nodes"),
                (
                    "keygen --secret --key shared.secret",
                    "make a shared secret; two nodes that have this file trust each other",
                ),
            ],
        },
    ),
    (
        Command::Pubkey,
        CommandSpec {
            name: "pubkey",
            summary: "print the public key of this node, or of a file",
            synopsis: &["[--fingerprint] [FILE]", "--secret [--fingerprint] [FILE]"],
            frees: (0, 1),
            listen: None,
            examples: &[
                ("pubkey", "print the line for authorized_keys of other nodes"),
                ("pubkey --fingerprint", "print it and, on a second line, its fingerprint, which people compare"),
            ],
        },
    ),
    (
        Command::Invite,
        CommandSpec {
            name: "invite",
            summary: "print an invitation, with which another node joins this one",
            synopsis: &["[--permit-open PLACE]... [OPTION]..."],
            frees: (0, 0),
            listen: None,
            examples: &[
                (
                    "invite --permit-open db:5432 --name laptop",
                    "print a line for `seaprox join` on the laptop, whose key may then open port 5432 of db",
                ),
                (
                    "invite --permit-open '*' --address gate.example.org --expires 1h --valid-for 30d",
                    "name an address, give an hour for joining, and let the key end after thirty days",
                ),
            ],
        },
    ),
    (
        Command::Join,
        CommandSpec {
            name: "join",
            summary: "join a node by its invitation, which is read from the prompt",
            synopsis: &["[OPTION]...", "--file FILE [OPTION]..."],
            // An invitation as arguments is refused with the reason.
            frees: (0, usize::MAX),
            listen: None,
            examples: &[
                ("join", "ask for the line that `seaprox invite` has printed on the other node, without showing it"),
                ("join --file invitation", "read the line from a file that only this user can read"),
            ],
        },
    ),
    (
        Command::Completions,
        CommandSpec {
            name: "completions",
            summary: "print a completion script for bash, zsh or fish",
            synopsis: &["bash|zsh|fish"],
            frees: (1, 1),
            listen: None,
            examples: &[(
                "completions bash",
                "print the script; source it, or save it where bash looks for completions",
            )],
        },
    ),
    (
        Command::Man,
        CommandSpec {
            name: "man",
            summary: "print the manual page",
            synopsis: &[""],
            frees: (0, 0),
            listen: None,
            examples: &[("man", "print the page in roff, for `man -l -`")],
        },
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_index_and_by_its_name() {
        for (index, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!((command.index(), Command::from_name(command.name())), (index, Some(command)));
            assert!(command.spec().examples.iter().all(|(line, _)| line.starts_with(command.name())));
        }
        assert_eq!(Command::from_name("sock"), None);
    }

    #[test]
    fn a_set_has_its_commands_and_no_other() {
        let set = Commands::FRONT_ENDS.and(&[Command::Man]);
        let expected = |command| matches!(command, Command::FrontEnd(_) | Command::Man);
        assert!(Command::ALL.into_iter().all(|command| set.has(command) == expected(command)));
        assert!(Command::ALL.into_iter().all(|command| Commands::ALL.has(command) && !Commands::NONE.has(command)));
    }
}
