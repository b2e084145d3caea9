"""Events, status, metrics, log and configuration."""

from __future__ import annotations

import logging
import pathlib
import socket
import threading
from typing import Any

import seaprox
from seaprox import EventKind, LogLevel, Reason
from seaprox.toml import toml_of

from .kit import TestCase, exchange, turn_until


class Observation(TestCase):
    def relay_one(self, loop: seaprox.Loop, port: int, data: bytes = b"data") -> bytes:
        answers: list[bytes] = []
        client = self.connect(port)
        thread = threading.Thread(target=lambda: answers.append(exchange(client, data)))
        thread.start()
        turn_until(loop, lambda: answers)
        thread.join()
        return answers[0]

    def test_events_tell_each_connection_from_its_opening_to_its_end(self) -> None:
        loop, events = self.loop(), list[seaprox.Event]()

        def on_event(event: seaprox.Event) -> None:
            events.append(event)
            if event.kind == EventKind.OPENED and event.side:
                event.side.data = "mine"

        loop.set_event_handler(on_event)
        listener = loop.serve("static", "127.0.0.1:0", to=self.capitals())
        self.assertEqual(self.relay_one(loop, listener.port), b"DATA")
        turn_until(loop, lambda: events[-1].kind == EventKind.ENDED)
        kinds = ["LISTENER_OPENED", "OPENED", "CONNECTING", "CONNECTED", "ENDED"]
        self.assertEqual([event.kind.name for event in events], kinds)
        self.assertEqual(events[0].listener, listener)
        self.assertEqual([event.state for event in events[1:4]], [2, 1, 2])
        end = events[4].end
        assert end
        self.assertEqual((end.reason, end.sent, end.received, end.source_data), (Reason.SOURCE_FIN, 4, 4, "mine"))
        self.assertEqual(events[4].data, "mine")
        self.assertEqual(len(loop._data) + len(loop._records), 0)
        loop.set_event_handler(None)
        listener.close()
        loop.run_one(0)
        self.assertEqual(len(events), 5)

    def test_status_and_metrics_tell_what_the_loop_does(self) -> None:
        loop = self.loop()
        listener = loop.serve("static", "127.0.0.1:0", to=self.capitals(), name="web")
        self.relay_one(loop, listener.port)
        turn_until(loop, lambda: not loop.status()["connections"])
        self.assertEqual(loop.status()["closed"], {"source_fin": 1})
        self.assertIn('seaprox_connections_opened_total{listener="web"} 1', loop.metrics())

    def test_the_log_goes_to_loggers_with_the_names_of_its_parts(self) -> None:
        loop = self.loop()
        listener = loop.serve("static", "127.0.0.1:0", to=self.capitals())
        self.addCleanup(seaprox.log_off)
        with self.assertLogs("seaprox") as logs:
            seaprox.log_to()
            self.relay_one(loop, listener.port)
            turn_until(loop, lambda: any("reason=source_fin" in it.getMessage() for it in logs.records))
        record = next(it for it in logs.records if "reason=source_fin" in it.getMessage())
        self.assertEqual(record.levelno, logging.INFO)
        self.assertTrue(record.name.startswith("seaprox"), record.name)
        mine = logging.getLogger("mine")
        with self.assertLogs(mine, logging.DEBUG) as logs:
            seaprox.log_to(mine, LogLevel.DEBUG)
            self.relay_one(loop, listener.port)
            turn_until(loop, lambda: any("reason=source_fin" in it for it in logs.output))
        seaprox.log_off()

    def test_a_configuration_is_applied_changed_and_refused_with_a_line_for_each_problem(self) -> None:
        loop, target = self.loop(), self.capitals()
        with socket.create_server(("127.0.0.1", 0)) as kept:
            port = kept.getsockname()[1]
        wanted: dict[str, Any] = {"listener": [{"name": "a", "listen": f"127.0.0.1:{port}", "front": "static", "to": target}]}
        seaprox.check_configuration(wanted)
        loop.apply(wanted)
        self.assertEqual(self.relay_one(loop, port), b"DATA")
        with self.assertRaises(seaprox.ConfigError) as raised:
            loop.apply('[[listener]]\nfront = "static"\nto = "a:1"\nfoo = 7\n[[link]]\nbar = 1\n')
        self.assertGreaterEqual(len(raised.exception.problems), 2)
        self.assertTrue(raised.exception.problems[0].startswith("configuration:4:1: foo: "))
        with self.assertRaises(ValueError):
            seaprox.check_configuration("no = [")
        loop.apply("")
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)

    def test_options_are_written_as_toml(self) -> None:
        options = {
            "connect_timeout": "3s",
            "to": ["a:1", 'quote"\n'],
            "users": pathlib.Path("/etc/users"),
            "deny": None,
            "proxy_protocol": {"send": "v2", "accept-from": []},
            "on": True,
            "number": 7,
        }
        text = (
            'connect-timeout = "3s"\nto = ["a:1", "quote\\"\\u000a"]\nusers = "/etc/users"\n'
            'proxy-protocol = { send = "v2", accept-from = [] }\non = true\nnumber = 7\n'
        )
        self.assertEqual(toml_of(options), text)
        import tomllib

        self.assertEqual(tomllib.loads(text)["to"], options["to"])
        with self.assertRaises(TypeError):
            toml_of({"a": object()})
