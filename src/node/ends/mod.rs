//! Named ends of tunnels: a Unix socket, a file or a command, which a peer opens a stream to by its name.
//!
//! The OPEN is of the kind internal, and its host is `end/NAME`. The policy gives the [`End`] of that name for the key of the
//! peer ([`Policy::end`](super::Policy::end)), and nothing else of the OPEN reaches it. A remote forward of this node may have an
//! end as its target, too.
//!
//! The loop connects to a Unix socket itself. A file and a command have a thread each, because a file blocks and a command is
//! waited for; a Unix socket joins the thread to the loop, so that the stream is relayed as to any other dest. The end of the
//! connection closes that socket, which ends the thread. The number of the threads is bounded: see `slots`.

mod command;
mod file;
mod slots;

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::engine::connector::Answer;
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::handler::{Cx, Handler};
use crate::engine::mailbox::Remote;
use crate::link::{Bound, Host, Kind, Open};
use crate::relay::dial::ConnectOptions;
use crate::relay::side::Role;
use crate::streams::END_PREFIX;
use crate::sys;
use crate::types::address::Target;
use crate::types::end::{End, EndName, EndTarget};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::config::PeerKey;
use super::control::Node;
use super::opened_stream::{FirstBytes, answer_stream, first_bytes};

use slots::Slot;
pub use slots::{ENDS_MAX, wait_for_ends};

/// The handler of a stream to an end: it connects to the end.
pub(super) struct EndStream {
    pub end: Arc<End>,
    pub peer: EndPeer,
    /// The first bytes for a Unix socket.
    pub first: Option<Box<FirstBytes>>,
    /// The place of the stream among those of the same key, until a thread has it.
    slot: Option<Slot>,
}

/// The peer that has opened the end.
#[derive(Clone)]
pub(super) struct EndPeer {
    pub key: PeerKey,
    /// The name that this node gives the peer.
    pub name: Arc<str>,
}

/// The work of a thread: the end, the peer, and the connection in its loop.
struct Job {
    end: Arc<End>,
    peer: EndPeer,
    connection: Id,
    remote: Remote,
    /// Given back when the thread ends.
    _slot: Slot,
}

impl EndStream {
    /// Makes the handler of a stream. Takes a place for it.
    ///
    /// # Errors
    /// [`Reason::LimitReached`] if the key, or all keys together, have their share.
    pub fn new(end: Arc<End>, peer: EndPeer, first: Option<Box<FirstBytes>>) -> Result<EndStream, Failure> {
        let slot = Slot::take(&peer.key, &end)?;
        Ok(EndStream { end, peer, first, slot: Some(slot) })
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), Failure> {
        let asked = Rc::new(Target::End(self.end.name.clone()));
        if let EndTarget::Unix(path) = &self.end.target {
            let options = ConnectOptions { is_configured: true, ..ConnectOptions::default() };
            let _ = cx.connect(Rc::new(Target::Unix(path.clone())), options);
            // The log tells what the peer has asked for, beside what it was given.
            let connection = cx.id();
            if let Some(record) = cx.core().connections.get_mut(connection) {
                record.asked = Some(asked);
            }
            return Ok(());
        }
        let Some(slot) = self.slot.take() else { return Ok(()) };
        let connection = cx.id();
        let core: &mut Core = cx.core();
        let job =
            Job { end: Arc::clone(&self.end), peer: self.peer.clone(), connection, remote: core.remote(), _slot: slot };
        // A connection that is over needs no dest.
        let Some(dest) = core.new_dest(connection, Some(&asked)) else { return Ok(()) };
        let answer = core.answer(dest);
        let run = move || job.run(answer);
        let started = thread::Builder::new().name("end".into()).stack_size(STACK_BYTES).spawn(run);
        // Without a thread the answer was dropped, which reports a failure.
        started.map(drop).map_err(|error| Failure::from(&error))
    }
}

