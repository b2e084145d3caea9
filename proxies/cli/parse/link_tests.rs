//! Unit tests of the options about links: right and wrong command lines.

use super::*;
use std::time::Duration;

use seaprox::config::{Config, ExpectedKey, Link, LinkPaths, Pin, Service};
use seaprox::link::Mode;
use seaprox::node::{Cipher, Timing};
use seaprox::{Bind, Proto, Target, Upstream};

fn with_env(line: &str, env: &[(&str, &str)]) -> Parsed {
    let value = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    match parse(line.split_whitespace().map(OsString::from), value) {
        Ok(Request::Run(parsed)) => parsed,
        other => panic!("{line}: {other:?}"),
    }
}

fn parsed(line: &str) -> Parsed {
    with_env(line, &[])
}

#[test]
fn the_peer_comes_from_connect_or_via() {
    let peer = |line| parsed(line).peers().map(|peers| Link::default_name(&peers));
    assert_eq!(peer("link --connect remote"), Ok("remote:23232".to_owned()));
    assert_eq!(peer("link --connect [::1]:5"), Ok("[::1]:5".to_owned()));
    assert_eq!(peer("socks --via remote:99"), Ok("remote:99".to_owned()));
    assert_eq!(peer("socks"), Ok(String::new()));
    assert_eq!(peer("cat --via 5 a 1"), Ok("127.0.0.1:5".to_owned()));
    let several = "link --connect a,b:5 --connect srv:_x._tcp.example.org,_y._tcp.example.org";
    let servers = "a:23232,b:5,srv:_x._tcp.example.org,srv:_y._tcp.example.org";
    assert_eq!(peer(several), Ok(servers.to_owned()));
    let error = peer("socks --via a:b").unwrap_err().to_string();
    assert_eq!(error, "seaprox socks: --via \"a:b\": expected HOST[:PORT] or [IPV6][:PORT]");
    let env = [("SEAPROX_VIA", "remote"), ("SEAPROX_CONNECT", "remote"), ("SEAPROX_LISTEN", "1080")];
    assert!(with_env("http", &env).peers().unwrap().len() == 1);
    assert_eq!(with_env("cat a 1", &env).peers(), Ok(Vec::new()), "cat takes no address from the environment");
    let link = with_env("link --listen :1", &env);
    assert_eq!((link.peers(), link.link_addresses()), (Ok(Vec::new()), Ok(vec![Bind::Any(Proto::Tcp, 1)])));
    assert_eq!(parsed("link -l 0.0.0.0").link_addresses(), Ok(vec![Bind::parse("0.0.0.0:23232").unwrap()]));
}

#[test]
fn forwards_are_parsed_and_errors_name_their_letter() {
    let link = parsed("link --connect r -L 80:a:81 -L *:82:b:83 -R 22:c:23 -D 1080 -D [::1]:1081 -H unix:/s");
    assert_eq!(link.locals().unwrap().len(), 2);
    assert_eq!(link.reverses().unwrap()[0].to, Target::parse("c:23").unwrap());
    assert_eq!(link.dynamics().unwrap(), [Bind::Loopback(Proto::Tcp, 1080), Bind::parse("[::1]:1081").unwrap()]);
    assert_eq!(link.https().unwrap(), [Bind::Unix("/s".into())]);
    assert_eq!(link.stdio(), Ok(None));
    assert_eq!(parsed("link --connect r -W a:22").stdio(), Ok(Some(Target::parse("a:22").unwrap())));
    assert_eq!(parsed("socks").locals(), Ok(Vec::new()), "other commands have no forwards");
    for (line, text) in [
        ("-L 80:a", "-L \"80:a\": expected [BIND:]PORT:HOST:PORT, such as 8080:db:5432, or unix:/path:HOST:PORT"),
        ("-L 80:a:b", "-L \"80:a:b\": the port \"b\": expected a number from 1 to 65535"),
        ("--local 80:a:0", "-L \"80:a:0\": the port \"0\": expected a number from 1 to 65535"),
    ] {
        let error = parsed(&format!("link --connect r {line}")).locals().unwrap_err().to_string();
        assert_eq!(error, format!("seaprox link: {text}"));
    }
}

