//! Printing to standard output.

use std::io::{ErrorKind, Write};

use seaprox::auth::Secret;

use super::exit::{Exit, Failed};

/// Prints text to standard output. A reader that has closed its end is no error.
///
/// # Errors
/// Fails if standard output cannot be written, for example because the disk is full.
pub fn print(text: &str) -> Result<(), Failed> {
    print_bytes(text.as_bytes())
}

/// Prints a secret and a newline to standard output, which a user has asked for.
///
/// # Errors
/// Fails if standard output cannot be written.
pub fn print_secret(secret: &Secret) -> Result<(), Failed> {
    print_bytes(Secret::from([secret.expose(), b"\n"].concat()).expose())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failure, format!("seaprox: stdout: {error}")))
        }
        _ => Ok(()),
    }
}
