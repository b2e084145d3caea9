"""The errors: one tree below Error, whose `code` is the number of the C interface."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

from ._library import lib
from .enums import ErrorCode, Reason


class Error(Exception):
    """An error of seaprox. `code` is negative: one of ErrorCode, or a negated errno."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ThreadError(Error):
    """The loop belongs to another thread."""


class BusyError(Error):
    """The loop runs, and this function cannot be called here."""


class InvalidError(Error, ValueError):
    """A parameter cannot be meant."""


class FullError(Error):
    """A table or a queue has no room; later there may be some."""


class StaleError(Error, LookupError):
    """The object is gone."""


class ConfigError(Error, ValueError):
    """The configuration is wrong. `problems` has a line for each problem."""

    @property
    def problems(self) -> list[str]:
        """The lines of the text."""
        return str(self).splitlines()


class OverError(Error):
    """The connection is over."""


class AlreadyError(Error):
    """It is there or done already."""


class PanicError(Error):
    """A defect of seaprox; please report it."""


class OsError(Error, OSError):
    """An error of the system, with its `errno`."""

    def __init__(self, code: int, text: str) -> None:
        OSError.__init__(self, -code, text)
        self.code = code


class ConnectError(Error, OSError):
    """A dest could not be connected: `reason`, the text of the system in `detail`, and an `errno` where one fits."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        text = f"{reason.word}: {detail}" if detail else reason.word
        number = _ERRNOS.get(reason, 0)
        OSError.__init__(self, *((number, text) if number else (text,)))
        self.code, self.reason, self.detail = -number, reason, detail


_ERRNOS = {
    Reason.CONNECTION_REFUSED: errno.ECONNREFUSED,
    Reason.TIMED_OUT: errno.ETIMEDOUT,
    Reason.NETWORK_UNREACHABLE: errno.ENETUNREACH,
    Reason.HOST_UNREACHABLE: errno.EHOSTUNREACH,
    Reason.NOT_PERMITTED: errno.EACCES,
    Reason.LIMIT_REACHED: errno.EAGAIN,
    Reason.ADDRESS_IN_USE: errno.EADDRINUSE,
    Reason.LINK_LOST: errno.ECONNRESET,
    Reason.INTERNAL: errno.EIO,
}

_CLASSES: dict[int, type[Error]] = {
    ErrorCode.THREAD: ThreadError,
    ErrorCode.BUSY: BusyError,
    ErrorCode.INVALID: InvalidError,
    ErrorCode.FULL: FullError,
    ErrorCode.STALE: StaleError,
    ErrorCode.CONFIG: ConfigError,
    ErrorCode.OVER: OverError,
    ErrorCode.ALREADY: AlreadyError,
    ErrorCode.PANIC: PanicError,
}


def last_error(code: int) -> Error:
    """Returns the error that the last call in this thread has answered with this number."""
    return _CLASSES.get(code, OsError)(code, text_of(lib.seaprox_last_error))


def check(result: int) -> int:
    """Returns the result of a function, or raises its error."""
    if result < 0:
        raise last_error(result)
    return result


def text_of(function: Any, *args: Any) -> str:
    """Returns the text that a function with buf, cap and len gives."""
    cap, length = 256, ctypes.c_size_t()
    while True:
        buf = ctypes.create_string_buffer(cap)
        check(function(*args, buf, cap, ctypes.byref(length)))
        if length.value < cap:
            return buf.raw[: length.value].decode("utf-8", "replace")
        # It may grow meanwhile.
        cap = length.value + 256
