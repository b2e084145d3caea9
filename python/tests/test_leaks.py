"""Ten thousand cycles leave nothing behind."""

from __future__ import annotations

import gc
import socket
import tracemalloc

import seaprox
from seaprox import Connection, End, PollEvent, Reason

from .kit import TestCase, turn_until

CYCLES = 10_000
BATCH = 100


class Leaks(TestCase):
    def tables(self, loop: seaprox.Loop) -> int:
        """Returns the number of objects that a loop keeps for C."""
        kept = (loop._posts, loop._timers, loop._watches, loop._factories, loop._factory_of, loop._records, loop._data)
        return sum(len(table) for table in kept) + len(loop._hooks)

    def grown(self, cycle: object, batches: int) -> int:
        """Runs batches of cycles. Returns the bytes by which the second half of them has grown the memory of Python."""
        assert callable(cycle)
        for _ in range(batches // 2):
            cycle()
        gc.collect()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(batches - batches // 2):
            cycle()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    def test_ten_thousand_connections_with_data_and_hooks_leave_nothing_behind(self) -> None:
        loop, closed = self.loop(), list[End]()

        class Handler(seaprox.Handler):
            def opened(self, connection: Connection) -> None:
                assert connection.source
                connection.source.data = [connection]
                connection.set_hook(seaprox.Hook())
                connection.close(Reason.KILLED)

            def closed(self, connection: Connection, end: End) -> None:
                closed.append(end)

        handler = Handler()

        def batch() -> None:
            closed.clear()
            pairs = [socket.socketpair() for _ in range(BATCH)]
            for ours, theirs in pairs:
                ours.close()
                loop.adopt(theirs, handler)
            turn_until(loop, lambda: len(closed) == BATCH)
            self.assertEqual(closed[0].source_data[0].loop, loop)
            closed.clear()

        grown = self.grown(batch, CYCLES // BATCH)
        self.assertEqual((self.tables(loop), len(seaprox._callbacks.HOOKS)), (0, 0))
        self.assertLess(grown, 50_000)

    def test_ten_thousand_posts_timers_and_watches_leave_nothing_behind(self) -> None:
        loop, seen = self.loop(), list[int]()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        def batch() -> None:
            seen.clear()
            for number in range(BATCH):
                loop.post(seen.append, number)
                loop.call_later(0, seen.append, number)
                loop.call_later(100, print).cancel()
                loop.watch(ours, PollEvent.READABLE, print).close()
            turn_until(loop, lambda: len(seen) == 2 * BATCH)

        grown = self.grown(batch, CYCLES // BATCH)
        self.assertEqual(self.tables(loop), 0)
        self.assertLess(grown, 50_000)

    def test_a_thousand_listeners_and_a_hundred_loops_leave_nothing_behind(self) -> None:
        loop = self.loop()

        def batch() -> None:
            for _ in range(BATCH // 10):
                loop.listen("127.0.0.1:0", seaprox.Handler).close()
            loop.run_one(0)
            with seaprox.Loop(num_threads=1) as another:
                another.call_later(100, print)
                another.listen("127.0.0.1:0", seaprox.Handler)

        grown = self.grown(batch, 100)
        turn_until(loop, lambda: self.tables(loop) == 0)
        self.assertLess(grown, 50_000)
        self.assertEqual(list(seaprox._callbacks.LOOPS.values()), [loop])
