//! The handler of a stream over which this node receives a file.

use std::path::PathBuf;
use std::time::Duration;

use seaprox::{Cause, Cx, Failure, Handler, Reason, Stage};

use super::fault::{Fault, FileError};
use super::folder::{Folder, Partial};
use super::message::Decoder;
use super::offer::Offer;
use super::outgoing::{send, tell};
use super::receiver::{Receiver, Step};

/// Receives a file over a stream that a peer has opened to [`SERVICE`](super::SERVICE).
pub struct Incoming {
    folder: Folder,
    key: [u8; 32],
    receiver: Receiver,
    decoder: Decoder,
    /// The file, once it was offered.
    partial: Option<Partial>,
    /// The part that is there is being digested, before the offer is accepted.
    is_checking: bool,
    /// The bytes that an earlier transfer had left.
    kept: u64,
    out: Vec<u8>,
    result: Option<Result<PathBuf, FileError>>,
    permits: Permits,
    on_end: OnEnd,
}

/// The outcome of one stream.
#[derive(Debug)]
pub struct Received {
    /// The offer, if there was one.
    pub offer: Option<Offer>,
    /// The bytes that are there.
    pub bytes: u64,
    /// Those of them that an earlier transfer had left.
    pub kept: u64,
    /// The path of the file, or the reason why it has not arrived.
    pub result: Result<PathBuf, FileError>,
}

/// Decides about an offer.
pub type Permits = Box<dyn FnMut(&Offer) -> Result<(), FileError>>;
/// Called once, with the outcome.
pub type OnEnd = Box<dyn FnMut(&mut Cx<'_>, Received)>;

impl Incoming {
    /// Makes the handler for a stream of the peer with this key.
    pub fn new(folder: Folder, key: [u8; 32], permits: Permits, on_end: OnEnd) -> Incoming {
        let (receiver, decoder) = (Receiver::default(), Decoder::default());
        let (partial, is_checking, kept, out, result) = (None, false, 0, Vec::new(), None);
        Incoming { folder, key, receiver, decoder, partial, is_checking, kept, out, result, permits, on_end }
    }

    fn take(&mut self, input: &[u8]) -> Result<usize, FileError> {
        let mut used = 0;
        while !self.is_checking {
            let Some((message, count)) = self.decoder.next(&input[used..])? else { break };
            let step = self.receiver.handle(message)?;
            used += count;
            match (step, &mut self.partial) {
                (Step::Decide(offer), _) => {
                    (self.permits)(&offer)?;
                    self.partial = Some(self.folder.begin(&offer, &self.key)?);
                    self.is_checking = true;
                }
                (Step::Begin { offset }, Some(partial)) => {
                    self.kept = offset;
                    partial.begin(offset)?;
                }
                (Step::Write(bytes), Some(partial)) => partial.write(bytes)?,
                (Step::Place, Some(partial)) => {
                    self.result = Some(Ok(partial.place()?));
                    self.receiver.done(&mut self.out);
                }
                (_, None) => return Err(FileError::new(Fault::Protocol, "no offer")),
            }
        }
        Ok(used)
    }

    /// Digests a part of what is there, and accepts the offer when that is done.
    fn check(&mut self) -> Result<(), FileError> {
        let Some(partial) = &mut self.partial else { return Ok(()) };
        let mut buf = vec![0; CHECKED_BYTES_PER_TURN];
        if partial.check(&mut buf)? {
            let (offset, digest) = partial.known();
            self.receiver.accept(offset, digest, &mut self.out);
            self.is_checking = false;
        }
        Ok(())
    }

    fn go_on(&mut self, cx: &mut Cx<'_>) {
        if self.is_checking
            && let Err(error) = self.check()
        {
            return self.fail(cx, error);
        }
        if self.is_checking {
            // Another wake-up does as well.
            let _ = cx.wake_after(Duration::ZERO);
        }
        // The end of a connection is reported by its own callback.
        let _ = send(cx, &mut self.out);
    }

    fn fail(&mut self, cx: &mut Cx<'_>, error: FileError) {
        tell(cx, &error);
        self.result.get_or_insert(Err(error));
        cx.close_after_flush(Reason::ProtocolError);
    }
}

impl Handler for Incoming {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.set_stage(Stage::Established);
    }

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        if self.result.is_some() {
            return input.len();
        }
        match self.take(input) {
            Ok(used) => {
                self.go_on(cx);
                used
            }
            Err(error) => {
                self.fail(cx, error);
                input.len()
            }
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        self.go_on(cx);
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.go_on(cx);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(_) => {
                let lost =
                    || Err(FileError::new(Fault::Other, "the transfer was interrupted; what has arrived is kept"));
                let offer = self.partial.as_ref().map(|partial| partial.offer().clone());
                // A partial file that is closed can be received by another stream, which the callback may wait for.
                self.partial = None;
                let result = self.result.take().unwrap_or_else(lost);
                (self.on_end)(cx, Received { offer, bytes: self.receiver.position(), kept: self.kept, result });
            }
            Cause::Fin => cx.close(Reason::SourceFin),
            Cause::Reset => cx.close(Reason::DestReset),
        }
    }
}

/// Bytes of a partial file that are digested in one turn.
const CHECKED_BYTES_PER_TURN: usize = 1 << 20;
