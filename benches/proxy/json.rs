//! The results as JSON: every sample of every section, with the machine and the configurations.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::host::Host;
use crate::options::{Options, Placement};
use crate::report;
use crate::run::{Roll, Sample};
use crate::sections::Section;
use crate::stats::Spread;

/// Collects the sections that are finished.
pub struct Results {
    sections: Vec<Value>,
}

impl Results {
    pub fn new() -> Results {
        Results { sections: Vec::new() }
    }

    pub fn add(&mut self, section: &Section, placement: Placement, samples: &[Sample]) {
        let all: Vec<Value> = samples.iter().map(sample).collect();
        let ratios: Vec<Value> = section
            .ratios
            .iter()
            .flat_map(|(of, to)| section.metrics.iter().map(move |metric| (of, to, metric)))
            .filter_map(|(of, to, metric)| {
                let spread = report::ratio(samples, of, to, metric)?;
                Some(json!({ "of": of, "to": to, "metric": metric.key, "value": spread_value(spread) }))
            })
            .collect();
        self.sections.push(json!({
            "name": section.name,
            "group": section.group,
            "title": section.title,
            "placement": placement.name(),
            "summary": summary(section, samples),
            "remarks": remarks(section, samples),
            "ratios": ratios,
            "samples": all,
        }));
    }

    /// Writes all that was collected. The file is complete at each moment, also if the run is killed meanwhile.
    pub fn write(&self, host: &Host, options: &Options, roll: &Roll) -> io::Result<()> {
        let peers: Vec<Value> = roll
            .descriptions
            .iter()
            .map(|peer| {
                json!({ "name": peer.name, "version": peer.version, "command": peer.command, "configuration": peer.file })
            })
            .collect();
        let document = json!({
            "schema": 2,
            "host": {
                "recorded": host.recorded,
                "kernel": host.kernel,
                "processor": host.processor,
                "processors": host.processors,
                "congestion_control": host.congestion_control,
                "network": host.network,
                "ping_hastened": host.ping_hastened,
            },
            "settings": {
                "quick": options.quick,
                "rounds": options.rounds,
                "window_seconds": options.window.as_secs_f64(),
                "warmup_seconds": options.warmup.as_secs_f64(),
                "idle_connections": options.idle,
            },
            "peers": peers,
            "left_out": roll.left_out,
            "sections": self.sections,
        });
        let part = options.json.with_extension("part");
        fs::write(&part, format!("{document:#}\n"))?;
        fs::rename(part, &options.json)
    }
}

/// Reads what a run has written.
pub fn read(path: &Path) -> io::Result<Value> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Returns the median, minimum and maximum of each value, for each peer.
fn summary(section: &Section, samples: &[Sample]) -> Value {
    let mut peers = Map::new();
    for peer in section.peers {
        let mut metrics = Map::new();
        for metric in section.metrics {
            if let Some(spread) = report::spread(samples, peer, metric.key) {
                metrics.insert(metric.key.into(), spread_value(spread));
            }
        }
        if !metrics.is_empty() {
            peers.insert(peer.to_string(), metrics.into());
        }
    }
    peers.into()
}

/// Returns the remark on each peer that was disturbed, or not the limit.
fn remarks(section: &Section, samples: &[Sample]) -> Value {
    let measured = section.peers.iter().filter(|peer| samples.iter().any(|sample| sample.peer == **peer));
    let all = measured.map(|peer| (peer.to_string(), report::remark(section, samples, peer)));
    all.filter(|(_, remark)| !remark.is_empty())
        .map(|(peer, remark)| (peer, remark.into()))
        .collect::<Map<_, _>>()
        .into()
}

fn sample(sample: &Sample) -> Value {
    let values: Map<String, Value> = sample.values.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
    json!({ "peer": sample.peer, "round": sample.round, "values": values })
}

fn spread_value(spread: Spread) -> Value {
    json!({ "median": spread.median, "min": spread.min, "max": spread.max })
}
