//! The questions whether a key is the right one, and whether a peer may have what it asks for: on a terminal, in a thread
//! of its own, so that signals are heard meanwhile.

use std::io::{self, BufRead, IsTerminal, Write};
use std::thread;

use seaprox::Target;
use seaprox::auth::PublicKey;

/// Whether somebody sits there.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and tells the answer when there is one.
///
/// # Errors
/// There is no thread for it.
pub fn ask(node: &Target, key: PublicKey, answer: impl FnOnce(bool) + Send + 'static) -> io::Result<()> {
    let question = format!(
        "The key of {node} is not known. It shows\n  {}\nIs that what `seaprox pubkey --fingerprint` says there (yes/no)? ",
        key.fingerprint()
    );
    ask_request(question, answer)
}

/// Asks anything, and tells the answer when there is one.
///
/// # Errors
/// There is no thread for it.
pub fn ask_request(question: String, answer: impl FnOnce(bool) + Send + 'static) -> io::Result<()> {
    let body = move || answer(is_agreed(&question, &mut io::stdin().lock(), &mut io::stderr().lock()));
    thread::Builder::new().name("prompt".into()).spawn(body).map(drop)
}

/// Whether the answer is yes. Who answers something else is asked again, a few times.
fn is_agreed(question: &str, input: &mut impl BufRead, output: &mut impl Write) -> bool {
    let mut text = question;
    for _ in 0..QUESTIONS_MAX {
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

const QUESTIONS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (typed, agreed, questions) in [
            ("yes\n", true, 1),
            ("YES\n", true, 1),
            ("no\n", false, 1),
            ("y\nyes\n", true, 2),
            ("", false, 1),
            ("\n\n\n\n\nyes\n", false, 5),
        ] {
            let mut shown = Vec::new();
            assert_eq!(is_agreed("? ", &mut typed.as_bytes(), &mut shown), agreed, "{typed:?}");
            let shown = String::from_utf8(shown).unwrap();
            assert_eq!(shown.matches(": ").count() + 1, questions, "{shown:?}");
        }
    }
}
