//! The gate: who may use a front end, and where to. All front ends ask here, so a rule means the same in each.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seaprox::auth::{KeysError, Modes};
use seaprox::rules::{Decision, Rules};
use seaprox::{Cx, Failure, PeerNetwork, Permit, Reason, Role, Target};

use crate::frontends::auth_penalties::Guesses;
use crate::frontends::users::Users;
use crate::shared_file::{Look, Shared};

/// Rules and users, shared by all loops.
#[derive(Default)]
pub struct Gate {
    rules: Arc<Rules>,
    users: Option<Shared<Users>>,
    /// Wrong passwords, of the clients of all loops.
    guesses: Mutex<Guesses>,
    /// Whether names are resolved at the far end of a link, so that nobody here sees their addresses.
    over_link: bool,
}

impl Gate {
    /// A gate with these rules, and users from this file.
    ///
    /// # Errors
    /// The file of users cannot be used.
    pub fn new(rules: Rules, users: Option<PathBuf>, modes: Modes) -> Result<Gate, KeysError> {
        let users = users.map(|path| load(path, modes)).transpose()?;
        Ok(Gate { rules: Arc::new(rules), users, ..Gate::default() })
    }

    /// The same gate for clients whose targets are connected at the far end of a link.
    pub fn over_link(self) -> Gate {
        Gate { over_link: true, ..self }
    }

    /// The users, if there must be one.
    pub fn users(&self) -> Option<Arc<Users>> {
        self.users.as_ref().map(Shared::now)
    }

    /// Reads the file of users again. A file with an error changes nothing. Returns true if new content was taken.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn refresh(&self, look: Look) -> Result<bool, KeysError> {
        let Some(file) = &self.users else { return Ok(false) };
        let is_new = file.refresh(look)?;
        if is_new || matches!(look, Look::Now) {
            tell(file);
        }
        Ok(is_new)
    }

    /// Notes that a client has sent a wrong password. Returns how long its answer waits; none if it gets none.
    pub fn failed(&self, cx: &Cx<'_>) -> Option<Duration> {
        let network = PeerNetwork::from(&cx.peer(Role::Source));
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner).failed(network, Instant::now())
    }

    /// Connects a client to a target, if the rules permit it.
    ///
    /// # Errors
    /// `not_permitted`. A name whose addresses are forbidden is told later, through the handler.
    pub fn connect(&self, cx: &mut Cx<'_>, target: Rc<Target>) -> Result<(), Failure> {
        let source = cx.peer(Role::Source).ip().map(|addr| addr.ip());
        let permit = match self.rules.decide(source, &target) {
            Decision::Allow => None,
            Decision::NeedsAddress if self.over_link => return Err(deny(cx, target, UNSEEN)),
            Decision::NeedsAddress => Some(self.permit(source, &target)),
            Decision::Deny => return Err(deny(cx, target, DENIED)),
        };
        cx.connect(target, permit);
        Ok(())
    }

    /// Asks the rules about each address that a name turns out to have.
    fn permit(&self, source: Option<IpAddr>, target: &Target) -> Permit {
        let (rules, name) = (Arc::clone(&self.rules), target.host().map(str::to_owned));
        Rc::new(move |addr| rules.permits(source, name.as_deref(), addr))
    }
}

fn deny(cx: &mut Cx<'_>, target: Rc<Target>, why: &'static str) -> Failure {
    cx.set_asked(target);
    cx.set_detail(why);
    Failure::new(Reason::NotPermitted, why)
}

fn load(path: PathBuf, modes: Modes) -> Result<Shared<Users>, KeysError> {
    let key = Users::new_key().map_err(|_| KeysError::content(&path, "a system with random bytes"))?;
    let file = Shared::load(path, modes, key)?;
    tell(&file);
    Ok(file)
}

/// Says how many users there are, and that their passwords are in the open, if they are.
fn tell(file: &Shared<Users>) {
    let path = file.path().display().to_string();
    // The mode of a pipe or a device is meaningless.
    let is_open = |file: std::fs::Metadata| file.is_file() && file.mode() & 0o004 != 0;
    if std::fs::metadata(file.path()).is_ok_and(is_open) {
        log::warn!(target: "seaprox::gate", file = path; "the file of users can be read by everybody");
    }
    log::info!(target: "seaprox::gate", file = path, users = file.now().count(); "users loaded");
}

const DENIED: &str = "a rule forbids it";
const UNSEEN: &str = "a rule asks for the addresses of the name, and over a link the far end resolves it";
