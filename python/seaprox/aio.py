"""A seaprox loop in an asyncio loop: both run in one thread, and callbacks of either may use both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Union

from ._transport import ProtocolHandler, Transport
from .connector import ConnectRequest
from .enums import LinkEventKind, LinkState, Reason
from .errors import BusyError, ConnectError, Error
from .handler import Handler
from .link import Link, LinkEvent
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


async def up(link: Link) -> None:
    """Waits until a link is up. ConnectError if the peer does not admit the key of this node or has another key than it must
    have, and if the link is closed. It is dialed again after any other failure, so bound the time with asyncio.timeout."""
    if link.state == LinkState.UP:
        return
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(event: LinkEvent) -> None:
        if done.done():
            return
        if event.kind in (LinkEventKind.UP, LinkEventKind.RESUMED):
            done.set_result(None)
        elif event.kind in (LinkEventKind.WRONG_KEY, LinkEventKind.REJECTED, LinkEventKind.EXPIRED):
            done.set_exception(ConnectError(Reason.AUTH_FAILED, event.kind.name.lower()))
        elif event.kind == LinkEventKind.CLOSED:
            done.set_exception(ConnectError(Reason.KILLED))

    waiting = link.loop._links.waiting
    waiting.setdefault(link.id, []).append(tell)
    try:
        await done
    finally:
        # The end of the loop forgets all.
        waiters = waiting.get(link.id, [])
        with contextlib.suppress(ValueError):
            waiters.remove(tell)
        if not waiters:
            waiting.pop(link.id, None)


async def open_stream(link: Link, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a stream to a target that the peer of a link connects to, as asyncio.open_connection does. ConnectError has the
    reason of the peer."""
    return await _open(lambda handler: link.open_stream(target, handler))


async def open_service(link: Link, service: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a stream to a service of the program at the other end of a link; otherwise as open_stream."""
    return await _open(lambda handler: link.open_service(service, handler))


async def _open(begin: Callable[[Handler], object]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    opening: asyncio.Future[Transport] = loop.create_future()
    begin(ProtocolHandler(lambda: protocol, opening))
    transport = await opening
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def streams(
    function: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> Callable[[], Handler]:
    """Returns a handler for Loop.listen, Loop.set_service and the streams of links that calls a coroutine function with each
    client, as asyncio.start_server does."""

    def make() -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), function, loop=loop)

    return lambda: ProtocolHandler(make)


def protocols(factory: Callable[[], asyncio.Protocol]) -> Callable[[], Handler]:
    """Returns a handler that gives each client a protocol of asyncio."""
    return lambda: ProtocolHandler(factory)


__all__ = ["Embedded", "connect", "connector", "open_service", "open_stream", "protocols", "streams", "up"]
