//! The access policy of a process: which clients may use a front end, and which targets they may connect to.
//!
//! All front ends share one [`AccessPolicy`], so a rule and a user mean the same in each of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seaprox::auth::{KeysError, Modes};
use seaprox::rules::{Decision, Rules};
use seaprox::{
    ConnectOptions, Cx, DescriptorError, Failure, FlowTarget, PeerNetwork, Permit, Proto, Reason, Role, Target,
    VerbError,
};

use super::auth_penalties::AuthPenalties;
use super::users::Users;
use crate::shared_file::{Refresh, SharedFile};

/// Rules and users, shared by all loops.
#[derive(Default)]
pub struct AccessPolicy {
    rules: Arc<Rules>,
    users: Option<SharedFile<Users>>,
    /// Failed logins of the clients of all loops.
    penalties: Mutex<AuthPenalties>,
    /// True if the far end of a link resolves names, so their addresses are unknown here.
    is_over_link: bool,
}

impl AccessPolicy {
    /// Creates a policy from rules and, if given, a users file.
    ///
    /// # Errors
    /// Fails if the users file cannot be read or parsed.
    pub fn new(rules: Rules, users: Option<PathBuf>, modes: Modes) -> Result<AccessPolicy, KeysError> {
        let users = users.map(|path| load_users(path, modes)).transpose()?;
        Ok(AccessPolicy { rules: Arc::new(rules), users, ..AccessPolicy::default() })
    }

    /// Sets that targets are connected at the far end of a link.
    pub fn over_link(self) -> AccessPolicy {
        AccessPolicy { is_over_link: true, ..self }
    }

    /// Returns the users that clients must prove to be; none if no login is required.
    pub fn users(&self) -> Option<Arc<Users>> {
        self.users.as_ref().map(SharedFile::value)
    }

    /// Reads the users file again if it has changed. Returns true if its new content is in use.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; the previous users stay in use.
    pub fn refresh(&self, refresh: Refresh) -> Result<bool, KeysError> {
        let Some(file) = &self.users else { return Ok(false) };
        let is_new = file.refresh(refresh)?;
        if is_new || matches!(refresh, Refresh::Forced) {
            log_users(file);
        }
        Ok(is_new)
    }

    /// Records a failed login of a client. Returns the delay of its answer; none if the client gets no answer.
    pub fn login_failed(&self, cx: &Cx<'_>) -> Option<Duration> {
        let network = PeerNetwork::from(&cx.peer(Role::Source));
        self.penalties.lock().unwrap_or_else(PoisonError::into_inner).login_failed(network, Instant::now())
    }

    /// Connects a client to a target if the rules permit it.
    ///
    /// # Errors
    /// Fails with `not_permitted` if a rule denies the target. If the decision needs the addresses of a name, the handler
    /// gets the failure later, in `connected`.
    pub fn connect(&self, cx: &mut Cx<'_>, target: Rc<Target>) -> Result<(), Failure> {
        self.connect_with(cx, target, ConnectOptions::default())
    }

    /// Does the same as [`AccessPolicy::connect`] for a target that the configuration names, and no client. If there is an
    /// address, the name of the target is not looked up.
    ///
    /// # Errors
    /// See [`AccessPolicy::connect`].
    pub fn connect_configured(
        &self,
        cx: &mut Cx<'_>,
        target: Rc<Target>,
        address: Option<SocketAddr>,
    ) -> Result<(), Failure> {
        self.connect_with(cx, target, ConnectOptions { address, is_configured: true, ..ConnectOptions::default() })
    }

    fn connect_with(&self, cx: &mut Cx<'_>, target: Rc<Target>, options: ConnectOptions) -> Result<(), Failure> {
        let source = cx.peer(Role::Source).ip().map(|addr| addr.ip());
        let permit = match self.rules.decide(source, &target) {
            Decision::Allow => None,
            Decision::NeedsAddress if self.is_over_link => return Err(deny(cx, target, ADDRESSES_UNKNOWN)),
            Decision::NeedsAddress => Some(self.permit(source, &target)),
            Decision::Deny => return Err(deny(cx, target, DENIED)),
        };
        cx.connect(target, ConnectOptions { permit, ..options })
            .map_err(|error| Failure::new(Reason::Internal, error.to_string()))
    }

