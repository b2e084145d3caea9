"""The loop: turns, threads, timers, descriptors, signals, errors."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import seaprox
from seaprox import ErrorCode, PollEvent

from .kit import PATIENCE, TestCase, caught, in_thread, turn_until


class Loops(TestCase):
    def test_a_loop_runs_until_it_is_finished_from_another_thread(self) -> None:
        loop, seen = self.loop(), list[Any]()
        loop.call_later(0.01, seen.append, "timer")

        def finish() -> None:
            loop.post(seen.append, "post")
            loop.post(lambda: loop.call_later(0.02, loop.finish))

        thread = threading.Thread(target=finish)
        thread.start()
        loop.run()
        thread.join()
        self.assertEqual(sorted(seen), ["post", "timer"])
        self.assertFalse(loop.run_one(0))

    def test_a_turn_waits_for_its_timeout_and_a_wake_ends_the_wait(self) -> None:
        loop = self.loop()
        before = time.monotonic()
        while time.monotonic() < before + 0.05:
            self.assertTrue(loop.run_one(0.06))
        threading.Timer(0.02, loop.wake).start()
        self.assertTrue(loop.run_one())

    def test_another_thread_may_post_and_nothing_else(self) -> None:
        loop, seen = self.loop(), list[Any]()
        for call in (lambda: loop.run_one(0), loop.status, lambda: loop.serve("socks", "127.0.0.1:0"), loop.close):
            with self.assertRaises(seaprox.ThreadError) as raised:
                in_thread(call)
            self.assertEqual(raised.exception.code, ErrorCode.THREAD)
        in_thread(loop.post, lambda: seen.append(threading.get_ident()))
        turn_until(loop, lambda: seen)
        self.assertEqual(seen, [threading.get_ident()])

    def test_each_thread_has_a_loop_of_its_own_and_they_post_to_one_another(self) -> None:
        count, loops, sums = 500, list[tuple[seaprox.Loop, list[int]]](), list[int]()
        ready, over = threading.Barrier(4), threading.Barrier(4)

        def work() -> None:
            with seaprox.Loop(num_threads=1) as loop:
                seen: list[int] = []
                loops.append((loop, seen))
                ready.wait(PATIENCE)
                for other, theirs in loops:
                    for value in range(count):
                        other.post(theirs.append, value)
                turn_until(loop, lambda: len(seen) == 4 * count)
                sums.append(sum(seen))
                over.wait(PATIENCE)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(sums, [4 * sum(range(count))] * 4)

    def test_a_closed_loop_says_so(self) -> None:
        with seaprox.Loop() as loop:
            connection, side = loop.connection(1), loop.side(1)
            timer = loop.call_later(100, print)
        self.assertTrue(loop.is_closed)
        for call in (lambda: loop.run_one(0), loop.wake, lambda: loop.post(print), connection.relay, side.pause):
            with self.assertRaises(seaprox.StaleError):
                call()
        self.assertEqual(len(loop._posts), 0)
        timer.cancel()
        loop.close()

    def test_a_loop_cannot_be_run_or_closed_in_its_callback(self) -> None:
        loop, errors = self.loop(), []

        def again() -> None:
            for call in (lambda: loop.run_one(0), loop.run, loop.close, lambda: loop.apply("")):
                try:
                    call()
                except seaprox.BusyError as error:
                    errors.append(error.code)

        loop.post(again)
        turn_until(loop, lambda: errors)
        self.assertEqual(errors, [ErrorCode.BUSY] * 4)

    def test_errors_of_the_system_are_oserrors_with_their_errno(self) -> None:
        loop = self.loop()
        listener = loop.serve("socks", "127.0.0.1:0")
        with self.assertRaises(OSError) as raised:
            loop.serve("socks", listener.address)
        self.assertEqual(raised.exception.errno, errno.EADDRINUSE)
        self.assertIsInstance(raised.exception, seaprox.Error)
        with self.assertRaises(ValueError) as invalid:
            loop.serve("socks", "no address at all")
        self.assertIsInstance(invalid.exception, seaprox.ConfigError)
        with self.assertRaises(LookupError):
            loop.connection(12345).relay()
        with self.assertRaises(seaprox.InvalidError):
            loop.connection(listener.id).relay()
        with self.assertRaises(ValueError):
            loop.call_later(-1, print)

    def test_the_options_of_a_loop_are_its_limits(self) -> None:
        loop = self.loop(max_num_timers=1, max_num_watches=1, max_num_connections=7)
        loop.call_later(100, print)
        with self.assertRaises(seaprox.FullError):
            loop.call_later(100, print)
        self.assertEqual(len(loop._timers), 1)
        self.assertEqual(loop.status()["limits"]["connections"], 7)

    def test_timers_fire_once_and_may_be_cancelled(self) -> None:
        loop, seen = self.loop(), list[Any]()
        first = loop.call_later(0.01, seen.append, 1)
        second = loop.call_later(0.01, seen.append, 2)
        loop.call_later(0.02, seen.append, 3)
        self.assertTrue(second.is_pending)
        timeout = loop.timeout()
        assert timeout is not None
        self.assertLessEqual(timeout, 0.1)
        second.cancel()
        turn_until(loop, lambda: len(seen) == 2)
        self.assertEqual(seen, [1, 3])
        self.assertFalse(first.is_pending or second.is_pending)
        first.cancel()
        self.assertEqual(loop._timers, {})

    def test_descriptors_are_watched_modified_and_left(self) -> None:
        loop, seen = self.loop(), list[Any]()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        def ready(file: Any, events: PollEvent) -> None:
            seen.append((file, events))

        watch = loop.watch(ours, PollEvent.READABLE, ready)
        with self.assertRaises(seaprox.AlreadyError):
            loop.watch(ours, PollEvent.READABLE, ready)
        loop.run_one(0)
        self.assertEqual(seen, [])
        theirs.send(b"x")
        turn_until(loop, lambda: seen)
        self.assertEqual(seen[0], (ours, PollEvent.READABLE))
        watch.modify(PollEvent.WRITABLE)
        seen.clear()
        turn_until(loop, lambda: seen)
        self.assertIn(PollEvent.WRITABLE, seen[0][1])
        watch.close()
        watch.close()
        seen.clear()
        loop.run_one(0)
        self.assertEqual((seen, loop._watches), ([], {}))
        with self.assertRaises(seaprox.InvalidError):
            loop.watch(ours, PollEvent.FAILED, ready)

    def test_exceptions_of_callbacks_go_to_the_handler_or_to_the_unraisable_hook(self) -> None:
        loop, told = self.loop(), []

        def fail() -> None:
            raise ZeroDivisionError("on purpose")

        with caught() as errors:
            loop.post(fail)
            loop.call_later(0, fail)
            turn_until(loop, lambda: len(errors) == 2)
        self.assertEqual([str(error) for error in errors], ["on purpose"] * 2)
        loop.set_exception_handler(lambda *args: told.append(args))
        loop.post(fail)
        turn_until(loop, lambda: told)
        self.assertIs(told[0][0], loop)
        self.assertIsInstance(told[0][1], ZeroDivisionError)
        self.assertIsNone(told[0][2])

    def test_what_ends_a_program_leaves_the_turn(self) -> None:
        loop = self.loop()
        loop.post(sys.exit, 7)
        with self.assertRaises(SystemExit):
            loop.run()
        # It can go on.
        loop.post(loop.finish)
        loop.run()

    def test_a_signal_ends_the_wait_of_a_loop(self) -> None:
        loop, seen = self.loop(), list[Any]()

        def finish(*_: Any) -> None:
            seen.append(1)
            loop.finish()

        before = signal.signal(signal.SIGUSR1, finish)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        # It arrives in a thread whose system calls it interrupts, so that the wait of the loop ends by nothing else.
        over = threading.Event()
        other = threading.Thread(target=over.wait, args=(PATIENCE,))
        other.start()
        loop.call_later(0.02, lambda: threading.Timer(0.02, signal.pthread_kill, (other.ident, signal.SIGUSR1)).start())
        loop.run()
        over.set()
        other.join()
        self.assertEqual(seen, [1])
        self.assertEqual(signal.set_wakeup_fd(-1), -1)

    def test_control_c_is_raised_between_two_turns(self) -> None:
        program = (
            "import seaprox\n"
            "loop = seaprox.Loop()\n"
            "loop.post(lambda: print('runs', flush=True))\n"
            "try:\n"
            "    loop.run()\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', loop.run_one(0))\n"
        )
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            self.assertEqual(child.stdout.readline(), "runs\n")
            child.send_signal(signal.SIGINT)
            self.assertEqual(child.communicate(timeout=PATIENCE)[0], "interrupted True\n")
        self.assertEqual(child.returncode, 0)

    def test_a_loop_that_is_dropped_is_freed_with_a_warning(self) -> None:
        with self.assertWarns(ResourceWarning):
            loop = seaprox.Loop()
            handle = loop._handle
            del loop
        self.assertNotIn(handle, seaprox._callbacks.LOOPS)

    def test_an_interpreter_ends_with_an_open_loop_and_log(self) -> None:
        program = (
            "import seaprox, logging\n"
            "logging.basicConfig(level=1)\n"
            "seaprox.log_to(level=seaprox.LogLevel.TRACE)\n"
            "loop = seaprox.Loop()\n"
            "listener = loop.listen('127.0.0.1:0', seaprox.Handler)\n"
            "loop.run_one(0)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)


class Libraries(TestCase):
    def import_with(self, library: str) -> str:
        environment = {**os.environ, "SEAPROX_LIBRARY": library}
        done = subprocess.run(
            [sys.executable, "-c", "import seaprox"], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual(done.returncode, 1)
        return done.stderr.splitlines()[-1]

    def test_a_library_that_is_missing_or_another_one_is_an_import_error(self) -> None:
        missing = self.import_with("/nowhere/libseaprox.so.0")
        self.assertTrue(missing.startswith("ImportError: the C library of seaprox cannot be loaded"), missing)
        self.assertIn("make install-capi", missing)
        another = self.import_with("libc.so.6")
        self.assertIn("libc.so.6 lacks seaprox_", another)
