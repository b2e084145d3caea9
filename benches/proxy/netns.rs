//! The network of the bench: a namespace of its own if the kernel permits it, else the shared loopback.
//!
//! A namespace separates the run from the machine's connections and lets the bench choose the congestion control for
//! itself only (with one that paces its packets, the bench would measure the timers of the pacing). The bench must
//! enter it before it creates the first thread, because only later threads and children are in it.

use std::fs;
use std::io;

use crate::sys;

/// The settings of the network, for the report.
pub struct Network {
    pub private: bool,
    pub notes: Vec<String>,
}

impl Network {
    pub fn enter(wanted: bool) -> Network {
        if !wanted {
            return Network::shared("asked for by --no-netns");
        }
        match sys::unshare_network() {
            Ok(()) => {}
            Err(error) => return Network::shared(&format!("no namespace could be made: {error}")),
        }
        let mut notes = vec!["a network namespace of its own".to_string()];
        if let Err(error) = sys::loopback_up() {
            notes.push(format!("loopback could not be set up: {error}"));
        }
        for (name, value) in SETTINGS {
            notes.push(match set(name, value) {
                Ok(()) => format!("{name} = {value}"),
                Err(error) => format!("{name} stays {}: {error}", get(name)),
            });
        }
        Network { private: true, notes }
    }

    fn shared(why: &str) -> Network {
        let mut notes = vec![format!("the machine's shared loopback ({why})")];
        notes.extend(SETTINGS.iter().map(|(name, _)| format!("{name} is {}", get(name))));
        Network { private: false, notes }
    }

    pub fn congestion_control(&self) -> String {
        get("tcp_congestion_control")
    }
}

fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
}

fn get(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).map_or("unknown".into(), |text| text.trim().into())
}

/// The listening ports are below the range of local ports, so that no outgoing connection uses one of them.
const SETTINGS: [(&str, &str); 3] =
    [("tcp_congestion_control", "reno"), ("ip_local_port_range", "10240 65535"), ("tcp_tw_reuse", "1")];
