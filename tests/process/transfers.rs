//! `seaprox send`, `seaprox receive` and `seaprox get`: files and folders over a link, with the real binary at both ends (TN-47).

use crate::kit;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use kit::link::Keys;
use kit::seaprox::{Ran, command};
use kit::terminal::Terminal;
use kit::{run, until};

/// A process that receives files. It is killed when dropped.
struct Receiver {
    child: Child,
    out: BufReader<Box<dyn Read>>,
    addr: String,
}

impl Receiver {
    #[track_caller]
    fn start(keys: &Keys, folder: &Path, options: &[&str]) -> Receiver {
        Receiver::start_with(keys, folder, &[&["--yes"], options].concat())
    }

    #[track_caller]
    fn start_with(keys: &Keys, folder: &Path, options: &[&str]) -> Receiver {
        let (config, folder) = (keys.far_dir(), folder.to_str().unwrap());
        let args = ["receive", "--listen", "127.0.0.1:0", "--config-dir", &config, folder];
        let mut command = command(&[&args, options].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out: Box<dyn Read> = Box::new(child.stdout.take().unwrap());
        let mut receiver = Receiver { out: BufReader::new(out), child, addr: String::new() };
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

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: kill takes and gives integers only.
    assert_eq!(unsafe { libc::kill(pid.try_into().unwrap(), signal) }, 0);
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
fn a_transfer_goes_on_where_it_stopped_after_a_kill_of_the_sender_alone() {
    const SIZE: usize = 4 << 20;
    const BEFORE: u64 = 1 << 20;
    let (keys, folder) = nodes();
    keys.permit(Some("name=\"near\",rate=2MiB/s"));
    let bytes = content(SIZE);
    let file = keys.write("film", &bytes);
    let mut receiver = Receiver::start(&keys, &folder, &[]);
    let mut sender = start_sender(&keys, &receiver.addr, &["send", &file]);
    let part = folder.join(".film.seaprox-part");
    let length = || fs::metadata(&part).map_or(0, |data| data.len());
    until("a part is there", || length() >= BEFORE);
    signal(sender.child.id(), libc::SIGKILL);
    assert_eq!(sender.child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(length() < SIZE as u64 && !folder.join("film").exists(), "the transfer was over");
    // The receiver still holds the session of the first sender, and its part.
    let ran = send(&keys, &receiver.addr, &file);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(receiver.child.try_wait().unwrap().is_none(), "the receiver has ended");
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

/// A TCP port whose connections go to another address, which may change.
struct Forwarder {
    addr: String,
    to: Arc<Mutex<String>>,
}

impl Forwarder {
    fn start(to: &str) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, to) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(to.to_owned())));
        let target = Arc::clone(&to);
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), addr) = (near, target.lock().unwrap().clone()) else { continue };
                let Ok(far) = TcpStream::connect(addr) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Forwarder { addr, to }
    }
}

