"""The numbers of the C interface. None of them ever changes; a later library may have more."""

from __future__ import annotations

import enum

from ._library import lib


class ErrorCode(enum.IntEnum):
    """The errors that are not those of the system."""

    OK = 0
    THREAD = -1
    BUSY = -16
    INVALID = -22
    FULL = -28
    STALE = -53
    CONFIG = -74
    OVER = -108
    ALREADY = -114
    PANIC = -131


class Reason(enum.IntEnum):
    """Why a connection could not be made, or has ended. `word` is as logs and metrics have it."""

    NAME_RESOLUTION_FAILURE = 1
    CONNECTION_REFUSED = 2
    TIMED_OUT = 3
    NETWORK_UNREACHABLE = 4
    HOST_UNREACHABLE = 5
    NOT_PERMITTED = 6
    LIMIT_REACHED = 7
    OTHER = 8
    SOURCE_FIN = 9
    DEST_FIN = 10
    SOURCE_RESET = 11
    DEST_RESET = 12
    IDLE_TIMEOUT = 13
    HALF_CLOSED_TIMEOUT = 14
    HANDSHAKE_TIMEOUT = 15
    PROTOCOL_ERROR = 16
    AUTH_FAILED = 17
    LINK_LOST = 18
    DRAINED = 19
    KILLED = 20
    INTERNAL = 21
    ADDRESS_IN_USE = 22

    @property
    def word(self) -> str:
        """The word of the reason, such as connection_refused."""
        word: bytes = lib.seaprox_reason_name(self)
        return word.decode()

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        return cls.OTHER if isinstance(value, int) and value > 0 else None


class Kind(enum.IntEnum):
    """The kinds of ids."""

    NONE = 0
    CONNECTION = 1
    SIDE = 2
    LISTENER = 3
    LINK = 4
    FORWARD = 5
    SERVER = 6
    WATCH = 7
    TIMER = 8
    CARRIER = 9
    GROUP = 10
    FLOW = 11
    ASSOCIATION = 12


class Role(enum.IntEnum):
    """The roles of sides."""

    SOURCE = 1
    DEST = 2


class SideState(enum.IntEnum):
    """The states of sides."""

    IDLE = 0
    CONNECTING = 1
    CONNECTED = 2


class Stage(enum.IntEnum):
    """The stages of connections."""

    HANDSHAKE = 1
    CONNECTING = 2
    ESTABLISHED = 3
    KEEP_ALIVE = 4
    CLOSING = 5
    CLOSED = 6


class Ending(enum.IntEnum):
    """Ends of connections as their peers see them."""

    GRACEFUL = 1
    ABORTED = 2


class Fault(enum.IntEnum):
    """Parties that cause an end."""

    SOURCE = 1
    DEST = 2
    PROXY = 3


class Cause(enum.IntEnum):
    """Ends of the input of one side."""

    FIN = 1
    RESET = 2


class LogLevel(enum.IntEnum):
    """Levels of the log."""

    OFF = 0
    ERROR = 1
    WARN = 2
    INFO = 3
    DEBUG = 4
    TRACE = 5


class PollEvent(enum.IntFlag):
    """Readiness of a descriptor. CLOSED and FAILED are only reported."""

    READABLE = 1
    WRITABLE = 2
    CLOSED = 4
    FAILED = 8


class EventKind(enum.IntEnum):
    """The kinds of events."""

    OPENED = 1
    CONNECTING = 2
    CONNECTED = 3
    ENDED = 4
    LISTENER_OPENED = 5
    LISTENER_CLOSED = 6
    LINK = 7
    FORWARD = 8


class Verdict(enum.IntEnum):
    """The answers of a policy."""

    REFUSE = 0
    PERMIT = 1
    ASK = 2
    BY_ADDRESS = 3
    HANDLE = 4


class LinkState(enum.IntEnum):
    """The states of links."""

    CONNECTING = 1
    UP = 2
    SUSPENDED = 3
    DRAINING = 4
    ENDED = 5


class LinkEventKind(enum.IntEnum):
    """The kinds of events of links."""

    UP = 1
    SUSPENDED = 2
    RESUMED = 3
    DRAINING = 4
    DRAINED = 5
    SUBFLOW_UP = 6
    SUBFLOW_LOST = 7
    WRONG_KEY = 8
    REJECTED = 9
    EXPIRED = 10
    ASKED_OPEN = 11
    ASKED_LISTEN = 12
    MESSAGE = 13
    CLOSED = 14
    ENDED = 15


class ForwardState(enum.IntEnum):
    """The states of forwards."""

    WAITING = 1
    LISTENING = 2
    FAILED = 3
    CLOSED = 4
