"""Connections, their sides, and listeners: handles, which may be kept as long as one likes. One whose object is gone raises
StaleError, or OverError."""

from __future__ import annotations

import ctypes
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol, Union

from . import _callbacks
from ._library import lib
from .enums import Reason, Role, SideState, Stage

if TYPE_CHECKING:
    from .handler import Handler
    from .hook import Hook
    from .link import Link
    from .loop import Loop


class HasFileno(Protocol):
    """An object with a descriptor."""

    def fileno(self) -> int:
        """Returns the descriptor."""


Descriptor = Union[int, HasFileno]


def taken(descriptor: Descriptor) -> int:
    """Returns the descriptor, which belongs to the loop from now on: a socket loses it, and of other objects it is
    duplicated."""
    if isinstance(descriptor, int):
        return descriptor
    if isinstance(descriptor, socket.socket):
        return descriptor.detach()
    return os.dup(descriptor.fileno())


class _Record:
    """A handle: a loop and a number."""

    __slots__ = ("loop", "id")

    def __init__(self, loop: Loop, id: int) -> None:
        self.loop, self.id = loop, id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Record) and (self.id, self.loop) == (other.id, other.loop)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id:#x}>"


class Listener(_Record):
    """A listener."""

    __slots__ = ()

    @property
    def address(self) -> str:
        """The address, such as 127.0.0.1:1080, with the port that the system chose."""
        return self.loop._text(lib.seaprox_listener_address, self.id)

    @property
    def port(self) -> int:
        """The port; 0 for a Unix socket."""
        return self.loop._do(lib.seaprox_listener_port, self.id)

    def close(self) -> None:
        """Closes the listener. Its connections go on."""
        self.loop._do(lib.seaprox_listener_close, self.id)
        self.loop._forget_listener(self.id)


class Connection(_Record):
    """A connection: its source is the client, its dest is the target."""

    __slots__ = ()

    @property
    def source(self) -> Side | None:
        """The side of the client; None if the connection is over."""
        return self.loop._side_of(lib.seaprox_connection_source, self.id)

    @property
    def dest(self) -> Side | None:
        """The side of the target; None if there is none yet, or the connection is over."""
        return self.loop._side_of(lib.seaprox_connection_dest, self.id)

    @property
    def listener(self) -> Listener | None:
        """The listener that accepted it."""
        id = self.loop._id(lib.seaprox_connection_listener, self.id)
        return Listener(self.loop, id) if id else None

    @property
    def description(self) -> str:
        """Such as socks5[ipv4[192.0.2.7:5678]->name[example.org:80]]."""
        return self.loop._text(lib.seaprox_connection_describe, self.id)

    @property
    def target(self) -> str:
        """The target that it has asked for, such as example.org:80; empty before that is known."""
        return self.loop._text(lib.seaprox_connection_target, self.id)

    @property
    def stage(self) -> Stage:
        """The stage."""
        return Stage(self.loop._do(lib.seaprox_connection_stage, self.id))

    @property
    def bytes(self) -> tuple[int, int]:
        """The bytes relayed from the source to the dest, and back."""
        sent, received = ctypes.c_uint64(), ctypes.c_uint64()
        self.loop._do(lib.seaprox_connection_bytes, self.id, ctypes.byref(sent), ctypes.byref(received))
        return sent.value, received.value

    def connect(self, target: str | Descriptor, write: Descriptor | None = None) -> None:
        """Connects the dest: HOST:PORT, [IPV6]:PORT or unix:/path; or a socket or another descriptor, which the loop takes over
        (write: the one to write to, if it is another). The connected callback tells the result, never before this returns."""
        if isinstance(target, str):
            text = target.encode()
            self.loop._do(lib.seaprox_connection_connect, self.id, text, len(text))
        else:
            fd, write_fd = taken(target), -1 if write is None else taken(write)
            self.loop._do(lib.seaprox_connection_connect_fd, self.id, fd, write_fd)

    def disconnect(self) -> None:
        """Releases the dest, so that another one can be connected. Bytes that wait for it are dropped."""
        self.loop._do(lib.seaprox_connection_disconnect, self.id)

    def route(self, link: Link) -> None:
        """Makes it reach its dest over a link. Call it before connect."""
        self.loop._do(lib.seaprox_connection_route, self.id, link.id)

    @property
    def link(self) -> Link | None:
        """The link that carries it: that of its source if that is a stream, or else that of its dest."""
        id = self.loop._id(lib.seaprox_connection_link, self.id)
        return self.loop.link(id) if id else None

    def permit(self, may: bool = True) -> None:
        """Decides about a stream of LinkEventKind.ASKED_OPEN."""
        self.loop._do(lib.seaprox_permit, self.id, may)

    def set_stage(self, stage: Stage) -> None:
        """Sets the stage, and starts its timer: HANDSHAKE, ESTABLISHED or KEEP_ALIVE. A program that serves its clients by
        itself, without a dest, sets ESTABLISHED when it knows them."""
        self.loop._do(lib.seaprox_connection_set_stage, self.id, stage)

    def relay(self) -> None:
        """Relays both directions until the end. No callback but closed runs from then on."""
        self.loop._do(lib.seaprox_connection_relay, self.id)

    def finish(self) -> None:
        """Ends what is sent to the source of a connection without a dest: it gets a FIN after all bytes, and may still send."""
        self.loop._do(lib.seaprox_connection_finish, self.id)

    def close(self, reason: Reason = Reason.KILLED) -> None:
        """Closes it at once. The peers see a reset if the reason implies one, and an orderly close otherwise."""
        self.loop._do(lib.seaprox_connection_close, self.id, reason)

    def close_after_flush(self, reason: Reason = Reason.KILLED) -> None:
        """Closes it after all bytes for its source were written."""
        self.loop._do(lib.seaprox_connection_close_after_flush, self.id, reason)

    def abort(self, reason: Reason = Reason.KILLED) -> None:
        """Closes it at once, with a reset to both peers."""
        self.loop._do(lib.seaprox_connection_abort, self.id, reason)

    def wake_after(self, seconds: float) -> None:
        """Calls woken after a time. A connection has one such call at most."""
        self.loop._do(lib.seaprox_connection_wake_after, self.id, milliseconds(seconds))

    def set_user(self, user: str) -> None:
        """Sets the user, for log and status."""
        text = user.encode()
        self.loop._do(lib.seaprox_connection_set_user, self.id, text, len(text))

    def set_kind(self, kind: str) -> None:
        """Sets the name of the front end, for the description."""
        text = kind.encode()
        self.loop._do(lib.seaprox_connection_set_kind, self.id, text, len(text))

    def set_handler(self, role: Role, handler: Handler) -> None:
        """Gives one side another handler, from when the running callback returns. A dest without one has that of its source."""
        with self.loop._kept(handler) as kept:
            kept.belongs_to(self.id)
            self.loop._do(
                lib.seaprox_connection_set_handler, self.id, role, ctypes.byref(_callbacks.HANDLER), kept.number
            )

    def set_hook(self, hook: Hook) -> None:
        """Sets the hook of a connection that will relay. Its bytes are copied and not spliced from now on."""
        number = self.loop._keep_hook(hook)
        try:
            self.loop._do(lib.seaprox_connection_set_hook, self.id, ctypes.byref(_callbacks.HOOK), number)
        except BaseException:
            self.loop._drop_hook(number)
            raise


