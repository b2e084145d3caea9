"""Connections, sides, handlers, hooks and adopted descriptors."""

from __future__ import annotations

import socket
from typing import Any

import seaprox
from seaprox import Cause, Connection, End, Reason, Role, Side, SideState, Stage

from .kit import PATIENCE, TestCase, caught, exchange, in_thread, turn_until


class Recorder(seaprox.Handler):
    """Notes its callbacks, and connects to a target."""

    def __init__(self, target: str = "") -> None:
        self.target, self.seen = target, list[Any]()

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        self.seen.append("opened")
        if self.target:
            connection.connect(self.target)

    def closed(self, connection: Connection, end: End) -> None:
        self.seen.append(end)


class Connections(TestCase):
    def talk(self, loop: seaprox.Loop, port: int, data: bytes) -> bytes:
        """Exchanges bytes with a listener of the loop, which is turned meanwhile."""
        answers: list[bytes] = []
        client = self.connect(port)
        loop.call_later(0, lambda: None)
        import threading

        thread = threading.Thread(target=lambda: answers.append(exchange(client, data)))
        thread.start()
        turn_until(loop, lambda: answers)
        thread.join()
        return answers[0]

    def test_each_client_gets_a_handler_of_its_own(self) -> None:
        loop, handlers, target = self.loop(), list[Recorder](), self.capitals()

        def make() -> Recorder:
            handlers.append(Recorder(target))
            return handlers[-1]

        listener = loop.listen("127.0.0.1:0", make, name="mine", kind="mine")
        self.assertEqual(listener.address, f"127.0.0.1:{listener.port}")
        self.assertEqual(self.talk(loop, listener.port, b"one"), b"ONE")
        self.assertEqual(self.talk(loop, listener.port, b"three"), b"THREE")
        turn_until(loop, lambda: all(len(it.seen) == 2 for it in handlers))
        self.assertEqual([it.seen[1].sent for it in handlers], [3, 5])
        self.assertEqual(handlers[0].seen[1].reason, Reason.SOURCE_FIN)
        self.assertEqual(handlers[0].seen[1].ending, seaprox.Ending.GRACEFUL)
        turn_until(loop, lambda: len(loop._records) == 0)
        with self.assertRaises(seaprox.OverError):
            handlers[0].connection.relay()
        listener.close()
        turn_until(loop, lambda: not loop._factories)
        with self.assertRaises(seaprox.OverError):
            listener.close()

    def test_a_side_is_idle_connecting_connected_and_has_any_object_as_its_data(self) -> None:
        loop, test, target = self.loop(), self, self.capitals()
        name, tag = {"an": "object"}, ["another"]
        states: list[SideState] = []

        class Sides(Recorder):
            def opened(self, connection: Connection) -> None:
                super().opened(connection)
                source, dest = connection.source, connection.dest
                assert source and dest
                states.append(dest.state)
                source.data, dest.data = name, tag
                test.assertIs(source.data, name)
                test.assertEqual(source.other, dest)
                test.assertEqual(dest.connection, connection)
                test.assertEqual((source.role, dest.role), (Role.SOURCE, Role.DEST))
                test.assertEqual(connection.stage, Stage.CONNECTING)
                test.assertEqual(connection.target, target)
                test.assertEqual(connection.listener, listener)
                test.assertEqual(loop.side_of(tag), dest)
                test.assertIsNone(loop.side_of(["unknown"]))
                connection.set_user("somebody")
                connection.set_kind("sides")

            def connected(self, connection: Connection, error: Exception | None) -> None:
                test.assertIsNone(error)
                assert connection.dest and connection.source
                states.append(connection.dest.state)
                test.assertRegex(connection.description, r"^sides\[ipv4\[127\.0\.0\.1:\d+\]->ipv4\[127")
                test.assertTrue(connection.dest.peer.startswith("ipv4[127.0.0.1:"))
                test.assertTrue(connection.source.local.endswith(f":{listener.port}]"))
                connection.source.data = "one of text"
                super().connected(connection, None)

        handler = Sides(target)
        listener = loop.listen("127.0.0.1:0", handler)
        self.assertEqual(self.talk(loop, listener.port, b"data"), b"DATA")
        turn_until(loop, lambda: len(handler.seen) == 2)
        self.assertEqual(states, [SideState.CONNECTING, SideState.CONNECTED])
        self.assertEqual(handler.seen[1].source_data, "one of text")
        self.assertIs(handler.seen[1].dest_data, tag)
        turn_until(loop, lambda: len(loop._data) + len(loop._records) == 0)

    def test_a_handler_reads_and_sends_without_a_dest(self) -> None:
        loop, ends = self.loop(), list[tuple[Side, Cause]]()

        class Echo(seaprox.Handler):
            def readable(self, side: Side, data: bytes) -> None:
                side.send(data[::-1])

            def ended(self, side: Side, cause: Cause) -> None:
                ends.append((side, cause))
                assert side.connection
                side.connection.close_after_flush(Reason.SOURCE_FIN)

        listener = loop.listen("127.0.0.1:0", Echo)
        self.assertEqual(self.talk(loop, listener.port, b"abc"), b"cba")
        self.assertEqual([cause for _, cause in ends], [Cause.FIN])

    def test_a_connection_that_is_refused_has_an_oserror_and_may_try_another_target(self) -> None:
        loop, test, target = self.loop(), self, self.capitals()
        refused, errors = f"127.0.0.1:{self.closed_port()}", list[seaprox.ConnectError]()

        class Twice(Recorder):
            def connected(self, connection: Connection, error: seaprox.ConnectError | None) -> None:
                if error:
                    errors.append(error)
                    connection.connect(target)
                else:
                    connection.relay()

        listener = loop.listen("127.0.0.1:0", Twice(refused))
        self.assertEqual(self.talk(loop, listener.port, b"data"), b"DATA")
        test.assertIsInstance(errors[0], OSError)
        test.assertEqual(errors[0].reason, Reason.CONNECTION_REFUSED)
        self.assertIn("connection_refused", str(errors[0]))

        default = Recorder(refused)
        listener = loop.listen("127.0.0.1:0", default)
        self.connect(listener.port)
        turn_until(loop, lambda: len(default.seen) == 2)
        self.assertEqual(default.seen[1].reason, Reason.CONNECTION_REFUSED)

    def test_an_exception_closes_its_connection_as_internal_and_no_other(self) -> None:
        loop, target = self.loop(), self.capitals()
        kept = Recorder(target)
        listener = loop.listen("127.0.0.1:0", kept)
        self.connect(listener.port).sendall(b"x")
        turn_until(loop, lambda: kept.seen and kept.connection.bytes == (1, 1))
        told: list[Any] = []
        loop.set_exception_handler(lambda *args: told.append(args))

        def fail(*_: Any) -> Any:
            raise KeyError("on purpose")

        for name in ("opened", "readable", "connected", "timeout", "woken"):
            handler = Recorder(target if name == "connected" else "")
            if name == "woken":
                handler.opened = lambda connection: connection.wake_after(0)  # type: ignore[method-assign]
            setattr(handler, name, fail)
            broken = loop.listen("127.0.0.1:0", handler, handshake_timeout=0.05 if name == "timeout" else None)
            self.connect(broken.port).sendall(b"data")
            turn_until(loop, lambda: handler.seen and isinstance(handler.seen[-1], End))
            self.assertEqual(handler.seen[-1].reason, Reason.INTERNAL, name)
            self.assertIsInstance(told[-1][1], KeyError)
            self.assertIsInstance(told[-1][2], Connection)
        self.assertEqual(len(told), 5)
        self.assertEqual(kept.connection.stage, Stage.ESTABLISHED)

        def refuse() -> Recorder:
            raise MemoryError("no handler")

        broken = loop.listen("127.0.0.1:0", refuse)
        client = self.connect(broken.port)
        turn_until(loop, lambda: len(told) == 6)
        client.close()

    def test_a_handler_that_consumes_too_much_is_told(self) -> None:
        loop = self.loop()

        class Greedy(Recorder):
            def readable(self, side: Side, data: bytes) -> int:
                return len(data) + 1

        handler = Greedy()
        listener = loop.listen("127.0.0.1:0", handler)
        self.connect(listener.port).sendall(b"data")
        with caught() as errors:
            turn_until(loop, lambda: len(handler.seen) == 2)
        self.assertIsInstance(errors[0], ValueError)

    def test_descriptors_are_source_and_dest_and_a_handler_may_be_changed(self) -> None:
        loop, target = self.loop(), Recorder()
        ours, source = socket.socketpair()
        theirs, dest = socket.socketpair()
        for end in (ours, theirs):
            self.addCleanup(end.close)
            end.settimeout(PATIENCE)

        class First(Recorder):
            def opened(self, connection: Connection) -> None:
                super().opened(connection)
                connection.set_handler(Role.SOURCE, target)
                connection.connect(dest)

        first = First()
        connection = loop.adopt(source, first, kind="pair")
        self.assertEqual((source.fileno(), dest.fileno() >= 0), (-1, True))
        turn_until(loop, lambda: first.seen and connection.stage == Stage.ESTABLISHED)
        self.assertEqual(dest.fileno(), -1)
        ours.sendall(b"through")
        loop.run_one(0)
        turn_until(loop, lambda: connection.bytes[0] == 7)
        self.assertEqual(theirs.recv(100), b"through")
        connection.abort()
        turn_until(loop, lambda: target.seen)
        self.assertEqual(target.seen[0].reason, Reason.KILLED)
        turn_until(loop, lambda: len(loop._records) == 0)

    def test_a_side_is_paused_relayed_in_part_and_its_dest_released(self) -> None:
        loop, target = self.loop(), self.capitals()
        seen: list[Any] = []

        class Parts(Recorder):
            def connected(self, connection: Connection, error: Exception | None) -> None:
                source, dest = connection.source, connection.dest
                assert source and dest
                dest.send(b"<")
                dest.resume()
                source.relay(3)
                source.pause()
                source.relay(3)

            def readable(self, side: Side, data: bytes) -> int:
                seen.append((side.role, data))
                if side.role == Role.DEST and data == b"<ABC":
                    connection = side.connection
                    assert connection and connection.source
                    connection.disconnect()
                    connection.source.send(b"bye")
                    self.queued = connection.source.queued
                    connection.finish()
                    connection.close_after_flush(Reason.DRAINED)
                return 0

            def ended(self, side: Side, cause: Cause) -> None:
                seen.append((side.role, cause))

        handler = Parts(target)
        listener = loop.listen("127.0.0.1:0", handler)
        self.assertEqual(self.talk(loop, listener.port, b"abcdef"), b"bye")
        self.assertIn((Role.DEST, b"<ABC"), seen)
        self.assertIn((Role.SOURCE, b"def"), seen)
        self.assertLessEqual(handler.queued, 3)

    def test_hooks_see_connect_both_directions_and_the_end_and_change_bytes(self) -> None:
        loop, test, target, seen = self.loop(), self, self.capitals(), list[Any]()

        class Rot(seaprox.Hook):
            def connected(self) -> None:
                seen.append("connected")
                with test.assertRaises(seaprox.BusyError):
                    loop.status()

            def data(self, role: Role, transit: seaprox.Transit) -> None:
                self.transit = transit
                seen.append((role, transit.input))
                if not transit.input:
                    return
                if role == Role.SOURCE:
                    test.assertGreater(transit.room, 4)
                    test.assertEqual(transit.write(b"<" + transit.input + b">"), len(transit.input) + 2)
                    transit.consume(len(transit.input))
                    transit.call_again()
                else:
                    test.assertEqual(transit.pass_on(), len(seen[-1][1]))

            def ended(self, reason: Reason) -> None:
                seen.append(reason)

        class Hooked(Recorder):
            def opened(self, connection: Connection) -> None:
                self.hook = Rot()
                connection.set_hook(self.hook)
                with test.assertRaises(seaprox.AlreadyError):
                    connection.set_hook(Rot())
                super().opened(connection)

        handler = Hooked(target)
        listener = loop.listen("127.0.0.1:0", handler)
        self.assertEqual(self.talk(loop, listener.port, b"data"), b"<DATA>")
        turn_until(loop, lambda: len(handler.seen) == 2)
        self.assertEqual(seen[0], "connected")
        self.assertIn((Role.SOURCE, b"data"), seen)
        self.assertIn((Role.DEST, b"<DATA>"), seen)
        self.assertEqual(seen[-1], Reason.SOURCE_FIN)
        self.assertEqual(loop._hooks, set())
        with self.assertRaises(seaprox.StaleError):
            self.assertEqual(handler.hook.transit.input, b"")

    def test_a_hook_ends_its_connection_by_a_reason_or_an_exception(self) -> None:
        loop, target = self.loop(), self.capitals()

        class Refusing(seaprox.Hook):
            def data(self, role: Role, transit: seaprox.Transit) -> Reason:
                return Reason.NOT_PERMITTED

        class Failing(seaprox.Hook):
            def data(self, role: Role, transit: seaprox.Transit) -> None:
                raise RuntimeError("on purpose")

        class FailingAtOnce(seaprox.Hook):
            def connected(self) -> None:
                raise RuntimeError("on purpose")

        hooks = {Refusing: Reason.NOT_PERMITTED, Failing: Reason.INTERNAL, FailingAtOnce: Reason.INTERNAL}
        for hook, reason in hooks.items():

            class Hooked(Recorder):
                def opened(self, connection: Connection) -> None:
                    connection.set_hook(hook())
                    super().opened(connection)

            handler = Hooked(target)
            listener = loop.listen("127.0.0.1:0", handler)
            self.connect(listener.port).sendall(b"data")
            with caught() as errors:
                turn_until(loop, lambda: len(handler.seen) == 2)
            self.assertEqual(handler.seen[1].reason, reason)
            self.assertEqual(len(errors), reason == Reason.INTERNAL)

    def test_a_callback_cannot_be_called_in_another_thread(self) -> None:
        loop, handler = self.loop(), Recorder(self.capitals())
        listener = loop.listen("127.0.0.1:0", handler)
        self.connect(listener.port)
        turn_until(loop, lambda: handler.seen)
        with self.assertRaises(seaprox.ThreadError):
            in_thread(handler.connection.close)
        # A look-up that has no error number answers with nothing.
        self.assertIsNone(in_thread(lambda: handler.connection.source))
