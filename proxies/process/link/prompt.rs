//! Questions to the user on the terminal. A thread asks, so that the main thread handles signals meanwhile.

use std::io::{self, BufRead, IsTerminal, Write};
use std::thread;

use seaprox::Target;
use seaprox::auth::PublicKey;

/// Returns true if a user can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether an unknown key is the key of `node`. Calls `answer` with true for yes.
///
/// # Errors
/// Fails if no thread can be started.
pub fn ask_about_key(node: &Target, key: PublicKey, answer: impl FnOnce(bool) + Send + 'static) -> io::Result<()> {
    let question = format!(
        "The key of {node} is not known. Its fingerprint is\n  {}\nDoes `seaprox pubkey --fingerprint` print the same \
         there (yes/no)? ",
        key.fingerprint()
    );
    ask(question, answer)
}

/// Asks a question. Calls `answer` with true for yes.
///
/// # Errors
/// Fails if no thread can be started.
pub fn ask(question: String, answer: impl FnOnce(bool) + Send + 'static) -> io::Result<()> {
    let body = move || answer(read_answer(&question, &mut io::stdin().lock(), &mut io::stderr().lock()));
    thread::Builder::new().name("prompt".into()).spawn(body).map(drop)
}

/// Asks a question, and waits for the answer. Returns true for yes.
pub fn read(question: &str) -> bool {
    read_answer(question, &mut io::stdin().lock(), &mut io::stderr().lock())
}

/// Returns true if the user answers yes. Repeats the question a few times if the answer is neither yes nor no.
fn read_answer(question: &str, input: &mut impl BufRead, output: &mut impl Write) -> bool {
    let mut text = question;
    for _ in 0..ATTEMPTS_MAX {
        let mut line = String::new();
        let asked = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        if asked.is_err() || input.read_line(&mut line).map_or(0, |bytes| bytes) == 0 {
            return false;
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "yes" => return true,
            "no" => return false,
            _ => text = "Type yes or no: ",
        }
    }
    false
}

const ATTEMPTS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_yes_is_agreement() {
        for (typed, is_agreed, questions) in [
            ("yes\n", true, 1),
            ("YES\n", true, 1),
            ("no\n", false, 1),
            ("y\nyes\n", true, 2),
            ("", false, 1),
            ("\n\n\n\n\nyes\n", false, 5),
        ] {
            let mut shown = Vec::new();
            assert_eq!(read_answer("? ", &mut typed.as_bytes(), &mut shown), is_agreed, "{typed:?}");
            let shown = String::from_utf8(shown).unwrap();
            assert_eq!(shown.matches(": ").count() + 1, questions, "{shown:?}");
        }
    }
}
