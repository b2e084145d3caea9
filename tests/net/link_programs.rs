//! Other people's programs, unmodified, over a link between two hosts in both directions (BS-01, BS-02, BS-04, BS-05,
//! BS-25, TT-14, TT-15, TS-01, TN-11, TN-12): curl, ssh, git, ncat, and a server that speaks first. Names are resolved
//! at the far end only.

use crate::kit;
use crate::net_kit;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use kit::Step::*;
use kit::program::Program;
use kit::seaprox::run_command;
use kit::socks::connect5;
use kit::{Peer, Scratch, Seaprox, has, until};
use net_kit::goodput::Load;
use net_kit::nodes::{Nodes, Options, PORT, Secret, front, start, subflows};
use net_kit::{Host, Kind, Link, Net, has_net, has_tun, own_ip};

/// Runs a shell command line in a host, which must succeed, and returns its output. `$0` is the first of the arguments.
#[track_caller]
pub fn output(host: &Host, line: &str, args: &[&str]) -> String {
    let mut command = host.command("sh");
    command.args(["-c", line]).args(args).stdin(Stdio::null());
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let ran = run_command(command, b"");
    assert_eq!(ran.code, Some(0), "{line} {args:?}: {}", ran.err);
    String::from_utf8_lossy(&ran.out).trim_end().to_owned()
}

/// Starts a shell command line in a host.
#[track_caller]
pub fn program(host: &Host, line: &str, args: &[&str]) -> Program {
    let mut command = host.command("sh");
    command.args(["-c", &format!("exec {line}")]).args(args).stdin(Stdio::null());
    Program::start(command)
}

/// Waits until a process listens on a port of a host's loopback.
#[track_caller]
pub fn until_listening(host: &Host, port: u16) {
    let filter = format!("ss -Hltn sport = :{port}");
    until("the port listens", || host.run(&filter).contains("LISTEN"));
}

/// Starts an HTTP server on a host's loopback, and returns it with its directory and its port.
fn web(host: &Host) -> (Program, Scratch, String) {
    let scratch = Scratch::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/kit/process/origin.py");
    let mut server = program(host, "python3 $0 $1", &[script, scratch.path().to_str().unwrap()]);
    let port = server.first_line();
    assert!(port.parse::<u16>().is_ok(), "the server did not start: {port:?}");
    (server, scratch, port)
}

/// Starts an ssh server on port 22 of a host's loopback, for the user that runs the tests.
pub fn sshd(host: &Host, scratch: &Scratch) -> Program {
    let dir = scratch.path().to_str().unwrap();
    output(host, "ssh-keygen -q -t ed25519 -N '' -f $0/host && ssh-keygen -q -t ed25519 -N '' -f $0/key", &[dir]);
    output(host, "mkdir -p /run/sshd && cp $0/key.pub $0/authorized && chmod 700 $0", &[dir]);
    let config = scratch.write(
        "sshd_config",
        format!(
            "ListenAddress 127.0.0.1:22\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
        ),
    );
    let server = program(host, "$(command -v sshd || echo /usr/sbin/sshd) -D -e -f $0", &[&config]);
    until_listening(host, 22);
    server
}

/// A client of [`sshd`]. `$0` is the directory of the server.
pub const SSH: &str = "timeout 100 ssh -F none -i $0/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
                   -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes";

