//! Tests of files: their configurations, their errors with positions, and printed configurations that load to the same.

use std::fs;

use seaprox::config::{ExpectedKey, KeySource, LinkPaths, Service, Users};
use seaprox::{Bind, Family, Upstream};

use super::*;
use crate::links::scratch::Scratch;

fn variable(name: &str) -> Option<String> {
    match name {
        "TARGET" => Some("10.0.0.5".to_owned()),
        "PASSWORD" => Some("hunter2 \"secret\"".to_owned()),
        "CREDENTIALS_DIRECTORY" => Some("/run/credentials/seaprox".to_owned()),
        _ => None,
    }
}

fn environment() -> Environment<'static> {
    Environment { variable: &variable, options: None, modes: Modes::Strict }
}

/// Loads a file with this text.
fn loaded(text: &str) -> Result<Loaded, String> {
    let scratch = Scratch::new();
    let path = scratch.write("seaprox.toml", text, 0o600);
    // The directory has another name each time.
    let directory = format!("{}/", path.parent().unwrap().display());
    load(&path, &environment()).map_err(|problems| problems.to_string().replace(&directory, ""))
}

fn config(text: &str) -> Config {
    loaded(text).unwrap_or_else(|error| panic!("{error}")).config
}

fn errors(text: &str) -> Vec<String> {
    loaded(text).unwrap_err().lines().map(str::to_owned).collect()
}

const WHOLE: &str = r#"
threads = 2
no-splice = true
secret = "/s"
cipher = ["aes-256-gcm", "aes-128-gcm"]

[defaults]
connect-timeout = "3s"
deny = ["from:192.0.2.0/24"]
link-hold = "1h"
users = "/all.users"

[[listener]]
name = "web"
listen = [":80", "127.0.0.1:8080"]
front = "static"
to = "${TARGET}:80"
idle-timeout = "5s"
only = "ipv4"
no-nodelay = true
backlog = 7
source = "10.0.0.1%eth0"

[[listener]]
listen = 1080
front = "socks"
via = "office"
users = "none"
allow = ["*.example.org"]
deny = ["*"]

[[link]]
name = "office"
connect = "gw"
path = ["%eth0", "10.0.0.2->other"]
carrier = "mptcp"
forward = [
  { local = "5432:db:5432" },
  { remote = "2222:127.0.0.1:22", name = "ssh-home" },
  { dynamic = 1081 },
  { http = "127.0.0.1:8081" },
]

[[link]]
connect = "other:1"
paths = "paths"
handshake-timeout = "3s"

[[serve]]
listen = "0.0.0.0"
authorized-keys = "$CREDENTIALS_DIRECTORY/keys"
link-max = 5
"#;

#[test]
fn every_record_of_a_file_becomes_one_of_the_configuration() {
    let config = config(WHOLE);
    assert_eq!((config.threads, config.loops.limits.pipes), (2, 0));
    assert_eq!(config.node.key, KeySource::Secret("/s".into()));
    assert_eq!(config.node.ciphers.len(), 2);
    let [web, socks] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!((web.name.as_str(), socks.name.as_str()), ("web", "1080"));
    assert_eq!(web.front_end.upstreams("to"), [Upstream::parse("10.0.0.5:80").unwrap()]);
    assert_eq!((web.timers.idle.unwrap().as_secs(), web.timers.connect), (5, None));
    assert_eq!((web.family, web.nodelay, web.backlog), (Some(Family::OnlyIpv4), Some(false), Some(7)));
    assert_eq!(web.egress.as_ref().unwrap().interface.as_deref(), Some("eth0"));
    assert_eq!((&web.rules, &web.users), (&None, &None), "both are inherited");
    assert_eq!((socks.link.as_deref(), &socks.users), (Some("office"), &Some(Users::Anyone)));
    let rules: Vec<_> = socks.rules.as_ref().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["to:*.example.org", "to:*"]);
    assert_eq!(config.access.users, Users::File("/all.users".into()));
    let [office, other] = &config.links[..] else { panic!("{:?}", config.links) };
    assert_eq!((office.name.as_str(), other.name.as_str()), ("office", "other:1"));
    assert_eq!(office.peers, [Upstream::parse("gw:23232").unwrap()]);
    assert!(matches!(&office.paths, LinkPaths::List(paths) if paths.len() == 2));
    assert!(matches!(&other.paths, LinkPaths::File(path) if path.is_absolute() && path.ends_with("paths")));
    assert_eq!((&office.timing, other.timing.as_ref().unwrap().handshake.as_secs()), (&None, 3));
    assert_eq!(config.node.timing.hold.as_secs(), 3600);
    assert_eq!(office.expected_key, ExpectedKey::Known(None));
    let names: Vec<_> = office.forwards.iter().map(|forward| forward.name.as_str()).collect();
    assert_eq!(names, ["5432", "ssh-home", "1081", "127.0.0.1:8081"]);
    assert!(matches!(office.forwards[1].service, Service::Remote(_)));
    let server = &config.servers[0];
    assert_eq!(server.addresses, [Bind::parse("0.0.0.0:23232").unwrap()]);
    assert_eq!(server.authorized_keys.as_deref(), Some(Path::new("/run/credentials/seaprox/keys")));
    assert_eq!((config.node.timing.links, server.timing.as_ref().unwrap().links), (256, 5));
}

