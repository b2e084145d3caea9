"""A seaprox loop in an asyncio loop: both run in one thread, and callbacks of either may use both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Union

from .connector import ConnectRequest
from .errors import BusyError, Error
from .loop import Loop


class Embedded:
    """Turns a loop whenever it has work, from the running asyncio loop:

        async with Embedded(seaprox.Loop()) as embedded:
            embedded.loop.serve("socks", "127.0.0.1:1080")
            await embedded.finished()

    The end of the block closes the loop.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._asyncio: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None
        self._end: asyncio.Future[None] | None = None
        self._is_turning = False

    async def __aenter__(self) -> Embedded:
        self._asyncio = asyncio.get_running_loop()
        self._end = self._asyncio.create_future()
        self._asyncio.add_reader(self.loop.fileno(), self._turn)
        self.loop._on_call = self._called
        self._wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop()
        self.loop.close()

    async def finished(self) -> None:
        """Waits until the loop is finished. Raises what has ended it."""
        assert self._end is not None
        await asyncio.shield(self._end)

    def _turn(self) -> None:
        if self._is_turning or self._end is None or self._end.done():
            return
        self._is_turning = True
        try:
            goes_on = self.loop.run_one(0)
        except BaseException as error:
            self._stop()
            if not isinstance(error, Exception):
                raise
            self._end.set_exception(error)
            return
        finally:
            self._is_turning = False
        if goes_on:
            self._wait()
        else:
            self._stop()
            self._end.set_result(None)

    def _wait(self) -> None:
        """Sets the timer of the next turn that is due without an event."""
        assert self._asyncio is not None
        if self._timer is not None:
            self._timer.cancel()
        timeout = self.loop.timeout()
        if timeout is None:
            self._timer = None
        elif timeout == 0:
            self._timer = self._asyncio.call_soon(self._turn)
        else:
            self._timer = self._asyncio.call_later(timeout, self._turn)

    def _called(self) -> None:
        """A function of the loop was called, which may have made a turn due."""
        if not self._is_turning:
            # In a callback that was called otherwise the loop cannot tell its timeout.
            with contextlib.suppress(BusyError):
                self._wait()

    def _stop(self) -> None:
        self.loop._on_call = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asyncio is not None and not self.loop.is_closed:
            self._asyncio.remove_reader(self.loop.fileno())


def connector(
    function: Callable[[str, int], Awaitable[Union[int, socket.socket]]],
) -> Callable[[ConnectRequest], None]:
    """Returns a connector for Loop.set_connector of an embedded loop that calls a coroutine function with host and port, which
    returns a connected socket or raises an exception."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(request: ConnectRequest) -> None:
        with contextlib.suppress(Error):
            # Error: the connection or the loop is gone.
            try:
                sock = await function(request.host, request.port)
            except Exception as error:
                request.failed(error)
            else:
                request.connected(sock)

    def begin(request: ConnectRequest) -> None:
        task = asyncio.get_running_loop().create_task(answer(request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return begin


async def connect(host: str, port: int) -> socket.socket:
    """Connects without blocking, for connector."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last: OSError | None = None
    for family, kind, proto, _, address in found:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            last = error
        else:
            return sock
    raise last or OSError("the name has no address")


__all__ = ["Embedded", "connect", "connector"]
