//! A host: an empty network namespace, which a test fills.
//!
//! It owns the descriptor that keeps the namespace. It must never change the namespace of a thread that it did not
//! start.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use crate::kit::seaprox::run_command;

/// A host. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    name: String,
    namespace: Arc<OwnedFd>,
}

impl Host {
    /// Makes a host with a loopback device and, where the kernel has it, with cubic as congestion control.
    #[track_caller]
    pub fn new(name: &str) -> Host {
        let made = thread::spawn(|| {
            // SAFETY: unshare takes an integer and concerns this thread only, which ends here.
            let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(left, 0, "unshare: {}", std::io::Error::last_os_error());
            File::open("/proc/thread-self/ns/net").expect("the namespace of this thread")
        });
        let namespace = Arc::new(OwnedFd::from(made.join().expect("a namespace")));
        let host = Host { name: name.to_owned(), namespace };
        println!("host {name}: nsenter --net={}", host.handle());
        host.ip("link set lo up");
        let _ = host.sysctl(CONGESTION_CONTROL, "cubic") || host.sysctl(CONGESTION_CONTROL, "reno");
        // No connection uses the metrics of an earlier one: the path may have changed.
        host.sysctl("net/ipv4/tcp_no_metrics_save", "1");
        // Off whatever the machine's default is: with several paths, packets may come back by another path.
        host.sysctl("net/ipv4/conf/all/rp_filter", "0");
        host.sysctl("net/ipv4/conf/default/rp_filter", "0");
        // No link-local addresses, so no router solicitations: a device carries only the packets of the test.
        host.sysctl("net/ipv6/conf/default/addr_gen_mode", "1");
        host
    }

    /// Makes a command run in this host once it is started.
    pub fn enter(&self, command: &mut Command) {
        let namespace = Arc::clone(&self.namespace);
        // SAFETY: between fork and exec there is one system call, on a descriptor that the closure keeps open.
        unsafe { command.pre_exec(move || set_namespace(&namespace)) };
    }

    /// Returns a command that will run in this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.enter(&mut command);
        command
    }

    /// Runs a command line, split at blanks, which must succeed, and returns its output.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let (program, args) = line.split_once(' ').unwrap_or((line, ""));
        let args: Vec<&str> = args.split_whitespace().collect();
        self.run_with_input(program, &args, "")
    }

    /// Runs `ip` on a line of arguments.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        self.run_with_input("ip", &["-batch", "-"], lines);
    }

    /// Runs `tc` on lines of arguments.
    #[track_caller]
    pub fn tc(&self, lines: &str) {
        self.run_with_input("tc", &["-batch", "-"], lines);
    }

    /// Lets `nft` read these rules.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        self.run_with_input("nft", &["-f", "-"], rules);
    }

    #[track_caller]
    fn run_with_input(&self, program: &str, args: &[&str], input: &str) -> String {
        let mut command = self.command(program);
        command.args(args).stdin(std::process::Stdio::piped());
        let ran = run_command(command, input.as_bytes());
        assert_eq!(ran.code, Some(0), "{}: {program} {args:?} {input}: {}", self.name, ran.err);
        String::from_utf8_lossy(&ran.out).into_owned()
    }

    /// Runs a closure on a thread in this host, to its end. Sockets that it makes stay in this host, wherever they go.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                set_namespace(&self.namespace).expect("setns");
                what()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread in this host that runs a closure.
    pub fn spawn<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let namespace = Arc::clone(&self.namespace);
        thread::spawn(move || {
            set_namespace(&namespace).expect("setns");
            what()
        })
    }

    /// Sets a file in `/proc/sys`; returns false if that is not possible.
    pub fn sysctl(&self, name: &str, value: &str) -> bool {
        self.inside(|| std::fs::write(format!("/proc/sys/{name}"), value).is_ok())
    }

    /// Returns the default congestion control of this host, used by MPTCP and by TCP connections that take no path.
    pub fn congestion_control(&self) -> String {
        self.inside(|| std::fs::read_to_string(format!("/proc/sys/{CONGESTION_CONTROL}")).expect("a sysctl"))
            .trim()
            .to_owned()
    }

    /// Returns the options of a route with which TCP connections use cubic, where the kernel has it: not every machine
    /// lets a namespace make it the default.
    pub fn route_options(&self) -> &'static str {
        let all = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let is_there = self.inside(|| std::fs::read_to_string(all).is_ok_and(|all| all.contains("cubic")));
        if is_there { "congctl cubic" } else { "" }
    }

    /// Returns the path of the namespace for programs such as `ip` and `nsenter`, valid while this process runs.
    pub fn handle(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    /// Returns the kernel's identifier of the namespace.
    pub fn id(&self) -> String {
        let link = std::fs::read_link(self.handle()).expect("an open descriptor");
        link.to_string_lossy().into_owned()
    }
}

fn set_namespace(namespace: &OwnedFd) -> std::io::Result<()> {
    // SAFETY: setns takes two integers and concerns this thread only, which was started for it or is a child process.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const CONGESTION_CONTROL: &str = "net/ipv4/tcp_congestion_control";
