//! Datagrams over atomic sends over TLS over TCP, both ends in one thread: prints what arrives at the server.
//!
//! `cargo run --example pipes`
use std::{error::Error, net::TcpListener, net::TcpStream, sync::Arc};

use seaprox::auth::NodeKey;
use seaprox::node::{Identity, Policy, SameKey};
use seaprox::pipes::{Atomic, Datagram, Pipe, Poller, SocketPipe, TlsPipe};

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    let key = NodeKey::from_secret(b"a secret of both ends")?;
    let (identity, policy): (_, Arc<dyn Policy>) = (Identity::new(&key), Arc::new(SameKey(key.public())));
    let mut client = Datagram::new(Atomic::new(TlsPipe::client(SocketPipe::new(near), &identity, &policy)));
    let mut server = Datagram::new(Atomic::new(TlsPipe::server(SocketPipe::new(far), &identity, &policy)));

    let mut poller = Poller::new()?;
    poller.add(&mut client, 0)?;
    poller.add(&mut server, 1)?;
    let (mut words, mut buf) = (["one", "twenty", "three hundred"].into_iter().peekable(), [0; 1000]);
    while !server.fin_received() {
        for (key, ready) in poller.wait(None)? {
            if key == 0 { client.drive(ready)? } else { server.drive(ready)? }
        }
        while words.next_if(|word| client.send(word.as_bytes()).is_ok()).is_some() {}
        if words.peek().is_none() {
            client.finish()?; // The FIN leaves after the last datagram.
        }
        while let Ok(count @ 1..) = server.receive(&mut buf) {
            println!("{count} bytes: {}", String::from_utf8_lossy(&buf[..count]));
        }
    }
    Ok(())
}
