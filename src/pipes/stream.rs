//! A stream of a link as a pipe.
//!
//! A stream is a side of a loop. The pipe is the other end of its [`Handler`]: two bounded queues, which the handler fills
//! and drains in the loop, and the pipe from any thread, also from that of the loop.
//!
//! ```text
//!   StreamPipe --send--> outgoing --> StreamHandler --> session --> peer
//!   StreamPipe <-receive- incoming <-- StreamHandler <-- session <-- peer
//! ```
//! The pipe asks the loop for a call only if none is under way. Reading of the stream pauses while `incoming` is full, so that
//! the credit of the stream holds its peer back. The timers of the loop hold for the stream: idle and half-closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::engine::connection_view::ConnectionMut;
use crate::engine::control::Loop;
use crate::engine::handler::{Cause, Cx, Handler};
use crate::engine::mailbox::Remote;
use crate::relay::connection::Stage;
use crate::relay::side::Role;
use crate::sys::BorrowedSocket;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};
use super::queue::take_front;

/// A stream of a link, in a loop that may run in another thread.
pub struct StreamPipe {
    shared: Arc<Shared>,
    fin_received: bool,
}

/// The handler of the stream of a [`StreamPipe`], for the loop that the stream is in.
pub struct StreamHandler(Arc<Shared>);

struct Shared {
    remote: Remote,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection whose source is the stream, once the handler was called.
    connection: Option<Id>,
    ready: bool,
    incoming: VecDeque<u8>,
    outgoing: VecDeque<u8>,
    /// The handler has paused reading, because `incoming` was full.
    paused: bool,
    /// The peer's FIN has arrived behind `incoming`.
    fin_arrived: bool,
    finishing: bool,
    fin: Fin,
    aborting: bool,
    /// A call is under way to the loop.
    called: bool,
    /// The connection is over, so that the loop has nothing to do for it any more.
    over: bool,
    broken: Option<PipeError>,
    waker: Option<Waker>,
}

/// The progress of the deferred FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fin {
    #[default]
    Open,
    /// The loop sends it behind the bytes that it has.
    Queued,
    Sent,
}

impl StreamPipe {
    /// Makes a pipe, and the handler that connects it to a stream in the loop of `remote`: for
    /// [`LinkMut::open_stream`](crate::node::LinkMut::open_stream), or for [`OnStream`](crate::node::OnStream) at the accepting end. If the handler is dropped
    /// without a stream, the pipe is broken.
    pub fn new(remote: &Remote) -> (StreamPipe, StreamHandler) {
        let shared = Arc::new(Shared { remote: remote.clone(), state: Mutex::default() });
        (StreamPipe { shared: Arc::clone(&shared), fin_received: false }, StreamHandler(shared))
    }

    /// Opens a stream over a link of the loop of `remote` to a target. The pipe is ready when the peer has connected the
    /// target. If the stream cannot be opened, or is refused, the pipe is broken.
    pub fn open(remote: &Remote, link: Id, target: Target) -> StreamPipe {
        let (pipe, handler) = StreamPipe::new(remote);
        let shared = Arc::clone(&pipe.shared);
        let open = move |core: &mut Loop<'_>| {
            let opened = core.link(link).and_then(|mut link| link.open_stream(target, Box::new(handler)));
            match opened {
                Ok(_) => {}
                Err(VerbError::Full) => shared.refuse(Reason::LimitReached),
                Err(VerbError::Over(reason)) => shared.refuse(reason),
                Err(_) => shared.refuse(Reason::Other),
            }
        };
        if remote.call(open).is_err() {
            pipe.shared.refuse(Reason::LimitReached);
        }
        pipe
    }

    /// Returns the connection in the loop whose source is the stream, once there is one.
    pub fn connection(&self) -> Option<Id> {
        self.shared.lock().connection
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the pipe. The first error counts.
    fn fail(&self, error: PipeError) {
        let mut state = self.lock();
        if state.broken.is_none() {
            state.broken = Some(error);
        }
        wake(state);
    }

    /// Breaks the pipe, because the loop did not open the stream. The handler, which was dropped, did not know why.
    fn refuse(&self, reason: Reason) {
        let mut state = self.lock();
        state.broken = Some(PipeError::Ended(reason));
        wake(state);
    }

    /// Lets the loop move bytes soon, unless a call is under way.
    fn call(self: &Arc<Shared>, mut state: MutexGuard<'_, State>) {
        if state.over || state.connection.is_none() || std::mem::replace(&mut state.called, true) {
            return;
        }
        drop(state);
        let shared = Arc::clone(self);
        self.remote.call_sole(move |core| shared.run(core));
    }

    /// Moves bytes, the FIN or the reset into the stream, and reads on when there is room.
    fn run(&self, core: &mut Loop<'_>) {
        let mut state = self.lock();
        state.called = false;
        let Some(id) = state.connection.filter(|_| !state.over) else { return };
        let Ok(mut connection) = core.connection(id) else { return };
        if state.aborting {
            drop(state);
            return connection.abort(Reason::SourceReset);
        }
        if !state.ready {
            return;
        }
        let moved = state.write(&mut connection);
        if state.finishing && state.outgoing.is_empty() && state.fin == Fin::Open {
            state.fin = Fin::Queued;
            // It fails only if the connection is over, which is told.
            let _ = connection.finish();
        }
        let sent = state.note_fin(&mut connection);
        if state.may_resume() {
            state.paused = false;
            connection.resume_reading(Role::Source);
        }
        if moved || sent {
            wake(state);
        }
    }
}

