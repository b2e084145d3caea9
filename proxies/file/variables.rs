//! Variables of the environment in the values of a file: `${NAME}`, and `$${` for a literal `${`.

/// Replaces the variables in a value.
///
/// # Errors
/// Fails with what was expected if a variable is not set, or if its name is malformed.
pub fn substitute(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, behind) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = behind;
            continue;
        }
        out.push_str(before);
        let name = behind.split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
        let Some(name) = name else {
            return Err("expected the name of a variable in ${...}, or $${ for a literal ${".to_owned());
        };
        let value = variable(name).ok_or_else(|| format!("expected the variable {name} to be set"))?;
        out.push_str(&value);
        rest = &behind[name.len() + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Returns the text that [`substitute`] turns into this one.
pub fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// Returns true if an environment can have a variable of this name.
fn is_name(name: &str) -> bool {
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_start) && name.bytes().all(|byte| is_start(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Result<String, String> {
        substitute(text, &|name| (name == "HOME").then(|| "/home/${HOME}".to_owned()))
    }

    #[test]
    fn variables_are_replaced_once_and_a_doubled_dollar_is_literal() {
        for (text, expected) in [
            ("", ""),
            ("a$b$", "a$b$"),
            ("${HOME}/key", "/home/${HOME}/key"),
            ("${HOME}${HOME}", "/home/${HOME}/home/${HOME}"),
            ("$${HOME}", "${HOME}"),
            ("é$${é", "é${é"),
        ] {
            assert_eq!(replaced(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["x${y", "$${a}${", "a${b}${"] {
            assert_eq!(replaced(&escape(text)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_variable_that_is_not_set_or_malformed_is_an_error() {
        assert_eq!(replaced("a${NONE}"), Err("expected the variable NONE to be set".to_owned()));
        for text in ["${", "${}", "${HOME", "${1A}", "${A-B}", "${ HOME}"] {
            assert!(replaced(text).unwrap_err().starts_with("expected the name of a variable"), "{text}");
        }
    }
}
