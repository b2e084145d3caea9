"""The connecting callback: a program that resolves and connects in threads of its own."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Any

import seaprox
from seaprox import ConnectRequest, Reason

from .kit import PATIENCE, TestCase, caught, turn_until


class Connectors(TestCase):
    def ask(self, loop: seaprox.Loop, port: int, host: bytes, target_port: int) -> tuple[int, socket.socket]:
        """Asks a SOCKS5 proxy for a target. Returns its reply and the client."""
        client, replies = self.connect(port), list[bytes]()

        def talk() -> None:
            client.sendall(b"\5\1\0\5\1\0\3" + bytes([len(host)]) + host + struct.pack(">H", target_port))
            answer = b""
            while len(answer) < 12:
                answer += client.recv(100)
            replies.append(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        turn_until(loop, lambda: replies)
        thread.join()
        return replies[0][3], client

    def test_threads_connect_the_dests_of_a_front_end_by_name(self) -> None:
        loop, asked, target = self.loop(), list[Any](), self.capitals()

        def connect(host: str, port: int) -> socket.socket:
            asked.append((host, port, threading.current_thread() is threading.main_thread()))
            if host == "made.up":
                return seaprox.connect(*target.split(":"))  # type: ignore[arg-type]
            raise OSError(113, "no route")

        with seaprox.threaded(connect) as connector:
            loop.set_connector(connector)
            listener = loop.serve("socks", "127.0.0.1:0")
            reply, client = self.ask(loop, listener.port, b"made.up", 7)
            self.assertEqual(reply, 0)
            client.sendall(b"words")
            turn_until(loop, lambda: loop.status()["bytes_sent"] >= 5 or self.received(client))
            # 4: the host is unreachable.
            self.assertEqual(self.ask(loop, listener.port, b"other.name", 8)[0], 4)
            loop.close()
        self.assertEqual(asked, [("made.up", 7, False), ("other.name", 8, False)])

    def received(self, client: socket.socket) -> bool:
        client.settimeout(0.01)
        try:
            return client.recv(100) == b"WORDS"
        except TimeoutError:
            return False
        finally:
            client.settimeout(PATIENCE)

    def test_exceptions_of_connecting_become_reasons(self) -> None:
        loop, kept = self.loop(), list[ConnectRequest]()
        loop.set_connector(kept.append)
        listener = loop.serve("socks", "127.0.0.1:0")
        failures: list[tuple[Any, int]] = [
            (socket.gaierror(-2, "unknown"), 4),
            (ConnectionRefusedError(111, "refused"), 5),
            (OSError(101, "unreachable"), 3),
            (PermissionError(13, "forbidden"), 2),
            (ValueError("a defect"), 1),
            (Reason.CONNECTION_REFUSED, 5),
        ]
        for failure, reply in failures:

            def answer(failure: Any = failure) -> None:
                until = time.monotonic() + PATIENCE
                while not kept and time.monotonic() < until:
                    time.sleep(0.001)
                request = kept.pop()
                request.failed(failure)
                try:
                    request.failed(failure)
                except seaprox.StaleError:
                    pass
                else:
                    kept.append(request)

            thread = threading.Thread(target=answer)
            thread.start()
            self.assertEqual(self.ask(loop, listener.port, b"a.name", 80)[0], reply, failure)
            thread.join()
            self.assertEqual(kept, [])

    def test_a_request_tells_its_side_and_a_connector_that_fails_is_internal(self) -> None:
        loop, seen = self.loop(), list[Any]()

        def connector(request: ConnectRequest) -> None:
            connection = request.side.connection
            assert connection
            seen.append((request.host, request.port, request.side.state, request.side.role, connection.target))
            raise RuntimeError("on purpose")

        loop.set_connector(connector)
        listener = loop.serve("socks", "127.0.0.1:0")
        with caught() as errors:
            reply, _ = self.ask(loop, listener.port, b"a.name", 80)
        self.assertEqual(reply, 1)
        self.assertIsInstance(errors[0], RuntimeError)
        state, role = seaprox.SideState.CONNECTING, seaprox.Role.DEST
        self.assertEqual(seen, [("a.name", 80, state, role, "a.name:80")])

    def test_an_answer_after_the_end_of_the_loop_closes_the_socket_and_says_so(self) -> None:
        loop, kept = seaprox.Loop(), list[ConnectRequest]()
        loop.set_connector(kept.append)
        listener = loop.serve("static", "127.0.0.1:0", to="a.name:80")
        self.connect(listener.port)
        turn_until(loop, lambda: kept)
        loop.close()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with self.assertRaises(seaprox.StaleError):
                kept[0].connected(theirs)
            self.assertEqual(ours.recv(1), b"")
