//! SOCKS byte by byte (BS-03, BS-04, SP-31): every version on one port, every refusal, any split of the input.

use crate::kit;

use std::net::TcpListener;
use std::time::Duration;

use kit::Step::*;
use kit::crowd::Crowd;
use kit::socks::{code5, connect5, reply5, request4, request5};
use kit::{Peer, Scratch, Seaprox};

const SOCKS: [&str; 3] = ["socks", "--listen", "127.0.0.1:0"];

fn proxy(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&SOCKS, options].concat())
}

fn target() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn users(scratch: &Scratch) -> String {
    scratch.write("users", "joe:secret\nann:p:w\n")
}

#[test]
fn socks4_is_granted_in_eight_bytes() {
    let (proxy, (listener, port)) = (proxy(&[]), target());
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&request4("127.0.0.1", port))]);
    let mut server = Peer::accept(&listener);
    let reply = client.some().unwrap();
    let bound = server.socket().peer_addr().unwrap().as_socket().unwrap().port().to_be_bytes();
    assert_eq!(reply, [0, 0x5a, bound[0], bound[1], 127, 0, 0, 1]);
    kit::peer::both(&mut client, &[Swap(100_000), Fin, ReadAll], &mut server, &[Swap(100_000), Fin, ReadAll]);
    assert!(proxy.wait_for_log(&[" closed "]).contains("conn=socks4[ipv4["));
}

#[test]
fn socks4_is_refused_in_eight_bytes() {
    let proxy = proxy(&[]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&request4("127.0.0.1", kit::closed_port())), Take(b"\0\x5b\0\0\0\0\0\0"), ReadAll, Fin]);
    proxy.wait_for_log(&[" closed ", "reason=connection_refused", "by=dest"]);
}

#[test]
fn socks4a_names_are_resolved_by_the_proxy() {
    let (proxy, (listener, port)) = (proxy(&["--only", "ipv4"]), target());
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&request4("localhost", port))]);
    Peer::accept(&listener).run(&[Put(b"hello"), Fin]);
    let answer = client.rest();
    assert_eq!((&answer[..2], &answer[8..]), (&b"\0\x5a"[..], &b"hello"[..]));
    drop(client);
    proxy.wait_for_log(&[" closed ", "conn=socks4a[ipv4[", &format!("->name[localhost:{port}]]")]);
}

#[test]
fn socks5_replies_carry_the_bound_address_of_either_family() {
    let proxy = proxy(&[]);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(local).unwrap();
        let addr = listener.local_addr().unwrap();
        let (_client, reply) = connect5(proxy.addr(0), &addr.ip().to_string(), addr.port());
        let bound = Peer::accept(&listener).socket().peer_addr().unwrap().as_socket().unwrap();
        let mut expected = vec![5, 0, 0];
        match bound.ip() {
            std::net::IpAddr::V4(ip) => expected.extend([&[1], &ip.octets()[..]].concat()),
            std::net::IpAddr::V6(ip) => expected.extend([&[4], &ip.octets()[..]].concat()),
        }
        expected.extend(bound.port().to_be_bytes());
        assert_eq!(reply, expected, "{local}");
    }
}

#[test]
fn a_socks5_name_that_is_a_literal_address_is_used_as_address() {
    let (proxy, (listener, port)) = (proxy(&[]), target());
    let mut request = b"\x05\x01\0\x05\x01\0\x03\x09127.0.0.1".to_vec();
    request.extend(port.to_be_bytes());
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&request), Take(b"\x05\0\x05\0\0\x01\x7f\0\0\x01")]);
    Peer::accept(&listener);
}

