//! The requests of a console to end: Ctrl-C, Ctrl-Break, a closed window, the end of the session.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT, SetConsoleCtrlHandler};
use windows_sys::core::BOOL;

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleStop {
    /// Ctrl-C or Ctrl-Break.
    Key,
    /// The window is closed, the user logs off or the system shuts down: the process has a few seconds.
    Close,
}

/// The requests of a console to end. Open it once in a process.
#[derive(Debug)]
pub struct ConsoleEvents(Receiver<ConsoleStop>);

impl ConsoleEvents {
    /// Catches the requests from now on.
    ///
    /// # Errors
    /// The system refuses, or they are caught already.
    pub fn open() -> io::Result<ConsoleEvents> {
        let (tell, told) = sync_channel(EVENTS_MAX);
        TELL.set(tell).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
        // SAFETY: the function is there for as long as the process runs.
        match unsafe { SetConsoleCtrlHandler(Some(handle), 1) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(ConsoleEvents(told)),
        }
    }

    /// Waits for the next request. Returns none if there will be no more.
    pub fn wait(&self) -> Option<ConsoleStop> {
        self.0.recv().ok()
    }
}

/// The system calls this in a thread of its own.
unsafe extern "system" fn handle(kind: u32) -> BOOL {
    let is_key = kind == CTRL_C_EVENT || kind == CTRL_BREAK_EVENT;
    let stop = if is_key { ConsoleStop::Key } else { ConsoleStop::Close };
    // Requests beyond those that wait say nothing new.
    let _ = TELL.get().map(|tell| tell.try_send(stop));
    if !is_key {
        // The system ends the process when this returns.
        thread::sleep(CLOSE_WAIT);
    }
    1
}

static TELL: OnceLock<SyncSender<ConsoleStop>> = OnceLock::new();
const EVENTS_MAX: usize = 16;
/// Longer than the system waits for a closed window.
const CLOSE_WAIT: Duration = Duration::from_secs(30);
