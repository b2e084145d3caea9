//! The handlers of streams: each joins the stream to the socket of a thread, and tells the thread how the stream has ended.

use std::sync::mpsc;

use seaprox::{Cause, Cx, Duplex, Failure, Handler, Reason, Stage};

/// Joins a stream to a socket.
pub struct Join {
    /// The socket, until it is joined.
    socket: Option<Duplex>,
    is_joining: bool,
    /// The peer has opened the stream.
    is_accepted: bool,
    failure: Option<Failure>,
    told: mpsc::Sender<Told>,
}

/// A message to a thread about its stream.
#[derive(Debug)]
pub enum Told {
    /// The peer has accepted the stream.
    Opened,
    /// The stream has ended.
    Ended(Failure),
}

impl Join {
    /// Makes the handler of a stream that this node opens.
    pub fn opening(socket: Duplex) -> (Join, mpsc::Receiver<Told>) {
        // Two messages at most are sent.
        let (told, receiver) = mpsc::channel();
        (Join { socket: Some(socket), is_joining: false, is_accepted: false, failure: None, told }, receiver)
    }

    /// Makes the handler of a stream that a peer has opened.
    pub fn accepted(socket: Duplex) -> Join {
        Join { is_accepted: true, ..Join::opening(socket).0 }
    }

    fn join(&mut self, cx: &mut Cx<'_>) {
        let Some(socket) = self.socket.take() else { return };
        self.is_joining = true;
        if let Err(error) = cx.connect_with(socket) {
            self.fail(cx, Failure::new(Reason::Internal, error.to_string()));
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_>, failure: Failure) {
        let reason = failure.reason;
        self.failure = Some(failure);
        cx.close(reason);
    }

    fn tell(&self, told: Told) {
        // A thread that has ended needs no message.
        let _ = self.told.send(told);
    }
}

impl Handler for Join {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if self.is_accepted {
            self.join(cx);
        }
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) if self.is_joining => {
                cx.set_stage(Stage::Established);
                cx.relay();
            }
            Ok(()) => {
                self.tell(Told::Opened);
                self.join(cx);
            }
            Err(failure) => self.fail(cx, failure.clone()),
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(reason) => {
                let failure = self.failure.take().unwrap_or_else(|| match cx.detail() {
                    Some(detail) => Failure::new(reason, detail.to_owned()),
                    None => Failure::from(reason),
                });
                self.tell(Told::Ended(failure));
            }
            Cause::Fin => cx.close(Reason::SourceFin),
            Cause::Reset => cx.close(Reason::DestReset),
        }
    }
}