#[test]
fn a_socks_handshake_may_be_split_at_every_byte() {
    let scratch = Scratch::new();
    let proxies = [proxy(&[]), proxy(&["--users", &users(&scratch)])];
    let (listener, port) = target();
    let login = b"\x05\x02\0\x02\x01\x03joe\x06secret";
    let streams = [
        (0, request4("127.0.0.1", port), 8),
        (0, request4("localhost", port), 8),
        (0, [b"\x05\x01\0".to_vec(), request5("127.0.0.1", port)].concat(), 12),
        (0, [b"\x05\x02\0\x02".to_vec(), request5("localhost", port)].concat(), 12),
        (1, [login.to_vec(), request5("127.0.0.1", port)].concat(), 14),
    ];
    for (proxy, stream, reply_len) in streams {
        for at in 1..stream.len() {
            let mut client = Peer::connect(proxies[proxy].addr(0));
            // Despite the pause both pieces may arrive together, which the proxy must handle too.
            client.run(&[Put(&stream[..at]), Pause(1), Put(&stream[at..]), Put(b"ping")]);
            let mut server = Peer::accept(&listener);
            server.run(&[Take(b"ping"), Put(b"pong"), Fin]);
            let reply = client.rest();
            assert_eq!((reply.len(), &reply[reply.len() - 4..]), (reply_len + 4, &b"pong"[..]), "split at {at}");
        }
    }
}

#[test]
fn a_socks_handshake_may_arrive_byte_by_byte() {
    let (proxy, (listener, port)) = (proxy(&[]), target());
    let mut client = Peer::connect(proxy.addr(0));
    for byte in [b"\x05\x01\0".to_vec(), request5("127.0.0.1", port)].concat() {
        client.run(&[Put(&[byte]), Pause(1)]);
    }
    client.run(&[Take(b"\x05\0")]);
    Peer::accept(&listener);
    assert_eq!(reply5(&mut client)[1], 0);
}

#[test]
fn a_socks_handshake_may_arrive_with_data_and_a_fin_in_one_write() {
    let (proxy, (listener, port)) = (proxy(&[]), target());
    for stream in [request4("127.0.0.1", port), [b"\x05\x01\0".to_vec(), request5("127.0.0.1", port)].concat()] {
        let mut client = Peer::connect(proxy.addr(0));
        let data = vec![b'd'; 20_000];
        client.run(&[Put(&[stream, data.clone()].concat()), Fin]);
        let mut server = Peer::accept(&listener);
        assert!(server.rest() == data);
        server.run(&[Put(b"thanks"), Fin]);
        assert!(client.rest().ends_with(b"thanks"));
    }
}

#[test]
fn a_wrong_socks_version_is_closed_without_an_answer() {
    let proxy = proxy(&[]);
    for first in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\0\0\0", b"\x06\x01\0"] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(first)]);
        let answer = client.some();
        assert!(answer.as_ref().map_or(true, Vec::is_empty), "{answer:?}");
    }
    proxy.wait_for_log(&[" closed ", "reason=protocol_error", "by=source"]);
}

#[test]
fn no_common_authentication_method_is_answered_with_ff() {
    let scratch = Scratch::new();
    let (open, closed) = (proxy(&[]), proxy(&["--users", &users(&scratch)]));
    Peer::connect(open.addr(0)).run(&[Put(b"\x05\x01\x02"), Take(b"\x05\xff"), ReadAll]);
    Peer::connect(closed.addr(0)).run(&[Put(b"\x05\x01\0"), Take(b"\x05\xff"), ReadAll]);
    Peer::connect(closed.addr(0)).run(&[Put(b"\x05\0"), Take(b"\x05\xff"), ReadAll]);
    closed.wait_for_log(&[" closed ", "reason=auth_failed", "by=source"]);
}