#[test]
fn a_udp_address_is_refused_by_the_option_that_names_it() {
    let peer = [Upstream::parse("r:1").unwrap()];
    let link = |line: &str| parsed(&format!("link --connect r {line}"));
    for (result, text) in [
        (link("-D udp:1080").dynamics().map(drop), "-D \"udp:1080\""),
        (link("-H udp:1080").https().map(drop), "-H \"udp:1080\""),
        (link("-W udp:dns:53").stdio().map(drop), "-W \"udp:dns:53\""),
        (parsed("link --connect udp:r").peers().map(drop), "--connect \"udp:r\""),
        (parsed("link --connect udp:r:1").peers().map(drop), "--connect \"udp:r:1\""),
        (parsed("link --listen udp:r").link_addresses().map(drop), "--listen \"udp:r\""),
        (link("--path ->udp:r").paths(&peer).map(drop), "--path \"->udp:r\": the peer \"udp:r\""),
    ] {
        assert_eq!(result.unwrap_err().to_string(), format!("seaprox link: {text}: expected a TCP address"));
    }
    let both = |listen, to| (Bind::parse(listen).unwrap(), Target::parse(to).unwrap());
    let local = link("-L udp:53:dns:53").locals().unwrap().remove(0);
    assert_eq!((local.listen, local.to), both("udp:53", "udp:dns:53"));
    let reverse = link("-R udp:*:53:[::1]:53").reverses().unwrap().remove(0);
    assert_eq!((reverse.listen, reverse.to), both("udp::53", "udp:[::1]:53"));
    for (option, text) in [("L", "udp:unix:/x:dns:53"), ("R", "udp:53:unix:/x")] {
        let parsed = link(&format!("-{option} {text}"));
        let result = if option == "L" { parsed.locals().map(drop) } else { parsed.reverses().map(drop) };
        assert!(
            result.unwrap_err().to_string().ends_with("because Unix sockets and ends carry no datagrams here"),
            "{text}"
        );
    }
    assert_eq!(link("-W udp.:53").stdio(), Ok(Some(Target::from_host("udp", 53).unwrap())));
}

#[test]
fn the_options_of_a_link_have_defaults_and_are_parsed() {
    let config = |line: &str| -> Config { parsed(line).config().unwrap() };
    let Config { node, links, servers, .. } = config("link --connect remote");
    assert_eq!((node.mode, node.ciphers, servers.len()), (Mode::Stripe, Vec::new(), 0));
    assert_eq!(node.timing, Timing::default());
    assert_eq!(
        (links[0].expected_key.clone(), links[0].paths.clone()),
        (ExpectedKey::Known(None), LinkPaths::default())
    );
    let Config { node, links, .. } = config(
        "link --listen 1 --connect remote:5 --path 10.0.0.2 --path %eth0->gate --mode single --cipher chacha20-poly1305,aes-256-gcm \
         --link-keepalive 1s --link-dead 2s --link-hold 3s --link-memory 1MiB --link-streams 4 --link-max 5 \
         --link-retry-max 100ms",
    );
    let LinkPaths::List(paths) = &links[0].paths else { panic!("the paths are a list") };
    assert_eq!(paths[1].peer, Some(Target::parse("gate:5").unwrap()));
    assert_eq!((paths.len(), node.mode), (2, Mode::Single));
    assert_eq!(node.ciphers, [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm]);
    let seconds = Duration::from_secs;
    let timing = Timing {
        keepalive: seconds(1),
        dead: seconds(2),
        hold: seconds(3),
        redial: (Duration::from_millis(100), Duration::from_millis(100)),
        memory_bytes: 1 << 20,
        streams: 4,
        links: 5,
        ..Timing::default()
    };
    assert_eq!(node.timing, timing);
}

#[test]
fn forwards_are_records_of_the_link() {
    let config = parsed("link --connect r -L 80:a:81 -L 82:b:83 -R 22:c:23 -D 1080").config().unwrap();
    let of = |service: &Service| match service {
        Service::Local(front_end) => front_end.name.clone(),
        Service::Remote(to) => to.to_string(),
    };
    let forwards = &config.links[0].forwards;
    let shown: Vec<_> = forwards.iter().map(|it| format!("{} {} {}", it.name, it.listen, of(&it.service))).collect();
    assert_eq!(shown, ["local 80 static", "local-2 82 static", "dynamic 1080 socks", "remote 22 c:23"]);
}

#[test]
fn a_link_has_the_timers_and_limits_of_datagrams() {
    for peers in ["--listen 1", "--connect r"] {
        let line = "--udp-first-answer-timeout 1s --udp-idle-timeout 2s --udp-flows 3 --udp-flows-per-source 4";
        let loops = parsed(&format!("link {peers} {line}")).config().unwrap().loops;
        let seconds = [loops.timeouts.first_answer, loops.timeouts.flow_idle].map(|time| time.as_secs());
        assert_eq!((seconds, loops.limits.flows, loops.limits.flows_per_source), ([1, 2], 3, 4), "{peers}");
    }
}

