//! Tests of the virtual machine without a loop: nothing takes its changes.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::console::board::State;
use crate::console::mailbox::Job;
use crate::console::node::Change;

/// A machine, what it has printed, and the changes that it has posted.
struct Bench {
    machine: Machine,
    printed: Arc<Mutex<String>>,
    changes: Receiver<Change>,
    board: Arc<Board>,
    flags: Flags,
}

fn bench(limits: Limits) -> Bench {
    let (changes, received) = Changes::to_nowhere();
    let (printed, board, flags) = (Arc::<Mutex<String>>::default(), Arc::<Board>::default(), Flags::default());
    let sink = Arc::clone(&printed);
    let printer = Printer::to(Box::new(move |text| sink.lock().unwrap().push_str(text)));
    let machine = Machine::new(changes, Arc::clone(&board), printer, flags.clone(), limits).unwrap();
    Bench { machine, printed, changes: received, board, flags }
}

impl Bench {
    fn run(&self, code: &str) -> Result<(), String> {
        let result = self.begin(code);
        self.go_on_until(|| result.try_recv().ok())
    }

    /// Has a chunk run until it waits.
    fn begin(&self, code: &str) -> Receiver<Result<(), String>> {
        let (sender, result) = mpsc::sync_channel(1);
        let job = Job { name: "=test".to_owned(), code: code.to_owned(), prints: true, result: sender };
        assert!(self.machine.turn(Turn { job: Some(job), ..Turn::default() }));
        result
    }

    /// Runs turns of the machine until there is a value.
    #[track_caller]
    fn go_on_until<T>(&self, value: impl Fn() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(value) = value() {
                return value;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{:?}", self.printed.lock().unwrap());
            // Without this event, the machine would wait for the next one.
            self.board.mailbox().wake();
            self.machine.turn(self.machine.next(self.board.mailbox()));
        }
    }

    /// Runs turns of the machine until it has printed a text that ends so. Returns the text.
    #[track_caller]
    fn wait_for(&self, end: &str) -> String {
        self.go_on_until(|| self.printed.lock().unwrap().ends_with(end).then_some(()));
        self.printed()
    }

