//! The log of the binary: one line per record on stderr, as text or as JSON, with the same keys.
//!
//! ```text
//! 2026-02-03T04:05:06.789Z INFO  seaprox::connection closed conn="static[...]" reason=source_fin
//! {"ts":"2026-02-03T04:05:06.789Z","level":"info","target":"seaprox::connection","msg":"closed","reason":"source_fin"}
//! ```
//!
//! In the journal of systemd, which has the time of each line and reads its level from a prefix, the first line is
//! `<6>seaprox::connection closed conn="static[...]" reason=source_fin`.
//!
//! A record is always one line: bytes from the network are escaped, so they cannot end the line or reach the terminal as
//! control characters. Lines that cannot be written are lost; they never stop the proxy. After [`detach`], lines go through
//! a bounded ring to a thread that writes them. Lines for which the ring has no room are dropped and counted (`dropped=N`).

mod filter;
mod ring;

use std::cell::RefCell;
use std::env::VarError;
use std::io::{self, IsTerminal, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::cli::LogFormat;
use crate::log_line as format;
use ring::Ring;

/// Takes a line of the log. Returns false if the line must be written as usual.
pub type TakeLine = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The logger of the process.
struct Logger {
    filter: RwLock<env_logger::Logger>,
    /// The level of this program's targets that no other level names.
    own: LevelFilter,
    style: Style,
}

/// The format of the lines.
#[derive(Clone, Copy)]
struct Style {
    format: LogFormat,
    colour: bool,
    /// True if stderr is a stream of the journal.
    is_journal: bool,
}

impl Style {
    /// Appends a record as a line, with its final newline.
    fn append(self, line: &mut String, record: &Record) {
        let now = SystemTime::now();
        if self.is_journal {
            format::journal_level(line, record.level());
        }
        match self.format {
            LogFormat::Text if self.is_journal => format::untimed(line, record),
            LogFormat::Text => format::text(line, record, now, self.colour),
            LogFormat::Json => format::json(line, record, now),
        }
    }
}

/// Starts the log. A second call changes nothing.
///
/// `verbosity` is the number of `-v` minus the number of `-q`: -1 is warn, 0 info, 1 debug, 2 trace. A terse command logs one
/// level less. The variable `SEAPROX_LOG` may set levels of single targets (`seaprox::link=trace`) and, if `verbosity` is 0,
/// of all targets. Other libraries log warnings and errors only, unless the variable names them.
///
/// # Errors
/// Fails if `SEAPROX_LOG` cannot be parsed.
pub fn init(verbosity: i8, is_terse: bool, format: LogFormat) -> Result<(), String> {
    let wanted = match std::env::var("SEAPROX_LOG") {
        Ok(text) => filter::parse(&text).map_err(|error| format!("SEAPROX_LOG: {error}"))?,
        Err(VarError::NotPresent) => filter::Levels::default(),
        Err(VarError::NotUnicode(text)) => return Err(format!("SEAPROX_LOG {text:?}: expected UTF-8")),
    };
    let own = match wanted.all {
        // A flag takes precedence over the environment.
        Some(level) if verbosity == 0 => level,
        _ => level(verbosity - i8::from(is_terse)),
    };
    let filter = filter_of(&wanted, own);
    let most = filter.filter();
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logger = Logger { filter: RwLock::new(filter), own, style: Style { format, colour, is_journal: is_journal() } };
    if LOGGER.set(logger).is_ok() && log::set_logger(&Registered).is_ok() {
        log::set_max_level(most);
    }
    Ok(())
}

/// Sets other levels while the process runs, in the grammar of `SEAPROX_LOG`. A text that names no level of all targets keeps
/// the one that the process was started with.
///
/// # Errors
/// Fails if the text cannot be parsed; nothing has changed then.
pub fn set_levels(text: &str) -> Result<(), String> {
    let wanted = filter::parse(text)?;
    let Some(logger) = LOGGER.get() else { return Ok(()) };
    let filter = filter_of(&wanted, wanted.all.unwrap_or(logger.own));
    let most = filter.filter();
    *logger.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    log::set_max_level(most);
    Ok(())
}

/// Returns the filter of these levels. Other libraries log warnings and errors only, unless a level names them.
fn filter_of(wanted: &filter::Levels, own: LevelFilter) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(own.min(LevelFilter::Warn)).filter_module("seaprox", own);
    for (target, level) in &wanted.targets {
        builder.filter_module(target, *level);
    }
    builder.build()
}

