//! The heap that idle pipes of the link's encryption hold.

use std::rc::Rc;

use crate::heap::held;
use crate::tls::{Buffers, Cipher};
use crate::tls_kit::{give, pair_on, shake, take};

/// Returns the bytes that an open client and an open server hold after traffic in both directions, when no data waits.
/// The buffer pool of their loop is not counted.
pub fn heap_bytes() -> (usize, usize) {
    let buffers = Rc::new(Buffers::new());
    let (mut client, mut server) = pair_on(&buffers, &Cipher::preferred());
    assert_eq!(shake(&mut client, &mut server, usize::MAX), (Ok(()), Ok(())));
    let mut out = Vec::new();
    for _ in 0..3 {
        client.seal([&[1; 100_000][..]]).unwrap();
        give(&mut server, &take(&mut client), usize::MAX, &mut out).unwrap();
        server.seal([&[1; 100_000][..]]).unwrap();
        give(&mut client, &take(&mut server), usize::MAX, &mut out).unwrap();
    }
    drop(out);
    let all = held();
    drop(client);
    let one = held();
    drop(server);
    let none = held();
    drop(buffers);
    let size = size_of::<crate::tls::TlsPipe>();
    ((all - one) as usize + size, (one - none) as usize + size)
}
