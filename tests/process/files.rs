//! The files that a process reads, writes and replaces: Unix sockets, keys, users and paths (C11, C12, C13, X-11).

use crate::kit;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::peer::both;
use kit::socks::connect5;
use kit::{Peer, Scratch, Seaprox, run, until};

/// A process that is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a front end with its status socket at `place`. Returns it and, if the socket was not created, the first log
/// line.
fn with_status(place: &str) -> (Running, String) {
    let mut command = kit::seaprox::command(&["socks", "--listen", "127.0.0.1:0", "--status", place]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let child = Running(child);
    // The listening line is printed after the status socket was created or has failed.
    BufReader::new(out).read_line(&mut String::new()).unwrap();
    let mut line = String::new();
    if !fs::symlink_metadata(place.trim_start_matches("unix:")).is_ok_and(|file| file.file_type().is_socket()) {
        BufReader::new(log).read_line(&mut line).unwrap();
    }
    (child, line)
}

#[test]
fn a_unix_socket_does_not_replace_a_file_that_is_no_socket() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "precious");
    let link = scratch.file("link");
    symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let place = format!("unix:{path}");
        let (_running, line) = with_status(&place);
        assert!(line.contains("the status socket cannot be created") && line.contains("is no socket"), "{line}");
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
fn the_socket_of_a_killed_process_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let (path, place) = (scratch.file("socket"), format!("unix:{}", scratch.file("socket")));
    kit::stale_socket(&path);
    let (running, _) = with_status(&place);
    assert_eq!(run(&["status", "--status", &place]).code, Some(0));
    assert_eq!(run(&["socks", "--listen", &place]).code, Some(69));
    assert_eq!(run(&["status", "--status", &place]).code, Some(0), "the first process still answers");
    drop(running);
    let mut command = kit::seaprox::command(&["cat", "--listen", &place]);
    let cat = Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("the process listens on the socket of the killed one", || UnixStream::connect(&path).is_ok());
    drop(cat);
}

/// The file of the status socket is created with its final mode, even with a umask of 0. Nothing changes the mode
/// later.
#[test]
#[cfg(target_os = "linux")]
fn the_status_socket_is_never_accessible_to_other_users() {
    use std::os::unix::process::CommandExt;

    let scratch = Scratch::new();
    let events = Events::of(scratch.path(), libc::IN_CREATE | libc::IN_ATTRIB);
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
    until("the status is available", || run(&["status", "--status", &place]).code == Some(0));
    assert_eq!(fs::metadata(scratch.file("status")).unwrap().mode() & 0o777, 0o600);
    let events = events.so_far();
    drop(running);
    assert_eq!(events, [libc::IN_CREATE], "the mode was changed after the file was created");
}

/// Events of a file or a directory, as inotify(7) reports them.
#[cfg(target_os = "linux")]
struct Events(fs::File);

#[cfg(target_os = "linux")]
impl Events {
    fn of(path: &Path, mask: u32) -> Events {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends in a zero and outlives the call; the descriptor is new and has no
        // other owner.
        unsafe {
            let inotify = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(inotify >= 0 && libc::inotify_add_watch(inotify, path.as_ptr(), mask) >= 0);
            Events(fs::File::from_raw_fd(inotify))
        }
    }

    /// Reads all waiting events. Returns their masks.
    fn so_far(&self) -> Vec<u32> {
        let mut buf = [0u8; 4096];
        let got = (&self.0).read(&mut buf).unwrap_or(0);
        let (mut at, mut masks) = (0, Vec::new());
        // struct inotify_event: wd, mask, cookie, len, name.
        while at < got {
            let word = |offset: usize| u32::from_ne_bytes(buf[at + offset..at + offset + 4].try_into().unwrap());
            masks.push(word(4));
            at += 16 + word(12) as usize;
        }
        masks
    }
}

/// The files of one node.
struct Home(Scratch);

impl Home {
    fn new() -> Home {
        Home(Scratch::new())
    }

