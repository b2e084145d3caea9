"""External connectors: code of a program that resolves and connects dests in place of the loop."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import socket
from typing import TYPE_CHECKING, Callable, Union

from ._library import lib
from .enums import Reason
from .errors import ConnectError, Error, check

if TYPE_CHECKING:
    from .connection import Side

Connected = Union[int, socket.socket]


class ConnectRequest:
    """A dest that is to be connected. It is answered once, in any thread; without an answer the connect timeout ends it.

    side: the dest, in state CONNECTING, for the thread of the loop; the server of a link is a side of no connection. host: a
    name, an address, or unix:/path with port 0.
    """

    __slots__ = ("_handle", "side", "host", "port")

    def __init__(self, handle: int, side: Side, host: str, port: int) -> None:
        self._handle, self.side, self.host, self.port = handle, side, host, port

    def __repr__(self) -> str:
        return f"<ConnectRequest {self.host!r} {self.port}>"

    def connected(self, sock: Connected) -> None:
        """Answers with a connected socket, or the number of another descriptor that carries bytes. It belongs to the loop then,
        and is closed if the answer comes too late: StaleError."""
        fd = sock if isinstance(sock, int) else sock.detach()
        try:
            check(lib.seaprox_connector_connected(self._handle, fd))
        except Error:
            if fd >= 0:
                os.close(fd)
            raise

    def failed(self, failure: Reason | BaseException, os_error: int = 0) -> None:
        """Answers with a failure: a reason and an errno for its text; or the exception of connecting."""
        if isinstance(failure, BaseException):
            failure, os_error = reason_of(failure)
        check(lib.seaprox_connector_failed(self._handle, failure, os_error))


def reason_of(error: BaseException) -> tuple[Reason, int]:
    """Returns the reason that an exception of connecting means, with its errno."""
    if isinstance(error, ConnectError):
        return error.reason, error.errno or 0
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return Reason.NAME_RESOLUTION_FAILURE, 0
    if isinstance(error, TimeoutError):
        return Reason.TIMED_OUT, error.errno or 0
    if isinstance(error, ConnectionRefusedError):
        return Reason.CONNECTION_REFUSED, error.errno or 0
    if isinstance(error, PermissionError):
        return Reason.NOT_PERMITTED, error.errno or 0
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, Reason.OTHER), error.errno or 0
    return Reason.INTERNAL, 0


_REASONS = {
    errno.ENOENT: Reason.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reason.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reason.HOST_UNREACHABLE,
    errno.EMFILE: Reason.LIMIT_REACHED,
    errno.ENFILE: Reason.LIMIT_REACHED,
}


def connect(host: str, port: int) -> socket.socket:
    """Connects as the system does: looks the name up, and tries its addresses."""
    if host.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(host.removeprefix("unix:"))
        except BaseException:
            sock.close()
            raise
        return sock
    return socket.create_connection((host, port))


class threaded:
    """A connector that calls a function with host and port in threads, such as `loop.set_connector(threaded(connect))`. The
    function returns a connected socket or raises an exception. Close it after the loop."""

    def __init__(self, function: Callable[[str, int], Connected] = connect, threads: int = 4) -> None:
        self._function = function
        # The queue is bounded by the connections of the loop.
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="seaprox-connect")

    def __call__(self, request: ConnectRequest) -> None:
        """Begins to connect."""
        self._pool.submit(self._answer, request)

    def close(self) -> None:
        """Ends the threads, after what they are doing."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> threaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, request: ConnectRequest) -> None:
        try:
            try:
                sock = self._function(request.host, request.port)
            except Exception as error:
                request.failed(error)
            else:
                request.connected(sock)
        except Error:
            # The connection or the loop is gone.
            pass
