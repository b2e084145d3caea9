//! `seaprox status`: what a running process is doing; and the other end of it, inside that process.
//!
//! Each process listens on a Unix socket of its own, in a directory that only its user may enter. Whoever connects is
//! told the status as one JSON document, and the connection is closed. A thread of its own does that, so that a slow
//! reader holds no loop.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::node::LinkStatus;
use seaprox::units::{format_duration, format_size};
use seaprox::{ConnectionStatus, Remote, SideStatus, Snapshot, SocketFile, State, Workers};
use serde_json::{Value, json};

mod links;

use crate::cli::{Parsed, StatusSocket};
use crate::process::logging;
use crate::{Exit, Failed};

/// The facts that this process reports, and the loops that it asks for more.
pub struct Teller {
    /// The command, as it is named on the command line.
    pub command: &'static str,
    /// Where it listens, as it is announced.
    pub listening: Vec<String>,
    pub remotes: Vec<Remote>,
    pub workers: Arc<Workers>,
    pub born: Instant,
    /// The status is being written to the log.
    pub is_logging: AtomicBool,
}

/// Starts to answer status queries. Dropping the returned value removes the socket. If no socket can be made, the process
/// runs without one and logs a warning.
pub fn serve(at: &StatusSocket, teller: Arc<Teller>) -> Option<SocketFile> {
    let path = match at {
        StatusSocket::Off => return None,
        StatusSocket::At(path) => Ok(path.clone()),
        StatusSocket::PerProcess => directory().map(|directory| directory.join(format!("{}.sock", std::process::id()))),
    };
    let place = path.as_ref().map_or("-".into(), |path| path.display().to_string());
    let (listener, file) = match path.and_then(|path| listen(&path)) {
        Ok(bound) => bound,
        Err(error) => {
            log::warn!(target: "seaprox::status", place = place, error = error.to_string(); "no status socket");
            return None;
        }
    };
    let answer_all = move || {
        for client in listener.incoming().flatten() {
            // A client that leaves early need not know.
            let _ = teller.answer(client);
        }
    };
    thread::Builder::new().name("status".into()).spawn(answer_all).ok()?;
    Some(file)
}

/// Binds the socket for its user alone.
fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let (listener, file) = SocketFile::bind(path, BACKLOG, Some(0o600))?;
    listener.set_nonblocking(false)?;
    Ok((listener, file))
}

impl Teller {
    fn answer(&self, mut client: UnixStream) -> io::Result<()> {
        client.set_write_timeout(Some(CLIENT_WAIT))?;
        let Some(status) = self.status() else {
            return client.write_all(b"{\"error\":\"the loops do not answer\"}\n");
        };
        let mut document = serde_json::to_string(&status)?;
        // The connections go in as the last member.
        document.truncate(document.len() - 1);
        let mut out = BufWriter::with_capacity(WRITE_BYTES, client);
        write!(out, "{document}{CONNECTIONS}")?;
        write_connections(&mut out, &self.remotes)?;
        out.write_all(b"]}\n")?;
        out.flush()
    }

    /// Everything but the connections.
    fn status(&self) -> Option<Value> {
        let (totals, links) = totals(&self.remotes)?;
        let mut status = to_json(&totals, self.remotes.len(), &self.workers.done(), self.born.elapsed());
        status["command"] = self.command.into();
        status["listening"] = self.listening.clone().into();
        status["links"] = links.iter().map(links::to_json).collect();
        Some(status)
    }

    /// Writes the status to the log as people read it, a line of the log for each of its lines, with the first
    /// connections. A thread does that; asked again meanwhile, it is written once.
    pub fn log(self: &Arc<Self>) {
        if self.is_logging.swap(true, Ordering::Relaxed) {
            return;
        }
        let teller = Arc::clone(self);
        let body = move || {
            let say = |line: &str| logging::answer("seaprox::status", line);
            match teller.status() {
                Some(mut status) => {
                    let some =
                        |remote: &Remote| ask_loop(remote, |core| core.some_connections(None, CONNECTIONS_LOGGED));
                    let all = teller.remotes.iter().filter_map(some).flatten();
                    status["connections"] = all.take(CONNECTIONS_LOGGED).map(|it| connection_json(&it)).collect();
                    for_people(&status).lines().for_each(say);
                    let count = status.pointer("/usage/connections").and_then(Value::as_u64).unwrap_or(0);
                    let more = count.saturating_sub(CONNECTIONS_LOGGED as u64);
                    if more > 0 {
                        say(&format!("and {more} connections more, which seaprox status lists"));
                    }
                }
                None => say("the loops do not answer"),
            }
            teller.is_logging.store(false, Ordering::Relaxed);
        };
        if thread::Builder::new().name("report".into()).spawn(body).is_err() {
            self.is_logging.store(false, Ordering::Relaxed);
        }
    }
}

