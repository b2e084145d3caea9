//! Where things run: the node on one processor, the attack and the measurement on another.

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
}

impl Place {
    /// Moves this process to the last processor that it may use. The node gets the first.
    pub fn take() -> Place {
        let processors = usable();
        let place =
            Place { node: processors.first().copied().unwrap_or(0), load: processors.last().copied().unwrap_or(0) };
        // Without the permission the figures are those of a machine that is shared, and the line says where they ran.
        let _ = pin(place.load);
        set_niceness(-20);
        // Where processors are shared out among sessions first, niceness counts within one of them only (sched(7)).
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

    /// Has a command run on the node's processor, with its log going nowhere: the node pays for what it writes, and nobody
    /// has to read it.
    pub fn put_node(&self, command: &mut Command) {
        let node = self.node;
        let nowhere = File::options().write(true).open("/dev/null").ok();
        // SAFETY: between fork and exec the closure makes only async-signal-safe system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if let Some(nowhere) = &nowhere {
                    libc::dup2(nowhere.as_raw_fd(), libc::STDERR_FILENO);
                }
                set_niceness(-20);
                pin(node)
            });
        }
    }
}

/// Has the calling thread give way to what measures: an attack must not slow that down by the processor they share.
pub fn give_way() {
    set_niceness(0);
}

/// Sets the niceness of the calling thread and of all that it starts afterwards, and has it wake up before the others of its
/// processor: a short slice does that (sched_setattr(2)). What is measured goes before whatever else the machine does; without
/// the permission it does not, and the figure without the attack shows that.
fn set_niceness(niceness: i32) {
    let attributes = SchedulingAttributes {
        size: mem::size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice: niceness,
        priority: 0,
        // For an ordinary thread this is the length of its slice.
        runtime_ns: if niceness < 0 { 100_000 } else { 3_000_000 },
        deadline_ns: 0,
        period_ns: 0,
    };
    // SAFETY: the structure has the kernel's layout, says its own size, and outlives the call.
    unsafe {
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
    }
}

/// What sched_setattr(2) takes.
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

fn pin(processor: usize) -> io::Result<()> {
    // SAFETY: a set of zeros is a valid set; it outlives the call and its true size is passed.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, mem::size_of_val(&set), &set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn raise_descriptor_limit() -> io::Result<u64> {
    seaprox::raise_descriptor_limit()
}
