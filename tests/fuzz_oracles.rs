//! The oracles of the fuzz targets, run without a fuzzer a bounded number of times: with the seeds, with mutations of
//! the seeds and with random bytes. A last test checks that no target is left out.

#[path = "../fuzz/oracles/link_quic.rs"]
mod link_quic;
#[path = "kit/loop/mod.rs"]
mod loop_kit;
#[path = "../fuzz/oracles.rs"]
mod oracles;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

use loop_kit::Random;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Returns the seeds of a target, each with its file name, sorted by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = fs::read_dir(fuzz().join("seeds").join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// Runs an oracle. Panics with the bytes for which it fails.
fn check(name: &str, oracle: oracles::Oracle, from: &str, bytes: &[u8]) {
    if catch_unwind(|| oracle(bytes)).is_err() {
        panic!("{name} does not hold, {from}: {}", bytes.escape_ascii());
    }
}

#[test]
fn every_oracle_holds_for_its_seeds_and_their_mutations() {
    for (name, oracle) in oracles::ALL {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        let mut state = 0x5eed;
        for (file, seed) in &seeds {
            check(name, oracle, file, seed);
            for number in 0..300 {
                check(name, oracle, &format!("mutation {number} of {file}"), &oracles::mutate(seed, &mut state));
            }
            // Every prefix of a seed as well.
            (0..seed.len()).for_each(|len| check(name, oracle, file, &seed[..len]));
        }
    }
}

#[test]
fn every_oracle_holds_for_random_bytes() {
    let mut random = Random(0xb17e5);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        // Text gets further into most parsers than random bytes do.
        let text: Vec<u8> = bytes.iter().map(|byte| b"0 :/.[]a-\r\nGET*1,;="[usize::from(*byte) % 19]).collect();
        for (name, oracle) in oracles::ALL {
            check(name, oracle, "random bytes", &bytes);
            check(name, oracle, "random text", &text);
        }
    }
}

/// Returns the pages of memory of this process, where the system tells.
fn resident_pages() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

/// The oracle has sockets, so it runs less often than the others. Its link lives across all of its inputs.
#[test]
fn a_link_over_quic_outlives_its_seeds_and_their_mutations() {
    if env::var_os(ALONE).is_none() {
        // A process of its own, because the other tests of this one need memory too.
        let name = "a_link_over_quic_outlives_its_seeds_and_their_mutations";
        let mut command = Command::new(env::current_exe().unwrap());
        let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        return assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    let seeds = seeds("link_quic");
    assert!(seeds.len() >= 3);
    let mut state = 0x5eed;
    let mut first = None;
    for (file, seed) in &seeds {
        check("link_quic", link_quic::link_quic, file, seed);
        first.get_or_insert_with(resident_pages);
        for number in 0..40 {
            let input = oracles::mutate(seed, &mut state);
            check("link_quic", link_quic::link_quic, &format!("mutation {number} of {file}"), &input);
        }
    }
    // Nothing of the strangers stays but what their places and the inboxes hold.
    let more = resident_pages().saturating_sub(first.unwrap_or(0)) * 4096;
    assert!(more < 64 << 20, "{more} bytes more");
}

/// Set in the process that runs one test alone.
const ALONE: &str = "SEAPROX_TEST_ALONE";

/// A planted defect: the code that runs the oracles must notice when one fails.
#[test]
fn the_planted_defect_of_the_canary_is_found() {
    let found = seeds("socks_proto").iter().any(|(_, seed)| catch_unwind(|| oracles::canary(seed)).is_err());
    let request = b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50";
    assert!(found || catch_unwind(|| oracles::canary(request)).is_err());
}

#[test]
fn every_oracle_has_a_target_and_every_target_is_built() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let named =
        |line: &str, key: &str| line.strip_prefix(key).map(|value| value.trim_matches([' ', '=', '"']).to_owned());
    let bins: BTreeSet<_> =
        manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.lines().find_map(|line| named(line, "name"))).collect();
    let files: BTreeSet<_> = fs::read_dir(fuzz().join("targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let oracles: BTreeSet<_> =
        oracles::ALL.iter().map(|(name, _)| (*name).to_owned()).chain(["canary".to_owned()]).collect();
    assert_eq!(bins, files);
    // The link's targets drive sessions and contain their own assertions.
    let with_oracles: BTreeSet<_> = files.into_iter().filter(|name| !name.starts_with("link_")).collect();
    assert_eq!(with_oracles, oracles);
    for name in &oracles {
        let text = fs::read_to_string(fuzz().join("targets").join(format!("{name}.rs"))).unwrap();
        assert!(text.contains(&format!("oracles::{name}(data)")), "the target {name} calls its oracle");
    }
}
