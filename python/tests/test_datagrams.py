"""Datagrams: flows that a program handles, opens, or chooses the targets of."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Callable

import seaprox
from seaprox import DatagramHandler, Flow, Policy, PrivateKey, PublicKey, Reason, Verdict

from .kit import PATIENCE, TestCase, caught


class Recorder(DatagramHandler):
    """Notes its callbacks, and answers in capitals."""

    def __init__(self, target: str | Reason | None = None, answers: bool = True) -> None:
        self.target, self.answers = target, answers
        self.opens, self.seen, self.ends = list[Any](), list[bytes](), list[Reason]()
        self.flow: Flow | None = None

    def open(self, client: str, content: bytes) -> str | Reason | None:
        self.opens.append((client, content))
        return self.target

    def datagram(self, flow: Flow, content: bytes) -> None:
        self.flow = flow
        self.seen.append(content)
        if self.answers:
            flow.send(content.upper())

    def ended(self, flow: Flow, reason: Reason) -> None:
        self.ends.append(reason)


class Datagrams(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.here, self.there = self.loop(), self.loop()
        self.addCleanup(self.finish)

    def finish(self) -> None:
        loops = [self.here, self.there]
        for loop in loops:
            loop.finish()
        while loops:
            loops = [loop for loop in loops if loop.run_one(0.001)]

    def until(self, is_done: Callable[[], object]) -> None:
        """Turns both loops until something is true."""
        until = time.monotonic() + PATIENCE
        while not is_done():
            if time.monotonic() > until:
                raise AssertionError("it does not happen")
            for loop in (self.here, self.there):
                loop.run_one(0.001)

    def client(self) -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.bind(("127.0.0.1", 0))
        client.setblocking(False)
        return client

    def ask(self, client: socket.socket, port: int, content: bytes) -> bytes:
        """Sends a datagram, and returns the answer. A datagram that is lost is sent again."""
        answers, due = list[bytes](), 0.0

        def receive() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                client.sendto(content, ("127.0.0.1", port))
                due = time.monotonic() + 2
            try:
                answers.append(client.recv(70000))
            except BlockingIOError:
                return False
            return True

        self.until(receive)
        return answers[0]

    def echo(self) -> str:
        """Answers each datagram with its bytes in reverse. Returns the address."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)

        def serve() -> None:
            with server:
                while True:
                    try:
                        content, client = server.recvfrom(70000)
                    except OSError:
                        return
                    if content == b"end":
                        return
                    server.sendto(content[::-1], client)

        port = server.getsockname()[1]
        thread = threading.Thread(target=serve)
        thread.start()

        def end() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"end", ("127.0.0.1", port))
            thread.join(PATIENCE)

        self.addCleanup(end)
        return f"127.0.0.1:{port}"

    def test_a_program_answers_the_datagrams_of_a_listener(self) -> None:
        handler = Recorder()
        listener = self.here.listen_datagrams("127.0.0.1:0", handler, name="mine", idle_timeout=100)
        client = self.client()
        self.assertEqual(self.ask(client, listener.port, b"abc"), b"ABC")
        self.assertEqual(self.ask(client, listener.port, b""), b"")
        self.assertEqual(len(handler.opens), 1)
        self.assertIn("127.0.0.1", handler.opens[0][0])
        self.assertEqual(handler.opens[0][1], b"abc")
        assert handler.flow
        self.assertTrue(handler.flow.description.startswith("python["), handler.flow.description)
        with self.assertRaises(seaprox.InvalidError):
            handler.flow.send(bytes(70000))
        listener.close()
        self.until(lambda: handler.ends)
        with self.assertRaises(seaprox.Error):
            handler.flow.send(b"late")
        self.assertEqual(len(self.here._datagrams), 0)

    def test_a_program_chooses_the_target_of_a_flow_or_refuses_it(self) -> None:
        handler = Recorder(self.echo())
        listener = self.here.listen_datagrams("127.0.0.1:0", handler)
        self.assertEqual(self.ask(self.client(), listener.port, b"abc"), b"cba")
        self.assertEqual(handler.seen, [])
        handler.target = Reason.NOT_PERMITTED
        client = self.client()
        client.sendto(b"refused", ("127.0.0.1", listener.port))
        self.until(lambda: len(handler.opens) == 2)
        listener.close()
        self.assertEqual(len(self.here._datagrams), 0)

    def test_a_program_opens_a_flow_of_its_own(self) -> None:
        handler = Recorder(answers=False)
        flow = self.here.open_datagrams(self.echo(), handler)
        flow.send(b"abc")
        self.until(lambda: handler.seen)
        self.assertEqual((handler.seen, handler.opens), ([b"cba"], []))
        flow.close()
        self.until(lambda: handler.ends)
        self.assertEqual(len(self.here._datagrams), 0)
        with self.assertRaises(ValueError):
            self.here.open_datagrams("no target", handler)
        for wrong in (object(), Recorder):
            with self.assertRaises(TypeError):
                self.here.listen_datagrams("127.0.0.1:0", wrong)  # type: ignore[arg-type]
        self.assertEqual(len(self.here._datagrams), 0)

    def test_flows_over_a_link_reach_a_target_or_the_program_at_the_other_end(self) -> None:
        class Handles(Policy):
            def open(self, key: PublicKey, target: str) -> Verdict:
                asked.append(target)
                return Verdict.HANDLE if "made.up" in target else Verdict.PERMIT

        asked: list[str] = []
        secret, far, near, target = PrivateKey(), Recorder(), Recorder(answers=False), self.echo()
        server = self.there.serve_links(
            "127.0.0.1:0", key=secret, peer_key=secret.public, policy=Handles(), datagram_handler=far
        )
        link = self.here.dial_link(server.address, key=secret, peer_key=secret.public)
        flow = link.open_datagrams(target, near)
        self.send_until(flow, b"abc", near)
        self.assertEqual(near.seen[0], b"cba")
        handled = link.open_datagrams("made.up:7", near)
        self.send_until(handled, b"far", far)
        self.until(lambda: b"FAR" in near.seen)
        self.assertIn("udp:made.up:7", asked)
        listener = self.here.listen_datagrams("127.0.0.1:0", Recorder(target), link=link)
        self.assertEqual(self.ask(self.client(), listener.port, b"over the link"), b"knil eht revo")

    def send_until(self, flow: Flow, content: bytes, handler: Recorder) -> None:
        """Sends until a handler has seen something: datagrams may be lost."""
        count, due = len(handler.seen), 0.0

        def seen() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                flow.send(content)
                due = time.monotonic() + 2
            return len(handler.seen) > count

        self.until(seen)

    def test_an_exception_refuses_or_ends_the_flow(self) -> None:
        class Fails(Recorder):
            def open(self, client: str, content: bytes) -> None:
                super().open(client, content)
                if content == b"open":
                    raise RuntimeError("open")

            def datagram(self, flow: Flow, content: bytes) -> None:
                raise RuntimeError("datagram")

        handler, client = Fails(), self.client()
        listener = self.here.listen_datagrams("127.0.0.1:0", handler)
        with caught() as errors:
            client.sendto(b"open", ("127.0.0.1", listener.port))
            self.until(lambda: len(errors) == 1)
            client.sendto(b"other", ("127.0.0.1", listener.port))
            self.until(lambda: handler.ends)
        self.assertEqual([str(error) for error in errors], ["open", "datagram"])
        self.assertEqual(handler.ends, [Reason.KILLED])

    def test_a_thousand_flows_leave_nothing_behind(self) -> None:
        for _ in range(10):
            handlers = [Recorder(answers=False) for _ in range(100)]
            flows = [self.here.open_datagrams("127.0.0.1:9", handler) for handler in handlers]
            for flow in flows:
                flow.close()
            self.until(lambda: all(handler.ends for handler in handlers))
        self.assertEqual((len(self.here._datagrams), seaprox.datagram.HANDLES), (0, {}))
