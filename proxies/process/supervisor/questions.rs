//! The questions to the user on the terminal: about the key of a dialed peer, and about requests of peers.

use std::sync::Arc;

use seaprox::auth::PublicKey;
use seaprox::node::Policy;

use super::{Supervisor, call_all};
use crate::links::fingerprint;
use crate::process::events::ProcessEvent;
use crate::process::exit::{Exit, Failed};
use crate::process::link::prompt;

impl Supervisor {
    /// Asks the user about the next request of a peer, if the terminal is free.
    pub(super) fn ask_next(&mut self) {
        if self.is_asking || self.is_stopping {
            return;
        }
        let Some(approval) = self.approvals.next() else { return };
        let (key, request) = (&approval.key, &approval.request);
        let name = self.parts.servers().first().map_or_else(String::new, |(_, peers)| peers.name(key));
        let text = format!("{name} ({}) wants this node to {request}. May it (yes/no)? ", fingerprint(key));
        let sender = self.sender.clone();
        let answer = move |is_permitted| drop(sender.send(ProcessEvent::RequestAnswered(is_permitted)));
        if prompt::ask(text, answer).is_err() {
            self.request_answered(false);
        }
    }

    pub(super) fn request_answered(&mut self, is_permitted: bool) {
        let Some(approval) = self.approvals.answered() else { return };
        let servers = self.parts.servers();
        servers.iter().for_each(|(_, peers)| peers.remember(&approval.key, &approval.request, is_permitted));
        log::info!(target: "seaprox::process", request = approval.request.to_string(), permitted = is_permitted; "request of a peer answered on the terminal");
        let connections = approval.connections;
        call_all(self.running.remotes(), move |core| {
            // A stream that is gone needs no answer; other loops do not have it.
            connections.iter().for_each(|id| _ = core.permit(*id, is_permitted));
        });
        self.ask_next();
    }

    pub(super) fn key_answered(&mut self, link: &str, key: PublicKey, is_right: bool) {
        self.is_asking = false;
        self.ask_next();
        let Some(peer) = self.parts.link(link).map(|link| Arc::clone(&link.peer)) else { return };
        if !is_right {
            let text = format!("seaprox: the key of {} was not accepted: {}", peer.target(), key.fingerprint());
            return self.exit(Failed::new(Exit::NoPermission, text));
        }
        match peer.accept(&key) {
            Ok(()) => {
                log::info!(target: "seaprox::process", node = peer.target().to_string(), key = key.fingerprint(); "key added to known_nodes");
                // The user does not wait for the next retry.
                call_all(self.running.remotes(), |core| {
                    for link in core.links().iter().filter(|link| link.dialled) {
                        // A link that is up or gone needs no redial.
                        let _ = core.link(link.id).and_then(|mut link| link.redial());
                    }
                });
            }
            Err(error) => self.exit(Failed::new(Exit::Config, format!("seaprox: {error}"))),
        }
    }
}