    /// Returns the public key of the node, as a line.
    fn key(&self) -> String {
        let ran = run(&["keygen", "-q", "--config-dir", &self.directory()]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        String::from_utf8(ran.out).unwrap().trim_end().to_owned()
    }

    fn directory(&self) -> String {
        self.0.file("")
    }

    fn write(&self, name: &str, content: &str) {
        set_mode(&self.0.write(name, content), 0o600);
    }

    /// Replaces a file by renaming a new one.
    fn rename(&self, name: &str, content: &str) {
        self.write("new", content);
        fs::rename(self.0.file("new"), self.0.file(name)).unwrap();
    }
}

fn set_mode(path: &str, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Two nodes with a link, and a target that the near node reaches through the far one.
struct Pair {
    far_home: Home,
    _near_home: Home,
    far: Seaprox,
    near: Seaprox,
    /// The line of the near key, without a newline.
    key: String,
    echo: TcpListener,
}

impl Pair {
    /// Starts both nodes and waits for the link. `permissions` are the permissions of the near key.
    #[track_caller]
    fn start(permissions: &str, near_options: &[&str]) -> Pair {
        let (far_home, near_home) = (Home::new(), Home::new());
        let key = near_home.key();
        let far_key = far_home.key();
        far_home.write("authorized_keys", &format!("{permissions} {key}\n"));
        let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &far_home.directory()]);
        let addr = far.addr(0);
        near_home.write("known_nodes", &format!("{addr} {far_key}\n"));
        let (addr, directory) = (addr.to_string(), near_home.directory());
        let mut line = vec!["link", "--connect", &addr, "--config-dir", &directory, "-D", "127.0.0.1:0"];
        line.extend(near_options);
        let near = Seaprox::start(&line);
        until("the link is up", || near.out().iter().any(|line| line.starts_with("link up ")));
        Pair { far_home, _near_home: near_home, far, near, key, echo: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// Rewrites the far node's file of keys in place.
    fn authorize(&self, content: &str) {
        self.far_home.write("authorized_keys", content);
    }

    /// Asks the near node's SOCKS5 port for the target. Returns the reply code and the connection.
    fn ask(&self) -> (u8, Peer) {
        let (client, reply) = connect5(self.near.addr(0), "127.0.0.1", self.echo.local_addr().unwrap().port());
        (reply[1], client)
    }

    /// Opens a connection over the link. Returns both ends.
    fn connect(&self) -> (Peer, Peer) {
        let (code, client) = self.ask();
        assert_eq!(code, 0);
        (client, Peer::accept(&self.echo))
    }
}

fn speak((client, server): &mut (Peer, Peer)) {
    client.run(&[Put(b"ask")]);
    server.run(&[Take(b"ask"), Put(b"answer")]);
    client.run(&[Take(b"answer")]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_partly_written_file_of_keys_ends_no_link() {
    let mut pair = Pair::start("permit-open=\"*\"", &[]);
    let mut held = pair.connect();
    let whole = format!("permit-open=\"*\" {}\n", pair.key);
    let file = pair.far_home.0.file("authorized_keys");
    for half in ["", "permit-open=\"*\" seaprox-ed25519 AA"] {
        let events = Events::of(Path::new(&file), libc::IN_CLOSE_NOWRITE);
        pair.authorize(half);
        // The file is restored after it was read, within the second before it is read again.
        until("the half of it is read", || !events.so_far().is_empty());
        pair.authorize(&whole);
        until("the whole of it is read", || !events.so_far().is_empty());
    }
    speak(&mut held);
    speak(&mut pair.connect());
    assert!(pair.near.runs());
    assert_eq!(
        pair.far.count_log(&["keys cannot be read again"]),
        0,
        "a file that may be half written is not an error yet"
    );
}

#[test]
fn removing_a_key_ends_its_link_however_the_file_is_written() {
    let nobody = "# nobody\n";
    type Way = (&'static str, fn(&Pair, &str));
    let ways: [Way; 4] = [
        ("in place", |pair, text| pair.authorize(text)),
        ("by rename", |pair, text| {
            let other = Home::new().key();
            pair.far_home.rename("authorized_keys", &format!("{text}{other}\n"));
        }),
        ("removed", |pair, _| fs::remove_file(pair.far_home.0.file("authorized_keys")).unwrap()),
        ("in place, with HUP", |pair, text| {
            pair.authorize(text);
            pair.far.signal(libc::SIGHUP);
        }),
    ];
    let each = |(way, write): Way| {
        let mut pair = Pair::start("permit-open=\"*\"", &[]);
        let mut held = pair.connect();
        speak(&mut held);
        write(&pair, nobody);
        assert_eq!(pair.near.wait(kit::SOON).code(), Some(77), "{way}");
    };
    std::thread::scope(|scope| ways.map(|way| scope.spawn(move || each(way))).map(|thread| thread.join().unwrap()));
}

#[test]
fn the_users_are_reloaded_when_their_file_changes() {
    let scratch = Scratch::new();
    let users = scratch.write("users", "joe:old\nann:hers\n");
    let mut seaprox = Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--users", &users]);
    let is_let_in = |name: &[u8], password: &[u8]| {
        let mut client = Peer::connect(seaprox.addr(0));
        let login = [&[1, name.len() as u8][..], name, &[password.len() as u8], password].concat();
        client.run(&[Put(b"\x05\x01\x02"), Take(b"\x05\x02"), Put(&login)]);
        client.some().unwrap() == [1, 0]
    };
    scratch.write("users", "joe:old\nann:hers\nbob:his\n");
    until("an added user can log in", || is_let_in(b"bob", b"his"));
    scratch.write("users", "ann:hers\nbob:his\n");
    until("a removed user cannot", || !is_let_in(b"joe", b"old"));
    assert!(is_let_in(b"ann", b"hers"));
    scratch.write("users", "");
    seaprox.wait_for_log(&["ERROR", "the users file cannot be read again", "at least one line"]);
    assert!(is_let_in(b"ann", b"hers"), "a file without users changes nothing");
    set_mode(&scratch.write("users", "eve:evil\nann:hers\nbob:his\n"), 0o666);
    seaprox.wait_for_log(&["ERROR", "the users file cannot be read again", "others can change it (mode 0666)"]);
    assert!(!is_let_in(b"eve", b"evil") && is_let_in(b"ann", b"hers"));
    set_mode(&users, 0o600);
    until("the file is used when its mode is right", || is_let_in(b"eve", b"evil"));
    assert_eq!(seaprox.count_log(&["others can change it"]), 1, "the warning is logged once");
    assert!(seaprox.runs());
}

#[test]
fn a_file_that_other_users_can_change_is_refused_at_the_start() {
    let home = Home::new();
    let key = home.key();
    let file = |name: &str| home.0.file(name);
    home.write("users", "joe:secret\n");
    home.write("paths", "%lo\n");
    home.write("authorized_keys", &format!("{key}\n"));
    let directory = home.directory();
    let link = ["link", "--listen", "127.0.0.1:0", "--config-dir", &directory];
    let paths = ["link", "--connect", "127.0.0.1:1", "--config-dir", &directory, "--paths", &file("paths")];
    let (users, pubkey) = (["socks", "--listen", "127.0.0.1:0", "--users", &file("users")], ["pubkey", &file("key")]);
    let refused = |line: &[&str], words: &[&str]| {
        let ran = run(line);
        assert_eq!((ran.code, ran.out.len()), (Some(78), 0), "{ran:?}");
        for word in words.iter().chain(&["expected ", "--no-strict-modes"]) {
            assert!(ran.err.contains(word), "{word}: {}", ran.err);
        }
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    };
    for (name, line) in [("authorized_keys", &link[..]), ("users", &users), ("paths", &paths), ("key", &pubkey)] {
        set_mode(&file(name), 0o666);
        refused(line, &[&file(name), "(mode 0666)", "type: chmod "]);
        set_mode(&file(name), 0o600);
        set_mode(&directory, 0o777);
        // The node's key is in the same directory and is read first.
        refused(line, &[&directory, "others may write to the directory", "(mode 0777)", "type: chmod go-w "]);
        set_mode(&directory, 0o755);
        if kit::is_root() {
            std::os::unix::fs::chown(file(name), Some(54_321), None).unwrap();
            refused(line, &[&file(name), "belongs to user 54321", "expected root"]);
            std::os::unix::fs::chown(file(name), Some(0), None).unwrap();
        }
    }
    set_mode(&file("users"), 0o666);
    set_mode(&directory, 0o777);
    assert_eq!(run(&[&pubkey[..], &["--no-strict-modes"]].concat()).code, Some(0));
    drop(Seaprox::start(&[&users[..], &["--no-strict-modes"]].concat()));
    drop(Seaprox::start_with(&link, |command| _ = command.env("SEAPROX_NO_STRICT_MODES", "1")));
}

/// A user that is not root. Its commands have a file system of their own, in which the user can reach the binary.
struct User(Scratch);

impl User {
    const ID: u32 = 54_321;
    const OTHER: u32 = 54_322;

    fn new() -> User {
        let scratch = Scratch::new();
        set_mode(&scratch.file(""), 0o755);
        // The binary is bind-mounted: a copy might still be open for writing in a child process of another test.
        scratch.write("seaprox", "");
        User(scratch)
    }

    /// Returns a command that runs as this user, who is in a group of its own and in another. `accounts` are files that
    /// the command sees as `/etc/passwd` and `/etc/group`.
    fn command(&self, line: &[&str], accounts: Option<[&str; 2]>) -> std::process::Command {
        use std::ffi::CString;
        use std::os::unix::process::CommandExt;

        let binary = self.0.file("seaprox");
        let mut command = std::process::Command::new(&binary);
        command.args(line).env_clear().env("PATH", "/usr/bin:/bin");
        let text = |text: &str| CString::new(text).unwrap();
        let mut mounts = vec![
            (text("none"), text("/"), libc::MS_REC | libc::MS_PRIVATE),
            (text(env!("CARGO_BIN_EXE_seaprox")), text(&binary), libc::MS_BIND),
        ];
        if let Some([passwd, group]) = accounts {
            mounts.push((text(passwd), text("/etc/passwd"), libc::MS_BIND));
            mounts.push((text(group), text("/etc/group"), libc::MS_BIND));
        }
        let become_user = move || {
            let groups = [User::OTHER];
            let mount = |(from, to, flags): &(CString, CString, libc::c_ulong)| {
                // SAFETY: the strings outlive the call, and null is allowed for the type and the data.
                unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), *flags, std::ptr::null()) == 0 }
            };
            // SAFETY: unshare takes a number.
            let has_files = unsafe { libc::unshare(libc::CLONE_NEWNS) == 0 } && mounts.iter().all(mount);
            // SAFETY: the list has the passed length, and the other calls take a number.
            let is_user = unsafe {
                libc::setgroups(1, groups.as_ptr()) == 0 && libc::setgid(User::ID) == 0 && libc::setuid(User::ID) == 0
            };
            if has_files && is_user { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: these are system calls, and nothing is allocated between fork and exec.
        unsafe { command.pre_exec(become_user) };
        command
    }

    #[track_caller]
    fn run(&self, line: &[&str], accounts: Option<[&str; 2]>) -> kit::Ran {
        kit::seaprox::run_command(self.command(line, accounts), b"")
    }
}

/// A process that is not root reads a volume as the kubelet creates it for a pod with an fsGroup.
#[test]
fn files_in_a_kubernetes_secret_volume_are_accepted() {
    use std::os::unix::fs::{chown, lchown};

    if !kit::has_namespaces() {
        return;
    }
    let (user, home) = (User::new(), Home::new());
    let key = home.key();
    let volume = user.0.file("volume");
    let dated = format!("{volume}/..2026_11_28_05_00_00.1");
    fs::create_dir_all(&dated).unwrap();
    symlink("..2026_11_28_05_00_00.1", format!("{volume}/..data")).unwrap();
    for (name, mode) in [("key", 0o440), ("authorized_keys", 0o640), ("users", 0o444)] {
        let file = format!("{dated}/{name}");
        match name {
            "key" => drop(fs::copy(home.0.file("key"), &file).unwrap()),
            "users" => fs::write(&file, "joe:secret\n").unwrap(),
            _ => fs::write(&file, format!("{key}\n")).unwrap(),
        }
        chown(&file, Some(0), Some(User::OTHER)).unwrap();
        set_mode(&file, mode);
        symlink(format!("..data/{name}"), format!("{volume}/{name}")).unwrap();
    }
    for (directory, mode) in [(&volume, 0o3777), (&dated, 0o2755)] {
        chown(directory, Some(0), Some(User::OTHER)).unwrap();
        set_mode(directory, mode);
    }
    let pubkey = user.run(&["pubkey", "--config-dir", &volume], None);
    assert_eq!((pubkey.code, String::from_utf8_lossy(&pubkey.out).trim_end()), (Some(0), key.as_str()), "{pubkey:?}");
    for line in [
        &["link", "--listen", "127.0.0.1:0", "--status", "none", "--config-dir", &volume][..],
        &["socks", "--listen", "127.0.0.1:0", "--status", "none", "--users", &format!("{volume}/users")],
    ] {
        let mut command = user.command(line, None);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (mut line, out) = (String::new(), child.stdout.take().unwrap());
        let _running = Running(child);
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.starts_with("listening "), "{line:?}");
    }
    // A symbolic link of another user in a directory that all can write is refused, because that user can change it.
    lchown(format!("{volume}/..data"), Some(User::OTHER), None).unwrap();
    let ran = user.run(&["pubkey", "--config-dir", &volume], None);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.err.contains("..data belongs to user 54322: expected user 54321 or root"), "{}", ran.err);
}

/// A home as Debian creates it: the user has a group of its own and a umask of 002.
#[test]
fn files_in_a_home_with_a_private_group_are_accepted() {
    use std::os::unix::fs::chown;

    if !kit::has_namespaces() {
        return;
    }
    let (user, home) = (User::new(), Home::new());
    home.key();
    let config = user.0.file("home/.config/seaprox");
    fs::create_dir_all(&config).unwrap();
    fs::copy(home.0.file("key"), format!("{config}/key")).unwrap();
    fs::write(format!("{config}/users"), "joe:secret\n").unwrap();
    for (name, mode) in [("", 0o755), ("/.config", 0o775), ("/.config/seaprox", 0o2775)] {
        let directory = format!("{}{name}", user.0.file("home"));
        chown(&directory, Some(User::ID), Some(User::ID)).unwrap();
        set_mode(&directory, mode);
    }
    for (name, mode) in [("key", 0o600), ("users", 0o664)] {
        let file = format!("{config}/{name}");
        chown(&file, Some(User::ID), Some(User::ID)).unwrap();
        set_mode(&file, mode);
    }
    let (id, other) = (User::ID, User::OTHER);
    let passwd = format!("root:x:0:0::/root:/bin/sh\njoe:x:{id}:{id}::/:/bin/sh\nann:x:{other}:{other}::/:/bin/sh\n");
    let passwd = user.0.write("passwd", passwd);
    let (alone, shared) = (format!("root:x:0:\njoe:x:{id}:\nann:x:{other}:\n"), format!("root:x:0:\njoe:x:{id}:ann\n"));
    let (alone, shared) = (user.0.write("alone", alone), user.0.write("shared", shared));
    let line = ["pubkey", "--config-dir", &config];
    let users = format!("{config}/users");
    let socks = ["socks", "--listen", "192.0.2.1:1", "--status", "none", "--users", &users];
    assert_eq!(user.run(&line, Some([&passwd, &alone])).code, Some(0));
    assert_eq!(user.run(&socks, Some([&passwd, &alone])).code, Some(69), "only the address is wrong");
    for line in [&line[..], &socks] {
        let ran = user.run(line, Some([&passwd, &shared]));
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains("others ") && ran.err.contains("type: chmod go-w "), "{}", ran.err);
    }
}

#[test]
fn keygen_removes_the_partial_key_of_a_killed_keygen() {
    let home = Home::new();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    let dead = gone.id();
    gone.wait().unwrap();
    let half = format!(".key.{dead}.0");
    home.write(&half, "-----BEGIN");
    home.key();
    let names: Vec<_> = fs::read_dir(home.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["key"]);
    home.write(&half, "-----BEGIN");
    assert_eq!(run(&["keygen", "--config-dir", &home.directory()]).code, Some(1), "a key exists already");
    assert!(!Path::new(&home.0.file(&half)).exists());
}

/// A permission applies as soon as the file has changed, and running connections go on.
#[test]
fn each_permission_can_be_revoked_while_the_link_is_up() {
    let inner = TcpListener::bind("127.0.0.1:0").unwrap();
    let reverse = format!("0:{}", inner.local_addr().unwrap());
    let mut pair = Pair::start("permit-open=\"*\",permit-listen=\"0\"", &["-R", &reverse]);
    let remote = |pair: &Pair| -> Vec<u16> {
        let port = |line: &String| line.strip_prefix("listening remote ")?.split_once(" -> ")?.0.parse().ok();
        pair.near.out().iter().filter_map(port).collect()
    };
    until("the far end listens", || remote(&pair).len() == 1);
    let port = remote(&pair)[0];
    let mut back = (Peer::connect(([127, 0, 0, 1], port).into()), Peer::accept(&inner));
    let mut held = pair.connect();
    speak(&mut back);
    let may = |pair: &Pair, permissions: &str| {
        pair.far_home.rename("authorized_keys", &format!("{permissions} {}\n", pair.key));
        pair.far.signal(libc::SIGHUP);
    };

    may(&pair, "permit-open=\"*\"");
    // The peer is told when the listener is closed.
    pair.near.wait_for_log(&["the peer does not listen", "not_permitted"]);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    speak(&mut back);
    may(&pair, "permit-open=\"*\",permit-listen=\"0\"");
    until("the far end listens again", || remote(&pair).len() == 2);
    let again = remote(&pair)[1];
    speak(&mut (Peer::connect(([127, 0, 0, 1], again).into()), Peer::accept(&inner)));

    may(&pair, "permit-open=\"10.0.0.1:1\",permit-listen=\"0\"");
    until("new streams are refused", || pair.ask().0 == 2);
    may(&pair, "permit-open=\"*\",permit-listen=\"0\",max-streams=2");
    until("the stream limit is reached", || pair.ask().0 == 1);
    speak(&mut held);
    speak(&mut back);
    may(&pair, "permit-open=\"*\",permit-listen=\"0\",rate=4mbit");
    until("streams can be opened again", || pair.ask().0 == 0);
    pair.echo = TcpListener::bind("127.0.0.1:0").unwrap();
    // A stream may be opened within the former limit too, so the first ones may be as fast as before.
    until("1 MiB at 4 Mbit/s takes 2 s", || {
        let (mut client, mut server) = pair.connect();
        let since = Instant::now();
        both(&mut client, &[Send(1 << 20), Fin], &mut server, &[ReadAll]);
        since.elapsed() > Duration::from_secs(1)
    });
    speak(&mut held);
    speak(&mut back);
    assert!(pair.near.runs() && pair.far.runs());
    assert_eq!(pair.near.count_log(&["link up"]), 1, "the link was never lost");
}

/// Returns a listener on a port of one family that is free in the other family.
fn half_taken(taken: &str) -> (TcpListener, u16) {
    let port = kit::program::free_port();
    (TcpListener::bind((taken, port)).unwrap(), port)
}

#[test]
fn a_remote_port_taken_in_one_family_is_opened_in_the_other() {
    let inner = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = inner.local_addr().unwrap();
    for (bind, taken, free) in
        [("", "::1", "127.0.0.1"), ("", "127.0.0.1", "::1"), ("*:", "0.0.0.0", "::1"), ("*:", "::1", "127.0.0.1")]
    {
        let (_listener, port) = half_taken(taken);
        let pair = Pair::start("permit-listen=\"*\"", &["-R", &format!("{bind}{port}:{to}")]);
        let line = format!("listening remote {}{port} -> {to}", bind.trim_start_matches('*'));
        until("the far end listens", || pair.near.out().contains(&line));
        speak(&mut (Peer::connect(std::net::SocketAddr::new(free.parse().unwrap(), port)), Peer::accept(&inner)));
        pair.near.wait_for_log(&[
            "WARN",
            "the peer listens on some of the addresses only",
            &format!(":{port}: Address already in use"),
        ]);
        pair.far.wait_for_log(&["asked to listen", &format!(":{port}: Address already in use")]);
    }
    let (one, port) = half_taken("::1");
    let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let pair = Pair::start("permit-listen=\"*\"", &["-R", &format!("{port}:{to}")]);
    pair.near.wait_for_log(&["WARN", "the peer does not listen", "address_in_use"]);
    drop((one, other));
}