    fn change(&self, at: usize, state: State) {
        self.board.change(&self.board.open()[at], |record| record.state = state);
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
        "while true do pcall(function() coroutine.wrap(function() while true do end end)() while true do end end) end",
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
    bench.go_on_until(|| {
        bench.changes.try_iter().for_each(drop);
        weak.iter().all(|entry| entry.upgrade().is_none()).then_some(())
    });
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
    bench.run("e = tunnel(c, 84, 'end:backup')").unwrap();
    bench.run("tostring(e), e:remote_host(), e:remote_port()").unwrap();
    bench.run("tostring(rtunnel(c, 'end:motd', nil, 85))").unwrap();
    let lines = bench.printed();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines,
        ["tunnel 127.0.0.1:84 -> end:backup CONNECTING\tend:backup\tnil", "tunnel end:motd <- *:85 CONNECTING"]
    );
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

#[test]
fn callbacks_are_called_with_their_objects_and_an_error_in_one_is_printed() {
    let bench = bench(few());
    bench.run("a = connect('a'); on('connected', function(tc) print('up', tc == a) end)").unwrap();
    bench.run("h = a:on('error', function(tc, reason) print(reason); error('broken') end)").unwrap();
    bench.run("on(a, 'closed', function(tc) print('gone', tc:status()) end)").unwrap();
    bench.change(0, State::Connected);
    bench.wait_for("up\ttrue\n");
    bench.board.change(&bench.board.open()[0], |record| {
        (record.state, record.reason) = (State::Error, "timed_out".to_owned());
    });
    bench.wait_for("timed_out\nerror: test:1: broken\n");
    assert_eq!(bench.run("h:cancel(), h:cancel()"), Ok(()));
    assert_eq!(bench.printed(), "true\tfalse\n");
    bench.change(0, State::Closed);
    bench.wait_for("gone\tCLOSED\ttimed_out\n");
    bench.run("a:on('closed', function() print('at once') end)").unwrap();
    bench.wait_for("at once\n");
}

#[test]
fn a_chunk_that_waits_goes_on_when_its_object_works_and_events_go_on_meanwhile() {
    let bench = bench(few());
    bench.run("a = connect('a'); on('connected', function() sleep(0.01) print('later') done = true end)").unwrap();
    let result = bench.begin("print(wait(a), pcall(wait, a, 0)) while not done do sleep(0.01) end print('end')");
    assert!(result.try_recv().is_err());
    bench.change(0, State::Connected);
    assert_eq!(bench.wait_for("end\n"), "true\ttrue\ttrue\nlater\nend\n");
    result.try_recv().unwrap().unwrap();
}

#[test]
fn a_wait_ends_with_its_time_with_an_error_and_with_the_object() {
    let bench = bench(few());
    bench.run("a = connect('a')").unwrap();
    bench.run("print(a:wait(0.001))").unwrap();
    let result = bench.begin("print(wait(a)) print(a:wait(60))");
    bench.change(0, State::Error);
    bench.wait_for("false\n");
    bench.change(0, State::Closed);
    bench.wait_for("false\n");
    result.try_recv().unwrap().unwrap();
}

#[test]
fn a_wait_in_a_coroutine_of_the_script_and_below_a_sort_waits_in_the_thread() {
    let bench = bench(few());
    bench.run("print(coroutine.wrap(function() sleep(0.001) coroutine.yield(1) end)())").unwrap();
    assert_eq!(bench.printed(), "1\n");
    bench.run("table.sort({2, 1}, function(a, b) sleep(0.001) return a < b end) print('sorted')").unwrap();
    assert_eq!(bench.printed(), "sorted\n");
    assert!(bench.run("coroutine.yield()").unwrap_err().contains("outside of a coroutine"));
}

#[test]
fn timers_call_once_or_again_and_can_be_cancelled() {
    let bench = bench(few());
    bench.run("n = 0 e = every(0.01, function() n = n + 1 if n == 3 then e:cancel() print('three') end end)").unwrap();
    bench.run("x = after(0.02, function() print('never') end) x:cancel()").unwrap();
    bench.wait_for("three\n");
    bench.run("after(0.03, function() print('once') end)").unwrap();
    bench.wait_for("once\n");
    assert_eq!(bench.machine.schedule.pending(), (None, 0));
}

#[test]
fn a_callback_has_a_budget_of_its_own() {
    let bench = bench(few());
    bench.run("after(0, function() while true do end end)").unwrap();
    bench.wait_for("more than 100000 instructions\n");
    assert_eq!(bench.run("y = 1"), Ok(()));
}

#[test]
fn an_interrupt_ends_a_chunk_that_waits() {
    let bench = bench(few());
    let result = bench.begin("sleep(1000)");
    bench.flags.interrupt.store(true, Ordering::Relaxed);
    assert_eq!(bench.go_on_until(|| result.try_recv().ok()), Err("interrupted".to_owned()));
}

#[test]
fn a_message_is_printed_with_its_name_and_given_to_callbacks() {
    let bench = bench(few());
    bench.run("a = connect('peer') on('message', function(tc, text) print(tc == a, #text) end)").unwrap();
    let entry = Arc::clone(&bench.board.open()[0]);
    let post = || bench.board.mailbox().post(Event::Message(Arc::clone(&entry), "a\x1b[2Jb".to_owned(), 0));
    post();
    let shown = bench.wait_for("true\t6\n");
    assert!(shown.contains("] peer:23232: a\\u{1b}[2Jb\n"), "{shown}");
    bench.run("chat(false)").unwrap();
    post();
    assert_eq!(bench.wait_for("true\t6\n"), "true\t6\n");
}

#[test]
fn a_chat_needs_a_connection_that_works_and_a_text_of_the_right_length() {
    let bench = bench(few());
    bench.run("a = connect('peer')").unwrap();
    assert!(bench.run("a:chat('x')").unwrap_err().contains("tc: tcpconn *:? <-> peer:23232 CONNECTING"));
    bench.change(0, State::Connected);
    bench.run("a:chat('x') chat(a, 7)").unwrap();
    let posted: Vec<_> = bench.changes.try_iter().collect();
    assert!(matches!(&posted[1..], [Change::Chat(_, x), Change::Chat(_, seven)] if x == "x" && seven == "7"));
    for (code, text) in [
        ("chat(a, '')", "text: expected 1 to 4096 bytes, not 0"),
        ("chat(a, ('x'):rep(4097))", "text: expected 1 to 4096 bytes, not 4097"),
        ("chat('x')", "tc: expected a connection, true or false, not string"),
        (
            "on('opened', print)",
            "event: expected one of connected, error, closed, message, offer, file, not \"opened\"",
        ),
        ("on('closed')", "f: expected a function, not nil"),
        ("after(-1, print)", "seconds: expected a number from 0 on, not -1"),
        ("every(0, print)", "seconds: expected at least 0.01"),
        ("sleep('x')", "seconds: expected a number from 0 on, not string"),
        ("wait(1)", "wait: expected a connection or a tunnel, not integer"),
    ] {
        let error = bench.run(code).unwrap_err();
        assert!(error.contains(text), "{code}: {error}");
    }
}

#[test]
fn no_verb_takes_longer_than_10_ms() {
    let bench = bench(few());
    bench.run("c = connect('a') t = c:udptunnel(0, 'b', 53) t:name('web')").unwrap();
    for code in [
        "connect('b')",
        "listen(0)",
        "c:tunnel(0, 'b', 80)",
        "c:rtunnel('b', 80, 0)",
        "c:udptunnel(0, 'b', 80)",
        "c:rudptunnel('b', 80, 0)",
        "c:socks(0)",
        "stats(t), stats(c), stats()",
        "name(c, 'quinn'), name(c), connection('quinn'), tunnel('web'), names(), forget('quinn')",
        "myip(), myip(c), myip('ipv6')",
        "status(c), list_connections(), list_tunnels(c), parent(t)",
        "close(t), close(c)",
    ] {
        // A busy machine may hold up one of several.
        let times = (0..10).map(|_| {
            let since = std::time::Instant::now();
            bench.run(code).unwrap();
            since.elapsed()
        });
        let fastest = times.min().unwrap();
        assert!(fastest < std::time::Duration::from_millis(10), "{code}: {fastest:?}");
    }
}

#[test]
fn a_wrong_argument_of_a_further_verb_raises_an_error_that_names_it() {
    let bench = bench(few());
    bench.run("c = connect('a') t = c:socks()").unwrap();
    for (code, text) in [
        ("socks(c, 'x')", "port: expected a port from 0 to 65535, not string"),
        ("c:udptunnel(0, 'b', 0)", "remote_port: expected a port from 1"),
        ("c:rudptunnel(1, 2, 3)", "local_host: expected a host, not integer"),
        ("t:socks()", "tc: expected a connection"),
        ("t:myip()", "tc: expected a connection"),
        ("myip(c, 'ipx')", "family \"ipx\": expected \"ipv4\" or \"ipv6\""),
        ("name(c, 1)", "name: expected a string, not integer"),
        ("name(c, 'console-7')", "expected no number, and none that begins with console- listen- tunnel-"),
        ("connection()", "name: expected a string, not nil"),
        ("stats(1)", "stats: expected a connection or a tunnel, not integer"),
        ("forget()", "name: expected a string, not nil"),
    ] {
        let error = bench.run(code).unwrap_err();
        assert!(error.contains(text), "{code}: {error}");
    }
}

#[test]
fn a_finalizer_is_refused_because_nothing_would_end_it() {
    let bench = bench(Limits::default());
    for code in ["setmetatable({}, {__gc = function() while true do end end})", "setmetatable({}, {__gc = true})"] {
        assert!(bench.run(code).unwrap_err().contains("a finalizer (__gc) is not permitted"), "{code}");
    }
    bench
        .run("t = setmetatable({}, {__index = {a = 7}}) assert(t.a == 7 and pcall(setmetatable, 1) == false)")
        .unwrap();
    bench.run("assert(getmetatable(setmetatable(t, nil)) == nil)").unwrap();
}

#[test]
fn a_print_is_bounded() {
    let bench = bench(Limits::default());
    bench.run("s = ('é'):rep(300000) print(s, s, s)").unwrap();
    let printed = bench.printed.lock().unwrap();
    assert!(printed.len() <= PRINTED_BYTES_MAX + 8 && printed.ends_with(" ...\n"), "{}", printed.len());
}
