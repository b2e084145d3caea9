"""Small values that callbacks get: ends, events, and bytes on their way."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._library import lib
from .enums import Ending, EventKind, Fault, ForwardState, LinkState, Reason, SideState
from .errors import check

if TYPE_CHECKING:
    from .connection import Connection, Listener, Side
    from .link import Forward, Link


@dataclass(frozen=True, slots=True)
class End:
    """The end of a connection: why, how its peers see it, who caused it, and the bytes relayed each way."""

    reason: Reason
    ending: Ending
    fault: Fault
    sent: int
    received: int
    source_data: Any
    dest_data: Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a loop. Fields that do not belong to its kind are None or 0.

    id: the number of the connection, listener, link or forward; state: of the side, the link or the forward;
    data: that of the side that has changed, and of a connection that has ended that of its source.
    """

    kind: EventKind
    id: int
    connection: Connection | None
    listener: Listener | None
    link: Link | None
    forward: Forward | None
    side: Side | None
    data: Any
    state: SideState | LinkState | ForwardState | None
    end: End | None


class Transit:
    """Bytes on their way through a hook. It is good until the method of the hook returns."""

    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def input(self) -> bytes:
        """The bytes that are not consumed."""
        pointer, length = ctypes.c_void_p(), ctypes.c_size_t()
        check(lib.seaprox_transit_input(self._handle, ctypes.byref(pointer), ctypes.byref(length)))
        return ctypes.string_at(pointer.value, length.value) if pointer.value and length.value else b""

    @property
    def room(self) -> int:
        """The number of bytes that may still be written."""
        room = ctypes.c_size_t()
        check(lib.seaprox_transit_room(self._handle, ctypes.byref(room)))
        return room.value

    def consume(self, count: int) -> None:
        """Consumes bytes of the input, or all if there are fewer."""
        check(lib.seaprox_transit_consume(self._handle, count))

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes bytes, as many as there is room for. Returns their number."""
        written = ctypes.c_size_t()
        check(lib.seaprox_transit_write(self._handle, bytes(data), len(data), ctypes.byref(written)))
        return written.value

    def pass_on(self, count: int | None = None) -> int:
        """Passes input unchanged, as much as there is and as there is room for. Returns the number of bytes."""
        passed = ctypes.c_size_t()
        limit = ctypes.c_size_t(-1).value if count is None else count
        check(lib.seaprox_transit_pass(self._handle, limit, ctypes.byref(passed)))
        return passed.value

    def call_again(self) -> None:
        """Asks for another call when the other side has taken what was written."""
        check(lib.seaprox_transit_call_again(self._handle))
