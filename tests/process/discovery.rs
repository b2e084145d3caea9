//! Lists of targets whose name server answers in part, late or not at all.

use crate::kit;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use kit::names::{A, isolated};
use kit::servers::{Server, letters};
use kit::socks::code5;
use kit::{Scratch, Seaprox, has_namespaces, until};

/// Runs a file. The first listener is that of SOCKS clients, and the others have these lists of targets.
fn run(lists: &[&[&str]]) -> Seaprox {
    let mut text =
        "dns-cache = \"0s\"\n[[listener]]\nname = \"socks\"\nlisten = \"127.0.0.1:0\"\nfront = \"socks\"\n".to_owned();
    for (number, list) in lists.iter().enumerate() {
        let front = format!("[[listener]]\nname = \"list{number}\"\nlisten = \"127.0.0.1:0\"\nfront = \"static\"\n");
        text.push_str(&format!("{front}balance = \"round-robin\"\nto = {list:?}\n"));
    }
    let scratch = Scratch::new();
    let path = scratch.write("seaprox.toml", text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    Seaprox::start(&["run", "-v", &path])
}

#[test]
fn an_unanswered_list_of_targets_delays_neither_clients_nor_another_list() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 listed.example\n", |names| {
        names.set_ttl(1);
        names.swallow(".mute.example");
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = target.local_addr().unwrap().port();
        let server = Server::start(b'a');
        names.set("host.example", &["127.0.0.1"], Duration::ZERO);
        names.set("web.example", &["127.0.0.1"], Duration::ZERO);
        let mute: Vec<_> = (0..9).map(|number| format!("{number}.mute.example:1")).collect();
        let mute: Vec<_> = mute.iter().map(String::as_str).collect();
        names.set_service("_late._tcp.example", &[(0, 0, server.addr.port(), "host.example")]);
        let proxy = run(&[&mute, &["srv:_late._tcp.example"]]);
        thread::spawn(move || target.incoming().for_each(drop));
        until("the name server was asked", || (0..9).any(|number| names.asked(&format!("{number}.mute.example")) > 0));
        for name in ["listed.example", "web.example"].repeat(8) {
            let since = Instant::now();
            assert_eq!(code5(proxy.addr(0), name, port), 0, "{name}");
            assert!(since.elapsed() < Duration::from_secs(1) + kit::LATE, "{name} took {:?}", since.elapsed());
        }
        let since = Instant::now();
        assert_eq!(letters(proxy.addr(2), 1), "a");
        assert!(since.elapsed() < Duration::from_secs(1) + kit::LATE, "the other list took {:?}", since.elapsed());
    });
}

#[test]
fn addresses_stay_while_the_name_server_fails_for_their_family() {
    if !has_namespaces() {
        return;
    }
    isolated("", |names| {
        names.set_ttl(1);
        // The address of the other family refuses clients.
        let four = Server::start(b'4');
        names.set("web.example", &["127.0.0.1", "::1"], Duration::ZERO);
        let to = format!("web.example:{}", four.addr.port());
        let proxy = run(&[&[&to]]);
        let targets = || proxy.status()["listeners"][1]["targets"].as_array().unwrap().len();
        until("both addresses are known", || targets() == 2);
        names.fail("web.example", A);
        // A lookup that has begun now ends before the second one from now begins.
        let before = proxy.figure("/discoveries");
        until("they were looked up again", || {
            assert_eq!(targets(), 2);
            proxy.figure("/discoveries") > before + 2
        });
        assert_eq!(letters(proxy.addr(1), 2), "44");
    });
}

#[test]
fn a_host_of_a_service_stays_while_the_name_server_fails_for_it() {
    if !has_namespaces() {
        return;
    }
    isolated("", |names| {
        names.set_ttl(1);
        let (a, b) = (Server::start(b'a'), Server::start(b'b'));
        for name in ["one.example", "two.example"] {
            names.set(name, &["127.0.0.1"], Duration::ZERO);
        }
        let record = |server: &Server, host| (0, 0, server.addr.port(), host);
        names.set_service("_web._tcp.example", &[record(&a, "one.example"), record(&b, "two.example")]);
        let proxy = run(&[&["srv:_web._tcp.example"]]);
        let targets = || proxy.status()["listeners"][1]["targets"].as_array().unwrap().len();
        until("both hosts are known", || targets() == 2);
        names.fail("one.example", A);
        let before = proxy.figure("/discoveries");
        until("it was looked up again", || {
            assert_eq!(targets(), 2);
            proxy.figure("/discoveries") > before + 2
        });
        let got = letters(proxy.addr(1), 4);
        assert!(got == "abab" || got == "baba", "{got}");
    });
}
