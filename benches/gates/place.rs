//! Places the node on one processor, the attack and the measurement on another.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The two processors.
pub struct Place {
    node: usize,
    load: usize,
    usable: Vec<usize>,
}

impl Place {
    /// Moves this process to the last processor that it may use. The node gets the first.
    pub fn take() -> Place {
        let usable = usable();
        let [node, load] = [usable.first(), usable.last()].map(|processor| processor.copied().unwrap_or(0));
        let place = Place { node, load, usable };
        // Without permission to pin, the figures are those of a shared machine; the first line names the processors.
        let _ = pin(&[place.load]);
        go_first();
        // With autogroups, niceness counts only within one session (sched(7)).
        let _ = std::fs::write("/proc/self/autogroup", "-20");
        let _ = raise_descriptor_limit();
        place
    }

    pub fn said(&self) -> String {
        match self.node == self.load {
            true => format!("one processor only ({}): node and load share it", self.node),
            false => format!("node on processor {}, load and echo on processor {}", self.node, self.load),
        }
    }

    /// Gives the calling thread, and all threads and processes that it starts later, all processors and the normal priority.
    pub fn spread(&self) {
        let _ = pin(&self.usable);
        give_way();
    }

    /// Makes a command run on the node's processor, write its log to /dev/null (the node pays for writing it, and no
    /// reader is needed) and end with the thread that started it.
    pub fn put_node(&self, command: &mut Command) {
        let node = self.node;
        let nowhere = File::options().write(true).open("/dev/null").ok();
        // SAFETY: between fork and exec the closure makes only async-signal-safe system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if let Some(nowhere) = &nowhere {
                    libc::dup2(nowhere.as_raw_fd(), libc::STDERR_FILENO);
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                go_first();
                pin(&[node])
            });
        }
    }
}

/// Gives the calling thread the normal priority: an attack must not take the processor from the measurement.
pub fn give_way() {
    set_policy(libc::SCHED_OTHER, 0);
}

/// Gives the calling thread, and all processes that it starts later, priority over the rest of the machine, so that the
/// figures show the node and not the machine. The kernel keeps a twentieth of each second for the others (sched(7)); a
/// node under attack must leave more than that. Without the permission, the figure without the attack shows the
/// slowdown.
fn go_first() {
    set_policy(libc::SCHED_FIFO, 1);
}

fn set_policy(policy: i32, priority: i32) {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters outlive the call. The number 0 stands for the calling thread.
    unsafe {
        libc::sched_setscheduler(0, policy, &parameters);
    }
}

fn usable() -> Vec<usize> {
    // SAFETY: a set of zeros is a valid set; it outlives the call and its true size is passed.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|processor| libc::CPU_ISSET(*processor, &set)).collect()
    }
}

fn pin(processors: &[usize]) -> io::Result<()> {
    // SAFETY: a set of zeros is a valid set; it outlives the call and its true size is passed.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        processors.iter().for_each(|processor| libc::CPU_SET(*processor, &mut set));
        libc::sched_setaffinity(0, mem::size_of_val(&set), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn raise_descriptor_limit() -> io::Result<u64> {
    seaprox::raise_descriptor_limit()
}
