//! The admin server is out of reach for the clients and the peers of its own process, unless the operator says otherwise.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use crate::admin::{LOCAL, ctl, get, link_pair, over_tcp};
use crate::admin_guard::token_file;
use crate::kit;
use kit::names::{ip, isolated};
use kit::{Scratch, Seaprox, has_namespaces, socks, until};

#[test]
fn a_client_of_the_proxy_does_not_reach_its_admin_server() {
    let proxy = Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let (front, admin) = (proxy.addr(0), proxy.admin_addr());
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1"] {
        assert_eq!(socks::code5(front, host, admin.port()), 2, "{host}");
    }
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(socks::code5(front, "127.0.0.1", other.local_addr().unwrap().port()), 0);
    let proxy = Seaprox::start(&["http", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let url = format!("http://{}/status", proxy.admin_addr());
    let request = format!("GET {url} HTTP/1.0\r\nHost: {}\r\n\r\n", proxy.admin_addr());
    assert_eq!(over_tcp(proxy.addr(0), &request).status, 403);
}

#[test]
fn an_admin_server_at_all_addresses_is_out_of_reach_at_each_of_them() {
    let scratch = Scratch::new();
    let file = token_file(&scratch);
    let proxy =
        Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--admin-token-file", &file]);
    for host in ["127.0.0.1", "127.0.0.9", "localhost"] {
        assert_eq!(socks::code5(proxy.addr(0), host, proxy.admin_addr().port()), 2, "{host}");
    }
}

/// Where a socket may be bound to any address, an address is this host's own one because an interface has it.
#[test]
fn an_admin_server_at_all_addresses_keeps_no_client_from_the_same_port_of_another_host() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        ip("addr add 192.0.2.1/24 dev lo");
        ip("addr add 192.0.2.2/24 dev lo");
        ip("-6 addr add fe80::7/64 dev lo nodad");
        std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
        let scratch = Scratch::new();
        let file = token_file(&scratch);
        let proxy =
            Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--admin", "[::]:0", "--admin-token-file", &file]);
        let code = |host: &str| socks::code5(proxy.addr(0), host, proxy.admin_addr().port());
        for own in ["127.0.0.9", "192.0.2.1", "192.0.2.2", "fe80::7"] {
            assert_eq!(code(own), 2, "{own}");
        }
        assert_ne!(code("198.51.100.1"), 2, "no route leads to it");
    });
}

#[test]
fn a_peer_of_a_link_does_not_reach_the_admin_server_of_the_far_node() {
    let keys = kit::link::Keys::new();
    let far = keys.start_far(&["--admin", "127.0.0.1:0"]);
    let via = keys.via(&far.listens(0));
    let via: Vec<&str> = via.iter().map(String::as_str).collect();
    let near = Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &via[..]].concat());
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(socks::code5(near.addr(0), host, far.admin_addr().port()), 2, "{host}");
    }
    // This one belongs to another process, and the far node does not know it.
    assert_eq!(socks::code5(near.addr(0), "127.0.0.1", near.admin_addr().port()), 0);
}

#[test]
fn a_target_of_the_configuration_may_be_the_admin_server() {
    let scratch = Scratch::new();
    let listener = |name: &str, to: &str| {
        format!("[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nfront = \"static\"\nto = [{to}]\n")
    };
    let write = |text: String| {
        let file = scratch.write("seaprox.toml", text);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    let start = "admin = \"127.0.0.1:0\"\n".to_owned() + &listener("first", "\"127.0.0.1:9\"");
    let proxy = Seaprox::start(&["run", &write(start.clone())]);
    let admin = proxy.admin_addr();
    let (one, two) = (format!("\"{admin}\""), format!("\"{admin}\", \"127.0.0.1:{}\"", kit::closed_port()));
    write(start + &listener("one", &one) + &listener("two", &two));
    proxy.signal(libc::SIGHUP);
    let at = |name: &str| -> Option<SocketAddr> {
        let status = proxy.status();
        let all = status["listeners"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name)?["address"].as_str()?.parse().ok()
    };
    for name in ["one", "two"] {
        until("the new listener listens", || at(name).is_some());
        assert_eq!(over_tcp(at(name).unwrap(), &get("/healthz", LOCAL)).status, 200, "{name}");
    }
}

#[test]
fn a_remote_forward_of_the_operator_may_lead_to_the_admin_server() {
    let (_keys, far, near) = link_pair(&["--admin", "127.0.0.1:0"]);
    let forward = format!("127.0.0.1:0:{}", near.admin_addr());
    assert_eq!(ctl(&near, &["open", "-R", &forward]).code, Some(0));
    until("the far node listens", || near.status()["forwards"][0]["state"] == "listening");
    let at: SocketAddr = near.status()["forwards"][0]["bound"][0].as_str().unwrap().parse().unwrap();
    assert_eq!(over_tcp(at, &get("/healthz", LOCAL)).status, 200);
    drop(far);
}
