//! Unit tests of the parser and the getters: right and wrong command lines.

use super::*;
use crate::cli::{CatMode, LogFormat, Shell};
use crate::frontends::FrontEndKind;
use std::time::Duration;

use seaprox::config::{Config, OptionValue, StatusSocket};
use seaprox::rules::Decision;
use seaprox::{Bind, Family, Proto, Target, Upstream};

fn request(line: &str, env: &[(&str, &str)]) -> Result<Request, UsageError> {
    let value = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    parse(line.split_whitespace().map(OsString::from), value)
}

fn with_env(line: &str, env: &[(&str, &str)]) -> Parsed {
    match request(line, env) {
        Ok(Request::Run(parsed)) => parsed,
        other => panic!("{line}: {other:?}"),
    }
}

fn parsed(line: &str) -> Parsed {
    with_env(line, &[])
}

fn error(line: &str) -> String {
    request(line, &[]).unwrap_err().to_string()
}

#[test]
fn options_that_are_not_given_have_their_defaults() {
    let parsed = parsed("socks");
    assert_eq!(parsed.binds().unwrap(), [Bind::parse("127.0.0.1:1080").unwrap()]);
    assert_eq!(parsed.duration("connect-timeout"), Ok(Duration::from_secs(10)));
    assert_eq!(parsed.duration("idle-timeout"), Ok(Duration::ZERO));
    assert_eq!(parsed.size("buffer"), Ok(32 << 10));
    assert_eq!(parsed.number("max-connections"), Ok(100_000));
    assert_eq!((parsed.log_format(), parsed.verbosity()), (Ok(LogFormat::Text), 0));
    assert_eq!(parsed.flag("no-splice"), Ok(false));
    assert_eq!(parsed.status(), Ok(StatusSocket::PerProcess));
    assert!(parsed.rules().unwrap().is_empty() && parsed.path("users").is_none());
}

#[test]
fn every_printed_default_is_the_value_of_the_configuration() {
    // The configuration of the others comes from a file.
    for command in Command::ALL.into_iter().filter(|command| !matches!(command, Command::Run | Command::Check)) {
        let line = match command {
            Command::Completions => "completions zsh",
            Command::Send => "send f",
            Command::Get => "get f",
            command => command.name(),
        };
        // With a peer the options of links count, too.
        let via = if parsed(line).knows("via") { " --via r" } else { "" };
        let connect = match command {
            Command::Link => " --connect r --listen 1",
            Command::Receive => " --listen 1",
            _ => "",
        };
        let to = if parsed(line).knows("to") { " --to a:1" } else { "" };
        let line = format!("{line}{via}{connect}{to}");
        let mut text = line.clone();
        for option in options_of(command).filter(|option| option.value != Value::Listen) {
            if let Some(default) = option.default_for(command) {
                text.push_str(&format!(" --{} {default}", option.long));
            }
        }
        assert_eq!(parsed(&line).config(), parsed(&text).config(), "{text}");
        if parsed(&line).config().is_ok() {
            let Config { threads, workers, drain, .. } = parsed(&line).config().unwrap();
            let config = Config::default();
            assert_eq!((threads, workers, drain), (config.threads, config.workers, config.drain));
        }
    }
}

#[test]
fn options_become_listeners_with_their_front_ends() {
    let config = |line: &str| parsed(line).config().unwrap();
    let socks = config("socks -l 1 -l [::1]:2 --only ipv4 --no-nodelay --no-splice --deny 10.0.0.0/8");
    assert_eq!((socks.listeners.len(), socks.listeners[0].addresses.len()), (1, 2));
    assert_eq!((socks.listeners[0].name.as_str(), socks.listeners[0].front_end.name.as_str()), ("socks", "socks"));
    assert_eq!((socks.loops.family, socks.loops.nodelay, socks.loops.limits.pipes), (Family::OnlyIpv4, false, 0));
    assert!(!socks.access.rules.is_empty() && !socks.has_links());
    assert_eq!(config("socks --prefer ipv4").loops.family, Family::PreferIpv4);
    let relays = config("static -l 1 --to a:1 -l 2 --to b:1 -l 3 --to a:1 --via home");
    let names: Vec<_> = relays.listeners.iter().map(|it| (it.name.as_str(), it.addresses.len())).collect();
    assert_eq!(names, [("static", 2), ("static-2", 1)]);
    assert_eq!(relays.listeners[1].front_end.upstreams("to"), [Upstream::parse("b:1").unwrap()]);
    assert_eq!(
        (relays.links[0].name.as_str(), relays.listeners[0].link.as_deref()),
        ("home:23232", Some("home:23232"))
    );
}

