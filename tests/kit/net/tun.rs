//! A TUN device: IP packets that a host sends to it are read here, and packets that are written here arrive in the
//! host.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::Host;

/// The file from which TUN devices are made.
pub const DEVICE: &str = "/dev/net/tun";

/// Makes a device of this name in a host. The device is removed when the file is closed. The file does not block.
#[track_caller]
pub fn create(host: &Host, name: &str) -> File {
    host.inside(|| {
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).expect(DEVICE);
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        assert!(name.len() < request.ifr_name.len());
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: this request reads and writes one ifreq, which outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        assert_eq!(result, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        file
    })
}
