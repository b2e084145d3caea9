//! The events of the main thread, and the queue through which signals, loops and terminals send them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use seaprox::auth::PublicKey;
use seaprox::node::{LinkEvent, NetworkChanges};
use seaprox::{Id, Loops};
use serde_json::Value;

use super::signals::{Signal, Signals};
use super::supervisor::Prepared;
use crate::admin::{AdminCommand, Cause, CommandError, Commands};
use crate::{LinkOwner, OnEvent};

/// An event that the main thread acts on.
pub enum ProcessEvent {
    /// A signal was caught.
    Signal(Signal),
    /// All loops have ended.
    LoopsEnded(io::Result<()>),
    /// An event of a link, and the record of the configuration that the link belongs to.
    Link(LinkOwner, Id, LinkEvent),
    /// An address or a route of this host has changed.
    NetworkChanged,
    /// The user has said whether the key of the peer of this link is right.
    KeyAnswered(String, PublicKey, bool),
    /// The user has said whether a peer may have its request.
    RequestAnswered(bool),
    /// A client of the admin server commands the process. The result goes to the sender.
    Command(AdminCommand, SyncSender<Result<Value, CommandError>>),
    /// The thread of a reload has read and prepared everything.
    Prepared(Box<Prepared>),
    /// Another thread asks whether the main thread runs. The answer goes to the sender.
    Pulse(SyncSender<()>),
}

/// Asks the main thread for a sign of life.
#[derive(Clone)]
pub struct Pulse(SyncSender<ProcessEvent>);

impl Pulse {
    /// Asks the thread that receives the events of a queue.
    pub fn of(sender: &SyncSender<ProcessEvent>) -> Pulse {
        Pulse(sender.clone())
    }

    /// Returns true if the main thread answers within `patience`.
    pub fn is_there(&self, patience: Duration) -> bool {
        let (sender, answer) = mpsc::sync_channel(1);
        self.0.try_send(ProcessEvent::Pulse(sender)).is_ok() && answer.recv_timeout(patience).is_ok()
    }
}

/// The queue of events.
pub struct EventQueue {
    sender: SyncSender<ProcessEvent>,
    receiver: Receiver<ProcessEvent>,
}

impl EventQueue {
    /// Creates the queue.
    pub fn new() -> EventQueue {
        let (sender, receiver) = mpsc::sync_channel(EVENTS_MAX);
        EventQueue { sender, receiver }
    }

    /// Returns a sender for other threads.
    pub fn sender(&self) -> SyncSender<ProcessEvent> {
        self.sender.clone()
    }

    /// Starts the threads that send signals and the end of the loops. Returns the receiver of all events.
    pub fn start(self, loops: Loops, signals: Signals) -> Receiver<ProcessEvent> {
        let EventQueue { sender, receiver } = self;
        let (close, ended) = (signals.closer(), sender.clone());
        thread::spawn(move || {
            let _ = ended.send(ProcessEvent::LoopsEnded(loops.join()));
            close();
        });
        thread::spawn(move || {
            // The receiver is gone when the process ends.
            signals.for_each(|signal| drop(sender.send(ProcessEvent::Signal(signal))));
        });
        receiver
    }
}

/// The process as the admin server sees it: the main thread carries out its commands, one at a time.
pub struct QueuedCommands(SyncSender<ProcessEvent>);

impl QueuedCommands {
    /// Sends commands through the queue.
    pub fn new(queue: &EventQueue) -> QueuedCommands {
        QueuedCommands(queue.sender())
    }
}

impl Commands for QueuedCommands {
    fn run(&self, command: AdminCommand) -> Result<Value, CommandError> {
        let busy = |_| CommandError::new(Cause::Unavailable, "the process does not answer");
        let (sender, result) = mpsc::sync_channel(1);
        self.0.try_send(ProcessEvent::Command(command, sender)).map_err(|_| busy(()))?;
        result.recv_timeout(COMMAND_TIME).map_err(|_| busy(()))?
    }

    fn is_there(&self) -> bool {
        Pulse::of(&self.0).is_there(PULSE_TIME)
    }
}

/// Returns a handler that sends the events of links. A full queue drops the event, because loops must not wait.
pub fn link_handler(sender: &SyncSender<ProcessEvent>) -> OnEvent {
    let sender = sender.clone();
    Arc::new(move |owner, id, event| drop(sender.try_send(ProcessEvent::Link(owner.clone(), id, event.clone()))))
}

/// Starts a thread that sends changes of addresses and routes. Without it, for example because the system does not report
/// changes, links are dialed again after their retry delays.
pub fn watch_network(sender: &SyncSender<ProcessEvent>) {
    let Ok(mut changes) = NetworkChanges::open() else { return };
    let sender = sender.clone();
    let body = move || {
        while changes.wait().is_ok() && sender.send(ProcessEvent::NetworkChanged).is_ok() {
            thread::sleep(NETWORK_INTERVAL);
        }
    };
    // A process that gets no further thread runs without it.
    let _ = thread::Builder::new().name("network".into()).spawn(body);
}

/// Events that wait. Only the events of links can be so many.
const EVENTS_MAX: usize = 4096;
/// Longest wait for the result of a command.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// Longest wait of a health check for the main thread. It covers the moment in which a large change is made.
const PULSE_TIME: Duration = Duration::from_secs(5);
/// Minimum time between two reports of network changes.
const NETWORK_INTERVAL: Duration = Duration::from_secs(1);