/// Writes all connections of all loops, some at a time: a process that has many holds the text of few, and keeps no
/// memory that it needs for nothing else.
fn write_connections(out: &mut impl Write, remotes: &[Remote]) -> io::Result<()> {
    let mut is_first = true;
    for remote in remotes {
        let mut after = None;
        loop {
            let some = ask_loop(remote, move |core| core.some_connections(after, CONNECTIONS_AT_ONCE))
                .ok_or(io::ErrorKind::TimedOut)?;
            for connection in &some {
                out.write_all(if is_first { b"" } else { b"," })?;
                serde_json::to_writer(&mut *out, &connection_json(connection))?;
                is_first = false;
            }
            after = some.last().map(|connection| connection.id);
            if some.len() < CONNECTIONS_AT_ONCE {
                break;
            }
        }
    }
    Ok(())
}

/// What all loops are doing, added up, and their links.
fn totals(remotes: &[Remote]) -> Option<(Snapshot, Vec<LinkStatus>)> {
    let (mut sum, mut all_links) = (None::<Snapshot>, Vec::new());
    for remote in remotes {
        let (totals, links) = ask_loop(remote, |core| (core.totals(), core.links()))?;
        all_links.extend(links);
        match &mut sum {
            Some(sum) => sum.add(totals),
            None => sum = Some(totals),
        }
    }
    Some((sum?, all_links))
}

/// Asks a loop something and waits for the answer; not for long.
fn ask_loop<T: Send + 'static>(
    remote: &Remote,
    question: impl FnOnce(&mut seaprox::Core) -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::channel();
    let ask = move |core: &mut seaprox::Core| {
        // Whoever asked may have given up.
        let _ = tell.send(question(core));
    };
    remote.call(ask).ok()?;
    told.recv_timeout(LOOP_WAIT).ok()
}

fn to_json(totals: &Snapshot, loops: usize, workers: &[u64], uptime: Duration) -> Value {
    let (stats, usage, limits) = (&totals.stats, &totals.usage, &totals.limits);
    let closed: serde_json::Map<_, _> =
        totals.closed().map(|(reason, count)| (reason.as_str().to_owned(), json!(count))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": uptime.as_secs_f64(),
        "threads": loops,
        "workers_done": workers,
        "opened": stats.opened,
        "closed": closed,
        "bytes_sent": stats.bytes_sent,
        "bytes_received": stats.bytes_received,
        "lookups": stats.lookups,
        "stale": stats.stale,
        "block_waits": stats.block_waits,
        "limit_pauses": stats.limit_pauses,
        "descriptor_pauses": stats.descriptor_pauses,
        "panics": stats.panics,
        "usage": {
            "connections": usage.connections, "sides": usage.sides, "buffer_bytes": usage.buffer_bytes,
            "pipes": usage.pipes, "descriptors": usage.descriptors,
        },
        "limits": {
            "connections": limits.connections, "connections_per_source": limits.connections_per_source,
            "buffer_bytes": limits.buffer_bytes, "pipes": limits.pipes,
            "block_bytes": limits.block_bytes, "pipe_bytes": limits.pipe_bytes,
            "handshake_bytes": limits.handshake_bytes, "backlog": limits.backlog, "lookups": limits.lookups,
            "cached_names": limits.cached_names, "addresses_per_name": limits.addresses_per_name,
            "workers": workers.len(), "threads": loops,
        },
    })
}

fn connection_json(connection: &ConnectionStatus) -> Value {
    json!({
        "id": connection.id.to_string(),
        "conn": connection.description,
        "listener": connection.listener,
        "stage": connection.stage.as_str(),
        "user": connection.user,
        "age_seconds": connection.age.as_secs_f64(),
        "source": side_json(&connection.source),
        // Nobody knows yet where it is to go.
        "dest": connection.dest.as_ref().map_or_else(|| json!({ "side": null, "state": State::Idle.as_str() }), side_json),
    })
}

