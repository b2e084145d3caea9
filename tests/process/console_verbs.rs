//! Further verbs of the console (TN-43, TN-45, TN-49, TN-53, TN-56): SOCKS proxies, tunnels of datagrams, counts, names, and the
//! address that a peer sees.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ChildStdout;
use std::thread;
use std::time::Duration;

use crate::console::{end, far, left, secret};
use crate::kit::datagrams::echo;
use crate::kit::link::Keys;
use crate::kit::names::isolated;
use crate::kit::program::{Program, free_port, output};
use crate::kit::seaprox::command;
use crate::kit::servers::Server;
use crate::kit::socks::connect5;
use crate::kit::{Scratch, Seaprox, has, has_namespaces, until};

/// A console that runs a script, and its output.
pub struct Console {
    program: Program,
    out: BufReader<ChildStdout>,
}

impl Console {
    /// Starts a console with a function that waits for a condition. Its directory of states is a test's own.
    #[track_caller]
    pub fn start(scratch: &Scratch, words: &[&str], code: &str) -> Console {
        let code = format!("{TILL}\n{code}");
        let mut command = command(&[&["console"], words, &["-e", &code]].concat());
        command.stdin(std::process::Stdio::null()).env("XDG_STATE_HOME", scratch.file("state"));
        let mut program = Program::start(command);
        let out = BufReader::new(program.0.stdout.take().unwrap());
        Console { program, out }
    }

    /// Reads a line of its output.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut error = String::new();
            let _ = self.program.0.stderr.take().map(|mut from| from.read_to_string(&mut error));
            panic!("the console has ended: {error}");
        }
        line.trim_end().to_owned()
    }

    /// Reads a line of ports.
    #[track_caller]
    pub fn ports(&mut self) -> Vec<u16> {
        let line = self.line();
        line.split('\t').map(|port| port.parse().unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Waits for its end, which must be in order.
    #[track_caller]
    pub fn left(mut self) {
        assert!(left(&mut self.program).success());
    }

    /// Ends it in order.
    #[track_caller]
    pub fn end(mut self) {
        assert!(end(&mut self.program, libc::SIGTERM).success());
    }
}

/// A function of Lua that waits until another one returns true.
const TILL: &str =
    "function till(f) for _ = 1, 6000 do if f() then return true end sleep(0.01) end error('too late', 2) end
function ready(...) for _, it in ipairs({...}) do assert(wait(it, 60), tostring(it)) end return ... end
function why(...) local ok, error = pcall(...) return not ok and tostring(error):match('^[^\\n]*') end";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn a_socks_proxy_of_the_console_reaches_its_targets_through_the_connection() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (far, port) = far(&secret);
    let server = Server::start(b's');
    let to = server.addr.port();
    let code = format!(
        "tc = ready(connect('127.0.0.1', {port}))
        s = ready(tc:socks(0))
        assert(parent(s) == tc and direction(s) == 'forward' and list_tunnels(tc)[1] == s and s:remote_host() == nil)
        assert(tostring(s):find('^socks 127.0.0.1:%d+ CONNECTED$'), tostring(s))
        print(s:local_port())
        till(function() return stats(s).bytes_received == 1 and stats(s).active == 0 end)
        print(stats(s).opened)
        close(s) till(function() return status(s) == 'CLOSED' end) print('closed') quit()"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret], &code);
    let proxy = loopback(console.ports()[0]);
    // The name is resolved at the far end.
    let (mut client, reply) = connect5(proxy, "localhost", to);
    assert_eq!(reply[..2], [5, 0], "{reply:?}");
    assert_eq!(client.some().unwrap(), b"s");
    assert_eq!(far.figure("/usage/connections"), 1, "the far node has connected");
    drop(client);
    assert_eq!(console.line(), "1");
    assert_eq!(console.line(), "closed");
    console.left();
    assert!(TcpStream::connect(proxy).is_err());
}

#[test]
fn tunnels_of_datagrams_lead_both_ways_keep_clients_apart_and_count_each_datagram() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let to = echo().port();
    let code = format!(
        "tc = ready(connect('127.0.0.1', {port}))
        f, r = ready(udptunnel(tc, 0, '127.0.0.1', {to}), tc:rudptunnel('127.0.0.1', {to}, 0))
        assert(tostring(f):find('^udptunnel ') and r:direction() == 'reverse' and #list_tunnels(tc) == 2)
        print(f:local_port(), r:remote_port())
        for _, t in ipairs({{f, r}}) do
            till(function() return stats(t).datagrams_received == 120 end)
            print(stats(t).datagrams_sent, stats(t).bytes_sent, stats(t).bytes_received, stats(t).opened)
        end
        till(function() return stats().datagrams_received >= 240 end) print('all') quit()"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret], &code);
    let ports = console.ports();
    let clients: Vec<_> = ports.iter().flat_map(|port| [(*port, 1), (*port, 2)]).collect();
    // 1200 bytes, 50 times a second, as a game sends them.
    thread::scope(|scope| {
        for (port, letter) in clients {
            scope.spawn(move || play(loopback(port), letter));
        }
    });
    for _ in ports {
        assert_eq!(console.line(), "120\t144000\t144000\t2");
    }
    assert_eq!(console.line(), "all");
    console.left();
}

/// Sends 60 datagrams of 1200 bytes, 50 a second, and checks that each comes back whole and in order.
#[track_caller]
fn play(to: SocketAddr, letter: u8) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let reader = client.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut buf = [0; 2000];
        for number in 0..60 {
            let len = reader.recv(&mut buf).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
            assert_eq!((len, buf[0], buf[len - 1]), (1200, number, letter));
        }
    });
    for number in 0..60 {
        let mut datagram = [letter; 1200];
        datagram[0] = number;
        client.send(&datagram).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    reading.join().unwrap();
}

