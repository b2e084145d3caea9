//! Two ClientHellos that cross: TLS on a connection that both ends have dialed (simultaneous open, RFC 9293, section 3.5).
//!
//! Both ends are clients of TCP, so both send a ClientHello, and no byte stands before it. The first message of the peer tells
//! the case: an ordinary server answers with a ServerHello, and this end stays what it is. A node that gets a ClientHello
//! compares the two random numbers. The end with the lower one becomes the server and answers the hello of the other end,
//! which drops the hello that it has got and waits for the answer. An own hello that comes back is a reflection and ends the
//! connection.
//!
//! The transcript of TLS holds the hello of the client only. So both ends keep a digest of the two hellos, which goes into the
//! proof of the subflow: an altered hello cannot change the roles unseen.

use std::cmp::Ordering;
use std::sync::Arc;

use ring::digest;
use rustls::server::UnbufferedServerConnection;

use super::Server;
use super::client_hello::{ClientHello, FirstMessage};
use super::error::TlsError;
use super::exporter::Exporter;
use super::machine::Machine;

/// The state of a connection whose peer may be a client, too.
pub(super) struct Crossing {
    /// The own ClientHello in its record.
    hello: Vec<u8>,
    server: Arc<Server>,
}

/// The result of two hellos that have crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crossed {
    /// This end has become the server of TLS.
    pub is_server: bool,
    /// SHA-256 of the ClientHello of the end that stays the client, followed by that of the end that has become the server.
    pub digest: [u8; 32],
}

impl Crossing {
    /// Creates the state of a client that has just made its hello.
    pub fn new(hello: &[u8], server: &Arc<Server>) -> Crossing {
        Crossing { hello: hello.to_vec(), server: Arc::clone(server) }
    }

    /// Decides on the roles, once the peer's hello has come.
    ///
    /// # Errors
    /// [`TlsError::Reflected`] if the two random numbers are equal.
    pub fn decide(&self, theirs: &ClientHello<'_>) -> Result<Crossed, TlsError> {
        let FirstMessage::ClientHello(ours) = FirstMessage::read(&self.hello) else {
            return Err(TlsError::Protocol("this node's hello is none".into()));
        };
        let (is_server, client, server) = match ours.random.cmp(theirs.random) {
            Ordering::Less => (true, theirs, &ours),
            Ordering::Greater => (false, &ours, theirs),
            Ordering::Equal => return Err(TlsError::Reflected),
        };
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(client.message);
        context.update(server.message);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(Crossed { is_server, digest })
    }

    /// Makes the machine of an end that becomes the server.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if the library refuses its configuration.
    pub fn server(&self, exporter: &Arc<Exporter>) -> Result<Machine, TlsError> {
        let mut config = self.server.config.clone();
        config.key_log = Arc::<Exporter>::clone(exporter);
        Ok(Machine::Server(Box::new(UnbufferedServerConnection::new(Arc::new(config))?)))
    }
}
