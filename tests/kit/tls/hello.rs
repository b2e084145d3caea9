//! A reader of the ClientHello, which is in the clear (RFC 8446, section 4.1.2).

/// The numbers of the key exchanges in the registry of IANA.
pub const X25519_MLKEM768: u16 = 0x11ec;
pub const X25519: u16 = 0x001d;

/// The parts of a ClientHello that concern the key exchange (RFC 8446, section 4.1.2).
#[derive(Debug, Default)]
pub struct Hello {
    /// Bytes of its records.
    #[allow(dead_code, reason = "the tests of the encryption read it")]
    pub bytes: usize,
    pub supported: Vec<u16>,
    /// The group and the length of each share.
    pub shares: Vec<(u16, usize)>,
}

/// Takes a number of `bytes` bytes from the front.
fn number(from: &mut &[u8], bytes: usize) -> usize {
    let (head, rest) = from.split_at(bytes);
    *from = rest;
    head.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Takes a vector whose length stands before it in `bytes` bytes.
fn vector<'a>(from: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let length = number(from, bytes);
    let (head, rest) = from.split_at(length);
    *from = rest;
    head
}

/// Parses the records of a ClientHello, the first ones of a connection.
pub fn parse(wire: &[u8]) -> Hello {
    let (mut records, mut message) = (wire, Vec::new());
    while records.first() == Some(&22) {
        number(&mut records, 1);
        number(&mut records, 2);
        message.extend_from_slice(vector(&mut records, 2));
    }
    let mut message = &message[..];
    assert_eq!(number(&mut message, 1), 1, "a ClientHello");
    let mut body = vector(&mut message, 3);
    assert!(message.is_empty());
    body = &body[2 + 32..];
    vector(&mut body, 1);
    vector(&mut body, 2);
    vector(&mut body, 1);
    let mut extensions = vector(&mut body, 2);
    let mut hello = Hello { bytes: wire.len() - records.len(), ..Hello::default() };
    while !extensions.is_empty() {
        let kind = number(&mut extensions, 2);
        let mut content = vector(&mut extensions, 2);
        match kind {
            10 => {
                let mut groups = vector(&mut content, 2);
                while !groups.is_empty() {
                    hello.supported.push(number(&mut groups, 2) as u16);
                }
            }
            51 => {
                let mut shares = vector(&mut content, 2);
                while !shares.is_empty() {
                    let group = number(&mut shares, 2) as u16;
                    hello.shares.push((group, vector(&mut shares, 2).len()));
                }
            }
            _ => {}
        }
    }
    hello
}
