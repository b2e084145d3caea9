//! The PROXY protocol over links: the far node tells its targets the client of the near node, if its key may tell it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::kit::link::Keys;
use crate::kit::program::{Program, free_port};
use crate::kit::socks::request5;
use crate::kit::{SOON, Scratch, Seaprox, has, until};

/// Starts a server that sends back each line that it gets, a header of version 1 included.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (client.try_clone().unwrap(), client);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    addr
}

/// Connects from this address of the loopback network.
fn connect(from: [u8; 4], addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Sends the bytes and a FIN. Returns the address of the client, and everything that comes back until the end.
fn ask(from: [u8; 4], addr: SocketAddr, bytes: &[u8]) -> (SocketAddr, String) {
    let mut client = connect(from, addr);
    client.write_all(bytes).and_then(|()| client.shutdown(Shutdown::Write)).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    (client.local_addr().unwrap(), String::from_utf8_lossy(&answer).into_owned())
}

fn header(client: SocketAddr, dest: SocketAddr) -> String {
    format!("PROXY TCP4 {} {} {} {}\r\n", client.ip(), dest.ip(), client.port(), dest.port())
}

/// Starts `COMMAND -l 127.0.0.1:0 OPTIONS` over a link to the far node.
fn over_link(keys: &Keys, far: &Seaprox, command: &str, options: &[&str]) -> Seaprox {
    let via = keys.via(&far.listens(0));
    let words = [command, "-l", "127.0.0.1:0"].into_iter().chain(options.iter().copied());
    Seaprox::start(&words.chain(via.iter().map(String::as_str)).collect::<Vec<_>>())
}

/// Returns the ports of the last header of version 1, and its addresses.
fn parsed(answer: &str) -> (SocketAddr, SocketAddr) {
    let words: Vec<&str> = answer.lines().next().unwrap_or_default().split(' ').collect();
    let ["PROXY", "TCP4", client, dest, from, to] = words[..] else { panic!("{answer:?}") };
    let addr = |ip: &str, port: &str| format!("{ip}:{port}").parse().unwrap();
    (addr(client, from), addr(dest, to))
}

const PERMITTED: &str = "permit-open=\"127.0.0.1:*\",permit-source=\"127.0.0.0/29,192.0.2.0/24\",name=\"near\"";

#[test]
fn the_far_node_tells_its_target_the_client_that_the_key_of_the_near_node_may_tell() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some(PERMITTED));
    let far = keys.start_far(&["--proxy-protocol-send", "v1"]);
    let near = over_link(&keys, &far, "static", &["--to", &target.to_string()]);
    let (client, answer) = ask([127, 0, 0, 3], near.addr(0), b"hello\n");
    assert_eq!(answer, format!("{}hello\n", header(client, near.addr(0))));
    // The log has both.
    let line = far.wait_for_log(&[" closed ", "user=near", &format!("client=ipv4[{client}]")]);
    assert!(line.contains("link[near/"), "{line}");
    near.wait_for_log(&[" closed ", "client=-"]);
}

#[test]
fn without_permission_the_client_is_the_peer_of_the_link() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some(PERMITTED));
    let far = keys.start_far(&["--proxy-protocol-send", "v1"]);
    let near = over_link(&keys, &far, "static", &["--to", &target.to_string()]);
    let of_peer = |from| {
        let (client, answer) = ask(from, near.addr(0), b"hello\n");
        let (told, dest) = parsed(&answer);
        assert_eq!((told.ip(), dest), (Ipv4Addr::LOCALHOST.into(), far.addr(0)), "{answer}");
        assert_ne!(told, client);
        assert!(answer.ends_with("\r\nhello\n"), "{answer}");
        far.wait_for_log(&[" closed ", "user=near", "client=-"]);
        told
    };
    let peer = of_peer([127, 0, 0, 9]);
    let status = far.status();
    let remotes = status["links"][0]["subflows"][0]["remote"].to_string();
    assert!(remotes.contains(&peer.to_string()), "{remotes}");
    // A key without the option tells nothing.
    keys.permit(Some("permit-open=\"127.0.0.1:*\",name=\"near\""));
    far.signal(libc::SIGHUP);
    until("the permission is gone", || parsed(&ask([127, 0, 0, 3], near.addr(0), b"x\n").1).1 == far.addr(0));
    assert_eq!(of_peer([127, 0, 0, 3]), peer);
}

