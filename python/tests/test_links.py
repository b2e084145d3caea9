"""Links: two nodes, each with a loop, in one thread."""

from __future__ import annotations

import pathlib
import tempfile
import threading
import time
from typing import Any, Callable

import seaprox
from seaprox import (
    Cause,
    Connection,
    ConnectError,
    End,
    EventKind,
    ForwardState,
    LinkEvent,
    LinkEventKind,
    LinkState,
    Policy,
    PrivateKey,
    PublicKey,
    Reason,
    Side,
    Verdict,
)

from .kit import PATIENCE, TestCase, caught, exchange


class Permits(Policy):
    """A policy that notes what it is asked, and has one answer."""

    def __init__(self, verdict: Verdict = Verdict.PERMIT) -> None:
        self.verdict, self.asked = verdict, list[Any]()

    def open(self, key: PublicKey, target: str) -> Verdict:
        self.asked.append((key, target))
        return self.verdict

    def listen(self, key: PublicKey, address: str) -> Verdict:
        self.asked.append((key, address))
        return self.verdict


class Talker(seaprox.Handler):
    """Sends words when it is connected, and notes all that comes."""

    def __init__(self, words: bytes = b"") -> None:
        self.words, self.data, self.error, self.ends = words, b"", list[Any](), list[End]()

    def connected(self, connection: Connection, error: ConnectError | None) -> None:
        self.error.append(error)
        if error:
            connection.close(error.reason)
        elif connection.source and self.words:
            connection.source.send(self.words)
            connection.finish()

    def readable(self, side: Side, data: bytes) -> None:
        self.data += data

    def closed(self, connection: Connection, end: End) -> None:
        self.ends.append(end)


class Upper(seaprox.Handler):
    """Answers in capitals."""

    def readable(self, side: Side, data: bytes) -> None:
        side.send(data.upper())

    def ended(self, side: Side, cause: Cause) -> None:
        assert side.connection
        side.connection.close_after_flush(Reason.SOURCE_FIN)


