//! Tests of the virtual machine without a loop: nothing takes its changes.

use std::sync::{Arc, Mutex};

use super::*;
use crate::console::board::State;
use crate::console::node::Change;

/// A machine, what it has printed, and the changes that it has posted.
struct Bench {
    machine: Machine,
    printed: Arc<Mutex<String>>,
    changes: std::sync::mpsc::Receiver<Change>,
    board: Arc<Board>,
    flags: Flags,
}

fn bench(limits: Limits) -> Bench {
    let (changes, received) = Changes::to_nowhere();
    let (printed, board, flags) = (Arc::<Mutex<String>>::default(), Arc::<Board>::default(), Flags::default());
    let sink = Arc::clone(&printed);
    let output: Output = Box::new(move |text| sink.lock().unwrap().push_str(text));
    let machine = Machine::new(changes, Arc::clone(&board), output, flags.clone(), limits).unwrap();
    Bench { machine, printed, changes: received, board, flags }
}

impl Bench {
    fn run(&self, code: &str) -> Result<(), String> {
        self.machine.run("=test", code, true)
    }

    fn printed(&self) -> String {
        std::mem::take(&mut self.printed.lock().unwrap())
    }
}

fn few() -> Limits {
    Limits { instructions: 100_000, memory: 8 << 20, is_unsafe: false }
}

#[test]
fn an_expression_prints_its_values_and_a_statement_nothing() {
    let bench = bench(few());
    bench.run("1 + 1, 'a'").unwrap();
    bench.run("x = 3").unwrap();
    bench.run("print(x, nil)").unwrap();
    assert_eq!(bench.printed(), "2\ta\n3\tnil\n");
}

#[test]
fn a_loop_without_end_ends_even_if_it_catches_its_errors() {
    let bench = bench(few());
    for code in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end",
    ] {
        let error = bench.run(code).unwrap_err();
        assert!(error.contains("more than 100000 instructions"), "{code}: {error}");
        assert_eq!(bench.run("y = 1"), Ok(()), "the next chunk has a budget of its own");
    }
}

#[test]
fn an_interrupt_ends_a_chunk() {
    let bench = bench(Limits { instructions: u64::MAX, ..few() });
    bench.flags.interrupt.store(true, Ordering::Relaxed);
    assert!(bench.run("while true do end").unwrap_err().contains("interrupted"));
}

#[test]
fn a_chunk_gets_no_more_memory_than_the_limit() {
    let bench = bench(Limits { instructions: u64::MAX, ..few() });
    let error = bench.run("local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end").unwrap_err();
    assert!(error.contains("memory"), "{error}");
    assert_eq!(bench.run("z = 1"), Ok(()));
}

#[test]
fn files_and_processes_are_there_only_if_they_are_allowed() {
    let names = "io, dofile, loadfile, require, os.execute, os.remove, os.getenv, debug";
    let safe = bench(few());
    safe.run(names).unwrap();
    assert_eq!(safe.printed(), "nil\tnil\tnil\tnil\tnil\tnil\tnil\tnil\n");
    safe.run("os.time() > 0, load('return 1')(), load(string.dump(load('return 1')))").unwrap();
    assert!(safe.printed().starts_with("true\t1\tnil\t"), "a chunk of bytes is refused");
    let all = bench(Limits { is_unsafe: true, ..few() });
    all.run("io.open ~= nil, os.execute ~= nil, require ~= nil").unwrap();
    assert_eq!(all.printed(), "true\ttrue\ttrue\n");
}

