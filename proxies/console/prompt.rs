//! The prompt: lines with history and completion. Text that comes while a line is edited stands above it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor, ExternalPrinter as _};

use super::completion::LuaHelper;
use super::words::Words;
use super::{Chunks, Printer};

/// The prompt of a console.
pub struct Prompt {
    editor: Editor<LuaHelper, FileHistory>,
    history: Option<PathBuf>,
    printer: Printer,
}

/// The mode of the terminal before the prompt.
pub struct Terminal {
    #[cfg(unix)]
    mode: Option<rustix::termios::Termios>,
}

impl Prompt {
    /// Opens the prompt on standard input and output. The history is kept in a file if there is one.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn open(history: Option<PathBuf>, words: Words, printer: Printer) -> Result<Prompt, String> {
        let config = Config::builder().max_history_size(HISTORY_LINES).map_err(|error| error.to_string())?;
        let config = config.auto_add_history(true).build();
        let mut editor = Editor::with_config(config).map_err(|error| error.to_string())?;
        editor.set_helper(Some(LuaHelper::new(words)));
        if let Some(file) = &history {
            // The first prompt of a user has no history.
            let _ = editor.load_history(file);
        }
        // Without a terminal, text is printed where it comes.
        if let Ok(mut above) = editor.create_external_printer() {
            let show = Box::new(move |text| drop(above.print(text)));
            printer.set_editor(show).map_err(|error| error.to_string())?;
        }
        Ok(Prompt { editor, history, printer })
    }

    /// Reads lines and has them run, until the user leaves.
    pub(super) fn run(&mut self, chunks: &Chunks) {
        while !chunks.flags.stop.load(Ordering::Relaxed) {
            self.printer.begin_line();
            let line = self.editor.readline(PROMPT);
            self.printer.end_line();
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    // The console may end without another line.
                    self.history.iter().for_each(|file| keep_history(&mut self.editor, file));
                    // An error leaves the prompt.
                    if let Err(error) = chunks.submit("=prompt", line, true) {
                        self.printer.err(&format!("{error}\n"));
                    }
                }
                Err(ReadlineError::Interrupted) => chunks.interrupt(),
                Err(_) => break,
            }
        }
    }
}

impl Terminal {
    /// Notes the mode of the terminal that is the standard input.
    pub fn of_input() -> Terminal {
        Terminal {
            #[cfg(unix)]
            mode: rustix::termios::tcgetattr(std::io::stdin()).ok(),
        }
    }

    /// Restores the mode, and moves to a new line.
    pub fn restore(&self) {
        #[cfg(unix)]
        if let Some(mode) = &self.mode {
            use std::io::Write as _;
            // A terminal that is gone needs no mode. The sequence ends the marks around pasted text.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, mode);
            let _ = std::io::stdout().lock().write_all(b"\x1b[?2004l\n");
        }
    }
}

/// Writes the history. A history that cannot be written is no error of the console.
fn keep_history(editor: &mut Editor<LuaHelper, FileHistory>, file: &Path) {
    if let Some(directory) = file.parent() {
        let _ = std::fs::create_dir_all(directory);
    }
    if let Err(error) = editor.save_history(file) {
        log::debug!(target: "seaprox::console", error = error.to_string(); "the history cannot be written");
    }
}

const PROMPT: &str = "seaprox> ";
/// Lines of the history.
const HISTORY_LINES: usize = 1000;
