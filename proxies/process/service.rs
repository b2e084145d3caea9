//! The service manager: tells systemd, or a manager that speaks sd_notify(3), the state of this process.
//!
//! ```text
//!   start --ready--> READY=1 --reloading--> RELOADING=1 --ready--> READY=1 --stopping--> STOPPING=1
//!                      \--watch: WATCHDOG=1 twice in each interval, while every loop answers
//! ```
//! Without `NOTIFY_SOCKET` every function does nothing. A message that the manager's socket has no room for within
//! [`NOTIFY_WAIT`] is lost.

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use seaprox::config::{Config, Running};
use seaprox::{Bind, Remote};

/// Tells the manager that the process serves, after its start or after a reload, with a line for `systemctl status`.
pub fn ready(status: &str) {
    send(&format!("READY=1\nSTATUS={}\n", line(status)));
}

/// Returns the line for `systemctl status` about a process that serves.
pub fn serving(running: &Running) -> String {
    let (addresses, links) = (running.listening().len(), running.config().links.len());
    let plural = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let addresses = plural(addresses, "address", "addresses");
    match links {
        0 => format!("Listening on {addresses}"),
        links => format!("Listening on {addresses}, {} dialed", plural(links, "link", "links")),
    }
}

/// Tells the manager that the process reads its configuration again. [`ready`] must follow, also if the reload fails.
pub fn reloading() {
    send(&format!("RELOADING=1\n{}STATUS=Reloading\n", time_of_reload()));
}

/// Sets the line that `systemctl status` shows.
pub fn status(text: &str) {
    send(&format!("STATUS={}\n", line(text)));
}

/// Tells the manager that the process stops, and that it may take `drain` for its connections.
pub fn stopping(drain: Duration) {
    let text = match drain {
        Duration::ZERO => "Stopping".to_owned(),
        drain => format!("Draining for at most {}", seaprox::units::format_duration(drain)),
    };
    let extended = drain.saturating_add(STOP_RESERVE).as_micros();
    send(&format!("STOPPING=1\nSTATUS={text}\nEXTEND_TIMEOUT_USEC={extended}\n"));
}

/// Logs a warning for each socket that the manager has passed and that no listener and no server has.
pub fn warn_of_unused_sockets(config: &Config) {
    let listeners = config.listeners.iter().flat_map(|listener| &listener.addresses);
    let places: Vec<&Bind> = listeners.chain(config.servers.iter().flat_map(|server| &server.addresses)).collect();
    let mut sockets = seaprox::system::passed_sockets();
    sockets.sort();
    sockets.dedup();
    for (name, proto) in sockets {
        let is_it =
            |place: &&Bind| matches!(place, Bind::Descriptor(of, used) if used.as_str() == name && *of == proto);
        if !places.iter().any(is_it) {
            let name = format!("{}{name}", proto.prefix());
            log::warn!(target: "seaprox::process", name = name; "the service manager has passed a socket that no listener has");
        }
    }
}

/// Starts the watchdog, if the manager wants one: a thread that tells the manager, twice in each interval of the watchdog,
/// that every loop has answered. A manager that hears nothing for the interval ends the process, and starts it again. The main
/// thread is not asked: it may wait for a file or a name while the loops serve all clients.
pub fn watch(remotes: &[Remote]) {
    let Some(interval) = watchdog_interval() else { return };
    let remotes = remotes.to_vec();
    let body = move || {
        let pause = (interval / 2).max(WATCHDOG_PAUSE_MIN);
        while let Some(answer) = answered(&remotes, pause) {
            if answer.is_alive {
                send("WATCHDOG=1\n");
            } else {
                log::error!(target: "seaprox::process", timeout = seaprox::units::format_duration(pause); "a loop does not answer; the watchdog of the service manager is not told");
            }
            std::thread::sleep(pause.saturating_sub(answer.time));
        }
    };
    // The manager would end a process without this thread, so the error is in the log before.
    if let Err(error) = std::thread::Builder::new().name("watchdog".into()).spawn(body) {
        log::error!(target: "seaprox::process", error = error.to_string(); "the thread of the watchdog cannot be started");
    }
}

/// The result of one question to all loops.
struct Answer {
    is_alive: bool,
    time: Duration,
}