#[test]
fn dig_asks_a_name_server_through_a_tunnel_of_the_console() {
    if !has_namespaces() || !has("dig") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7"], Duration::ZERO);
        let scratch = Scratch::new();
        let secret = secret(&scratch);
        let (_far, port) = far(&secret);
        let code = format!(
            "tc = ready(connect('127.0.0.1', {port}))
            f, r = ready(tc:udptunnel(5353, '127.0.0.1', 53), tc:rudptunnel('127.0.0.1', 53, 5354)) print('ready')"
        );
        let mut console = Console::start(&scratch, &["--secret", &secret], &code);
        assert_eq!(console.line(), "ready");
        for port in ["5353", "5354"] {
            assert_eq!(output("dig +tries=9 +time=2 +short -p $0 @127.0.0.1 a.test A", &[port]), "192.0.2.7");
        }
        console.end();
    });
}

#[test]
fn counts_of_tunnels_connections_and_the_process_are_what_was_sent() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let server = Server::start(b'c');
    let to = server.addr.port();
    // The server greets with one byte, and sends everything back.
    let (sent, received) = (300_000, 300_001);
    let code = format!(
        "tc = ready(connect('127.0.0.1', {port}))
        t = ready(tunnel(tc, 0, '127.0.0.1', {to}))
        print(t:local_port())
        till(function() return t:stats().bytes_received == {received} end)
        s, c, all = stats(t), stats(tc), stats()
        print(s.bytes_sent, s.bytes_received, s.datagrams_sent, s.opened)
        print(c.bytes_sent - c.bytes_received, all.bytes_sent, all.bytes_received)
        print(c.bytes_sent == {sent}, c.frames_sent > 10, c.wire_bytes_sent > c.bytes_sent)
        print(s) quit()"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret], &code);
    let mut client = TcpStream::connect(loopback(console.ports()[0])).unwrap();
    let mut reader = client.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut bytes = vec![0; received];
        reader.read_exact(&mut bytes).unwrap();
    });
    client.write_all(&vec![7; sent]).unwrap();
    reading.join().unwrap();
    assert_eq!(console.line(), format!("{sent}\t{received}\t0\t1"));
    assert_eq!(console.line(), format!("-1\t{sent}\t{received}"));
    assert_eq!(console.line(), "true\ttrue\ttrue");
    assert!(console.line().starts_with(&format!("bytes_sent {sent}  bytes_received {received}  ")));
    console.left();
}

