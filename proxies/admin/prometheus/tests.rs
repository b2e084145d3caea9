use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::config::{Config, FrontEndConfig, Listener, Running};
use seaprox::metrics::{LinkStats, Stats, Usage};
use seaprox::{Bind, Endpoint, Loops, Proto, Target, Upstream, Workers};

use super::*;
use crate::admin::Reporter;

/// A process in this one, with a listener for each target.
struct Relays {
    running: Running,
    loops: Option<Loops>,
    reporter: Reporter,
}

impl Relays {
    fn start(targets: &[(&str, SocketAddr)]) -> Relays {
        let listener = |(name, to): &(&str, SocketAddr)| {
            let front_end = FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, *to));
            Listener::new(*name, vec![Bind::parse("127.0.0.1:0").unwrap()], front_end)
        };
        Relays::start_with(targets.iter().map(listener).collect())
    }

    fn start_with(listeners: Vec<Listener>) -> Relays {
        let config = Config { listeners, threads: 2, ..Config::default() };
        let workers = Workers::start(1, 16).unwrap();
        let (running, loops) = crate::start(config).unwrap();
        let reporter = Reporter::new("static", Vec::new(), running.remotes().to_vec(), workers);
        Relays { running, loops: Some(loops), reporter }
    }

    fn connect(&self, name: &str) -> TcpStream {
        let listening = self.running.listening();
        let Endpoint::Ip(_, addr) = listening.iter().find(|it| it.name == name).unwrap().addr else { panic!() };
        TcpStream::connect(addr).unwrap()
    }

    /// Waits until a series has this value.
    fn await_series(&self, series: &str, value: f64) {
        let since = Instant::now();
        loop {
            let parsed = parse(&self.reporter.metrics().unwrap());
            let found = parsed.get(series).copied();
            if found == Some(value) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{series} is {found:?}: {parsed:#?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.running.stop();
        self.loops.take().into_iter().for_each(|loops| loops.join().unwrap());
    }
}

/// Parses the text as strictly as a scraper does. Returns each series with its value.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut series, mut kinds, mut current) = (BTreeMap::new(), BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty(), "{line}");
            current = name.to_owned();
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, current, "the type follows the help");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let base = name.split('{').next().unwrap();
        let of = base.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
        assert!(base == current || of == current && kinds[&current] == "histogram", "{line} under {current}");
        assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
    }
    series
}

fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = client.read(&mut buf) {
                    client.write_all(&buf[..count]).unwrap();
                }
            });
        }
    });
    addr
}

#[test]
fn bytes_of_running_connections_are_in_the_series_of_their_listener() {
    let relays = Relays::start(&[("one", echo()), ("two \"quoted\"", echo())]);
    let mut client = relays.connect("one");
    let mut buf = [0; 5];
    client.write_all(b"hello").and_then(|()| client.read_exact(&mut buf)).unwrap();
    relays.await_series("seaprox_bytes_total{listener=\"one\",direction=\"sent\"}", 5.0);
    relays.await_series("seaprox_bytes_total{listener=\"one\",direction=\"received\"}", 5.0);
    relays.await_series("seaprox_connections_active{listener=\"one\",state=\"established\"}", 1.0);
    relays.await_series("seaprox_connections_opened_total{listener=\"one\"}", 1.0);
    relays.await_series("seaprox_connections_opened_total{listener=\"two \\\"quoted\\\"\"}", 0.0);
    relays.await_series("seaprox_connections_opened_total", 0.0);
    relays.await_series("seaprox_connect_duration_seconds_count", 1.0);
    client.write_all(b"again").and_then(|()| client.read_exact(&mut buf)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut buf).unwrap(), 0);
    relays.await_series("seaprox_connections_closed_total{listener=\"one\",reason=\"source_fin\"}", 1.0);
    relays.await_series("seaprox_bytes_total{listener=\"one\",direction=\"sent\"}", 10.0);
    relays.await_series("seaprox_bytes_total{direction=\"sent\"}", 0.0);
    relays.await_series("seaprox_connections_active{listener=\"one\",state=\"established\"}", 0.0);
}

