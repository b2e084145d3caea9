//! The routes of the admin server, in one table: what each path answers, and the rights that it asks for.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};

use serde_json::{Map, Value};

use super::clients::Class;
use super::command::{AdminCommand, Cause, CommandError};
use super::guard::Needs;
use super::head::Head;
use super::prometheus::CONTENT_TYPE;
use super::reply::{JSON, JSON_LINES, Reply};
use super::service::Service;

/// A request that was read.
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
    /// True if the client has the right to read, whatever the route asks for.
    pub may_read: bool,
}

/// A row of the table.
pub struct Route {
    /// The method; HEAD goes where GET goes.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// The rights that it asks for.
    pub needs: Needs,
    /// The class of its clients.
    pub class: Class,
    /// One line for people.
    pub help: &'static str,
    /// True if the response goes on until the client leaves.
    pub is_endless: bool,
    /// Writes the response.
    pub answer: fn(&Service, &Request, Reply<'_>) -> io::Result<()>,
}

/// All routes.
pub static ROUTES: &[Route] = &[
    get("/", Needs::Nothing, "this list", |_, _, reply| reply.text(200, list().trim_end())),
    probe("/healthz", "200 if all event loops and the main thread answer, else 503", healthz),
    probe("/readyz", "200 if the process accepts clients and every link that it dials is up, else 503", readyz),
    get("/metrics", Needs::Reading, "the metrics as text of Prometheus", metrics),
    get(
        "/status",
        Needs::Reading,
        "the status as JSON; ?connections=no leaves the connections out, ?connections=100 has at most so many",
        status,
    ),
    Route {
        is_endless: true,
        ..get("/events", Needs::Reading, "what happens, as it happens: a JSON document a line", events)
    },
    post("/reload", "read the files again, and put what has changed into effect", |service, request, reply| {
        run(service, reply, no_body(request).map(|()| AdminCommand::Reload))
    }),
    post("/drain", "accept nothing more, and stop when the connections have ended", |service, request, reply| {
        run(service, reply, no_body(request).map(|()| AdminCommand::Drain))
    }),
    post("/close", "end a connection, a link or a forward: {\"link\": \"NAME\"}", |service, request, reply| {
        run(service, reply, object(request).and_then(AdminCommand::close))
    }),
    post(
        "/open",
        "open a forward: {\"local\": \"8080:db:80\"}, with \"link\" and \"name\"",
        |service, request, reply| run(service, reply, object(request).and_then(AdminCommand::open)),
    ),
    post(
        "/paths",
        "add or remove a path of a link: {\"add\": \"%wlan0\"}, with \"link\"; lists its paths",
        |service, request, reply| run(service, reply, object(request).and_then(AdminCommand::paths)),
    ),
    post("/log-level", "set the levels of the log: {\"level\": \"debug\"}", |service, request, reply| {
        run(service, reply, object(request).and_then(AdminCommand::log_level))
    }),
];

const fn get(
    path: &'static str,
    needs: Needs,
    help: &'static str,
    answer: fn(&Service, &Request, Reply<'_>) -> io::Result<()>,
) -> Route {
    let class = match needs {
        Needs::Nothing => Class::Open,
        Needs::Reading | Needs::Writing => Class::Granted,
    };
    Route { method: "GET", path, needs, class, help, is_endless: false, answer }
}

const fn probe(
    path: &'static str,
    help: &'static str,
    answer: fn(&Service, &Request, Reply<'_>) -> io::Result<()>,
) -> Route {
    Route { class: Class::Probe, ..get(path, Needs::Nothing, help, answer) }
}

const fn post(
    path: &'static str,
    help: &'static str,
    answer: fn(&Service, &Request, Reply<'_>) -> io::Result<()>,
) -> Route {
    Route { method: "POST", path, needs: Needs::Writing, class: Class::Granted, help, is_endless: false, answer }
}

fn list() -> String {
    let mut text = String::new();
    for route in ROUTES {
        // A write to a text does not fail.
        let _ = writeln!(text, "{:4} {:12} {}", route.method, route.path, route.help);
    }
    text
}

fn healthz(service: &Service, _: &Request, reply: Reply<'_>) -> io::Result<()> {
    match service.reporter.check_loops() {
        Ok(()) if !service.commands.is_there() => reply.text(503, "the main thread does not answer"),
        Ok(()) => reply.text(200, "ok"),
        Err(text) => reply.text(503, &text),
    }
}

/// A client that may not read is not told which links are down: their names are addresses, or names of peers.
fn readyz(service: &Service, request: &Request, reply: Reply<'_>) -> io::Result<()> {
    match service.reporter.check_readiness() {
        Ok(()) => reply.text(200, "ready"),
        Err(why) if request.may_read => reply.text(503, &why.to_string()),
        Err(why) => reply.text(503, &why.without_names()),
    }
}

fn events(service: &Service, request: &Request, reply: Reply<'_>) -> io::Result<()> {
    if request.head.method == "HEAD" {
        return reply.begin(JSON_LINES).map(drop);
    }
    let mut reader = match service.reporter.events.subscribe() {
        Ok(reader) => reader,
        Err(why) => return reply.error(503, why.as_str(), &[("Retry-After", "10")]),
    };
    let mut body = reply.begin(JSON_LINES)?;
    loop {
        body.write_all(reader.next_lines().as_bytes())?;
    }
}

fn metrics(service: &Service, _: &Request, reply: Reply<'_>) -> io::Result<()> {
    match service.reporter.metrics() {
        Ok(text) => reply.whole(200, CONTENT_TYPE, &[], text.as_bytes()),
        Err(error) => reply.text(503, &format!("the event loops do not answer: {error}")),
    }
}

fn status(service: &Service, request: &Request, reply: Reply<'_>) -> io::Result<()> {
    let most = match request.head.query.strip_prefix("connections=").unwrap_or(request.head.query.as_str()) {
        "" | "yes" => usize::MAX,
        "no" => 0,
        number => match number.parse() {
            Ok(most) => most,
            Err(_) => return reply.error(400, "expected ?connections=yes, no, or the most of them", &[]),
        },
    };
    let Some(summary) = service.reporter.summary() else {
        return reply.error(503, "the event loops do not answer", &[]);
    };
    if most == 0 {
        return reply.json(200, &summary);
    }
    let body = reply.begin(JSON)?;
    if body.is_unwanted() {
        return Ok(());
    }
    let mut out = BufWriter::with_capacity(WRITE_BYTES, body);
    service.reporter.write(&mut out, &summary, most)?;
    out.flush()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.end()
}

/// Carries out a command, and writes its result.
fn run(service: &Service, reply: Reply<'_>, command: Result<AdminCommand, CommandError>) -> io::Result<()> {
    match command.and_then(|command| service.commands.run(command)) {
        Ok(result) => reply.json(200, &result),
        Err(error) => reply.error(error.cause.status(), &error.text, &[]),
    }
}

fn no_body(request: &Request) -> Result<(), CommandError> {
    match request.body.trim_ascii() {
        b"" | b"{}" => Ok(()),
        _ => Err(CommandError::new(Cause::Invalid, "expected no body")),
    }
}

/// Returns the JSON object in the body of a request.
fn object(request: &Request) -> Result<Map<String, Value>, CommandError> {
    let invalid = |text: String| CommandError::new(Cause::Invalid, text);
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid("expected a JSON object as the body".to_owned())),
        Err(error) => Err(invalid(format!("expected a JSON object as the body: {error}"))),
    }
}

/// Bytes per write to a client.
const WRITE_BYTES: usize = 64 << 10;
