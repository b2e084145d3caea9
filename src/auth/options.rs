//! The options before a key: `name=value` pairs, separated by commas. Quotes protect blanks and commas.
//!
//! ```text
//! options = option *("," option)
//! option  = NAME "=" (VALUE | '"' VALUE '"')         no quote within a value
//! ```

use super::error::Wrong;

/// Splits a line at the first blank outside of quotes, into the options and the rest.
pub(super) fn split_field(line: &str) -> Result<(&str, &str), Wrong> {
    let mut is_quoted = false;
    for (at, char) in line.char_indices() {
        match char {
            '"' => is_quoted = !is_quoted,
            char if char.is_ascii_whitespace() && !is_quoted => return Ok((&line[..at], &line[at..])),
            _ => {}
        }
    }
    if is_quoted { Err(Wrong::word(line, "a closing quote")) } else { Ok((line, "")) }
}

/// Splits the options into pairs of a name and a value.
pub(super) fn split_options(field: &str) -> impl Iterator<Item = Result<(&str, &str), Wrong>> {
    let mut is_quoted = false;
    let at_comma = move |char: char| {
        is_quoted ^= char == '"';
        char == ',' && !is_quoted
    };
    field.split(at_comma).map(|option| {
        let (name, value) = option.split_once('=').ok_or_else(|| Wrong::word(option, OPTION_FORM))?;
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        if name.contains('"') || inner.contains('"') {
            return Err(Wrong::word(option, "quotes around a whole value and nowhere else"));
        }
        Ok((name, inner))
    })
}

/// The expected form of a word that is not the type of a key.
pub(super) const OPTION_FORM: &str = "permit-open=PLACE, permit-end=NAME=KIND:..., permit-listen=[ADDR:]PORT, listen-group=NAME, permit-source=NETWORK, permit-get=FOLDER, max-streams=N, \
                                      rate=RATE, valid-until=TIME, uses=N or name=NAME, separated by commas, and then the key";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(field: &str) -> Result<Vec<(&str, &str)>, String> {
        split_options(field).collect::<Result<_, _>>().map_err(|wrong| wrong.word.unwrap_or_default())
    }

    #[test]
    fn quotes_protect_blanks_and_commas() {
        assert_eq!(split_field("a=\"b c\",d=e f g"), Ok(("a=\"b c\",d=e", " f g")));
        assert_eq!(split_field("a"), Ok(("a", "")));
        assert_eq!(split_field("a=\"b c").unwrap_err().expected, "a closing quote");
        assert_eq!(options("a=\"b,c\",d=e,f=\"\""), Ok(vec![("a", "b,c"), ("d", "e"), ("f", "")]));
    }

    #[test]
    fn an_error_names_the_malformed_option() {
        for (field, word) in [
            ("a", "a"),
            ("a=b,", ""),
            ("a=b,,c=d", ""),
            ("a=b\"c\"", "a=b\"c\""),
            ("\"a=b\"", "\"a=b\""),
            ("a=\"", "a=\""),
        ] {
            assert_eq!(options(field), Err(word.to_owned()), "{field}");
        }
    }
}
