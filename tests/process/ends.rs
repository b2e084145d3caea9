//! The end of a connection when one peer closes early, as the other peer sees it, through each front end and over a
//! link: resets after a FIN, responses that were sent before a reset, and the byte counts.

use crate::kit;

use std::net::{SocketAddr, TcpListener};

use kit::Step::*;
use kit::http::{head, response};
use kit::link::Keys;
use kit::{Peer, Seaprox};

/// The front end through which the client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Static,
    Socks5,
    Connect,
}

const FRONTS: [Front; 3] = [Front::Static, Front::Socks5, Front::Connect];

/// A front end, optionally a link behind it, and the test's listener as target.
struct Path {
    front: Front,
    near: Seaprox,
    far: Option<Seaprox>,
    listener: TcpListener,
    _keys: Keys,
}

impl Path {
    fn start(front: Front, over_link: bool) -> Path {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (keys, to) = (Keys::new(), listener.local_addr().unwrap().to_string());
        let far = over_link.then(|| keys.start_far(&[]));
        let mut args = match front {
            Front::Static => vec!["static", "--to", &to],
            Front::Socks5 => vec!["socks"],
            Front::Connect => vec!["http"],
        };
        args.extend(["--listen", "127.0.0.1:0"]);
        let via = far.as_ref().map_or(Vec::new(), |far| keys.via(&far.addr(0).to_string()));
        args.extend(via.iter().map(String::as_str));
        Path { front, near: Seaprox::start(&args), far, listener, _keys: keys }
    }

    fn each() -> impl Iterator<Item = Path> {
        FRONTS.into_iter().flat_map(|front| [false, true].map(|over_link| Path::start(front, over_link)))
    }

    fn name(&self) -> String {
        format!("{:?}{}", self.front, if self.far.is_some() { " over a link" } else { "" })
    }

