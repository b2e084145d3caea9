//! Knowledge of Lua for the prompt: the end of a chunk, and the completion of names.

use mlua::Lua;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::machine;
use super::objects::methods;
use super::words::Words;

/// The helper of the line editor. Its machine only reads code, and runs none.
pub struct LuaHelper {
    lua: Lua,
    words: Words,
}

impl LuaHelper {
    /// Creates a helper.
    pub fn new(words: Words) -> LuaHelper {
        LuaHelper { lua: Lua::new(), words }
    }
}

impl Validator for LuaHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match machine::is_incomplete(&self.lua, context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Completer for LuaHelper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or_default();
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let begin = before
            .rfind(|c| !is_word(c))
            .map_or(0, |place| place + before[place..].chars().next().map_or(1, char::len_utf8));
        let word = &before[begin..];
        if before[..begin].ends_with(':') {
            let found = methods().filter(|name| name.starts_with(word)).map(|name| format!("{name}(")).collect();
            return Ok((begin, found));
        }
        Ok((begin, if word.is_empty() { Vec::new() } else { self.words.starting_with(word) }))
    }
}

impl Hinter for LuaHelper {
    type Hint = String;
}

impl Highlighter for LuaHelper {}

impl Helper for LuaHelper {}

#[cfg(test)]
mod tests {
    use rustyline::history::DefaultHistory;

    use super::*;

    #[test]
    fn names_and_methods_are_completed() {
        let words = Words::default();
        words.set(["status", "string", "string.rep"].map(str::to_owned).to_vec());
        let (helper, history) = (LuaHelper::new(words), DefaultHistory::new());
        let complete = |line: &str| helper.complete(line, line.len(), &Context::new(&history)).unwrap();
        assert_eq!(complete("x = st"), (4, vec!["status".to_owned(), "string".to_owned()]));
        assert_eq!(complete("string.r"), (0, vec!["string.rep".to_owned()]));
        assert_eq!(complete("é, tc:list"), (7, vec!["list_tunnels(".to_owned(), "list_paths(".to_owned()]));
        assert_eq!(complete("f("), (2, Vec::new()));
    }
}
