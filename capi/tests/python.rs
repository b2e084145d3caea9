//! The tests of the Python package, with the installed library. Each module of them runs in a process of its own.

use std::path::Path;
use std::process::Command;

use crate::kit::{has, prefix, succeed, top};

/// Runs the tests of a module. A shell lets programs in the background ignore SIGINT, which tests send to a Python of their own.
const RUN: &str = "import signal, sys, unittest
signal.signal(signal.SIGINT, signal.default_int_handler)
unittest.main(module=None, argv=['unittest', sys.argv[1]])";

fn unittest(module: &str) {
    // Debian's, if there are several.
    let debian = "/usr/bin/python3";
    let python = if Path::new(debian).exists() { debian } else { "python3" };
    if !has(python) {
        return;
    }
    let mut command = Command::new(python);
    command.args(["-W", "error::ResourceWarning", "-c", RUN, &format!("tests.{module}")]);
    command.current_dir(top().join("python")).env("SEAPROX_LIBRARY", prefix().join("lib/libseaprox.so.0"));
    succeed(command.env("PYTHONDONTWRITEBYTECODE", "1"));
}

#[test]
fn the_python_package_declares_and_calls_every_function_of_the_header() {
    unittest("test_declarations");
}

#[test]
fn a_python_loop_has_turns_threads_timers_descriptors_signals_and_errors() {
    unittest("test_loop");
}

#[test]
fn connections_of_a_python_program_have_handlers_sides_data_and_hooks() {
    unittest("test_connections");
}

#[test]
fn a_python_program_connects_the_dests_in_threads_of_its_own() {
    unittest("test_connector");
}

#[test]
fn a_python_program_gets_events_status_metrics_and_log_and_applies_a_configuration() {
    unittest("test_observation");
}

#[test]
fn python_programs_at_both_ends_of_a_link_have_policies_streams_services_forwards_and_messages() {
    unittest("test_links");
}

#[test]
fn ten_thousand_cycles_of_a_python_program_leave_nothing_behind() {
    unittest("test_leaks");
}

#[test]
fn a_python_program_answers_datagrams_relays_them_and_sends_its_own() {
    unittest("test_datagrams");
}

#[test]
fn a_python_loop_runs_inside_asyncio() {
    unittest("test_aio");
}

#[test]
fn calls_that_make_no_sense_are_refused_and_change_nothing() {
    unittest("test_hostile");
}

#[test]
fn the_python_examples_serve_real_clients() {
    unittest("test_examples");
}

#[test]
fn every_module_of_the_python_tests_runs_here() {
    let own = std::fs::read_to_string(top().join("capi/tests/python.rs")).unwrap();
    for entry in std::fs::read_dir(top().join("python/tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".py").filter(|name| name.starts_with("test_")) {
            assert!(own.contains(&format!("unittest(\"{module}\")")), "{module}");
        }
    }
}
