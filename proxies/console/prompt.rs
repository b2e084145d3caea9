//! The prompt: lines with history and completion. A chunk runs between two lines, so its output does not disturb a line.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::Flags;
use super::completion::LuaHelper;
use super::words::Words;

/// The prompt of a console.
pub struct Prompt {
    editor: Editor<LuaHelper, FileHistory>,
    words: Words,
    history: Option<PathBuf>,
}

impl Prompt {
    /// Opens the prompt on standard input and output. The history is kept in a file if there is one.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub fn open(history: Option<PathBuf>) -> Result<Prompt, String> {
        let config = Config::builder().max_history_size(HISTORY_LINES).map_err(|error| error.to_string())?;
        let config = config.auto_add_history(true).build();
        let mut editor = Editor::with_config(config).map_err(|error| error.to_string())?;
        let words = Words::default();
        editor.set_helper(Some(LuaHelper::new(words.clone())));
        if let Some(file) = &history {
            // The first prompt of a user has no history.
            let _ = editor.load_history(file);
        }
        Ok(Prompt { editor, words, history })
    }

    /// Returns the words that are completed.
    pub fn words(&self) -> Words {
        self.words.clone()
    }

    /// Reads lines and has them run, until the user leaves.
    pub(super) fn run(&mut self, flags: &Flags, submit: &mut dyn FnMut(String) -> Result<(), String>) {
        while !flags.stop.load(Ordering::Relaxed) {
            match self.editor.readline(PROMPT) {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    // An error leaves the prompt.
                    submit(line).err().into_iter().for_each(|error| eprintln!("{error}"));
                }
                Err(ReadlineError::Interrupted) => {}
                Err(_) => break,
            }
        }
        if let Some(file) = &self.history {
            keep_history(&mut self.editor, file);
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
