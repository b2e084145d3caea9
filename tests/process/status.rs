//! The metrics in the status of a process, and their table in the manual (TN-49).

use std::fs;

use seaprox::metrics::{LinkStats, Metric, MetricKind, Stats, Usage};
use serde_json::Value;

use crate::kit;
use kit::link::Keys;
use kit::{Relay, Seaprox, until};

/// Returns the metrics that an object lacks.
fn lacking(object: &Value, metrics: &[Metric]) -> Vec<&'static str> {
    let is_there = |metric: &&Metric| match metric.label {
        Some(_) => object[metric.key].is_object(),
        None if metric.kind == MetricKind::Histogram => object[metric.key]["count"].is_u64(),
        None => object[metric.key].is_u64(),
    };
    metrics.iter().filter(|metric| !is_there(metric)).map(|metric| metric.key).collect()
}

#[test]
fn the_status_has_every_metric() {
    let keys = Keys::new();
    let far = keys.start_far(&[]);
    let near = Seaprox::start(&args(&keys, &far));
    until("the link is up", || near.status()["links"][0]["state"] == "up");
    let status = near.status();
    assert_eq!(lacking(&status, Stats::METRICS), Vec::<&str>::new());
    assert_eq!(lacking(&status["usage"], Usage::METRICS), Vec::<&str>::new());
    assert_eq!(lacking(&status["links"][0], LinkStats::METRICS), Vec::<&str>::new());
}

/// Returns the arguments of a SOCKS listener whose connections go over a link.
fn args<'a>(keys: &'a Keys, far: &Seaprox) -> Vec<&'a str> {
    let mut args = vec!["socks", "--listen", "127.0.0.1:0"];
    args.extend(keys.via(&far.listens(0)).into_iter().map(|word| &*word.leak()));
    args
}

#[test]
fn a_refused_target_is_counted_by_its_reason() {
    let target = format!("127.0.0.1:{}", kit::closed_port());
    let seaprox = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &target]);
    drop(kit::Peer::connect(seaprox.addr(0)));
    until("the failure is counted", || seaprox.status()["connect_failures"]["connection_refused"] == 1);
}

#[test]
fn both_nodes_of_a_link_count_the_same_frames() {
    let keys = Keys::new();
    let far = keys.start_far(&[]);
    let near = Seaprox::start(&args(&keys, &far));
    let counts = |node: &Seaprox| ["frames_sent", "frames_received"].map(|key| node.figure(&format!("/links/0/{key}")));
    until("the link is up", || near.status()["links"][0]["state"] == "up");
    until("each frame that was sent was received", || {
        let ([sent, received], [far_sent, far_received]) = (counts(&near), counts(&far));
        // No frame was under way if the near node counted none while the far node was asked.
        counts(&near) == [sent, received] && sent > 0 && (sent, received) == (far_received, far_sent)
    });
}

#[test]
fn numbers_in_the_text_are_for_people_and_exact_in_json() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    kit::peer::both(&mut client, &[kit::Step::Send(34_249)], &mut server, &[kit::Step::Read(34_249)]);
    until("the bytes are counted", || relay.seaprox.figure("/connections/0/source/bytes_in") == 34_249);
    let text = relay.seaprox.status_text();
    assert!(text.contains("in 34.2 kB out 0 B"), "{text}");
}

#[test]
fn the_manual_lists_every_metric() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let row = |metric: &Metric| {
        let (kind, unit) = (metric.kind.as_str(), metric.unit.as_str());
        let label =
            metric.part.map_or(metric.label.unwrap_or("").to_owned(), |(name, value)| format!("{name}={value}"));
        format!("| `{}` | `{}` | {kind} | {unit} | {label} | {} |", metric.key, metric.name, metric.help)
    };
    let groups = [Stats::METRICS, Usage::METRICS, LinkStats::METRICS];
    let expected: Vec<String> = groups.concat().iter().map(row).collect();
    let found: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `seaprox_")).collect();
    assert_eq!(found, expected, "the rows of docs/metrics.md should be:\n{}", expected.join("\n"));
}

#[test]
fn the_status_lists_the_forwards_with_their_states_and_counts() {
    let keys = Keys::new();
    keys.permit(Some("permit-listen=\"*\""));
    let far = keys.start_far(&[]);
    let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = inner.local_addr().unwrap();
    let (free, used) = (format!("127.0.0.1:0:{to}"), format!("{}:{to}", taken.local_addr().unwrap()));
    let mut args = vec!["link".to_owned()];
    args.extend(keys.via(&far.listens(0)));
    args[1] = "--connect".to_owned();
    args.extend(["-R".to_owned(), free, "-R".to_owned(), used]);
    let near = Seaprox::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let forward = |index: usize| near.status()["forwards"][index].clone();
    until("one forward listens, and the other has failed", || {
        forward(0)["state"] == "listening" && forward(1)["state"] == "failed"
    });
    assert_eq!((&forward(0)["direction"], &forward(0)["to"]), (&"remote".into(), &to.to_string().into()));
    assert_eq!(forward(1)["failure"]["reason"], "address_in_use");
    let at = forward(0)["bound"][0].as_str().unwrap().parse().unwrap();
    let mut client = kit::Peer::connect(at);
    client.run(&[kit::Step::Put(b"12345")]);
    let mut served = kit::Peer::accept(&inner);
    served.run(&[kit::Step::Take(b"12345"), kit::Step::Put(b"123"), kit::Step::Fin]);
    client.run(&[kit::Step::Take(b"123"), kit::Step::Fin]);
    until("the connection is counted", || {
        let seen = forward(0);
        let counts = ["opened", "active", "refused", "bytes_sent", "bytes_received"].map(|key| seen[key].as_u64());
        counts == [1, 0, 0, 5, 3].map(Some)
    });
    let text = near.status_text();
    assert!(text.lines().any(|line| line.starts_with(&format!("forward remote reverse {at} -> {to}"))), "{text}");
}
