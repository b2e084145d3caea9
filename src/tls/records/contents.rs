//! The contents of opened records: data, alerts, and the messages behind the handshake (RFC 8446, sections 4.6 and 6).

use super::fault::Fault;
use super::{ALERT, DATA, HANDSHAKE, KEY_UPDATE, NEW_SESSION_TICKET};

/// Limit of consecutive records without data. Each costs this end more than its peer, and keys cost most.
const BARREN_RECORDS_MAX: u32 = 32;

/// The meaning of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The content is data, and there is some.
    Data,
    /// There is nothing to do.
    Nothing,
    /// The next record has new keys. The peer may ask for new keys in the other direction too.
    KeyUpdate { asks: bool },
    /// The peer sends no more.
    CloseNotify,
}

/// The state that spans records.
#[derive(Debug)]
pub(super) struct Contents {
    is_client: bool,
    /// The first bytes of a ticket, of which the last three are its length, while they are incomplete.
    head: ([u8; MESSAGE_HEAD_BYTES], usize),
    /// Bytes of a ticket that are still to come.
    ticket_bytes: usize,
    /// Consecutive records without data.
    barren: u32,
}

impl Contents {
    /// Creates the state of an end. Only a client gets tickets.
    pub const fn new(is_client: bool) -> Contents {
        Contents { is_client, head: ([0; MESSAGE_HEAD_BYTES], 0), ticket_bytes: 0, barren: 0 }
    }

    /// Takes the content of the next record.
    ///
    /// # Errors
    /// The content is malformed or not permitted here, or the peer has ended the connection.
    pub fn take(&mut self, kind: u8, content: &[u8]) -> Result<Content, Fault> {
        if kind == DATA && !content.is_empty() && self.is_aligned() {
            self.barren = 0;
            return Ok(Content::Data);
        }
        self.barren += 1;
        if self.barren > BARREN_RECORDS_MAX {
            return Err(Fault::Unexpected("too many records without data"));
        }
        match kind {
            HANDSHAKE => self.handshake(content),
            _ if !self.is_aligned() => Err(Fault::Unexpected("a record inside a handshake message")),
            DATA => Ok(Content::Nothing),
            ALERT => alert(content),
            _ => Err(Fault::Unexpected("an unknown type of record")),
        }
    }

    /// Returns true if no handshake message is incomplete.
    const fn is_aligned(&self) -> bool {
        self.ticket_bytes == 0 && self.head.1 == 0
    }

    fn handshake(&mut self, content: &[u8]) -> Result<Content, Fault> {
        match content {
            [] => Err(Fault::Unexpected("an empty handshake record")),
            [KEY_UPDATE, message @ ..] if self.is_aligned() => match message {
                [0, 0, 1, asks @ (0 | 1)] => Ok(Content::KeyUpdate { asks: *asks == 1 }),
                [0, 0, 1, _] => Err(Fault::Illegal("an unknown request in a KeyUpdate")),
                _ => Err(Fault::Unexpected("a KeyUpdate that does not stand alone in its record")),
            },
            _ => self.tickets(content),
        }
    }

    /// Skips tickets, which may span records.
    fn tickets(&mut self, mut content: &[u8]) -> Result<Content, Fault> {
        while let Some(first) = content.first() {
            if self.ticket_bytes > 0 {
                let skipped = self.ticket_bytes.min(content.len());
                self.ticket_bytes -= skipped;
                content = content.get(skipped..).unwrap_or_default();
                continue;
            }
            let (head, have) = &mut self.head;
            if *have == 0 && !(self.is_client && *first == NEW_SESSION_TICKET) {
                return Err(Fault::Unexpected("a handshake message after the handshake"));
            }
            head.get_mut(*have).into_iter().for_each(|byte| *byte = *first);
            *have += 1;
            content = content.get(1..).unwrap_or_default();
            if *have == MESSAGE_HEAD_BYTES {
                let [_, a, b, c] = *head;
                *have = 0;
                self.ticket_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
                if !(TICKET_BYTES.0..=TICKET_BYTES.1).contains(&self.ticket_bytes) {
                    return Err(Fault::Malformed("a ticket of an impossible length"));
                }
            }
        }
        Ok(Content::Nothing)
    }
}

/// Reads an alert. All but two are fatal, whatever level they name (section 6).
fn alert(content: &[u8]) -> Result<Content, Fault> {
    match content {
        [] => Err(Fault::Unexpected("an empty alert")),
        [_, CLOSE_NOTIFY] => Ok(Content::CloseNotify),
        [WARNING, USER_CANCELED] => Ok(Content::Nothing),
        [_, description] => Err(Fault::Received(*description)),
        _ => Err(Fault::Malformed("an alert of another length")),
    }
}

