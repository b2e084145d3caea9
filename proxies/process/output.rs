//! Printing to standard output.

use std::io::{ErrorKind, Write};

use super::exit::{Exit, Failed};

/// Prints text to standard output. A reader that has closed its end is no error.
///
/// # Errors
/// Fails if standard output cannot be written, for example because the disk is full.
pub fn print(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failure, format!("seaprox: stdout: {error}")))
        }
        _ => Ok(()),
    }
}
