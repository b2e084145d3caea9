//! The promises to a script (TN-05 to TN-23, TN-59, TN-60), with clients and servers behind its tunnels.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{execute, far, left, out, secret, start};
use crate::kit::program::{Program, free_ports, is_listening};
use crate::kit::servers::{self, Server};
use crate::kit::{Scratch, Seaprox, until};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Reads the next line of a console. Nothing behind it is lost, because a console prints one line at a time on demand.
#[track_caller]
fn line(console: &mut Program) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    let out = console.0.stdout.as_mut().unwrap();
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    assert!(!line.is_empty(), "the console prints a line");
    String::from_utf8(line).unwrap()
}

#[test]
fn five_tunnels_of_a_connection_serve_clients_at_once_and_one_after_another() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let servers: Vec<Server> = (b'a'..=b'e').map(Server::start).collect();
    let to: Vec<String> = servers.iter().map(|server| server.addr.port().to_string()).collect();
    let code = format!(
        "tc = connect('localhost', {port}) assert(wait(tc, 60), tostring(tc))
        ports = {{}}
        for _, to in ipairs {{{}}} do
            local t = tunnel(tc, 0, '127.0.0.1', to)
            assert(wait(t, 60), tostring(t))
            ports[#ports + 1] = t:local_port()
        end
        assert(#list_tunnels(tc) == 5 and list_tunnels(tc)[1]:parent() == tc)
        collectgarbage()
        print(table.concat(ports, ' '))",
        to.join(", ")
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let ports: Vec<u16> = line(&mut console).split(' ').map(|port| port.parse().unwrap()).collect();
    for (port, letter) in ports.iter().zip(["a", "b", "c", "d", "e"]) {
        assert_eq!(servers::letters(loopback(*port), 2), letter.repeat(2), "one after another");
    }
    let clients: Vec<_> = (0..10)
        .map(|at| {
            let port = ports[at % 5];
            thread::spawn(move || servers::letters(loopback(port), 1))
        })
        .collect();
    let got: String = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(got, "abcdeabcde");
}

#[test]
fn a_closed_tunnel_ends_its_connections_at_both_ends_and_gives_its_port_back() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().port();
    let code = format!(
        "tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        t = tunnel(tc, 0, '127.0.0.1', {to}) assert(wait(t, 60), tostring(t)) print(t:local_port())
        while stats(t).active == 0 do sleep(0.02) end
        close(t) assert(not wait(t, 60)) print(t:status(), tc:status(), #list_tunnels(tc))"
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let tunnel: u16 = line(&mut console).parse().unwrap();
    let mut client = TcpStream::connect(loopback(tunnel)).unwrap();
    let (mut end, _) = server.accept().unwrap();
    for stream in [&client, &end] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    assert_eq!(line(&mut console), "CLOSED\tCONNECTED\t0");
    let since = Instant::now();
    // An end or a reset, but no timeout.
    for stream in [&mut client, &mut end] {
        let read = stream.read(&mut [0; 16]);
        let is_timeout = read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!is_timeout && !matches!(read, Ok(1..)), "{read:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(10));
    until("the port is free", || !is_listening(tunnel));
}

#[test]
fn bytes_on_their_way_arrive_before_a_console_that_quits_has_ended() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().port();
    let code = format!(
        "tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        t = tunnel(tc, 0, '127.0.0.1', {to}) assert(wait(t, 60), tostring(t)) print(t:local_port())
        while stats(t).active == 0 do sleep(0.02) end
        sleep(0.2) print('quits') quit()"
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let tunnel: u16 = line(&mut console).parse().unwrap();
    let mut client = TcpStream::connect(loopback(tunnel)).unwrap();
    let bytes = vec![b'x'; 2_000_000];
    let writer = thread::spawn(move || {
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let _ = client.read(&mut [0; 1]);
    });
    let (mut end, _) = server.accept().unwrap();
    // The reader begins when the console leaves, so that most of the bytes are on their way.
    assert_eq!(line(&mut console), "quits");
    let mut got = Vec::new();
    end.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 2_000_000);
    drop(end);
    let since = Instant::now();
    assert!(left(&mut console).success());
    assert!(since.elapsed() < Duration::from_secs(5));
    writer.join().unwrap();
}

#[test]
fn a_connection_to_a_silent_host_waits_and_is_then_an_error_with_its_reason() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        print(tc:status()) print(tc:wait(0.05), tc:status())
        print(1 + 1)
        print(tc:wait()) print(tc:status()) close(tc)"
    );
    let ran = execute(&code, &secret);
    let lines = out(&ran);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(lines[..4], ["CONNECTING\tnil", "false\tCONNECTING\tnil", "2", "false"].map(str::to_owned), "{lines:?}");
    assert!(lines[4].starts_with("ERROR\t") && lines[4].len() > "ERROR\t".len(), "{lines:?}");
}

#[test]
fn the_ports_of_a_connection_are_those_that_were_asked_for() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let local = free_ports(1);
    let listening = "l = listen(0, '127.0.0.1') wait(l, 60) print(l:local_port())
        on('connected', function(tc) if tc ~= l then print(tc:local_port(), tc:remote_port()) end end)
        on('closed', function(it) if it ~= l then quit() end end)";
    let mut listening = start(&["--secret", &secret, "-e", listening]);
    let port = line(&mut listening);
    let code = format!(
        "tc = connect('127.0.0.1', {port}, {local}) assert(wait(tc, 60), tostring(tc))
        print(tc:local_port(), tc:remote_port()) d = connect('127.0.0.2') print(d:remote_port()) quit()"
    );
    let ran = execute(&code, &secret);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(out(&ran), [format!("{local}\t{port}"), "23232".to_owned()]);
    assert!(left(&mut listening).success());
    assert_eq!(listening.rest().lines().next(), Some(&*format!("{port}\t{local}")));
}