#[test]
fn curl_and_git_work_over_a_link_in_both_directions() {
    if !(has_net() && has("curl") && has("git") && has("python3") && has("sha256sum")) {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near, far) = (net.near(), net.far());
    let (_far_server, files, port) = web(far);
    let (_near_server, near_files, near_port) = web(near);
    let local = format!("127.0.0.1:0:127.0.0.1:{port}");
    let back = format!("127.0.0.1:8000:127.0.0.1:{near_port}");
    let options = ["-L", &local, "-D", "127.0.0.1:0", "-H", "127.0.0.1:0", "-R", &back, "--only", "ipv4"];
    let nodes = Nodes::start(&net, Options { near: &options, far: &["--only", "ipv4"], ..Options::default() });
    let [static_at, socks, http] = ["static", "socks", "http"].map(|kind| nodes.front(kind).to_string());

    let big = files.file("big");
    let digest = output(far, "head -c 20000000 /dev/urandom > $0 && sha256sum < $0 | cut -d' ' -f1", &[&big]);
    let url = |name: &str| format!("http://localhost:{port}/{name}");
    let get = "curl -sS --max-time 50 $0 $1 $2 | sha256sum | cut -d' ' -f1";
    let put = "curl -sS --max-time 50 $0 $1 -T $2 $3";
    for (option, proxy) in [("--socks5-hostname", &socks), ("--socks4a", &socks), ("-x", &http)] {
        assert_eq!(output(near, get, &[option, proxy, &url("big")]), digest, "down with {option}");
        assert_eq!(output(near, put, &[option, proxy, &big, &url("up")]), digest, "up with {option}");
    }
    let relayed = format!("http://{static_at}/big");
    assert_eq!(output(near, "curl -sS --max-time 50 $0 | sha256sum | cut -d' ' -f1", &[&relayed]), digest);
    // Twenty requests at once, as for a page with its parts.
    for number in 0..20 {
        files.write(&format!("part{number}"), format!("part {number}\n"));
    }
    let page =
        "curl -sS --max-time 50 -Z --socks5-hostname $0 \"http://localhost:$1/part[0-19]\" | sort | uniq | wc -l";
    assert_eq!(output(near, page, &[&socks, &port]), "20");
    // In the other direction: a client in the far host gets files of the near host.
    near_files.write("hello", "hello from the near host\n");
    until_listening(far, 8000);
    assert_eq!(output(far, "curl -sS --max-time 20 http://127.0.0.1:8000/hello", &[]), "hello from the near host");

    let (work, bare, clone) = (files.file("work"), files.file("bare.git"), files.file("clone"));
    let make = "git init -q $0 && cd $0 && head -c 300000 /dev/urandom > data && git add data \
                && git -c user.name=x -c user.email=x@y commit -q -m x && git clone -q --bare $0 $1 \
                && cd $1 && git update-server-info";
    output(far, make, &[&work, &bare]);
    let from = "GIT_TERMINAL_PROMPT=0 git -c http.proxy=$0 clone -q $1 $2 2>&1 && cmp $3/data $2/data";
    for (number, proxy) in [format!("http://{http}"), format!("socks5h://{socks}")].iter().enumerate() {
        output(near, from, &[proxy, &url("bare.git"), &format!("{clone}{number}"), &work]);
    }
    assert_eq!(net.path(0).connections().len(), 1, "everything went over one connection");
}

#[test]
fn ssh_works_over_a_link_in_both_directions() {
    let programs = ["ssh", "sshd", "ssh-keygen", "sha256sum"];
    if !(has_net() && programs.iter().all(|program| has(program))) {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near, far) = (net.near(), net.far());
    let (far_home, near_home, scratch) = (Scratch::new(), Scratch::new(), Scratch::new());
    let (_far_sshd, _near_sshd) = (sshd(far, &far_home), sshd(near, &near_home));
    let nodes = Nodes::start(
        &net,
        Options { near: &["-L", "2222:127.0.0.1:22", "-R", "2223:127.0.0.1:22"], ..Options::default() },
    );
    until_listening(far, 2223);
    let file = scratch.file("file");
    let digest = output(near, "head -c 10000000 /dev/urandom > $0 && sha256sum < $0", &[&file]);
    let check = |host: &Host, home: &Scratch, port: &str, command: &str| {
        let home = home.path().to_str().unwrap();
        let line = format!("{SSH} -o ProxyCommand=\"$1\" -p $2 127.0.0.1");
        let up = format!("{line} 'sha256sum; exit 7' < $3; code=$?; test $code = 7");
        assert_eq!(output(host, &up, &[home, command, port, &file]), digest, "{command}");
        let down = format!("{line} 'head -c 10000000 /dev/zero' < /dev/null | wc -c");
        assert_eq!(output(host, &down, &[home, command, port]), "10000000", "{command}");
    };
    check(near, &far_home, "2222", "none");
    check(far, &near_home, "2223", "none");
    // A separate link for one connection, as a ProxyCommand.
    let [secret, secret_file, directory, directory_name] = nodes.secret.options();
    let stdio = format!(
        "{} link --connect {}:{PORT} {secret} {secret_file} {directory} {directory_name} -W %h:%p",
        env!("CARGO_BIN_EXE_seaprox"),
        own_ip(1)
    );
    check(near, &far_home, "22", &stdio);
}

