//! The checks of `c/checks.c`, `c/links.c`, `c/peers.c`, `c/robust.c`, `c/streams.c` and `c/datagrams.c`: each runs in a process of
//! its own.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::kit::{compile, has, prefix, succeed, top};

fn checks() -> &'static Path {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    CHECKS.get_or_init(|| compile("tests/c/checks.c", "checks", &[]))
}

fn check(name: &str) {
    succeed(Command::new(checks()).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

fn check_links(name: &str) {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    let checks = CHECKS.get_or_init(|| compile("tests/c/links.c", "links", &[]));
    succeed(Command::new(checks).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

fn check_peers(name: &str) {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    let checks = CHECKS.get_or_init(|| compile("tests/c/peers.c", "peers", &[]));
    succeed(Command::new(checks).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

fn check_robust(name: &str) {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    let checks = CHECKS.get_or_init(|| compile("tests/c/robust.c", "robust", &[]));
    succeed(Command::new(checks).arg(name).current_dir(prefix()).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

fn check_datagrams(name: &str) {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    let checks = CHECKS.get_or_init(|| compile("tests/c/datagrams.c", "datagrams", &[]));
    succeed(Command::new(checks).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

fn check_streams(name: &str) {
    static CHECKS: OnceLock<std::path::PathBuf> = OnceLock::new();
    let checks = CHECKS.get_or_init(|| compile("tests/c/streams.c", "streams", &[]));
    succeed(Command::new(checks).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib")));
}

#[test]
fn a_c_loop_answers_stale_handles_other_threads_and_nested_runs() {
    check("loops");
}

#[test]
fn descriptors_of_a_c_program_are_added_modified_and_removed() {
    check("polls");
}

#[test]
fn a_c_loop_runs_one_turn_and_is_finished_from_another_thread() {
    check("finish");
}

#[test]
fn timers_of_a_c_program_fire_once_and_full_tables_say_so() {
    check("timers");
}

#[test]
fn any_handle_and_any_size_is_answered_and_does_no_harm() {
    check("handles");
}

#[test]
fn a_c_program_sees_a_side_idle_connecting_and_connected_with_its_data() {
    check("sides");
}

#[test]
fn hooks_of_a_c_program_see_connect_both_directions_and_the_end_and_change_bytes() {
    check("hooks");
}

#[test]
fn descriptors_of_a_c_program_are_source_and_dest() {
    check("adopt");
}

#[test]
fn a_configuration_from_a_c_string_is_applied_changed_and_refused_with_lines() {
    check("config");
}

#[test]
fn a_c_program_gets_status_metrics_and_log() {
    check("status");
}

#[test]
fn ten_thousand_connections_of_a_c_program_leave_nothing_behind() {
    check("cycles");
}

#[test]
fn a_c_program_makes_reads_and_prints_keys() {
    check_links("keys");
}

#[test]
fn a_link_of_two_c_nodes_carries_local_remote_and_dynamic_forwards() {
    check_links("forwards");
}

#[test]
fn a_forward_of_two_c_nodes_carries_datagrams() {
    check_links("datagrams");
}

#[test]
fn a_policy_in_c_refuses_what_no_callback_permits() {
    check_links("refusals");
}

#[test]
fn a_policy_in_c_admits_keys_and_the_events_tell_who_was_refused() {
    check_links("admission");
}

#[test]
fn messages_pass_between_two_c_nodes_and_the_status_of_their_link_is_json() {
    check_links("messages");
}

#[test]
fn a_c_program_finds_the_links_of_its_configuration_by_name() {
    check_links("named");
}

#[test]
fn a_policy_in_c_bounds_the_streams_of_a_peer() {
    check_links("limits");
}

#[test]
fn a_c_node_offers_a_service_and_its_streams_are_half_closed_and_refused() {
    check_streams("services");
}

#[test]
fn a_reset_of_a_stream_and_the_end_of_its_link_reach_both_c_nodes() {
    check_streams("resets");
}

#[test]
fn a_paused_c_node_holds_its_peer_back_and_gets_every_byte_in_order() {
    check_streams("flow");
}

#[test]
fn a_handler_in_c_gets_the_streams_that_its_policy_gives_it() {
    check_streams("handled");
}

#[test]
fn a_policy_in_c_may_answer_later() {
    check_streams("asked");
}

#[test]
fn a_peer_that_is_killed_suspends_the_link_of_a_c_node_and_then_ends_its_streams() {
    check_streams("killed");
}

#[test]
fn a_thousand_streams_between_c_nodes_leave_nothing_behind() {
    check_streams("cycles");
}

#[test]
fn any_id_and_any_size_is_answered_by_the_functions_of_links_and_does_no_harm() {
    check_links("handles");
}

#[test]
fn a_peer_that_is_gone_raises_no_signal_that_ends_a_c_program() {
    check_peers("sigpipe");
}

#[test]
fn a_struct_of_a_size_that_no_version_has_is_refused() {
    check_robust("sizes");
}

#[test]
fn descriptors_that_are_not_open_and_watches_that_exist_are_refused_without_an_effect() {
    check_robust("descriptors");
}

#[test]
fn results_of_a_c_function_are_zero_after_an_error_and_a_missing_id_is_told_from_an_error() {
    check_robust("results");
}

#[test]
fn a_loop_that_ends_takes_no_descriptor_of_a_c_program() {
    check_robust("ends");
}

#[test]
fn a_request_of_a_connector_is_stale_when_nobody_waits_for_it() {
    check_peers("requests");
}

#[test]
fn requests_that_a_c_program_never_answers_take_no_memory() {
    check_peers("unanswered");
}

#[test]
fn the_end_of_a_connection_is_told_once_to_the_handler_that_its_source_has_then() {
    check_robust("handlers");
}

#[test]
fn the_timeouts_of_a_c_loop_are_those_of_its_listeners_and_not_of_a_configuration() {
    check_robust("timeouts");
}

#[test]
fn a_name_that_a_peer_has_sent_makes_no_key_and_no_line_in_the_log_of_a_c_program() {
    check_peers("logs");
}

#[test]
fn a_configuration_that_cannot_be_bound_leaves_a_c_loop_as_it_was() {
    check_robust("apply");
}

#[test]
fn a_c_program_answers_datagrams_relays_them_and_sends_its_own() {
    check_datagrams("direct");
}

#[test]
fn datagrams_pass_between_two_c_programs_over_a_link() {
    check_datagrams("linked");
}

#[test]
fn any_id_and_any_size_is_answered_by_the_functions_of_datagrams_and_does_no_harm() {
    check_datagrams("handles");
}

/// The sources with their checks.
const ALL: [(&str, &[&str]); 6] = [
    (
        "checks",
        &["loops", "polls", "finish", "timers", "handles", "sides", "hooks", "adopt", "config", "status", "cycles"],
    ),
    ("links", &["keys", "forwards", "datagrams", "refusals", "admission", "messages", "handles", "named", "limits"]),
    ("peers", &["sigpipe", "requests", "logs"]),
    ("robust", &["sizes", "descriptors", "results", "ends", "handlers", "apply"]),
    ("datagrams", &["direct", "linked", "handles"]),
    ("streams", &["services", "resets", "flow", "handled", "asked", "killed", "cycles"]),
];

/// `make test-system` runs this: it takes minutes.
#[test]
#[ignore = "takes minutes"]
fn valgrind_finds_no_leak_and_no_error_in_the_c_interface() {
    assert!(has("valgrind"), "scripts/install-system-tools installs it");
    for (source, names) in ALL {
        let program = compile(&format!("tests/c/{source}.c"), &format!("{source}-valgrind"), &[]);
        for name in names {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,indirect"]);
            valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--fair-sched=yes"]);
            valgrind.arg(format!("--suppressions={}", top().join("capi/tests/c/valgrind.supp").display()));
            if source != "checks" {
                // Valgrind takes what the ciphers of `ring` write for undefined, because they are written in assembly.
                valgrind.arg("--undef-value-errors=no");
            }
            let command = valgrind.arg(&program).arg(name).env("LD_LIBRARY_PATH", prefix().join("lib"));
            // Streams cost a hundred times as much under Valgrind; the address sanitizer has them 10,000 times.
            let cycles = if source == "checks" { "10000" } else { "200" };
            succeed(command.env("SEAPROX_CYCLES", cycles));
        }
    }
}

/// `make test-system` runs this. The streams are opened and closed 10,000 times.
#[test]
#[ignore = "takes minutes"]
fn the_address_sanitizer_finds_nothing_in_programs_of_the_c_interface() {
    let flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"];
    for (source, names) in ALL {
        let program = compile(&format!("tests/c/{source}.c"), &format!("{source}-asan"), &flags);
        for name in names {
            let mut command = Command::new(&program);
            let command = command.arg(name).env("LD_LIBRARY_PATH", prefix().join("lib"));
            succeed(command.env("SEAPROX_CYCLES", "10000"));
        }
    }
}