#[test]
fn socks5_passwords_are_requested_and_checked() {
    let scratch = Scratch::new();
    let (proxy, (listener, port)) = (proxy(&["--users", &users(&scratch)]), target());
    for login in [b"\x01\x03joe\x06secret".as_slice(), b"\x01\x03ann\x03p:w"] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(b"\x05\x02\0\x02"), Take(b"\x05\x02"), Put(login), Take(b"\x01\0")]);
        client.run(&[Put(&request5("127.0.0.1", port))]);
        Peer::accept(&listener);
        assert_eq!(reply5(&mut client)[1], 0);
    }
    proxy.wait_for_log(&[" closed ", "user=ann"]);
    for login in [b"\x01\x03joe\x06Secret".as_slice(), b"\x01\x03bob\x06secret", b"\x01\x03joe\0"] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(b"\x05\x01\x02"), Take(b"\x05\x02"), Put(login)]);
        let answer = client.rest();
        let may_be_malformed = answer.is_empty() && login.ends_with(b"\0");
        assert!(may_be_malformed || answer.len() == 2 && answer[0] == 1 && answer[1] != 0, "{answer:?}");
    }
    proxy.wait_for_log(&[" closed ", "reason=auth_failed"]);
    assert_eq!(proxy.count_log(&["ecret"]), 0, "no password is in the log");
}

#[test]
fn socks_answers_to_wrong_passwords_are_delayed_and_a_right_one_is_not() {
    let scratch = Scratch::new();
    let (proxy, (listener, port)) = (proxy(&["--users", &users(&scratch)]), target());
    let mut crowd = Crowd::start(proxy.addr(0), 28, &[(b"\x05\x01\x02", 2), (b"\x01\x03joe\x05wrong", 0)]);
    kit::until("the clients beyond sixteen are closed", || crowd.look().0 >= 5);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(b"\x05\x01\x02"), Take(b"\x05\x02"), Put(b"\x01\x03joe\x06secret"), Take(b"\x01\0")]);
    client.run(&[Put(&request5("127.0.0.1", port))]);
    Peer::accept(&listener);
    assert_eq!(reply5(&mut client)[1], 0);
    let (closed, waiting) = crowd.look();
    assert!(waiting >= 1, "no wrong password waited when the right one was answered: {closed} closed");
    proxy.wait_for_log(&[" closed ", "reason=auth_failed", "wrong user or password"]);
}

#[test]
fn socks4_is_refused_where_users_are_required() {
    let scratch = Scratch::new();
    let (proxy, (_listener, port)) = (proxy(&["--users", &users(&scratch)]), target());
    for request in [request4("127.0.0.1", port), request4("localhost", port)] {
        Peer::connect(proxy.addr(0)).run(&[Put(&request), Take(b"\0\x5b\0\0\0\0\0\0"), ReadAll, Fin]);
    }
    proxy.wait_for_log(&[" closed ", "reason=auth_failed"]);
}

#[test]
fn an_unknown_command_is_refused_with_7() {
    let proxy = proxy(&[]);
    for command in [0, 4, 9] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(&[5, 1, 0, 5, command, 0, 1, 127, 0, 0, 1, 0, 80]), Take(b"\x05\0")]);
        client.run(&[Take(b"\x05\x07\0\x01\0\0\0\0\0\0"), ReadAll, Fin]);
    }
}

#[test]
fn an_unknown_address_type_is_refused_with_8() {
    let proxy = proxy(&[]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[
        Put(b"\x05\x01\0\x05\x01\0\x05\x7f\0\0\x01\0\x50"),
        Take(b"\x05\0\x05\x08\0\x01\0\0\0\0\0\0"),
        ReadAll,
    ]);
}

#[test]
fn a_refused_target_gives_5_a_thousand_times_and_the_next_client_is_served() {
    let proxy = proxy(&["--max-connections", "3"]);
    let (listener, port) = target();
    let refused = kit::closed_port();
    for _ in 0..1000 {
        assert_eq!(code5(proxy.addr(0), "127.0.0.1", refused), 5);
    }
    let (mut client, reply) = connect5(proxy.addr(0), "127.0.0.1", port);
    assert_eq!(reply[1], 0);
    kit::peer::both(&mut client, &[Swap(9)], &mut Peer::accept(&listener), &[Swap(9)]);
    proxy.wait_for_log(&[" closed ", "reason=connection_refused", "end=aborted", "by=dest"]);
}

