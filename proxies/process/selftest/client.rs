//! The programs that use the link under test: a SOCKS5 client (RFC 1928) that sends a pattern, and an echo server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Starts a server that sends back the bytes that it receives and, at the end, their number in 8 bytes. Returns its address.
///
/// # Errors
/// Fails if no port or no thread is available.
pub fn start_echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let serve_all = move || {
        for client in listener.incoming().flatten() {
            // Without a thread the connection is closed, and the check of its client fails.
            let _ = thread::Builder::new().name("echo".into()).spawn(move || echo(client));
        }
    };
    thread::Builder::new().name("echo".into()).spawn(serve_all)?;
    Ok(addr)
}

fn echo(mut client: TcpStream) -> io::Result<()> {
    let (mut buf, mut total) = (vec![0; CHUNK_BYTES], 0_u64);
    loop {
        match client.read(&mut buf)? {
            0 => break,
            count => {
                client.write_all(&buf[..count])?;
                total += count as u64;
            }
        }
    }
    client.write_all(&total.to_be_bytes())?;
    client.shutdown(Shutdown::Write)
}

/// Connects to a target through a SOCKS5 proxy. Returns the code of the reply if the proxy refuses.
///
/// # Errors
/// Fails if the proxy violates the protocol.
pub fn connect(proxy: SocketAddr, target: SocketAddr) -> io::Result<Result<TcpStream, u8>> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let SocketAddr::V4(target) = target else { return Err(ErrorKind::Unsupported.into()) };
    let request = [&[5, 1, 0, 5, 1, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes()].concat();
    stream.write_all(&request)?;
    let mut reply = [0; 2 + 10];
    stream.read_exact(&mut reply)?;
    Ok(if reply[3] == 0 { Ok(stream) } else { Err(reply[3]) })
}

/// Sends `bytes` bytes of the pattern, reads them back, closes its direction, and reads the number from the echo server.
/// Calls `progress` with the number of received bytes.
///
/// # Errors
/// Fails if the received bytes differ from the sent ones or do not arrive.
pub fn exchange(stream: TcpStream, bytes: u64, mut progress: impl FnMut(u64)) -> Result<(), String> {
    let mut output = stream.try_clone().map_err(|error| error.to_string())?;
    let writer = thread::spawn(move || {
        let (mut pattern, mut buf, mut left) = (Pattern::new(), vec![0; CHUNK_BYTES], bytes);
        while left > 0 {
            let count = left.min(buf.len() as u64) as usize;
            pattern.fill(&mut buf[..count]);
            output.write_all(&buf[..count])?;
            left -= count as u64;
        }
        output.shutdown(Shutdown::Write)
    });
    let result = receive(stream, bytes, &mut progress);
    let sent = writer.join().map_err(|_| "the sending thread panicked".to_owned())?;
    result?;
    sent.map_err(|error| format!("sending failed: {error}"))
}

fn receive(mut stream: TcpStream, bytes: u64, progress: &mut impl FnMut(u64)) -> Result<(), String> {
    let (mut pattern, mut received) = (Pattern::new(), 0);
    let (mut buf, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    while received < bytes {
        let most = (bytes - received).min(buf.len() as u64) as usize;
        let count =
            stream.read(&mut buf[..most]).map_err(|error| format!("after {received} of {bytes} bytes: {error}"))?;
        if count == 0 {
            return Err(format!("closed after {received} of {bytes} bytes"));
        }
        pattern.fill(&mut expected[..count]);
        if buf[..count] != expected[..count] {
            return Err(format!("wrong bytes between {received} and {}", received + count as u64));
        }
        received += count as u64;
        progress(received);
    }
    let mut rest = Vec::new();
    stream
        .take(9)
        .read_to_end(&mut rest)
        .map_err(|error| format!("the count of the echo server did not arrive: {error}"))?;
    if rest == bytes.to_be_bytes() {
        Ok(())
    } else {
        Err(format!("the count of the echo server is {rest:?}, expected {bytes} in 8 bytes"))
    }
}

/// Pseudo-random bytes (xorshift64), which show a piece at the wrong position.
struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    fn new() -> Pattern {
        Pattern { state: 0x9e37_79b9_7f4a_7c15, word: [0; 8], used: 8 }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.word.len() {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                (self.word, self.used) = (self.state.to_le_bytes(), 0);
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}

const CHUNK_BYTES: usize = 64 << 10;
/// Longest wait for a single read or write.
const TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_does_not_depend_on_the_pieces() {
        let (mut whole, mut pieces) = ([0; 100], [0; 100]);
        Pattern::new().fill(&mut whole);
        let mut pattern = Pattern::new();
        pieces.chunks_mut(7).for_each(|piece| pattern.fill(piece));
        assert_eq!(whole, pieces);
    }

    #[test]
    fn an_echo_passes_and_a_wrong_byte_fails() {
        let echo = start_echo().unwrap();
        let mut received = 0;
        exchange(TcpStream::connect(echo).unwrap(), 200_000, |count| received = count).unwrap();
        assert_eq!(received, 200_000);
        let broken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = broken.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = broken.accept().unwrap();
            let mut buf = [0; 1000];
            client.read_exact(&mut buf).unwrap();
            buf[500] ^= 1;
            client.write_all(&buf).unwrap();
        });
        let error = exchange(TcpStream::connect(addr).unwrap(), 1000, |_| {}).unwrap_err();
        assert!(error.starts_with("wrong bytes"), "{error}");
        server.join().unwrap();
    }
}
