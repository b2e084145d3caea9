//! The source of the documents: a question to the admin socket, asked again and again in a thread of its own.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Asks the process: for the document at a path, or to carry out a command with a body. Fails with a text for the user.
pub type Ask = dyn Fn(&str, Option<&Value>) -> Result<Value, String> + Send + Sync;

/// The answer to a question for the status.
pub type Answer = Result<Value, String>;

/// A command: its path, its body, and the words for its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The path.
    pub path: &'static str,
    /// The body.
    pub body: Value,
    /// The record that it is about.
    pub about: String,
}

/// Starts a thread that asks for the status once a second. It ends with the receiver.
pub fn start(ask: Arc<Ask>) -> mpsc::Receiver<Answer> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        loop {
            let asked = Instant::now();
            if sender.send(ask(STATUS, None)).is_err() {
                return;
            }
            thread::sleep(PERIOD.saturating_sub(asked.elapsed()));
        }
    });
    receiver
}

/// Sends a command in a thread of its own. The result is a text for the user.
pub fn send(ask: Arc<Ask>, order: Order, results: mpsc::Sender<String>) {
    thread::spawn(move || {
        let text = match ask(order.path, Some(&order.body)) {
            Ok(_) => format!("closed {}", order.about),
            Err(error) => format!("{}: {error}", order.about),
        };
        // The view has ended if nobody receives.
        let _ = results.send(text);
    });
}

/// The document that is asked for: the summary, and connections up to a bound.
pub const STATUS: &str = "/status?connections=2000";
const PERIOD: Duration = Duration::from_secs(1);
