"""Signals while a loop runs. Python runs a handler only between instructions of Python, so a signal must end the wait of a
loop: the interpreter writes a byte to a socket that the loop watches."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from .enums import PollEvent
from .errors import Error

if TYPE_CHECKING:
    from .loop import Loop


@contextlib.contextmanager
def heard(loop: Loop) -> Iterator[None]:
    """Handlers of signals run at once while the block runs the loop, and Ctrl-C is raised between two turns, not in a callback.
    A second Ctrl-C is raised in the callback that does not end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watch = loop.watch(reader, PollEvent.READABLE, _drain)
        is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler

        def interrupt(number: int, frame: FrameType | None) -> None:
            if loop._raised is not None:
                raise KeyboardInterrupt
            loop._raised = KeyboardInterrupt()

        if is_default:
            signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            if is_default:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(before)
            # A loop that has ended has no watches.
            with contextlib.suppress(Error):
                watch.close()


def _drain(reader: Any, events: PollEvent) -> None:
    with contextlib.suppress(BlockingIOError):
        while reader.recv(4096):
            pass
