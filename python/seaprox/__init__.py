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
from .datagram import DatagramHandler, Flow
from .enums import (
    Cause,
    Ending,
    ErrorCode,
    EventKind,
    Fault,
    ForwardState,
    Kind,
    LinkEventKind,
    LinkState,
    LogLevel,
    PollEvent,
    Reason,
    Role,
    SideState,
    Stage,
    Verdict,
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
from .keys import PrivateKey, PublicKey
from .link import Forward, Link, LinkEvent, Server
from .log import log_off, log_to
from .loop import Loop, Timer, Watch, check_configuration
from .policy import Policy
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
    "DatagramHandler",
    "End",
    "Ending",
    "Error",
    "ErrorCode",
    "Event",
    "EventKind",
    "Fault",
    "Flow",
    "Forward",
    "ForwardState",
    "FullError",
    "Handler",
    "Hook",
    "InvalidError",
    "Kind",
    "LIBRARY_VERSION",
    "Link",
    "LinkEvent",
    "LinkEventKind",
    "LinkState",
    "Listener",
    "LogLevel",
    "Loop",
    "OsError",
    "OverError",
    "PanicError",
    "Policy",
    "PollEvent",
    "PrivateKey",
    "PublicKey",
    "Reason",
    "Role",
    "Server",
    "Side",
    "SideState",
    "Stage",
    "StaleError",
    "ThreadError",
    "Timer",
    "Transit",
    "Verdict",
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
        # Loops of other threads have ended with their threads.
        with _contextlib.suppress(Error):
            loop.close()
