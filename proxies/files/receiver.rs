//! The receiver: a program that waits, for a thread of its own.
//!
//! ```text
//!   Waiting --OFFER, accepted--> Receiving --FINISH, all is there--> Waiting --end--> over
//!   in Receiving: ENTRIES joins the queue (and is answered with PARTS if a part is there); START, DATA ..., END fill its first file
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::event::{Event, Finished, Reporter};
use super::fault::{Fault, FileError};
use super::message::{BATCH_ENTRIES_MAX, DATA_BYTES_MAX, Message};
use super::offer::{ENTRIES_MAX, Entry, Offer};
use super::present::{Present, supersede};
use super::quota::Quota;
use super::sender::finish;
use super::staging::Staging;
use super::wire::{Reader, Writer};

/// The place of an offer that is accepted.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder. The offer gets its name in it.
    pub folder: PathBuf,
    /// The bytes that may be placed, if there is a limit.
    pub quota: Option<Arc<Quota>>,
}

/// Receives offers of one stream.
pub struct Receiver {
    reader: Reader,
    writer: Writer,
    key: [u8; 32],
    buf: Vec<u8>,
}

/// An offer while it arrives.
struct Arriving {
    staging: Staging,
    offer: Offer,
    /// The files that were announced and are not complete.
    queue: VecDeque<Waiting>,
    current: Option<Current>,
    entries: u64,
    /// The bytes of the announced files.
    announced: u64,
}

struct Waiting {
    entry: Entry,
    /// The bytes that are there, and their digest.
    part: (u64, Context),
}

/// The file whose bytes arrive.
struct Current {
    file: File,
    at: u64,
    digest: Context,
}

/// Decides about an offer. May wait, for example for the answer of a user.
pub type Decide<'a> = dyn FnMut(&Offer) -> Result<Place, FileError> + 'a;

impl Receiver {
    /// Makes a receiver of offers of the peer with this key.
    pub fn new(reader: Reader, writer: Writer, key: [u8; 32]) -> Receiver {
        Receiver { reader, writer, key, buf: vec![0; DATA_BYTES_MAX] }
    }

    /// Asks for an offer.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn ask(&mut self, name: &str) -> Result<(), FileError> {
        self.writer.write(&Message::Ask(name.to_owned()))?;
        Ok(self.writer.flush()?)
    }

    /// Receives all offers, until the sender ends the stream. Returns their number.
    ///
    /// # Errors
    /// Fails if an offer is refused, if the stream is lost, or if a file cannot be written. The sender was told then.
    pub fn run(&mut self, decide: &mut Decide<'_>, reporter: &mut Reporter<'_>) -> Result<u64, FileError> {
        let mut count = 0;
        loop {
            match self.next(decide, reporter) {
                Ok(true) => count += 1,
                Ok(false) => {
                    // The sender has ended the stream, and needs no more.
                    let _ = self.writer.finish();
                    return Ok(count);
                }
                Err(error) => {
                    self.fail(&error);
                    return Err(error);
                }
            }
        }
    }

    /// Receives an offer. Returns false if there is none.
    fn next(&mut self, decide: &mut Decide<'_>, reporter: &mut Reporter<'_>) -> Result<bool, FileError> {
        let offer = match self.reader.read()? {
            None => return Ok(false),
            Some(Message::Offer(offer)) => offer,
            Some(Message::Failed(error)) => return Err(error),
            Some(_) => return Err(unfitting()),
        };
        check(&offer)?;
        reporter.begin(&offer);
        let place = decide(&offer)?;
        if self.key != NO_KEY {
            supersede(&place.folder, &offer.name, self.key);
        }
        let before = place.quota.as_ref().map_or(Ok(0), |quota| quota.charge(&offer.name, offer.bytes))?;
        let result = self.receive(&place, &offer, reporter);
        if let Some(quota) = &place.quota {
            // A part may hold more than the sender has come to.
            let there = if result.is_ok() { offer.bytes } else { before.max(reporter.progress().bytes) };
            quota.settle(&offer.name, offer.bytes, there, result.is_ok());
        }
        let path = result?;
        reporter.flush();
        reporter.report(Event::Done(Finished { kept: reporter.progress().kept, offer, path: Some(path) }));
        self.writer.write(&Message::Done)?;
        self.writer.flush()?;
        Ok(true)
    }

    fn receive(&mut self, place: &Place, offer: &Offer, reporter: &mut Reporter<'_>) -> Result<PathBuf, FileError> {
        let staging = Staging::open(&place.folder, offer, &self.key)?;
        let present = Present::new(&place.folder, &offer.name, self.key, self.reader.socket()?);
        self.writer.write(&Message::Accept { has_part: staging.has_part() })?;
        self.writer.flush()?;
        let (queue, current) = (VecDeque::new(), None);
        let mut arriving = Arriving { staging, offer: offer.clone(), queue, current, entries: 0, announced: 0 };
        loop {
            let message = self.reader.read()?.ok_or_else(FileError::interrupted)?;
            present.count();
            match message {
                Message::Entries(entries) => {
                    let parts = arriving.announce(entries, &mut self.buf, reporter)?;
                    if arriving.staging.has_part() && !parts.is_empty() {
                        self.writer.write(&Message::Parts(parts))?;
                        self.writer.flush()?;
                    }
                }
                Message::Start { offset } => arriving.start(offset, reporter)?,
                Message::Data(bytes) => arriving.data(bytes, reporter)?,
                Message::End(digest) => arriving.end(digest, reporter)?,
                Message::Finish => {
                    arriving.check_whole()?;
                    return arriving.staging.place();
                }
                Message::Failed(error) => return Err(error),
                _ => return Err(unfitting()),
            }
        }
    }

    /// Tells the sender why the transfer has failed, and lets it read that.
    fn fail(&mut self, error: &FileError) {
        if error.fault != Fault::Interrupted {
            let told = self.writer.write(&Message::Failed(error.clone()));
            if told.is_ok() && self.writer.finish().is_ok() {
                self.reader.discard();
            }
        }
    }
}

