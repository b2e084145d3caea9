//! `seaprox send` and `seaprox receive`: files over a link, with the real binary at both ends (TN-47).

use crate::kit;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

use kit::link::Keys;
use kit::seaprox::{Ran, command};
use kit::{run, until};

/// A process that receives files. It is killed when dropped.
struct Receiver {
    child: Child,
    out: BufReader<ChildStdout>,
    addr: String,
}

impl Receiver {
    #[track_caller]
    fn start(keys: &Keys, folder: &Path, options: &[&str]) -> Receiver {
        let (config, folder) = (keys.far_dir(), folder.to_str().unwrap());
        let args = ["receive", "--yes", "--listen", "127.0.0.1:0", "--config-dir", &config, folder];
        let mut command = command(&[&args, options].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut receiver = Receiver { out: BufReader::new(child.stdout.take().unwrap()), child, addr: String::new() };
        receiver.addr = receiver.line().strip_prefix("listening receive ").expect("an address").to_owned();
        receiver
    }

    /// Returns the next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn send(keys: &Keys, addr: &str, file: &str) -> Ran {
    let via = keys.via(addr);
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    run(&[&["send", file], &via[..]].concat())
}

/// Makes two nodes, whose near one may do nothing but link, and a folder for files.
fn nodes() -> (Keys, PathBuf) {
    let keys = Keys::new();
    keys.permit(Some("name=\"near\""));
    let folder = Path::new(&keys.far_dir()).join("files");
    fs::create_dir(&folder).unwrap();
    (keys, folder)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(next).collect()
}

#[test]
fn a_file_arrives_with_its_bytes_its_permissions_and_its_time() {
    let (keys, folder) = nodes();
    let bytes = content(3_000_001);
    let file = keys.write("film", &bytes);
    fs::set_permissions(&file, PermissionsExt::from_mode(0o4640)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5000);
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    let mut receiver = Receiver::start(&keys, &folder, &["--once"]);
    let ran = send(&keys, &receiver.addr, &file);
    assert_eq!((ran.code, &ran.err[..5]), (Some(0), "sent "), "{ran:?}");
    assert!(fs::read(folder.join("film")).unwrap() == bytes, "the bytes differ");
    let data = fs::metadata(folder.join("film")).unwrap();
    assert_eq!((data.permissions().mode() & 0o7777, data.modified().unwrap()), (0o640, time));
    assert_eq!(names(&folder), ["film"]);
    let line = receiver.line();
    assert!(line.starts_with("received ") && line.ends_with(" from near"), "{line}");
    let mut status = None;
    until("the receiver ends after one file", || {
        status = receiver.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

#[test]
fn a_transfer_goes_on_where_it_stopped_after_a_restart_of_both_ends() {
    const SIZE: usize = 6 << 20;
    const BEFORE: u64 = 1 << 20;
    let (keys, folder) = nodes();
    // Slow enough to be stopped in the middle.
    keys.permit(Some("name=\"near\",rate=2MiB/s"));
    let bytes = content(SIZE);
    let file = keys.write("film", &bytes);
    let receiver = Receiver::start(&keys, &folder, &[]);
    let via = keys.via(&receiver.addr);
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let mut sender = command(&[&["send", &file], &via[..]].concat()).stderr(Stdio::null()).spawn().unwrap();
    let part = folder.join(".film.seaprox-part");
    let length = || fs::metadata(&part).map_or(0, |data| data.len());
    until("a part is there", || length() >= BEFORE);
    drop(receiver);
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert!(length() < SIZE as u64 && !folder.join("film").exists(), "the transfer was over");
    keys.permit(Some("name=\"near\""));
    let mut receiver = Receiver::start(&keys, &folder, &[]);
    let ran = send(&keys, &receiver.addr, &file);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(fs::read(folder.join("film")).unwrap() == bytes, "the bytes differ");
    assert_eq!(names(&folder), ["film"]);
    let line = receiver.line();
    assert!(line.contains(" of them earlier) from near"), "{line}");
}

#[test]
fn a_file_that_is_there_is_not_replaced_and_the_sender_is_told() {
    let (keys, folder) = nodes();
    let file = keys.write("film", "new");
    fs::write(folder.join("film"), "old").unwrap();
    let receiver = Receiver::start(&keys, &folder, &[]);
    let ran = send(&keys, &receiver.addr, &file);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("there is such a file"), "{ran:?}");
    assert_eq!((fs::read(folder.join("film")).unwrap(), names(&folder)), (b"old".to_vec(), vec!["film".to_owned()]));
}

#[test]
fn a_node_that_does_not_receive_takes_no_file() {
    let keys = Keys::new();
    let file = keys.write("film", "new");
    let far = keys.start_far(&[]);
    let ran = send(&keys, &far.listens(0), &file);
    assert_eq!(ran.code, Some(77), "{ran:?}");
    assert!(ran.err.contains("expected seaprox receive, or a folder that is shared, at the far end"), "{ran:?}");
}
