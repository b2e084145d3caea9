//! The trait by which a front end chooses the targets of datagrams.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::program::SharedFlowHandler;
use crate::engine::balance::Lease;
use crate::engine::core::Core;
use crate::relay::dial::Permit;
use crate::types::address::Target;
use crate::types::proto::Proto;
use crate::types::reason::Failure;

/// Chooses the target of each new flow of a UDP listener. A listener gets it by
/// [`ListenConfig::datagrams`](crate::ListenConfig::datagrams).
///
/// The loop calls it for the first datagram of a client to an address, and then carries the flow by itself: it resolves the
/// name, connects a socket or opens a stream of the listener's link, keeps the first datagrams meanwhile, moves all others,
/// and ends the flow. A datagram that comes after the end of its flow opens a new one. Datagrams of a flow whose target has a
/// [`FlowTarget::handler`] go to that.
///
/// A panic refuses the flow.
pub trait DatagramHandler {
    /// Returns the target of a new flow. The call must not wait.
    ///
    /// # Errors
    /// Fails if the flow is refused: its datagram is dropped and counted, and a line about the failure goes to the log,
    /// within the limits of lines.
    fn open(&mut self, core: &mut Core, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure>;

    /// Returns the number of a listener for the peers of links, one of which knows the target. Only this crate has such
    /// handlers.
    #[doc(hidden)]
    fn shared(&self) -> Option<u32> {
        None
    }

    /// Returns the reader of the headers that stand in front of the datagrams of clients, if there are any.
    fn header_reader(&self) -> Option<HeaderReader> {
        None
    }
}

/// The reader of the headers that a proxy before this node puts in front of the datagrams of its clients.
#[derive(Clone)]
pub struct HeaderReader {
    /// Reads a header.
    pub read: ReadHeader,
    /// True if each datagram has a header, and the datagrams of several clients may come from one port. False if the first
    /// datagram of each port has one.
    pub is_each: bool,
}

/// Reads the header of a datagram from this sender. A datagram without a valid one is dropped, and the failure is logged within
/// the limits of lines. A panic drops it, too.
pub type ReadHeader = Rc<dyn Fn(SocketAddr, &[u8]) -> Result<DatagramHeader, Failure>>;

/// The header of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader {
    /// The length of the header. The content of the datagram is behind it.
    pub length: usize,
    /// The address of the client. The flow is that of this client for the handler, the log and the limits; its answers go to the
    /// sender of the datagram.
    pub client: SocketAddr,
    /// The address that the client has sent to, if the header tells.
    pub local: Option<SocketAddr>,
}

/// Makes the handler of a UDP listener in one loop.
pub type DatagramFrontEnd = Box<dyn DatagramHandler>;

/// The first datagram of a client.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FlowRequest<'a> {
    /// The address of the client. An IPv4-mapped IPv6 address is given as the IPv4 address.
    pub source: SocketAddr,
    /// The address of this host that the client has sent to.
    pub local: SocketAddr,
    /// The address that the client has sent to before the system redirected it to the listener, if it did.
    pub original_dest: Option<SocketAddr>,
    /// The content of the datagram.
    pub payload: &'a [u8],
}

/// The target of a flow.
pub struct FlowTarget {
    /// The target. Its protocol is taken as UDP.
    pub target: Rc<Target>,
    /// A rule that decides about each address that a name is resolved to. A link refuses a target with such a rule, because
    /// only the far end knows the address.
    pub permit: Option<Permit>,
    /// The address that the name of the target was resolved to already.
    pub address: Option<SocketAddr>,
    /// The user whom the flow belongs to, for the log.
    pub user: Option<Box<str>>,
    /// The use of a target of a [`Balancer`](crate::Balancer), which ends with the flow.
    pub lease: Option<Lease>,
    /// The bytes in front of the content of datagrams to the target.
    pub prefix: Option<FlowPrefix>,
    /// The program itself, in the place of the target, which is then the one for status and log alone.
    pub handler: Option<SharedFlowHandler>,
}

/// The bytes in front of the content of datagrams to a target, such as a header of the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowPrefix {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// True for each datagram, false for the first one of a flow.
    pub is_each: bool,
}

impl FlowTarget {
    /// Makes a target that may have any address.
    pub fn new(target: impl Into<Rc<Target>>) -> FlowTarget {
        let target = target.into();
        FlowTarget { target, permit: None, address: None, user: None, lease: None, prefix: None, handler: None }
    }
}

/// A function is a handler that chooses every target by itself.
impl<F: FnMut(&mut Core, &FlowRequest<'_>) -> Result<FlowTarget, Failure>> DatagramHandler for F {
    fn open(&mut self, core: &mut Core, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure> {
        self(core, request)
    }
}

/// The handler of a listener for the peers of links, which has this number in the loop. Its targets are not used.
pub(crate) struct OfPeers(pub u32);

impl DatagramHandler for OfPeers {
    fn open(&mut self, _: &mut Core, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure> {
        Ok(FlowTarget::new(Target::Ip(Proto::Udp, request.local)))
    }

    fn shared(&self) -> Option<u32> {
        Some(self.0)
    }
}

/// A handler that several listeners share.
#[derive(Clone)]
pub(crate) struct SharedHandler(Rc<RefCell<DatagramFrontEnd>>);

impl SharedHandler {
    /// Makes a handler that can be cloned.
    pub fn new(handler: DatagramFrontEnd) -> SharedHandler {
        SharedHandler(Rc::new(RefCell::new(handler)))
    }
}

impl DatagramHandler for SharedHandler {
    fn open(&mut self, core: &mut Core, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure> {
        self.0.borrow_mut().open(core, request)
    }

    fn header_reader(&self) -> Option<HeaderReader> {
        self.0.borrow().header_reader()
    }
}
