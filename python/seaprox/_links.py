"""What a loop keeps for its links, and the functions that C calls for them."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, Callable, Union

from ._abi import INTERFACE
from ._callbacks import HANDLER, LOOPS, NUMBERS, _callback, _given, bytes_at, text_at
from ._library import lib
from .connection import Connection
from .datagram import HANDLER as DATAGRAM_HANDLER
from .datagram import DatagramHandler
from .enums import LinkEventKind, Reason, Verdict
from .handler import Handler
from .keys import KEY_BYTES, PrivateKey, PublicKey
from .link import Link, LinkEvent
from .policy import Policy, is_written
from .toml import toml_of

if TYPE_CHECKING:
    from .loop import Loop

OnLinkEvent = Callable[[LinkEvent], object]
HandlerOrFactory = Union[Handler, Callable[[], Handler]]

# The policies and the permissions of services by their numbers, each with the handle of its loop: C asks without one.
POLICIES: dict[int, tuple[int | None, Policy]] = {}
PERMITS: dict[int, tuple[int | None, Callable[[PublicKey, str], bool]]] = {}


class Linked:
    """A link that this node dials, or a server with all of its links."""

    def __init__(self, number: int, on_event: OnLinkEvent | None, is_server: bool) -> None:
        self.number, self.on_event, self.is_server = number, on_event, is_server
        # The links of a server that are not over.
        self.links: set[int] = set()
        self.is_closed = False


class Links:
    """What a loop keeps for its links."""

    def __init__(self, loop: Loop) -> None:
        # The loop owns this, and is freed when nothing else knows it.
        self._loop: Loop = weakref.proxy(loop)
        self._linked: dict[int, Linked] = {}
        self._server: dict[int, int] = {}
        self._services: dict[str, int] = {}
        # Are told the events of one link (see seaprox.aio).
        self.waiting: dict[int, list[OnLinkEvent]] = {}

    def __len__(self) -> int:
        return len(self._linked) + len(self._server) + len(self._services) + len(self.waiting)

    def open(
        self,
        function: Any,
        address: str,
        key: PrivateKey | None,
        peer_key: PublicKey | str | None,
        policy: Policy | None,
        on_event: OnLinkEvent | None,
        handlers: tuple[HandlerOrFactory | None, DatagramHandler | None],
        options: dict[str, Any],
    ) -> int:
        """Dials a link, or takes links. Returns its id, or that of the server."""
        self._loop._observe_all()
        number, is_server = next(NUMBERS), function is lib.seaprox_link_serve
        handler, datagram_handler = handlers
        texts = {"address": address.encode(), "toml": toml_of(options).encode()}
        peer_key = PublicKey(peer_key) if isinstance(peer_key, str) else peer_key
        told: dict[str, Any] = {field: text for field, text in texts.items() if text}
        told.update({f"{field}_len": len(text) for field, text in texts.items()})
        if key is not None:
            told["key"] = bytes(key)
        if peer_key is not None:
            told["peer_key"] = bytes(peer_key)
        struct = INTERFACE.structs["seaprox_link_options"]
        told.update(event=_EVENT, user=number, handler_user=number, datagram_user=number)
        id = ctypes.c_uint64()
        self._linked[number] = linked = Linked(number, on_event, is_server)
        try:
            if policy is not None:
                told["policy"] = ctypes.pointer(_policy(policy))
                POLICIES[number] = self._loop._handle, policy
            if handler is not None:
                told["handler"] = ctypes.pointer(HANDLER)
                self._loop._factories[number] = handler
            if datagram_handler is not None:
                told["datagram_handler"] = ctypes.pointer(DATAGRAM_HANDLER)
                self._loop._datagrams.keep(datagram_handler, number)
            options_of_c = struct(size=ctypes.sizeof(struct), **told)
            self._loop._do(function, ctypes.byref(options_of_c), ctypes.byref(id))
        except BaseException:
            self._drop(linked)
            raise
        if is_server:
            self._server[id.value] = number
        return id.value

    def server_closed(self, server: int) -> None:
        """Drops what is kept for a server, once its last link has ended."""
        linked = self._linked.get(self._server.pop(server, 0))
        if linked is not None:
            linked.is_closed = True
            self._drop_ended(linked)

    def tell(self, number: int, event: LinkEvent) -> None:
        """Tells an event."""
        linked = self._linked.get(number)
        if linked is None:
            return
        if linked.is_server and event.kind == LinkEventKind.UP:
            linked.links.add(event.link.id)
        elif linked.is_server and event.kind in (LinkEventKind.CLOSED, LinkEventKind.ENDED):
            linked.links.discard(event.link.id)
        elif event.kind == LinkEventKind.CLOSED:
            linked.is_closed = True
        try:
            if linked.on_event is not None:
                linked.on_event(event)
        finally:
            for waiting in list(self.waiting.get(event.link.id, ())):
                waiting(event)
            self._drop_ended(linked)

    def set_service(
        self, service: str, handler: HandlerOrFactory, permit: Callable[[PublicKey, str], bool] | None, function: Any
    ) -> None:
        """Offers a service, in place of another one of this name."""
        self._loop._observe_all()
        number, text = next(NUMBERS), service.encode()
        self._loop._factories[number] = handler
        if permit is not None:
            PERMITS[number] = self._loop._handle, permit
        may = _SERVICE if permit is not None else type(_SERVICE)()
        try:
            self._loop._do(function, text, len(text), ctypes.byref(HANDLER), may, number)
        except BaseException:
            self._drop_number(number)
            raise
        self._drop_number(self._services.pop(service, 0))
        self._services[service] = number

    def remove_service(self, service: str, function: Any) -> None:
        """Offers a service no more."""
        text = service.encode()
        self._loop._do(function, text, len(text), None, type(_SERVICE)(), None)
        self._drop_number(self._services.pop(service, 0))

    def clear(self) -> None:
        """Forgets all."""
        for number in (*self._linked, *self._services.values()):
            POLICIES.pop(number, None)
            PERMITS.pop(number, None)
        for table in (self._linked, self._server, self._services, self.waiting):
            table.clear()

    def _drop_ended(self, linked: Linked) -> None:
        if linked.is_closed and not linked.links:
            self._drop(linked)

    def _drop(self, linked: Linked) -> None:
        self._linked.pop(linked.number, None)
        self._drop_number(linked.number)

    def _drop_number(self, number: int) -> None:
        POLICIES.pop(number, None)
        PERMITS.pop(number, None)
        self._loop._datagrams.drop(number)
        self._loop._drop_factory(number)


def _policy(policy: Policy) -> Any:
    """Returns a policy as C has it. A method that is not written is NULL, which means more for admit than a refusal."""
    struct = INTERFACE.structs["seaprox_policy"]
    calls = {name: call for name, call in _POLICY.items() if is_written(policy, name)}
    return struct(
        size=ctypes.sizeof(struct),
        max_num_streams=policy.max_num_streams,
        max_bytes_per_second=policy.max_bytes_per_second,
        **calls,
    )


def _key(key: int) -> PublicKey:
    return PublicKey(bytes_at(key, KEY_BYTES))


@_callback("seaprox_policy.admit")
def _admit(key: int, user: int) -> int:
    return _asked(user, lambda policy: bool(policy.admit(_key(key))))


@_callback("seaprox_policy.open")
def _open(key: int, target: int, length: int, user: int) -> int:
    return _asked(user, lambda policy: policy.open(_key(key), text_at(target, length)))


@_callback("seaprox_policy.reach")
def _reach(key: int, target: int, length: int, address: int, address_length: int, user: int) -> int:
    return _asked(user, lambda policy: policy.reach(_key(key), text_at(target, length), text_at(address, address_length)))


@_callback("seaprox_policy.listen")
def _listen(key: int, address: int, length: int, user: int) -> int:
    return _asked(user, lambda policy: policy.listen(_key(key), text_at(address, length)))


_POLICY = {"admit": _admit, "open": _open, "reach": _reach, "listen": _listen}


def _asked(user: int, ask: Callable[[Policy], bool | Verdict]) -> int:
    handle, policy = POLICIES.get(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is None or policy is None:
        return Verdict.REFUSE
    return int(loop._call(0, lambda: Verdict(ask(policy)), otherwise=Verdict.REFUSE))


@_callback("seaprox_service_fn")
def _SERVICE(key: int, service: int, length: int, user: int) -> int:
    handle, permit = PERMITS.get(user, (None, None))
    loop = LOOPS.get(handle or 0)
    if loop is None or permit is None:
        return 0
    return int(bool(loop._call(0, permit, _key(key), text_at(service, length))))


@_callback("seaprox_link_event_fn")
def _EVENT(handle: int, event: Any, user: int) -> None:
    loop = LOOPS.get(handle)
    if loop is not None and event.contents.kind in _EVENT_KINDS:
        loop._call(0, lambda: loop._links.tell(user, _told(loop, _given(event))))


_EVENT_KINDS = frozenset(LinkEventKind)


def _told(loop: Loop, told: Any) -> LinkEvent:
    return LinkEvent(
        kind=LinkEventKind(told.kind),
        link=Link(loop, told.link),
        connection=Connection(loop, told.connection) if told.connection else None,
        key=_key(told.key) if told.key else None,
        text=text_at(told.text, told.text_len),
        reason=Reason(told.reason) if told.reason else None,
        is_new=bool(told.is_new),
        subflow=told.subflow,
        tries=told.tries,
    )
