//! The output of the console. While the user types a line, text stands above the line, which is drawn again below it.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The output of the console, for all of its threads.
#[derive(Clone, Default)]
pub struct Printer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// True while a line is edited. Held during each write that goes past the editor.
    is_editing: Mutex<bool>,
    /// The same, for threads that must not wait.
    has_line: AtomicBool,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// True if an editor shows text above its line.
    has_editor: AtomicBool,
    /// Takes the texts in the place of the standard output.
    sink: Option<Sink>,
}

/// Text that the editor is to show.
#[derive(Default)]
struct Queue {
    text: String,
    /// Texts for which there was no room.
    num_dropped: u64,
}

/// Takes a text.
pub type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Shows a text above the line that is edited.
pub type Show = Box<dyn FnMut(String) + Send>;

impl Printer {
    /// Creates a printer that gives its texts to a function.
    pub fn to(sink: Sink) -> Printer {
        Printer(Arc::new(Shared { sink: Some(sink), ..Shared::default() }))
    }

    /// Prints a text, which ends with a newline.
    pub fn out(&self, text: &str) {
        self.print(text, true);
    }

    /// Prints a text about an error, which ends with a newline.
    pub fn err(&self, text: &str) {
        self.print(text, false);
    }

    /// Takes a line of the log if a line is edited. Returns false if it must be written as usual. Never waits for a terminal.
    pub fn take_log(&self, line: &str) -> bool {
        if !self.0.has_line.load(Ordering::Acquire) || !std::io::stderr().is_terminal() {
            return false;
        }
        self.0.push(line);
        true
    }

    /// Has an editor show the texts that come while a line is edited. A thread calls `show`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn set_editor(&self, show: Show) -> std::io::Result<()> {
        let (shared, mut show) = (Arc::clone(&self.0), show);
        thread::Builder::new().name("printer".into()).spawn(move || {
            loop {
                show(shared.next());
            }
        })?;
        self.0.has_editor.store(true, Ordering::Release);
        Ok(())
    }

    /// Tells that the editor draws a line from now on.
    pub fn begin_line(&self) {
        if self.0.has_editor.load(Ordering::Acquire) {
            *lock(&self.0.is_editing) = true;
            self.0.has_line.store(true, Ordering::Release);
        }
    }

    /// Tells that the editor has left its line.
    pub fn end_line(&self) {
        *lock(&self.0.is_editing) = false;
        self.0.has_line.store(false, Ordering::Release);
    }

    fn print(&self, text: &str, is_output: bool) {
        if let Some(sink) = &self.0.sink {
            return sink(text);
        }
        let is_editing = lock(&self.0.is_editing);
        if *is_editing && (is_output || std::io::stderr().is_terminal()) {
            return self.0.push(text);
        }
        // A reader that has closed its end is no error of a script.
        let _ = match is_output {
            true => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            false => std::io::stderr().lock().write_all(text.as_bytes()),
        };
    }
}

impl Shared {
    fn push(&self, text: &str) {
        let mut queue = lock(&self.queue);
        if queue.text.len() + text.len() > QUEUE_BYTES {
            queue.num_dropped += 1;
        } else {
            queue.text.push_str(text);
        }
        self.changed.notify_all();
    }

    /// Waits for text.
    fn next(&self) -> String {
        let mut queue = lock(&self.queue);
        while queue.text.is_empty() {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let Queue { mut text, num_dropped } = std::mem::take(&mut *queue);
        if num_dropped > 0 {
            text.push_str(&format!("{num_dropped} lines were dropped, because the terminal is too slow\n"));
        }
        text
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that wait for the editor at most.
const QUEUE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn text_goes_to_the_editor_while_a_line_is_edited() {
        let (printer, (shown, texts)) = (Printer::default(), mpsc::channel());
        printer.set_editor(Box::new(move |text| shown.send(text).unwrap())).unwrap();
        printer.begin_line();
        printer.out("one\n");
        assert_eq!(texts.recv().unwrap(), "one\n");
        printer.end_line();
        assert!(!printer.take_log("two\n"), "the log is written as usual");
        assert!(texts.try_recv().is_err());
    }

    #[test]
    fn text_without_room_is_dropped_and_counted() {
        let shared = Shared::default();
        shared.push(&"x".repeat(QUEUE_BYTES));
        shared.push("y\n");
        assert!(shared.next().ends_with("x1 lines were dropped, because the terminal is too slow\n"));
    }
}