/// The system of the near node sees a round trip of some microseconds, to socat. A window of that lets through 3 Mbit/s.
#[test]
fn a_link_through_a_proxy_fills_the_long_path_behind_it() {
    if !(has_net() && has_tun() && has("socat")) {
        return;
    }
    let long = Link { mbit: 50.0, delay: Duration::from_millis(50), ..Link::default() };
    let net = Net::of(&[Kind::Emulated(long)]);
    let (near, far) = (net.near(), net.far());
    let line = format!("socat TCP-LISTEN:{PORT},bind=127.0.0.1,fork TCP:{}:{PORT}", own_ip(1));
    let _proxy = program(near, &line, &[]);
    until_listening(near, PORT);
    let secret = Secret::new();
    let _far = start(far, &secret.far(&["--carrier", "tcp"]));
    let listener = far.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let local = format!("127.0.0.1:0:{}", listener.local_addr().unwrap());
    let through = ["link", "--connect", &format!("127.0.0.1:{PORT}")];
    let node = start(near, &secret.line(&through, &["--carrier", "tcp", "-L", &local]));
    let front = front(&node, "static");
    let client = near.inside(|| TcpStream::connect(front).unwrap());
    let load = Load::start(vec![(client, listener.accept().unwrap().0)]);
    until("24 MiB have arrived", || load.received() >= 24 << 20);
}

#[test]
fn fins_and_resets_pass_over_a_link_and_a_server_may_speak_first() {
    if !(has_net() && has("ncat") && has("socat")) {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near, far) = (net.near(), net.far());
    let say = "SYSTEM:'echo 220 ready; read line; echo 250 $line'";
    let _server = program(far, &format!("socat -t 10 TCP-LISTEN:25,bind=127.0.0.1,fork {say}"), &[]);
    until_listening(far, 25);
    let listener = far.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let local = format!("7000:{}", listener.local_addr().unwrap());
    let options = ["-L", "2525:127.0.0.1:25", "-L", &local, "-D", "127.0.0.1:0", "-H", "127.0.0.1:0"];
    let nodes = Nodes::start(&net, Options { near: &options, ..Options::default() });
    let talk = |line: &str, args: &[&str]| output(near, &format!("echo HELO x | timeout 20 {line}"), args);
    assert_eq!(talk("ncat 127.0.0.1 2525", &[]), "220 ready\n250 HELO x");
    for (kind, front) in [("socks4", "socks"), ("socks5", "socks"), ("http", "http")] {
        let proxy = nodes.front(front).to_string();
        let line = "ncat --proxy $0 --proxy-type $1 127.0.0.1 25";
        assert_eq!(talk(line, &[&proxy, kind]), "220 ready\n250 HELO x", "{kind}");
    }
    // A server that answers only after the client's end gets that end, and the client still reads the answer.
    let question = std::thread::scope(|scope| {
        let client = scope.spawn(|| output(near, "printf question | timeout 20 ncat 127.0.0.1 7000", &[]));
        let mut server = Peer::accept(&listener);
        assert_eq!(server.rest(), b"question");
        server.run(&[Put(b"answer"), Fin]);
        client.join().unwrap()
    });
    assert_eq!(question, "answer");
    // Each kind of end arrives within a second, and as the same kind.
    let pair = || {
        let client = near.inside(|| Peer::connect(([127, 0, 0, 1], 7000).into()));
        (client, Peer::accept(&listener))
    };
    for (from_client, how) in [(true, Fin), (false, Fin), (true, Rst), (false, Rst)] {
        let (mut client, mut server) = pair();
        client.run(&[Send(1000)]);
        server.run(&[Read(1000), Send(1000)]);
        client.run(&[Read(1000)]);
        let (one, other) = if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let since = Instant::now();
        one.run(&[how]);
        other.run(&[if matches!(how, Fin) { ReadAll } else { ReadReset }]);
        assert!(since.elapsed() < kit::LATE, "{how:?} took {:?}", since.elapsed());
    }
    for node in [&nodes.near, &nodes.far] {
        until("no stream is left", || node.figure("/links/0/streams") == 0);
    }
}