    /// Waits for a connection from a target if the rules permit it, and returns the address where it may come. If the target has no
    /// address, the rules decide about that of each dest that comes, with the port of the target.
    ///
    /// # Errors
    /// Fails with `not_permitted` if a rule denies the target, or if this node cannot listen.
    pub fn await_dest(&self, cx: &mut Cx<'_>, target: Rc<Target>) -> Result<SocketAddr, Failure> {
        let source = cx.peer(Role::Source).ip().map(|addr| addr.ip());
        let Target::Ip(_, asked) = *target else { return Err(Reason::Other.into()) };
        let permit: Option<Permit> = if asked.ip().is_unspecified() {
            let (rules, port) = (Arc::clone(&self.rules), asked.port());
            Some(Rc::new(move |dest| {
                let dest = SocketAddr::new(dest.ip(), if port == 0 { dest.port() } else { port });
                rules.permits(source, &Target::from(dest), dest)
            }))
        } else if self.rules.decide(source, &target) == Decision::Allow {
            None
        } else {
            return Err(deny(cx, target, DENIED));
        };
        cx.await_dest(Rc::clone(&target), permit).map_err(|error| {
            cx.set_asked(target);
            not_awaited(&error)
        })
    }

    /// Returns true if targets are connected at the far end of a link.
    pub fn is_over_link(&self) -> bool {
        self.is_over_link
    }

    /// Returns the target of a flow of datagrams if the rules permit it.
    ///
    /// # Errors
    /// Fails with `not_permitted` if a rule denies the target.
    pub fn flow(&self, source: SocketAddr, target: Target) -> Result<FlowTarget, Failure> {
        let (source, target) = (Some(source.ip()), target.with_proto(Proto::Udp));
        let denied = |detail| Err(Failure::new(Reason::NotPermitted, detail));
        let permit = match self.rules.decide(source, &target) {
            Decision::Allow => None,
            Decision::NeedsAddress if self.is_over_link => return denied(ADDRESSES_UNKNOWN),
            Decision::NeedsAddress => Some(self.permit(source, &target)),
            Decision::Deny => return denied(DENIED),
        };
        Ok(FlowTarget { permit, ..FlowTarget::new(target) })
    }

    /// Returns a check that applies the rules to each resolved address of a name.
    fn permit(&self, source: Option<IpAddr>, target: &Target) -> Permit {
        let (rules, target) = (Arc::clone(&self.rules), target.clone());
        Rc::new(move |addr| rules.permits(source, &target, addr))
    }
}

/// Returns the failure of a wait that cannot begin.
fn not_awaited(error: &DescriptorError) -> Failure {
    match error {
        DescriptorError::Verb(VerbError::Full) => {
            Failure::new(Reason::LimitReached, "too many clients wait for their dests")
        }
        DescriptorError::Verb(VerbError::Over(reason)) => Failure::from(*reason),
        DescriptorError::System(error) => Failure::from(error),
        error => Failure::new(Reason::Other, error.to_string()),
    }
}

fn deny(cx: &mut Cx<'_>, target: Rc<Target>, detail: &'static str) -> Failure {
    cx.set_asked(target);
    cx.set_detail(detail);
    Failure::new(Reason::NotPermitted, detail)
}

fn load_users(path: PathBuf, modes: Modes) -> Result<SharedFile<Users>, KeysError> {
    let key = Users::new_key().map_err(|_| KeysError::content(&path, "a system with random bytes"))?;
    let file = SharedFile::load(path, modes, key)?;
    log_users(&file);
    Ok(file)
}

/// Logs the number of users, and a warning if every user of this host can read their passwords.
fn log_users(file: &SharedFile<Users>) {
    let path = file.path().display().to_string();
    if std::fs::metadata(file.path()).is_ok_and(|file| seaprox::system::is_readable_by_all(&file)) {
        log::warn!(target: "seaprox::access", file = path; "the users file is readable by every user of this host");
    }
    log::info!(target: "seaprox::access", file = path, users = file.value().count(); "users loaded");
}

const DENIED: &str = "a rule denies the target";
const ADDRESSES_UNKNOWN: &str =
    "a rule needs the addresses of this name, which are unknown here: the far end of the link resolves it";