#[test]
fn no_label_has_an_address_of_a_client() {
    let relays = Relays::start(&[("one", echo())]);
    let client = relays.connect("one");
    relays.await_series("seaprox_connections_opened_total{listener=\"one\"}", 1.0);
    let text = relays.reporter.metrics().unwrap();
    assert!(CONTENT_TYPE.contains("version=0.0.4"));
    assert!(!text.contains(&client.local_addr().unwrap().port().to_string()), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_metrics_of_the_process_are_those_of_the_system() {
    let series = parse(&Relays::start(&[]).reporter.metrics().unwrap());
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_threads"] {
        assert!(series[name] >= 1.0, "{name} {}", series[name]);
    }
    assert!(series["process_virtual_memory_bytes"] > series["process_resident_memory_bytes"]);
    assert!(series["process_cpu_seconds_total"] >= 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    // The kernel counts the start in hundredths of a second since its own start, which it tells in whole seconds.
    let age = now - series["process_start_time_seconds"];
    assert!((-2.0..86_400.0).contains(&age), "{age}");
}

#[test]
fn the_manual_lists_every_metric_that_stands_in_no_row_of_the_table() {
    let page = include_str!("../../../docs/metrics.md");
    let row = |(name, kind, labels, help): &(&str, MetricKind, &str, &str)| {
        format!("| `{name}` | {} | {labels} | {help} |", kind.as_str())
    };
    let expected: Vec<String> = OTHERS.iter().map(row).collect();
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `seaprox_")).collect();
    assert_eq!(found, expected, "the rows of docs/metrics.md should be:\n{}", expected.join("\n"));
    // Every family of a scrape stands in the table or among these.
    let relays = Relays::start(&[("one", echo())]);
    let tables = [Stats::METRICS, Usage::METRICS, LinkStats::METRICS].concat();
    let known: BTreeSet<&str> =
        tables.iter().map(|metric| metric.name).chain(OTHERS.iter().map(|other| other.0)).collect();
    let text = relays.reporter.metrics().unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let strange: Vec<&str> = families.filter(|name| !known.contains(name) && !name.starts_with("process_")).collect();
    assert_eq!(strange, Vec::<&str>::new());
}

#[test]
fn each_query_of_the_dashboard_is_about_metrics_and_labels_of_this_page() {
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../examples/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries: Vec<&str> = panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() > 30, "{}", queries.len());
    let tables = [Stats::METRICS, Usage::METRICS, LinkStats::METRICS].concat();
    let mut names: BTreeSet<&str> =
        tables.iter().map(|metric| metric.name).chain(OTHERS.iter().map(|other| other.0)).collect();
    names.extend(["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"]);
    let is_word = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    for query in queries {
        let words = query
            .split(|byte| !is_word(byte))
            .filter(|word| word.starts_with("seaprox_") || word.starts_with("process_"));
        let strange: Vec<&str> =
            words.filter(|word| !names.contains(word) && !names.contains(word.trim_end_matches("_bucket"))).collect();
        assert_eq!(strange, Vec::<&str>::new(), "{query}");
    }
}

#[test]
fn the_targets_of_a_listener_are_counted_by_their_state() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    // The port stays bound and refuses, because nothing listens.
    let refusing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let to = [refusing.local_addr().unwrap().as_socket().unwrap(), listening.local_addr().unwrap()];
    let to: Vec<Upstream> = to.into_iter().map(|addr| Upstream::Target(addr.into())).collect();
    let front_end = FrontEndConfig::new("static").with("to", to);
    let relays = Relays::start_with(vec![Listener::new("web", vec![Bind::parse("127.0.0.1:0").unwrap()], front_end)]);
    relays.await_series("seaprox_targets{listener=\"web\",state=\"up\"}", 2.0);
    let _client = relays.connect("web");
    relays.await_series("seaprox_targets{listener=\"web\",state=\"left_out\"}", 1.0);
    relays.await_series("seaprox_targets{listener=\"web\",state=\"leaving\"}", 0.0);
}

/// Clients that ask while a loop does not answer share the wait for it.
#[test]
fn many_clients_wait_for_a_silent_loop_as_long_as_one() {
    let relays = Relays::start(&[]);
    let (resume, is_over) = std::sync::mpsc::channel::<()>();
    relays.running.remotes()[0].call(move |_| _ = is_over.recv()).unwrap();
    let since = Instant::now();
    let answers = thread::scope(|scope| {
        let reporter = &relays.reporter;
        let ask = |number: usize| match number % 3 {
            0 => reporter.metrics().is_err(),
            1 => reporter.check_loops().is_err(),
            _ => reporter.check_readiness().is_err(),
        };
        let asked: Vec<_> = (0..24).map(|number| scope.spawn(move || ask(number))).collect();
        asked.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    let took = since.elapsed();
    drop(resume);
    assert!(answers.iter().all(|is_error| *is_error));
    // Each question takes 2 s, and one after the other would be 16 s.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
