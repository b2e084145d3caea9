//! Reloads that wait for a file or a name: the process does everything else meanwhile.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::kit::names::isolated;
use crate::kit::{LATE, Ran, Scratch, Seaprox, has_namespaces, run, until};

/// A process with a file of users, and an admin address. It waits for `users` at its next reload.
struct Waiting {
    seaprox: Seaprox,
    scratch: Scratch,
}

fn owned(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

impl Waiting {
    fn start() -> Waiting {
        let scratch = Scratch::new();
        owned(&scratch, "users", "joe:one\n");
        let text =
            "admin = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nfront = \"socks\"\nusers = \"users\"\n";
        let path = owned(&scratch, "seaprox.toml", text);
        let seaprox = Seaprox::start(&["run", &path]);
        until("the process has started", || seaprox.status()["listening"].is_array());
        // A pipe without a writer is in the place of the file.
        let pipe = std::ffi::CString::new(scratch.file("pipe")).unwrap();
        // SAFETY: the path ends with a zero byte and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        std::fs::rename(scratch.file("pipe"), scratch.file("users")).unwrap();
        Waiting { seaprox, scratch }
    }

    fn ctl(&self, args: &[&str]) -> Ran {
        let place = format!("unix:{}", self.seaprox.admin_socket());
        run(&[&["ctl", "--status", &place], args].concat())
    }

    /// Opens the pipe for writing, once the reload reads it.
    fn writer(&self) -> std::fs::File {
        let mut writer = None;
        until("the pipe is read", || {
            use std::os::unix::fs::OpenOptionsExt;
            // The open fails as long as there is no reader.
            let opened =
                std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(self.scratch.file("users"));
            writer = opened.ok();
            writer.is_some()
        });
        writer.unwrap()
    }
}

#[test]
fn commands_and_health_checks_are_answered_while_a_reload_waits_for_a_pipe() {
    let waiting = Waiting::start();
    waiting.seaprox.signal(libc::SIGHUP);
    let mut writer = waiting.writer();
    let ran = waiting.ctl(&["log-level", "debug"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // A pipe that is silent for long is an error.
    writer.write_all(b"# users\n").unwrap();
    let health =
        crate::admin::over_tcp(waiting.seaprox.admin_addr(), "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!((health.status, health.body.trim()), (200, "ok"));
    assert_eq!(waiting.seaprox.count_log(&["files reloaded"]), 0, "the reload waits still");
    // A second reload waits for the first one, and both are told what came of them.
    std::thread::scope(|scope| {
        let second = scope.spawn(|| waiting.ctl(&["reload"]));
        waiting.seaprox.wait_for_log(&["command=Reload"]);
        writer.write_all(b"jane:two\n").unwrap();
        drop(writer);
        waiting.seaprox.wait_for_log(&["files reloaded"]);
        let ran = second.join().unwrap();
        assert_eq!(ran.code, Some(0), "{ran:?}");
    });
}

#[test]
fn a_process_stops_at_once_while_a_reload_waits_for_a_pipe() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut waiting = Waiting::start();
        waiting.seaprox.signal(libc::SIGHUP);
        let _writer = waiting.writer();
        let since = Instant::now();
        waiting.seaprox.signal(signal);
        assert_eq!(waiting.seaprox.wait(LATE).code(), Some(0));
        assert!(since.elapsed() < LATE);
    }
}

#[test]
fn a_pipe_without_a_writer_fails_a_reload_with_its_name_and_the_users_stay() {
    let waiting = Waiting::start();
    waiting.seaprox.signal(libc::SIGHUP);
    let since = Instant::now();
    let words = ["the users file cannot be read again", "users", "no data within 15s"];
    while waiting.seaprox.count_log(&words) == 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", waiting.seaprox.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    owned(&waiting.scratch, "new", "jane:two\n");
    std::fs::rename(waiting.scratch.file("new"), waiting.scratch.file("users")).unwrap();
    waiting.seaprox.signal(libc::SIGHUP);
    waiting.seaprox.wait_for_log(&["files reloaded"]);
}

#[test]
fn a_process_stops_at_once_while_a_reload_waits_for_a_name() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 localhost\n", |server| {
        server.swallow(".slow.test");
        let scratch = Scratch::new();
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\nfront = \"socks\"\n";
        let path = owned(&scratch, "seaprox.toml", text);
        let mut seaprox = Seaprox::start(&["run", &path]);
        let name = "n.slow.test";
        owned(&scratch, "seaprox.toml", &format!("{text}[[listener]]\nlisten = \"{name}:0\"\nfront = \"http\"\n"));
        seaprox.signal(libc::SIGHUP);
        until("the name is looked up", || server.asked(name) > 0);
        seaprox.signal(libc::SIGTERM);
        assert_eq!(seaprox.wait(LATE).code(), Some(0));
    });
}

#[test]
fn a_forward_that_a_command_has_opened_survives_a_reload_that_is_refused() {
    let (scratch, holder) = (Scratch::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let taken = holder.local_addr().unwrap();
    let whole = "config-dir = \"etc\"\n[[link]]\nname = \"office\"\nconnect = \"127.0.0.1:1\"\n";
    let path = owned(&scratch, "seaprox.toml", whole);
    let seaprox = Seaprox::spawn(&["run", &path], |_| {});
    seaprox.wait_for_admin();
    let ctl = |args: &[&str]| {
        let place = format!("unix:{}", seaprox.admin_socket());
        run(&[&["ctl", "--status", &place], args].concat())
    };
    assert_eq!(ctl(&["open", "-L", "127.0.0.1:0:a:1", "--name", "web", "office"]).code, Some(0));
    // The link is gone from this file, and an address of it is in use.
    let refused = format!("config-dir = \"etc\"\n[[listener]]\nlisten = \"{taken}\"\nfront = \"socks\"\n");
    owned(&scratch, "seaprox.toml", &refused);
    assert_eq!(ctl(&["reload"]).code, Some(78));
    owned(&scratch, "seaprox.toml", &format!("drain-timeout = \"5s\"\n{whole}"));
    let ran = ctl(&["reload"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(seaprox.status()["forwards"][0]["name"], "web");
}

#[test]
#[ignore = "waits for the deadline of a reload"]
fn a_reload_that_is_not_ready_in_time_fails_and_changes_nothing() {
    let waiting = Waiting::start();
    let path = waiting.scratch.file("seaprox.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    owned(
        &waiting.scratch,
        "seaprox.toml",
        &(text + "[[listener]]\nname = \"new\"\nlisten = \"127.0.0.1:0\"\nfront = \"http\"\nusers = \"users\"\n"),
    );
    let since = Instant::now();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| waiting.ctl(&["reload"]));
        let mut writer = waiting.writer();
        while !reload.is_finished() && since.elapsed() < Duration::from_secs(50) {
            // The file never ends, and is never silent.
            let _ = writer.write_all(b"#\n");
            std::thread::sleep(Duration::from_millis(100));
        }
        let ran = reload.join().unwrap();
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains("no answer within 30s"), "{}", ran.err);
        let another = waiting.ctl(&["log-level", "info"]);
        assert_eq!(another.code, Some(0), "{another:?}");
    });
    assert_eq!(waiting.seaprox.status()["listeners"].as_array().unwrap().len(), 1);
    // The thread has ended with the pipe, and the next reload is not in its way.
    owned(&waiting.scratch, "new", "jane:two\n");
    std::fs::rename(waiting.scratch.file("new"), waiting.scratch.file("users")).unwrap();
    let ran = waiting.ctl(&["reload"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(waiting.seaprox.status()["listeners"].as_array().unwrap().len(), 2);
}