#[test]
fn a_refused_target_over_a_link_is_reported_with_its_reason() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let options = ["-D", "127.0.0.1:0", "-L", "7000:127.0.0.1:9"];
    let nodes = Nodes::start(&net, Options { near: &options, ..Options::default() });
    let socks = nodes.front("socks");
    let code = |host: &str, port: u16| {
        let since = Instant::now();
        let code = net.near().inside(|| connect5(socks, host, port)).1[1];
        (code, since.elapsed())
    };
    let (refused, took) = code("127.0.0.1", 9);
    assert!(refused == 5 && took < kit::LATE, "refused (RFC 1928, section 6): {refused} {took:?}");
    let mut client = net.near().inside(|| Peer::connect(([127, 0, 0, 1], 7000).into()));
    client.run(&[ReadAll]);
    nodes.near.wait_for_log(&[" closed ", "static[", "reason=connection_refused"]);
}

/// Each front end is a process of its own, over a link of its own.
#[test]
fn every_front_end_works_over_a_link() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let secret = Secret::new();
    let far = start(net.far(), &secret.far(&[]));
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let (to, via) = (listener.local_addr().unwrap(), format!("{}:{PORT}", own_ip(1)));
    let via = |words: &[&str]| start(net.near(), &secret.line(&[words, &["--via", &via]].concat(), &[]));
    let relay = via(&["static", "--listen", "127.0.0.1:0", "--to", &to.to_string()]);
    let socks = via(&["socks", "--listen", "127.0.0.1:0"]);
    let http = via(&["http", "--listen", "127.0.0.1:0"]);
    let swap = |mut client: Peer| {
        let mut server = Peer::accept(&listener);
        kit::peer::both(&mut client, &[Swap(1 << 20), Fin, ReadAll], &mut server, &[Swap(1 << 20), Fin, ReadAll]);
    };
    swap(net.near().inside(|| Peer::connect(front(&relay, "static"))));
    let (client, reply) = net.near().inside(|| connect5(front(&socks, "socks"), "127.0.0.1", to.port()));
    assert_eq!(reply[1], 0);
    swap(client);
    let mut client = net.near().inside(|| Peer::connect(front(&http, "http")));
    client.run(&[Put(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())]);
    let head = client.some().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200") && head.ends_with(b"\r\n\r\n"), "{}", head.escape_ascii());
    swap(client);
    assert_eq!(far.status()["links"].as_array().map(Vec::len), Some(3));
    drop::<[Seaprox; 3]>([relay, socks, http]);
}

/// An HTTP and a SOCKS client enter the near node, and two targets of the far host see connections of the far node, over one carrier
/// (SP-10).
#[track_caller]
pub fn clients_share_one_carrier(options: &[&str], carrier: &str) {
    let net = Net::of(&[Kind::Veth]);
    let secret = Secret::new();
    let far = start(net.far(), &secret.far(options));
    let near = start(net.near(), &secret.near(&[options, &["-H", "127.0.0.1:0", "-D", "127.0.0.1:0"]].concat()));
    until("the link is up", || near.out().iter().any(|line| line.starts_with("link up ")));
    let address = own_ip(1).to_string();
    let targets = ["127.0.0.1", &address].map(|host| net.far().inside(|| TcpListener::bind((host, 0)).unwrap()));
    let [http_to, socks_to] = targets.each_ref().map(|target| target.local_addr().unwrap());
    let mut http = net.near().inside(|| Peer::connect(front(&near, "http")));
    http.run(&[Put(format!("CONNECT {http_to} HTTP/1.1\r\nHost: {http_to}\r\n\r\n").as_bytes())]);
    let head = http.some().unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200") && head.ends_with(b"\r\n\r\n"), "{}", head.escape_ascii());
    let (socks, reply) = net.near().inside(|| connect5(front(&near, "socks"), &address, socks_to.port()));
    assert_eq!(reply[1], 0);
    let servers = targets.each_ref().map(Peer::accept);
    for (server, to) in servers.iter().zip([http_to, socks_to]) {
        assert_eq!(
            server.socket().peer_addr().unwrap().as_socket().unwrap().ip(),
            to.ip(),
            "the client of the target is in its host"
        );
    }
    let steps = [Swap(1 << 20), Fin, ReadAll];
    for (mut client, mut server) in [http, socks].into_iter().zip(servers) {
        kit::peer::both(&mut client, &steps, &mut server, &steps);
    }
    for node in [&near, &far] {
        let status = node.status();
        assert_eq!(status["links"].as_array().map(Vec::len), Some(1), "{status}");
        let carriers: Vec<Value> = subflows(node).into_iter().map(|subflow| subflow["carrier"].clone()).collect();
        assert_eq!(carriers, [carrier]);
    }
    assert_eq!(net.path(0).connections().len(), usize::from(carrier == "tcp"), "connections of TCP between the hosts");
}

