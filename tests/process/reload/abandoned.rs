//! Reloads that are given up while they wait for a file: what they have read by then counts.

use std::os::unix::fs::PermissionsExt;

use crate::kit::link::generate_key;
use crate::kit::{Peer, Scratch, Seaprox, until};

fn owned(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Puts a pipe without a writer in the place of a file.
fn make_pipe(scratch: &Scratch, name: &str) {
    let pipe = std::ffi::CString::new(scratch.file("pipe")).unwrap();
    // SAFETY: the path ends with a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    std::fs::rename(scratch.file("pipe"), scratch.file(name)).unwrap();
}

/// Opens a pipe for writing, once it is read.
fn writer_of(path: &str) -> std::fs::File {
    use std::os::unix::fs::OpenOptionsExt;
    let mut writer = None;
    until("the pipe is read", || {
        // The open fails as long as there is no reader.
        writer = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).ok();
        writer.is_some()
    });
    writer.unwrap()
}

#[test]
fn a_revoked_key_loses_its_link_although_the_reload_that_has_read_it_was_abandoned() {
    let (scratch, target) = (Scratch::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let (near_key, far_key) = (generate_key(&scratch.file("near")), generate_key(&scratch.file("far")));
    let authorized = owned(&scratch, "far/authorized_keys", &format!("permit-open=\"127.0.0.1:*\" {near_key}\n"));
    owned(&scratch, "paths", "127.0.0.1:1\n");
    let text = "config-dir = \"far\"\ndrain-timeout = \"10m\"\n[[serve]]\nlisten = \"127.0.0.1:0\"\n\
                [[link]]\nconnect = \"127.0.0.1:1\"\npaths = \"paths\"\n";
    let far = Seaprox::start(&["run", &owned(&scratch, "seaprox.toml", text)]);
    let to = far.listens(0);
    let known = owned(&scratch, "known", &format!("{to} {far_key}\n"));
    let local = format!("127.0.0.1:0:{}", target.local_addr().unwrap());
    let near = Seaprox::start(
        &[
            // A second carrier that is refused with the new keys would end the link first.
            &["link", "--connect", &to, "--carrier", "tcp", "-L", &local, "--config-dir", &scratch.file("near")][..],
            &["--known-nodes", &known],
        ]
        .concat(),
    );
    // The client keeps the drain from its end.
    let _client = Peer::connect(near.listens(0).parse().unwrap());
    let _server = Peer::accept(&target);
    // The reload reads the keys, and then waits for the paths.
    make_pipe(&scratch, "paths");
    owned(&scratch, "new", "# nobody\n");
    std::fs::rename(scratch.file("new"), &authorized).unwrap();
    far.signal(libc::SIGHUP);
    let writer = writer_of(&scratch.file("paths"));
    far.signal(libc::SIGTERM);
    far.wait_for_log(&["draining"]);
    drop(writer);
    far.wait_for_log(&["link ended", "not_permitted"]);
}