class Side(_Record):
    """One end of a connection: the source or the dest."""

    __slots__ = ()

    @property
    def connection(self) -> Connection | None:
        """The connection; None if the side is gone."""
        id = self.loop._id(lib.seaprox_side_connection, self.id)
        return Connection(self.loop, id) if id else None

    @property
    def other(self) -> Side | None:
        """The other side."""
        return self.loop._side_of(lib.seaprox_side_other, self.id)

    @property
    def data(self) -> Any:
        """The data that the program keeps with the side: any object; None is none."""
        return self.loop._data.get(lib.seaprox_side_data(self.loop._handle, self.id))

    @data.setter
    def data(self, data: Any) -> None:
        self.loop._set_data(self.id, data)

    @property
    def state(self) -> SideState:
        """The state."""
        return SideState(self.loop._do(lib.seaprox_side_state, self.id))

    @property
    def role(self) -> Role:
        """The role."""
        return Role(self.loop._do(lib.seaprox_side_role, self.id))

    @property
    def peer(self) -> str:
        """The address of the peer, such as ipv4[192.0.2.7:5678] or unix[/path]."""
        return self.loop._text(lib.seaprox_side_peer, self.id)

    @property
    def local(self) -> str:
        """The local address in the same form."""
        return self.loop._text(lib.seaprox_side_local, self.id)

    @property
    def queued(self) -> int:
        """The number of bytes that wait to be written."""
        count = ctypes.c_size_t()
        self.loop._do(lib.seaprox_side_queued, self.id, ctypes.byref(count))
        return count.value

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes, ahead of all that are relayed: all of them or none. At most 32 KiB wait; FullError says that there is no
        room, and writable when there is."""
        self.loop._do(lib.seaprox_side_send, self.id, bytes(data), len(data))

    def relay(self, count: int) -> None:
        """Relays the next bytes of the input to the other side. Then the input is the handler's again."""
        self.loop._do(lib.seaprox_side_relay, self.id, count)

    def pause(self) -> None:
        """Stops reading until resume or relay."""
        self.loop._do(lib.seaprox_side_pause, self.id)

    def resume(self) -> None:
        """Gives the input to the handler, including what waits."""
        self.loop._do(lib.seaprox_side_resume, self.id)


def milliseconds(seconds: float) -> int:
    """Returns a time in whole milliseconds, rounded up."""
    if seconds < 0:
        raise ValueError("a time is negative")
    return -int(-seconds * 1000 // 1)