/// Asks all loops for an answer within `patience`. Returns none if all of them have ended.
fn answered(remotes: &[Remote], patience: Duration) -> Option<Answer> {
    let since = Instant::now();
    let asked: Vec<_> = remotes.iter().map(|remote| remote.ask(|_| ())).collect();
    let (mut is_alive, mut has_ended) = (true, true);
    for pending in asked {
        // A full mailbox belongs to a loop that runs no calls.
        let result = pending.map(|pending| pending.wait_for(patience.saturating_sub(since.elapsed())));
        match result {
            Ok(Ok(Some(()))) => has_ended = false,
            Ok(Ok(None)) | Err(_) => (is_alive, has_ended) = (false, false),
            // The loop has ended, as it does while a process stops.
            Ok(Err(_)) => {}
        }
    }
    (!has_ended).then(|| Answer { is_alive, time: since.elapsed() })
}

/// Returns the interval in which the manager wants a sign of life, if it wants one of this process.
fn watchdog_interval() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero() && SOCKET.get_or_init(open).is_some());
    #[cfg(not(target_os = "linux"))]
    None
}

/// Returns a text as one line, because each line of a message is an assignment of its own.
fn line(text: &str) -> String {
    text.trim_end().chars().map(|char| if char.is_control() { ' ' } else { char }).take(STATUS_CHARS_MAX).collect()
}

/// Returns the assignment with the time of a reload, or nothing. A manager without it takes the time of the message.
fn time_of_reload() -> String {
    #[cfg(target_os = "linux")]
    return sd_notify::NotifyState::monotonic_usec_now().map_or_else(|_| String::new(), |now| format!("{now}\n"));
    #[cfg(not(target_os = "linux"))]
    String::new()
}

/// Sends a message to the manager: assignments, each on a line.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "sd_notify is of Linux"))]
fn send(message: &str) {
    #[cfg(target_os = "linux")]
    if let Some(socket) = SOCKET.get_or_init(open)
        && let Err(error) = socket.send(message.as_bytes())
    {
        log::debug!(target: "seaprox::process", error = error.to_string(); "the service manager cannot be told");
    }
}

/// Opens the socket of the manager, a path or an abstract name behind `@`.
#[cfg(target_os = "linux")]
fn open() -> Option<std::os::unix::net::UnixDatagram> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let connected = || {
        let addr = match name.as_bytes() {
            [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
            _ => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&addr)?;
        socket.set_write_timeout(Some(NOTIFY_WAIT))?;
        Ok::<_, std::io::Error>(socket)
    };
    connected()
        .inspect_err(|error| log::warn!(target: "seaprox::process", socket = name.display().to_string(), error = error.to_string(); "NOTIFY_SOCKET cannot be used"))
        .ok()
}

#[cfg(target_os = "linux")]
static SOCKET: OnceLock<Option<std::os::unix::net::UnixDatagram>> = OnceLock::new();

/// Longest wait for room in the socket of the manager.
#[cfg(target_os = "linux")]
const NOTIFY_WAIT: Duration = Duration::from_secs(1);
/// Time that the end of the process may take after the drain.
const STOP_RESERVE: Duration = Duration::from_secs(10);
/// Characters of a status that the manager is told.
const STATUS_CHARS_MAX: usize = 256;
/// Shortest pause between two signs of life, so that an interval of microseconds keeps no processor busy.
const WATCHDOG_PAUSE_MIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    use seaprox::{Loops, Workers};

    #[test]
    fn a_loop_that_is_blocked_gives_no_sign_of_life_until_it_runs_again() {
        let config = Config::default();
        let workers = Workers::start(1, 1).unwrap();
        let parts = std::sync::Arc::new(crate::Parts::new(&config));
        let (running, loops): (_, Loops) = Running::start(config, parts, &workers).unwrap();
        let is_alive = |patience| answered(running.remotes(), patience).map(|answer| answer.is_alive);
        assert_eq!(is_alive(Duration::from_secs(60)), Some(true));
        let (release, blocked) = mpsc::channel::<()>();
        running.remotes()[0].call(move |_| _ = blocked.recv()).unwrap();
        assert_eq!(is_alive(Duration::from_millis(50)), Some(false));
        drop(release);
        assert_eq!(is_alive(Duration::from_secs(60)), Some(true));
        running.stop();
        loops.join().unwrap();
        assert_eq!(is_alive(Duration::from_secs(60)), None, "a watchdog ends with its loops");
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        assert_eq!(line("a\nREADY=1\r\n"), "a READY=1");
        assert_eq!(line(&"é".repeat(1_000)).chars().count(), STATUS_CHARS_MAX);
    }
}
