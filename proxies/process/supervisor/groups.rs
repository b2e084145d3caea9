//! The links of groups: each has a log of its own, and only the failure of the links to all servers ends the process.

use seaprox::Id;

use super::Supervisor;
use crate::process::exit::Failed;
use crate::process::link::{self, prompt};

impl Supervisor {
    /// Makes the log of a link whose server was found while the process runs.
    pub(super) fn know_link(&mut self, name: &str) {
        if self.link_logs.contains_key(name) {
            return;
        }
        let (Some(dialed), Ok(own)) = (self.parts.link(name), self.parts.public_key()) else { return };
        let links = self.parts.links();
        self.link_logs.retain(|name, _| links.iter().any(|link| link.name == *name));
        self.link_logs.insert(name.to_owned(), link::log_of(own, &dialed).asking(prompt::can_ask()));
        self.watch_network();
    }

    /// Notes that a link is up. The other links of its group need not be awaited.
    pub(super) fn link_is_up(&mut self, name: &str) {
        let (group, links) = self.group_of(name);
        self.failures.get_mut(&group).into_iter().for_each(|failures| failures.recovered(name));
        self.awaited.retain(|other| other == name || !links.contains(other));
    }

    /// Ends the process with the failure of a link, if the links to all servers of its group have failed. Otherwise another
    /// server takes its place.
    pub(super) fn link_failed(&mut self, name: &str, id: Id, failed: Failed) {
        let (group, _) = self.group_of(name);
        let servers = self.running.server_names(&group);
        match self.failures.entry(group).or_default().note(name, servers.as_deref(), failed) {
            Some(failed) => self.exit(failed),
            None => {
                self.link_gives_way(name, id);
                if self.awaited.remove(name) && self.awaited.is_empty() {
                    self.announce();
                }
            }
        }
    }

    /// Lets another server of its group take the place of a link.
    pub(super) fn link_gives_way(&self, name: &str, id: Id) {
        self.running.give_way(&self.group_of(name).0, id);
    }

    /// Returns the record of the configuration that a link belongs to, and the names of all its links.
    fn group_of(&self, name: &str) -> (String, Vec<String>) {
        let group = self.parts.groups().into_iter().find(|group| group.links().iter().any(|link| link.name == name));
        match group {
            Some(group) => (group.name.clone(), group.links().iter().map(|link| link.name.clone()).collect()),
            None => (name.to_owned(), vec![name.to_owned()]),
        }
    }
}