#[test]
fn a_printed_configuration_loads_to_the_same() {
    let first = config(WHOLE);
    let printed = print(&first, LogFormat::Json);
    let again = loaded(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.config, first, "{printed}");
    assert_eq!(again.log_format, LogFormat::Json);
    assert_eq!(print(&again.config, LogFormat::Json), printed);
}

#[test]
fn every_error_is_reported_with_its_position_in_one_run() {
    let text = r#"threads = "x"
thread = 3
idle-timeout = "5s"
[defaults]
tcp-keepalive = 60
[[listener]]
name = "web"
listen = [":80", ":80x"]
front = "sttic"
via = "nolink"
[[listener]]
name = "web"
front = "socks"
to = "a:1"
rate = "1mbit"
deny = ["from:x/y", "10.0.0.0/8"]
no-nodelay = "maybe"
allow = "${NOPE}:1"
[[link]]
connect = "a b"
secret = "x"
forward = [
  { local = "x:db:5432" },
  { remote = "2222:127.0.0.1:22", dynamic = 1 },
  { dynamc = 1081 },
]
[[serve]]
listen = 0.5
"#;
    let network = "a network such as 10.0.0.0/8 or fd00::/8 ([fd00::]/8:443 with a port)";
    let expected = [
        "seaprox.toml:1:11: threads: found \"x\", expected a number from 1 to 1024",
        "seaprox.toml:2:1: thread: found an unknown key, expected a key that may stand at the top of the file; did you mean \
         threads?",
        "seaprox.toml:3:1: idle-timeout: found it at the top of the file, expected it in [defaults] or in [[listener]]",
        "seaprox.toml:5:17: tcp-keepalive: found \"60\", expected a duration such as 250ms, 30s, 5m or 1h",
        &format!("seaprox.toml:8:18: listen: found \":80x\", {}", Bind::parse(":80x").unwrap_err()),
        "seaprox.toml:9:9: front: found \"sttic\", expected static or socks or http or redirect; did you mean static?",
        "seaprox.toml:10:7: via: found \"nolink\", expected the name of a link",
        "seaprox.toml:12:8: name: found \"web\", expected a name that no other record of its kind has",
        "seaprox.toml:14:1: to: found it beside front = \"socks\", expected no such key there",
        "seaprox.toml:15:1: rate: not yet: this version does not have this key",
        &format!("seaprox.toml:16:9: deny: found \"from:x/y\", expected {network}"),
        "seaprox.toml:17:14: no-nodelay: found \"maybe\", expected 1, true, yes, 0, false or no",
        "seaprox.toml:18:9: allow: found \"${NOPE}:1\", expected the variable NOPE to be set",
        "seaprox.toml:20:11: connect: found \"a b\", expected HOST[:PORT] or [IPV6][:PORT]",
        "seaprox.toml:21:1: secret: found it in [[link]], expected it at the top of the file",
        "seaprox.toml:23:13: local: found \"x:db:5432\", the port \"x\": expected a number from 0 to 65535",
        "seaprox.toml:24:3: forward: found 2 of local, remote, dynamic, http, expected one of them",
        "seaprox.toml:25:5: dynamc: found an unknown key, expected local, remote, dynamic, http or name; did you mean \
         dynamic?",
        "seaprox.toml:27:1: listen: expected at least one address",
        "seaprox.toml:28:10: listen: found 0.5, expected ADDR in quotes",
    ];
    assert_eq!(errors(text), expected);
}