#[test]
fn the_socks_proxy_of_a_link_has_the_options_of_associations() {
    let line =
        "link --connect r -L 80:a:81 -D 1080 --udp-advertise 203.0.113.5 --udp-any-source --udp-association-timeout 3s";
    let config = parsed(line).config().unwrap();
    assert_eq!(config.loops.timeouts.association_idle, Duration::from_secs(3));
    let options = |index: usize| match &config.links[0].forwards[index].service {
        Service::Local(front_end) => front_end.options.clone(),
        Service::Remote(_) => panic!("the forward is local"),
    };
    assert_eq!(options(1).get("udp-advertise"), Some(&"203.0.113.5".into()));
    assert_eq!(options(1).get("udp-any-source"), Some(&true.into()));
    assert_eq!(options(0).keys().collect::<Vec<_>>(), ["to"], "the options are those of -D alone");
}

#[test]
fn a_pinned_key_is_a_key_or_its_fingerprint() {
    let key = "seaprox-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let print = "SHA256:BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k";
    let pin = |text: &str| {
        let args = ["link", "--connect", "r", "--peer-key", text].map(OsString::from);
        match parse(args, |_| None) {
            Ok(Request::Run(parsed)) => parsed.config().map(|config| match &config.links[0].expected_key {
                ExpectedKey::Pinned(pin) => pin.clone(),
                ExpectedKey::Known(_) => panic!("the key is pinned"),
            }),
            other => panic!("{other:?}"),
        }
    };
    let public: seaprox::auth::PublicKey = key.parse().unwrap();
    for text in [key, print, &format!("{print}=")] {
        let pin: Pin = pin(text).unwrap();
        assert!(pin.fits(&public) && pin.fingerprint() == print, "{text}");
    }
    assert!(!pin(&print.replace("Bu", "uB")).unwrap().fits(&public));
    for text in ["SHA256:x", "SHA256:", &format!("{print}k"), "seaprox-ed25519", "x"] {
        assert!(pin(text).unwrap_err().to_string().contains("expected"), "{text}");
    }
}

#[test]
fn errors_name_the_wrong_value() {
    let link = |options: &str| parsed(&format!("link --connect r {options}")).config().map(drop);
    let peer = [Upstream::parse("r:1").unwrap()];
    for (result, text) in [
        (
            link("--cipher aes-128-gmc"),
            "--cipher \"aes-128-gmc\": expected aes-128-gcm or aes-256-gcm or chacha20-poly1305; did you mean aes-128-gcm?",
        ),
        (link("--mode strip"), "--mode \"strip\": expected stripe or single or redundant; did you mean stripe?"),
        (link("--link-hold 0"), "--link-hold \"0\": expected a duration above 0, because a link needs this timer"),
        (link("--path eth0"), "--path \"eth0\": the source \"eth0\": expected an address of this host"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), format!("seaprox link: {text}"));
    }
    for option in ["--link-max", "--link-key-max"] {
        let line =
            |count| parsed(&format!("link --listen 1 {option} {count}")).config().map_err(|error| error.to_string());
        assert!(line(1024).is_ok(), "{option}");
        let error = line(1025).unwrap_err();
        assert!(error.contains("expected a number from 1 to 1024"), "a loop has no room for more links: {error}");
    }
    let groups = parsed("link --connect r --key-exchange x25519").config().unwrap().node.groups;
    assert_eq!(groups, [seaprox::node::Group::X25519]);
    let wrong = link("--key-exchange x25519mlkem").unwrap_err().to_string();
    assert!(wrong.contains("expected x25519mlkem768 or x25519; did you mean x25519mlkem768?"), "{wrong}");
    let twice = link("--cipher aes-128-gcm,aes-128-gcm").unwrap_err().to_string();
    assert!(twice.ends_with("expected aes-128-gcm once"), "{twice}");
    let shared = parsed("link --connect r --subflows 2 --path 10.0.0.2:5").paths(&peer).unwrap_err().to_string();
    assert!(shared.ends_with("--path with the source port 5: expected one subflow over each path"), "{shared}");
    let dead = parsed("link --connect r --link-dead 5s");
    let dead = dead.check(&dead.config().unwrap()).unwrap_err().to_string();
    assert!(dead.contains("--link-dead 5s: expected more than the 5s of --link-keepalive"), "{dead}");
}

