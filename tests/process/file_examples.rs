//! The files of `examples/`: each is valid as it stands, and works as its comments say, with addresses of this host in the
//! place of its own (TS-26).

use crate::kit;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kit::Step::*;
use kit::knot::Knot;
use kit::link::generate_key;
use kit::names::{ip, isolated};
use kit::peer::both;
use kit::servers::{Server, connect, letters};
use kit::socks::code5;
use kit::{Peer, Scratch, Seaprox, has, has_namespaces, run, until};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// Writes an example with these texts in the place of others. Returns the path of the file.
fn example(scratch: &Scratch, name: &str, replaced: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
    for (old, new) in replaced {
        assert!(text.contains(old), "{old} stands in {name}");
        text = text.replace(old, new);
    }
    owned(scratch, name, &text)
}

/// Writes a file that only its owner can read.
fn owned(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    (listener, addr)
}

/// Connects to an address, and checks that bytes pass to the target in both directions.
#[track_caller]
fn assert_relays(to: SocketAddr, target: &TcpListener) {
    let (mut client, mut server) = (Peer::connect(to), Peer::accept(target));
    both(&mut client, &[Put(b"ping"), Take(b"pong")], &mut server, &[Take(b"ping"), Put(b"pong")]);
}

/// Sends datagrams to an address until one has arrived at the target.
#[track_caller]
fn assert_sends(to: SocketAddr, target: &UdpSocket) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    until("a datagram at the target", || {
        client.send_to(b"ask", to).unwrap();
        target.recv(&mut [0; 8]).is_ok_and(|len| len == 3)
    });
}