#[test]
fn all_problems_of_the_whole_are_reported_with_their_options() {
    let wrong =
        parsed("static --to unix:/x --via home --buffer 1MiB --buffer-memory 64KiB --subflows 9 --path %a --path %b");
    let error = wrong.check(&wrong.config().unwrap()).unwrap_err().to_string();
    let expected = [
        "seaprox static: --buffer 1MiB: expected at most the 64KiB of --buffer-memory",
        "seaprox static: --to \"unix:/x\" with --via: expected HOST:PORT, because a link carries TCP",
        "seaprox static: --subflows 9: expected at most 16 subflows in total, not 20 over 2 paths, of which 2 have QUIC beside TCP, because they name no carrier (tcp:%wlan0)",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn every_default_is_valid_for_each_command() {
    for command in Command::ALL {
        let line = match command {
            Command::Completions => "completions zsh",
            Command::Run => "run f",
            Command::Send => "send f",
            Command::Get => "get f",
            Command::Check => "check f",
            command => command.name(),
        };
        let parsed = parsed(line);
        let has_default = |option: &&OptionSpec| option.default_for(command).is_some();
        for option in options_of(command).filter(has_default) {
            let result = match option.value {
                // Some options have no default.
                _ if option.default_for(command).is_none() => Ok(()),
                Value::Duration => parsed.duration(option.long).map(drop),
                Value::Size(..) => parsed.size(option.long).map(drop),
                Value::Number(..) => parsed.number(option.long).map(drop),
                Value::Listen => parsed.binds().map(drop),
                _ => Ok(()),
            };
            assert_eq!(result, Ok(()), "{line} --{}", option.long);
        }
        assert!(parsed.log_format().is_ok());
    }
}

#[test]
fn a_flag_overrides_the_environment_and_the_environment_the_default() {
    let env = [
        ("SEAPROX_CONNECT_TIMEOUT", "5s"),
        ("SEAPROX_LISTEN", "1081 [::1]:1082"),
        ("SEAPROX_NO_SPLICE", "YES"),
        ("SEAPROX_LOG_FORMAT", "json"),
        ("SEAPROX_THREADS", ""),
    ];
    let both = with_env("socks --connect-timeout 3s -l 1", &env);
    assert_eq!(both.duration("connect-timeout"), Ok(Duration::from_secs(3)));
    assert_eq!(both.binds().unwrap(), [Bind::Loopback(Proto::Tcp, 1)]);
    let only = with_env("socks", &env);
    assert_eq!(only.duration("connect-timeout"), Ok(Duration::from_secs(5)));
    assert_eq!(only.binds().unwrap(), [Bind::Loopback(Proto::Tcp, 1081), Bind::parse("[::1]:1082").unwrap()]);
    assert_eq!((only.flag("no-splice"), only.log_format()), (Ok(true), Ok(LogFormat::Json)));
    assert_eq!(only.number("threads"), Ok(1), "an empty variable is ignored");
    assert_eq!(with_env("cat a 1", &env).binds(), Ok(vec![]), "cat takes no address from the environment");
    let off = [("SEAPROX_NO_SPLICE", "0")];
    assert_eq!(with_env("socks", &off).flag("no-splice"), Ok(false));
    assert_eq!(with_env("socks --no-splice", &off).flag("no-splice"), Ok(true));
}

#[test]
fn errors_name_the_argument_the_value_and_what_was_expected() {
    let wrong = parsed("socks --connect-timeout 10 --threads 0 --buffer 1B --prefer ipv5 --deny a/b --status 80");
    for (result, text) in [
        (
            wrong.duration("connect-timeout").map(drop),
            "--connect-timeout \"10\": expected a duration such as 250ms, 30s, 5m or 1h",
        ),
        (wrong.number("threads").map(drop), "--threads \"0\": expected a number from 1 to 1024"),
        (wrong.size("buffer").map(drop), "--buffer \"1B\": expected a size from 4KiB to 16MiB"),
        (wrong.word("prefer").map(drop), "--prefer \"ipv5\": expected ipv4 or ipv6"),
        (wrong.status().map(drop), "--status \"80\": expected unix:/path of at most 107 bytes, or none"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), format!("seaprox socks: {text}"));
    }
    assert!(wrong.rules().unwrap_err().to_string().starts_with("seaprox socks: --deny \"a/b\": expected a network"));
    let env = with_env("http", &[("SEAPROX_NO_SPLICE", "maybe"), ("SEAPROX_WORKERS", "+1")]);
    let flag = env.flag("no-splice").unwrap_err().to_string();
    assert_eq!(flag, "seaprox http: SEAPROX_NO_SPLICE \"maybe\": expected 1, true, yes, 0, false or no");
    let workers = env.number("workers").unwrap_err().to_string();
    assert_eq!(workers, "seaprox http: SEAPROX_WORKERS \"+1\": expected a number from 1 to 1024");
}

#[test]
fn a_udp_address_is_refused_by_the_option_that_names_it() {
    let checked = |line: &str| {
        let parsed = parsed(line);
        parsed.config().and_then(|config| parsed.check(&config))
    };
    for (result, text) in [
        (checked("socks --listen udp:[::1]:53"), "socks: --listen \"udp:[::1]:53\""),
        (checked("http --listen udp:53"), "http: --listen \"udp:53\""),
        (parsed("cat udp:dns:53").cat().map(drop), "cat: the target \"udp:dns:53\""),
        (parsed("cat -l udp:53").cat().map(drop), "cat: --listen \"udp:53\""),
    ] {
        assert_eq!(result.unwrap_err().to_string(), format!("seaprox {text}: expected a TCP address"));
    }
    for (line, text) in [
        (
            "--listen 1 --to udp:dns:53",
            "--to \"udp:dns:53\": expected a target without udp:, because --listen has a TCP address",
        ),
        (
            "--listen unix:/x --to a:1 --udp",
            "--listen unix:/x: a Unix socket takes connections, not datagrams; expected HOST:PORT, or --tcp as well",
        ),
        ("--listen udp:1 --to unix:/x", "--to \"unix:/x\": expected HOST:PORT for datagrams"),
    ] {
        assert_eq!(checked(&format!("static {line}")).unwrap_err().to_string(), format!("seaprox static: {text}"));
    }
    let host = parsed("static --listen udp.:1 --to udp.:53").relays("to").unwrap();
    assert_eq!(host, [(Bind::parse("udp.:1").unwrap(), vec![Target::from_host("udp", 53).unwrap().into()])]);
}

#[test]
fn the_addresses_of_a_static_listener_have_the_protocols_that_are_asked_for() {
    for (line, addresses) in [
        ("--listen 1 --to a:1", "1"),
        ("--listen 1 --to a:1 --udp", "udp:1"),
        ("--listen 1 --to a:1 --udp --tcp", "1 udp:1"),
        ("--listen 1 --listen udp:1 --to a:1", "1 udp:1"),
        ("--listen udp:1-2 --to udp:a:1 --udp", "udp:1 udp:2"),
        ("--to a:1 --udp", "udp:127.0.0.1:55555"),
        ("--listen unix:/x --to a:1 --udp --tcp", "unix:/x"),
    ] {
        let config = parsed(&format!("static {line}")).config().unwrap();
        let found: Vec<_> = config.listeners.iter().flat_map(|it| &it.addresses).map(Bind::to_string).collect();
        assert_eq!(found.join(" "), addresses, "{line}");
    }
}

#[test]
fn wrong_lines_are_refused_with_a_hint() {
    for (line, text) in [
        ("socks --lisen 1", "seaprox socks: unknown option --lisen; did you mean --listen? (see seaprox socks --help)"),
        ("socks --lisen=1", "seaprox socks: unknown option --lisen; did you mean --listen? (see seaprox socks --help)"),
        ("socks -x", "seaprox socks: unknown option -x (see seaprox socks --help)"),
        ("socks --x", "seaprox socks: unknown option --x (see seaprox socks --help)"),
        ("socks --to h:1", "seaprox socks: --to is an option of static, not of socks (see seaprox socks --help)"),
        ("sock", "seaprox: unknown command \"sock\"; did you mean socks? (see seaprox --help)"),
        ("frobnicate", "seaprox: unknown command \"frobnicate\" (see seaprox --help)"),
        ("socks -l", "seaprox socks: -l: expected ADDR"),
        ("socks --threads", "seaprox socks: --threads: expected N"),
        ("socks --no-splice=1", "seaprox socks: --no-splice: expected no value"),
        ("socks --threads 1 --threads 2", "seaprox socks: --threads: expected at most once"),
        ("socks extra", "seaprox socks: unexpected argument \"extra\" (see seaprox socks --help)"),
        (
            "socks 1080",
            "seaprox socks: unexpected argument \"1080\"; did you mean --listen 1080? (see seaprox socks --help)",
        ),
        (
            "static 80 h:1",
            "seaprox static: unexpected argument \"80\"; did you mean --listen 80? (see seaprox static --help)",
        ),
        (
            "static h:1",
            "seaprox static: unexpected argument \"h:1\"; did you mean --to h:1? (see seaprox static --help)",
        ),
        (
            "static --to h:1 [::1]:2",
            "seaprox static: unexpected argument \"[::1]:2\"; did you mean --listen [::1]:2? (see seaprox static --help)",
        ),
        ("link h:1 i:1", "seaprox link: unexpected argument \"i:1\" (see seaprox link --help)"),
        ("socks --users=", "seaprox socks: --users \"\": expected FILE"),
        ("keygen --config-dir=", "seaprox keygen: --config-dir \"\": expected DIR"),
        ("completions", "seaprox completions: expected bash|zsh|fish"),
    ] {
        assert_eq!(error(line), text);
    }
    assert!(error("").starts_with("seaprox: expected a command: static, socks"));
    assert!(error("--listen 80").starts_with("seaprox: unknown option \"--listen\": expected a command first"));
    assert!(parsed("completions fsh").shell().unwrap_err().to_string().contains("did you mean fish?"));
}

#[test]
fn requests_for_help_and_version_are_recognized() {
    let help = |line: &str| match request(line, &[]) {
        Ok(Request::Help { command, long }) => (command, long),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(help("-h"), (None, false));
    assert_eq!(help("--help"), (None, true));
    assert_eq!(help("help cat"), (Some(Command::Cat), true));
    assert_eq!(help("socks -l 1 -h"), (Some(Command::FrontEnd(FrontEndKind::find("socks").unwrap())), false));
    assert_eq!(help("completions --help"), (Some(Command::Completions), true));
    assert!(matches!(request("-V", &[]), Ok(Request::Version)));
    assert!(matches!(request("http --version", &[]), Ok(Request::Version)));
}

#[test]
fn rules_keep_their_order_between_allow_and_deny() {
    let target = Target::parse("example.org:80").unwrap();
    let decide = |line: &str| parsed(line).rules().unwrap().decide(None, &target);
    assert_eq!(decide("socks --deny example.org --allow *"), Decision::Deny);
    assert_eq!(decide("socks --allow * --deny example.org"), Decision::Allow);
}

#[test]
fn listens_and_targets_are_paired() {
    let pairs = |line: &str| {
        let relays = parsed(line).relays("to").map_err(|error| error.to_string())?;
        Ok(relays
            .iter()
            .map(|(bind, target)| format!("{bind}>{}", OptionValue::from(target.clone())))
            .collect::<Vec<_>>()
            .join(" "))
    };
    assert_eq!(pairs("static --to a:2"), Ok("127.0.0.1:55555>a:2".to_owned()));
    assert_eq!(pairs("static -l 1 --to a:2"), Ok("1>a:2".to_owned()));
    assert_eq!(pairs("static -l 1 -l 2 --to a:2"), Ok("1>a:2 2>a:2".to_owned()));
    assert_eq!(pairs("static -l 1 --to a:2 -l 3 --to b:4"), Ok("1>a:2 3>b:4".to_owned()));
    assert_eq!(pairs("static -l :1-2 --to a:5-6"), Ok(":1>a:5 :2>a:6".to_owned()));
    assert_eq!(pairs("static -l 1-2 --to unix:/x"), Ok("1>unix:/x 2>unix:/x".to_owned()));
    assert_eq!(pairs("static -l 65535 --to [::1]:65535"), Ok("65535>[::1]:65535".to_owned()));
    assert_eq!(
        pairs("static -l 1 --to a:2,_x._tcp.b,unix:/c,d,[::1]:3"),
        Ok("1>a:2,srv:_x._tcp.b,unix:/c,d,[::1]:3".to_owned())
    );
    assert_eq!(pairs("static -l 1 --to unix:/c,unix:/d"), Ok("1>unix:/c,unix:/d".to_owned()));
    assert_eq!(pairs("static -l 1-2 --to a:5-6,b:7"), Ok("1>a:5,b:7 2>a:6,b:7".to_owned()));
    for line in [
        "static",
        "static -l 1",
        "static -l 1 -l 2 -l 3 --to a:1 --to b:1",
        "static -l 1-3 --to a:1-2",
        "static -l 1-3 --to a:1,b:1-2",
        "static -l 1 --to a:1,",
    ] {
        let error: Result<String, String> = pairs(line);
        assert!(error.unwrap_err().contains("expected"), "{line}");
    }
}

#[test]
fn cat_takes_a_target_or_an_address_to_listen_on() {
    let target = |host: &str, port| CatMode::Connect(Target::from_host(host, port).unwrap());
    assert_eq!(parsed("cat a.org 80").cat(), Ok(target("a.org", 80)));
    assert_eq!(parsed("cat ::1 80").cat(), Ok(target("::1", 80)));
    assert_eq!(parsed("cat a.org:80").cat(), Ok(target("a.org", 80)));
    assert_eq!(parsed("cat -l 80").cat(), Ok(CatMode::Listen(vec![Bind::Loopback(Proto::Tcp, 80)])));
    assert_eq!(parsed("cat 80").cat(), Ok(CatMode::Connect(Target::parse("127.0.0.1:80").unwrap())));
    for line in ["cat", "cat a 0", "cat a +1", "cat a b", "cat a* 80", "cat -l 80 a 80"] {
        assert!(parsed(line).cat().unwrap_err().to_string().contains("expected"), "{line}");
    }
}

#[test]
fn the_other_getters_return_their_values() {
    assert_eq!((parsed("http -vv").verbosity(), parsed("http -q").verbosity()), (2, -1));
    assert_eq!(parsed("http --status none").status(), Ok(StatusSocket::Off));
    assert_eq!(parsed("status --status unix:/x").status(), Ok(StatusSocket::At("/x".into())));
    assert_eq!((parsed("status 12").process().as_deref(), parsed("status").process()), (Some("12"), None));
    assert_eq!(parsed("ctl --process web reload").process().as_deref(), Some("web"));
    assert_eq!(parsed("completions fish").shell(), Ok(Shell::Fish));
    assert_eq!(parsed("socks --users u").path("users"), Some("u".into()));
}

#[test]
fn an_option_that_a_command_does_not_have_keeps_its_default() {
    let cat = with_env("cat a 1", &[("SEAPROX_THREADS", "7")]);
    assert_eq!((cat.number("threads"), cat.size("buffer")), (Ok(1), Ok(32 << 10)));
    assert_eq!((cat.flag("json"), cat.path("users")), (Ok(false), None));
    assert!(cat.rules().unwrap().is_empty());
}
