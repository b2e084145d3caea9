"""Handlers: the code of a program for the connections of its listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .enums import Cause, Reason, Role

if TYPE_CHECKING:
    from .connection import Connection, Side
    from .errors import ConnectError
    from .values import End


class Handler:
    """The callbacks of a connection, for both of its sides. Override those that you need.

    An exception that leaves a callback is reported (Loop.set_exception_handler) and closes the connection with Reason.INTERNAL.
    """

    def opened(self, connection: Connection) -> None:
        """A client was accepted."""

    def readable(self, side: Side, data: bytes) -> int | None:
        """A side has sent bytes that are not relayed: all that were not consumed yet. Returns the number that are consumed;
        0 to wait for more; None if all are. Bytes that are left when the connection begins to relay are relayed first. A
        handler that consumes nothing of 16 KiB ends the connection."""
        return 0

    def connected(self, connection: Connection, error: ConnectError | None) -> None:
        """The dest is connected, or could not be; another target may be tried then. Without this method the loop relays, or
        closes with the reason."""
        if error is None:
            connection.relay()
        else:
            connection.close(error.reason)

    def writable(self, side: Side) -> None:
        """All bytes that were sent to a side have been written, after some had to wait."""

    def timeout(self, connection: Connection) -> None:
        """The handshake timeout has passed. Without this method the connection is closed."""
        connection.close(Reason.HANDSHAKE_TIMEOUT)

    def woken(self, connection: Connection) -> None:
        """The time of Connection.wake_after has passed."""

    def ended(self, side: Side, cause: Cause) -> None:
        """The input of a side has ended while it was not relayed. Without this method the connection is closed."""
        connection, is_dest = side.connection, side.role == Role.DEST
        if connection is None:
            return
        if cause == Cause.FIN:
            connection.close(Reason.DEST_FIN if is_dest else Reason.SOURCE_FIN)
        else:
            connection.close(Reason.DEST_RESET if is_dest else Reason.SOURCE_RESET)

    def closed(self, connection: Connection, end: End) -> None:
        """The connection is over. This is its last callback."""
