//! Files over a stream of a link: the protocol `file/1`, and its two ends.
//!
//! The stream is an OPEN of the kind internal to the name [`SERVICE`]. The sender offers a file, and the receiver decides. A receiver
//! that has a part of the file tells its length and digest, so a transfer goes on where an earlier one has stopped, if the sender
//! finds the same bytes at the beginning of its file.
//!
//! ```text
//!   sender                        receiver
//!   OFFER name size mode time  ->           asks its rule
//!                              <- ACCEPT    the part that is there: length and digest
//!   START offset               ->           the length of the part, or 0
//!   DATA ...                   ->
//!   END digest                 ->           compares, and renames
//!                              <- DONE
//!   FAILED code text           <->          instead of any of these
//! ```
//!
//! `message` the messages and their bytes · `offer` what is sent, and the names that a receiver takes · `fault` why a transfer
//! fails · `sender` and `receiver` the two state machines, without files and sockets · `folder` the folder of a receiver, with
//! partial files and their journals · `outgoing` and `incoming` the handlers of the stream, which join all of them.

mod fault;
mod folder;
mod incoming;
mod message;
mod offer;
mod outgoing;
mod receiver;
mod sender;

pub use fault::{Fault, FileError};
pub use folder::{Folder, Partial};
pub use incoming::{Incoming, Received};
pub use message::{Decoder, Digest, Message};
pub use offer::{NAME_BYTES_MAX, NameError, Offer, check_name};
pub use outgoing::{Outgoing, SendError};
pub use receiver::{Receiver, Step};
pub use sender::{Sender, Want};

/// The name of the service in an OPEN.
pub const SERVICE: &str = "file/1";