#[test]
fn errors_of_syntax_stand_beside_the_others() {
    let found = errors("threads = 0\nthreads = 1\n[[listener]\nx = 'a\n");
    assert!(found.len() >= 3, "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("seaprox.toml:")), "{found:#?}");
    assert!(found[0].starts_with("seaprox.toml:1:11: threads: found \"0\""), "{found:#?}");
}

#[test]
fn problems_of_the_whole_have_the_positions_of_their_keys() {
    let text = "threads = 4\nmax-connections = 3\n[[link]]\nconnect = \"a\"\nlink-dead = \"2s\"\n\
                [[link]]\nconnect = \"a\"\n[[listener]]\nfront = \"static\"\nlisten = \"udp:127.0.0.1:1\"\nto = \"unix:/x\"\nvia = \"a:23232\"\n";
    let found = errors(text);
    let starts = [
        "seaprox.toml:1:11: threads: found 4, expected at most 3",
        "seaprox.toml:5:13: link-dead: found 2s, expected more than the 5s of link-keepalive",
        "seaprox.toml:7:11: connect: ",
        "seaprox.toml:11:6: to: found \"unix:/x\" with via, expected HOST:PORT, because a link carries TCP",
        "seaprox.toml:11:6: to: found \"unix:/x\", expected HOST:PORT for datagrams",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    assert!(found.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{found:#?}");
}

#[test]
fn a_range_of_target_ports_belongs_to_the_ports_of_its_listener() {
    let config =
        config("[[listener]]\nname = \"web\"\nfront = \"static\"\nlisten = \"3000-3002\"\nto = \"h:4000-4002\"\n");
    let relays: Vec<_> = config
        .listeners
        .iter()
        .map(|it| format!("{} {} {}", it.name, it.addresses[0], it.front_end.upstreams("to")[0]))
        .collect();
    assert_eq!(relays, ["web 3000 h:4000", "web-2 3001 h:4001", "web-3 3002 h:4002"]);
    let found = errors("[[listener]]\nfront = \"static\"\nlisten = \"3000-3002\"\nto = \"h:4000-4001\"\n");
    assert_eq!(
        found,
        ["seaprox.toml:4:6: to: found 2 ports beside 3 ports of listen, expected one port, or one for each port"]
    );
}

#[test]
fn included_files_are_read_in_the_order_of_their_names_and_once() {
    let scratch = Scratch::new();
    let directory = scratch.write("seaprox.toml", "", 0o600).parent().unwrap().to_owned();
    fs::create_dir(directory.join("conf.d")).unwrap();
    let main = scratch.write(
        "seaprox.toml",
        "include = [\"conf.d/*.toml\", \"none/*.toml\"]\n[defaults]\nbacklog = 7\n",
        0o600,
    );
    for (name, listen) in [("b.toml", 2), ("a.toml", 1), ("c.txt", 3), (".d.toml", 4)] {
        let text = format!("[[listener]]\nfront = \"socks\"\nlisten = {listen}\nusers = \"users\"\n");
        fs::write(directory.join("conf.d").join(name), text).unwrap();
    }
    let loaded = load(&main, &environment()).unwrap();
    let names: Vec<_> =
        loaded.sources.iter().map(|path| path.strip_prefix(&directory).unwrap().display().to_string()).collect();
    assert_eq!(names, ["seaprox.toml", "conf.d/a.toml", "conf.d/b.toml"]);
    let listeners = &loaded.config.listeners;
    assert_eq!(listeners.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let users = Users::File(directory.join("conf.d/users"));
    assert_eq!(listeners[0].users, Some(users), "a path begins at the directory of its file");
    assert_eq!(loaded.config.loops.limits.backlog, 7);
    fs::write(directory.join("conf.d/b.toml"), "include = \"../seaprox.toml\"\nbacklog = 1\n[defaults]\nbacklog = 8\n")
        .unwrap();
    let found = load(&main, &environment()).unwrap_err().to_string().replace(&format!("{}/", directory.display()), "");
    let expected = "conf.d/b.toml:1:11: include: found \"conf.d/../seaprox.toml\", expected each file once\n\
         conf.d/b.toml:2:1: backlog: found it at the top of the file, expected it in [defaults] or in [[listener]]\n\
         conf.d/b.toml:4:1: backlog: found it twice, expected it once: it also stands at seaprox.toml:3:1";
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_where_it_is_named() {
    let found = errors("include = [\"none.toml\", \"*/x.toml\", 5]\n");
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("seaprox.toml:1:12: none.toml: No such file"), "{found:#?}");
    assert!(found[1].starts_with("seaprox.toml:1:25: include: found \"*/x.toml\", expected * and ?"), "{found:#?}");
    let error = load(Path::new("/none/x.toml"), &environment()).unwrap_err().to_string();
    assert!(error.starts_with("/none/x.toml:1:1: /none/x.toml: No such file"), "{error}");
}

#[test]
fn a_file_without_a_record_is_an_error() {
    assert_eq!(errors(""), ["seaprox.toml:1:1: expected at least one [[listener]], [[link]] or [[serve]]"]);
}

mod properties;
mod reference;

#[cfg(unix)]
#[test]
fn a_file_or_directory_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let scratch = Scratch::new();
    let set = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let path = scratch.write(
        "seaprox.toml",
        "include = \"conf.d/*.toml\"\n[[listener]]\nlisten = \":1080\"\nfront = \"socks\"\n",
        0o600,
    );
    let directory = path.parent().unwrap().join("conf.d");
    fs::create_dir(&directory).unwrap();
    set(&directory, 0o755);
    let included = directory.join("a.toml");
    fs::write(&included, "[[listener]]\nlisten = \":1081\"\nfront = \"socks\"\n").unwrap();
    set(&included, 0o644);
    assert_eq!(load(&path, &environment()).map(drop).map_err(|it| it.to_string()), Ok(()));
    for (wrong, mode, right, part) in [
        (&path, 0o666, 0o600, "seaprox.toml:1:1: "),
        (&included, 0o646, 0o644, "seaprox.toml:1:11: "),
        (&directory, 0o777, 0o755, "seaprox.toml:1:11: include"),
    ] {
        set(wrong, mode);
        let error = load(&path, &environment()).unwrap_err().to_string();
        let is_named = error.contains(part) && error.contains("others ");
        assert!(is_named && error.contains("--no-strict-modes"), "{error}");
        assert!(load(&path, &Environment { modes: Modes::Lax, ..environment() }).is_ok());
        set(wrong, right);
    }
    // A directory is checked also while no file is in it.
    fs::remove_file(&included).unwrap();
    set(&directory, 0o777);
    assert!(load(&path, &environment()).unwrap_err().to_string().contains("others may write to the directory"));
}

#[test]
fn no_error_quotes_the_value_of_a_variable() {
    for line in [
        "listen = \"${PASSWORD}\"",
        "idle-timeout = \"a${PASSWORD}b\"",
        "prefer = \"${PASSWORD}\"",
        "to = [\"${PASSWORD}\", \"${PASSWORD}:80\", \"a:1\"]",
        "source = \"${PASSWORD}\"",
        "allow = [\"${PASSWORD}\"]",
        "proxy-protocol = { send-to = [\"${PASSWORD}=v2\"] }",
    ] {
        let listen = if line.starts_with("listen") { "" } else { "listen = 1\n" };
        let to = if line.starts_with("to") { "" } else { "to = \"a:1\"\n" };
        let errors = errors(&format!("[[listener]]\nfront = \"static\"\n{listen}{to}{line}\n")).join("\n");
        assert!(errors.contains("${PASSWORD}") && !errors.contains("hunter2"), "{line}: {errors}");
    }
    for line in ["connect = \"${PASSWORD}\"", "connect = \"a\"\nforward = [{ local = \"1:${PASSWORD}:x:y:z\" }]"] {
        let errors = errors(&format!("[[link]]\n{line}\n")).join("\n");
        assert!(!errors.contains("hunter2"), "{line}: {errors}");
    }
}

#[test]
fn headers_for_single_targets_are_read_and_printed_and_each_is_a_target_once() {
    let text = |send_to: &str| {
        format!(
            "[[listener]]\nlisten = 1\nfront = \"static\"\nto = [\"a:1\", \"unix:/x=y\", \"_x._tcp.b\"]\n\
             proxy-protocol = {{ send = \"v1\", send-to = [{send_to}] }}\n"
        )
    };
    let first = config(&text("\"a:1=v2\", \"unix:/x=y=none\", \"srv:_x._tcp.b=v1\""));
    assert_eq!(first.listeners[0].proxy_protocol.send_to.len(), 3);
    let printed = print(&first, LogFormat::Text);
    assert!(
        printed.contains("proxy-protocol-send-to = [\"a:1=v2\", \"unix:/x=y=none\", \"srv:_x._tcp.b=v1\"]"),
        "{printed}"
    );
    assert_eq!(config(&printed), first);
    for (send_to, expected) in [
        ("\"b:1=v2\"", "found \"b:1\", expected a target of this listener"),
        ("\"a:1=v2\", \"a:1=v1\"", "found \"a:1\", expected each target once"),
        ("\"a:1\"", "expected TARGET=v1, TARGET=v2 or TARGET=none"),
        ("\"a:1=v3\"", "expected TARGET=v1, TARGET=v2 or TARGET=none"),
    ] {
        let errors = errors(&text(send_to)).join("\n");
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn an_example_prints_as_a_file_that_means_the_same() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let first = loaded(&fs::read_to_string(&path).unwrap()).unwrap();
            let again = config(&print(&first.config, first.log_format));
            assert_eq!(again, first.config, "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn all_files_together_have_a_largest_size() {
    let scratch = Scratch::new();
    let comment = format!("#{}\n", "x".repeat(4 << 20 >> 1));
    let path = scratch.write("seaprox.toml", "include = [\"*.conf\"]\n", 0o600);
    for number in 0..17 {
        scratch.write(&format!("{number}.conf"), &comment, 0o600);
    }
    let errors = load(&path, &environment()).map(drop).unwrap_err().to_string();
    assert!(errors.contains("include: expected at most 32MiB in all files"), "{errors}");
}