/// Type and length of a handshake message.
const MESSAGE_HEAD_BYTES: usize = 4;
/// The shortest and the longest ticket: lifetime, age, nonce, ticket and extensions, each with its length (section 4.6.1).
const TICKET_BYTES: (usize, usize) = (4 + 4 + 1 + 2 + 1 + 2, 4 + 4 + 1 + 255 + 2 + 65_535 + 2 + 65_534);
const WARNING: u8 = 1;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_after_the_handshake_are_taken_only_where_they_may_stand() {
        let ticket =
            |bytes: u32| [&[NEW_SESSION_TICKET][..], &bytes.to_be_bytes()[1..], &vec![7; bytes as usize]].concat();
        let client = || Contents::new(true);
        let update = [KEY_UPDATE, 0, 0, 1, 0];
        assert_eq!(client().take(HANDSHAKE, &update), Ok(Content::KeyUpdate { asks: false }));
        assert_eq!(client().take(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1]), Ok(Content::KeyUpdate { asks: true }));
        assert_eq!(
            client().take(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2]).map_err(Fault::alert),
            Err(Fault::Illegal("").alert())
        );
        let unexpected = |contents: &mut Contents, kind, content: &[u8]| {
            assert!(matches!(contents.take(kind, content), Err(Fault::Unexpected(_))), "{kind} {content:?}");
        };
        unexpected(&mut client(), HANDSHAKE, &update[..4]);
        unexpected(&mut client(), HANDSHAKE, &[&update[..], &update].concat());
        unexpected(&mut client(), HANDSHAKE, &[&ticket(20)[..], &update].concat());
        unexpected(&mut client(), HANDSHAKE, &[&update[..], &ticket(20)].concat());
        unexpected(&mut client(), HANDSHAKE, &[]);
        unexpected(&mut client(), HANDSHAKE, &[1, 0, 0, 0]);
        unexpected(&mut Contents::new(false), HANDSHAKE, &ticket(20));
        unexpected(&mut client(), 20, &[1]);
        unexpected(&mut client(), 0, &[]);
        assert!(matches!(client().take(HANDSHAKE, &[NEW_SESSION_TICKET, 3, 0, 0]), Err(Fault::Malformed(_))));
        assert!(matches!(client().take(HANDSHAKE, &[NEW_SESSION_TICKET, 0, 0, 0]), Err(Fault::Malformed(_))));
        // Two tickets in records of any length. Nothing may stand between the parts of one.
        let two = [ticket(300), ticket(14)].concat();
        for step in [20, 100, 303, 304, 305, 1000] {
            let mut contents = client();
            let parts: Vec<_> = two.chunks(step).map(|part| contents.take(HANDSHAKE, part)).collect();
            assert!(parts.iter().all(|part| *part == Ok(Content::Nothing)), "{step}");
            assert_eq!(contents.take(DATA, b"x"), Ok(Content::Data));
        }
        for cut in [1, 3, 4, 5, 300] {
            for (kind, content) in [(DATA, &b"x"[..]), (DATA, &[]), (ALERT, &[1, 0])] {
                let mut contents = client();
                contents.take(HANDSHAKE, &two[..cut]).unwrap();
                unexpected(&mut contents, kind, content);
            }
        }
    }

    #[test]
    fn an_alert_ends_the_connection_unless_it_only_announces_the_end() {
        let take = |content: &[u8]| Contents::new(true).take(ALERT, content);
        assert_eq!(take(&[1, 0]), Ok(Content::CloseNotify));
        assert_eq!(take(&[2, 0]), Ok(Content::CloseNotify), "the level says nothing");
        assert_eq!(take(&[1, 90]), Ok(Content::Nothing));
        assert_eq!(take(&[2, 46]), Err(Fault::Received(46)));
        assert_eq!(take(&[1, 46]), Err(Fault::Received(46)), "the level says nothing");
        assert!(matches!(take(&[]), Err(Fault::Unexpected(_))));
        assert!(matches!(take(&[2]), Err(Fault::Malformed(_))));
        assert!(matches!(take(&[1, 0, 0]), Err(Fault::Malformed(_))));
    }

    #[test]
    fn a_run_of_records_without_data_is_an_attack() {
        let barren: [(u8, &[u8]); 3] = [(DATA, &[]), (ALERT, &[1, 90]), (HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])];
        for (kind, content) in barren {
            let mut contents = Contents::new(true);
            for _ in 0..3 {
                for _ in 0..BARREN_RECORDS_MAX {
                    contents.take(kind, content).unwrap();
                }
                assert_eq!(contents.take(DATA, b"x"), Ok(Content::Data));
            }
            for _ in 0..BARREN_RECORDS_MAX {
                contents.take(kind, content).unwrap();
            }
            assert!(matches!(contents.take(kind, content), Err(Fault::Unexpected(_))));
        }
    }
}
