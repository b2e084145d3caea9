//! The link: one session between two nodes, carrying many streams over one or more subflows.
//!
//! A [`Session`] is a state machine. It owns no socket, reads no clock and draws no random number; nothing in it
//! depends on the order of a hash table. Bytes, time and commands go in, frames, events and a deadline come out, and
//! any order of calls is legal. Whoever drives it owns the carriers (TCP with TLS, QUIC, SCTP: here each is a *subflow*
//! of one or more *lanes*, ordered pipes of bytes) and does, after every call:
//!
//! ```text
//! set_room(subflow, bytes the carrier takes now)
//! while poll_transmit(now, outbox) answers a lane: write the outbox there
//! while poll_event() answers an event: act on it
//! sleep until poll_timeout(), then handle_timeout(now)
//! ```
//!
//! # For a reader who knows QUIC
//! Streams, ids (even: client, odd: server), final sizes, RESET and STOP, credit for streams and session, MAX_STREAMS
//! and BLOCKED are QUIC's (RFC 9000), without unidirectional streams. What differs:
//! - **No packets.** A subflow is reliable and ordered as long as it lives, so there are no packet numbers and no loss
//!   detection but death and silence. ACK says, for each lane, how many bytes of it have been processed; see `lane`.
//! - **Any frame may take any subflow.** Frames carry absolute positions, and every control frame is idempotent: it is
//!   written from the state when it leaves, applied by maximum or by presence, and queued again if its lane dies; see
//!   `control`.
//! - **A session outlives its subflows.** When all are gone it waits; then RESUME_STATE compares notes and it goes on;
//!   see `resume`.
//! - **Streams have an opening**: OPEN names a target, OPEN_RESULT says how connecting went; data need not wait for it.
//! - **The scheduler is the heart**: which stream (`drr`), and on which subflow (`scheduler`), decided when a subflow can
//!   take a frame.
//!
//! # Reading order
//! | file | what it is |
//! | --- | --- |
//! | [`frame`], `open`, `hello`, `wire`, `code` | what stands on the wire |
//! | `ids`, `config`, `event` | the words of the interface |
//! | `send`, `recv`, `credit`, `ranges`, `datagram` | the two sides of one stream, each on its own |
//! | `share` | what one stream may hold of what all share |
//! | `stream`, `table` | one stream, and all of them |
//! | `lane`, `path`, `subflow` | what is in flight where; delay and rate; one carrier |
//! | `drr`, `scheduler`, `control` | whose turn, which subflow, what goes first |
//! | `session` | the record that holds all this; then what is done with it: |
//! | `apps`, `listen`, `join`, `resume` | commands, listeners, subflows, resuming |
//! | `input`, `absent` | frames in; those for no stream |
//! | `output`, `acks`, `timers` | frames out, what becomes of them; deadlines |
//! | `check` | what must hold after every call, asserted in debug builds |
//! | `outbox`, `spare` | buffers that are used again |
//!
//! # The life of a byte
//! The application hands over a chunk ([`Session::write`]); the stream keeps a reference to it. When the stream's turn
//! comes and a subflow has room, a slice of the chunk goes to the [`Outbox`] behind sixteen bytes of header, and the
//! lane's list notes the piece. At the peer, the payload is a slice of the buffer it came in, in order or beyond a gap,
//! until the application has taken it ([`Session::readable`], [`Session::consume`]); that opens credit. The peer's ACK
//! pops the lane's list, and the chunk is freed once all of it is acknowledged. If the lane dies first, the rest of its
//! list is queued again: a slice of the same chunk. **Nothing is lost or repeated** because a sender frees only what a
//! lane ACK (or RESUME_STATE) covers, a receiver acknowledges only what it holds, and delivery is by offset.
//!
//! # Frames
//! Eight bytes of header: type, flags, length of the body (u16), id (u32), big endian; at most 16 384 bytes in all, a
//! full TLS record.
//!
//! | type | name | id | body |
//! | --- | --- | --- | --- |
//! | 00 | PAD | 0 | anything |
//! | 01 | HELLO | 0 | magic `SPRX`, versions min max u8, intent u16, session 16, boot 8, subflow u16, lanes u16, caps u64, limits, proof 32 |
//! | 02 | HELLO_ACK | 0 | status u8, version u8, subflow u16, session 16, boot 8, caps u64, limits, proof 32 |
//! | 03 | RESUME_STATE | 0 | lines of stream u32, received u64, credit u64, sent u64; flag 1: the last |
//! | 04, 05 | PING, PONG | 0 | token u64; PONG adds how many µs it was held |
//! | 06, 07 | GOAWAY, CLOSE | streams seen, 0 | code u16, text |
//! | 08 | SUBFLOW | subflow | class u8: active, backup, closing |
//! | 10, 12 | OPEN, LISTEN | stream, listener | kind u8, flags u8, port u16, listener u32, host, options |
//! | 11, 13 | OPEN_RESULT, LISTEN_RESULT | the same | code u16 (0: ok), errno u16, port u16, host, text |
//! | 14 | UNLISTEN | listener | |
//! | 20 | DATA | stream | offset u64, payload; flag 1: the stream ends here |
//! | 21, 22 | RESET, STOP | stream | code u16; RESET adds the final size u64; flag 1: there is no such stream here |
//! | 23 | CREDIT | stream, or 0 for the session | up to where bytes may come u64, up to where they were taken u64 |
//! | 26 | BLOCKED | stream, or 0 for the session | offset u64 |
//! | 24 | MAX_STREAMS | 0 | streams ever, u32 |
//! | 25 | ACK | 0 | lines of subflow u16, lane u16, bytes u64 |
//! | 30 | DATAGRAM | stream | payload |
//! | 31 | MESSAGE | number | text |
//!
//! With [`Capability::ListenerLost`] a second LISTEN_RESULT, with a failure, withdraws a listener. With
//! [`Capability::Handover`] a client that has GOAWAY opens new streams over another session.
//!
//! `caps` has one bit for each optional feature ([`Capability`]): HELLO those of the client, HELLO_ACK those of both.
//!
//! Limits are streams u32, listeners u32, stream credit u64, session credit u64. Types from 0x80 on are skipped by
//! those who do not know them, options of OPEN too; an unknown type below is an error.
//!
//! # Memory
//! A session holds at most
//! `S + 3·R + subflows × (lane list + 16 KiB) + 65 536 ranges + 4 MiB of datagrams + 3 MiB of spare room`, and
//! the streams themselves. S is [`Config::send_bytes_max`]: written and not acknowledged, 64 bytes for each chunk
//! included. R is the upper [`Config::session_window_bytes`]: received and not taken. The 3 is what a malicious peer can
//! contrive: a payload keeps the whole buffer that it arrived in, and is copied out of it once buffers take more than
//! twice what is kept of them; with an honest peer it is 1. [`Session::received_cost`] is the exact amount, and a process
//! bounds the sum of it over its sessions. Give [`Session::input`] reads of 128 KiB at most, so that full frames are
//! hardly ever copied.
//! Nothing is allocated by a length that has not been checked.
//!
//! # What the simulator taught
//! Where this differs from the first design, and why:
//! - **Nothing but HELLO leaves a client before HELLO_ACK.** Early data would save a round trip once in a session's
//!   life; without it a first subflow that dies half-way can simply be tried again, with nothing sent that could be
//!   sent twice.
//! - **A late HELLO must not kill what lives.** A HELLO that starts a session may be underway for long on a connection
//!   that its client has given up: it replaces a session of its name only if its subflow number is later
//!   ([`Session::is_superseded_by`]). For the same reason RESUME means the death of the subflows dialled before it,
//!   not of those dialled after.
//! - **RESUME_STATE may be overtaken.** If another subflow came up meanwhile, acknowledgements have passed the states.
//!   What a state lacks is held against the peer only if no other subflow has been there since the dial.
//! - **A suspect is cleared by an answered PING, not by acknowledgements.** Those may come over another subflow and
//!   speak of what arrived before the silence; with them a black hole cost half a second instead of a fifth.
//! - **Acknowledgements avoid a subflow that has fallen silent** while another speaks. An end that mostly receives has
//!   nothing in flight that would show it the death of a subflow, and the other end would then suspect every subflow
//!   at once.
//! - **Arrival is one way plus the queue**, where the queue is what is in flight beyond one undisturbed round of
//!   acknowledgement. Counting all that is in flight ranks long paths too low.
//! - **A rate not measured at its limit is believed less and less.** Otherwise a path that was slow once is never
//!   tried again, and one that was first seen with three small frames on it neither.
//! - **A path is left alone if it adds little, late**: less than a sixteenth of the faster ones, more than a tenth of a
//!   second later. Otherwise the test against the window decides, and 10 Mbit/s beside a gigabit are not wasted.
//! - **Late frames go another way.** When a frame leaves it is known when its acknowledgement should be there. A path that
//!   becomes two hundred times slower goes on acknowledging, with a patience that grows with its delay, while streams
//!   wait for what it holds; so what has taken twice as long as it should is sent again on one that keeps its time.
//! - **A path that was never used has no rate.** The kernel's is its first window for each round trip, which on a long
//!   path is so little that nothing would be sent there, ever.
//! - **Frames of a slow path are small**, what it carries in five milliseconds: what is urgent waits for one, and what a
//!   path that has become slow still holds is little.
//! - **The tail rule compares times, not only sizes**: a short stream avoids a slow path only if the fast ones would
//!   really be done sooner. A thousand short streams together are bulk.
//! - **CREDIT goes out at a quarter of the window, but at the latest after 512 KiB**: so 16 MiB fill 1 Gbit/s at 100
//!   ms.
//! - **What must not wait takes the fastest subflow, or one that is ready and hardly slower.** The fastest alone is
//!   right only as far as the estimate is; in the simulator, a frame passed by more than one frame of bulk became half
//!   as likely.
//! - **Messages are numbered and go one at a time**: they are the one thing that is not idempotent by itself.
//! - **Datagrams fit one frame.** Larger ones are refused rather than cut in pieces that can be lost one by one.
//! - **What a stream may hold of the session shrinks with what is left**, and faster: both of the peer's memory (its
//!   unread bytes, of the session's credit) and of S (its unsent bytes). So thousands of streams whose readers have
//!   stopped leave the others enough to run at full rate; see `share`. It is the sender that holds back, because only
//!   there nothing has been promised yet: a receiver that kept back stream credit would have to keep it back from all.
//!   For this CREDIT says how much was taken, BLOCKED is remembered until it can be answered, and the session's window
//!   starts at its full size, since nothing of it is used as long as readers keep up.
//! - **Bytes that are no frame end their subflow, lies end the session.** A length above the limit, an unknown
//!   required type or a body that cannot be decoded says nothing of the session's state: the subflow ends with
//!   [`Event::SubflowDown`] and is counted, and what was in flight on it goes elsewhere. The channel is authenticated,
//!   so it is the peer's defect and may come again with the same bytes: the third time ends the session. Credit
//!   exceeded, an end that moves or an acknowledgement of what was never sent end it at once.
//! - **A frame for a stream that is not here is answered, and the answer is safe.** Late duplicates are normal after
//!   the death of a lane, and a RESET with a made-up final size would break streams that are well; so the answer is a
//!   RESET that says only "not here", which an honest peer ignores; see `absent`.
//! - **Known limit:** R is finite. Beside 4,000 readers that stopped at once, or 1,000 that took 100 KB each and then
//!   stopped, a hundred others fill a gigabit (`tests/link_gates.rs`); with several times as many they slow down, to
//!   256 unread bytes for each stream in the end. Raise [`Config::session_window_bytes`] at the receiver and
//!   [`Config::send_bytes_max`] at the sender where that can happen.
//!
//! # How it is proven
//! `tests/link_sim.rs` runs thousands of seeded networks with faults, kills every lane at every frame, and restarts
//! ends; `SEAPROX_SEED=n` replays one. `tests/link_gates.rs` asserts what it makes of paths; `tests/link_trace.rs` what
//! stands on the wire; `tests/alloc/frames.rs` that frames allocate nothing. `scripts/mutate-link` breaks it in 68 ways
//! that the tests must notice, `fuzz/` feeds it noise, and `benches/link.rs` prints what it costs.

mod path;
mod session;
mod stream;
mod wire;

pub use path::estimate::PathStats;
pub use path::scheduler::Mode;
pub use session::commands::{DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX};
pub use session::config::{Config, OPEN_US, OPENS_MAX, RANGES_MAX};
pub use session::error::{Refused, Violation};
pub use session::event::{Event, Progress, Stats};
pub use session::handshake::{LANES_MAX, Proofs};
pub(crate) use session::memory::STREAM_COST;
pub use session::state::Session;
pub use session::transmit::Transmit;
pub use wire::code::Code;
pub use wire::frame;
pub use wire::greeter::HelloReader;
pub use wire::hello::{
    Capability, Hello, HelloAck, Intent, Limits, MAGIC, PROOF_BYTES, Status, VERSION, proof_text, proofs_match,
};
pub use wire::ids::{BootId, Role, STREAMS_EVER, SessionId, StreamId, SubflowId, Time};
pub use wire::open::{Bound, Host, Kind, NAME_BYTES_MAX, Open, TEXT_BYTES_MAX};
pub use wire::outbox::Outbox;
