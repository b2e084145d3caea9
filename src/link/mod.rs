//! The link: one session between two nodes, which carries many streams over one or more subflows.
//!
//! A [`Session`] is a state machine. It owns no socket, reads no clock, draws no random number, and does not depend on
//! the order of a hash table. Its inputs are bytes, time and commands; its outputs are frames, events and a deadline;
//! any order of calls is legal. The driver owns the carriers: each is a *subflow* of one or more *lanes*, which are
//! ordered pipes of bytes (one for TCP, several for QUIC), and may carry messages of its own beside them. After every call the driver does:
//!
//! ```text
//! set_room(subflow, bytes that the carrier takes now)
//! while poll_transmit(now, outbox) returns a lane: write the outbox to that lane
//! while poll_event() returns an event: handle it
//! sleep until poll_timeout(), then handle_timeout(now)
//! ```
//!
//! # For a reader who knows QUIC
//! Streams, ids (even: client, odd: server), final sizes, RESET and STOP, credit for streams and session, MAX_STREAMS
//! and BLOCKED are QUIC's (RFC 9000), without unidirectional streams. The differences:
//! - **No packets.** A subflow is reliable and ordered while it lives, so there are no packet numbers; frames are lost
//!   only when a subflow dies or falls silent. ACK states for each lane how many bytes were processed; see
//!   `path/lane.rs`. Only a datagram on [`MESSAGE_LANE`] may be lost while its subflow lives.
//! - **Any frame may take any subflow.** Frames carry absolute positions, and every control frame is idempotent: it is
//!   written from the state when it is sent, applied by maximum or by presence, and queued again if its lane dies; see
//!   `session/control.rs`.
//! - **A session outlives its subflows.** Without any it is suspended. A new subflow exchanges RESUME_STATE, and the
//!   session continues; see `session/resume.rs`.
//! - **Streams have an opening**: OPEN names a target, OPEN_RESULT tells the result of connecting; data need not wait
//!   for it.
//! - **The scheduling is the core**: which stream (`stream/drr.rs`) on which subflow (`path/scheduler.rs`) is decided
//!   when a subflow can take a frame.
//!
//! # Folders
//! Imports run one way: `session` may use `path`, `stream` and `wire`; `path` and `stream` use only `wire`, and do not
//! know each other.
//!
//! | folder | content |
//! | --- | --- |
//! | `wire/` | [`frame`], `header`, `hello`, `open`, `code`, `ids`: the format; `outbox`: frames to send; `content`: what a sent frame carried |
//! | `stream/` | `state`: one stream; `send` and `recv`: its halves; `credit`, `quota`, `drr`: windows, shares, turns; pools of buffers |
//! | `path/` | `subflow`, `lane`: what is in flight where; `estimate`: delay and rate; `scheduler`: the choice of a subflow |
//! | `session/` | `state`: the record of a session; the other files are its operations: `commands` and `listen` for the application, `handshake`, `resume` and `opening`, `receive`, `transmit`, `flows`, `control`, `reinject`, `acks`, `timers` |
//!
//! # The life of a byte
//! The application passes a chunk to [`Session::write`]; the stream keeps a reference to it. When it is the stream's
//! turn and a subflow has room, a slice of the chunk goes to the [`Outbox`] behind sixteen bytes of header, and the
//! lane's list notes the piece. At the peer, the payload is a slice of its read buffer, in order or behind a gap, until
//! the application takes it ([`Session::readable`], [`Session::consume`]); that opens credit. The peer's ACK pops the
//! lane's list, and a chunk is freed once all of it is acknowledged. If the lane dies first, the rest of its list is
//! queued again, as slices of the same chunks. **Nothing is lost or repeated**, because a sender frees only what a lane
//! ACK or a RESUME_STATE covers, a receiver acknowledges only what it holds, and delivery is by offset.
//!
//! # Memory
//! A session holds at most `S + 3·R + subflows × lane list + lanes × 16 KiB + 65,536 ranges + 4 MiB of datagrams + 3 MiB
//! of pools`, and the streams themselves; the list of a subflow is common to its lanes. S is [`Config::send_bytes_max`]: written and not acknowledged bytes, with 64
//! bytes for each chunk. R is the upper [`Config::session_window_bytes`]: received bytes that were not taken. The
//! factor 3 is the worst case with a malicious peer: a payload keeps its whole read buffer, and is copied once buffers
//! take more than twice the payloads that they keep; with an honest peer it is 1. [`Session::received_cost`] returns
//! the exact amount, and a process limits its sum over all sessions. Pass reads of at most 128 KiB to
//! [`Session::receive`], so that full frames are rarely copied. A read of at least half a record may lie in a slot of a whole
//! one, and counts as that; the memory of any other is that of its bytes. Nothing is allocated by a length that was not checked.
//!
//! # Lessons of the simulator
//! Rules that the simulator showed to be needed:
//! - **A client sends only HELLO before HELLO_ACK.** Early data would save one round trip in the life of a session.
//!   Without it, a first subflow that dies during the handshake can be tried again, and nothing was sent that could be
//!   sent twice.
//! - **A late HELLO must not end a live session.** The HELLO that starts a session may be in flight for long on a
//!   connection that its client has given up. It replaces a session with the same id only if its subflow number is
//!   later ([`Session::is_superseded_by`]). For the same reason RESUME ends the subflows that were dialed before it,
//!   and not those that were dialed after.
//! - **RESUME_STATE may be overtaken.** If another subflow came up meanwhile, acknowledgements may be newer than the
//!   states. A state that lacks acknowledged bytes is an error only if no other subflow was up since the dial.
//! - **An answered PING clears a suspect subflow; acknowledgements do not.** They may come over another subflow and
//!   cover bytes that arrived before the silence. When they counted, a black hole cost half a second instead of a
//!   fifth.
//! - **Acknowledgements avoid a silent subflow** while another one receives. An end that mostly receives has nothing in
//!   flight that would reveal the death of a subflow, and the other end would suspect all subflows at once. It must
//!   notice before the windows of the others are full, because then those fall silent too.
//! - **A subflow that is trusted again takes the frames of the suspects.** While all subflows are suspect, frames are
//!   sent on each of them, so some were sent on the dead one after its frames had been reinjected.
//! - **Several subflows have windows, too**: twice that of a single one. Otherwise a path with a deep buffer delays each
//!   frame behind one of its own by seconds, and a path that dies holds as much.
//! - **The arrival time is one way plus the queue**, where the queue is what is in flight beyond one undisturbed round
//!   of acknowledgement. If all bytes in flight counted, long paths would rank too low.
//! - **A rate that was not measured at its limit rises step by step.** Otherwise a path that was slow once, or first
//!   carried three small frames, is never tried again.
//! - **A path is not used if it adds little, late**: less than a sixteenth of the faster ones, more than a tenth of a
//!   second later. Otherwise the test against the window decides, so that 10 Mbit/s beside a gigabit are not wasted.
//! - **Late frames are reinjected.** When a frame is sent, the time of its acknowledgement is predicted. A path that
//!   becomes two hundred times slower goes on acknowledging, and its timeout grows with its delay, while streams wait
//!   for the frames on it. So a frame that takes twice the expected time is sent again on a path that is on time.
//! - **A path that was never used has no rate.** The kernel derives one from the initial window and the round trip. On
//!   a long path that is so low that nothing would ever be sent on it.
//! - **Frames on a slow path are small**, five milliseconds of its rate. An urgent frame waits for one of them at most,
//!   and a path that has become slow holds little.
//! - **The tail rule compares times, not only sizes**: a short stream avoids a slow path only if the fast ones are
//!   really done sooner. A thousand short streams together are bulk.
//! - **CREDIT is sent at a quarter of the window, or after 512 KiB**: so 16 MiB fill 1 Gbit/s at 100 ms.
//! - **Urgent frames take the fastest subflow, or a ready one that is little slower.** The fastest alone is right only
//!   as far as the estimate is. With this rule, frames that more than one frame of bulk overtook became half as
//!   frequent in the simulator.
//! - **Messages are numbered and sent one at a time**: they are the only frames that are not idempotent.
//! - **A datagram that is longer than a frame goes in parts** (DATAGRAM_PART), which an earlier node skips. The stream of the
//!   flow could carry it too, but a reliable stream delays what follows a loss, and a datagram must not wait. The
//!   longest one has five parts. Their subflow is a reliable connection, so a part is lost only with its subflow.
//! - **The quota of a stream shrinks faster than what is free**, of the peer's memory (the session's credit) and of S.
//!   So thousands of streams whose readers have stopped leave enough for the others to run at full rate; see
//!   `stream/quota.rs`. The sender applies the quota, because only there nothing is promised yet; a receiver would have
//!   to keep stream credit back from all streams. For this purpose CREDIT tells how much was taken, a BLOCKED is
//!   remembered until it can be answered, and the session's window has its full size from the start, since none of it
//!   is used while readers keep up.
//! - **Lanes of one subflow overtake each other**, so the first one goes ahead: the others are used once the peer has
//!   acknowledged what must precede them, HELLO_ACK and RESUME_STATE. A RESUME_STATE that data overtakes would look like
//!   a peer that has lost bytes.
//! - **A silent lane is no silent subflow.** A lane that frames sent later on others have overtaken, and that makes no
//!   progress, has stalled: another subflow takes its frames, if there is one, and the subflow stays in use. One that makes none until
//!   [`Config::dead_us`] ends its subflow, because the bytes of others would keep it alive for ever.
//! - **Malformed bytes end their subflow, false statements end the session.** A length above the limit, an unknown
//!   required type or a body that cannot be decoded says nothing about the session's state: the subflow ends with
//!   [`Event::SubflowDown`] and is counted, and its frames are sent elsewhere. The channel is authenticated, so the
//!   defect is the peer's and may repeat with the same bytes: the third time ends the session. Exceeded credit, an end
//!   that moves and an acknowledgement of bytes that were never sent end it at once.
//! - **A frame for an unknown stream gets a safe answer.** Late duplicates are normal after the death of a lane, and a
//!   RESET with an invented final size would break intact streams. So the answer is a RESET that states only that the
//!   stream is unknown, which an honest peer ignores; see `session/unknown_stream.rs`.
//! - **Known limit:** R is finite. Beside 4,000 readers that stopped at once, or 1,000 that took 100 KB each and then
//!   stopped, a hundred others fill a gigabit (`tests/link/gates.rs`). With several times as many stopped readers the
//!   others slow down, in the end to 256 unread bytes per stream. Raise [`Config::session_window_bytes`] at the
//!   receiver and [`Config::send_bytes_max`] at the sender where that can happen.
//!
//! # Tests
//! `tests/link/sim.rs` runs thousands of seeded networks with faults, over streams, records, and lanes with messages, kills
//! every lane at every frame, and restarts ends; `SEAPROX_SEED=n` replays one. `tests/link/gates.rs` asserts the use of paths, `tests/link/trace.rs` and
//! `tests/link/transcript.rs` the bytes on the wire, and `tests/alloc/frames.rs` that frames allocate nothing.
//! `scripts/mutate-link` breaks the code in 125 ways that the tests must notice, `fuzz/` feeds it noise, and
//! `benches/link.rs` measures its cost.

mod path;
mod session;
mod stream;
mod wire;

pub use path::estimate::PathStats;
pub use path::scheduler::Mode;
pub use session::commands::{DATAGRAM_BYTES_MAX, DatagramDrops, MESSAGE_BYTES_MAX};
pub use session::config::{Config, OPEN_US, OPENS_MAX, RANGES_MAX};
pub use session::error::{Refused, Violation};
pub use session::event::{Event, Progress, RoundTrips, Stats};
pub use session::handshake::{LANES_MAX, MESSAGE_LANE, Proofs};
pub(crate) use session::memory::STREAM_COST;
pub use session::state::Session;
pub use session::transmit::Transmit;
pub use wire::code::Code;
pub use wire::frame;
pub use wire::hello::{
    Capability, Hello, HelloAck, Intent, Limits, MAGIC, PROOF_BYTES, Status, VERSION, proof_text, proofs_match,
};
pub use wire::hello_reader::HelloReader;
pub use wire::ids::{BootId, STREAMS_EVER, SessionId, SessionRole, StreamId, SubflowId, Time};
pub use wire::open::{Bound, ClientAddrs, Host, Kind, NAME_BYTES_MAX, Open, TEXT_BYTES_MAX};
pub use wire::outbox::{Outbox, Piece};
