//! The events of the main thread, and the queue through which signals, loops and terminals send them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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
    /// A client of the admin server commands the process.
    Command(AdminCommand, CommandReply),
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
            let result = loops.join();
            // Commands of peers end with their connections, and the process must not leave any.
            seaprox::node::wait_for_ends(COMMANDS_END);
            let _ = ended.send(ProcessEvent::LoopsEnded(result));
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
pub struct QueuedCommands {
    queue: SyncSender<ProcessEvent>,
    /// Longest wait for the result of a command.
    patience: Duration,
}

/// The client of a command, which waits for the result for a while.
pub struct CommandReply {
    result: SyncSender<Result<Value, CommandError>>,
    state: Arc<AtomicU8>,
}

impl CommandReply {
    /// Notes that the command is carried out from now on. Returns false if its client waits no longer: the client was told
    /// that the command is not carried out, and may have sent another one.
    pub fn begin(&self) -> bool {
        leave_waiting(&self.state, BEGUN)
    }

    /// Sends the result. A client that waits no longer needs none.
    pub fn send(&self, result: Result<Value, CommandError>) {
        let _ = self.result.try_send(result);
    }
}

/// Sets the state of a command that waits. Returns false if it is waiting no longer.
fn leave_waiting(state: &AtomicU8, next: u8) -> bool {
    state.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl QueuedCommands {
    /// Sends commands through the queue.
    pub fn new(queue: &EventQueue) -> QueuedCommands {
        QueuedCommands { queue: queue.sender(), patience: COMMAND_TIME }
    }
}

impl Commands for QueuedCommands {
    fn run(&self, command: AdminCommand) -> Result<Value, CommandError> {
        let unavailable = |text| CommandError::new(Cause::Unavailable, text);
        let (sender, result) = mpsc::sync_channel(1);
        let state = Arc::new(AtomicU8::new(WAITING));
        let reply = CommandReply { result: sender, state: Arc::clone(&state) };
        self.queue.try_send(ProcessEvent::Command(command, reply)).map_err(|_| unavailable(NOT_CARRIED_OUT))?;
        match result.recv_timeout(self.patience) {
            Ok(result) => result,
            Err(_) if leave_waiting(&state, GIVEN_UP) => Err(unavailable(NOT_CARRIED_OUT)),
            // The result may have come at this moment.
            Err(_) => result.try_recv().unwrap_or(Err(unavailable(GOES_ON))),
        }
    }

    fn is_there(&self) -> bool {
        Pulse::of(&self.queue).is_there(PULSE_TIME)
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
        let mut report = || -> io::Result<bool> {
            changes.wait()?;
            let is_taken = sender.send(ProcessEvent::NetworkChanged).is_ok();
            changes.rest(NETWORK_INTERVAL).map(|()| is_taken)
        };
        while report().unwrap_or(false) {}
    };
    // A process that gets no further thread runs without it.
    let _ = thread::Builder::new().name("network".into()).spawn(body);
}

/// The time that commands of peers have when all loops have ended: they are killed 2 s after their connections have ended.
const COMMANDS_END: Duration = Duration::from_secs(4);
/// Events that wait. Only the events of links can be so many.
const EVENTS_MAX: usize = 4096;
/// The states of a command.
const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;
const NOT_CARRIED_OUT: &str = "the process does not answer; the command is not carried out";
const GOES_ON: &str = "the command is not done yet, and goes on";
/// Longest wait for the result of a command.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// Longest wait of a health check for the main thread. It covers the moment in which a large change is made.
const PULSE_TIME: Duration = Duration::from_secs(5);
/// Minimum time between two reports of network changes, unless an interface is cut.
const NETWORK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a command whose client waits for a moment. Returns its error, and the reply that the process has.
    fn run(begins: bool) -> (String, CommandReply) {
        let queue = EventQueue::new();
        let commands = QueuedCommands { queue: queue.sender(), patience: Duration::from_millis(300) };
        thread::scope(|scope| {
            let client = scope.spawn(|| commands.run(AdminCommand::Drain));
            let Ok(ProcessEvent::Command(AdminCommand::Drain, reply)) = queue.receiver.recv() else {
                panic!("no command")
            };
            if begins {
                assert!(reply.begin());
            }
            (client.join().unwrap().unwrap_err().text, reply)
        })
    }

    #[test]
    fn a_command_whose_client_has_given_up_is_not_carried_out() {
        let (text, reply) = run(false);
        assert_eq!(text, NOT_CARRIED_OUT);
        assert!(!reply.begin());
    }

    #[test]
    fn a_main_thread_that_takes_no_events_gives_no_sign_of_life() {
        let queue = EventQueue::new();
        let pulse = Pulse::of(&queue.sender);
        assert!(!pulse.is_there(Duration::from_millis(20)));
        let main = thread::spawn(move || {
            // The first question is that from before.
            for event in queue.receiver.iter().take(2) {
                let ProcessEvent::Pulse(answer) = event else { panic!("another event") };
                let _ = answer.try_send(());
            }
        });
        assert!(pulse.is_there(Duration::from_secs(60)));
        main.join().unwrap();
        assert!(!pulse.is_there(Duration::from_secs(60)), "the main thread has ended");
    }

    #[test]
    fn a_client_is_told_that_its_command_goes_on() {
        let (text, reply) = run(true);
        assert_eq!(text, GOES_ON);
        reply.send(Ok(Value::Null));
    }
}
