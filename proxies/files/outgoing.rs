//! The handler of a stream over which this node sends a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use seaprox::{Cause, Cx, Failure, Handler, Reason, Role, Stage, VerbError};

use super::fault::{Fault, FileError};
use super::message::{Decoder, Message};
use super::offer::{MODE_MASK, Offer, check_name};
use super::sender::{Sender, Want};

/// Sends a file over a stream that this node opens to [`SERVICE`](super::SERVICE).
pub struct Outgoing {
    file: File,
    sender: Sender,
    decoder: Decoder,
    /// Messages that are to be sent next.
    out: Vec<u8>,
    buf: Vec<u8>,
    result: Option<Result<(), SendError>>,
    on_end: OnEnd,
}

/// The error of a file that was not sent.
#[derive(Debug)]
pub enum SendError {
    /// The transfer has failed.
    File(FileError),
    /// The stream was not opened, or was lost.
    Stream(Failure),
}

/// Called once, with the result.
pub type OnEnd = Box<dyn FnMut(&mut Cx<'_>, Result<(), SendError>)>;

impl Outgoing {
    /// Opens a file, and makes its handler.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is no file, or if a receiver would not take its name.
    pub fn open(path: &Path, on_end: OnEnd) -> Result<Outgoing, FileError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_name(name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
        let file = File::open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(FileError::new(Fault::Unusable, "expected a file"));
        }
        let since = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let modified = (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos());
        let offer = Offer { name: name.to_owned(), size: data.len(), mode: mode_of(&data), modified };
        let mut out = Vec::new();
        let sender = Sender::new(offer, &mut out);
        let buf = vec![0; PIECE_BYTES];
        Ok(Outgoing { file, sender, decoder: Decoder::default(), out, buf, result: None, on_end })
    }

    /// Returns the size of the file.
    pub fn size(&self) -> u64 {
        self.sender.size()
    }

    /// Reads and sends until the stream has no room, or the part of one turn is done.
    fn pump(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..PIECES_PER_TURN {
            match send(cx, &mut self.out) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return,
            }
            let Want::Bytes { at, most } = self.sender.want() else { return };
            if let Err(error) = self.supply(at, most) {
                return self.fail(cx, error, true);
            }
        }
        // Another wake-up does as well.
        let _ = cx.wake_after(Duration::ZERO);
    }

    fn supply(&mut self, at: u64, most: u64) -> Result<(), FileError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.buf.len());
        self.file.seek(SeekFrom::Start(at))?;
        let count = loop {
            match self.file.read(&mut self.buf[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.sender.supply(&self.buf[..count], &mut self.out)
    }

    fn take(&mut self, input: &[u8]) -> Result<usize, FileError> {
        let mut used = 0;
        while let Some((message, count)) = self.decoder.next(&input[used..])? {
            self.sender.handle(message, &mut self.out)?;
            used += count;
        }
        Ok(used)
    }

    fn fail(&mut self, cx: &mut Cx<'_>, error: FileError, tells: bool) {
        if tells {
            tell(cx, &error);
        }
        self.result.get_or_insert(Err(SendError::File(error)));
        cx.close_after_flush(Reason::ProtocolError);
    }
}

impl Handler for Outgoing {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                cx.set_stage(Stage::Established);
                self.pump(cx);
            }
            Err(failure) => {
                self.result = Some(Err(SendError::Stream(failure.clone())));
                cx.close(failure.reason);
            }
        }
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        if self.result.is_some() {
            return input.len();
        }
        match self.take(input) {
            Ok(used) => {
                match self.sender.want() {
                    Want::Nothing => {
                        self.result = Some(Ok(()));
                        cx.close_after_flush(Reason::SourceFin);
                    }
                    _ => self.pump(cx),
                }
                used
            }
            Err(error) => {
                let tells = error.fault == Fault::Protocol;
                self.fail(cx, error, tells);
                input.len()
            }
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        if self.result.is_none() {
            self.pump(cx);
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.writable(cx);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(reason) => {
                let lost = || Err(SendError::Stream(Failure::new(reason, "the transfer was interrupted")));
                let result = self.result.take().unwrap_or_else(lost);
                (self.on_end)(cx, result);
            }
            Cause::Fin | Cause::Reset => cx.close(Reason::DestReset),
        }
    }
}

/// Sends messages to the source. Returns true if all of them were taken; otherwise the handler is called again.
///
/// # Errors
/// The connection is over.
pub(super) fn send(cx: &mut Cx<'_>, out: &mut Vec<u8>) -> Result<bool, VerbError> {
    if out.is_empty() {
        return Ok(true);
    }
    match cx.reply(out) {
        Ok(()) => {
            out.clear();
            Ok(true)
        }
        Err(VerbError::Full) => {
            if cx.queued(Role::Source) == 0 {
                // The pool of blocks is empty, and nothing will tell when it is not.
                let _ = cx.wake_after(NO_BLOCK);
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Tells the peer why the transfer has failed. A stream that is full takes no more, and its end tells enough.
pub(super) fn tell(cx: &mut Cx<'_>, error: &FileError) {
    let mut out = Vec::new();
    Message::Failed(error.clone()).encode(&mut out);
    let _ = cx.reply(&out);
}

#[cfg(unix)]
fn mode_of(data: &std::fs::Metadata) -> u16 {
    use std::os::unix::fs::PermissionsExt;
    u16::try_from(data.permissions().mode() & u32::from(MODE_MASK)).unwrap_or(0o600)
}

#[cfg(not(unix))]
fn mode_of(_: &std::fs::Metadata) -> u16 {
    0o644 & MODE_MASK
}

/// Bytes that are read at once. With their header they fit in a block of the loop.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces of one turn.
const PIECES_PER_TURN: usize = 64;
/// Pause before another try to send while the loop has no block.
const NO_BLOCK: Duration = Duration::from_millis(10);
