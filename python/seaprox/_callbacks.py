"""The functions that C calls: one for each kind of callback, made once and never freed.

The user pointer of a callback is a number, under which the loop keeps the Python object. So nothing that C may still call is
ever freed, and an object that is gone is a number that finds nothing. No exception leaves these functions.
"""

from __future__ import annotations

import ctypes
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Callable

from ._abi import INTERFACE
from ._library import lib
from .enums import Cause, Reason, Role
from .errors import ConnectError
from .values import Transit

if TYPE_CHECKING:
    from .hook import Hook
    from .loop import Loop

# The numbers that C has in place of objects.
NUMBERS = itertools.count(1)

# The loops by their handles.
LOOPS: weakref.WeakValueDictionary[int, Loop] = weakref.WeakValueDictionary()

# The hooks by their numbers, each with the handle of its loop: C calls them without one.
HOOKS: dict[int, tuple[int | None, Hook]] = {}


def _callback(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Makes a function of C of a function of Python."""
    kind = INTERFACE.callbacks[name]

    def make(function: Callable[..., Any]) -> Any:
        return kind(function)

    return make


def text_at(pointer: int | None, length: int) -> str:
    """Returns the text at an address."""
    return bytes_at(pointer, length).decode("utf-8", "replace")


def bytes_at(pointer: int | None, length: int) -> bytes:
    """Returns a copy of the bytes at an address."""
    return ctypes.string_at(pointer, length) if pointer and length else b""


def _given(pointer: Any) -> Any:
    """Returns the struct that C gives. That of an older library ends before fields which this package reads."""
    struct = pointer.contents
    if struct.size < ctypes.sizeof(struct):
        raise RuntimeError(f"the library is older than this package: {type(struct).__name__} has {struct.size} bytes")
    return struct


@_callback("seaprox_post_fn")
def POST(handle: int, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None:
        function, args = loop._posts.pop(user, (None, ()))
        loop._call(0, function, *args)


@_callback("seaprox_timer_fn")
def TIMER(handle: int, user: int) -> None:
    loop = LOOPS.get(handle)
    timer = loop._timers.pop(user, None) if loop is not None else None
    if loop is not None and timer is not None:
        timer._id = 0
        loop._call(0, timer._function, *timer._args)


@_callback("seaprox_poll_fn")
def POLL(handle: int, fd: int, events: int, user: int) -> None:
    loop = LOOPS.get(handle)
    watch = loop._watches.get(fd) if loop is not None else None
    if loop is not None and watch is not None:
        loop._call(0, watch._ready, events)


@_callback("seaprox_event_fn")
def EVENT(handle: int, event: Any, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None:
        loop._call(0, lambda: loop._observe(_given(event)))


@_callback("seaprox_connect_fn")
def CONNECT(handle: int, request: int, side: int, host: int, length: int, port: int, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None:
        loop._call(0, loop._connect, request, side, text_at(host, length), port)


@_callback("seaprox_handler.opened")
def _opened(handle: int, connection: int, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None:
        loop._call(connection, loop._open, connection, user)


@_callback("seaprox_handler.readable")
def _readable(handle: int, side: int, data: int, length: int, user: int) -> int:
    loop = LOOPS.get(handle)
    if loop is None:
        return 0
    connection = lib.seaprox_side_connection(handle, side)
    handler = loop._handler(connection, user)
    if handler is None:
        return 0

    def consume() -> int:
        consumed = handler.readable(loop.side(side), bytes_at(data, length))
        if consumed is None:
            return length
        if not 0 <= consumed <= length:
            raise ValueError(f"readable has consumed {consumed} bytes of {length}")
        return consumed

    return int(loop._call(connection, consume) or 0)


@_callback("seaprox_handler.connected")
def _connected(handle: int, connection: int, reason: int, detail: int, length: int, user: int) -> None:
    loop = LOOPS.get(handle)
    handler = loop._handler(connection, user) if loop is not None else None
    if loop is not None and handler is not None:
        error = ConnectError(Reason(reason), text_at(detail, length)) if reason else None
        loop._call(connection, handler.connected, loop.connection(connection), error)


@_callback("seaprox_handler.writable")
def _writable(handle: int, side: int, user: int) -> None:
    _tell_side(handle, side, user, "writable")


@_callback("seaprox_handler.timeout")
def _timeout(handle: int, connection: int, user: int) -> None:
    _tell_connection(handle, connection, user, "timeout")


@_callback("seaprox_handler.woken")
def _woken(handle: int, connection: int, user: int) -> None:
    _tell_connection(handle, connection, user, "woken")


@_callback("seaprox_handler.ended")
def _ended(handle: int, side: int, cause: int, user: int) -> None:
    _tell_side(handle, side, user, "ended", Cause(cause))


@_callback("seaprox_handler.closed")
def _closed(handle: int, connection: int, end: Any, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None:
        handler = loop._handler(connection, user)
        if handler is not None:
            loop._call(connection, lambda: handler.closed(loop.connection(connection), loop._end(_given(end))))


def _tell_connection(handle: int, connection: int, user: int, name: str, *args: Any) -> None:
    loop = LOOPS.get(handle)
    handler = loop._handler(connection, user) if loop is not None else None
    if loop is not None and handler is not None:
        loop._call(connection, getattr(handler, name), loop.connection(connection), *args)


def _tell_side(handle: int, side: int, user: int, name: str, *args: Any) -> None:
    loop = LOOPS.get(handle)
    connection = lib.seaprox_side_connection(handle, side)
    handler = loop._handler(connection, user) if loop is not None else None
    if loop is not None and handler is not None:
        loop._call(connection, getattr(handler, name), loop.side(side), *args)


_Handler = INTERFACE.structs["seaprox_handler"]
HANDLER = _Handler(
    size=ctypes.sizeof(_Handler),
    opened=_opened,
    readable=_readable,
    connected=_connected,
    writable=_writable,
    timeout=_timeout,
    woken=_woken,
    ended=_ended,
    closed=_closed,
)


@_callback("seaprox_hook.connected")
def _hook_connected(connection: int, user: int) -> None:
    handle, hook = HOOKS.get(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is not None and hook is not None and loop._call(0, hook.connected, otherwise=_FAILED) is _FAILED:
        # The loop cannot be used here.
        loop.post(loop._end_failed, connection)


@_callback("seaprox_hook.data")
def _hook_data(connection: int, role: int, transit: int, user: int) -> int:
    return _filter(role, transit, user, "data")


@_callback("seaprox_hook.fin")
def _hook_fin(connection: int, role: int, transit: int, user: int) -> int:
    return _filter(role, transit, user, "fin")


@_callback("seaprox_hook.ended")
def _hook_ended(connection: int, reason: int, user: int) -> None:
    handle, hook = HOOKS.pop(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is not None and hook is not None:
        loop._hooks.discard(user)
        loop._call(0, hook.ended, Reason(reason))


def _filter(role: int, transit: int, user: int, name: str) -> int:
    handle, hook = HOOKS.get(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is None or hook is None:
        return Reason.INTERNAL
    verdict = loop._call(0, getattr(hook, name), Role(role), Transit(transit), otherwise=Reason.INTERNAL)
    return int(verdict or 0)


_FAILED = object()

_Hook = INTERFACE.structs["seaprox_hook"]
HOOK = _Hook(
    size=ctypes.sizeof(_Hook), connected=_hook_connected, data=_hook_data, fin=_hook_fin, ended=_hook_ended
)


@ctypes.PYFUNCTYPE(None, ctypes.py_object)  # type: ignore[untyped-decorator, unused-ignore]
def report(error: BaseException) -> None:
    """Hands an exception to sys.unraisablehook: ctypes does so with all that leaves a callback."""
    raise error