fn side_json(side: &SideStatus) -> Value {
    json!({
        "side": side.endpoint, "state": side.state.as_str(), "bytes_in": side.bytes_in, "bytes_out": side.bytes_out,
        "congested": side.congested, "queued": side.queued, "flags": side.flags,
    })
}

/// Asks a process and prints what it says.
///
/// # Errors
/// There is no such process, or more than one to choose from.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let path = match (parsed.status()?, parsed.pid()?) {
        (StatusSocket::At(path), _) => path,
        (_, Some(pid)) => directory().map_err(unavailable)?.join(format!("{pid}.sock")),
        _ => only_process()?,
    };
    let document = ask(&path).map_err(|error| {
        Failed::new(Exit::Unavailable, format!("seaprox status: no process answers at {}: {error}", path.display()))
    })?;
    if parsed.flag("json")? {
        return crate::process::print(&document);
    }
    let status: Value = serde_json::from_str(&document)
        .map_err(|error| Failed::new(Exit::Failure, format!("seaprox status: not understood: {error}")))?;
    crate::process::print(&for_people(&status))
}

fn ask(path: &Path) -> io::Result<String> {
    let mut process = UnixStream::connect(path)?;
    process.set_read_timeout(Some(CLIENT_WAIT))?;
    let mut document = String::new();
    process.read_to_string(&mut document)?;
    Ok(document)
}

fn only_process() -> Result<PathBuf, Failed> {
    let directory = directory().map_err(unavailable)?;
    let files = fs::read_dir(&directory).map_err(unavailable)?;
    let sockets =
        files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|it| it == "sock"));
    let mut alive: Vec<PathBuf> = sockets.filter(|path| is_alive(path)).collect();
    match alive.len() {
        1 => Ok(alive.remove(0)),
        0 => Err(Failed::new(Exit::Unavailable, "seaprox status: no process of yours is running")),
        _ => {
            alive.sort_by_key(|path| pid_of(path));
            let lines: Vec<_> = alive.iter().map(|path| format!("\n  {}", listed(path))).collect();
            let text =
                format!("seaprox status: several processes are running, name one by its number:{}", lines.concat());
            Err(Failed::new(Exit::Usage, text))
        }
    }
}

