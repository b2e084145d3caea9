//! Knot DNS with a zone whose records a test changes.

use std::process::{Child, Command, Stdio};

use super::until;

/// A name server of its own on 127.0.0.5, which holds a zone; the resolver of this network asks it.
pub struct Knot {
    server: Child,
    scratch: super::Scratch,
    zone: &'static str,
}

impl Knot {
    /// Starts the name server of the zone `example.test`.
    pub fn start(records: &str) -> Knot {
        Knot::of("example.test", records)
    }

    pub fn of(zone: &'static str, records: &str) -> Knot {
        let scratch = super::Scratch::new();
        let text = format!("$TTL 1\n@ SOA ns host 1 1 1 1 1\n@ NS ns\nns A 127.0.0.5\n{records}");
        scratch.write(&format!("{zone}.zone"), text);
        let folder = scratch.path().display();
        let config = scratch.write(
            "knot.conf",
            format!(
                "server:\n  rundir: {folder}\n  listen: 127.0.0.5@53\n  udp-workers: 1\n  tcp-workers: 1\n  \
                 background-workers: 1\ndatabase:\n  storage: {folder}\nlog:\n- target: stderr\n  any: error\n\
                 zone:\n- domain: {zone}\n  storage: {folder}\n  zonefile-sync: -1\n"
            ),
        );
        std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.5\noptions timeout:2\n").unwrap();
        let server = Command::new("knotd").args(["-c", &config]).stderr(Stdio::null()).spawn().expect("knotd");
        let knot = Knot { server, scratch, zone };
        until("the name server has its zone", || knot.control(&["zone-read", zone]));
        knot
    }

    /// Changes records, all at once: lines of `zone-set` and `zone-unset` (knotc(8)).
    pub fn change(&self, lines: &[&str]) {
        assert!(self.control(&["zone-begin", self.zone]));
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            assert!(self.control(&[&[words[0], self.zone], &words[1..]].concat()), "{line}");
        }
        assert!(self.control(&["zone-commit", self.zone]));
    }

    fn control(&self, args: &[&str]) -> bool {
        let socket = self.scratch.file("knot.sock");
        let ran = Command::new("knotc").args(["-s", &socket]).args(args).output().expect("knotc");
        ran.status.success()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
