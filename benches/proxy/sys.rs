//! The calls that the standard library and socket2 do not offer: namespaces, sendfile, epoll, other processes' CPU
//! clocks.
//!
//! This is the only file of the bench with unsafe code. Each function is one system call, or one short group of them
//! that makes sense only together, and returns the kernel's result as an `io::Result`. It must never decide anything:
//! the callers choose processors, signals and descriptors.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::File;
use std::io::{self, Error};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::time::{Duration, Instant};

pub const READABLE: u32 = libc::EPOLLIN as u32;
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;
pub const PEER_ENDED: u32 = libc::EPOLLRDHUP as u32;
/// Events that come unasked.
pub const FAILED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
pub const EDGE: u32 = libc::EPOLLET as u32;

/// A level-triggered epoll instance. A descriptor leaves it when its owner closes it.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes no pointer, and the descriptor that it returns has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT] })
    }

    pub fn add(&self, fd: &impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    pub fn change(&self, fd: &impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Fills `ready` with the tokens of the ready descriptors. An interrupted wait counts as no events.
    pub fn wait(&mut self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        // One millisecond more, because rounding down would spin through the last fraction of a deadline.
        let count = self.wait_ms(timeout.map_or(-1, |t| t.as_millis().min(60_000) as c_int + 1))?;
        ready.extend(self.events[..count].iter().map(|event| event.u64));
        Ok(())
    }

    /// Fills `ready` with the tokens of the ready descriptors and their events. Waits for the first event, or not at all.
    pub fn events(&mut self, ready: &mut Vec<(u64, u32)>, waits: bool) -> io::Result<()> {
        ready.clear();
        let count = self.wait_ms(if waits { -1 } else { 0 })?;
        ready.extend(self.events[..count].iter().map(|event| (event.u64, event.events)));
        Ok(())
    }

    fn wait_ms(&mut self, timeout_ms: c_int) -> io::Result<usize> {
        // SAFETY: the array is alive during the call and its true length is passed.
        let count = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_PER_WAIT as c_int, timeout_ms)
        };
        match check(count) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn control(&self, operation: c_int, fd: &impl AsFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: both descriptors are borrowed and therefore open; the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }
}

/// Moves the calling thread into a new network namespace. Only threads created afterwards are in it as well.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare takes no pointer.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Sets up the loopback interface, which is down in a new namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request) }).map(drop)
}

/// Creates an anonymous file of `len` bytes in memory. All pages are touched, so that no measurement includes page
/// faults.
pub fn memory_file(len: usize) -> io::Result<File> {
    // SAFETY: the name is a C string literal, and the descriptor that is returned has no other owner.
    let file =
        unsafe { File::from_raw_fd(check(libc::memfd_create(c"seaprox-bench".as_ptr(), libc::MFD_CLOEXEC as _))?) };
    io::Write::write_all(&mut &file, &vec![0x5a; len])?;
    Ok(file)
}

/// Sends up to `len` bytes of `file` from its start without a copy. Returns how many the socket took.
pub fn send_file(socket: &impl AsFd, file: &File, len: usize) -> io::Result<usize> {
    let mut offset: libc::off_t = 0;
    // SAFETY: the offset outlives the call, and both descriptors are borrowed and therefore open.
    let sent = unsafe { libc::sendfile(socket.as_fd().as_raw_fd(), file.as_raw_fd(), &mut offset, len) };
    if sent < 0 { Err(Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Reads up to `len` bytes from a TCP socket and discards them in the kernel, without a copy. Returns how many.
pub fn discard(socket: &impl AsFd, len: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, so a null one is never dereferenced.
    let taken = unsafe { libc::recv(socket.as_fd().as_raw_fd(), ptr::null_mut(), len, libc::MSG_TRUNC) };
    if taken < 0 { Err(Error::last_os_error()) } else { Ok(taken as usize) }
}

/// Accepts a connection that does not block and is not inherited.
pub fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for, and the descriptor that is returned has no other owner.
    unsafe {
        let fd = check(libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags))?;
        Ok(TcpStream::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// Makes a socket that connects end the handshake with its first bytes.
pub fn defer_handshake(socket: &impl AsFd) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1)
}

/// A pipe through which bytes pass from one socket to another without a copy.
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    pub fn new(len: usize) -> io::Result<Pipe> {
        let mut fds = [0; 2];
        // SAFETY: the array has room for two descriptors, which have no other owner.
        unsafe {
            check(libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC))?;
            let pipe = Pipe { out: OwnedFd::from_raw_fd(fds[0]), into: OwnedFd::from_raw_fd(fds[1]) };
            check(libc::fcntl(fds[1], libc::F_SETPIPE_SZ, len as c_int))?;
            Ok(pipe)
        }
    }

    /// Moves up to `len` bytes from a socket into the pipe.
    pub fn fill(&self, socket: &impl AsFd, len: usize) -> io::Result<usize> {
        splice(socket, &self.into, len)
    }

    /// Moves up to `len` bytes from the pipe to a socket.
    pub fn drain(&self, socket: &impl AsFd, len: usize) -> io::Result<usize> {
        splice(&self.out, socket, len)
    }
}

