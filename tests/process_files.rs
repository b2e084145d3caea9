//! The files that a process reads, writes and takes the place of: Unix sockets, keys, users and paths (C11, C12, C13, X-11).

mod kit;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};

use kit::{Scratch, run, until};

/// A process that is killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a front end whose status is served at `place`, and returns it with the first line of its log.
fn with_status(place: &str) -> (Running, String) {
    let mut command = kit::seaprox::command(&["socks", "--listen", "127.0.0.1:0", "--status", place]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let child = Running(child);
    // The line comes once the status is served, or cannot be.
    BufReader::new(out).read_line(&mut String::new()).unwrap();
    let mut line = String::new();
    if !fs::symlink_metadata(place.trim_start_matches("unix:")).is_ok_and(|file| file.file_type().is_socket()) {
        BufReader::new(log).read_line(&mut line).unwrap();
    }
    (child, line)
}

#[test]
fn no_socket_takes_the_place_of_a_file_that_is_none() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "precious");
    let link = scratch.file("link");
    symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let place = format!("unix:{path}");
        let (_running, line) = with_status(&place);
        assert!(line.contains("no status socket") && line.contains("is no socket"), "{line}");
        for args in [&["socks", "--listen", &place][..], &["cat", "--listen", &place]] {
            let ran = run(args);
            assert_eq!(ran.code, Some(69), "{ran:?}");
            assert!(ran.err.contains(path.as_str()) && ran.err.contains("is no socket"), "{}", ran.err);
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_socket_that_a_killed_process_left_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let (path, place) = (scratch.file("socket"), format!("unix:{}", scratch.file("socket")));
    drop(UnixListener::bind(&path).unwrap());
    let (running, _) = with_status(&place);
    assert_eq!(run(&["status", "--status", &place]).code, Some(0));
    assert_eq!(run(&["socks", "--listen", &place]).code, Some(69));
    assert_eq!(run(&["status", "--status", &place]).code, Some(0), "the first one still answers");
    drop(running);
    let mut command = kit::seaprox::command(&["cat", "--listen", &place]);
    let cat = Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("it listens where the killed one did", || UnixStream::connect(&path).is_ok());
    drop(cat);
}

/// The socket of the status has its mode when its file appears: nothing changes it afterwards, however wide the umask is.
#[test]
#[cfg(target_os = "linux")]
fn the_status_socket_is_never_open_to_others() {
    use std::os::unix::process::CommandExt;

    let scratch = Scratch::new();
    let directory = std::ffi::CString::new(scratch.path().to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends in a zero and outlives the call.
    let (inotify, watch) = unsafe {
        let inotify = libc::inotify_init1(libc::IN_NONBLOCK);
        (inotify, libc::inotify_add_watch(inotify, directory.as_ptr(), libc::IN_CREATE | libc::IN_ATTRIB))
    };
    assert!(inotify >= 0 && watch >= 0);
    let place = format!("unix:{}", scratch.file("status"));
    let mut command = kit::seaprox::command(&["socks", "--listen", "127.0.0.1:0", "--status", &place]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let wide = || {
        // SAFETY: umask takes a number and cannot fail.
        unsafe { libc::umask(0) };
        Ok(())
    };
    // SAFETY: umask is safe to call between fork and exec.
    unsafe { command.pre_exec(wide) };
    let running = Running(command.spawn().unwrap());
    until("the status is served", || run(&["status", "--status", &place]).code == Some(0));
    assert_eq!(fs::metadata(scratch.file("status")).unwrap().mode() & 0o777, 0o600);
    let mut buf = [0u8; 4096];
    // SAFETY: the buffer is as large as is said.
    let got = unsafe { libc::read(inotify, buf.as_mut_ptr().cast(), buf.len()) };
    drop(running);
    // struct inotify_event: wd, mask, cookie, len, name.
    let (mut at, mut masks) = (0, Vec::new());
    while at < got.max(0) as usize {
        let word = |offset: usize| u32::from_ne_bytes(buf[at + offset..at + offset + 4].try_into().unwrap());
        masks.push(word(4));
        at += 16 + word(12) as usize;
    }
    // SAFETY: the descriptor is this test's own.
    unsafe { libc::close(inotify) };
    assert_eq!(masks, [libc::IN_CREATE], "its mode was changed after it was there");
}
