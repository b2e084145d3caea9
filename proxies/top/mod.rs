//! `seaprox top`: a live view of a running process, from the documents of its admin socket.
//!
//! ```text
//!   source   asks the process once a second, in a thread of its own, so that a slow answer freezes nothing
//!   history  rates, from two documents and the time between them; the last minute of each link and subflow
//!   tables   the rows of each page, sorted and filtered: the same words and numbers as `seaprox status`
//!   keys     what a key does: pages, selection, sorting, filter, closing after a question
//!   screen   draws a page
//!   loss     ends the process when its terminal is gone
//! ```
//! Words from peers are escaped before they are kept.

mod history;
mod keys;
mod loss;
mod screen;
mod source;
mod tables;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;

use history::History;
use keys::{Keys, Step};
pub use source::{Answer, Ask};

/// Shows the live view on the terminal until the user leaves. If the terminal is gone, the process ends.
///
/// # Errors
/// Fails if the terminal cannot be used, or if the process does not answer the first question.
pub fn run(ask: Arc<Ask>, is_ended: &Arc<AtomicBool>) -> io::Result<()> {
    let mut history = History::default();
    history.take(first(ask.as_ref())?);
    let answers = source::start(Arc::clone(&ask));
    loss::watch(Arc::clone(is_ended));
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, &mut history, &ask, &answers, is_ended);
    ratatui::restore();
    result
}

/// Returns the live view as text for a script: the documents of two moments, `interval` apart.
///
/// # Errors
/// Fails if the process does not answer.
pub fn once(ask: &Ask, interval: Duration) -> io::Result<String> {
    let mut history = History::default();
    history.take(first(ask)?);
    std::thread::sleep(interval);
    history.take(first(ask)?);
    Ok(tables::text_of(&history))
}

fn first(ask: &Ask) -> io::Result<Value> {
    ask(source::STATUS, None).map_err(io::Error::other)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    history: &mut History,
    ask: &Arc<Ask>,
    answers: &mpsc::Receiver<Answer>,
    is_ended: &AtomicBool,
) -> io::Result<()> {
    let mut keys = Keys::default();
    let (results, closed) = mpsc::channel();
    while !is_ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| screen::draw(frame, history, &mut keys))?;
        let until = Instant::now() + REDRAW;
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            let Event::Key(key) = event::read()? else { break };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match keys.press(key, history) {
                Step::Leave => return Ok(()),
                Step::Stay => {}
                Step::Close(order) => source::send(Arc::clone(ask), order, results.clone()),
            }
            break;
        }
        if let Some(answer) = answers.try_iter().last() {
            match answer {
                Ok(status) => history.take(status),
                Err(text) => history.note_silence(text),
            }
        }
        closed.try_iter().for_each(|text| keys.note(text));
    }
    Ok(())
}

/// Longest time between two looks at the keyboard, the answers and the signals.
const REDRAW: Duration = Duration::from_millis(100);
