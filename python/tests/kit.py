"""What the tests share: deadlines, servers in threads, and loops that are turned until something is true."""

from __future__ import annotations

import faulthandler
import os
import pathlib
import shutil
import socket
import sys
import threading
import time
import unittest
from typing import Any, Callable

import seaprox

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
HEADER = TOP / "capi/seaprox.h"

# The longest wait for anything.
PATIENCE = 90.0


class TestCase(unittest.TestCase):
    """A test that ends the process if it hangs."""

    def setUp(self) -> None:
        faulthandler.dump_traceback_later(PATIENCE + 10, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)

    def loop(self, **options: Any) -> seaprox.Loop:
        """Returns a loop that the end of the test closes."""
        loop = seaprox.Loop(**options)
        self.addCleanup(loop.close)
        return loop

    def connect(self, port: int) -> socket.socket:
        """Connects to a port of this host."""
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def server(self, serve: Callable[[socket.socket], None]) -> str:
        """Serves each client in a thread. Returns the address."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        # An accept that blocks would outlive its listener.
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)

        def one(client: socket.socket) -> None:
            with client:
                client.settimeout(PATIENCE)
                try:
                    serve(client)
                except OSError:
                    pass

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        host, port = listener.getsockname()
        return f"{host}:{port}"

    def capitals(self) -> str:
        """Answers each client with its bytes in capitals, and ends when it does. Returns the address."""

        def serve(client: socket.socket) -> None:
            while data := client.recv(65536):
                client.sendall(data.upper())

        return self.server(serve)

    def web(self) -> str:
        """Answers each request with one page. Returns the address."""

        def serve(client: socket.socket) -> None:
            request = b""
            while b"\r\n\r\n" not in request and (data := client.recv(65536)):
                request += data
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\na page")

        return self.server(serve)

    def closed_port(self) -> int:
        """Returns a port at which connections are refused: bound, and never listening."""
        kept = socket.socket()
        self.addCleanup(kept.close)
        kept.bind(("127.0.0.1", 0))
        port: int = kept.getsockname()[1]
        return port

    def tool(self, program: str) -> str:
        """Returns a program, or skips the test if it is not installed."""
        found = shutil.which(program)
        if found is None:
            if os.environ.get("CI"):
                self.fail(f"{program} is not installed")
            self.skipTest(f"{program} is not installed")
        return found


def turn_until(loop: seaprox.Loop, is_done: Callable[[], object]) -> None:
    """Turns a loop until something is true."""
    until = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > until:
            raise AssertionError("it does not happen")
        # Short, because what is waited for may happen in another thread.
        loop.run_one(0.02)


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Runs a function in a thread. Returns its result, or raises its exception."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((function(*args), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    result, error = results[0]
    if error is not None:
        raise error
    return result


class caught:
    """Collects what is handed to sys.unraisablehook."""

    def __enter__(self) -> list[BaseException]:
        self._before = sys.unraisablehook
        errors: list[BaseException] = []
        sys.unraisablehook = lambda told: errors.append(told.exc_value)  # type: ignore[arg-type]
        return errors

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self._before


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Sends bytes and a FIN, and returns all that comes back."""
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    answer = b""
    while more := client.recv(65536):
        answer += more
    return answer
