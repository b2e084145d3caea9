//! The table of the gates.

use crate::network::{AUTO, QUIC, TCP};
use crate::{
    Gate, Limit, Run, auto, datagram_strangers, echoes, emulation, floods, frames, moments, rates, relay, replace,
    scenes, strangers,
};

pub const GATES: &[Gate] = &[
    Gate { name: "key-opens", run: floods::opens, ..ECHOES },
    Gate { name: "key-listens", run: floods::listens, ..ECHOES },
    Gate { name: "key-resets", run: floods::resets, ..ECHOES },
    Gate { name: "key-unopened", run: floods::unopened, ..ECHOES },
    Gate { name: "key-pieces", run: floods::pieces, ..ECHOES },
    Gate { name: "key-connections", run: floods::connections, ..ECHOES },
    Gate {
        name: "key-connections-end",
        figure: "longest echo",
        unit: "ms",
        limit: Limit::AtMost(20.0),
        run: floods::ends,
    },
    Gate { name: "key-names", run: floods::names, ..ECHOES },
    Gate {
        name: "key-names-lookup",
        figure: "lookup of another key",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: floods::lookups,
    },
    Gate { name: "stranger-silent-one", run: strangers::silent_one, ..LET_IN },
    Gate { name: "stranger-silent-many", run: strangers::silent_many, ..LET_IN },
    Gate { name: "stranger-one-byte-one", run: strangers::one_byte_one, ..LET_IN },
    Gate { name: "stranger-one-byte-many", run: strangers::one_byte_many, ..LET_IN },
    Gate { name: "stranger-hellos-one", run: strangers::hellos_one, ..LET_IN },
    Gate { name: "stranger-hellos-many", run: strangers::hellos_many, ..LET_IN },
    Gate { name: "stranger-few-silent", run: strangers::few_silent, ..LET_IN },
    Gate { name: "stranger-few-one-byte", run: strangers::few_one_byte, ..LET_IN },
    Gate { name: "stranger-few-hellos-one", run: strangers::few_hellos_one, ..LET_IN },
    Gate { name: "stranger-few-hellos-many", run: strangers::few_hellos, ..LET_IN },
    Gate { name: "stranger-quic-garbage", run: datagram_strangers::garbage_many, ..LET_IN },
    Gate { name: "stranger-quic-initials", run: datagram_strangers::initials_many, ..LET_IN },
    Gate { name: "stranger-quic-hellos-one", run: datagram_strangers::hellos_one, ..LET_IN },
    Gate { name: "stranger-quic-hellos-many", run: datagram_strangers::hellos_many, ..LET_IN },
    Gate { name: "stranger-quic-echo-hellos", run: datagram_strangers::echo_hellos, ..ECHOES },
    Gate { name: "far-node-replaced", run: replace::far_node, ..CONNECTS },
    Gate { name: "stranger-echo-silent", run: strangers::echo_silent, ..ECHOES },
    Gate { name: "stranger-echo-one-byte", run: strangers::echo_one_byte, ..ECHOES },
    Gate { name: "stranger-echo-hellos", run: strangers::echo_hellos, ..ECHOES },
    Gate {
        name: "path-stream",
        figure: "rate of 1 stream",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::one_stream,
    },
    Gate {
        name: "path-streams-64",
        figure: "rate of 64 streams",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::many_streams,
    },
    Gate {
        name: "path-streams-512",
        figure: "rate of 512 streams",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::very_many_streams,
    },
    Gate {
        name: "path-stalled-rate",
        figure: "rate beside a stalled reader",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::beside_stalled,
    },
    Gate {
        name: "path-stalled-echo",
        figure: "echo p99 of 1,000 streams beside a stalled reader",
        unit: "ms",
        limit: Limit::TimesAtMost(1.05, 0.0),
        run: |_| echoes::beside_stalled(AUTO),
    },
    Gate {
        name: "path-stalled-echo-quic",
        figure: "echo p99 of 1,000 streams beside a stalled reader",
        unit: "ms",
        limit: Limit::TimesAtMost(1.05, 0.0),
        run: |_| echoes::beside_stalled(QUIC),
    },
    Gate {
        name: "path-capped",
        figure: "rate of 4 subflows",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(3.8),
        run: rates::capped,
    },
    Gate { name: "path-two-equal", run: |_| rates::two_paths(0, false, TCP), ..TWO_PATHS },
    Gate { name: "path-two-unequal", run: |_| rates::two_paths(1, false, TCP), ..TWO_PATHS },
    Gate { name: "path-two-unequal-reversed", run: |_| rates::two_paths(1, true, TCP), ..TWO_PATHS },
    Gate { name: "path-two-delays", run: |_| rates::two_paths(2, false, TCP), ..TWO_PATHS },
    Gate { name: "path-two-delays-reversed", run: |_| rates::two_paths(2, true, TCP), ..TWO_PATHS },
    Gate { name: "path-two-unlike", run: |_| rates::two_paths(3, false, TCP), ..TWO_PATHS },
    Gate { name: "path-two-unlike-reversed", run: |_| rates::two_paths(3, true, TCP), ..TWO_PATHS },
    Gate { name: "path-two-lossy", run: |_| rates::two_paths(4, false, TCP), ..TWO_PATHS },
    Gate { name: "path-two-lossy-reversed", run: |_| rates::two_paths(4, true, TCP), ..TWO_PATHS },
    Gate { name: "path-two-equal-auto", run: |_| rates::two_paths(0, false, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-unequal-auto", run: |_| rates::two_paths(1, false, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-unequal-reversed-auto", run: |_| rates::two_paths(1, true, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-delays-auto", run: |_| rates::two_paths(2, false, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-delays-reversed-auto", run: |_| rates::two_paths(2, true, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-unlike-auto", run: |_| rates::two_paths(3, false, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-unlike-reversed-auto", run: |_| rates::two_paths(3, true, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-lossy-auto", run: |_| rates::two_paths(4, false, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-lossy-reversed-auto", run: |_| rates::two_paths(4, true, AUTO), ..TWO_PATHS },
    Gate { name: "path-two-mixed", run: |_| rates::mixed_paths(), ..TWO_PATHS },
    Gate { name: "path-two-quic", run: |_| rates::two_paths(1, false, QUIC), ..TWO_PATHS },
    Gate { name: "path-six", run: |_| rates::six_paths(true), ..SIX_PATHS },
    Gate { name: "path-six-unlike", run: |_| rates::six_paths(false), ..SIX_PATHS },
    Gate { name: "path-lte-lte", run: |_| rates::changing_paths(scenes::lte_lte()), ..CHANGING },
    Gate { name: "path-lte-wifi", run: |_| rates::changing_paths(scenes::lte_wifi()), ..CHANGING },
    Gate { name: "path-satellite-lte", run: |_| rates::changing_paths(scenes::satellite_lte()), ..CHANGING },
    Gate { name: "path-bloated", run: scenes::bloated, ..TWO_PATHS },
    Gate {
        name: "path-bloated-gap",
        figure: "longest gap over 2 paths",
        unit: "ms",
        limit: Limit::AtMost(150.0),
        run: scenes::bloated_gap,
    },
    Gate { name: "path-lossy-2", run: |_| scenes::lossy(0.02), ..TWO_PATHS },
    Gate { name: "path-lossy-5", run: |_| scenes::lossy(0.05), ..TWO_PATHS },
    Gate {
        name: "path-lossy-bbr",
        figure: "rate over 1 path with BBR",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: scenes::lossy_with_bbr,
    },
    Gate {
        name: "path-lte-lte-echo",
        limit: Limit::AtMost(600.0),
        run: |_| scenes::echoes_beside_bulk(scenes::lte_lte(), TCP),
        ..ECHOES
    },
    Gate {
        name: "path-lte-wifi-echo",
        limit: Limit::AtMost(350.0),
        run: |_| scenes::echoes_beside_bulk(scenes::lte_wifi(), TCP),
        ..ECHOES
    },
    Gate {
        name: "path-lte-lte-redundant",
        limit: Limit::AtMost(150.0),
        run: |_| scenes::echoes_beside_bulk(scenes::lte_lte(), scenes::REDUNDANT),
        ..ECHOES
    },
    Gate {
        name: "path-lte-wifi-redundant",
        limit: Limit::AtMost(150.0),
        run: |_| scenes::echoes_beside_bulk(scenes::lte_wifi(), scenes::REDUNDANT),
        ..ECHOES
    },
    Gate { name: "path-lte-lte-single", run: |_| scenes::single(scenes::lte_lte()), ..SINGLE },
    Gate { name: "path-lte-wifi-single", run: |_| scenes::single(scenes::lte_wifi()), ..SINGLE },
    Gate { name: "path-satellite-lte-single", run: |_| scenes::single(scenes::satellite_lte()), ..SINGLE },
    Gate { name: "path-cuts-hole", run: |_| scenes::cuts(scenes::HOLE), ..CUTS },
    Gate { name: "path-cuts-reset", run: |_| scenes::cuts(scenes::RESET), ..CUTS },
    Gate { name: "path-cuts-refusal", run: |_| scenes::cuts(scenes::REFUSAL), ..CUTS },
    Gate { name: "path-cuts-collapse", run: |_| scenes::cuts(scenes::COLLAPSE), ..CUTS },
    Gate {
        name: "path-two-farther",
        figure: "rate in seconds 2 and 3",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.8),
        run: rates::farther_path,
    },
    Gate {
        name: "path-two-slow",
        figure: "rate after a path is slow",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::slow_path,
    },
    Gate {
        name: "path-long-fat",
        figure: "rate of 1 stream at 1 Gbit/s and 100 ms",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: |_| rates::long_fat(TCP),
    },
    Gate {
        name: "path-long-fat-auto",
        figure: "rate of 1 stream at 1 Gbit/s and 100 ms",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: |_| rates::long_fat(AUTO),
    },
    Gate {
        name: "path-long-fat-quic",
        figure: "rate of 1 stream at 1 Gbit/s and 100 ms",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: |_| rates::long_fat(QUIC),
    },
    Gate {
        name: "path-echo-bulk",
        figure: "echo p99, added by bulk",
        unit: "ms",
        limit: Limit::MostlyAtMost(20.0),
        run: |_| echoes::beside_bulk(TCP),
    },
    Gate {
        name: "path-echo-bulk-auto",
        figure: "echo p99, added by bulk",
        unit: "ms",
        limit: Limit::MostlyAtMost(20.0),
        run: |_| echoes::beside_bulk(AUTO),
    },
    Gate {
        name: "path-echo-bulk-quic",
        figure: "echo p99, added by bulk",
        unit: "ms",
        limit: Limit::MostlyAtMost(20.0),
        run: |_| echoes::beside_bulk(QUIC),
    },
    Gate {
        name: "path-echo-short-queue",
        figure: "median echo, added by bulk",
        unit: "ms",
        limit: Limit::AtMost(20.0),
        run: |_| echoes::beside_bulk_short(TCP),
    },
    Gate {
        name: "path-echo-short-queue-auto",
        figure: "median echo, added by bulk",
        unit: "ms",
        limit: Limit::AtMost(20.0),
        run: |_| echoes::beside_bulk_short(AUTO),
    },
    Gate {
        name: "path-bulk-echo",
        figure: "rate beside echoes",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.8),
        run: echoes::bulk_beside,
    },
    Gate { name: "path-fast-echo-bulk", run: echoes::beside_fast_bulk, ..ECHOES },
    Gate {
        name: "path-fast-bulk-echo",
        figure: "rate beside echoes",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.3),
        run: echoes::fast_bulk_beside,
    },
    Gate { name: "path-new-connections", run: |_| echoes::new_connections(TCP), ..CONNECTS },
    Gate { name: "path-new-connections-auto", run: |_| echoes::new_connections(AUTO), ..CONNECTS },
    Gate { name: "auto-tcp-dropped", run: auto::tcp_dropped, ..SILENCE },
    Gate { name: "auto-udp-dropped", run: auto::udp_dropped, ..SILENCE },
    Gate { name: "auto-tcp-reset", run: auto::tcp_reset, ..SILENCE },
    Gate { name: "auto-cable", run: auto::cable, ..SILENCE },
    Gate { name: "auto-cable-unbound", run: auto::cable_unbound, ..SILENCE },
    Gate { name: "auto-device-down", run: auto::device_down, ..SILENCE },
    Gate { name: "auto-walk", run: auto::walk, ..SILENCE },
    Gate { name: "auto-walk-out", run: auto::walk_out, ..SILENCE },
    Gate { name: "auto-darkness-short", run: auto::short_darkness, ..SILENCE },
    Gate { name: "auto-darkness", run: auto::usual_darkness, ..SILENCE },
    Gate { name: "auto-darkness-long", run: auto::long_darkness, ..SILENCE },
    Gate { name: "auto-darkness-tcp", run: auto::darkness_without_udp, ..SILENCE },
    Gate {
        name: "link-connect-timeout",
        figure: "late by",
        unit: "ms",
        limit: Limit::AtMost(700.0),
        run: moments::connect_timeout,
    },
    Gate {
        name: "link-idle-timeout",
        figure: "late by",
        unit: "ms",
        limit: Limit::AtMost(700.0),
        run: moments::idle_timeout,
    },
    Gate { name: "link-end", figure: "all streams over", unit: "ms", limit: Limit::AtMost(1000.0), run: moments::end },
    Gate {
        name: "link-dead-port",
        figure: "port served again",
        unit: "ms",
        limit: Limit::AtMost(2000.0),
        run: moments::port_of_a_dead_client,
    },
    Gate {
        name: "link-frames",
        figure: "50,000 frames",
        unit: "ms",
        limit: Limit::TimesAtMost(1.5, 0.0),
        run: frames::among_many_streams,
    },
    Gate {
        name: "relay-byte",
        figure: "added to the round trip of a byte",
        unit: "ms",
        limit: Limit::AtMost(1.0),
        run: relay::byte,
    },
    Gate {
        name: "relay-two-writes",
        figure: "round trip of two writes",
        unit: "ms",
        limit: Limit::AtMost(30.0),
        run: relay::two_writes,
    },
    Gate {
        name: "relay-beside-transfer",
        figure: "round trip of a byte",
        unit: "ms",
        limit: Limit::TimesAtMost(5.0, 0.0),
        run: relay::beside_transfer,
    },
    Gate {
        name: "relay-slow-readers",
        figure: "slow readers, spliced",
        unit: "s",
        limit: Limit::TimesAtMost(3.0, 1.0),
        run: relay::slow_readers,
    },
    Gate {
        name: "relay-throttled",
        figure: "processor time of a slow stream",
        unit: "%",
        limit: Limit::AtMost(20.0),
        run: relay::throttled,
    },
    Gate {
        name: "relay-next-address",
        figure: "connected after",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: relay::next_address,
    },
    Gate { name: "kit-shaped", figure: "off its rate", unit: "%", limit: Limit::AtMost(10.0), run: emulation::shaped },
    Gate {
        name: "kit-emulated",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::emulated_rate,
    },
    Gate {
        name: "kit-emulated-fast",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::fast,
    },
    Gate {
        name: "kit-per-connection",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::per_connection,
    },
    Gate { name: "kit-delay", figure: "off its delay", unit: "ms", limit: Limit::AtMost(2.0), run: emulation::delay },
];

/// One connection over two paths.
const TWO_PATHS: Gate = Gate {
    name: "",
    figure: "rate over 2 paths",
    unit: "Mbit/s",
    limit: Limit::TimesAtLeast(0.95),
    run: |_| rates::two_paths(0, false, TCP),
};

/// One connection over six paths.
const SIX_PATHS: Gate = Gate { figure: "rate over 6 paths", ..TWO_PATHS };

/// One connection over two paths that follow traces.
const CHANGING: Gate = Gate { figure: "rate over what 2 paths carry", ..TWO_PATHS };

/// One connection over the better of two paths.
const SINGLE: Gate = Gate { figure: "rate over one path at a time", ..TWO_PATHS };

/// The gaps that cuts of one of two paths cause.
const CUTS: Gate = Gate { figure: "gap p99", limit: Limit::AtMost(600.0), ..ECHOES };

/// The echoes of a link beside an attack.
const ECHOES: Gate =
    Gate { name: "", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: |_| Ok(Run::default()) };

/// The time until a known node is let in beside strangers.
const LET_IN: Gate = Gate { figure: "in or resumed", limit: Limit::AtMost(1000.0), ..ECHOES };

/// The time until new connections are established.
const CONNECTS: Gate = Gate { figure: "longest connect", limit: Limit::AtMost(1000.0), ..ECHOES };

/// The silence that a change of the network costs a link.
const SILENCE: Gate = Gate { figure: "longest echo", limit: Limit::AtMost(500.0), ..ECHOES };