#[test]
fn the_peer_tells_the_address_of_this_node_over_both_protocols_and_to_both_nodes() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let code = "a, b = ready(listen(0, '127.0.0.1'), listen(0, '::1'))
        print(a:local_port(), b:local_port())
        till(function() return #list_connections() == 2 end)
        for _, tc in ipairs(list_connections()) do
            till(function() return tc:myip() end)
            host, port = tc:myip()
            print(host, port == tc:local_port())
        end
        till(function() return #list_connections() == 0 end)
        print(myip()) quit()";
    let mut listening = Console::start(&scratch, &["--secret", &secret], code);
    let ports = listening.ports();
    let code = format!(
        "a, b = ready(connect('127.0.0.1', {}), connect('::1', {}))
        till(function() return myip(a) and myip(b) end)
        host, port = myip() print(host, port == a:local_port(), (b:myip()))
        host, port = myip('ipv6') print(host, port == b:local_port(), a:myip('ipv6'))
        print(pcall(myip, 'ipv5'))",
        ports[0], ports[1]
    );
    let mut console = Console::start(&scratch, &["--secret", &secret], &code);
    assert_eq!(console.line(), "127.0.0.1\ttrue\t::1");
    assert_eq!(console.line(), "::1\ttrue\tnil\tthe peer has not told the address yet");
    assert!(console.line().starts_with("false\t"));
    let mut lines = [listening.line(), listening.line()];
    lines.sort();
    assert_eq!(lines, ["127.0.0.1\ttrue", "::1\ttrue"]);
    console.end();
    assert_eq!(listening.line(), "nil\tno peer has told the address");
    listening.left();
}

#[test]
fn names_find_connections_and_tunnels_stand_in_the_status_and_are_there_again() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let code = format!(
        "tc = ready(connect('127.0.0.1', {port}))
        t = ready(tunnel(tc, 0, '127.0.0.1', 9))
        assert(name(tc) == nil and connection('quinn') == nil)
        print(name(tc, 'quinn'), t:name('web'))
        assert(connection('quinn') == tc and tunnel('web') == t and connection('web') == nil)
        print(why(name, t, 'quinn'))
        print(why(name, t, 'a b'))
        print((tostring(tc):gsub('%d+%.%d+%.%d+%.%d+:%d+', 'ADDR')), (tostring(t):gsub('%d+%.%d+%.%d+%.%d+:%d+', 'ADDR')))
        assert(list_connections()[1]:name() == 'quinn')"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret], &code);
    assert_eq!(console.line(), "quinn\tweb");
    assert!(console.line().contains("the name \"quinn\" is that of tcpconn \"quinn\" 127.0.0.1:"));
    assert!(console.line().contains("name \"a b\": expected at most 64 letters"));
    assert_eq!(console.line(), "tcpconn \"quinn\" ADDR <-> ADDR CONNECTED\ttunnel \"web\" ADDR -> ADDR CONNECTED");
    let file = scratch.path().join("state/seaprox/console_names");
    until("both names are saved", || std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 2));
    console.end();
    let code = format!(
        "print(names().quinn)
        tc = ready(connect('quinn'))
        assert(tc:remote_port() == {port} and connect('127.0.0.1', {port}) == tc)
        print(name(tc), name(tunnel(tc, 0, '127.0.0.1', 9)))
        other = connect('127.0.0.2', {port})
        print(why(name, other, 'quinn'):find('is that of') ~= nil)
        close(tc) till(function() return connection('quinn') == nil end)
        print(why(name, other, 'quinn'):find('forget') ~= nil)
        print(forget('quinn'), forget('quinn'), name(other, 'quinn'), other:name(nil), name(other))"
    );
    let mut again = Console::start(&scratch, &["--secret", &secret], &code);
    assert_eq!(again.line(), format!("to 127.0.0.1:{port}"));
    assert!(again.line().starts_with("warning: "));
    assert_eq!(again.line(), "quinn\tweb");
    assert_eq!(again.line(), "true");
    assert_eq!(again.line(), "true");
    assert_eq!(again.line(), "true\tfalse\tquinn\tnil\tnil");
    again.end();
}

#[test]
fn a_peer_that_dials_has_its_name_again_by_its_key() {
    let keys = Keys::new();
    let scratch = Scratch::new();
    let far = keys.far_dir();
    let code = "l = ready(listen(0, '127.0.0.1')) l:name('gate') print(l:local_port())
        till(function() return #list_connections() == 1 end)
        tc = list_connections()[1] print(tc:name(), tostring(l):find('listener \"gate\" ') ~= nil) tc:name('ed')
        till(function() return #list_connections() == 0 end)
        till(function() return #list_connections() == 1 end)
        print(list_connections()[1]:name(), list_connections()[1] == tc, connection('ed') == list_connections()[1])";
    let mut listening = Console::start(&scratch, &["--config-dir", &far], code);
    let port = listening.line();
    let via = keys.via(&format!("127.0.0.1:{port}"));
    let words: Vec<&str> = via.iter().skip(2).map(String::as_str).collect();
    let code = format!("tc = ready(connect('127.0.0.1', {port})) print(wait(tc))");
    let mut first = Console::start(&scratch, &words, &code);
    assert_eq!(first.line(), "true");
    assert_eq!(listening.line(), "nil\ttrue");
    first.end();
    let mut second = Console::start(&scratch, &words, &code);
    assert_eq!(second.line(), "true");
    assert_eq!(listening.line(), "ed\tfalse\ttrue");
    second.end();
    listening.end();
}

#[test]
fn a_connection_that_is_not_up_can_be_named_and_has_its_name_when_it_is() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let closed = free_port();
    let socket = format!("unix:{}", scratch.file("console.sock"));
    let code = format!(
        "tc = connect('127.0.0.1', {closed}) tc:name('quinn') t = tc:tunnel(0, '127.0.0.1', 9) t:name('web')
        wait(tc) print((tc:status())) print('named')"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret, "--status", &socket], &code);
    assert_eq!(console.line(), "ERROR");
    assert_eq!(console.line(), "named");
    let _far = Seaprox::start(&["link", "--listen", &format!("127.0.0.1:{closed}"), "--secret", &secret]);
    until("both names are in the status", || {
        let ran = crate::kit::run(&["status", "--status", &socket, "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
        status["links"][0]["name"] == "quinn" && status["forwards"][0]["name"] == "web"
    });
    console.end();
}
