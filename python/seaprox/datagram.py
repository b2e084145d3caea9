"""Datagrams: the handler of flows, and flows as handles."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from ._abi import INTERFACE
from ._callbacks import LOOPS, _callback, bytes_at, text_at
from ._library import lib
from .connection import _Record
from .enums import Reason

if TYPE_CHECKING:
    from .loop import Loop

# The handlers by their numbers, each with the handle of its loop: C asks for targets without one.
HANDLERS: dict[int, tuple[int | None, DatagramHandler]] = {}


class Flow(_Record):
    """A flow: what one client and one target send each other. It is over when it is idle."""

    __slots__ = ()

    def send(self, content: bytes) -> None:
        """Sends a datagram to the other end. What cannot be sent now is dropped, as datagrams are."""
        self.loop._do(lib.seaprox_datagram_send, self.id, content, len(content))

    @property
    def description(self) -> str:
        """The description, such as python[ipv4[udp:192.0.2.7:5678]->ipv4[udp:127.0.0.1:53]]."""
        return self.loop._text(lib.seaprox_flow_describe, self.id)

    def close(self) -> None:
        """Ends it."""
        self.loop._do(lib.seaprox_flow_close, self.id)


class DatagramHandler:
    """The callbacks for flows. One handler may have many flows."""

    def open(self, client: str, content: bytes) -> str | Reason | None:
        """A client of a listener has sent its first datagram. Returns the target to which the loop carries the flow, None if the
        program handles it, or a reason that refuses it. It must not use the loop."""

    def datagram(self, flow: Flow, content: bytes) -> None:
        """A datagram for the program."""

    def ended(self, flow: Flow, reason: Reason) -> None:
        """A flow that the program handled or opened is over."""


def keep(loop: Loop, handler: DatagramHandler) -> int:
    """Keeps a handler for C. Returns its number."""
    if not isinstance(handler, DatagramHandler):
        raise TypeError(f"{handler!r} is no DatagramHandler")
    number = next(loop._numbers)
    HANDLERS[number] = loop._handle, handler
    return number


def forget_all(handle: int | None) -> None:
    """Drops the handlers of a loop that is closed."""
    for number in [number for number, (its, _) in HANDLERS.items() if its == handle]:
        del HANDLERS[number]


@_callback("seaprox_datagram_handler.open")
def _open(
    client: int, client_len: int, content: int, length: int, target: int, cap: int, target_len: Any, user: int
) -> int:
    handle, handler = HANDLERS.get(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is None or handler is None:
        return Reason.NOT_PERMITTED
    chosen = loop._call(0, handler.open, text_at(client, client_len), bytes_at(content, length), otherwise=Reason.INTERNAL)
    if isinstance(chosen, str):
        text = chosen.encode()[:cap]
        ctypes.memmove(target, text, len(text))
        target_len[0] = len(text)
        return 0
    return 0 if chosen is None else int(chosen)


@_callback("seaprox_datagram_handler.datagram")
def _datagram(handle: int, flow: int, content: int, length: int, user: int) -> None:
    loop, (_, handler) = LOOPS.get(handle), HANDLERS.get(user, (None, None))
    if loop is not None and handler is not None:
        loop._call(0, handler.datagram, Flow(loop, flow), bytes_at(content, length))


@_callback("seaprox_datagram_handler.ended")
def _ended(handle: int, flow: int, reason: int, user: int) -> None:
    loop, (_, handler) = LOOPS.get(handle), HANDLERS.get(user, (None, None))
    if loop is not None and handler is not None:
        loop._call(0, handler.ended, Flow(loop, flow), Reason(reason))
        # A flow that the program has opened is the only one of its number.
        if user in loop._own_flows:
            loop._own_flows.discard(user)
            HANDLERS.pop(user, None)


_Handler = INTERFACE.structs["seaprox_datagram_handler"]
DATAGRAMS = _Handler(size=ctypes.sizeof(_Handler), open=_open, datagram=_datagram, ended=_ended)