impl State {
    /// Writes queued bytes to the stream. Returns true if it took any.
    fn write(&mut self, connection: &mut ConnectionMut<'_>) -> bool {
        let before = self.outgoing.len();
        while !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            let piece = &front[..front.len().min(PIECE_BYTES)];
            // Without a block in the pool only a few bytes are taken.
            let few = &piece[..piece.len().min(FEW_BYTES)];
            let count = if connection.reply(piece).is_ok() {
                piece.len()
            } else if connection.queued(Role::Source) == 0 && connection.reply(few).is_ok() {
                few.len()
            } else {
                break;
            };
            self.outgoing.drain(..count);
        }
        if self.outgoing.is_empty() {
            // An idle pipe holds no buffer.
            self.outgoing = VecDeque::new();
        }
        self.outgoing.len() < before
    }

    /// Notes that the FIN was sent, and closes the connection when both directions have ended. Returns true if that is new.
    fn note_fin(&mut self, connection: &mut ConnectionMut<'_>) -> bool {
        let is_new = self.fin == Fin::Queued && connection.queued(Role::Source) == 0;
        if is_new {
            self.fin = Fin::Sent;
        }
        if self.fin == Fin::Sent && self.fin_arrived {
            connection.close(Reason::SourceFin);
        }
        is_new
    }

    /// Returns true if reading of the stream has paused, and there is room again.
    fn may_resume(&self) -> bool {
        self.paused && self.incoming.len() <= INCOMING_BYTES_MAX / 2
    }

    fn room(&self) -> usize {
        OUTGOING_BYTES_MAX.saturating_sub(self.outgoing.len())
    }
}

/// Calls the waker, after the lock is released.
fn wake(state: MutexGuard<'_, State>) {
    let waker = state.waker.clone();
    drop(state);
    waker.into_iter().for_each(|waker| waker.wake_by_ref());
}

impl Handler for StreamHandler {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let mut state = self.0.lock();
        state.connection = Some(cx.id());
        // A stream that the peer has opened is established from the start.
        state.ready = cx.stage() == Stage::Established;
        wake(state);
        self.0.run(cx.core());
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        if let Err(failure) = result {
            return self.0.fail(PipeError::Ended(failure.reason));
        }
        cx.set_stage(Stage::Established);
        let mut state = self.0.lock();
        state.ready = true;
        wake(state);
        self.0.run(cx.core());
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let mut state = self.0.lock();
        let count = input.len().min(INCOMING_BYTES_MAX.saturating_sub(state.incoming.len()));
        state.incoming.extend(&input[..count]);
        if count < input.len() {
            state.paused = true;
            cx.pause_reading(Role::Source);
        }
        if count > 0 {
            wake(state);
        }
        count
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        self.0.run(cx.core());
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        let mut state = self.0.lock();
        match cause {
            Cause::Fin => state.fin_arrived = true,
            Cause::Reset => _ = state.broken.get_or_insert(PipeError::Reset),
            Cause::Over(reason) => state.end(reason),
        }
        let is_over = state.over;
        wake(state);
        if !is_over {
            self.0.run(cx.core());
        }
    }
}