#[test]
fn a_client_of_a_proxy_before_the_near_node_is_told_through_the_link() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some(PERMITTED));
    let far = keys.start_far(&["--proxy-protocol-send", "v1"]);
    let to = target.to_string();
    let near = over_link(&keys, &far, "static", &["--to", &to, "--proxy-protocol-accept-from", "127.0.0.0/8"]);
    let told = "PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n";
    assert_eq!(ask([127, 0, 0, 1], near.addr(0), format!("{told}hello\n").as_bytes()).1, format!("{told}hello\n"));
    // The key may not tell an address of another network, whoever vouches for it at the near node.
    let forged = "PROXY TCP4 198.51.100.7 10.0.0.1 5678 443\r\nhello\n";
    let (_, answer) = ask([127, 0, 0, 1], near.addr(0), forged.as_bytes());
    assert_eq!(parsed(&answer).1, far.addr(0), "{answer}");
}

#[test]
fn the_status_of_the_far_node_shows_the_peer_and_its_client() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some(PERMITTED));
    // The status has the client without a header for targets, too.
    let far = keys.start_far(&[]);
    let near = over_link(&keys, &far, "socks", &[]);
    let mut client = connect([127, 0, 0, 2], near.addr(0));
    let addr = client.local_addr().unwrap();
    let request = request5(&target.ip().to_string(), target.port());
    client.write_all(&[b"\x05\x01\0", &request[..], b"hello\n"].concat()).unwrap();
    let mut answer = [0; 18];
    client.read_exact(&mut answer).unwrap();
    assert!(answer.ends_with(b"hello\n"), "{answer:?}");
    let connection: Value = far.status()["connections"][0].clone();
    assert_eq!(connection["client"], format!("ipv4[{addr}]"), "{connection}");
    assert_eq!(connection["user"], "near", "{connection}");
    assert!(connection["source"]["side"].to_string().contains("link[near/"), "{connection}");
    assert_eq!(near.status()["connections"][0]["client"], Value::Null);
}

#[test]
fn the_target_of_a_remote_forward_is_told_the_client_of_the_gateway() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some("permit-listen=\"0\""));
    let gateway = keys.start_far(&[]);
    let via = keys.via(&gateway.listens(0));
    let forward = format!("0:{target}");
    let words = ["link", "--connect", &via[1], "-R", &forward, "--proxy-protocol-send", "v1"].into_iter();
    let home = Seaprox::start(&words.chain(via[2..].iter().map(String::as_str)).collect::<Vec<_>>());
    let start = "listening remote ";
    until("the gateway listens", || home.out().iter().any(|line| line.starts_with(start)));
    let out = home.out();
    let line = out.iter().find_map(|line| line.strip_prefix(start)).unwrap();
    let port = line.split_whitespace().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let (client, answer) = ask([127, 0, 0, 5], at, b"hello\n");
    assert_eq!(answer, format!("{}hello\n", header(client, at)));
    home.wait_for_log(&[" closed ", &format!("client=ipv4[{client}]"), "link["]);
}

#[test]
fn the_target_of_a_local_forward_gets_the_header_from_the_near_node() {
    let (keys, target) = (Keys::new(), echo());
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let forward = format!("127.0.0.1:0:{target}");
    let words = ["link", "--connect", &via[1], "-L", &forward, "--proxy-protocol-send", "v1"].into_iter();
    let near = Seaprox::start(&words.chain(via[2..].iter().map(String::as_str)).collect::<Vec<_>>());
    let (client, answer) = ask([127, 0, 0, 5], near.addr(0), b"hello\n");
    assert_eq!(answer, format!("{}hello\n", header(client, near.addr(0))));
}

