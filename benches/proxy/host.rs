//! The machine and the network on which the numbers were measured.

use std::fs;
use std::process::Command;
use std::thread;

use crate::netns::Network;
use crate::sys;

pub struct Host {
    /// Start of the run, in UTC.
    pub recorded: String,
    pub kernel: String,
    pub processor: String,
    pub processors: usize,
    pub congestion_control: String,
    pub network: Vec<String>,
    /// True if the timed ping could get priority over other threads.
    pub ping_hastened: bool,
}

impl Host {
    pub fn of(network: &Network, processors: &[usize]) -> Host {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
        let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output();
        Host {
            recorded: date.map_or(String::new(), |date| String::from_utf8_lossy(&date.stdout).trim().to_string()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string(),
            processor: model.map_or("unknown", |(_, model)| model).to_string(),
            processors: processors.len(),
            congestion_control: network.congestion_control(),
            network: network.notes.clone(),
            ping_hastened: thread::spawn(|| sys::hasten().is_ok()).join().unwrap_or(false),
        }
    }

    pub fn print(&self) {
        println!("kernel      Linux {}", self.kernel);
        println!("processors  {} x {}", self.processors, self.processor);
        if !self.ping_hastened {
            println!("ping        shares its processor as an equal, for want of the privilege to come first");
        }
        for note in &self.network {
            println!("network     {note}");
        }
    }
}
