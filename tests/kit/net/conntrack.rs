//! Makes a host forget the connections that pass through it, by one netlink message: the program `conntrack` is not
//! installed everywhere.

use std::io::{Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::Host;

/// Makes the host forget all connections.
#[track_caller]
pub fn flush(host: &Host) {
    let kind = (libc::NFNL_SUBSYS_CTNETLINK << 8 | CT_DELETE) as u16;
    let mut message = Vec::new();
    // struct nlmsghdr, then struct nfgenmsg; without a tuple, the message means all connections.
    message.extend(20_u32.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([libc::AF_UNSPEC as u8, 0, 0, 0]);
    let mut answer = [0; 256];
    host.inside(|| {
        let protocol = Protocol::from(libc::NETLINK_NETFILTER);
        let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol)).expect("netlink");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        socket.write_all(&message).expect("the kernel listens");
        let got = socket.read(&mut answer).expect("an answer");
        // The error follows the header of the answer; zero means none.
        assert!(got >= 20, "a short answer");
        let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        assert_eq!(error, 0, "conntrack: {}", std::io::Error::from_raw_os_error(-error));
    });
}

/// IPCTNL_MSG_CT_DELETE of linux/netfilter/nfnetlink_conntrack.h.
const CT_DELETE: i32 = 2;
