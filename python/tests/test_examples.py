"""The examples, each with real clients."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from typing import Any

import seaprox
import seaprox.aio

from .kit import PATIENCE, TOP, TestCase, exchange

EXAMPLES = TOP / "python/examples"


class Program:
    """A running example."""

    def __init__(self, test: TestCase, name: str, *args: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(TOP / "python"), "SECRET": "a secret of both ends"}
        command = [sys.executable, str(EXAMPLES / name), *args]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        test.addCleanup(self.end)

    def line(self) -> str:
        """Returns the next line that it prints."""
        assert self.child.stdout
        return self.child.stdout.readline().rstrip()

    def port(self) -> int:
        """Returns the port that it says."""
        return int(self.line().rsplit(" ", 1)[1])

    def finish(self) -> int:
        """Ends its standard input. Returns its exit code."""
        assert self.child.stdin
        self.child.stdin.close()
        return self.child.wait(PATIENCE)

    def interrupt(self) -> int:
        """Sends Ctrl-C. Returns the exit code."""
        self.child.send_signal(signal.SIGINT)
        return self.child.wait(PATIENCE)

    def end(self) -> None:
        """Ends it, if it runs."""
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe:
                pipe.close()


class Examples(TestCase):
    def exchange(self, port: int, data: bytes) -> bytes:
        return exchange(self.connect(port), data)

    def curl(self, port: int, target: str) -> Any:
        """Returns what curl gets over a SOCKS proxy, or its exit code."""
        command = [self.tool("curl"), "-s", "--max-time", str(PATIENCE), "--noproxy", ""]
        done = subprocess.run(
            [*command, "-x", f"socks5h://127.0.0.1:{port}", f"http://{target}/"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout if done.returncode == 0 else done.returncode

    def test_a_python_program_is_a_static_proxy(self) -> None:
        proxy = Program(self, "static.py", "127.0.0.1:0", self.capitals())
        port = proxy.port()
        self.assertEqual(self.exchange(port, b"hello"), b"HELLO")
        self.assertEqual(proxy.line(), "closed: source_fin, 5 bytes sent, 5 received")
        command = [self.tool("ncat"), "127.0.0.1", str(port)]
        done = subprocess.run(command, input=b"words", stdout=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(done.stdout, b"WORDS")
        # Python's own exit after Ctrl-C.
        self.assertEqual(proxy.interrupt(), -signal.SIGINT)

    def test_a_python_program_is_a_socks_proxy_with_rules(self) -> None:
        target, denied, refused = self.web(), self.web(), f"127.0.0.1:{self.closed_port()}"
        proxy = Program(self, "socks.py", "127.0.0.1:0", denied)
        port = proxy.port()
        self.assertEqual(self.curl(port, target), "a page")
        line = proxy.line()
        self.assertTrue(line.startswith("connected: socks5[ipv4[127.0.0.1:"), line)
        self.assertRegex(proxy.line(), "^ended: (source|dest)_fin$")
        self.assertEqual(self.curl(port, refused), 97)
        self.assertEqual(proxy.line(), "ended: connection_refused")
        self.assertEqual(self.curl(port, denied), 97)
        self.assertEqual(proxy.line(), "ended: not_permitted")
        self.assertEqual(proxy.finish(), 0)

    def test_a_python_program_has_a_line_protocol_of_its_own(self) -> None:
        proxy, target = Program(self, "lines.py", "127.0.0.1:0"), self.capitals()
        port = proxy.port()
        self.assertEqual(self.exchange(port, f"{target}\nwords".encode()), b"ok\nWORDS")
        refused = f"127.0.0.1:{self.closed_port()}\n".encode()
        self.assertEqual(self.exchange(port, refused), b"connection_refused\n")
        self.assertEqual(self.exchange(port, b"no target at all\n"), b"no target\n")
        client = self.connect(port)
        for byte in f"{target}\nslow".encode():
            client.send(bytes([byte]))
        self.assertEqual(exchange(client, b""), b"ok\nSLOW")

    def test_threads_of_a_python_program_connect_the_dests(self) -> None:
        proxy, target = Program(self, "connector.py", "127.0.0.1:0"), self.web()
        port = proxy.port()
        self.assertEqual(self.curl(port, target), "a page")
        self.assertEqual(self.curl(port, target.replace("127.0.0.1", "localhost")), "a page")
        # The replies of SOCKS5: refused is 5, an unknown name 4, not permitted 2.
        for host, reply in ((b"localhost", 5), (b"name.invalid", 4), (b"forbidden.example", 2)):
            client = self.connect(port)
            request = b"\5\1\0\5\1\0\3" + bytes([len(host)]) + host + self.closed_port().to_bytes(2, "big")
            client.sendall(request)
            answer = b""
            while len(answer) < 4:
                answer += client.recv(100)
            self.assertEqual(answer[3], reply, host)
        self.assertEqual(proxy.interrupt(), -signal.SIGINT)

    def test_a_python_program_turns_the_loop_from_asyncio(self) -> None:
        proxy, target = Program(self, "embedded.py", "127.0.0.1:0"), self.web()
        port, counting = proxy.port(), proxy.port()
        self.assertEqual(self.curl(port, target), "a page")
        kept = self.connect(port)
        kept.sendall(b"\5\1\0")
        self.assertEqual(kept.recv(2), b"\5\0")
        self.assertRegex(self.exchange(counting, b""), rb"^[12] open\n$")
        self.assertEqual(self.curl(port, target), "a page")
        self.assertNotEqual(proxy.interrupt(), 0)

    def test_python_programs_are_both_ends_of_a_link(self) -> None:
        target = self.web()
        server = Program(self, "link.py", "serve", "127.0.0.1:0", target).port()
        node = Program(self, "link.py", "dial", f"127.0.0.1:{server}", "127.0.0.1:0", target)
        port = node.port()
        command = [self.tool("curl"), "-s", "--max-time", str(PATIENCE), "--noproxy", "*", f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(done.stdout, b"a page")
        command = [self.tool("ncat"), "127.0.0.1", str(port)]
        done = subprocess.run(command, input=b"GET / HTTP/1.1\r\n\r\n", stdout=subprocess.PIPE, timeout=PATIENCE)
        self.assertTrue(done.stdout.endswith(b"a page"))
        while (line := node.line()) != "link: up":
            self.assertTrue(line.startswith("link: "), line)
        # A target that the server does not name is refused.
        other = Program(self, "link.py", "dial", f"127.0.0.1:{server}", "127.0.0.1:0", self.capitals())
        try:
            self.assertEqual(self.exchange(other.port(), b"words"), b"")
        except ConnectionResetError:
            pass

    def test_each_example_has_at_most_sixty_lines_and_is_run(self) -> None:
        code = (TOP / "python/tests/test_examples.py").read_text()
        for path in EXAMPLES.glob("*.py"):
            self.assertLessEqual(len(path.read_text().splitlines()), 60, path)
            self.assertIn(f'"{path.name}"', code)

    def test_the_code_of_the_manual_runs(self) -> None:
        blocks = re.findall(r"```python\n(.*?)```", (TOP / "docs/python.md").read_text(), flags=re.S)
        self.assertGreater(len(blocks), 5)
        before = seaprox.Loop.run, signal.getsignal(signal.SIGTERM)
        self.addCleanup(setattr, seaprox.Loop, "run", before[0])
        self.addCleanup(signal.signal, signal.SIGTERM, before[1])
        self.addCleanup(seaprox.log_off)
        setattr(seaprox.Loop, "run", seaprox.Loop.finish)
        for block in blocks:
            with contextlib.redirect_stdout(io.StringIO()), seaprox.Loop() as loop:
                names: dict[str, Any] = {"seaprox": seaprox, "loop": loop, "__name__": "manual"}
                # Ports of the manual may be in use.
                exec(compile(block.replace(":1080", ":0"), "docs/python.md", "exec"), names)
            if "connector" in names:
                names["connector"].close()