/// Switches from direct writes to rings with writing threads, so that no other thread waits for the readers of stderr and
/// stdout. Panics are then logged, too.
///
/// # Errors
/// Fails if the system has no thread or descriptor left.
pub fn detach() -> io::Result<()> {
    let plain = Style { format: LogFormat::Text, colour: false, is_journal: false };
    let style = LOGGER.get().map_or(plain, |logger| logger.style);
    let ring =
        Ring::start("log", seaprox::system::stderr_file()?, RING_BYTES, Box::new(move |lines| dropped(lines, style)))?;
    if ERRORS.set(ring).is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Waits until the rings are written, for at most [`FINISH_WAIT`] each, so that a slow reader cannot keep the process from
/// ending.
pub fn finish() {
    for ring in [OUTPUT.get().and_then(Option::as_ref), ERRORS.get()].into_iter().flatten() {
        // Lines that are not written in time are lost, and the loss cannot be reported anywhere.
        let _ = ring.flush(FINISH_WAIT);
    }
}

/// Writes a line to stderr as it is. Errors are ignored: a closed stderr changes neither the work of the process nor its
/// exit code.
pub fn say(text: &str) {
    put_error(&format!("{text}\n"));
}

/// Writes the error that ends the process to stderr as it is, apart from the levels that the journal reads.
pub fn fail(text: &str) {
    if !is_journal() {
        return say(text);
    }
    let mut lines = String::new();
    for line in text.lines() {
        format::journal_level(&mut lines, Level::Error);
        lines.extend([line, "\n"]);
    }
    put_error(&lines);
}

/// Writes a line to stdout, for scripts. Errors are ignored.
pub fn announce(text: &str) {
    let ring = || {
        // A ring is needed only after `detach`. If no thread can be started, the caller writes the line.
        let out = ERRORS.get().and_then(|_| seaprox::system::stdout_file().ok())?;
        Ring::start("output", out, RING_BYTES, Box::new(|_| String::new())).ok()
    };
    match OUTPUT.get_or_init(ring) {
        Some(ring) => ring.push(format!("{text}\n").as_bytes()),
        None => {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }
}

/// Writes a line to the log regardless of its level, because a user has asked for it.
pub fn write_always(target: &str, text: &str) {
    let Some(logger) = LOGGER.get() else { return };
    let mut record = Record::builder();
    record.level(Level::Info).target(target);
    logger.write(&record.args(format_args!("{text}")).build());
}

impl Logger {
    fn filter(&self) -> RwLockReadGuard<'_, env_logger::Logger> {
        self.filter.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: &Record) {
        let into = |line: &mut String| {
            line.clear();
            self.style.append(line, record);
            put_error(line);
            line.shrink_to(LINE_BYTES);
        };
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => into(&mut line),
            // The buffer is in use if a value logs while it is formatted.
            Err(_) => into(&mut String::new()),
        });
    }
}

/// The logger that is registered with the facade.
struct Registered;

impl Log for Registered {
    fn enabled(&self, metadata: &Metadata) -> bool {
        LOGGER.get().is_some_and(|logger| logger.filter().enabled(metadata))
    }

    fn log(&self, record: &Record) {
        if let Some(logger) = LOGGER.get().filter(|logger| logger.filter().matches(record)) {
            logger.write(record);
        }
    }

    fn flush(&self) {}
}

/// Has a terminal take the lines of the log, if it shows text in the middle of which they would stand. `take` returns false for a
/// line that must be written as usual, and never waits. A second call changes nothing.
#[cfg(feature = "console")]
pub fn set_terminal(take: TakeLine) {
    // The terminal of a process stays the same.
    let _ = TERMINAL.set(take);
}

fn put_error(text: &str) {
    if TERMINAL.get().is_some_and(|take| take(text)) {
        return;
    }
    match ERRORS.get() {
        Some(ring) => ring.push(text.as_bytes()),
        // A log that cannot be written is lost.
        None => drop(io::stderr().lock().write_all(text.as_bytes())),
    }
}

/// Returns the line about dropped lines.
fn dropped(lines: u64, style: Style) -> String {
    let mut line = String::new();
    let pairs = [("dropped", log::kv::Value::from(lines))];
    let mut record = Record::builder();
    record.level(Level::Warn).target("seaprox").key_values(&pairs);
    let record = record.args(format_args!("log lines dropped, because the reader of stderr is too slow")).build();
    style.append(&mut line, &record);
    line
}

fn log_panic(info: &PanicHookInfo) {
    let place = info.location().map_or_else(|| "-".to_owned(), ToString::to_string);
    let thread = thread::current().name().unwrap_or("-").to_owned();
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("-");
    log::error!(target: "seaprox::panic", thread = thread, place = place, text = text; "panicked");
}

/// Returns true if stderr is a stream of the journal: systemd gives its device and its inode in `JOURNAL_STREAM`.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Some(named) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let file = seaprox::system::stderr_file().and_then(|file| file.metadata());
    file.is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn is_journal() -> bool {
    false
}

fn level(verbosity: i8) -> LevelFilter {
    match verbosity {
        ..0 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    }
}

static LOGGER: OnceLock<Logger> = OnceLock::new();
/// Shows lines on the terminal of a prompt.
static TERMINAL: OnceLock<TakeLine> = OnceLock::new();
/// The ring of stderr, after `detach`.
static ERRORS: OnceLock<Arc<Ring>> = OnceLock::new();
/// The ring of stdout, after `detach` and the first line.
static OUTPUT: OnceLock<Option<Arc<Ring>>> = OnceLock::new();

thread_local! {
    /// The buffer in which a thread formats its lines.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Bytes of lines that wait to be written. Further lines are dropped and counted.
const RING_BYTES: usize = 1 << 20;
/// Longest wait for each ring at the end of the process.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// Capacity that a thread keeps for its next line.
const LINE_BYTES: usize = 4096;
