//! A mail server that is told the client over a link: dovecot, which takes the PROXY protocol.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::kit::link::Keys;
use crate::kit::program::{Program, free_port, output};
use crate::kit::{SOON, Scratch, Seaprox, has, is_root, until};

/// Starts dovecot with one user and a listener for IMAP that wants a header, and waits until it listens.
fn dovecot(scratch: &Scratch, port: u16) -> Program {
    // Its processes run as users of their own.
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dir = scratch.path().display();
    let config = scratch.write(
        "dovecot.conf",
        format!(
            "protocols = imap\nlisten = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\nbase_dir = {dir}/run\n\
             state_dir = {dir}/state\nlog_path = {dir}/log\nlogin_log_format_elements = user=<%u> rip=%r:%a lip=%l rport=%{{rport}}\n\
             mail_location = maildir:{dir}/mail\nmail_uid = nobody\nmail_gid = nogroup\nfirst_valid_uid = 1\n\
             haproxy_trusted_networks = 127.0.0.0/8\nhaproxy_timeout = 20s\ninstance_name = {dir}\n\
             passdb {{\n driver = static\n args = password=secret\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={dir}/mail\n}}\n\
             service imap-login {{\n inet_listener imap {{\n port = {port}\n haproxy = yes\n }}\n\
             inet_listener imaps {{\n port = 0\n }}\n}}\n"
        ),
    );
    output("mkdir -p $0/mail && chown nobody:nogroup $0/mail", &[&dir.to_string()]);
    let mut command = Command::new("/usr/sbin/dovecot");
    command.args(["-F", "-c", &config]).stdin(Stdio::null());
    let program = Program::start(command);
    until("dovecot listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    program
}

/// Logs in from this address of the loopback network. Returns the port of the client.
#[track_caller]
fn log_in(near: &Seaprox, from: [u8; 4]) -> u16 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&near.addr(0).into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map(|line| line.expect("a line of IMAP"));
    assert!(lines.next().unwrap().starts_with("* OK "));
    client.write_all(b"a login joe secret\r\n").unwrap();
    assert!(lines.find(|line| line.starts_with("a ")).unwrap().starts_with("a OK "));
    client.write_all(b"b logout\r\n").unwrap();
    assert!(lines.find(|line| line.starts_with("b ")).unwrap().starts_with("b OK "));
    client.local_addr().unwrap().port()
}

/// A part of `make test-system`, which installs dovecot.
#[test]
#[ignore = "needs dovecot"]
fn dovecot_logs_the_client_that_is_told_over_a_link() {
    if !has("dovecot") || !is_root() {
        return;
    }
    let (scratch, port) = (Scratch::new(), free_port());
    let _dovecot = dovecot(&scratch, port);
    for version in ["v1", "v2"] {
        let keys = Keys::new();
        keys.permit(Some("permit-open=\"127.0.0.1:*\",permit-source=\"127.0.0.0/29\""));
        let far = keys.start_far(&["--proxy-protocol-send", version]);
        let (to, mut words) = (format!("127.0.0.1:{port}"), vec!["static", "--listen", "127.0.0.1:0", "--to"]);
        words.push(&to);
        let via = keys.via(&far.listens(0));
        let near = Seaprox::start(&words.into_iter().chain(via.iter().map(String::as_str)).collect::<Vec<_>>());
        let client = log_in(&near, [127, 0, 0, 3]);
        let has_logged = |text: &str| std::fs::read_to_string(scratch.file("log")).is_ok_and(|log| log.contains(text));
        until("the login is logged", || has_logged(&format!("rport={client}")));
        let log = std::fs::read_to_string(scratch.file("log")).unwrap();
        let line = log.lines().find(|line| line.contains(&format!("rport={client}"))).unwrap();
        assert!(line.contains("user=<joe>") && line.contains("rip=127.0.0.3:"), "{version}: {line}");
        // Its key may not tell this client, so that dovecot sees the peer of the link.
        log_in(&near, [127, 0, 0, 9]);
        assert!(!has_logged("rip=127.0.0.9"));
    }
}
