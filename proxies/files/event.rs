//! The events of a transfer, and its progress.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use seaprox::{Failure, Reason};

use super::fault::{Fault, FileError};
use super::offer::Offer;

/// An event of a transfer.
#[derive(Debug)]
pub enum Event {
    /// A file or a folder was offered.
    Offered(Offer),
    /// More of it is there. Reported at most ten times a second.
    Progress(Progress),
    /// The link was lost. The transfer goes on when there is a link again.
    Retrying(Failure),
    /// A symbolic link, a device or something else of a folder is not sent. The path is that in the folder.
    Skipped(String),
    /// A file or a folder has arrived under its name.
    Done(Finished),
    /// The transfer is over. This is the last event.
    Ended(Result<(), TransferError>),
}

/// The progress of a file or a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes that are there.
    pub bytes: u64,
    /// The bytes that are there from an earlier transfer.
    pub kept: u64,
    /// The bytes of all files.
    pub bytes_total: u64,
    /// The files and folders that are there.
    pub entries: u64,
    /// All files and folders.
    pub entries_total: u64,
}

/// A file or a folder that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The offer.
    pub offer: Offer,
    /// Its path, at the receiver.
    pub path: Option<PathBuf>,
    /// The bytes that an earlier transfer had left.
    pub kept: u64,
}

/// The error of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// The transfer has failed.
    File(FileError),
    /// The stream was not opened, or was lost.
    Stream(Failure),
}

impl TransferError {
    /// Returns true if another try may succeed, because a link was lost.
    pub fn is_interruption(&self) -> bool {
        match self {
            TransferError::File(error) => error.fault == Fault::Interrupted,
            TransferError::Stream(failure) => {
                matches!(failure.reason, Reason::LinkLost | Reason::DestReset | Reason::SourceReset)
            }
        }
    }
}

impl std::fmt::Display for TransferError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TransferError::File(error) => error.fmt(f),
            TransferError::Stream(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for TransferError {}

impl From<FileError> for TransferError {
    fn from(error: FileError) -> TransferError {
        TransferError::File(error)
    }
}

/// Called with the events of a transfer, in the thread of the transfer.
pub type OnEvent = Box<dyn FnMut(Event) + Send>;

/// Reports the events of a transfer.
pub struct Reporter<'a> {
    on_event: &'a mut dyn FnMut(Event),
    shared: &'a Mutex<Progress>,
    progress: Progress,
    reported: Option<Instant>,
}

impl<'a> Reporter<'a> {
    /// Makes the reporter of a transfer, whose progress others may read.
    pub fn new(on_event: &'a mut dyn FnMut(Event), shared: &'a Mutex<Progress>) -> Reporter<'a> {
        Reporter { on_event, shared, progress: Progress::default(), reported: None }
    }

    /// Reports an event.
    pub fn report(&mut self, event: Event) {
        (self.on_event)(event);
    }

    /// Begins with an offer.
    pub fn begin(&mut self, offer: &Offer) {
        self.progress = Progress { bytes_total: offer.bytes, entries_total: offer.entries, ..Progress::default() };
        self.report(Event::Offered(offer.clone()));
        self.reported = None;
    }

    /// Adds bytes that have arrived, or were sent.
    pub fn add(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
        self.step();
    }

    /// Adds bytes that an earlier transfer had left.
    pub fn keep(&mut self, bytes: u64) {
        self.progress.kept += bytes;
        self.add(bytes);
    }

    /// Counts a file or a folder that is there.
    pub fn count(&mut self) {
        self.progress.entries += 1;
    }

    /// Returns the progress.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Reports the progress now.
    pub fn flush(&mut self) {
        self.reported = Some(Instant::now());
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.progress;
        (self.on_event)(Event::Progress(self.progress));
    }

    fn step(&mut self) {
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            self.flush();
        }
    }
}

const REPORT_INTERVAL: Duration = Duration::from_millis(100);