#[test]
fn tunnels_work_again_after_a_restart_of_the_peer() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let address = format!("127.0.0.1:{}", free_ports(1));
    let serve = || Seaprox::start(&["link", "--listen", &address, "--secret", &secret]);
    let node = serve();
    let server = Server::start(b'r');
    let code = format!(
        "tc = connect('127.0.0.1', {}) assert(wait(tc, 60), tostring(tc))
        t = tunnel(tc, 0, '127.0.0.1', {}) assert(wait(t, 60), tostring(t)) print(t:local_port())
        while t:status() == 'CONNECTED' do sleep(0.01) end print('lost')
        assert(wait(t, 60), tostring(t)) print('back')",
        address.rsplit(':').next().unwrap(),
        server.addr.port()
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let tunnel: u16 = line(&mut console).parse().unwrap();
    assert_eq!(servers::letters(loopback(tunnel), 1), "r");
    drop(node);
    assert_eq!(line(&mut console), "lost");
    let _node = serve();
    assert_eq!(line(&mut console), "back");
    assert_eq!(servers::letters(loopback(tunnel), 1), "r");
}

/// Opens and closes tunnels. The memory after the first quarter must be about that at the end.
#[track_caller]
fn cycles(count: u32) {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let code = format!(
        "tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        function turn()
            local t = tc:tunnel(0, '127.0.0.1', 9) assert(wait(t, 60), tostring(t)) close(t) wait(t, 60)
        end
        for _ = 1, {count} // 4 do turn() end
        collectgarbage() before = collectgarbage('count') print('quarter') sleep(0.5)
        for _ = 1, {count} * 3 // 4 do turn() end
        collectgarbage() print(collectgarbage('count') < before + 50, #list_tunnels(tc)) sleep(0.5) quit()"
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let kib = |console: &Program| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", console.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert_eq!(line(&mut console), "quarter");
    let before = kib(&console);
    assert_eq!(line(&mut console), "true\t0");
    let after = kib(&console);
    assert!(after < before + 3000, "{before} KiB, then {after} KiB");
    assert!(left(&mut console).success());
}

#[test]
fn tunnels_that_are_opened_and_closed_again_and_again_leave_nothing() {
    cycles(200);
}

#[test]
#[ignore = "ten thousand cycles: make test-system"]
fn ten_thousand_tunnels_leave_nothing() {
    cycles(10_000);
}