/// Starts a sender whose errors can be read. It is killed when dropped.
fn start_sender(keys: &Keys, addr: &str, words: &[&str]) -> Receiver {
    let via = keys.via(addr);
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let mut child = command(&[words, &via[..]].concat()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let err = child.stderr.take().unwrap();
    // Its lines stand on stderr.
    Receiver { out: BufReader::new(Box::new(err)), child, addr: String::new() }
}

#[test]
fn a_sender_goes_on_by_itself_when_the_receiver_is_killed_and_started_again() {
    const SIZE: usize = 6 << 20;
    let (keys, folder) = nodes();
    keys.permit(Some("name=\"near\",rate=2MiB/s"));
    let bytes = content(SIZE);
    let file = keys.write("film", &bytes);
    let first = Receiver::start(&keys, &folder, &[]);
    let forwarder = Forwarder::start(&first.addr);
    let mut sender = start_sender(&keys, &forwarder.addr, &["send", &file]);
    let part = folder.join(".film.seaprox-part");
    until("a part is there", || fs::metadata(&part).is_ok_and(|data| data.len() >= 1 << 20));
    drop(first);
    keys.permit(Some("name=\"near\""));
    let mut second = Receiver::start(&keys, &folder, &[]);
    forwarder.to.lock().unwrap().clone_from(&second.addr);
    let line = second.line();
    assert!(line.contains(" of them earlier) from near"), "{line}");
    assert!(fs::read(folder.join("film")).unwrap() == bytes, "the bytes differ");
    let mut status = None;
    until("the sender ends", || {
        status = sender.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let mut lines = String::new();
    sender.out.read_to_string(&mut lines).unwrap();
    assert!(lines.contains("interrupted: ") && lines.contains("\nsent film ("), "{lines}");
    assert!(!lines.contains('\r'), "progress is for terminals");
}

#[test]
fn files_and_folders_are_sent_one_after_another() {
    let (keys, folder) = nodes();
    let file = keys.write("film", "film");
    let tree = Path::new(&file).parent().unwrap().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    (0..300).for_each(|number| fs::write(tree.join(format!("a/b/{number}")), number.to_string()).unwrap());
    let mut receiver = Receiver::start(&keys, &folder, &["--once"]);
    let via = keys.via(&receiver.addr);
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let ran = run(&[&["send", &file, tree.to_str().unwrap()], &via[..]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("sent film (4 B)") && ran.err.contains("sent tree (303 files, "), "{ran:?}");
    assert_eq!(names(&folder), ["film", "tree"]);
    assert_eq!(names(&folder.join("tree/a/b")).len(), 300);
    assert_eq!(fs::read(folder.join("tree/a/b/299")).unwrap(), b"299");
    assert!(receiver.line().contains("received ") && receiver.line().contains(" (303 files, "));
}

#[test]
fn the_receiver_is_asked_about_a_file_on_its_terminal() {
    let (keys, folder) = nodes();
    let file = keys.write("film", "the film");
    let (config, folder_text) = (keys.far_dir(), folder.to_str().unwrap());
    let words = ["receive", "--listen", "127.0.0.1:0", "--config-dir", &config, folder_text].map(str::to_owned);
    let mut terminal = Terminal::start(&words, |_| {});
    terminal.wait_for("listening receive 127.0.0.1:");
    let shown = terminal.shown();
    let port = shown.rsplit(':').next().unwrap().trim().to_owned();
    let addr = format!("127.0.0.1:{port}");
    for (answer, code) in [("no", 77), ("yes", 0)] {
        let mut sender = start_sender(&keys, &addr, &["send", &file]);
        terminal.wait_for(") offers film (8 B). Receive it into ");
        assert!(sender.child.try_wait().unwrap().is_none(), "the sender waits for the answer");
        terminal.type_line(answer);
        let status = sender.child.wait().unwrap();
        assert_eq!(status.code(), Some(code));
    }
    terminal.wait_for("received ");
    assert_eq!(names(&folder), ["film"]);
}

#[test]
fn a_receiver_without_a_terminal_and_a_rule_does_not_start() {
    let (keys, folder) = nodes();
    let config = keys.far_dir();
    let ran = run(&["receive", "--listen", "127.0.0.1:0", "--config-dir", &config, folder.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("expected --yes or --yes-from"), "{ran:?}");
}

#[test]
fn a_quota_and_a_rule_for_one_peer_hold_for_the_receiver() {
    let (keys, folder) = nodes();
    let (small, big) = (keys.write("small", "small"), keys.write("big", content(2000)));
    let mut receiver = Receiver::start_with(&keys, &folder, &["--yes-from", "near", "--quota", "1KiB"]);
    let ran = send(&keys, &receiver.addr, &big);
    assert_eq!((ran.code, ran.err.contains("the quota of the receiver")), (Some(1), true), "{ran:?}");
    assert_eq!(send(&keys, &receiver.addr, &small).code, Some(0));
    assert!(receiver.line().starts_with("received "));
    assert_eq!(names(&folder), ["small"]);
    drop(receiver);
    let receiver = Receiver::start_with(&keys, &folder, &["--yes-from", "far"]);
    let ran = send(&keys, &receiver.addr, &big);
    assert_eq!((ran.code, ran.err.contains("the receiver does not want it")), (Some(77), true), "{ran:?}");
}

#[test]
fn a_signal_ends_both_ends_in_order_and_the_part_is_kept() {
    let (keys, folder) = nodes();
    keys.permit(Some("name=\"near\",rate=1MiB/s"));
    let file = keys.write("film", content(6 << 20));
    let part = folder.join(".film.seaprox-part");
    let length = || fs::metadata(&part).map_or(0, |data| data.len());
    let mut receiver = Receiver::start(&keys, &folder, &[]);
    let mut sender = start_sender(&keys, &receiver.addr, &["send", &file]);
    until("a part is there", || length() >= 256 << 10);
    signal(sender.child.id(), libc::SIGINT);
    assert_eq!(sender.child.wait().unwrap().code(), Some(1));
    let mut lines = String::new();
    sender.out.read_to_string(&mut lines).unwrap();
    assert!(lines.contains("what has arrived is kept"), "{lines}");
    let before = length();
    let mut sender = start_sender(&keys, &receiver.addr, &["send", &file]);
    until("the second transfer writes", || length() > before);
    signal(receiver.child.id(), libc::SIGTERM);
    assert_eq!(receiver.child.wait().unwrap().code(), Some(0));
    assert!(length() > before && !folder.join("film").exists());
    signal(sender.child.id(), libc::SIGINT);
    assert_eq!(sender.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_peer_gets_files_of_the_folders_of_its_key_and_no_others() {
    let (keys, folder) = nodes();
    let share = folder.parent().unwrap().join("share");
    fs::create_dir_all(share.join("films/series")).unwrap();
    fs::write(share.join("films/film"), content(300_000)).unwrap();
    fs::write(share.join("films/series/1"), "one").unwrap();
    std::os::unix::fs::symlink("../../authorized_keys", share.join("films/keys")).unwrap();
    keys.permit(Some(&format!("name=\"near\",permit-get=\"{}\"", share.display())));
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let get = |name: &str| run(&[&["get", name, folder.to_str().unwrap()], &via[..]].concat());
    assert_eq!(get("films/film").code, Some(0));
    assert!(fs::read(folder.join("film")).unwrap() == content(300_000), "the bytes differ");
    let ran = get("films/series");
    assert_eq!((ran.code, fs::read(folder.join("series/1")).unwrap()), (Some(0), b"one".to_vec()), "{ran:?}");
    for name in ["films/keys", "../authorized_keys", "/etc/passwd", "films/none"] {
        let ran = get(name);
        assert_eq!((ran.code, ran.err.contains("seaprox get: refused: ")), (Some(77), true), "{ran:?}");
    }
    assert_eq!(names(&folder), ["film", "series"]);
    keys.permit(Some("name=\"near\",permit-open=\"127.0.0.1:*\""));
    until("the key has no folder any more", || get("films/film").code == Some(77));
}

/// Runs `seaprox ARGS` where `folder` is a file system of 1 MiB.
fn on_a_small_disk(folder: &Path, args: &[&str]) -> Command {
    let mount = format!("mount -t tmpfs -o size=1m none '{}' && exec \"$@\"", folder.display());
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &mount, "sh", env!("CARGO_BIN_EXE_seaprox")]).args(args).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs a mount namespace: make test-system"]
fn both_ends_are_told_of_a_full_disk() {
    let (keys, folder) = nodes();
    let file = keys.write("film", content(3 << 20));
    let (config, folder_text) = (keys.far_dir(), folder.to_str().unwrap());
    let args = ["receive", "--yes", "--listen", "127.0.0.1:0", "--config-dir", &config, folder_text];
    let mut child = on_a_small_disk(&folder, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = child.stderr.take().unwrap();
    let out: Box<dyn Read> = Box::new(child.stdout.take().unwrap());
    let mut receiver = Receiver { out: BufReader::new(out), child, addr: String::new() };
    let addr = receiver.line().strip_prefix("listening receive ").expect("an address").to_owned();
    let ran = send(&keys, &addr, &file);
    assert_eq!((ran.code, ran.err.contains("no room on the disk: ")), (Some(1), true), "{ran:?}");
    signal(receiver.child.id(), libc::SIGTERM);
    let mut lines = String::new();
    err.read_to_string(&mut lines).unwrap();
    assert!(lines.contains("not received from near: no room on the disk: "), "{lines}");
    // The same with the receiver as the one who asks.
    keys.permit(Some(&format!("name=\"near\",permit-get=\"{}\"", Path::new(&file).parent().unwrap().display())));
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let ran = on_a_small_disk(&folder, &[&["get", "film", folder_text], &via[..]].concat()).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), text.contains("no room on the disk: ")), (Some(1), true), "{text}");
    far.wait_for_log(&["the peer has not got a file"]);
}

#[test]
#[ignore = "moves 2 GiB: make test-system"]
fn a_gibibyte_takes_as_long_as_a_plain_stream_of_the_same_link() {
    let mib = std::env::var("SEAPROX_FILE_MIB").map_or(1024, |text| text.parse().unwrap());
    let (keys, folder) = nodes();
    let file = keys.write("film", "");
    let block = content(1 << 20);
    let mut out = fs::File::create(&file).unwrap();
    (0..mib).for_each(|_| out.write_all(&block).unwrap());
    drop(out);
    keys.permit(Some("name=\"near\",permit-open=\"127.0.0.1:*\""));
    let mut plain = Duration::MAX;
    let mut carried = Duration::MAX;
    for _ in 0..2 {
        // A plain stream: cat of a file over a link to a socket whose bytes go to a file. The file is synchronised with the disk, as a
        // received one is, because on some disks that takes longer than the transfer.
        let far = keys.start_far(&[]);
        let sink = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = sink.local_addr().unwrap().port().to_string();
        let copy = folder.join("copy");
        let taking = thread::spawn(move || {
            let mut copy = fs::File::create(copy).unwrap();
            let bytes = io::copy(&mut sink.accept().unwrap().0, &mut copy).unwrap();
            copy.sync_all().unwrap();
            bytes
        });
        let via = keys.via(&far.listens(0));
        let via: Vec<_> = via.iter().map(String::as_str).collect();
        let since = Instant::now();
        let mut cat = command(&[&["cat", "127.0.0.1", &port], &via[..]].concat());
        assert!(cat.stdin(fs::File::open(&file).unwrap()).stdout(Stdio::null()).status().unwrap().success());
        assert_eq!(taking.join().unwrap(), mib << 20);
        plain = plain.min(since.elapsed());
        drop(far);
        let receiver = Receiver::start(&keys, &folder, &[]);
        let since = Instant::now();
        let ran = send(&keys, &receiver.addr, &file);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        carried = carried.min(since.elapsed());
        fs::remove_file(folder.join("copy")).unwrap();
        fs::remove_file(folder.join("film")).unwrap();
    }
    eprintln!("{mib} MiB: {carried:?} as a file, {plain:?} as a plain stream");
    // The promise is a tenth; the rest is room for a machine that does other things, too.
    assert!(carried < plain.mul_f64(1.4), "{carried:?} as a file, {plain:?} as a plain stream");
}

#[test]
#[ignore = "makes 200,000 files: make test-system"]
fn a_folder_of_100_000_files_arrives() {
    let (keys, folder) = nodes();
    let tree = folder.parent().unwrap().join("tree");
    for outer in 0..100 {
        let inner = tree.join(outer.to_string());
        fs::create_dir_all(&inner).unwrap();
        (0..1000).for_each(|number| fs::write(inner.join(number.to_string()), format!("{outer} {number}")).unwrap());
    }
    let mut receiver = Receiver::start(&keys, &folder, &[]);
    let since = Instant::now();
    let ran = send(&keys, &receiver.addr, tree.to_str().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    eprintln!("100,000 files: {:?}", since.elapsed());
    assert!(receiver.line().contains("(100101 files, "));
    for outer in 0..100 {
        let inner = folder.join(format!("tree/{outer}"));
        assert_eq!(names(&inner).len(), 1000);
        assert_eq!(fs::read(inner.join("999")).unwrap(), format!("{outer} 999").into_bytes());
    }
}
