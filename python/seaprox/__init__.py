"""Proxies and encrypted links between nodes: the event loop of seaprox, on libseaprox.so.0.

    import seaprox

    with seaprox.Loop() as loop:
        loop.serve("socks", "127.0.0.1:1080")
        loop.run()

docs/python.md of seaprox is the manual. All times are in seconds and all sizes in bytes.
"""

from __future__ import annotations

import atexit as _atexit
import contextlib as _contextlib

from . import _callbacks
from ._library import LIBRARY_VERSION
from .connection import Connection, Listener, Side
from .connector import ConnectRequest, connect, threaded
from .enums import (
    Cause,
    Ending,
    ErrorCode,
    EventKind,
    Fault,
    Kind,
    LogLevel,
    PollEvent,
    Reason,
    Role,
    SideState,
    Stage,
)
from .errors import (
    AlreadyError,
    BusyError,
    ConfigError,
    ConnectError,
    Error,
    FullError,
    InvalidError,
    OsError,
    OverError,
    PanicError,
    StaleError,
    ThreadError,
)
from .handler import Handler
from .hook import Hook
from .log import log_off, log_to
from .loop import Loop, Timer, Watch, check_configuration
from .values import End, Event, Transit

__version__ = "0.1.0"

__all__ = [
    "AlreadyError",
    "BusyError",
    "Cause",
    "ConfigError",
    "ConnectError",
    "ConnectRequest",
    "Connection",
    "End",
    "Ending",
    "Error",
    "ErrorCode",
    "Event",
    "EventKind",
    "Fault",
    "FullError",
    "Handler",
    "Hook",
    "InvalidError",
    "Kind",
    "LIBRARY_VERSION",
    "Listener",
    "LogLevel",
    "Loop",
    "OsError",
    "OverError",
    "PanicError",
    "PollEvent",
    "Reason",
    "Role",
    "Side",
    "SideState",
    "Stage",
    "StaleError",
    "ThreadError",
    "Timer",
    "Transit",
    "Watch",
    "check_configuration",
    "connect",
    "log_off",
    "log_to",
    "threaded",
]


@_atexit.register
def _end() -> None:
    """Ends all that could call Python when the interpreter is gone."""
    with _contextlib.suppress(Error):
        log_off()
    for loop in list(_callbacks.LOOPS.values()):
        # Those of other threads have ended with their threads.
        with _contextlib.suppress(Error):
            loop.close()