/// Returns the address of the listener with this name.
#[track_caller]
fn listener(seaprox: &Seaprox, name: &str) -> SocketAddr {
    let status = seaprox.status();
    let found = status["listeners"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name}: {status:#}"))["address"]
        .as_str()
        .unwrap()
        .trim_start_matches("udp:")
        .parse()
        .unwrap()
}

#[test]
fn every_example_is_valid_as_it_stands() {
    let (mut count, scratch) = (0, Scratch::new());
    // The files of the examples are elsewhere on this host.
    std::fs::create_dir(scratch.file("etc")).unwrap();
    owned(&scratch, "etc/users", "joe:one\n");
    owned(&scratch, "etc/authorized_keys", &format!("{}\n", generate_key(&scratch.file("key"))));
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file =
                owned(&scratch, path.file_name().unwrap().to_str().unwrap(), &text.replace("/etc/seaprox", "etc"));
            let ran = run(&["check", &file]);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

/// A laptop and a desk dial one gateway, each with a key of its own, and may do what its line of authorized_keys says.
#[test]
fn a_laptop_has_its_tunnels_and_a_gateway_many_keys() {
    let scratch = Scratch::new();
    let ((db, db_addr), (ssh, ssh_addr), (mail, mail_addr)) = (target(), target(), target());
    let [laptop_key, desk_key, gateway_key] = ["laptop", "desk", "etc"].map(|name| generate_key(&scratch.file(name)));
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    let names_addr = names.local_addr().unwrap();
    let keys = format!(
        "permit-open=\"{db_addr}\",permit-open=\"{mail_addr}\",permit-open=\"udp:{names_addr}\",permit-listen=\"*\" {laptop_key}\npermit-open=\"{mail_addr}\" {desk_key}\n"
    );
    owned(&scratch, "etc/authorized_keys", &keys);
    let gateway = example(
        &scratch,
        "gateway.toml",
        &[
            ("\"0.0.0.0:23232\", \"[::]:23232\"", "\"127.0.0.1:0\""),
            ("\"/etc/seaprox", "\"etc"),
            ("max-connections = 20000", "max-connections = 200"),
        ],
    );
    let gateway = Seaprox::start(&["run", &gateway]);
    let address = gateway.addr(0).to_string();
    let start = |name: &str| {
        let replaced = [
            ("\"gateway.example.org\"", format!("\"{address}\"\npeer-key = \"{gateway_key}\"")),
            ("5432:db.internal:5432", format!("127.0.0.1:0:{db_addr}")),
            ("\"8443:wiki", "\"127.0.0.1:0:wiki".to_owned()),
            ("udp:5300:dns.internal:53", format!("udp:127.0.0.1:0:{names_addr}")),
            ("dynamic = 1081", "dynamic = \"127.0.0.1:0\"".to_owned()),
            ("\"2222:127.0.0.1:22\"", format!("\"127.0.0.1:0:{ssh_addr}\"")),
            ("\"127.0.0.1:2525\"", "\"127.0.0.1:0\"".to_owned()),
            ("mail.internal:25", mail_addr.clone()),
        ];
        let replaced: Vec<_> = replaced.iter().map(|(old, new)| (*old, new.as_str())).collect();
        let file = example(&scratch, "laptop.toml", &replaced);
        let config = scratch.file(name);
        Seaprox::start(&["run", &file, "--config-dir", &config])
    };
    let laptop = start("laptop");
    assert_relays(listener(&laptop, "database"), &db);
    assert_relays(listener(&laptop, "mail"), &mail);
    assert_sends(listener(&laptop, "names"), &names);
    assert_eq!(code5(listener(&laptop, "browser"), "127.0.0.1", 9), 2, "the key does not permit the target");
    let mut bound = String::new();
    until("the gateway listens for the laptop", || {
        let status = laptop.status();
        let forwards = status["forwards"].as_array().unwrap();
        let forward = forwards.iter().find(|it| it["name"] == "ssh-home").unwrap();
        bound = forward["bound"][0].as_str().unwrap_or_default().to_owned();
        !bound.is_empty()
    });
    assert_relays(bound.parse().unwrap(), &ssh);
    let desk = start("desk");
    assert_relays(listener(&desk, "mail"), &mail);
    let mut refused = TcpStream::connect(listener(&desk, "database")).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "the key of the desk does not permit the database");
}

#[test]
fn the_proxies_of_an_office_ask_for_a_login_and_follow_the_rules() {
    let scratch = Scratch::new();
    let (web, addr) = target();
    let port = addr.rsplit(':').next().unwrap();
    owned(&scratch, "users", "joe:secret\n");
    let file = example(
        &scratch,
        "office-socks.toml",
        &[
            ("\":1080\"", "\"127.0.0.1:0\""),
            ("\":8080\"", "\"127.0.0.1:0\""),
            ("/etc/seaprox/users", "users"),
            ("  \"deny 127.0.0.0/8\",\n", ""),
            ("from:192.168.7.0/24,to:*:80\"", &format!("from:127.0.0.0/8,to:*:{port}\"")),
        ],
    );
    let office = Seaprox::start(&["run", &file]);
    let socks = listener(&office, "socks");
    let login = |password: &str, host: [u8; 4]| {
        let mut client = Peer::connect(socks);
        let port: u16 = port.parse().unwrap();
        let hello = [b"\x05\x01\x02\x01\x03joe".as_slice(), &[password.len() as u8], password.as_bytes()].concat();
        let request = [b"\x05\x01\x00\x01".as_slice(), &host, &port.to_be_bytes()].concat();
        client.run(&[Put(&hello), Take(b"\x05\x02\x01")]);
        client.run(&[Put(&request)]);
        client
    };
    let mut client = login("secret", [127, 0, 0, 1]);
    let mut server = Peer::accept(&web);
    client.run(&[Take(b"\x00\x05\x00\x00\x01")]);
    server.run(&[Put(b"hello")]);
    // The reply ends with the address that the proxy connects from.
    let mut reply = [0; 11];
    client.socket().read_exact(&mut reply).unwrap();
    assert_eq!(&reply[6..], b"hello");
    login("secret", [10, 0, 0, 1]).run(&[Take(b"\x00\x05\x02")]);
    let mut stranger = Peer::connect(socks);
    stranger.run(&[Put(b"\x05\x01\x00"), Take(b"\x05\xff")]);
    let mut browser = Peer::connect(listener(&office, "web"));
    browser.run(&[Put(b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"), Take(b"HTTP/1.1 407 ")]);
}

#[test]
fn a_load_balancer_spreads_its_connections() {
    let scratch = Scratch::new();
    let ((one, first), (two, second)) = (target(), target());
    let file = example(
        &scratch,
        "load-balancer.toml",
        &[
            ("\":8080\"", "\"127.0.0.1:0\""),
            ("\":8081\"", "\"127.0.0.1:0\""),
            ("\"127.0.0.1:8082\"", "\"127.0.0.1:0\""),
            ("\"10.0.0.11:80\"", &format!("\"{first}\"")),
            ("\"10.0.0.12:80\"", &format!("\"{second}\"")),
            (", \"10.0.0.13:80\"", ""),
            ("\"10.0.0.11:8081\", \"10.0.0.12:8081\"", &format!("\"{first}\"")),
            // No record of DNS stands behind the name.
            ("srv:_api._tcp.example.org", &first),
            ("max-connections = 50000", "max-connections = 200"),
            // Each loop counts the connections of its own.
            ("threads = 2", "threads = 1"),
        ],
    );
    let balancer = Seaprox::start(&["run", &file]);
    let web = listener(&balancer, "web");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Both servers have as many connections before each pair.
        clients.extend([Peer::connect(web), Peer::connect(web)]);
        servers.extend([Peer::accept(&one), Peer::accept(&two)]);
    }
    assert_relays(listener(&balancer, "sessions"), &one);
}

/// The file as it stands but for its descriptors and one port, in a network that has its addresses, with a real name server.
#[test]
fn a_load_balancer_follows_the_service_that_a_real_name_server_has() {
    if !(has_namespaces() && has("knotd")) {
        return;
    }
    isolated("", |_| {
        let at = |address: &str, letter| Server::at(TcpListener::bind(address).unwrap(), letter);
        (11..=13).for_each(|host| ip(&format!("addr add 10.0.0.{host}/32 dev lo")));
        let web = [at("10.0.0.11:80", b'a'), at("10.0.0.12:80", b'b'), at("10.0.0.13:80", b'c')];
        let sessions = [at("10.0.0.11:8081", b'a'), at("10.0.0.12:8081", b'b')];
        let api = [at("10.0.0.11:9000", b'x'), at("10.0.0.12:9001", b'y'), at("10.0.0.13:9002", b'z')];
        let knot = Knot::of(
            "example.org",
            "one A 10.0.0.11\ntwo A 10.0.0.12\nthree A 10.0.0.13\n\
             _api._tcp SRV 10 50 9000 one\n_api._tcp SRV 10 50 9001 two\n",
        );
        let scratch = Scratch::new();
        // The servers of the sessions are on this host, and have their port.
        let replaced =
            [("max-connections = 50000", "max-connections = 200"), ("listen = \":8081\"", "listen = \"127.0.0.1:0\"")];
        let file = example(&scratch, "load-balancer.toml", &replaced);
        let balancer = Seaprox::start(&["run", &file]);
        let open: Vec<_> = (0..6).map(|_| connect(listener(&balancer, "web"))).collect();
        assert!(web.iter().all(|server| server.clients() == 2));
        let stays = letters(listener(&balancer, "sessions"), 6);
        assert!(stays == "aaaaaa" || stays == "bbbbbb", "{stays}");
        let to = listener(&balancer, "api");
        let got = letters(to, 6);
        assert!(got == "xyxyxy" || got == "yxyxyx", "{got}");
        knot.change(&["zone-unset _api._tcp SRV 10 50 9000 one", "zone-set _api._tcp 1 SRV 10 50 9002 three"]);
        until("the new server gets a client", || letters(to, 1) == "z");
        let got = letters(to, 4);
        assert!(got == "yzyz" || got == "zyzy", "{got}");
        drop((open, sessions, api));
    });
}