/// Starts HAProxy with these sections, and waits until it listens on the port.
fn haproxy(scratch: &Scratch, port: u16, sections: &str) -> Program {
    let head = "defaults\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n";
    scratch.write("haproxy.cfg", format!("{head}{sections}"));
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(scratch.file("haproxy.cfg")).stdin(Stdio::null());
    let program = Program::start(command);
    until("HAProxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    program
}

/// Starts nginx with a server that answers with the addresses of the header, and waits until it listens.
fn nginx(scratch: &Scratch, port: u16) -> Program {
    let directory = scratch.path().display();
    scratch.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {directory}/pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};\n\
             fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};\n\
             server {{ listen 127.0.0.1:{port} proxy_protocol;\n\
             location / {{ return 200 \"client=$proxy_protocol_addr:$proxy_protocol_port to=$proxy_protocol_server_port\"; }} }} }}\n"
        ),
    );
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-e").arg("stderr").arg("-c").arg(scratch.file("nginx.conf")).stdin(Stdio::null());
    let program = Program::start(command);
    until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    program
}

#[test]
fn a_client_of_haproxy_is_told_over_a_link_to_haproxy_and_nginx() {
    if !has("haproxy") || !has("nginx") {
        return;
    }
    let (scratch, servers) = (Scratch::new(), Scratch::new());
    let [one, two, plain, web] = [(); 4].map(|()| free_port());
    let answer = "client=%[src]:%[src_port] to=%[dst_port]";
    let _server = haproxy(
        &servers,
        plain,
        &format!(
            "frontend f\n mode http\n bind 127.0.0.1:{web} accept-proxy\n bind 127.0.0.1:{plain}\n \
             http-request return status 200 content-type text/plain lf-string \"{answer}\"\n"
        ),
    );
    let nginx_port = free_port();
    let _nginx = nginx(&servers, nginx_port);
    for version in ["v1", "v2"] {
        for target in [web, nginx_port] {
            let keys = Keys::new();
            keys.permit(Some(PERMITTED));
            let far = keys.start_far(&["--proxy-protocol-send", version]);
            let to = format!("127.0.0.1:{target}");
            let near = over_link(&keys, &far, "static", &["--to", &to, "--proxy-protocol-accept-from", "127.0.0.0/8"]);
            for (port, send) in [(one, "send-proxy"), (two, "send-proxy-v2")] {
                let sections =
                    format!("listen l\n mode tcp\n bind 127.0.0.1:{port}\n server s {} {send}\n", near.addr(0));
                let _front = haproxy(&scratch, port, &sections);
                let at = SocketAddr::from(([127, 0, 0, 1], port));
                let (client, got) = ask([127, 0, 0, 4], at, b"GET / HTTP/1.0\r\n\r\n");
                assert!(got.ends_with(&format!("client={client} to={port}")), "{version} {target} {send}: {got}");
            }
        }
    }
}

#[test]
fn a_reload_changes_the_header_and_cuts_no_connection() {
    let (keys, target) = (Keys::new(), echo());
    keys.permit(Some(PERMITTED));
    let scratch = Scratch::new();
    let server = format!(
        "config-dir = \"{}\"\nstatus = \"unix:{}\"\n[[serve]]\nname = \"links\"\nlisten = \"127.0.0.1:0\"\n",
        keys.far_dir(),
        scratch.file("status")
    );
    let file = scratch.write("far.toml", &server);
    let far = Seaprox::start(&["run", &file]);
    let near = over_link(&keys, &far, "static", &["--to", &target.to_string()]);
    let mut held = connect([127, 0, 0, 3], near.addr(0));
    let mut say = |text: &str| {
        held.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        held.read_exact(&mut answer).unwrap();
        assert_eq!(answer, text.as_bytes());
    };
    say("one\n");
    scratch.write("far.toml", format!("{server}proxy-protocol = {{ send = \"v1\" }}\n"));
    far.signal(libc::SIGHUP);
    far.wait_for_log(&["reloaded"]);
    let (client, answer) = ask([127, 0, 0, 3], near.addr(0), b"hello\n");
    assert_eq!(answer, format!("{}hello\n", header(client, near.addr(0))));
    say("two\n");
    scratch.write("far.toml", &server);
    far.signal(libc::SIGHUP);
    until("the header is off", || ask([127, 0, 0, 3], near.addr(0), b"hello\n").1 == "hello\n");
    say("three\n");
}