impl Job {
    fn run(self, answer: Answer) {
        // The thread and the command that it starts have the processors of the process, not that of the loop.
        sys::run_on_cpus_of_process();
        match &self.end.target {
            EndTarget::Command(arguments) => command::run(&self, arguments, answer),
            EndTarget::Read(path) => file::send(&self, path, answer),
            EndTarget::Append { path, creates, size_max } => file::append(&self, (path, *creates, *size_max), answer),
            // The loop connects to it.
            EndTarget::Unix(_) => {}
        }
    }

    /// Answers that the end cannot be opened. The peer hears the error of the system, and the log has the rest.
    fn refuse(&self, answer: Answer, error: &std::io::Error) {
        let (end, peer) = (self.end.name.as_str(), &*self.peer.name);
        log::warn!(target: TARGET, end, peer, kind = self.end.target.kind(), error = error.to_string(); "the end cannot be opened");
        answer.failed(Failure::new(Reason::Other, error.to_string()));
    }

    /// Ends the connection, because the end has failed.
    fn fail(&self, failure: Failure) {
        let (end, peer) = (self.end.name.as_str(), &*self.peer.name);
        let detail = failure.detail.as_deref().unwrap_or("-");
        log::warn!(target: TARGET, end, peer, reason = failure.reason.as_str(), error = detail; "the end has failed");
        let connection = self.connection;
        self.remote.call_sole(move |core| fail_stream(core, connection, &failure));
    }
}

impl Handler for EndStream {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if let Err(failure) = self.start(cx) {
            answer_stream(cx, Err(Bound::of_failure(&failure)));
            cx.close(failure.reason);
        }
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        let sent = result.map_err(Failure::clone).and_then(|()| first_bytes(cx, self.first.take()));
        match sent {
            Ok(()) => {
                answer_stream(cx, Ok(Bound::default()));
                cx.relay();
            }
            Err(failure) => {
                answer_stream(cx, Err(Bound::of_failure(&failure)));
                cx.close(failure.reason);
            }
        }
    }
}

/// Ends a connection, and tells the peer that has opened its stream the reason.
fn fail_stream(core: &mut Loop<'_>, connection: Id, failure: &Failure) {
    let inner: &mut Core = core;
    let source = inner.side(connection, Role::Source).and_then(|side| inner.sides.get(side));
    if let Some(stream) = source.and_then(|side| side.io.stream()) {
        inner.pools.sessions.reset_for(stream, failure.reason);
    }
    if let Ok(mut connection) = core.connection(connection) {
        failure.detail.iter().for_each(|detail| connection.set_detail(detail));
        connection.abort(failure.reason);
    }
}

impl Node {
    /// Returns the end that a peer names in an OPEN.
    ///
    /// # Errors
    /// [`Reason::NotPermitted`] if the key of the peer has no such end.
    pub(super) fn end_of(&self, link: Id, name: &EndName) -> Result<Arc<End>, Failure> {
        let record = self.links.get(link).ok_or(Reason::LinkLost)?;
        let key = record.key.ok_or(Reason::NotPermitted)?;
        let end = record.policy.end(&key, name).filter(|end| end.name == *name);
        end.ok_or_else(|| Failure::new(Reason::NotPermitted, "the peer's key has no such end"))
    }
}

/// Returns the name of the end that an OPEN asks for; none if it asks for something else.
///
/// # Errors
/// [`Reason::NotPermitted`] if the text is no name of an end.
pub(super) fn end_name(open: &Open) -> Option<Result<EndName, Failure>> {
    let (Kind::Internal, Host::Name(host)) = (open.kind, &open.host) else { return None };
    let name = EndName::new(host.strip_prefix(END_PREFIX)?);
    Some(name.map_err(|_| Failure::new(Reason::NotPermitted, "that is no name of an end")))
}

/// The log target of lines about ends.
const TARGET: &str = "seaprox::end";
/// Bytes of the stack of a thread, which has buffers of its own on the heap.
const STACK_BYTES: usize = 256 << 10;
/// Bytes that a thread copies in one read.
const COPY_BYTES: usize = 64 << 10;
/// The time that a command has to end after `SIGTERM`, before it is killed.
const GRACE: Duration = Duration::from_secs(2);
