//! Datagrams: listeners that choose a target for each flow or handle it, flows of the caller to targets, and what it sends.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};
use std::rc::Rc;

use seaprox::{
    Core, DatagramFrontEnd, Failure, FlowHandler, FlowRequest, FlowTarget, Id, Loop, Proto, Reason, SharedFlowHandler,
    Target,
};

use crate::current::lend;
use crate::error::Error;
use crate::forward::target_of;
use crate::handle::{self, RawLoop, Record, id, with};
use crate::listener::{keep, listen_datagrams, seaprox_listen_options};
use crate::memory::{Buffer, Bytes, Chars, Out, Struct, Versioned};
use crate::reason::{number_of, reason_of};

/// See the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_datagram_handler {
    size: u32,
    reserved: u32,
    open: Option<
        unsafe extern "C" fn(
            *const c_char,
            usize,
            *const u8,
            usize,
            *mut c_char,
            usize,
            *mut usize,
            *mut c_void,
        ) -> c_int,
    >,
    datagram: Option<unsafe extern "C" fn(RawLoop, u64, *const u8, usize, *mut c_void)>,
    ended: Option<unsafe extern "C" fn(RawLoop, u64, c_int, *mut c_void)>,
}

// SAFETY: integers and functions that may be null, in repr(C), the size first.
unsafe impl Versioned for seaprox_datagram_handler {}

/// The handler of the flows of one listener, one link, or one target.
#[derive(Clone, Copy)]
pub struct DatagramCallbacks {
    handle: usize,
    calls: seaprox_datagram_handler,
    user: *mut c_void,
}

impl DatagramCallbacks {
    /// Reads a handler.
    pub fn read(
        record: &Record,
        handler: Struct<seaprox_datagram_handler>,
        user: *mut c_void,
    ) -> Result<DatagramCallbacks, Error> {
        Ok(DatagramCallbacks { handle: record.handle, calls: handler.read()?, user })
    }

    /// Returns the handler of a flow.
    pub fn shared(self) -> SharedFlowHandler {
        Rc::new(RefCell::new(self))
    }

    /// Returns what chooses the targets of a listener.
    pub fn front_end(self) -> DatagramFrontEnd {
        Box::new(move |_: &mut Core, request: &FlowRequest<'_>| self.choose(request))
    }

    fn choose(&self, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure> {
        let handled = || FlowTarget {
            handler: Some(self.shared()),
            ..FlowTarget::new(Target::Ip(Proto::Udp, request.original_dest.unwrap_or(request.local)))
        };
        let Some(call) = self.calls.open else { return Ok(handled()) };
        let (client, content, mut target, mut len) =
            (request.source.to_string(), request.payload, [0u8; TARGET_BYTES_MAX], 0);
        let room = target.as_mut_ptr().cast();
        let (text, text_len) = (client.as_ptr().cast(), client.len());
        let (bytes, bytes_len) = (content.as_ptr(), content.len());
        // SAFETY: the header says what the function is called with; all of it lives until it returns.
        let answer = unsafe { call(text, text_len, bytes, bytes_len, room, TARGET_BYTES_MAX, &raw mut len, self.user) };
        if answer != 0 {
            return Err(reason_of(answer).unwrap_or(Reason::NotPermitted).into());
        }
        if len == 0 {
            return Ok(handled());
        }
        let wrong = || Failure::new(Reason::Other, "the program has named no target");
        let text = target.get(..len).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(wrong)?;
        Ok(FlowTarget::new(Target::parse(text).map_err(|_| wrong())?))
    }
}

impl FlowHandler for DatagramCallbacks {
    fn datagram(&mut self, core: &mut Loop<'_>, flow: Id, content: &[u8]) {
        let Some(call) = self.calls.datagram else { return };
        let (raw, flow, user) = (handle::raw(self.handle), flow.to_u64(), self.user);
        // SAFETY: as above.
        lend(self.handle, core, || unsafe { call(raw, flow, content.as_ptr(), content.len(), user) });
    }

    fn ended(&mut self, core: &mut Loop<'_>, flow: Id, reason: Reason) {
        let Some(call) = self.calls.ended else { return };
        let (raw, flow, user) = (handle::raw(self.handle), flow.to_u64(), self.user);
        // SAFETY: as above.
        lend(self.handle, core, || unsafe { call(raw, flow, number_of(reason), user) });
    }
}

export! {
    fn seaprox_listen_datagrams(
        raw: RawLoop,
        options: Struct<seaprox_listen_options>,
        handler: Struct<seaprox_datagram_handler>,
        user: *mut c_void,
        listener: Out<u64>,
    ) {
        listener.set(0);
        let options = options.read()?;
        with(raw, |record, core| {
            let callbacks = DatagramCallbacks::read(record, handler, user)?;
            let ids = listen_datagrams(core, &options, callbacks)?;
            listener.set(keep(record, ids)?);
            Ok(0)
        })
    }

    fn seaprox_datagrams_open(
        raw: RawLoop,
        link: u64,
        target: Chars,
        target_len: usize,
        handler: Struct<seaprox_datagram_handler>,
        user: *mut c_void,
        flow: Out<u64>,
    ) {
        flow.set(0);
        let target = target_of(target.of(target_len)?)?.with_proto(Proto::Udp);
        with(raw, |record, core| {
            let callbacks = DatagramCallbacks::read(record, handler, user)?;
            let link = if link == 0 { None } else { Some(id(link)?) };
            match link {
                Some(group) if group.kind() == seaprox::Kind::Group => _ = core.group(group)?,
                Some(link) => _ = core.link(link)?,
                None => {}
            }
            flow.set(core.open_datagrams(link, target, callbacks.shared())?.to_u64());
            Ok(0)
        })
    }

    fn seaprox_datagram_send(raw: RawLoop, flow: u64, content: Bytes, len: usize) {
        let content = content.of(len)?;
        with(raw, |_, core| Ok(core.send_datagram(id(flow)?, content)?))?;
        Ok(0)
    }

    fn seaprox_flow_describe(raw: RawLoop, flow: u64, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        let text = with(raw, |_, core| Ok(core.flow(id(flow)?)?.description))?;
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }

    fn seaprox_flow_close(raw: RawLoop, flow: u64) {
        with(raw, |_, core| Ok(core.close_flow(id(flow)?)?))?;
        Ok(0)
    }
}

/// The longest target that a handler may name: a name with its port.
const TARGET_BYTES_MAX: usize = 272;
