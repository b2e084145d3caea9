//! Text for a terminal or a log that may come from a peer.

use std::borrow::Cow;

/// Returns true for characters that are unfit for a line: control characters, line and paragraph separators, and the marks
/// of text direction.
pub fn is_unfit(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a text with its unfit characters escaped.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unfit) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|it| if is_unfit(it) { it.escape_default().collect() } else { String::from(it) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_act_on_a_terminal_or_turn_the_text_are_escaped() {
        assert!(matches!(escape("Žluťoučký kůň"), Cow::Borrowed(_)));
        assert_eq!(escape("a\u{1b}[2J\n\u{202e}gpj.exe\u{61c}"), "a\\u{1b}[2J\\n\\u{202e}gpj.exe\\u{61c}");
    }
}