impl Arriving {
    /// Takes the next entries. Returns what is there of each file.
    fn announce(
        &mut self,
        entries: Vec<Entry>,
        buf: &mut [u8],
        reporter: &mut Reporter<'_>,
    ) -> Result<Vec<(u64, [u8; 32])>, FileError> {
        if self.queue.len() > BATCH_ENTRIES_MAX {
            return Err(FileError::protocol("too many files are announced at once"));
        }
        let mut parts = Vec::new();
        for entry in entries {
            self.entries += 1;
            let size = if entry.is_folder { 0 } else { entry.size };
            self.announced = self.announced.saturating_add(size);
            if self.entries > self.offer.entries || self.announced > self.offer.bytes {
                return Err(FileError::protocol("more than was offered"));
            }
            self.staging.take(&entry)?;
            if entry.is_folder {
                reporter.count();
                continue;
            }
            let part = match self.staging.has_part() {
                true => self.staging.part(&entry, buf).map_err(|error| error.about(&entry.path))?,
                false => (0, Context::new(&SHA256)),
            };
            parts.push((part.0, finish(&part.1)));
            self.queue.push_back(Waiting { entry, part });
        }
        Ok(parts)
    }

    fn start(&mut self, offset: u64, reporter: &mut Reporter<'_>) -> Result<(), FileError> {
        let (Some(waiting), None) = (self.queue.front(), &self.current) else { return Err(unfitting()) };
        let (length, digest) = &waiting.part;
        if offset != 0 && offset != *length {
            return Err(FileError::protocol("an offset that was not offered"));
        }
        let digest = if offset == 0 { Context::new(&SHA256) } else { digest.clone() };
        let file = self.staging.begin(&waiting.entry, offset)?;
        reporter.keep(offset);
        self.current = Some(Current { file, at: offset, digest });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8], reporter: &mut Reporter<'_>) -> Result<(), FileError> {
        let (Some(waiting), Some(current)) = (self.queue.front(), &mut self.current) else { return Err(unfitting()) };
        let end = current.at.saturating_add(bytes.len() as u64);
        if end > waiting.entry.size {
            return Err(FileError::protocol("more bytes than the file has"));
        }
        current.digest.update(bytes);
        current.file.write_all(bytes).map_err(|error| FileError::from(error).about(&waiting.entry.path))?;
        current.at = end;
        reporter.add(bytes.len() as u64);
        Ok(())
    }

    fn end(&mut self, digest: [u8; 32], reporter: &mut Reporter<'_>) -> Result<(), FileError> {
        let (Some(waiting), Some(current)) = (self.queue.pop_front(), self.current.take()) else {
            return Err(unfitting());
        };
        if current.at != waiting.entry.size || finish(&current.digest) != digest {
            return Err(FileError::new(Fault::Changed, "the SHA-256 differs").about(&waiting.entry.path));
        }
        self.staging.end(&waiting.entry, &current.file)?;
        reporter.count();
        Ok(())
    }

    fn check_whole(&self) -> Result<(), FileError> {
        let is_whole =
            self.queue.is_empty() && self.entries == self.offer.entries && self.announced == self.offer.bytes;
        if is_whole { Ok(()) } else { Err(FileError::protocol("less than was offered")) }
    }
}

/// The key of a receiver that has asked: the name of its link may stand for several peers.
pub const NO_KEY: [u8; 32] = [0; 32];

/// Checks the limits of an offer. Its name is checked when it is placed, and before somebody sees it.
fn check(offer: &Offer) -> Result<(), FileError> {
    super::offer::check_name(&offer.name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
    if offer.entries == 0 || offer.entries > ENTRIES_MAX || (!offer.is_folder && offer.entries != 1) {
        return Err(FileError::new(Fault::TooLarge, format!("expected 1 to {ENTRIES_MAX} files and folders")));
    }
    Ok(())
}

fn unfitting() -> FileError {
    FileError::protocol("the sender has sent a message that does not fit")
}
