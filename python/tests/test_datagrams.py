"""Flows of datagrams that end at the program."""

from __future__ import annotations

import socket
import time
from typing import Callable

import seaprox
from seaprox import DatagramHandler, Flow, Reason

from .kit import PATIENCE, TestCase


class Notes(DatagramHandler):
    """Notes what it is told, and answers if it is to."""

    def __init__(self, answers: bool = False, chosen: str | Reason | None = None) -> None:
        self.answers, self.chosen = answers, chosen
        self.clients: list[str] = []
        self.got: list[tuple[Flow, bytes]] = []
        self.ends: list[tuple[Flow, Reason]] = []

    def open(self, client: str, content: bytes) -> str | Reason | None:
        self.clients.append(client)
        return self.chosen

    def datagram(self, flow: Flow, content: bytes) -> None:
        self.got.append((flow, content))
        if self.answers:
            flow.send(content.upper())

    def ended(self, flow: Flow, reason: Reason) -> None:
        self.ends.append((flow, reason))


class Datagrams(TestCase):
    def until(self, loop: seaprox.Loop, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            self.assertLess(time.monotonic(), end, "never")
            loop.run_one(0.05)

    def answer(self, loop: seaprox.Loop, port: int, content: bytes) -> bytes:
        answers: list[bytes] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", port))
            client.send(content)

            def got() -> bool:
                try:
                    answers.append(client.recv(100))
                except BlockingIOError:
                    pass
                return bool(answers)

            self.until(loop, got)
        return answers[0]

    def test_a_program_answers_datagrams_relays_them_and_sends_its_own(self) -> None:
        loop, echo, asking = self.loop(), Notes(answers=True), Notes()
        listener = loop.listen_datagrams("127.0.0.1:0", echo)
        self.assertEqual(self.answer(loop, listener.port, b"words"), b"WORDS")
        flow, content = echo.got[0]
        self.assertEqual((len(echo.clients), content), (1, b"words"))
        self.assertRegex(flow.description, r"^python\[ipv4\[udp:127\.0\.0\.1:")
        flow.close()
        self.until(loop, lambda: echo.ends == [(flow, Reason.KILLED)])
        with self.assertRaises(seaprox.OverError):
            flow.send(b"x")
        own = loop.open_datagrams(f"127.0.0.1:{listener.port}", asking)
        own.send(b"mine")
        self.until(loop, lambda: asking.got == [(own, b"MINE")])
        own.close()
        self.until(loop, lambda: asking.ends == [(own, Reason.KILLED)])
        relay = Notes(chosen=f"127.0.0.1:{listener.port}")
        self.assertEqual(self.answer(loop, loop.listen_datagrams("127.0.0.1:0", relay).port, b"on"), b"ON")
        self.assertEqual((len(relay.clients), relay.got), (1, []))

    def test_a_handler_refuses_clients_and_must_be_one(self) -> None:
        loop, refusing = self.loop(), Notes(chosen=Reason.NOT_PERMITTED)
        listener = loop.listen_datagrams("127.0.0.1:0", refusing)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("127.0.0.1", listener.port))
            self.until(loop, lambda: refusing.clients)
        self.assertEqual(refusing.got, [])
        with self.assertRaises(TypeError):
            loop.listen_datagrams("127.0.0.1:0", object())  # type: ignore[arg-type]
        with self.assertRaises(seaprox.InvalidError):
            loop.open_datagrams("nowhere", refusing)