#[test]
fn options_about_links_without_such_a_link_are_refused() {
    let check =
        |line: &str, dials, takes| parsed(line).check_link_options(dials, takes).map_err(|error| error.to_string());
    assert_eq!(check("link --connect r --path %eth0 --key k -L 1:a:2", true, false), Ok(()));
    assert_eq!(check("link --listen 1 --authorized-keys f --link-max 3 --secret s", false, true), Ok(()));
    assert_eq!(check("socks", false, false), Ok(()));
    assert_eq!(check("socks --via r --subflows 4", true, false), Ok(()));
    let dialed = "is about a link that this node dials: expected";
    for (line, dials, takes, text) in [
        ("socks --subflows 4", false, false, format!("--subflows {dialed} --via HOST[:PORT] too")),
        ("cat --key k a 1", false, false, format!("--key {dialed} --via HOST[:PORT] too")),
        ("link --listen 1 --path %eth0", false, true, format!("--path {dialed} --connect HOST[:PORT] too")),
        ("link --listen 1 -L 1:a:2", false, true, format!("-L {dialed} --connect HOST[:PORT] too")),
        ("link --listen 1 -W a:2", false, true, format!("-W {dialed} --connect HOST[:PORT] too")),
        (
            "link --connect r -L 1:a:2 --udp-any-source",
            true,
            false,
            "--udp-any-source is about a SOCKS proxy: expected -D [BIND:]PORT too".to_owned(),
        ),
        (
            "link --connect r --link-max 1",
            true,
            false,
            "--link-max is about links that peers dial: expected --listen ADDR too".to_owned(),
        ),
        (
            "link --connect r --secret s --key k",
            true,
            false,
            "--secret and --key: expected one of them, because the key is derived from the secret".to_owned(),
        ),
    ] {
        let error = check(line, dials, takes).unwrap_err();
        let (_, rest) = error.split_once(": ").unwrap();
        assert_eq!(rest, text, "{line}");
    }
}

#[test]
fn a_mistyped_name_gets_a_suggestion() {
    let error = |line: &str| parse(line.split_whitespace().map(OsString::from), |_| None).unwrap_err().to_string();
    assert!(error("lnik").contains("did you mean link?"));
    assert!(error("selftst").contains("did you mean selftest?"));
    assert!(error("link --conect r").contains("did you mean --connect?"));
    assert!(error("link --subflow 2").contains("did you mean --subflows?"));
    assert!(error("socks --vai r").contains("did you mean --via?"));
    assert!(error("socks --connect r").contains("--connect is an option of link, not of socks"));
    let threads = error("cat --threads 2");
    assert!(threads.contains("--threads is an option of static, socks,") && threads.contains(", not of cat"));
    assert!(error("link --via r").contains(", cat, send, get, not of link"));
}

#[test]
fn the_habits_of_ssh_work_at_the_command_line() {
    let config = |line: &str| parsed(line).config().map_err(|error| error.to_string());
    let plain = config("link --connect gw --port 2200 --key k -L 1:a:1").unwrap();
    assert_eq!(config("link -N -T -p 2200 -i k -L1:a:1 gw"), Ok(plain.clone()));
    assert_eq!(config("link gw -NT -p2200 -ik -L 1:a:1"), Ok(plain));
    assert_eq!(config("link ::1 -p 5").unwrap().links[0].peers, [Upstream::parse("[::1]:5").unwrap()]);
    for (line, text) in [
        ("link gw:1 -p 5", "HOST \"gw:1\": expected HOST without a port beside -p"),
        ("link --listen 0 -p 5", "-p is about a link that this node dials: expected HOST too"),
        (
            "link joe@gw",
            "HOST \"joe@gw\": expected HOST[:PORT] without a user, because the key of this node tells the peer who it is",
        ),
        ("link --connect a b", "unexpected argument \"b\" beside --connect: expected one of them"),
        ("link gw -p x", "--port \"x\": expected a number from 1 to 65535"),
    ] {
        assert_eq!(config(line), Err(format!("seaprox link: {text}")), "{line}");
    }
    let error = parse(["link", "-f", "gw"].map(OsString::from), |_| None).unwrap_err().to_string();
    assert!(error.contains("-f: seaprox stays in the foreground; expected a service manager"));
}

#[test]
fn a_name_behind_a_forward_is_its_own_and_another_that_of_the_record() {
    let config = |line: &str| parsed(line).config().unwrap();
    let link = config("link gw --name office -L 1:a:1 --name db -D 2 -R 3:b:3 --name ssh -L 4:c:4");
    let names: Vec<_> = link.links[0].forwards.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((link.links[0].name.as_str(), names), ("office", vec!["db", "local-2", "dynamic", "ssh"]));
    assert_eq!(config("link --listen 1 --name gate").servers[0].name, "gate");
    let relays = config("static -l 1 --to a:1 -l 2 --to b:1 --name web --via gw");
    let names: Vec<_> = relays.listeners.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, relays.links[0].name.as_str()), (vec!["web", "web-2"], "gw:23232"));
    for line in ["socks --name a --name b", "link gw -L 1:a:1 --name a --name b"] {
        let error = parsed(line).config().unwrap_err().to_string();
        assert!(error.contains("--name \"b\": expected one name, and \"a\" is one"), "{error}");
    }
    let twice = parsed("link gw -L 1:a:1 --name x -D 2 --name x");
    let error = twice.check(&twice.config().unwrap()).unwrap_err().to_string();
    assert!(error.contains("--name \"x\": expected a name that no other record of its kind has"), "{error}");
}
