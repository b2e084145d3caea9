//! The sender: a program that waits, for a thread of its own.
//!
//! ```text
//!   OFFER, ACCEPT; then, while the bytes of one batch of entries are sent, those of the next one are announced:
//!   ENTRIES 1, ENTRIES 2, [PARTS 1,] files of 1, ENTRIES 3, [PARTS 2,] files of 2, ... FINISH, DONE
//! ```
//! So no file waits for an answer about itself. The sender digests a part at the receiver with the bytes of its own file; that
//! continues with the digest of the whole file, which needs no second reading.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use ring::digest::{Context, SHA256};

use super::event::{Event, Finished, Reporter};
use super::fault::{Fault, FileError};
use super::message::{BATCH_ENTRIES_MAX, DATA_BYTES_MAX, Digest, ENTRIES_BYTES_MAX, Message, entry_bytes};
use super::offer::Entry;
use super::source::Source;
use super::wire::{Reader, Writer};

/// Sends files over one stream.
pub struct Sender {
    answers: Receiver<Result<Option<Answer>, FileError>>,
    /// Answers that have arrived before they were waited for.
    early: VecDeque<Answer>,
    writer: Writer,
    buf: Vec<u8>,
}

/// A message of the receiver.
enum Answer {
    Accept { has_part: bool },
    Parts(Vec<(u64, Digest)>),
    Done,
}

impl Sender {
    /// Makes a sender. A thread reads the answers, so a failure of the receiver is seen while bytes are sent.
    ///
    /// # Errors
    /// Fails if no thread can be started.
    pub fn new(mut reader: Reader, writer: Writer) -> io::Result<Sender> {
        let (sender, answers) = mpsc::sync_channel(ANSWERS_MAX);
        let body = move || {
            loop {
                let answer = read_answer(&mut reader);
                let is_last = !matches!(answer, Ok(Some(_)));
                if sender.send(answer).is_err() || is_last {
                    break;
                }
            }
        };
        thread::Builder::new().name("file answers".into()).spawn(body)?;
        Ok(Sender { answers, early: VecDeque::new(), writer, buf: vec![0; DATA_BYTES_MAX] })
    }

    /// Sends a file or a folder, and waits until the receiver has it under its name.
    ///
    /// # Errors
    /// Fails if the stream is lost, if the receiver fails, or if a file cannot be read. The receiver was told then.
    pub fn send(&mut self, source: &Source, reporter: &mut Reporter<'_>) -> Result<Finished, FileError> {
        reporter.begin(source.offer());
        for path in source.skipped() {
            reporter.report(Event::Skipped(path.clone()));
        }
        self.send_all(source, reporter).map_err(|error| self.fail(error))?;
        reporter.flush();
        Ok(Finished { offer: source.offer().clone(), path: None, kept: reporter.progress().kept })
    }

