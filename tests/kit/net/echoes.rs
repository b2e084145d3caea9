//! Echoes that are sent at their time, whether or not the earlier ones are back: one that takes long does not hide those that
//! would have been sent meanwhile.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Sends a message every 20 ms during `time`. Returns the time that each took, in milliseconds; one that is not back in time
/// counts as ten seconds.
pub fn echo_ms((client, server): (TcpStream, TcpStream), time: Duration) -> io::Result<Vec<f64>> {
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LATE))?;
    }
    let start = Instant::now();
    let answering = thread::spawn(move || answer(server));
    let mut back = client.try_clone()?;
    let reading = thread::spawn(move || {
        let (mut times, mut message) = (Vec::new(), [0; 8]);
        while back.read_exact(&mut message).is_ok() {
            let sent = Duration::from_nanos(u64::from_be_bytes(message));
            times.push(start.elapsed().saturating_sub(sent).as_secs_f64() * 1000.0);
        }
        times
    });
    let (mut count, mut to) = (0, &client);
    while start.elapsed() < time {
        to.write_all(&(start.elapsed().as_nanos() as u64).to_be_bytes())?;
        count += 1;
        thread::sleep((EVERY * count).saturating_sub(start.elapsed()));
    }
    // The end goes behind the last message and comes back behind its answer.
    client.shutdown(Shutdown::Write)?;
    let mut times = reading.join().map_err(|_| io::Error::other("the reader of the echoes failed"))?;
    let _ = client.shutdown(Shutdown::Both);
    let _ = answering.join();
    times.resize(count as usize, LATE.as_secs_f64() * 1000.0);
    Ok(times)
}

fn answer(mut server: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(got @ 1..) = server.read(&mut buf) {
        if server.write_all(&buf[..got]).is_err() {
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

const EVERY: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_secs(10);