fn pid_of(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// A process among several: its number, its command and where it listens or which links it has.
fn listed(path: &Path) -> String {
    let pid = path.file_stem().unwrap_or_default().to_string_lossy();
    let Some(status) = ask_head(path).ok().and_then(|head| serde_json::from_str::<Value>(&head).ok()) else {
        return format!("{pid} does not answer");
    };
    let words = |key: &str, member: &str| {
        let all = status[key].as_array().into_iter().flatten();
        let some = all.filter_map(|it| if member.is_empty() { it.as_str() } else { it[member].as_str() });
        some.take(PLACES_LISTED).map(str::to_owned).collect::<Vec<_>>()
    };
    let (places, peers) = (words("listening", ""), words("links", "peer"));
    let peers = peers.iter().map(|peer| format!("link {peer}"));
    let what = places.iter().cloned().chain(peers).collect::<Vec<_>>().join(", ");
    // The place names the command, too, unless it is one of several kinds.
    let command = status["command"].as_str().unwrap_or("?");
    if what.starts_with(command) {
        format!("{pid} {what}")
    } else {
        format!("{pid} {command} {what}").trim_end().to_owned()
    }
}

/// Returns the status of a process without its connections, which may be many.
fn ask_head(path: &Path) -> io::Result<String> {
    let mut process = UnixStream::connect(path)?;
    process.set_read_timeout(Some(CLIENT_WAIT))?;
    let (mut head, mut buf, mut searched) = (Vec::new(), [0; 4096], 0_usize);
    loop {
        let from = searched.saturating_sub(CONNECTIONS.len());
        let found = head[from..].windows(CONNECTIONS.len()).position(|bytes| bytes == CONNECTIONS.as_bytes());
        searched = head.len();
        if let Some(end) = found {
            head.truncate(from + end);
            head.push(b'}');
            return String::from_utf8(head).map_err(io::Error::other);
        }
        match process.read(&mut buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if head.len() > HEAD_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            count => head.extend_from_slice(&buf[..count]),
        }
    }
}

/// Whether a process answers. The socket of one that was killed is cleared away.
fn is_alive(path: &Path) -> bool {
    let is_alive = UnixStream::connect(path).is_ok();
    if !is_alive {
        // Another process may clear it away at the same moment.
        let _ = SocketFile::remove_stale(path);
    }
    is_alive
}

fn unavailable(error: io::Error) -> Failed {
    Failed::new(Exit::Unavailable, format!("seaprox status: {error}"))
}

/// Where the sockets are: a directory that belongs to this user and that nobody else may enter.
fn directory() -> io::Result<PathBuf> {
    let user = fs::metadata("/proc/self").map(|process| process.uid()).ok();
    let directory = match (std::env::var_os("XDG_RUNTIME_DIR"), user) {
        (Some(runtime), _) if !runtime.is_empty() => PathBuf::from(runtime).join("seaprox"),
        (_, Some(0)) => PathBuf::from("/run/seaprox"),
        (_, Some(user)) => std::env::temp_dir().join(format!("seaprox-{user}")),
        (_, None) => return Err(io::Error::new(io::ErrorKind::NotFound, "XDG_RUNTIME_DIR is not set")),
    };
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory)?;
    let found = fs::symlink_metadata(&directory)?;
    if user.is_some_and(|user| user != found.uid()) || !found.is_dir() || found.mode() & 0o077 != 0 {
        let text = format!("{} is not a directory of this user alone", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(directory)
}

fn for_people(status: &Value) -> String {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let uptime = status["uptime_seconds"].as_f64().unwrap_or(0.0);
    let mut text = format!(
        "seaprox {} pid {} up {}\nconnections {} of {}, opened {}, buffers {} of {}, pipes {} of {}, descriptors {}\n",
        status["version"].as_str().unwrap_or("?"),
        number("/pid"),
        format_duration(Duration::from_secs(uptime as u64)),
        number("/usage/connections"),
        number("/limits/connections"),
        number("/opened"),
        format_size(number("/usage/buffer_bytes")),
        format_size(number("/limits/buffer_bytes")),
        number("/usage/pipes"),
        number("/limits/pipes"),
        number("/usage/descriptors"),
    );
    for (reason, count) in status["closed"].as_object().into_iter().flatten() {
        text.push_str(&format!("closed {reason} {count}\n"));
    }
    status["links"].as_array().into_iter().flatten().for_each(|link| links::for_people(&mut text, link));
    for connection in status["connections"].as_array().into_iter().flatten() {
        let word = |key: &str| connection[key].as_str().unwrap_or("-").to_owned();
        text.push_str(&format!("{} {} {}\n", word("id"), word("conn"), word("stage")));
        for role in ["source", "dest"] {
            text.push_str(&leg(role, &connection[role]));
        }
    }
    text
}

fn leg(role: &str, side: &Value) -> String {
    let Some(endpoint) = side["side"].as_str() else {
        return format!("  {role:6} - {}\n", side["state"].as_str().unwrap_or("-"));
    };
    let number = |key: &str| side[key].as_u64().unwrap_or(0);
    let flags: Vec<_> = side["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "  {role:6} {endpoint} {} in {} out {} congested {} queued {} {}\n",
        side["state"].as_str().unwrap_or("-"),
        number("bytes_in"),
        number("bytes_out"),
        number("congested"),
        number("queued"),
        flags.join(","),
    )
}

/// Questions that wait to be answered.
const BACKLOG: u32 = 128;
/// Places and links that are named of each of several processes.
const PLACES_LISTED: usize = 4;
/// Bytes that are read of a process among several.
const HEAD_BYTES_MAX: usize = 4 << 20;
/// For a client that does not read.
const CLIENT_WAIT: Duration = Duration::from_secs(5);
/// Connections that a loop tells of in one call.
const CONNECTIONS_AT_ONCE: usize = 256;
/// Connections that are written to the log when a signal asks for the status.
const CONNECTIONS_LOGGED: usize = 100;
/// Where the connections begin in the document. No string in front of it holds this, because quotes are escaped there.
const CONNECTIONS: &str = ",\"connections\":[";
/// Bytes that are written with one call.
const WRITE_BYTES: usize = 64 * 1024;
/// For a loop that is busy.
const LOOP_WAIT: Duration = Duration::from_secs(2);