#[test]
fn an_unknown_name_gives_4() {
    let proxy = proxy(&[]);
    assert_eq!(code5(proxy.addr(0), "no-such-name.invalid", 80), 4);
    assert_eq!(code5(proxy.addr(0), "not a name", 80), 4);
    proxy.wait_for_log(&[" closed ", "reason=name_resolution_failure"]);
}

#[test]
fn a_refusal_reaches_a_client_that_has_already_sent_data() {
    // Unread input would turn the close into a reset, which discards the reply.
    let proxy = proxy(&[]);
    for _ in 0..20 {
        let mut client = Peer::connect(proxy.addr(0));
        let all = [b"\x05\x01\0".to_vec(), request5("127.0.0.1", kit::closed_port()), vec![b'x'; 100_000]].concat();
        client.run(&[Put(&all), Fin, Take(b"\x05\0\x05\x05\0\x01\0\0\0\0\0\0"), ReadAll]);
    }
}

#[test]
fn an_endless_socks_handshake_reaches_its_size_limit_or_timeout() {
    let proxy = proxy(&["--handshake-timeout", "500ms"]);
    // The protocol does not limit the user id of SOCKS4.
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&[b"\x04\x01\0\x50\x7f\0\0\x01".to_vec(), vec![b'u'; 40_000]].concat())]);
    let _ = client.some();
    proxy.wait_for_log(&[" closed ", "reason=protocol_error"]);
    let mut silent = Peer::connect(proxy.addr(0));
    silent.run(&[Put(b"\x05")]);
    let since = std::time::Instant::now();
    let _ = silent.some();
    assert!((Duration::from_millis(400)..kit::LATE).contains(&since.elapsed()), "{:?}", since.elapsed());
    proxy.wait_for_log(&[" closed ", "reason=handshake_timeout"]);
}

/// The log shows the requested name with any bytes, on one line.
#[test]
fn an_invalid_name_is_logged_with_escapes() {
    let proxy = proxy(&[]);
    for (name, asked) in [
        (&b"a b"[..], "asked=\"a b:80\""),
        (b"x\r\nforged", r#"asked="x\r\nforged:80""#),
        (b"\xff.example", r#"asked="\\xff.example:80""#),
    ] {
        let request = [b"\x05\x01\0\x05\x01\0\x03", &[name.len() as u8][..], name, &[0, 80]].concat();
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(&request), Take(b"\x05\0\x05\x04\0\x01\0\0\0\0\0\0"), ReadAll, Fin]);
        proxy.wait_for_log(&[" closed ", asked, "reason=name_resolution_failure"]);
        let request = [b"\x04\x01\0\x50\0\0\0\x01joe\0", name, b"\0"].concat();
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(&request), Take(b"\0\x5b\0\0\0\0\0\0"), ReadAll, Fin]);
        proxy.wait_for_log(&["conn=socks4a", asked, "reason=name_resolution_failure"]);
    }
}

#[test]
fn a_socks4_user_id_that_is_too_long_is_refused() {
    let proxy = proxy(&[]);
    let request = [b"\x04\x01\0\x50\x7f\0\0\x01".to_vec(), vec![b'u'; 300]].concat();
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(&request), Take(b"\0\x5b\0\0\0\0\0\0"), ReadAll, Fin]);
    proxy.wait_for_log(&[
        " closed ",
        "conn=socks4[",
        "reason=protocol_error",
        "a user id or name of more than 255 bytes",
    ]);
}

#[test]
fn a_byte_order_mark_in_the_file_of_users_is_named() {
    let scratch = Scratch::new();
    let file = scratch.write("users", b"\xef\xbb\xbfjoe:secret\n");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ran = kit::run(&["socks", "--listen", "127.0.0.1:0", "--users", &file]);
    assert_eq!(ran.code, Some(78));
    assert!(ran.err.contains("users:1: begins with a byte order mark"), "{}", ran.err);
}
