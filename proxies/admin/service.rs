//! The service behind the addresses of the admin server: checks a request, and finds its route.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Reporter;
use super::clients::{Class, Clients, Kept, Ticket};
use super::command::Commands;
use super::guard::{Needs, Rules};
use super::reply::Reply;
use super::routes::{ROUTES, Request, Route};
use super::stream::Stream;

/// The service of one process.
pub struct Service {
    /// The status of the process.
    pub reporter: Arc<Reporter>,
    /// The process, for commands.
    pub commands: Box<dyn Commands>,
    rules: Rules,
    tcp: Arc<Clients>,
    unix: Arc<Clients>,
    in_progress: InProgress,
}

impl Service {
    /// Creates the service of a process.
    pub fn new(reporter: Arc<Reporter>, commands: Box<dyn Commands>, rules: Rules) -> Service {
        let (tcp, unix) = (Arc::clone(&reporter.admin.tcp), Arc::clone(&reporter.admin.unix));
        Service { reporter, commands, rules, tcp, unix, in_progress: InProgress::default() }
    }

    /// Waits until every command that has begun has its answer written, at most for this time.
    pub fn finish(&self, limit: Duration) {
        let InProgress { count, ended } = &self.in_progress;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        // At the limit, the clients that are left see the connection end.
        drop(ended.wait_timeout_while(count, limit, |count| *count > 0));
    }

    /// Returns the clients of the kind of this one.
    pub fn clients_of(&self, stream: &Stream) -> &Arc<Clients> {
        match stream {
            Stream::Tcp(_) => &self.tcp,
            Stream::Unix(_) => &self.unix,
        }
    }

    /// Answers a request, unless its client was disconnected for another one.
    ///
    /// # Errors
    /// The client has left.
    pub fn answer(&self, mut request: Request, stream: &Stream, ticket: &Ticket) -> io::Result<()> {
        self.reporter.admin.requests.fetch_add(1, Ordering::Relaxed);
        let checked = self.check(&mut request, stream);
        let class = checked.as_ref().map_or(Class::Open, |route| route.class);
        let checked = match ticket.enter(class) {
            Ok(()) => checked,
            Err(Kept::Gone) => return Ok(()),
            Err(Kept::Out) => Err(Refused::new(503, "too many clients", Some(("Retry-After", "1".to_owned())))),
        };
        let mut out = match &checked {
            Ok(route) if route.is_endless => stream.endless(),
            Ok(route) if route.class == Class::Granted => stream.until(Instant::now() + RESPONSE_TIME),
            _ => stream.until(Instant::now() + BRIEF_TIME),
        };
        let reply = Reply::new(&mut out, Some(&request.head));
        match checked {
            Ok(route) => {
                let _began = (route.method == "POST").then(|| self.in_progress.begin());
                (route.answer)(self, &request, reply)
            }
            Err(Refused { status, text, field }) => {
                let field = field.as_ref().map(|(name, value)| (*name, value.as_str()));
                reply.error(status, &text, field.as_slice())
            }
        }
    }

    /// Returns the route of a request whose client may have the answer.
    fn check(&self, request: &mut Request, stream: &Stream) -> Result<&'static Route, Refused> {
        let found = find(request);
        let is_endless = found.as_ref().is_ok_and(|route| route.is_endless);
        self.rules.check_origin(&request.head, is_endless, stream)?;
        let route = match found {
            Ok(route) => route,
            Err(None) => return Err(Refused::new(404, "no such path; / lists all", None)),
            Err(Some(allowed)) => {
                return Err(Refused::new(405, format!("expected {allowed}"), Some(("Allow", allowed))));
            }
        };
        request.may_read = self.rules.check_rights(Needs::Reading, &request.head, stream).is_ok();
        self.rules.check_rights(route.needs, &request.head, stream)?;
        Ok(route)
    }
}

/// The commands that have begun and have no answer yet.
#[derive(Default)]
struct InProgress {
    count: Mutex<usize>,
    ended: Condvar,
}

impl InProgress {
    fn begin(&self) -> Began<'_> {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Began(self)
    }
}

/// One command in progress. Dropping it says that its answer is written.
struct Began<'a>(&'a InProgress);

impl Drop for Began<'_> {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_all();
    }
}

/// A request that is refused: the status code, the reason, and a field of the response.
struct Refused {
    status: u16,
    text: String,
    field: Option<(&'static str, String)>,
}

impl Refused {
    fn new(status: u16, text: impl Into<String>, field: Option<(&'static str, String)>) -> Refused {
        Refused { status, text: text.into(), field }
    }
}

impl From<(u16, String)> for Refused {
    fn from((status, text): (u16, String)) -> Refused {
        let field = (status == 401).then(|| ("WWW-Authenticate", "Bearer".to_owned()));
        Refused { status, text, field }
    }
}

/// Returns the route of a request; otherwise the methods of its path, if there is such a path.
fn find(request: &Request) -> Result<&'static Route, Option<String>> {
    let of_path: Vec<_> = ROUTES.iter().filter(|route| route.path == request.head.path).collect();
    let method = if request.head.method == "HEAD" { "GET" } else { &request.head.method };
    match of_path.iter().find(|route| route.method == method) {
        Some(route) => Ok(route),
        None if of_path.is_empty() => Err(None),
        None => {
            let all = of_path.iter().map(|route| if route.method == "GET" { "GET, HEAD" } else { route.method });
            Err(Some(all.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Time for a client to take a response that it has the right to.
const RESPONSE_TIME: Duration = Duration::from_secs(300);
/// Time for a client to take another response.
const BRIEF_TIME: Duration = Duration::from_secs(10);