#[test]
fn a_wrong_argument_raises_an_error_that_names_it() {
    let bench = bench(few());
    for (code, text) in [
        ("connect()", "remote_host: expected a host, not nil"),
        ("connect('a', 65536)", "remote_port: expected a port from 1 to 65535, not 65536"),
        ("connect('a', 1.5)", "remote_port: expected a port from 1 to 65535, not 1.5"),
        ("connect('a', 1, 'x')", "local_port: expected a port from 0 to 65535, not string"),
        ("connect('a b')", "remote_host \"a b\""),
        ("listen(-1)", "port: expected a port from 0 to 65535, not -1"),
        ("tunnel(1)", "tunnel: expected a connection or a tunnel, not integer"),
        ("tunnel(connect('a'), 80, 'h', 0)", "remote_port: expected a port from 1"),
        ("rtunnel(connect('a'), 80, 80, 80)", "local_host: expected a host, not integer"),
    ] {
        let error = bench.run(code).unwrap_err();
        assert!(error.contains(text), "{code}: {error}");
    }
}

#[test]
fn a_second_connect_to_the_same_place_returns_the_first_object_with_a_warning() {
    let bench = bench(few());
    bench.run("a = connect('127.0.0.1'); b = connect('127.0.0.1', 23232); print(a == b, #list_connections())").unwrap();
    let printed = bench.printed();
    assert!(printed.starts_with("warning: tcpconn *:? <-> 127.0.0.1:23232 CONNECTING is there already\n"), "{printed}");
    assert!(printed.ends_with("true\t1\n"), "{printed}");
    assert!(matches!(bench.changes.try_iter().collect::<Vec<_>>()[..], [Change::Connect(..)]));
    let open = bench.board.open();
    bench.board.change(&open[0], |record| record.state = State::Closed);
    bench.run("print(connect('127.0.0.1') == a, a:status())").unwrap();
    assert_eq!(bench.printed(), "false\tCLOSED\tnil\n");
}

#[test]
fn an_object_lives_on_when_its_handle_is_collected_and_is_freed_when_it_is_closed() {
    let bench = bench(few());
    bench.run("do local t = connect('a'):tunnel(0, 'b', 80) end collectgarbage()").unwrap();
    assert_eq!(bench.board.open().len(), 2);
    let weak: Vec<_> = bench.board.open().iter().map(Arc::downgrade).collect();
    for entry in bench.board.open() {
        bench.board.change(&entry, |record| record.state = State::Closed);
    }
    drop(bench.changes);
    assert!(weak.iter().all(|entry| entry.upgrade().is_none()));
}

#[test]
fn the_ends_of_a_tunnel_are_named_from_this_node() {
    let bench = bench(few());
    bench.run("c = connect('peer', 7, 9); f = tunnel(c, 80, 'far', 81); r = c:rtunnel('near', 82, 83)").unwrap();
    bench.run("local_port(c), remote_host(c), remote_port(c), direction(c), parent(f) == c").unwrap();
    bench.run("f:local_host(), local_port(f), remote_host(f), remote_port(f), f:direction()").unwrap();
    bench.run("r:local_host(), local_port(r), remote_host(r), remote_port(r), r:direction()").unwrap();
    bench.run("#list_tunnels(c), list_tunnels(c)[2] == r, tostring(r)").unwrap();
    let lines = bench.printed();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], "9\tpeer\t7\tnil\ttrue");
    assert_eq!(lines[1], "127.0.0.1\t80\tfar\t81\tforward");
    assert_eq!(lines[2], "near\t82\tnil\t83\treverse");
    assert_eq!(lines[3], "2\ttrue\ttunnel near:82 <- *:83 CONNECTING");
}

#[test]
fn a_full_queue_of_changes_is_an_error_within_a_moment() {
    let bench = bench(Limits { instructions: u64::MAX, ..few() });
    let error = bench.run("for i = 1, 1000 do connect('host' .. i) end").unwrap_err();
    assert!(error.contains("changes wait already"), "{error}");
    assert_eq!(bench.board.open().len(), bench.changes.try_iter().count(), "a refused object is not there");
}

#[test]
fn the_beginning_of_a_chunk_is_told_from_a_wrong_one() {
    let lua = Lua::new();
    for (code, expected) in [("for i = 1, 2 do", true), ("x = ", true), ("1 + 1", false), ("x = = 1", false)] {
        assert_eq!(is_incomplete(&lua, code), expected, "{code}");
    }
}
