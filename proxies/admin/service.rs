//! The service behind the addresses of the admin server: checks a request, and finds its route.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Reporter;
use super::clients::Clients;
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
}

impl Service {
    /// Creates the service of a process.
    pub fn new(reporter: Arc<Reporter>, commands: Box<dyn Commands>, rules: Rules) -> Service {
        let (tcp, unix) = (Arc::clone(&reporter.admin.tcp), Arc::clone(&reporter.admin.unix));
        Service { reporter, commands, rules, tcp, unix }
    }

    /// Returns the clients of the kind of this one.
    pub fn clients_of(&self, stream: &Stream) -> &Arc<Clients> {
        match stream {
            Stream::Tcp(_) => &self.tcp,
            Stream::Unix(_) => &self.unix,
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The client has left.
    pub fn answer(&self, mut request: Request, stream: &Stream) -> io::Result<()> {
        self.reporter.admin.requests.fetch_add(1, Ordering::Relaxed);
        let found = find(&request);
        let is_endless = found.as_ref().is_ok_and(|route| route.is_endless);
        let mut out = if is_endless { stream.endless() } else { stream.until(Instant::now() + RESPONSE_TIME) };
        let reply = Reply::new(&mut out, Some(&request.head));
        let refuse = |reply: Reply<'_>, (status, text): (u16, String)| {
            let fields: &[(&str, &str)] = if status == 401 { &[("WWW-Authenticate", "Bearer")] } else { &[] };
            reply.error(status, &text, fields)
        };
        if let Err(refused) = self.rules.check_origin(&request.head, is_endless, stream) {
            return refuse(reply, refused);
        }
        let route = match found {
            Ok(route) => route,
            Err(None) => return reply.error(404, "no such path; / lists all", &[]),
            Err(Some(allowed)) => return reply.error(405, &format!("expected {allowed}"), &[("Allow", &allowed)]),
        };
        request.may_read = self.rules.check_rights(Needs::Reading, &request.head, stream).is_ok();
        match self.rules.check_rights(route.needs, &request.head, stream) {
            Ok(()) => (route.answer)(self, &request, reply),
            Err(refused) => refuse(reply, refused),
        }
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

/// Time for a client to take a response.
const RESPONSE_TIME: Duration = Duration::from_secs(300);