fn splice(from: &impl AsFd, to: &impl AsFd, len: usize) -> io::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are borrowed and therefore open; no offsets are passed.
    let moved = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, flags) };
    if moved < 0 { Err(Error::last_os_error()) } else { Ok(moved as usize) }
}

/// Makes the kernel divide what one call sends into datagrams of `len` bytes, as senders of QUIC do (UDP_SEGMENT).
pub fn segment(socket: &impl AsFd, len: u16) -> io::Result<()> {
    set_number(socket, libc::SOL_UDP, libc::UDP_SEGMENT, len.into())
}

fn set_number(socket: &impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value outlives the call and its true size is passed.
    let code = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), len) };
    check(code).map(drop)
}

/// Buffers for datagrams that are received and sent back in one call each.
pub struct Batch {
    buffers: Vec<[u8; DATAGRAM_LEN_MAX]>,
    addrs: Vec<libc::sockaddr_in>,
    lens: Vec<usize>,
}

impl Batch {
    pub fn new() -> Batch {
        // SAFETY: sockaddr_in is plain data, for which all zeroes is a valid value.
        let addr: libc::sockaddr_in = unsafe { mem::zeroed() };
        let buffers = vec![[0; DATAGRAM_LEN_MAX]; DATAGRAMS_PER_CALL];
        Batch { buffers, addrs: vec![addr; DATAGRAMS_PER_CALL], lens: Vec::new() }
    }

    /// Receives the datagrams that wait on a socket of IPv4, up to a limit. Returns how many.
    pub fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        self.lens.clear();
        self.lens.resize(DATAGRAMS_PER_CALL, DATAGRAM_LEN_MAX);
        let count = self.call(socket, 0, DATAGRAMS_PER_CALL, true)?;
        self.lens.truncate(count);
        Ok(count)
    }

    /// Returns the datagrams that the last call received.
    pub fn received(&self) -> impl Iterator<Item = &[u8]> {
        self.buffers.iter().zip(&self.lens).map(|(buffer, len)| &buffer[..*len])
    }

    /// Sends the datagrams from `from` to `to` back to their senders. Returns how many the kernel took.
    pub fn send_back(&mut self, socket: &impl AsFd, from: usize, to: usize) -> io::Result<usize> {
        self.call(socket, from, to, false)
    }

    fn call(&mut self, socket: &impl AsFd, from: usize, to: usize, receives: bool) -> io::Result<usize> {
        // SAFETY: these structures are plain data, for which all zeroes is a valid value.
        let (mut parts, mut messages): ([libc::iovec; DATAGRAMS_PER_CALL], [libc::mmsghdr; DATAGRAMS_PER_CALL]) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let to = to.min(self.lens.len());
        for index in from..to {
            parts[index].iov_base = self.buffers[index].as_mut_ptr().cast();
            parts[index].iov_len = self.lens[index];
            let header = &mut messages[index].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (&raw mut parts[index], 1);
            header.msg_name = (&raw mut self.addrs[index]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        let (fd, count) = (socket.as_fd().as_raw_fd(), (to - from) as libc::c_uint);
        let first = messages[from..to].as_mut_ptr();
        // SAFETY: each message names a buffer and an address of `self`, which outlive the call, with their true sizes.
        let done = check(unsafe {
            match receives {
                true => libc::recvmmsg(fd, first, count, libc::MSG_DONTWAIT, ptr::null_mut()),
                false => libc::sendmmsg(fd, first, count, libc::MSG_DONTWAIT),
            }
        })? as usize;
        if receives {
            for (len, message) in self.lens.iter_mut().zip(&messages[..done]) {
                *len = message.msg_len as usize;
            }
        }
        Ok(done)
    }
}

/// Makes `bind` set only the source address, and `connect` choose the port. Ports are then unique for each pair of
/// addresses, not only for each source address.
pub fn bind_address_only(socket: &impl AsFd) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Returns the CPU time of a process in all its threads, ended ones included, in nanoseconds.
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock = 0;
    // SAFETY: the clock id outlives the call.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if code != 0 {
        return Err(Error::from_raw_os_error(code));
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec outlives the call.
    check(unsafe { libc::clock_gettime(clock, &mut now) })?;
    Ok(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Returns the number of ticks in a second, for the CPU times in /proc.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes no pointer.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as u64 } else { 100 }
}

