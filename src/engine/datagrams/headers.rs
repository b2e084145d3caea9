//! Datagrams with headers: that of a client's datagram is read and removed, and one for the target is put in front of the content.
//!
//! A datagram with a header for its target is copied once and leaves in a call of its own. Flows without headers do not come
//! here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quinn_udp::EcnCodepoint;

use super::flow::Headers;
use super::handler::{DatagramHeader, HeaderReader};
use super::pump::datagrams;
use crate::datagrams::batch::Received;
use crate::datagrams::table::FlowKey;
use crate::engine::core::Core;
use crate::engine::listener::Front;
use crate::types::dropped::Dropped;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

impl Core {
    /// Returns the reader of the headers of a listener's datagrams, if they have headers. A listener that is closed has the one
    /// that it had.
    pub(super) fn header_reader(&mut self, listener: Id) -> Option<HeaderReader> {
        let client = self.datagrams.sockets.get_mut(&listener)?;
        if let Some(Front::Datagrams(Some(handler))) = self.listeners.get(listener).map(|listener| &listener.front) {
            client.reader = handler.header_reader();
        }
        client.reader.clone()
    }

    /// Moves received datagrams, which have headers, to the targets of their clients.
    pub(super) fn take_with_headers(&mut self, listener: Id, entry: &Received<'_>, reader: &HeaderReader) {
        for datagram in datagrams(entry.contents, entry.segment) {
            let Some((flow, content)) = self.flow_with_header(listener, entry, datagram, reader) else {
                self.stats.datagrams_dropped[Dropped::Refused as usize] += 1;
                continue;
            };
            self.send_on(flow, content, content.len().max(1), entry.ecn);
        }
    }

    /// Returns the flow of a datagram, and its content. Opens a flow if there is none. Returns none if the datagram is dropped.
    fn flow_with_header<'a>(
        &mut self,
        listener: Id,
        entry: &Received<'_>,
        datagram: &'a [u8],
        reader: &HeaderReader,
    ) -> Option<(Id, &'a [u8])> {
        let client = self.datagrams.sockets.get(&listener)?;
        let local = client.socket.local();
        let dest = entry.original.unwrap_or_else(|| (entry.dest.unwrap_or(local.ip()), local.port()).into());
        let of_port = FlowKey { owner: listener, client: entry.source, dest };
        if !reader.is_each
            && let Some(flow) = self.datagrams.flows.find(&of_port)
        {
            return Some((flow, datagram));
        }
        let read =
            catch_unwind(AssertUnwindSafe(|| (reader.read)(crate::engine::redirected::plain(entry.source), datagram)));
        let header = match read.unwrap_or_else(|_| Err(Reason::Internal.into())) {
            Ok(header) => header,
            Err(failure) => {
                self.refuse_flow(listener, entry.source, &failure);
                return None;
            }
        };
        let DatagramHeader { length, client, .. } = header;
        let Some(content) = datagram.get(length..) else {
            self.refuse_flow(listener, entry.source, &Failure::from(Reason::ProtocolError));
            return None;
        };
        // The sender takes the place of the local address, so that two of them may tell the same client.
        let key = if reader.is_each { FlowKey { owner: listener, client, dest: entry.source } } else { of_port };
        let flow = self.datagrams.flows.find(&key);
        let flow = flow.or_else(|| self.open_flow(key, entry, Some((header, content))))?;
        Some((flow, content))
    }

    /// Moves datagrams that stand behind one another to the target of a flow, with headers.
    pub(super) fn send_with_headers(&mut self, id: Id, (contents, segment): (&[u8], usize), ecn: Option<EcnCodepoint>) {
        let mut buffer = std::mem::take(&mut self.datagrams.headed);
        for datagram in datagrams(contents, segment) {
            let Some(headers) = self.datagrams.flows.get_mut(id).and_then(|flow| flow.headers.as_mut()) else { break };
            headers.write(datagram, &mut buffer);
            self.send_contents(id, &buffer, buffer.len().max(1), ecn);
        }
        self.datagrams.headed = buffer;
    }
}

impl Headers {
    /// Writes a datagram for the target into the buffer.
    fn write(&mut self, content: &[u8], buffer: &mut Vec<u8>) {
        buffer.clear();
        if let Some(prefix) = &self.prefix {
            buffer.extend_from_slice(&prefix.bytes);
        }
        self.prefix.take_if(|prefix| !prefix.is_each);
        buffer.extend_from_slice(content);
    }
}
