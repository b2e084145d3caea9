"""Connections of a program as transports of asyncio, so that StreamReader, StreamWriter and any Protocol work on them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import Any, Callable, Iterable

from .connection import Connection, Side
from .enums import Cause, Ending, Reason, Role, Stage
from .errors import ConnectError, Error, FullError
from .handler import Handler
from .values import End

# Bytes handed to the loop at once, of the 32 KiB that wait there for a side.
_PIECE = 16 * 1024
# Bytes that may wait here before the protocol is paused.
_HIGH = 64 * 1024


class Transport(asyncio.Transport):
    """The source of a connection without a dest."""

    def __init__(self, connection: Connection, side: Side, protocol: asyncio.Protocol) -> None:
        super().__init__({"connection": connection, "peername": side.peer})
        self._connection, self._side, self._protocol = connection, side, protocol
        self._buffer = bytearray()
        self._high, self._low = _HIGH, _HIGH // 4
        self._is_paused = self._is_held = self._is_closing = self._is_lost = False
        self._ends = False

    # ---- Writing ----

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Writes bytes, as soon as there is room."""
        if self._ends:
            raise RuntimeError("write after write_eof")
        if self._is_closing or not data:
            return
        self._buffer += data
        self.flush()
        if len(self._buffer) > self._high and not self._is_held:
            self._is_held = True
            self._protocol.pause_writing()

    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Writes pieces."""
        self.write(b"".join(pieces))

    def flush(self) -> None:
        """Hands over as much as there is room for."""
        try:
            while self._buffer:
                self._side.send(self._buffer[:_PIECE])
                del self._buffer[:_PIECE]
        except FullError:
            # The callback writable comes when there is room.
            pass
        except Error:
            # It is over, and closed tells so.
            self._buffer.clear()
        if self._is_held and len(self._buffer) <= self._low:
            self._is_held = False
            self._protocol.resume_writing()
        if not self._buffer:
            with contextlib.suppress(Error):
                if self._is_closing:
                    self._connection.close_after_flush(Reason.DEST_FIN)
                elif self._ends:
                    self._connection.finish()

    def can_write_eof(self) -> bool:
        """Returns True."""
        return True

    def write_eof(self) -> None:
        """Ends what is written; reading goes on."""
        if not self._ends:
            self._ends = True
            self.flush()

    def get_write_buffer_size(self) -> int:
        """Returns the number of bytes that wait here."""
        return len(self._buffer)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sets the numbers of waiting bytes at which the protocol is paused and resumed."""
        self._high = _HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Returns these numbers, the lower one first."""
        return self._low, self._high

    # ---- Reading ----

    def is_reading(self) -> bool:
        """Returns False after pause_reading."""
        return not self._is_paused and not self._is_closing

    def pause_reading(self) -> None:
        """Stops reading: the peer is held back."""
        self._is_paused = True
        with contextlib.suppress(Error):
            self._side.pause()

    def resume_reading(self) -> None:
        """Reads on."""
        self._is_paused = False
        with contextlib.suppress(Error):
            self._side.resume()

    # ---- Its end ----

    def is_closing(self) -> bool:
        """Returns True after close."""
        return self._is_closing

    def close(self) -> None:
        """Closes it after all that was written has left."""
        if not self._is_closing:
            self._is_closing = True
            self.pause_reading()
            self.flush()

    def abort(self) -> None:
        """Closes it at once, with a reset."""
        self._is_closing = True
        self._buffer.clear()
        with contextlib.suppress(Error):
            self._connection.abort()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Returns the protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Sets another protocol."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def lost(self, end: End) -> None:
        """Tells the protocol that it is over."""
        self._is_closing = True
        self._buffer.clear()
        is_graceful = end.ending == Ending.GRACEFUL or end.reason in (Reason.DEST_FIN, Reason.SOURCE_FIN)
        self._protocol.connection_lost(None if is_graceful else ConnectionResetError(errno.ECONNRESET, end.reason.word))


class ProtocolHandler(Handler):
    """Hands a connection to a protocol: at once if a peer has opened it, and otherwise when it is connected. `opening` is
    the future of its opening then."""

    def __init__(self, make: Callable[[], asyncio.Protocol], opening: asyncio.Future[Transport] | None = None) -> None:
        self._make, self._opening = make, opening
        self._transport: Transport | None = None
        self._protocol: asyncio.Protocol | None = None

    def opened(self, connection: Connection) -> None:
        """A peer has opened it."""
        if self._opening is None:
            self._start(connection)

    def connected(self, connection: Connection, error: ConnectError | None) -> None:
        """The stream that this node has opened is there."""
        opening = self._opening
        if error is not None:
            connection.close(error.reason)
            if opening is not None and not opening.done():
                opening.set_exception(error)
        elif opening is None or opening.done():
            # The caller no longer waits for it.
            connection.close(Reason.KILLED)
        else:
            opening.set_result(self._start(connection))

    def readable(self, side: Side, data: bytes) -> int | None:
        """Hands all over."""
        if self._protocol is None:
            return 0
        self._protocol.data_received(data)
        return None

    def writable(self, side: Side) -> None:
        """There is room."""
        if self._transport is not None and side.role == Role.SOURCE:
            self._transport.flush()

    def ended(self, side: Side, cause: Cause) -> None:
        """The peer has ended what it sends."""
        if cause != Cause.FIN or self._protocol is None or self._transport is None:
            super().ended(side, cause)
        elif not self._protocol.eof_received():
            self._transport.close()

    def closed(self, connection: Connection, end: End) -> None:
        """It is over."""
        if self._transport is not None:
            self._transport.lost(end)
        elif self._opening is not None and not self._opening.done():
            self._opening.set_exception(ConnectError(end.reason))

    def _start(self, connection: Connection) -> Transport:
        # The timer of the handshake is for clients that say nothing; here nobody waits for a dest.
        connection.set_stage(Stage.ESTABLISHED)
        side = connection.source
        assert side is not None
        self._protocol = self._make()
        self._transport = Transport(connection, side, self._protocol)
        self._protocol.connection_made(self._transport)
        return self._transport
