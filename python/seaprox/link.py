"""Links, the servers that take them, and forwards: handles, as connections are."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _callbacks
from ._library import lib
from .connection import Connection, _Record
from .enums import ForwardState, LinkEventKind, LinkState, Reason
from .keys import PublicKey, _filled
from .toml import toml_of

if TYPE_CHECKING:
    from .datagram import DatagramHandler, Flow
    from .handler import Handler


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """An event of a link. Fields that do not belong to its kind are None, "" or 0.

    connection: the stream that waits for Connection.permit; key: that of the peer; text: the message, which is the peer's,
    or what the peer has asked for, or the text of a failure; subflow: its number in the order of the paths; tries: its
    consecutive failures.
    """

    kind: LinkEventKind
    link: Link
    connection: Connection | None
    key: PublicKey | None
    text: str
    reason: Reason | None
    is_new: bool
    subflow: int
    tries: int


class Link(_Record):
    """A link to another node: one session, which outlives its connections."""

    __slots__ = ()

    @property
    def state(self) -> LinkState:
        """The state."""
        return LinkState(self.loop._do(lib.seaprox_link_state, self.id))

    @property
    def key(self) -> PublicKey:
        """The public key of the peer. InvalidError if it is not known yet."""
        return PublicKey(_filled(lambda key: self.loop._do(lib.seaprox_link_key, self.id, key)))

    def status(self) -> dict[str, Any]:
        """Returns the state, key, cipher, subflows with round trips and rates, streams and counts."""
        status: dict[str, Any] = json.loads(self.loop._text(lib.seaprox_link_json, self.id))
        return status

    def close(self) -> None:
        """Closes it in order: its streams are reset, its forwards are closed, and the peer is told."""
        self.loop._do(lib.seaprox_link_close, self.id)

    def redial(self) -> None:
        """Dials the missing subflows at once, and forgets earlier failures."""
        self.loop._do(lib.seaprox_link_redial, self.id)

    def add_path(self, path: str) -> None:
        """Adds a path: SOURCE[:PORT][%INTERFACE][->ADDR], each part of which may be absent."""
        text = path.encode()
        self.loop._do(lib.seaprox_link_add_path, self.id, text, len(text))

    def remove_path(self, path: str) -> None:
        """Removes a path, once no data is on its way there."""
        text = path.encode()
        self.loop._do(lib.seaprox_link_remove_path, self.id, text, len(text))

    def send_message(self, message: str) -> None:
        """Sends a text of at most 4096 bytes to the program at the other end. FullError if 64 wait; OverError without a
        session."""
        text = message.encode()
        self.loop._do(lib.seaprox_send_message, self.id, text, len(text))

    def forward_local(self, listen: str, target: str) -> Forward:
        """Listens here, and the peer connects each client to the target (ssh -L). With udp: before both it carries
        datagrams."""
        return self._forward(lib.seaprox_forward_local, listen, target)

    def forward_remote(self, listen: str, target: str) -> Forward:
        """The peer listens, if it permits that, and this node connects each client to the target (ssh -R)."""
        return self._forward(lib.seaprox_forward_remote, listen, target)

    def forward_dynamic(self, listen: str, front_end: str = "socks", **options: Any) -> Forward:
        """Listens here with a front end, "socks" or "http", to which clients name their targets (ssh -D). options as for
        Loop.serve."""
        return self._forward(lib.seaprox_forward_dynamic, listen, front_end, toml_of(options))

    def open_stream(self, target: str, handler: Handler) -> Connection:
        """Opens a stream to a target that the peer connects to: the source of a connection without a dest, whose bytes are the
        handler's. `connected` tells the result. It waits if the link is not up."""
        return self._open(lib.seaprox_stream_open, target, handler)

    def open_service(self, service: str, handler: Handler) -> Connection:
        """Opens a stream to a service of the program at the other end (Loop.set_service); otherwise as open_stream."""
        return self._open(lib.seaprox_service_open, service, handler)

    def open_datagrams(self, target: str, handler: DatagramHandler) -> Flow:
        """Opens a flow of datagrams to a target, HOST:PORT or [IPV6]:PORT, that the peer reaches."""
        return self.loop.open_datagrams(target, handler, link=self)

    def _forward(self, function: Any, *texts: str) -> Forward:
        id = ctypes.c_uint64()
        sized = [item for text in map(str.encode, texts) for item in (text, len(text))]
        self.loop._do(function, self.id, *sized, ctypes.byref(id))
        return Forward(self.loop, id.value)

    def _open(self, function: Any, name: str, handler: Handler) -> Connection:
        id, text = ctypes.c_uint64(), name.encode()
        with self.loop._kept(handler) as kept:
            handlers = ctypes.byref(_callbacks.HANDLER)
            self.loop._do(function, self.id, text, len(text), handlers, kept.number, ctypes.byref(id))
            kept.belongs_to(id.value)
        return Connection(self.loop, id.value)


class Server(_Record):
    """An address on which peers dial links to this node."""

    __slots__ = ()

    @property
    def address(self) -> str:
        """The address, with the port that the system chose."""
        return self.loop._text(lib.seaprox_server_address, self.id)

    @property
    def port(self) -> int:
        """The port; 0 for a Unix socket."""
        return self.loop._do(lib.seaprox_server_port, self.id)

    def close(self, *, closes_links: bool = False) -> None:
        """Stops taking links. Those that there are go on, unless closes_links is True."""
        self.loop._do(lib.seaprox_server_close, self.id, closes_links)
        self.loop._links.server_closed(self.id)


class Forward(_Record):
    """An address whose clients go over a link."""

    __slots__ = ()

    @property
    def state(self) -> ForwardState:
        """The state."""
        return ForwardState(self.loop._do(lib.seaprox_forward_state, self.id))

    @property
    def port(self) -> int:
        """The port that it listens on, here or at the peer; 0 if it is not known yet."""
        return self.loop._do(lib.seaprox_forward_port, self.id)

    @property
    def failure(self) -> str:
        """Why it does not listen; empty if nothing has failed."""
        return self.loop._text(lib.seaprox_forward_failure, self.id)

    @property
    def bytes(self) -> tuple[int, int]:
        """The bytes relayed from clients, and to them."""
        sent, received = ctypes.c_uint64(), ctypes.c_uint64()
        self.loop._do(lib.seaprox_forward_bytes, self.id, ctypes.byref(sent), ctypes.byref(received))
        return sent.value, received.value

    def close(self) -> None:
        """Closes it: its address is free, here or at the peer. Its connections go on."""
        self.loop._do(lib.seaprox_forward_close, self.id)