class Links(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.here, self.there = self.loop(), self.loop()
        self.addCleanup(self.finish)
        self.keys = PrivateKey(), PrivateKey()
        self.told: tuple[list[LinkEvent], list[LinkEvent]] = [], []

    def until(self, is_done: Callable[[], object]) -> None:
        """Turns both loops until something is true."""
        until = time.monotonic() + PATIENCE
        while not is_done():
            if time.monotonic() > until:
                raise AssertionError("it does not happen")
            for loop in (self.here, self.there):
                if not loop.is_closed:
                    loop.run_one(0.001)

    def finish(self) -> None:
        """Finishes both loops at once: one that is closed alone waits for its peer."""
        loops = [loop for loop in (self.here, self.there) if not loop.is_closed]
        for loop in loops:
            loop.finish()
        while loops:
            loops = [loop for loop in loops if loop.run_one(0.001)]

    def link(self, policy: Policy | None = None, **options: Any) -> tuple[seaprox.Link, seaprox.Server]:
        """Makes a link, and waits until it is up."""
        server = self.there.serve_links(
            "127.0.0.1:0",
            key=self.keys[1],
            peer_key=self.keys[0].public,
            policy=policy,
            on_event=self.told[1].append,
            **options,
        )
        address, peer = f"127.0.0.1:{server.port}", str(self.keys[1].public)
        link = self.here.dial_link(address, key=self.keys[0], peer_key=peer, on_event=self.told[0].append)
        self.assertEqual(link.state, LinkState.CONNECTING)
        self.until(lambda: link.state == LinkState.UP and self.told[1])
        return link, server

    def kinds(self, node: int) -> list[LinkEventKind]:
        return [event.kind for event in self.told[node]]

    def test_keys_are_made_kept_derived_and_read(self) -> None:
        key, secret = PrivateKey(), "a secret of some length"
        self.assertNotEqual(bytes(key), bytes(PrivateKey()))
        self.assertEqual(bytes(PrivateKey.derive(secret)), bytes(PrivateKey.derive(secret.encode())))
        self.assertEqual(PublicKey(str(key.public)), key.public)
        self.assertEqual(PublicKey(bytes(key.public)), PrivateKey(bytes(key)).public)
        self.assertTrue(key.public.fingerprint.startswith("SHA256:"))
        self.assertNotIn(bytes(key).hex(), repr(key))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "key")
            self.assertEqual(bytes(PrivateKey.load(path)), bytes(PrivateKey.load(str(path))))
            with self.assertRaises(seaprox.ConfigError):
                PrivateKey.load(folder)
        for wrong in ("no key", b"short"):
            with self.assertRaises(ValueError):
                PublicKey(wrong)
        with self.assertRaises(seaprox.InvalidError):
            PrivateKey.derive("short")

    def test_a_link_comes_up_tells_its_peer_carries_messages_and_is_closed(self) -> None:
        link, server = self.link()
        up = self.told[0][0] if self.told[0][0].kind == LinkEventKind.UP else self.told[0][1]
        self.assertEqual((up.kind, up.link, up.key, up.is_new), (LinkEventKind.UP, link, self.keys[1].public, True))
        self.assertEqual(link.key, self.keys[1].public)
        status = link.status()
        self.assertEqual(status["state"], "up")
        self.assertIn("cipher", status)
        served = next(event for event in self.told[1] if event.kind == LinkEventKind.UP).link
        link.send_message("a message")
        self.until(lambda: LinkEventKind.MESSAGE in self.kinds(1))
        message = self.told[1][-1]
        self.assertEqual((message.text, message.key, message.link), ("a message", self.keys[0].public, served))
        with self.assertRaises(seaprox.InvalidError):
            link.send_message("x" * 5000)
        with self.assertRaises(seaprox.AlreadyError):
            link.redial()
        self.assertEqual(server.address, f"127.0.0.1:{server.port}")
        link.close()
        self.until(lambda: LinkEventKind.CLOSED in self.kinds(0) and LinkEventKind.ENDED in self.kinds(1))
        self.until(lambda: len(self.here._links) == 0)
        with self.assertRaises((seaprox.StaleError, seaprox.OverError)):
            link.send_message("too late")
        server.close()
        self.assertEqual(len(self.there._links), 0)

    def test_a_server_that_closes_its_links_ends_them(self) -> None:
        link, server = self.link(policy=Permits())
        self.assertEqual(len(seaprox._links.POLICIES), 1)
        server.close(closes_links=True)
        self.until(lambda: LinkEventKind.ENDED in self.kinds(0) and LinkEventKind.CLOSED in self.kinds(1))
        self.assertEqual(len(self.there._links), 0)
        self.assertEqual(seaprox._links.POLICIES, {})
        self.assertIn(link.state, (LinkState.CONNECTING, LinkState.ENDED))

    def test_a_forward_carries_clients_to_what_the_policy_permits(self) -> None:
        policy, target, events = Permits(), self.capitals(), list[seaprox.Event]()
        self.here.set_event_handler(events.append)
        link, _ = self.link(policy=policy)
        forward = link.forward_local("127.0.0.1:0", target)
        self.until(lambda: forward.state == ForwardState.LISTENING)
        self.assertEqual(self.talk(forward.port, b"words"), b"WORDS")
        self.assertIn((self.keys[0].public, target), policy.asked)
        self.until(lambda: forward.bytes == (5, 5))
        self.assertEqual(forward.failure, "")
        states = [event.state for event in events if event.forward == forward]
        self.assertIn(ForwardState.LISTENING, states)
        self.assertIn(link, [event.link for event in events if event.kind == EventKind.LINK])

        dynamic = link.forward_dynamic("127.0.0.1:0", "http", connect_timeout="5s")
        request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nmore".encode()
        self.assertTrue(self.talk(dynamic.port, request).endswith(b"MORE"))
        remote = link.forward_remote("127.0.0.1:0", target)
        self.until(lambda: remote.state == ForwardState.LISTENING)
        self.assertEqual(self.talk(remote.port, b"back"), b"BACK")
        for one in (forward, dynamic, remote):
            one.close()
        policy.verdict = Verdict.REFUSE
        refused = link.forward_remote("127.0.0.1:0", target)
        self.until(lambda: refused.state == ForwardState.FAILED)
        self.assertIn("not_permitted", refused.failure)

    def talk(self, port: int, data: bytes) -> bytes:
        answers: list[bytes] = []
        client = self.connect(port)
        thread = threading.Thread(target=lambda: answers.append(exchange(client, data)))
        thread.start()
        self.until(lambda: answers)
        thread.join()
        return answers[0]

    def test_a_stream_is_open_refused_or_failed_with_the_reason_of_the_peer(self) -> None:
        policy, target = Permits(), self.capitals()
        link, _ = self.link(policy=policy)
        talker = Talker(b"stream")
        connection = link.open_stream(target, talker)
        self.until(lambda: talker.data == b"STREAM")
        self.assertEqual(talker.error, [None])
        self.assertEqual(connection.link, link)
        self.until(lambda: talker.ends)
        failed = Talker()
        link.open_stream(f"127.0.0.1:{self.closed_port()}", failed)
        self.until(lambda: failed.ends)
        self.assertEqual(failed.error[0].reason, Reason.CONNECTION_REFUSED)
        policy.verdict = Verdict.REFUSE
        refused = Talker()
        link.open_stream(target, refused)
        self.until(lambda: refused.ends)
        self.assertEqual(refused.error[0].reason, Reason.NOT_PERMITTED)
        self.assertIsInstance(refused.error[0], OSError)
        self.until(lambda: len(self.here._records) == 0)
        with self.assertRaises(seaprox.InvalidError):
            link.open_stream("no target", Talker())

    def test_the_program_decides_about_a_stream_or_takes_it_itself(self) -> None:
        policy, target = Permits(Verdict.ASK), self.capitals()
        link, _ = self.link(policy=policy, handler=Upper)
        for may in (True, False):
            talker = Talker(b"asked")
            link.open_stream(target, talker)
            self.until(lambda: self.told[1][-1].kind == LinkEventKind.ASKED_OPEN)
            asked = self.told[1].pop()
            self.assertEqual((asked.text, asked.key), (target, self.keys[0].public))
            assert asked.connection
            asked.connection.permit(may)
            self.until(lambda: talker.error)
            self.until(lambda: talker.data == b"ASKED" or not may)
            self.assertEqual(talker.error[0] is None, may)
        policy.verdict = Verdict.HANDLE
        talker = Talker(b"handled")
        link.open_stream("made.up:7", talker)
        self.until(lambda: talker.data == b"HANDLED")
        self.assertIn((self.keys[0].public, "made.up:7"), policy.asked)

    def test_services_are_offered_to_keys_and_taken_away(self) -> None:
        link, _ = self.link()
        asked: list[Any] = []

        def permit(key: PublicKey, service: str) -> bool:
            asked.append((key, service))
            return len(asked) == 1

        self.there.set_service("upper", Upper, permit)
        first, second = Talker(b"one"), Talker(b"two")
        link.open_service("upper", first)
        self.until(lambda: first.data == b"ONE")
        self.assertEqual(asked, [(self.keys[0].public, "upper")])
        link.open_service("upper", second)
        self.until(lambda: second.error)
        self.assertEqual(second.error[0].reason, Reason.NOT_PERMITTED)
        self.there.set_service("upper", Upper())
        third = Talker(b"three")
        link.open_service("upper", third)
        self.until(lambda: third.data == b"THREE")
        self.there.remove_service("upper")
        with self.assertRaises(seaprox.StaleError):
            self.there.remove_service("upper")
        fourth = Talker()
        link.open_service("upper", fourth)
        self.until(lambda: fourth.error)
        self.assertEqual(seaprox._links.PERMITS, {})
        self.until(lambda: len(self.there._factories) == 0)

    def test_a_policy_admits_keys_and_one_that_fails_refuses(self) -> None:
        class Strict(Permits):
            def __init__(self, key: PublicKey) -> None:
                super().__init__()
                self.key = key

            def admit(self, key: PublicKey) -> bool:
                self.asked.append(key)
                return key == self.key

            def open(self, key: PublicKey, target: str) -> Verdict:
                raise RuntimeError("on purpose")

        policy = Strict(self.keys[1].public)
        server = self.there.serve_links("127.0.0.1:0", key=self.keys[1], policy=policy, on_event=self.told[1].append)
        address = f"127.0.0.1:{server.port}"
        link = self.here.dial_link(
            address, key=self.keys[0], peer_key=self.keys[1].public, on_event=self.told[0].append
        )
        self.until(lambda: LinkEventKind.REJECTED in self.kinds(0))
        self.assertIn(self.keys[0].public, policy.asked)
        policy.key = self.keys[0].public
        link.redial()
        self.until(lambda: link.state == LinkState.UP)
        talker = Talker()
        with caught() as errors:
            link.open_stream(self.capitals(), talker)
            self.until(lambda: talker.error)
        self.assertEqual(talker.error[0].reason, Reason.NOT_PERMITTED)
        self.assertIsInstance(errors[0], RuntimeError)
        policy.key = self.keys[1].public
        self.there.recheck_links()
        self.until(lambda: link.state != LinkState.UP)

    def test_options_that_say_no_key_or_are_wrong_are_refused(self) -> None:
        with self.assertRaises(seaprox.InvalidError):
            self.here.dial_link("127.0.0.1:1")
        with self.assertRaises(seaprox.ConfigError):
            self.here.dial_link("127.0.0.1:1", peer_key=self.keys[0].public, foo=7)
        with self.assertRaises(ValueError):
            self.here.serve_links("nowhere at all", peer_key=self.keys[0].public)
        link = self.here.dial_link("127.0.0.1:1", key=self.keys[0], peer_key=self.keys[1].public, subflows=2)
        with self.assertRaises(seaprox.InvalidError):
            link.key
        with self.assertRaises(seaprox.OverError):
            link.send_message("nobody")
        link.add_path("127.0.0.1")
        with self.assertRaises(seaprox.AlreadyError):
            link.add_path("127.0.0.1")
        link.remove_path("127.0.0.1")
        with self.assertRaises(seaprox.AlreadyError):
            self.here.dial_link("127.0.0.1:1", key=self.keys[0], peer_key=self.keys[1].public)
        self.assertEqual(len(self.here._links), 1)

    def test_a_thousand_streams_leave_nothing_behind(self) -> None:
        link, server = self.link(policy=Permits(Verdict.HANDLE), handler=Upper)
        for _ in range(20):
            talkers = [Talker(b"word") for _ in range(50)]
            for talker in talkers:
                link.open_stream("any:1", talker)
            self.until(lambda: all(talker.ends for talker in talkers))
            self.assertTrue(all(talker.data == b"WORD" for talker in talkers))
        self.until(lambda: len(self.here._records) + len(self.there._records) == 0)
        link.close()
        server.close(closes_links=True)
        self.until(lambda: len(self.here._links) + len(self.there._links) + len(self.there._factories) == 0)

    def test_a_connector_also_connects_the_servers_of_links(self) -> None:
        server = self.there.serve_links("127.0.0.1:0", key=self.keys[1], peer_key=self.keys[0].public)
        asked: list[Any] = []

        def connector(request: seaprox.ConnectRequest) -> None:
            asked.append((request.host, request.port, request.side.connection))
            request.connected(seaprox.connect("127.0.0.1", server.port))

        self.here.set_connector(connector)
        link = self.here.dial_link("made.up:7", key=self.keys[0], peer_key=self.keys[1].public)
        self.until(lambda: link.state == LinkState.UP)
        self.assertEqual(asked, [("made.up", 7, None)])

    def test_a_link_of_a_configuration_has_its_name(self) -> None:
        self.assertIsNone(self.here.link_named("office"))
        key = str(self.keys[1].public)
        self.here.apply({"link": [{"name": "office", "connect": "127.0.0.1:1", "peer_key": key}]})
        link = self.here.link_named("office")
        assert link
        self.assertEqual(link.state, LinkState.CONNECTING)
        self.assertIsNone(self.here.link_named("home"))
        self.here.apply("")
        self.assertIsNone(self.here.link_named("office"))
