//! The maker: turns records of the tree into front ends and into the policies of links. The package of the front ends
//! implements it; the tree knows neither their types nor the files of users and keys.

use std::error::Error;
use std::sync::Arc;

use super::front_end::FrontEnds;
use super::link::{Link, Server};
use super::listener::Listener;
use crate::engine::balance::Balancer;
use crate::engine::datagrams::handler::DatagramFrontEnd;
use crate::engine::listener::FrontEnd;
use crate::node::{LinkConfig, LinkServer, ServeConfig};

/// Makes the parts of a process from the records of its configuration. Each record comes with all that it inherits.
///
/// A part is made once for a process, by the thread that applies the configuration. Files are read then, so that an error
/// changes nothing.
pub trait Maker: FrontEnds + Send + Sync {
    /// Makes the front end of a listener, or of a local forward.
    ///
    /// # Errors
    /// The front end is unknown, or a file of the listener cannot be used.
    fn front_end(&self, listener: &Listener) -> Result<MadeFrontEnd, MakeError>;

    /// Makes the configurations of the links to the servers of a link that this node dials, without its forwards.
    ///
    /// # Errors
    /// A file of keys or paths cannot be used.
    fn dial(&self, link: &Link) -> Result<MadeLink, MakeError>;

    /// Makes the configuration of the links that peers dial at a server.
    ///
    /// # Errors
    /// A file of keys cannot be used.
    fn serve(&self, server: &Server) -> Result<MadeServer, MakeError>;

    /// Tells that the parts that were made are in effect, and that these are all records now; `listeners` contains the local
    /// forwards. Parts of other records are gone.
    fn commit(&self, listeners: &[Listener], links: &[Link], servers: &[Server]);

    /// Tells that the parts that were made since the last commit are not used.
    fn discard(&self);
}

/// A front end for all loops.
#[derive(Clone)]
pub struct MadeFrontEnd {
    /// The kind of its connections in log and status.
    pub kind: &'static str,
    /// Makes the front end of one loop, in the thread of that loop.
    pub make: Arc<dyn Fn() -> FrontEnd + Send + Sync>,
    /// Makes the handler of datagrams of one loop, in the thread of that loop; none if the front end carries none.
    pub datagrams: Option<Arc<dyn Fn() -> DatagramFrontEnd + Send + Sync>>,
    /// The targets that it balances its clients among; see [`ListenConfig::balancer`](crate::ListenConfig::balancer).
    pub balancer: Option<Arc<Balancer>>,
    /// True if the system redirects its clients; see [`ListenConfig::redirected`](crate::ListenConfig::redirected).
    pub redirected: bool,
}

/// Makes the configuration of the link to a server, in the thread of its loop. Servers may come and go while it is used.
pub type MadeLink = Box<dyn FnMut(&LinkServer) -> LinkConfig + Send>;

/// Makes the configuration of served links, in the thread of their loop; once for each address.
pub type MadeServer = Arc<dyn Fn() -> ServeConfig + Send + Sync>;

/// The error of a maker.
pub type MakeError = Box<dyn Error + Send + Sync>;
