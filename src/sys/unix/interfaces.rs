//! The addresses of this host's interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Returns the addresses of the interfaces that are up, except for those of loopback.
///
/// # Errors
/// The system cannot list them.
pub fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let is_wanted = |flags| flags & libc::IFF_UP != 0 && flags & libc::IFF_LOOPBACK == 0;
    addresses(is_wanted)
}

/// Returns true if an interface has this address. Returns false if the system cannot list them.
pub(crate) fn has_address(ip: IpAddr) -> bool {
    addresses(|_| true).is_ok_and(|all| all.contains(&ip))
}

/// Returns the addresses of the interfaces that are down, and of those without carrier where the system tells it by the flag
/// `IFF_RUNNING`, as Linux does. Returns none if the system cannot list them.
pub(crate) fn cut_addresses() -> Vec<IpAddr> {
    let runs = |flags| flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0;
    let (cut, others) = (addresses(|flags| !runs(flags)), addresses(runs));
    let mut cut = cut.unwrap_or_default();
    cut.retain(|ip| others.as_ref().is_ok_and(|others| !others.contains(ip)));
    cut
}

/// Returns the addresses of the interfaces whose flags are wanted.
fn addresses(is_wanted: impl Fn(libc::c_int) -> bool) -> io::Result<Vec<IpAddr>> {
    let mut first = ptr::null_mut();
    syscall!(libc::getifaddrs(&mut first))?;
    let (mut found, mut next) = (Vec::new(), first);
    // SAFETY: each entry of the list is valid until the list is freed, and the last one has no successor.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if is_wanted(entry.ifa_flags as libc::c_int) {
            // SAFETY: the address is null or one that the list holds.
            found.extend(unsafe { address_of(entry.ifa_addr) });
        }
    }
    // SAFETY: the list came from getifaddrs, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// Returns the IP address of a socket address of any family.
///
/// # Safety
/// The pointer is null, or points to an address that has the size of its family.
unsafe fn address_of(addr: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller vouches for the pointer.
    let family = i32::from(unsafe { addr.as_ref() }?.sa_family);
    if family == libc::AF_INET {
        // SAFETY: an address of this family has this type.
        let addr = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
        return Some(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr)).into());
    }
    if family == libc::AF_INET6 {
        // SAFETY: an address of this family has this type.
        let addr = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
        return Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into());
    }
    None
}