/// Returns the processors that this process may run on.
pub fn processors() -> Vec<usize> {
    // SAFETY: cpu_set_t is plain data, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set outlives the call and its true size is passed.
    if unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: CPU_ISSET reads inside the set for every index below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Ties the calling thread, and all that it starts afterwards, to these processors.
pub fn pin(processors: &[usize]) -> io::Result<()> {
    let set = processor_set(processors);
    // SAFETY: the set outlives the call and its true size is passed.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) }).map(drop)
}

/// Gives the calling thread priority over the other threads of its processor when it wakes up, until it ends.
///
/// This is the highest niceness with the shortest slice, not a real-time policy: the kernel grants ordinary threads a
/// share of each second before real-time ones, and then a ping would wait for tens of milliseconds.
pub fn hasten() -> io::Result<()> {
    let attributes = SchedulingAttributes {
        size: mem::size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: -20,
        priority: 0,
        // For an ordinary thread this is the length of its slice.
        runtime_ns: 100_000,
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: the structure has the kernel's layout, says its own size, and outlives the call.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    check(code as c_int).map(drop)
}

/// The kernel's `struct sched_attr`, in its first version.
#[repr(C)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Sets the niceness of the calling thread, and of all that it starts afterwards.
pub fn set_niceness(niceness: i32) -> io::Result<()> {
    // SAFETY: setpriority takes no pointer.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) }).map(drop)
}

/// Raises the soft limit of open descriptors to the hard one. Returns the hard limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the limit outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(limit.rlim_cur)
}

/// Makes the command's process lead a group of its own on these processors, with no signal blocked, and die with the
/// calling thread.
pub fn prepare_child(command: &mut Command, processors: &[usize]) {
    let set = processor_set(processors);
    let pinned = !processors.is_empty();
    // SAFETY: between fork and exec the closure makes only async-signal-safe system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()))?;
            check(libc::setpgid(0, 0))?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if pinned {
                check(libc::sched_setaffinity(0, mem::size_of_val(&set), &set))?;
            }
            Ok(())
        });
    }
}

/// Kills a process and the group that it leads. A process that has already ended is no error.
pub fn kill_group(pid: u32) {
    // SAFETY: kill takes no pointer; a pid of zero or one, which would mean other processes, is refused.
    unsafe {
        if pid > 1 {
            libc::kill(-(pid as libc::pid_t), libc::SIGKILL);
            libc::kill(pid as libc::pid_t, libc::SIGKILL);
        }
    }
}

/// Blocks the signals that end the bench, in this thread and in all that it creates, so that one thread can wait for
/// them.
pub fn block_stop_signals() -> io::Result<()> {
    let set = stop_signals();
    // SAFETY: the set outlives the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(Error::from_raw_os_error(code)),
    }
}

/// Waits for one of the blocked signals. Returns its number, or `None` after `timeout`.
pub fn wait_for_stop_signal(timeout: Duration) -> Option<c_int> {
    let set = stop_signals();
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = libc::timespec { tv_sec: left.as_secs() as libc::time_t, tv_nsec: left.subsec_nanos().into() };
        // SAFETY: the set and the time outlive the call; no details of the signal are asked for.
        let signal = unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &left) };
        if signal > 0 {
            return Some(signal);
        }
        // Other signals, such as a child's end, interrupt the wait without being waited for.
        if Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that sigemptyset initialises before it is used.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

fn processor_set(processors: &[usize]) -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is plain data, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for cpu in processors.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below CPU_SETSIZE, hence inside the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    set
}

fn check(code: c_int) -> io::Result<c_int> {
    if code < 0 { Err(Error::last_os_error()) } else { Ok(code) }
}

const EVENTS_PER_WAIT: usize = 256;
const DATAGRAMS_PER_CALL: usize = 64;
const DATAGRAM_LEN_MAX: usize = 2048;
