//! Efficiency in virtual time, where it is exact: how much of what paths offer one stream gets, and at what cost.

mod link_kit;

use link_kit::gates::{self, Figures, GATES};

fn assert_gate(name: &str, figures: Figures) {
    println!("{name:>16}  {figures:?}");
    assert!(figures.share >= 0.95, "{name}: {figures:?}");
    assert!(figures.duplicates <= 0.01, "{name}: {figures:?}");
}

#[test]
fn one_stream_gets_95_percent_of_the_sum() {
    for gate in GATES {
        assert_gate(gate.name, gates::run(gate.paths, false, 4000, 4000));
    }
}

#[test]
fn so_it_does_when_the_kernel_tells_of_the_paths() {
    for gate in GATES {
        assert_gate(gate.name, gates::run(gate.paths, true, 4000, 4000));
    }
}

#[test]
fn a_black_hole_is_noticed_within_half_a_second() {
    for paths in [&[(100, 5), (100, 5)], &[(80, 10), (10, 100)], &[(50, 60), (50, 10)]] {
        let figures = gates::failover(paths);
        println!("{paths:?} {figures:?}");
        assert!(figures.gap_ms <= 500.0, "{paths:?}: {figures:?}");
        assert!(figures.share >= 0.8, "{paths:?}: {figures:?}");
    }
}

#[test]
fn a_gigabit_at_100_ms_is_filled_in_bounded_time() {
    let ms = gates::time_to_fill(1000, 50).expect("never filled");
    println!("filled in {ms} ms");
    assert!(ms <= 3000.0, "filled only after {ms} ms");
}

#[test]
fn a_path_that_degrades_is_used_for_what_it_can() {
    let [before, during, after] = gates::degrade(&[(100, 5), (50, 10)], 5);
    println!("{before:?}\n{during:?}\n{after:?}");
    assert!(before.share >= 0.95 && during.share >= 0.95 && after.share >= 0.95, "{before:?}\n{during:?}\n{after:?}");
}