impl State {
    /// Notes the end of the connection.
    fn end(&mut self, reason: Reason) {
        self.over = true;
        let error = match reason {
            Reason::SourceReset | Reason::DestReset => PipeError::Reset,
            reason => PipeError::Ended(reason),
        };
        if !(self.fin_arrived && self.fin == Fin::Sent) {
            self.broken.get_or_insert(error);
        }
    }
}

impl Drop for StreamHandler {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.over {
            // There was no stream, or the loop has ended.
            state.end(Reason::LinkLost);
            wake(state);
        }
    }
}

impl Pipe for StreamPipe {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        if state.finishing {
            return Err(PipeError::Finished);
        }
        let count = bytes.len().min(state.room());
        if !bytes.is_empty() && (count == 0 || !state.ready) {
            return Err(PipeError::WouldBlock);
        }
        state.outgoing.extend(&bytes[..count]);
        self.shared.call(state);
        Ok(count)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        let mut state = self.shared.lock();
        let count = take_front(&mut state.incoming, buf);
        if count > 0 {
            if state.may_resume() {
                self.shared.call(state);
            }
            return Ok(count);
        }
        match &state.broken {
            _ if state.fin_arrived && !state.aborting => {
                self.fin_received = true;
                Ok(0)
            }
            Some(error) => Err(error.clone()),
            None => Err(PipeError::WouldBlock),
        }
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        let mut state = self.shared.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        state.finishing = true;
        self.shared.call(state);
        Ok(())
    }

    fn abort(&mut self) {
        let mut state = self.shared.lock();
        state.broken.get_or_insert(PipeError::Aborted);
        state.aborting = true;
        (state.incoming, state.outgoing) = (VecDeque::new(), VecDeque::new());
        self.shared.call(state);
    }

    fn drive(&mut self, _: Readiness) -> Result<(), PipeError> {
        // The calls of the other methods are never lost, so there is nothing to do again.
        self.shared.lock().broken.clone().map_or(Ok(()), Err)
    }

    fn is_ready(&self) -> bool {
        let state = self.shared.lock();
        state.ready && state.broken.is_none()
    }

    fn is_readable(&self) -> bool {
        let state = self.shared.lock();
        !state.incoming.is_empty() || state.fin_arrived || state.broken.is_some()
    }

    fn is_writable(&self) -> bool {
        let state = self.shared.lock();
        state.broken.is_some() || (state.ready && !state.finishing && state.room() > 0)
    }

    fn fin_sent(&self) -> bool {
        self.shared.lock().fin == Fin::Sent
    }

    fn fin_received(&self) -> bool {
        self.fin_received
    }

    fn broken(&self) -> Option<PipeError> {
        self.shared.lock().broken.clone()
    }

    fn queued(&self) -> usize {
        self.shared.lock().outgoing.len()
    }

    fn wants_write(&self) -> bool {
        let state = self.shared.lock();
        state.broken.is_none() && (!state.ready || state.room() == 0 || (state.finishing && state.fin != Fin::Sent))
    }

    fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
        None
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.shared.lock().waker = Some(waker.clone());
    }
}

impl Drop for StreamPipe {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.waker = None;
        // A FIN that is queued is still sent. The stream then ends like a socket that was closed.
        if state.fin == Fin::Open && !state.over {
            state.aborting = true;
            state.broken.get_or_insert(PipeError::Aborted);
            self.shared.call(state);
        }
    }
}

impl std::fmt::Debug for StreamPipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamPipe").field("connection", &self.connection()).finish_non_exhaustive()
    }
}

/// Bytes that wait for the pipe's user, above which the handler reads no more.
const INCOMING_BYTES_MAX: usize = 64 * 1024;
/// Bytes that wait for the loop.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one call of [`ConnectionMut::reply`]: they fit a block, however small the blocks are.
const PIECE_BYTES: usize = 4096;
/// Bytes that a side takes while the pool has no block.
const FEW_BYTES: usize = 512;
