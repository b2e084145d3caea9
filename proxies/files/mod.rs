//! Files and folders over a stream of a link: the protocols `file/1` and `get/1`, and their two ends.
//!
//! The stream is an OPEN of the kind internal to the name [`SERVICE`], over which the node that opens it sends, or to
//! [`GET_SERVICE`], over which it asks for a name first and receives. The sender offers a file or a folder, and the receiver decides.
//! A receiver that has a part tells the length and the digest of each file of it, so a transfer goes on where an earlier one
//! has stopped, if the sender finds the same bytes at the beginning of its file.
//!
//! ```text
//!   sender                                  receiver
//!                                        <- ASK name         with get/1
//!   OFFER name kind entries bytes        ->                  asks its rule
//!                                        <- ACCEPT           a part is there, or not
//!   ENTRIES path size mode time, ...     ->                  at most two of them wait
//!                                        <- PARTS length digest, ...      only if a part is there
//!   START offset, DATA ..., END digest   ->                  for each file, in order
//!   FINISH                               ->                  renames
//!                                        <- DONE             the next OFFER may follow, or the end
//!   FAILED code text                     <->                 instead of any of these
//! ```
//!
//! [`send`], [`get`], [`receive`] and [`share`] are all that others need. `transfer` these, with a thread for each transfer · `event` what
//! they report · `message` the messages and their bytes · `offer` what is sent, and the names that a receiver takes · `fault` why a
//! transfer fails · `source` what a sender reads · `staging` the folder of a receiver, with parts and their journals · `quota` the
//! bytes that it takes · `sender` and `receiver` the two programs · `wire` and `join` the two ends of the socket between the
//! thread and the loop.

mod event;
mod fault;
mod join;
mod message;
mod offer;
mod present;
mod quota;
mod receiver;
mod sender;
mod source;
mod staging;
#[cfg(all(test, unix))]
mod tests;
mod transfer;
mod wire;

pub use event::{Event, Finished, OnEvent, Progress, TransferError};
pub use fault::{Fault, FileError};
pub use offer::{NAME_BYTES_MAX, NameError, Offer, check_name};
pub use quota::Quota;
pub use receiver::Place;
pub use transfer::{Accept, Folders, OnPeerEvent, Peer, Settings, Transfer, get, receive, send, share};

/// The name of the service of a node that receives.
pub const SERVICE: &str = "file/1";
/// The name of the service of a node that shares.
pub const GET_SERVICE: &str = "get/1";
