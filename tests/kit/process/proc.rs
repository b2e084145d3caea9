//! Readings of `/proc`: the resources that a process uses.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};

use super::until;

/// Returns the resident memory of a process, in bytes.
pub fn rss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("kB") << 10
}

/// Returns the processor time of a process, in milliseconds (in steps of ten).
pub fn cpu_ms(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let behind_name = text.rsplit(") ").next().expect("a name in parentheses");
    let fields: Vec<&str> = behind_name.split(' ').collect();
    // utime and stime, fields 14 and 15 of proc(5), in hundredths of a second.
    [11, 12].map(|index| fields[index].parse::<u64>().expect("ticks")).iter().sum::<u64>() * 10
}

/// Returns the number of open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count()
}

/// Returns true if a process has a descriptor with this number.
pub fn has_descriptor(pid: u32, number: u64) -> bool {
    fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok()
}

/// Returns the names of a process's threads, sorted.
pub fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let mut names: Vec<_> = tasks.flatten().map(|task| name(task).trim().to_owned()).collect();
    names.sort();
    names
}

/// Returns the processor time of the thread with this name, in milliseconds.
pub fn cpu_ms_of_thread(pid: u32, name: &str) -> u64 {
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten() {
        if fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let text = fs::read_to_string(task.path().join("stat")).expect("a thread");
            let fields: Vec<&str> = text.rsplit(") ").next().expect("a name").split(' ').collect();
            return [11, 12].map(|index| fields[index].parse::<u64>().expect("ticks")).iter().sum::<u64>() * 10;
        }
    }
    panic!("no thread {name}");
}

/// Returns the processors on which the thread with this name may run, as /proc writes them.
pub fn cpus_of_thread(pid: u32, name: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    let is_named = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.trim() == name);
    let task = tasks.into_iter().find(is_named).unwrap_or_else(|| panic!("no thread {name}"));
    let status = fs::read_to_string(task.path().join("status")).expect("a thread");
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("processors");
    cpus.trim().to_owned()
}

/// Returns the first two numbers of the version of the kernel.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns the processors on which this process may run.
pub fn own_cpus() -> Vec<usize> {
    // SAFETY: the set is an array of integers, for which zeros are valid, and sched_getaffinity fills a live one.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set), 0);
        set
    };
    // SAFETY: the numbers are below the size of the set.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Runs this thread on one processor only.
pub fn run_on_cpu(cpu: usize) {
    // SAFETY: the set is an array of integers, for which zeros are valid, and both calls get a live one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
    }
}

/// Sets the soft limit of descriptors of a running process.
pub fn limit_descriptors(pid: u32, soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both pointers are to live values of the right type, or null where prlimit(2) allows it.
    unsafe {
        assert_eq!(libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit), 0);
        limit.rlim_cur = soft.min(limit.rlim_max);
        assert_eq!(libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()), 0);
    }
}

/// Returns duplicates of a process's sockets that are connected to `peer`, for socket options that only the socket
/// itself shows.
pub fn sockets_to(pid: u32, peer: std::net::SocketAddr) -> Vec<socket2::Socket> {
    // SAFETY: both calls take and return integers only, and a result that is not negative is a new descriptor of this
    // process.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    assert!(process >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: see above.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
    let numbers = files.filter_map(|file| file.file_name().to_str()?.parse::<i32>().ok());
    let copy = |number: i32| {
        // SAFETY: see above.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) } as i32;
        // SAFETY: see above.
        (fd >= 0).then(|| socket2::Socket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    };
    let is_it = |socket: &socket2::Socket| socket.peer_addr().is_ok_and(|addr| addr.as_socket() == Some(peer));
    numbers.filter_map(copy).filter(is_it).collect()
}

/// Returns the capacity of a pipe, in bytes.
pub fn pipe_bytes(pipe: &impl AsRawFd) -> usize {
    // SAFETY: fcntl with this command takes and returns integers only.
    let bytes = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
    usize::try_from(bytes).expect("a pipe")
}

/// Returns strace of all threads of a process, with these arguments, once it is attached. The caller kills it.
#[track_caller]
pub fn trace(pid: u32, arguments: &[&str]) -> Child {
    let mut command = Command::new("strace");
    let tracer = command.args(["-f", "-qq"]).args(arguments).args(["-p", &pid.to_string()]).spawn().expect("strace");
    until("the tracer is attached", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    });
    tracer
}