    /// Ends the stream, after all that was to be sent.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn finish(&mut self) -> io::Result<()> {
        self.writer.finish()
    }

    /// Tells the receiver that there is nothing to send.
    pub fn refuse(&mut self, error: FileError) -> FileError {
        self.fail(error)
    }

    fn send_all(&mut self, source: &Source, reporter: &mut Reporter<'_>) -> Result<(), FileError> {
        self.writer.write(&Message::Offer(source.offer().clone()))?;
        let Answer::Accept { has_part } = self.answer()? else { return Err(unfitting()) };
        let mut batches = Batches(source.entries());
        let mut announced = VecDeque::new();
        self.announce(&mut batches, &mut announced)?;
        while let Some(batch) = announced.pop_front() {
            self.announce(&mut batches, &mut announced)?;
            let parts = if has_part { self.parts(batch)? } else { Vec::new() };
            let mut parts = parts.into_iter();
            for entry in batch {
                if !entry.is_folder {
                    let part = parts.next().unwrap_or_default();
                    self.send_file(source, entry, part, reporter)?;
                }
                reporter.count();
            }
        }
        self.writer.write(&Message::Finish)?;
        match self.answer()? {
            Answer::Done => Ok(()),
            _ => Err(unfitting()),
        }
    }

    fn announce<'a>(
        &mut self,
        batches: &mut Batches<'a>,
        announced: &mut VecDeque<&'a [Entry]>,
    ) -> Result<(), FileError> {
        if let Some(batch) = batches.next() {
            self.writer.write(&Message::Entries(batch.to_vec()))?;
            announced.push_back(batch);
        }
        Ok(())
    }

    /// Waits for what is there of each file of a batch.
    fn parts(&mut self, batch: &[Entry]) -> Result<Vec<(u64, Digest)>, FileError> {
        let count = batch.iter().filter(|entry| !entry.is_folder).count();
        if count == 0 {
            return Ok(Vec::new());
        }
        match self.answer()? {
            Answer::Parts(parts) if parts.len() == count => Ok(parts),
            _ => Err(unfitting()),
        }
    }

    fn send_file(
        &mut self,
        source: &Source,
        entry: &Entry,
        (length, digest): (u64, Digest),
        reporter: &mut Reporter<'_>,
    ) -> Result<(), FileError> {
        let about = |error: io::Error| FileError::from(error).about(&entry.path);
        let mut file = source.file(entry).map_err(about)?;
        let mut context = Context::new(&SHA256);
        let mut offset = 0;
        file.seek(SeekFrom::Start(0)).map_err(about)?;
        if length > 0 && length <= entry.size {
            self.digest(&mut file, &mut context, length).map_err(|error| error.about(&entry.path))?;
            match finish(&context) == digest {
                true => offset = length,
                false => {
                    context = Context::new(&SHA256);
                    file.seek(SeekFrom::Start(0)).map_err(about)?;
                }
            }
        }
        self.writer.write(&Message::Start { offset })?;
        reporter.keep(offset);
        let mut left = entry.size - offset;
        while left > 0 {
            let count = read_some(&mut file, &mut self.buf, left).map_err(|error| error.about(&entry.path))?;
            context.update(&self.buf[..count]);
            self.writer.write_data(&self.buf[..count])?;
            left -= count as u64;
            reporter.add(count as u64);
            self.check()?;
        }
        self.writer.write(&Message::End(finish(&context)))?;
        Ok(())
    }

    fn digest(&mut self, file: &mut File, context: &mut Context, length: u64) -> Result<(), FileError> {
        let mut left = length;
        while left > 0 {
            let count = read_some(file, &mut self.buf, left)?;
            context.update(&self.buf[..count]);
            left -= count as u64;
        }
        Ok(())
    }

    /// Fails if the receiver has failed. The parts of the next batch, which it may have sent, are kept.
    fn check(&mut self) -> Result<(), FileError> {
        match self.answers.try_recv() {
            Ok(Ok(Some(answer))) => {
                self.early.push_back(answer);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(()),
            Ok(Ok(None)) | Err(TryRecvError::Disconnected) => Err(FileError::interrupted()),
        }
    }

    fn answer(&mut self) -> Result<Answer, FileError> {
        if let Some(answer) = self.early.pop_front() {
            return Ok(answer);
        }
        self.writer.flush()?;
        match self.answers.recv() {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(FileError::interrupted()),
        }
    }

    /// Returns the error that counts: that of the receiver if it has sent one. Otherwise the receiver is told.
    fn fail(&mut self, error: FileError) -> FileError {
        if error.fault != Fault::Interrupted {
            let told = self.writer.write(&Message::Failed(error.clone())).and_then(|()| self.writer.finish());
            if told.is_ok() {
                // The receiver ends the stream.
                while let Ok(Ok(Some(_))) = self.answers.recv() {}
            }
            return error;
        }
        loop {
            match self.answers.recv() {
                Ok(Ok(Some(_))) => {}
                Ok(Err(told)) => return told,
                Ok(Ok(None)) | Err(_) => return error,
            }
        }
    }
}

/// Reads until the next message for the sender.
fn read_answer(reader: &mut Reader) -> Result<Option<Answer>, FileError> {
    Ok(Some(match reader.read()? {
        None => return Ok(None),
        Some(Message::Accept { has_part }) => Answer::Accept { has_part },
        Some(Message::Parts(parts)) => Answer::Parts(parts),
        Some(Message::Done) => Answer::Done,
        Some(Message::Failed(error)) => return Err(error),
        Some(_) => return Err(unfitting()),
    }))
}

/// Reads at least one byte.
fn read_some(file: &mut File, buf: &mut [u8], most: u64) -> Result<usize, FileError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(buf.len());
    loop {
        match file.read(&mut buf[..most]) {
            Ok(0) => return Err(FileError::new(Fault::Changed, "the file has become shorter")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Ok(result?),
        }
    }
}

/// The entries of a source, cut into batches.
struct Batches<'a>(&'a [Entry]);

impl<'a> Iterator for Batches<'a> {
    type Item = &'a [Entry];

    fn next(&mut self) -> Option<&'a [Entry]> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry_bytes(entry);
            bytes <= ENTRIES_BYTES_MAX
        };
        let count = self.0.iter().take(BATCH_ENTRIES_MAX).take_while(fits).count();
        let (batch, rest) = self.0.split_at(count);
        self.0 = rest;
        (count > 0).then_some(batch)
    }
}

fn unfitting() -> FileError {
    FileError::protocol("the receiver has sent a message that does not fit")
}

/// Returns the digest of the bytes so far.
pub fn finish(context: &Context) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(context.clone().finish().as_ref());
    digest
}

/// Answers that wait: the parts of two batches, the end, and one to spare.
const ANSWERS_MAX: usize = 4;