#[test]
fn an_http_and_a_socks_client_share_one_carrier_of_tcp_or_of_quic() {
    if has_net() {
        ["tcp", "quic"].into_iter().for_each(|carrier| clients_share_one_carrier(&["--carrier", carrier], carrier));
    }
}

/// The near host sends no DNS query for a name that only the far host knows.
#[test]
fn names_are_resolved_only_at_the_far_end() {
    if !has_net() {
        return;
    }
    let scratch = Scratch::new();
    let net = Net::of(&[Kind::Veth]);
    let secret = Secret::new();
    let hosts = scratch.write("hosts", "127.0.0.1 localhost only-there.test\n");
    let switch = scratch.write("nsswitch.conf", "hosts: files dns\n");
    let resolv = scratch.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    // The far node sees its own name files; in both hosts no name server answers.
    let words = secret.far(&["--only", "ipv4"]);
    let line: String = ["hosts", "nsswitch.conf", "resolv.conf"]
        .iter()
        .zip([&hosts, &switch, &resolv])
        .map(|(name, file)| format!("mount --bind {file} /etc/{name} && "))
        .collect();
    let mut command: Command = net.far().command("unshare");
    command.args(["--mount", "sh", "-c", &format!("{line} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_seaprox")]);
    command.args(&words).args(["--status", "none"]).stdin(Stdio::null());
    let _far = Program::start(command);
    until_listening(net.far(), PORT);
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:80").unwrap());
    let captures = ["lo", "p1"].map(|device| net_kit::Capture::start(net.near(), device, scratch.file(device).into()));
    let near = start(net.near(), &secret.near(&["-D", "127.0.0.1:0", "-H", "127.0.0.1:0"]));
    until("the link is up", || near.out().iter().any(|line| line.starts_with("link up ")));
    let socks = front(&near, "socks");
    let (mut client, reply) = net.near().inside(|| connect5(socks, "only-there.test", 80));
    assert_eq!(reply[1], 0, "the far node knows the name");
    let mut server = Peer::accept(&listener);
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    let mut client = net.near().inside(|| Peer::connect(socks));
    client.run(&[Put(b"\x04\x01\0\x50\0\0\0\x07me\0only-there.test\0"), Take(b"\0\x5a")]);
    Peer::accept(&listener);
    let (_, reply) = net.near().inside(|| connect5(socks, "nowhere-at-all.test", 80));
    assert_eq!(reply[1], 4, "host unreachable: this name does not exist");
    let dns = |captured: &net_kit::Captured| {
        // UDP, and port 53 at the other end.
        let is_query = |packet: &&Vec<u8>| packet[0] >> 4 == 4 && packet[9] == 17 && packet[22..24] == [0, 53];
        captured.each_packet().iter().filter(is_query).count()
    };
    for capture in captures {
        let captured = capture.stop();
        assert!(captured.packets > 0 && captured.missed == 0);
        assert_eq!(dns(&captured), 0, "the near host sent a DNS query");
    }
    // The same search finds a query where there is one.
    let capture = net_kit::Capture::start(net.near(), "lo", scratch.file("question").into());
    let question = net.near().inside(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"a question", SocketAddr::from(([127, 0, 0, 1], 53)))
    });
    question.unwrap();
    let _ = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], 1)), Duration::from_millis(1));
    // Loopback shows it twice: on departure and on arrival.
    assert!(dns(&capture.stop()) >= 1);
}
