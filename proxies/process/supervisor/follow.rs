//! Following a change of the configuration: the logs of links, and the announced addresses, become those of the new one.

use seaprox::config::{Config, Diff};

use super::Supervisor;
use crate::process::link::{self, prompt};

impl Supervisor {
    /// Makes the logs of links, and the announced addresses, those of the configuration in effect.
    pub(super) fn follow(&mut self, before: &Config) {
        let diff = Diff::between(before, self.running.config());
        self.follow_links(before, &diff);
        self.follow_servers(&diff);
        self.follow_addresses();
        if self.awaited.is_empty() {
            self.announce();
        }
    }

    fn follow_links(&mut self, before: &Config, diff: &Diff) {
        let config = self.running.config();
        let links = self.parts.links();
        for change in diff.links.changed.iter().filter(|change| change.is_renewed) {
            let name = &change.link.name;
            let old = old_name(diff, "link", name);
            for dialed in links.iter().filter(|dialed| dialed.group == *name) {
                // The links of a group have its name in front of theirs.
                let of_member = dialed.name.strip_prefix(name.as_str()).map(|rest| format!("{old}{rest}"));
                let log = self.link_logs.remove(&of_member.unwrap_or_else(|| dialed.name.clone()));
                log.into_iter().for_each(|log| {
                    drop(self.link_logs.insert(dialed.name.clone(), log.of(dialed.peer.clone())));
                });
            }
        }
        let is_there = |name: &str| links.iter().any(|link| link.name == name);
        self.link_logs.retain(|name, _| is_there(name));
        self.awaited.retain(|name| is_there(name));
        self.failures.retain(|name, _| config.link(name).is_some());
        for dialed in &links {
            let Some(now) = config.link(&dialed.group) else { continue };
            match self.link_logs.get_mut(&dialed.name).filter(|log| log.is_of(&dialed.peer)) {
                Some(log) => log.follow(before.link(old_name(diff, "link", &dialed.group)), now),
                None => {
                    // The key was loaded when the link was made.
                    let Ok(own) = self.parts.public_key() else { continue };
                    let log = link::log_of(own, dialed).asking(prompt::can_ask()).tolerant();
                    self.link_logs.insert(dialed.name.clone(), log);
                }
            }
        }
        if !self.link_logs.is_empty() {
            self.watch_network();
        }
    }

    fn follow_servers(&mut self, diff: &Diff) {
        let mut before = std::mem::take(&mut self.served_links);
        for (name, peers) in self.parts.servers() {
            let served = match before.remove(old_name(diff, "server", &name)) {
                Some(served) => served.following(peers),
                None => link::ServedLinks::new(peers),
            };
            self.served_links.insert(name, served);
        }
    }

    /// Announces the addresses that are new, and shows all of them in the status.
    fn follow_addresses(&mut self) {
        let before = self.announced.lines();
        let lines = self.announced.follow(&self.running, &self.parts);
        self.reporter.set_listening(self.announced.addresses());
        match &mut self.pending_lines {
            Some(pending) => {
                // Lines about links stay behind those about addresses.
                pending.retain(|line| !before.contains(line));
                pending.splice(0..0, self.announced.lines());
            }
            None if lines.is_empty() => {}
            None => crate::process::logging::announce(&lines.join("\n")),
        }
    }
}

/// Returns the name that a link or a server had before.
fn old_name<'a>(diff: &'a Diff, kind: &str, name: &'a str) -> &'a str {
    diff.renames.iter().find(|it| it.kind == kind && it.to == name).map_or(name, |it| &it.from)
}
