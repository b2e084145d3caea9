//! What talks through the link: a SOCKS5 client (RFC 1928) with a pattern to send, and the echo that it talks to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Starts a server that sends back what it gets, and at the end how much that was, as 8 bytes.
///
/// # Errors
/// There is no port or no thread for it.
pub fn start_echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let serve_all = move || {
        for client in listener.incoming().flatten() {
            // A client that is gone wants nothing more.
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

/// Connects to a target through a SOCKS5 proxy; a refusal is the code of the reply.
///
/// # Errors
/// The proxy does not keep to its protocol.
pub fn connect(proxy: SocketAddr, target: SocketAddr) -> io::Result<Result<TcpStream, u8>> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let SocketAddr::V4(target) = target else { return Err(ErrorKind::Unsupported.into()) };
    let request = [&[5, 1, 0, 5, 1, 0, 1][..], &target.ip().octets(), &target.port().to_be_bytes()].concat();
    stream.write_all(&request)?;
    let mut reply = [0; 2 + 10];
    stream.read_exact(&mut reply)?;
    Ok(if reply[3] == 0 { Ok(stream) } else { Err(reply[3]) })
}

/// Sends so many bytes of the pattern and reads them back; `progress` hears how many have come. Then closes its direction, and
/// reads what the echo says to that.
///
/// # Errors
/// What comes back is not what was sent, or does not come.
pub fn swap(stream: TcpStream, bytes: u64, mut progress: impl FnMut(u64)) -> Result<(), String> {
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
    let received = receive(stream, bytes, &mut progress);
    let sent = writer.join().map_err(|_| "the writer panicked".to_owned())?;
    received?;
    sent.map_err(|error| format!("not all could be sent: {error}"))
}

fn receive(mut stream: TcpStream, bytes: u64, progress: &mut impl FnMut(u64)) -> Result<(), String> {
    let (mut pattern, mut came) = (Pattern::new(), 0);
    let (mut buf, mut expected) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    while came < bytes {
        let most = (bytes - came).min(buf.len() as u64) as usize;
        let count = stream.read(&mut buf[..most]).map_err(|error| format!("after {came} of {bytes} bytes: {error}"))?;
        if count == 0 {
            return Err(format!("closed after {came} of {bytes} bytes"));
        }
        pattern.fill(&mut expected[..count]);
        if buf[..count] != expected[..count] {
            return Err(format!("wrong bytes between {came} and {}", came + count as u64));
        }
        came += count as u64;
        progress(came);
    }
    let mut rest = Vec::new();
    stream.take(9).read_to_end(&mut rest).map_err(|error| format!("no answer to the end: {error}"))?;
    if rest == bytes.to_be_bytes() { Ok(()) } else { Err(format!("the answer to the end is {rest:?}")) }
}

/// Bytes that repeat so late that a piece in the wrong place is noticed: xorshift64.
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
/// For a single read or write.
const PATIENCE: Duration = Duration::from_secs(20);

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
    fn an_echo_passes_and_a_wrong_byte_does_not() {
        let echo = start_echo().unwrap();
        let mut came = 0;
        swap(TcpStream::connect(echo).unwrap(), 200_000, |count| came = count).unwrap();
        assert_eq!(came, 200_000);
        let liar = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = liar.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = liar.accept().unwrap();
            let mut buf = [0; 1000];
            client.read_exact(&mut buf).unwrap();
            buf[500] ^= 1;
            client.write_all(&buf).unwrap();
        });
        let error = swap(TcpStream::connect(addr).unwrap(), 1000, |_| {}).unwrap_err();
        assert!(error.starts_with("wrong bytes"), "{error}");
        server.join().unwrap();
    }
}
