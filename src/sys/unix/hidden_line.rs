//! A line that is typed or pasted on a terminal without being shown.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The former settings of a terminal. Dropping it restores them.
struct Hidden<'a> {
    terminal: BorrowedFd<'a>,
    before: libc::termios,
}

impl Hidden<'_> {
    /// Switches off the echo, the editing of lines, which has a limit of 4,096 bytes, and the signals of keys, which would
    /// end the process before the settings are restored.
    fn on(terminal: BorrowedFd<'_>) -> io::Result<Hidden<'_>> {
        // SAFETY: all zeros is a valid value, which tcgetattr overwrites.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        syscall!(libc::tcgetattr(terminal.as_raw_fd(), &mut settings))?;
        let before = settings;
        settings.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
        settings.c_cc[libc::VMIN] = 1;
        settings.c_cc[libc::VTIME] = 0;
        syscall!(libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, &settings))?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = syscall!(libc::tcsetattr(self.terminal.as_raw_fd(), libc::TCSAFLUSH, &self.before));
    }
}

/// Shows a prompt on standard error and reads a line of at most `bytes_max` bytes from the terminal on standard input, without
/// showing it. The buffer never grows, so that its owner can overwrite it.
///
/// # Errors
/// Standard input is no terminal, the user pressed Ctrl-C (`Interrupted`), or the line is too long.
pub fn read_hidden_line(prompt: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    let descriptor = input.as_raw_fd();
    // SAFETY: standard input is open as long as the lock on it lives.
    let hidden = Hidden::on(unsafe { BorrowedFd::borrow_raw(descriptor) })?;
    let mut output = io::stderr().lock();
    output.write_all(prompt.as_bytes()).and_then(|()| output.flush())?;
    let mut line = Vec::with_capacity(bytes_max);
    let result = read(&mut input, &mut line, bytes_max);
    drop(hidden);
    // The newline of the user was not shown either.
    let _ = output.write_all(b"\n");
    result.inspect_err(|_| line.fill(0)).map(|()| line)
}

fn read(input: &mut impl Read, line: &mut Vec<u8>, bytes_max: usize) -> io::Result<()> {
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match byte[0] {
            b'\n' | b'\r' | END => return Ok(()),
            INTERRUPT | QUIT => return Err(ErrorKind::Interrupted.into()),
            BACKSPACE | DELETE => _ = line.pop(),
            CLEAR => line.clear(),
            _ if line.len() == bytes_max => return Err(io::Error::new(ErrorKind::InvalidData, "the line is too long")),
            other => line.push(other),
        }
    }
}

/// Ctrl-C, Ctrl-\, Ctrl-D, Ctrl-U.
const INTERRUPT: u8 = 0x03;
const QUIT: u8 = 0x1c;
const END: u8 = 0x04;
const CLEAR: u8 = 0x15;
const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Result<Vec<u8>, ErrorKind> {
        let mut line = Vec::new();
        read(&mut &keys[..], &mut line, 8).map(|()| line).map_err(|error| error.kind())
    }

    #[test]
    fn keys_edit_and_end_the_line() {
        for (keys, line) in [
            (&b"abc\nrest"[..], Ok(b"abc".to_vec())),
            (b"abc\r", Ok(b"abc".to_vec())),
            (b"abx\x7fc\x04", Ok(b"abc".to_vec())),
            (b"\x7f\x08x\x15abc", Ok(b"abc".to_vec())),
            (b"ab\x03c\n", Err(ErrorKind::Interrupted)),
            (b"ab\x1c", Err(ErrorKind::Interrupted)),
            (b"12345678\n", Ok(b"12345678".to_vec())),
            (b"123456789\n", Err(ErrorKind::InvalidData)),
        ] {
            assert_eq!(typed(keys), line, "{keys:?}");
        }
    }
}
