//! Files that nodes write by themselves, on a full disk: each failure is said, nothing that stood there is lost, and the same
//! step succeeds when there is room again.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use crate::invitations::limit_files;
use crate::invite_kit::Inviter;
use crate::kit::link::Keys;
use crate::kit::{Ran, Scratch, Seaprox, has_namespaces, run, run_with, until};
use crate::tunnel_ends::Tunnel;

/// A file system in memory of a few pages, which only the thread of the test and its children see.
struct Disk {
    path: String,
}

impl Disk {
    /// Writes to a file until the disk is full.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        while filler.write_all(&[0; PAGE]).is_ok() {}
        let error = fs::write(Path::new(&self.path).join("more"), "x").expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        fs::remove_file(Path::new(&self.path).join("more")).expect("an empty file");
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("the file that fills the disk");
    }

    fn filler(&self) -> String {
        format!("{}/filler", self.path)
    }
}

/// Runs a test with a disk of 64 KiB in a directory of `scratch`.
#[track_caller]
fn with_disk(test: impl FnOnce(Scratch, &Disk) + Send) {
    if !has_namespaces() {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.file("");
    let result = thread::scope(|scope| {
        let inside = scope.spawn(move || {
            let disk = Disk { path: scratch.file("") };
            let text = |text: &str| CString::new(text).expect("a text without zeros");
            let (none, root, path, kind, size) =
                (text("none"), text("/"), text(&disk.path), text("tmpfs"), text("size=64k,mode=700"));
            // SAFETY: unshare takes an integer and concerns this thread only; the strings outlive the calls, and null is
            // allowed for the type and the data.
            let is_mounted = unsafe {
                libc::unshare(libc::CLONE_NEWNS) == 0
                    && libc::mount(
                        none.as_ptr(),
                        root.as_ptr(),
                        std::ptr::null(),
                        libc::MS_REC | libc::MS_PRIVATE,
                        std::ptr::null(),
                    ) == 0
                    && libc::mount(none.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, size.as_ptr().cast()) == 0
            };
            assert!(is_mounted, "{}", std::io::Error::last_os_error());
            test(scratch, &disk);
        });
        inside.join()
    });
    // The directory could not be removed where the disk was mounted on it.
    let _ = fs::remove_dir(path);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// The command failed and said that the disk is full, with the file.
#[track_caller]
fn assert_says_full(ran: &Ran, file: &str) {
    assert!(ran.code.is_some_and(|code| code != 0) && ran.out.is_empty(), "{:?} {}", ran.code, ran.err);
    assert!(ran.err.contains(file) && ran.err.contains("No space left on device"), "{}", ran.err);
    assert_eq!(ran.err.trim_end().lines().count(), 1, "{}", ran.err);
}

/// Returns the names of the files in a directory.
fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn an_invitation_that_cannot_be_written_is_not_printed_and_leaves_the_others() {
    with_disk(|scratch, disk| {
        let config = scratch.file("far");
        let invite = || run(&["invite", "--config-dir", &config, "--address", "a.example"]);
        // The key of the node is made by the first invitation.
        disk.fill();
        assert_says_full(&invite(), "key");
        assert_eq!(names(&config), Vec::<String>::new(), "no half of a key is left");
        disk.free();
        assert_eq!(invite().code, Some(0));
        let (before, files) = (fs::read_to_string(format!("{config}/invitations")).unwrap(), names(&config));
        disk.fill();
        assert_says_full(&invite(), "invitations");
        assert_eq!(fs::read_to_string(format!("{config}/invitations")).unwrap(), before);
        assert_eq!(names(&config), files, "no draft is left");
        disk.free();
        assert_eq!(invite().code, Some(0));
    });
}

#[test]
fn a_claim_that_cannot_be_counted_spends_nothing() {
    with_disk(|scratch, disk| {
        let home = Scratch::new();
        let far = Inviter::start_with(scratch, &[], |_| {});
        let line = far.invite(&[]);
        let before = far.read("far/invitations");
        disk.fill();
        let join = || run_with(&["join", "--config-dir", &home.file("near")], line.as_bytes(), |_| {});
        let failed = join();
        assert!(failed.code.is_some_and(|code| code != 0), "{}", failed.err);
        assert!(failed.err.contains("cannot write down the key of this node; its log says why"), "{}", failed.err);
        far.node.wait_for_log(&["invitations", "No space left on device"]);
        assert_eq!((far.read("far/invitations"), far.lines("far/authorized_keys").len()), (before, 0));
        disk.free();
        let joined = join();
        assert_eq!(joined.code, Some(0), "{}", joined.err);
        assert_eq!(far.lines("far/authorized_keys").len(), 1);
    });
}

#[test]
fn a_joining_node_that_cannot_write_the_key_down_says_so_and_joins_later() {
    with_disk(|scratch, disk| {
        let far = Inviter::start_with(Scratch::new(), &[], |_| {});
        let line = far.invite(&[]);
        let near = scratch.file("near");
        let join = || run_with(&["join", "--config-dir", &near], line.as_bytes(), |_| {});
        disk.fill();
        assert_says_full(&join(), "key");
        assert_eq!(names(&near), Vec::<String>::new(), "no half of a key is left");
        disk.free();
        assert_eq!(run(&["keygen", "--config-dir", &near]).code, Some(0));
        disk.fill();
        assert_says_full(&join(), "known_nodes");
        assert_eq!(fs::read_to_string(format!("{near}/known_nodes")).unwrap_or_default(), "", "no half of a line");
        assert_says_full(
            &run_with(&["join", "--config-dir", &near, "--permit-open", "a:1"], line.as_bytes(), |_| {}),
            "known_nodes",
        );
        assert_eq!(far.lines("far/authorized_keys").len(), 0, "the invitation is not used");
        disk.free();
        let joined = join();
        assert_eq!(joined.code, Some(0), "{}", joined.err);
        assert_eq!(far.lines("far/authorized_keys").len(), 1);
    });
}

#[test]
fn a_line_that_cannot_be_written_after_joining_is_printed() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    let near = far.scratch.file("near");
    assert_eq!(run(&["keygen", "--config-dir", &near]).code, Some(0));
    // A draft of a line may be written, but the file may not grow.
    let before = format!("{}\n", "#".repeat(1000));
    let file = far.scratch.write("near/known_nodes", &before);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let failed = run_with(&["join", "--config-dir", &near], line.as_bytes(), |command| limit_files(command, 1024));
    assert_eq!(failed.code, Some(78), "{}", failed.err);
    let text = format!("add this line to {file} yourself: ");
    let (_, missing) = failed.err.split_once(&text).unwrap_or_else(|| panic!("{}", failed.err));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    fs::write(&file, missing).unwrap();
    let link = Seaprox::spawn(&["link", "--connect", &far.addr.to_string(), "--config-dir", &near], |_| {});
    until("the link is up", || link.out().iter().any(|line| line.starts_with("link up")));
}

#[test]
fn a_session_that_cannot_be_counted_leaves_the_count_and_begins_when_there_is_room() {
    with_disk(|scratch, disk| {
        let home = Scratch::new();
        let far = Inviter::start_with(scratch, &[], |_| {});
        let line = far.invite(&["--key-uses", "2"]);
        let near = home.file("near");
        assert_eq!(run_with(&["join", "--config-dir", &near], line.as_bytes(), |_| {}).code, Some(0));
        let to = far.addr.to_string();
        let link = || Seaprox::spawn(&["link", "--connect", &to, "--config-dir", &near], |_| {});
        let until_up = |link: &Seaprox| {
            until("the link is up", || link.out().iter().any(|line| line.starts_with("link up")));
        };
        let first = link();
        until_up(&first);
        drop(first);
        let before = far.read("far/authorized_keys.uses");
        disk.fill();
        let second = link();
        second.wait_for_log(&["no subflow: limit_reached"]);
        far.node.wait_for_log(&["cannot be counted", "No space left on device"]);
        assert_eq!(far.read("far/authorized_keys.uses"), before);
        disk.free();
        until_up(&second);
        drop(second);
        let third = link();
        third.wait_for_log(&["no subflow: limit_reached"]);
        assert!(far.lines("far/authorized_keys.uses").iter().all(|line| line.ends_with(" 2")));
    });
}

const PAGE: usize = 4096;

#[test]
fn a_full_disk_is_told_to_the_peer_that_appends_to_a_file() {
    with_disk(|scratch, disk| {
        let file = scratch.write("log", "first\n");
        let keys = Keys::new();
        keys.permit(Some(&format!("permit-end=\"log=append:{file}\"")));
        let tunnel = Tunnel::named(keys, "log", &[]);
        disk.fill();
        let mut client = tunnel.client();
        let sent = client.write_all(&[b'x'; 2 * PAGE]).and_then(|()| client.shutdown(Shutdown::Write));
        assert!(sent.is_err() || client.read(&mut [0]).is_err(), "the end is no orderly one");
        tunnel.far.wait_for_log(&["the end has failed", "end=log", "reason=limit_reached", "No space left on device"]);
        tunnel.near.wait_for_log(&["closed", "end[log]", "limit_reached"]);
        disk.free();
        assert_eq!(tunnel.exchange(b"second\n"), b"");
        assert!(fs::read_to_string(&file).unwrap().ends_with("second\n"));
    });
}
