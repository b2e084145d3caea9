"""Datagrams: flows that a program handles, opens, or chooses the targets of."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

from ._abi import INTERFACE
from ._callbacks import LOOPS, NUMBERS, _callback, bytes_at, text_at
from ._library import lib
from .connection import _Record
from .enums import Reason

if TYPE_CHECKING:
    from .loop import Loop


class DatagramHandler:
    """The callbacks for flows of datagrams. A flow is what one client and one target send each other; it ends when it is idle.

    An exception that leaves a callback is reported, and ends the flow.
    """

    def open(self, client: str, content: bytes) -> str | Reason | None:
        """A client of a listener has sent its first datagram. Returns the target, such as example.org:53: the loop carries all
        datagrams of the flow there from now on. None: this handler gets them. A reason refuses the client. It must not block, and
        must not use the loop, which answers BusyError."""
        return None

    def datagram(self, flow: Flow, content: bytes) -> None:
        """A datagram for the program."""

    def ended(self, flow: Flow, reason: Reason) -> None:
        """A flow that the program has handled or opened is over."""


class Flow(_Record):
    """A flow of datagrams."""

    __slots__ = ()

    @property
    def description(self) -> str:
        """Such as python[ipv4[udp:192.0.2.7:5678]->ipv4[udp:127.0.0.1:53]]."""
        return self.loop._text(lib.seaprox_flow_describe, self.id)

    def send(self, content: bytes | bytearray | memoryview) -> None:
        """Sends a datagram to the other end of a flow that the program handles or has opened. What cannot be sent now is dropped, as
        datagrams are."""
        self.loop._do(lib.seaprox_datagram_send, self.id, bytes(content), len(content))

    def close(self) -> None:
        """Ends the flow."""
        self.loop._do(lib.seaprox_flow_close, self.id)


class _Kept:
    """A handler that C has a number of."""

    def __init__(self, handler: DatagramHandler) -> None:
        self.handler = handler
        self.flows: set[int] = set()
        # No flow comes any more.
        self.is_closed = False


class Datagrams:
    """What a loop keeps for datagrams."""

    def __init__(self, loop: Loop) -> None:
        self._loop: Loop = weakref.proxy(loop)
        self._kept: dict[int, _Kept] = {}
        self._listeners: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._kept) + len(self._listeners)

    def keep(self, handler: DatagramHandler, number: int | None = None) -> int:
        """Keeps a handler. Returns its number."""
        if not isinstance(handler, DatagramHandler):
            raise TypeError(f"{handler!r} is no DatagramHandler")
        number = next(NUMBERS) if number is None else number
        self._kept[number] = _Kept(handler)
        HANDLES[number] = self._loop._handle
        return number

    def get(self, number: int) -> _Kept | None:
        """Returns what is kept under a number."""
        return self._kept.get(number)

    def listens(self, listener: int, number: int) -> None:
        """Says which listener has a handler."""
        self._listeners[listener] = number

    def opened(self, flow: int, number: int) -> None:
        """Says that the one flow of a handler was opened."""
        self._kept[number].flows.add(flow)
        self._kept[number].is_closed = True

    def listener_closed(self, listener: int) -> None:
        """Drops the handler of a listener, once its last flow is over."""
        kept = self._kept.get(number := self._listeners.pop(listener, 0))
        if kept is not None:
            kept.is_closed = True
            self.drop_ended(number)

    def drop_ended(self, number: int) -> None:
        """Drops a handler without flows."""
        kept = self._kept.get(number)
        if kept is not None and kept.is_closed and not kept.flows:
            self.drop(number)

    def drop(self, number: int) -> None:
        """Drops a handler."""
        self._kept.pop(number, None)
        HANDLES.pop(number, None)

    def clear(self) -> None:
        """Forgets all."""
        for number in list(self._kept):
            self.drop(number)
        self._listeners.clear()


# The handles of loops by the numbers of handlers: C asks for a target without a loop.
HANDLES: dict[int, int | None] = {}


@_callback("seaprox_datagram_handler.open")
def _open(
    client: int, client_len: int, content: int, length: int, target: int, cap: int, target_len: Any, user: int
) -> int:
    loop = LOOPS.get(HANDLES.get(user) or 0)
    kept = loop._datagrams.get(user) if loop is not None else None
    if loop is None or kept is None:
        return Reason.INTERNAL

    def choose() -> int:
        chosen = kept.handler.open(text_at(client, client_len), bytes_at(content, length))
        if chosen is None:
            return 0
        if isinstance(chosen, Reason):
            return chosen
        text = chosen.encode()
        if len(text) > cap:
            raise ValueError("a target is too long")
        ctypes.memmove(target, text, len(text))
        target_len.contents.value = len(text)
        return 0

    return int(loop._call(0, choose, otherwise=Reason.INTERNAL))


@_callback("seaprox_datagram_handler.datagram")
def _datagram(handle: int, flow: int, content: int, length: int, user: int) -> None:
    loop = LOOPS.get(handle)
    kept = loop._datagrams.get(user) if loop is not None else None
    if loop is not None and kept is not None:
        kept.flows.add(flow)
        failed = object()
        if loop._call(0, kept.handler.datagram, Flow(loop, flow), bytes_at(content, length), otherwise=failed) is failed:
            # It may have ended.
            lib.seaprox_flow_close(handle, flow)


@_callback("seaprox_datagram_handler.ended")
def _ended(handle: int, flow: int, reason: int, user: int) -> None:
    loop = LOOPS.get(handle)
    kept = loop._datagrams.get(user) if loop is not None else None
    if loop is not None and kept is not None:
        kept.flows.discard(flow)
        loop._datagrams.drop_ended(user)
        loop._call(0, kept.handler.ended, Flow(loop, flow), Reason(reason))


_Handler = INTERFACE.structs["seaprox_datagram_handler"]
HANDLER = _Handler(size=ctypes.sizeof(_Handler), open=_open, datagram=_datagram, ended=_ended)
