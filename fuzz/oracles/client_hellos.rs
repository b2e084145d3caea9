//! Properties of the reader of the first message on a connection that both ends may have dialed.

use super::tls::client_hello::FirstMessage;

/// Checks the reader: the pieces in which the bytes come and the bytes behind the message make no difference, and what it takes
/// for a ClientHello is one record with one message, from which nothing is read but what stands there.
pub fn client_hello(bytes: &[u8]) {
    let whole = FirstMessage::read(bytes);
    // The first decision is final.
    let decided = (0..=bytes.len()).find(|len| FirstMessage::read(&bytes[..*len]) != FirstMessage::Part);
    match decided {
        None => assert_eq!(whole, FirstMessage::Part),
        Some(len) => assert_eq!(whole, FirstMessage::read(&bytes[..len])),
    }
    if let FirstMessage::ClientHello(hello) = whole {
        assert_eq!(decided, Some(hello.record_bytes));
        assert_eq!(hello.message, &bytes[5..hello.record_bytes]);
        assert_eq!((bytes[0], hello.message[0], &hello.random[..]), (22, 1, &hello.message[6..38]));
        assert_eq!(usize::from(u16::from_be_bytes([bytes[3], bytes[4]])), hello.message.len());
    }
}
