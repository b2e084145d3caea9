//! The gate: who may use a front end, and where to. All front ends ask here, so a rule means the same in each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use seaprox::rules::{Decision, Rules};
use seaprox::{Cx, Failure, Permit, Reason, Role, Target};

use crate::users::{Users, UsersError};

/// Rules and users, shared by all loops.
#[derive(Default)]
pub struct Gate {
    rules: Arc<Rules>,
    users: Option<UserFile>,
    /// Whether names are resolved at the far end of a link, so that nobody here sees their addresses.
    over_link: bool,
}

/// A file of users that is read anew when the process is told to.
struct UserFile {
    path: PathBuf,
    users: Mutex<Arc<Users>>,
}

impl Gate {
    /// A gate with these rules, and users from this file.
    ///
    /// # Errors
    /// The file of users cannot be used.
    pub fn new(rules: Rules, users: Option<PathBuf>) -> Result<Gate, UsersError> {
        let users = match users {
            Some(path) => Some(UserFile { users: Mutex::new(Arc::new(load(&path)?)), path }),
            None => None,
        };
        Ok(Gate { rules: Arc::new(rules), users, over_link: false })
    }

    /// The same gate for clients whose targets are connected at the far end of a link.
    pub fn over_link(self) -> Gate {
        Gate { over_link: true, ..self }
    }

    /// The users, if there must be one.
    pub fn users(&self) -> Option<Arc<Users>> {
        let file = self.users.as_ref()?;
        Some(Arc::clone(&file.users.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Reads the file of users anew. One that cannot be used changes nothing.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reload(&self) -> Result<(), UsersError> {
        if let Some(file) = &self.users {
            let users = Arc::new(load(&file.path)?);
            *file.users.lock().unwrap_or_else(PoisonError::into_inner) = users;
        }
        Ok(())
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

fn load(path: &std::path::Path) -> Result<Users, UsersError> {
    let users = Users::load(path)?;
    if users.readable_by_others() {
        log::warn!(file = path.display().to_string(); "the file of users can be read by everybody");
    }
    log::info!(file = path.display().to_string(), users = users.count(); "users loaded");
    Ok(users)
}

const DENIED: &str = "a rule forbids it";
const UNSEEN: &str = "a rule asks for the addresses of the name, and over a link the far end resolves it";