    fn target(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Connects a client through the front end. Returns it and the server's end.
    fn pair(&self) -> (Peer, Peer) {
        let client = self.client();
        (client, Peer::accept(&self.listener))
    }

    fn client(&self) -> Peer {
        let (addr, to) = (self.near.addr(0), self.target());
        match self.front {
            Front::Static => Peer::connect(addr),
            Front::Socks5 => kit::socks::connect5(addr, "127.0.0.1", to.port()).0,
            Front::Connect => {
                let mut client = Peer::connect(addr);
                client.run(&[Put(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())]);
                assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
                client
            }
        }
    }

    /// Returns the closing line of the connection at each node.
    fn closing_lines(&self) -> Vec<String> {
        let nodes = [Some(&self.near), self.far.as_ref()];
        nodes.into_iter().flatten().map(|node| node.wait_for_log(&["seaprox::connection closed "])).collect()
    }
}

#[track_caller]
fn assert_has(line: &str, words: &[&str]) {
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
}

/// A reset after a FIN was dropped: the other side could go on sending, and the log line said `end=graceful`.
#[test]
fn a_reset_after_a_fin_reaches_the_other_side_at_once() {
    for path in Path::each() {
        for client_leaves in [true, false] {
            let (client, server) = path.pair();
            let (mut leaver, mut other) = if client_leaves { (client, server) } else { (server, client) };
            leaver.run(&[Send(3000), Fin]);
            // The other side has received the FIN and sends no more bytes.
            other.run(&[ReadAll, Send(10)]);
            leaver.run(&[Read(10), Rst]);
            other.run(&[AwaitReset]);
            assert_eq!(other.received, 3000);
            let (reason, by) = if client_leaves { ("source_reset", "source") } else { ("dest_reset", "dest") };
            for node in [Some(&path.near), path.far.as_ref()].into_iter().flatten() {
                let words = ["connection closed ", &format!("reason={reason} end=aborted by={by}")];
                println!("{} {}", path.name(), node.wait_for_log(&words));
            }
        }
        assert_eq!(path.near.count_log(&[" closed ", "end=graceful"]), 0, "{}", path.name());
    }
}

/// All bytes before the FIN must still be delivered after the reset, however slowly they are read.
#[test]
fn bytes_before_a_fin_arrive_although_a_reset_follows() {
    for over_link in [false, true] {
        let path = Path::start(Front::Static, over_link);
        let mut client = Peer::connect_narrow(path.near.addr(0));
        let mut server = Peer::accept(&path.listener);
        client.run(&[Send(10)]);
        server.run(&[Read(10), Send(1 << 20), Fin, AwaitTaken, Rst]);
        client.run(&[ReadSlowly(1 << 18, 1 << 14, 2), ReadAll, AwaitReset]);
        assert_eq!(client.received, 1 << 20);
        for line in path.closing_lines() {
            assert_has(&line, &["received=1048576 ", "reason=dest_reset end=aborted by=dest"]);
        }
    }
}

/// A peer that keeps sending notices the reset at once. Its bytes are not read and dropped.
#[test]
fn a_sender_is_reset_when_its_reader_has_closed_and_then_reset() {
    for path in Path::each() {
        let (mut client, mut server) = path.pair();
        client.run(&[Fin]);
        server.run(&[ReadAll, Fill(64 << 20, 50)]);
        client.run(&[Rst]);
        let sent = server.sent;
        let error = server.send_until_error();
        assert!(matches!(error, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");
        assert!(server.sent - sent < 48 << 20, "{} bytes were dropped", server.sent - sent);
        for line in path.closing_lines() {
            assert_has(&line, &["reason=source_reset end=aborted by=source"]);
        }
    }
}

/// In an exchange of `http://`, the server is reset as well, although the proxy does not pass on the client's FIN.
#[test]
fn a_client_that_closes_and_then_resets_resets_the_server() {
    for over_link in [false, true] {
        let path = Path::start(Front::Connect, over_link);
        let mut client = Peer::connect(path.near.addr(0));
        let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", path.target());
        client.run(&[Put(get.as_bytes()), Fin]);
        let mut server = Peer::accept(&path.listener);
        assert!(head(&mut server).starts_with("GET / "));
        server.run(&[Put(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"), Send(1000)]);
        assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
        client.run(&[Read(1000), Rst]);
        server.run(&[ReadReset]);
        for line in path.closing_lines() {
            assert_has(&line, &["reason=source_reset end=aborted by=source"]);
        }
    }
}

/// A server answers an upload early and closes. The response was in the receive queue and was dropped when writing the
/// body failed. Through a front end no more responses may be lost than on a direct connection.
#[test]
fn an_early_response_is_not_lost_when_writing_the_body_fails() {
    const UPLOADS: usize = 100;
    let direct = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = direct.local_addr().unwrap();
    let baseline = answered(UPLOADS, &direct, || Peer::connect(addr), "/");
    println!("direct: {baseline}");
    for path in Path::each() {
        let count = answered(UPLOADS, &path.listener, || path.client(), "/");
        println!("{}: {count}", path.name());
        assert!(count >= baseline, "{}: {count} answers of {UPLOADS}, direct {baseline}", path.name());
    }
    for over_link in [false, true] {
        let path = Path::start(Front::Connect, over_link);
        let place = format!("http://{}/", path.target());
        let count = answered(UPLOADS, &path.listener, || Peer::connect(path.near.addr(0)), &place);
        println!("{} exchange: {count}", path.name());
        assert!(count >= baseline, "exchanges: {count} answers of {UPLOADS}, direct {baseline}");
        path.near.wait_until_idle();
        assert_eq!(path.near.count_log(&[" closed ", "end=graceful"]), 0, "no body has been transferred completely");
    }
}

/// Makes `count` uploads to a server that answers without reading the body. Returns how many clients got the response.
fn answered(count: usize, listener: &TcpListener, connect: impl Fn() -> Peer, place: &str) -> usize {
    const NO: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno!\n";
    let post = format!("POST {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                let mut server = Peer::accept(listener);
                assert!(head(&mut server).starts_with("POST / "));
                // The unread bytes make the server's kernel reset the connection.
                server.run(&[Put(NO)]);
            }
        });
        let has_answer = |_: &usize| {
            let mut client = connect();
            client.run(&[Put(post.as_bytes())]);
            client.send_some(1_000_000);
            String::from_utf8_lossy(&client.rest_or_reset()).ends_with("no!\n")
        };
        (0..count).filter(has_answer).count()
    })
}

/// The replies of the front end itself were counted as bytes of the target: 5 echoed bytes counted as 17 with SOCKS5
/// and as 44 with CONNECT.
#[test]
fn only_relayed_bytes_are_counted_and_both_nodes_of_a_link_agree() {
    for path in Path::each() {
        let (mut client, mut server) = path.pair();
        client.run(&[Put(b"hello")]);
        server.run(&[Take(b"hello"), Put(b"world")]);
        client.run(&[Take(b"world")]);
        for node in [Some(&path.near), path.far.as_ref()].into_iter().flatten() {
            let figure = |pointer: &str| node.figure(&format!("/connections/0/{pointer}"));
            let bytes = ["source/bytes_in", "source/bytes_out", "dest/bytes_in", "dest/bytes_out"].map(figure);
            assert_eq!(bytes, [5; 4], "{}", path.name());
        }
        client.run(&[Fin]);
        server.run(&[ReadAll, Fin]);
        for line in path.closing_lines() {
            assert_has(&line, &["sent=5 received=5 "]);
        }
        path.near.wait_until_idle();
        assert_eq!((path.near.figure("/bytes_sent"), path.near.figure("/bytes_received")), (5, 5), "{}", path.name());
    }
}

/// In an HTTP exchange, all bytes that the server has received and sent are counted, as on the wire there.
#[test]
fn the_byte_counts_of_an_http_exchange_are_those_at_the_server() {
    for over_link in [false, true] {
        let path = Path::start(Front::Connect, over_link);
        let mut client = Peer::connect(path.near.addr(0));
        let fields = "Host: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        client.run(&[Put(format!("POST http://{}/ HTTP/1.1\r\n{fields}", path.target()).as_bytes())]);
        let mut server = Peer::accept(&path.listener);
        let sent = head(&mut server).len() + "3\r\nabc\r\n0\r\n\r\n".len();
        server.run(&[Take(b"3\r\nabc\r\n0\r\n\r\n")]);
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n";
        server.run(&[Put(answer.as_bytes())]);
        assert!(client.rest().ends_with(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        drop((client, server));
        for line in path.closing_lines() {
            assert_has(&line, &[&format!("sent={sent} received={} ", answer.len())]);
        }
    }
}

/// The proxy's own refusal does not count as bytes of the target.
#[test]
fn a_refused_client_counts_no_bytes() {
    let port = kit::closed_port();
    let socks = Seaprox::start(&["socks", "--listen", "127.0.0.1:0"]);
    assert_eq!(kit::socks::code5(socks.addr(0), "127.0.0.1", port), 5);
    let http = Seaprox::start(&["http", "--listen", "127.0.0.1:0"]);
    let mut client = Peer::connect(http.addr(0));
    client.run(&[Put(format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())]);
    assert!(String::from_utf8_lossy(&client.rest()).starts_with("HTTP/1.1 502 "));
    drop(client);
    for proxy in [socks, http] {
        assert_has(&proxy.wait_for_log(&[" closed "]), &["sent=0 received=0 reason=connection_refused"]);
    }
}

/// A kept connection to an origin server was reused although it had ended or held unrequested bytes, if the loop had
/// not handled its event yet. A request that is not idempotent was then lost, or got a wrong response.
#[test]
fn a_kept_connection_with_an_unread_event_is_not_reused() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const STRAY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    let path = Path::start(Front::Connect, false);
    let post = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", path.target());
    for end in [&[Fin][..], &[Rst], &[Put(STRAY)], &[Put(STRAY), Fin]] {
        let mut client = Peer::connect(path.near.addr(0));
        client.run(&[Put(post.as_bytes())]);
        let mut server = Peer::accept(&path.listener);
        assert!(head(&mut server).starts_with("POST / "));
        server.run(&[Put(OK)]);
        assert_eq!(response(&mut client).body, b"ok");
        // Both events wait for the loop when it continues, and the client's is the first.
        path.near.suspend();
        let (server_addr, near_addr) = (server.local(), server.remote());
        client.run(&[Put(post.as_bytes())]);
        server.run(end);
        kit::peer::until_delivered(near_addr, server_addr);
        path.near.signal(libc::SIGCONT);
        let mut server = Peer::accept(&path.listener);
        assert!(head(&mut server).starts_with("POST / "), "{end:?}");
        server.run(&[Put(OK)]);
        assert_eq!(response(&mut client).body, b"ok", "{end:?}");
    }
}

/// A kept connection over a link must not be reused after its end. The session has received the end, but the stream's
/// side has had no event yet.
#[test]
fn a_kept_connection_over_a_link_with_an_unread_event_is_not_reused() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let path = Path::start(Front::Connect, true);
    let post = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", path.target());
    let far = path.far.as_ref().unwrap();
    for end in [&[Fin][..], &[Rst], &[Put(b"stray")]] {
        let mut client = Peer::connect(path.near.addr(0));
        client.run(&[Put(post.as_bytes())]);
        let mut first = Peer::accept(&path.listener);
        assert!(head(&mut first).starts_with("POST / "));
        first.run(&[Put(OK)]);
        assert_eq!(response(&mut client).body, b"ok");
        // A reset passes when the near node has all bytes before it.
        kit::until("the response is acknowledged", || far.figure("/links/0/memory_sent_bytes") == 0);
        let dest = || far.status().pointer("/connections/0/dest").cloned();
        let before = dest().expect("a connection");
        path.near.suspend();
        first.run(end);
        kit::until("the far node has noticed it", || match (end, dest()) {
            ([Rst], dest) => dest.is_none(),
            ([Fin], Some(dest)) => dest["flags"].as_array().unwrap().iter().any(|flag| flag == "fin"),
            (_, Some(dest)) => dest["bytes_in"] != before["bytes_in"],
            (_, None) => false,
        });
        // This status comes from a later turn, in which the frame for the link has been sent.
        let subflow = far.status()["links"][0]["subflows"][0].clone();
        let [local, remote] = ["local", "remote"].map(|end| subflow[end].as_str().unwrap().parse().unwrap());
        kit::peer::until_all_delivered(local, remote);
        client.run(&[Put(post.as_bytes())]);
        path.near.signal(libc::SIGCONT);
        let mut server = Peer::accept(&path.listener);
        assert!(head(&mut server).starts_with("POST / "), "{end:?}");
        server.run(&[Put(OK)]);
        assert_eq!(response(&mut client).body, b"ok", "{end:?}");
        drop((client, first, server));
        path.near.wait_until_idle();
        far.wait_until_idle();
    }
}
