"""The loop: it moves the bytes of all connections, in the thread that made it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Union

from . import _callbacks, _signals
from ._abi import INTERFACE
from ._kept import Data, Kept, Records
from ._library import lib
from ._links import HandlerOrFactory, Links, OnLinkEvent
from .connection import Connection, Descriptor, Listener, Side, milliseconds, taken
from .connector import ConnectRequest
from .datagram import HANDLER as DATAGRAM_HANDLER
from .datagram import DatagramHandler, Datagrams, Flow
from .enums import Ending, EventKind, Fault, ForwardState, Kind, LinkState, PollEvent, Reason, SideState
from .errors import Error, StaleError, check, text_of
from .handler import Handler
from .hook import Hook
from .keys import PrivateKey, PublicKey
from .link import Forward, Link, Server
from .policy import Policy
from .toml import toml_of
from .values import End, Event

ExceptionHandler = Callable[["Loop", BaseException, Union[Connection, None]], None]


class Timer:
    """A function that Loop.call_later calls."""

    __slots__ = ("_loop", "_id", "_number", "_function", "_args")

    def __init__(self, loop: Loop, number: int, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._loop, self._id, self._number, self._function, self._args = loop, 0, number, function, args

    @property
    def is_pending(self) -> bool:
        """True until the function is called, or the timer is cancelled."""
        return self._id != 0

    def cancel(self) -> None:
        """Cancels the call. A timer that has run or was cancelled stays as it is."""
        if self._id:
            self._loop._timers.pop(self._number, None)
            id, self._id = self._id, 0
            with contextlib.suppress(StaleError):
                self._loop._do(lib.seaprox_cancel, id)


class Watch:
    """A descriptor of the program that Loop.watch watches."""

    __slots__ = ("_loop", "fd", "_file", "_function")

    def __init__(self, loop: Loop, fd: int, file: Descriptor, function: Callable[[Any, PollEvent], object]) -> None:
        # The file is kept, so that it is not closed while it is watched.
        self._loop, self.fd, self._file, self._function = loop, fd, file, function

    def _ready(self, events: int) -> None:
        self._function(self._file, PollEvent(events))

    def modify(self, events: PollEvent) -> None:
        """Changes the events that it waits for."""
        self._loop._do(lib.seaprox_poll_modify, self.fd, events)

    def close(self) -> None:
        """Ends the watch. Its function is not called again."""
        if self._loop._watches.get(self.fd) is self:
            del self._loop._watches[self.fd]
            self._loop._do(lib.seaprox_poll_remove, self.fd)


class Loop:
    """An event loop with its listeners, connections and links. It belongs to the thread that makes it: only post, wake, finish
    and the answers of a connector work in other threads.

    The options are those of `seaprox_options` in seaprox.h, times in seconds; None is the default. Use it as a context manager,
    or call close.
    """

    def __init__(
        self,
        *,
        max_num_connections: int | None = None,
        num_threads: int | None = None,
        handshake_timeout: float | None = None,
        connect_timeout: float | None = None,
        idle_timeout: float | None = None,
        half_closed_timeout: float | None = None,
        max_num_timers: int | None = None,
        max_num_watches: int | None = None,
        buffer_bytes: int | None = None,
    ) -> None:
        self._handle: int | None = None
        options = _struct(
            "seaprox_options",
            max_num_connections=max_num_connections,
            num_threads=num_threads,
            handshake_timeout_ms=_ms(handshake_timeout),
            connect_timeout_ms=_ms(connect_timeout),
            idle_timeout_ms=_ms(idle_timeout),
            half_closed_timeout_ms=_ms(half_closed_timeout),
            max_num_timers=max_num_timers,
            max_num_watches=max_num_watches,
            buffer_bytes=buffer_bytes,
        )
        # Objects that C may ask for, by the numbers that it has.
        self._numbers = _callbacks.NUMBERS
        self._posts: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._timers: dict[int, Timer] = {}
        self._watches: dict[int, Watch] = {}
        self._factories: dict[int, HandlerOrFactory] = {}
        self._factory_of: dict[int, int] = {}
        self._records = Records()
        self._data = Data()
        self._hooks: set[int] = set()
        self._links = Links(self)
        self._datagrams = Datagrams(self)
        self._connector: Callable[[ConnectRequest], object] | None = None
        self._on_event: Callable[[Event], object] | None = None
        self._is_observed = False
        self._exception_handler: ExceptionHandler | None = None
        self._raised: BaseException | None = None
        self._is_closed = False
        # Is told that a function was called, which may have made a turn due (see seaprox.aio).
        self._on_call: Callable[[], object] | None = None
        self._thread = threading.get_ident()
        handle = ctypes.c_void_p()
        check(lib.seaprox_new(ctypes.byref(options), ctypes.byref(handle)))
        self._handle = handle.value
        assert self._handle is not None
        _callbacks.LOOPS[self._handle] = self

    # ---- Its life ----

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self.__dict__.get("_handle") and not self.__dict__.get("_is_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self)
            lib.seaprox_free(self._handle)

    def close(self) -> None:
        """Ends all connections, whose closed callbacks run, and frees the loop. A loop that is closed stays closed."""
        if self._is_closed:
            return
        check(lib.seaprox_free(self._handle))
        self._is_closed = True
        for number in list(self._hooks):
            self._drop_hook(number)
        for table in (self._posts, self._timers, self._watches, self._factories, self._factory_of):
            table.clear()
        self._records.clear()
        self._data.clear()
        self._links.clear()
        self._datagrams.clear()
        self._connector = self._on_event = self._on_call = None
        self._raise()

    @property
    def is_closed(self) -> bool:
        """True after close."""
        return self._is_closed

    def run(self) -> None:
        """Runs until finish. In the main thread handlers of signals run at once, and Ctrl-C raises KeyboardInterrupt."""
        with _signals.heard(self):
            while self.run_one():
                pass

    def run_one(self, timeout: float | None = None) -> bool:
        """Runs one turn: waits for events for at most a time, and handles them. Returns False if the loop is finished."""
        # The turn itself makes further turns due, which fileno and timeout tell.
        result = lib.seaprox_run_one(self._handle, -1 if timeout is None else min(milliseconds(timeout), _INT_MAX))
        self._raise()
        return check(result) == 1

    def finish(self, grace: float = 0) -> None:
        """Finishes the loop: it accepts no more clients, and ends when its last connection is over, or after the time. Any
        thread."""
        check(lib.seaprox_finish(self._handle, min(milliseconds(grace), _UINT32_MAX)))

    def wake(self) -> None:
        """Ends the wait of the loop. Any thread."""
        check(lib.seaprox_wake(self._handle))

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Calls a function in the loop soon, in its thread. A loop that has ended never calls it. FullError if 4096 wait. Any
        thread."""
        number = next(self._numbers)
        self._posts[number] = function, args
        result = lib.seaprox_post(self._handle, _callbacks.POST, number)
        if result < 0:
            self._posts.pop(number, None)
            check(result)

    def fileno(self) -> int:
        """Returns a descriptor that is readable when the loop has events, for a loop around this one (seaprox.aio is one)."""
        return check(lib.seaprox_fd(self._handle))

    def timeout(self) -> float | None:
        """Returns the longest time until run_one(0) is due without an event; None if there is none."""
        timeout = ctypes.c_int()
        check(lib.seaprox_timeout(self._handle, ctypes.byref(timeout)))
        return None if timeout.value < 0 else timeout.value / 1000

    # ---- Timers and descriptors of the program ----

    def call_later(self, seconds: float, function: Callable[..., object], *args: Any) -> Timer:
        """Calls a function once, after a time and never earlier. It does not keep the loop running."""
        number = next(self._numbers)
        timer = self._timers[number] = Timer(self, number, function, args)
        id = ctypes.c_uint64()
        try:
            self._do(lib.seaprox_after, milliseconds(seconds), _callbacks.TIMER, number, ctypes.byref(id))
        except BaseException:
            del self._timers[number]
            raise
        timer._id = id.value
        return timer

    def watch(self, file: Descriptor, events: PollEvent, function: Callable[[Any, PollEvent], object]) -> Watch:
        """Watches a descriptor, or an object with one, for PollEvent.READABLE, WRITABLE or both: while it is ready, the
        function is called with it and the events, once in each turn. Close the watch before the descriptor. It does not keep
        the loop running."""
        fd = file if isinstance(file, int) else file.fileno()
        self._do(lib.seaprox_poll_add, fd, events, _callbacks.POLL, None)
        watch = self._watches[fd] = Watch(self, fd, file, function)
        return watch

    # ---- Listeners and connections ----

    def serve(self, front_end: str, address: str, **options: Any) -> Listener:
        """Opens a listener with a front end of seaprox: "static", "socks", "http" or "redirect".

        address: PORT (loopback), :PORT (all addresses), ADDR:PORT, NAME:PORT or unix:/path; port 0 lets the system choose.
        options: those of a [[listener]] in docs/configuration.md, with _ for -, such as to="db:5432", deny=["*:25"].
        """
        id = ctypes.c_uint64()
        texts = [text.encode() for text in (front_end, address, toml_of(options))]
        sized = [item for text in texts for item in (text, len(text))]
        self._do(lib.seaprox_listen_front_end, *sized, ctypes.byref(id))
        return Listener(self, id.value)

    def listen(
        self,
        address: str,
        handler: HandlerOrFactory,
        *,
        name: str = "",
        kind: str = "python",
        backlog: int = 0,
        link: Link | None = None,
        handshake_timeout: float | None = None,
        connect_timeout: float | None = None,
        idle_timeout: float | None = None,
        half_closed_timeout: float | None = None,
    ) -> Listener:
        """Opens a listener whose clients get a handler: the same one if it is a Handler; otherwise what the function or class
        returns for each of them. kind is the name in descriptions; link the link over which dests are reached."""
        self._observe_all()
        number, id = next(self._numbers), ctypes.c_uint64()
        options = _listen_options(
            address,
            name,
            kind,
            link,
            backlog=backlog,
            handshake_timeout_ms=_ms(handshake_timeout),
            connect_timeout_ms=_ms(connect_timeout),
            idle_timeout_ms=_ms(idle_timeout),
            half_closed_timeout_ms=_ms(half_closed_timeout),
        )
        handlers = ctypes.byref(_callbacks.HANDLER)
        self._do(lib.seaprox_listen, ctypes.byref(options), handlers, number, ctypes.byref(id))
        self._factories[number] = handler
        self._factory_of[id.value] = number
        return Listener(self, id.value)

    def listen_datagrams(
        self,
        address: str,
        handler: DatagramHandler,
        *,
        name: str = "",
        kind: str = "python",
        link: Link | None = None,
        idle_timeout: float | None = None,
    ) -> Listener:
        """Opens a listener of UDP, whose flows get the callbacks of a handler; otherwise as listen."""
        self._observe_all()
        id, number = ctypes.c_uint64(), self._datagrams.keep(handler)
        options = _listen_options(address, name, kind, link, idle_timeout_ms=_ms(idle_timeout))
        handlers = ctypes.byref(DATAGRAM_HANDLER)
        try:
            self._do(lib.seaprox_listen_datagrams, ctypes.byref(options), handlers, number, ctypes.byref(id))
        except BaseException:
            self._datagrams.drop(number)
            raise
        self._datagrams.listens(id.value, number)
        return Listener(self, id.value)

    def open_datagrams(self, target: str, handler: DatagramHandler, *, link: Link | None = None) -> Flow:
        """Opens a flow of datagrams from the program to a target, HOST:PORT or [IPV6]:PORT: over a link, or from a socket of its
        own."""
        id, number, text = ctypes.c_uint64(), self._datagrams.keep(handler), target.encode()
        handlers, over = ctypes.byref(DATAGRAM_HANDLER), link.id if link is not None else 0
        try:
            self._do(lib.seaprox_datagrams_open, over, text, len(text), handlers, number, ctypes.byref(id))
        except BaseException:
            self._datagrams.drop(number)
            raise
        self._datagrams.opened(id.value, number)
        return Flow(self, id.value)

    def adopt(
        self, source: Descriptor, handler: Handler, *, write: Descriptor | None = None, kind: str = "python"
    ) -> Connection:
        """Makes a connection whose source is a socket, or another descriptor that carries bytes; write is the one to write to,
        if it is another. The loop takes them over, also after an error; a number or a socket is its own then."""
        id, text = ctypes.c_uint64(), kind.encode()
        with self._kept(handler) as kept:
            fd, write_fd = taken(source), -1 if write is None else taken(write)
            handlers = ctypes.byref(_callbacks.HANDLER)
            self._do(
                lib.seaprox_adopt, fd, write_fd, text, len(text), handlers, kept.number, ctypes.byref(id)
            )
            kept.belongs_to(id.value)
        return Connection(self, id.value)

    def connection(self, id: int) -> Connection:
        """Returns the connection with an id."""
        return Connection(self, id)

    def side(self, id: int) -> Side:
        """Returns the side with an id."""
        return Side(self, id)

    def side_of(self, data: Any) -> Side | None:
        """Returns the side that has this object as its data; the last one that got it if several have it."""
        number = self._data.number_of(data)
        return self._side_of(lib.seaprox_side_of_data, number) if number else None

    # ---- Links ----

    def dial_link(
        self,
        address: str,
        *,
        key: PrivateKey | None = None,
        peer_key: PublicKey | str | None = None,
        policy: Policy | None = None,
        on_event: OnLinkEvent | None = None,
        handler: HandlerOrFactory | None = None,
        datagram_handler: DatagramHandler | None = None,
        **options: Any,
    ) -> Link:
        """Dials a link, and keeps it up until it is closed. Streams and forwards can be opened at once; they wait for it.

        address: HOST[:PORT], [IPV6]:PORT or unix:/path, port 23232; key: of this node, a new one if there is none; peer_key:
        which the peer must have, if neither policy nor options say it; policy: what the peer may do here, nothing without
        one; handler: for streams that the peer opens, those with Verdict.HANDLE, without a policy all; datagram_handler:
        the same for flows of datagrams; options: those of [[link]] in docs/configuration.md, with _ for -.
        """
        handlers = handler, datagram_handler
        id = self._links.open(lib.seaprox_link_dial, address, key, peer_key, policy, on_event, handlers, options)
        return Link(self, id)

    def serve_links(
        self,
        address: str,
        *,
        key: PrivateKey | None = None,
        peer_key: PublicKey | str | None = None,
        policy: Policy | None = None,
        on_event: OnLinkEvent | None = None,
        handler: HandlerOrFactory | None = None,
        datagram_handler: DatagramHandler | None = None,
        **options: Any,
    ) -> Server:
        """Takes links that peers dial to an address. The parameters are those of dial_link, with the options of [[serve]].
        The first event of each link is LinkEventKind.UP."""
        handlers = handler, datagram_handler
        id = self._links.open(lib.seaprox_link_serve, address, key, peer_key, policy, on_event, handlers, options)
        return Server(self, id)

    def link(self, id: int) -> Link:
        """Returns the link, or the group of links, with an id."""
        return Link(self, id)

    def link_named(self, name: str) -> Link | None:
        """Returns the link, or the group of links, with this name in the configuration that is in effect."""
        text = name.encode()
        id = self._id(lib.seaprox_link_named, text, len(text))
        return Link(self, id) if id else None

    def recheck_links(self) -> None:
        """Asks the policies again about all links: those whose keys are not admitted any more end, and listeners that their
        peers may not have any more are closed."""
        self._do(lib.seaprox_recheck_links)

    def set_service(
        self,
        service: str,
        handler: HandlerOrFactory,
        permit: Callable[[PublicKey, str], bool] | None = None,
    ) -> None:
        """Offers a service to the peers of all links, in place of another one of this name: each stream of a peer is the
        source of a connection with a handler, as for listen. permit decides about keys, as a method of Policy; without it
        all may use it."""
        self._links.set_service(service, handler, permit, lib.seaprox_set_service)

    def remove_service(self, service: str) -> None:
        """Offers a service no more. Its streams go on."""
        self._links.remove_service(service, lib.seaprox_set_service)

    # ---- Configuration and connector ----

    def apply(self, configuration: str | Mapping[str, Any]) -> None:
        """Puts a whole configuration into effect: the text of a file of `seaprox run`, or its mapping. Called again, it changes
        only what differs. The loop runs during the call. ConfigError has a line for each problem; what those lines do not
        name is in effect."""
        text = (configuration if isinstance(configuration, str) else toml_of(configuration)).encode()
        try:
            self._do(lib.seaprox_apply, text, len(text))
        finally:
            self._raise()

    def set_connector(self, connector: Callable[[ConnectRequest], object]) -> None:
        """Sets a connector, which connects all dests and the servers of links in place of the loop, dests over links
        excepted: it is called in the thread of the loop with each request, and answers it then or later, in any thread. See
        also threaded."""
        self._do(lib.seaprox_set_connector, _callbacks.CONNECT, None)
        self._connector = connector

    # ---- Observation ----

    def set_event_handler(self, handler: Callable[[Event], object] | None) -> None:
        """Sets the function that is told of events, at the end of the turn in which they happen; None ends it."""
        self._observe_all()
        self._on_event = handler

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Sets the function that gets exceptions which leave callbacks, with the connection that is closed for it or None. It
        is sys.unraisablehook otherwise."""
        self._exception_handler = handler

    def status(self) -> dict[str, Any]:
        """Returns the status: what `seaprox status --json` has of a loop."""
        status: dict[str, Any] = json.loads(self._text(lib.seaprox_status_json))
        return status

    def metrics(self) -> str:
        """Returns the metrics in the text format of Prometheus."""
        return self._text(lib.seaprox_metrics_text)

    # ---- For the other files of this package ----

    def _do(self, function: Any, *args: Any) -> int:
        """Calls a function of C with the loop. Returns its result, or raises its error."""
        result: int = function(self._handle, *args)
        if result < 0:
            check(result)
        if self._on_call is not None:
            self._on_call()
        return result

    def _id(self, function: Any, *args: Any) -> int:
        id: int = function(self._handle, *args)
        return id

    def _side_of(self, function: Any, *args: Any) -> Side | None:
        id = self._id(function, *args)
        return Side(self, id) if id else None

    def _text(self, function: Any, *args: Any) -> str:
        return text_of(function, self._handle, *args)

    def _call(
        self, connection: int, function: Callable[..., Any] | None, *args: Any, otherwise: Any = None
    ) -> Any:
        """Calls a function of the program for C. An exception closes the connection; what ends a program is raised by
        run_one."""
        try:
            return None if function is None else function(*args)
        except Exception as error:
            self._report(error, connection)
        except BaseException as error:
            self._raised = error
            lib.seaprox_wake(self._handle)
        return otherwise

    def _report(self, error: BaseException, connection: int) -> None:
        self._end_failed(connection)
        try:
            if self._exception_handler is None:
                _callbacks.report(error)
            else:
                self._exception_handler(self, error, Connection(self, connection) if connection else None)
        except BaseException as another:
            _callbacks.report(another)

    def _end_failed(self, connection: int) -> None:
        if connection:
            # It may be over.
            lib.seaprox_connection_close(self._handle, connection, Reason.INTERNAL)

    def _raise(self) -> None:
        error, self._raised = self._raised, None
        if error is not None:
            raise error

    def _open(self, connection: int, number: int) -> None:
        """Gives a client its handler."""
        kept = self._records.by_number(number)
        if kept is None:
            factory = self._factories.get(number)
            if factory is None:
                Connection(self, connection).close(Reason.KILLED)
                return
            handler = factory if isinstance(factory, Handler) else factory()
            if not isinstance(handler, Handler):
                raise TypeError(f"{factory!r} has made {handler!r}, which is no Handler")
            self._records.set_handler(connection, handler)
        else:
            handler = kept
        handler.opened(Connection(self, connection))

    def _handler(self, connection: int, number: int) -> Handler | None:
        return self._records.by_number(number) or self._records.of_connection(connection)

    @contextlib.contextmanager
    def _kept(self, handler: Handler) -> Iterator[Kept]:
        """Keeps a handler under a number, unless the block fails."""
        if not isinstance(handler, Handler):
            raise TypeError(f"{handler!r} is no Handler")
        self._observe_all()
        kept = self._records.keep(next(self._numbers), handler)
        try:
            yield kept
        except BaseException:
            kept.forget()
            raise

    def _keep_hook(self, hook: Hook) -> int:
        if not isinstance(hook, Hook):
            raise TypeError(f"{hook!r} is no Hook")
        number = next(self._numbers)
        _callbacks.HOOKS[number] = self._handle, hook
        self._hooks.add(number)
        return number

    def _drop_hook(self, number: int) -> None:
        self._hooks.discard(number)
        _callbacks.HOOKS.pop(number, None)

    def _set_data(self, side: int, data: Any) -> None:
        self._observe_all()
        connection = self._id(lib.seaprox_side_connection, side)
        number = self._data.add(data, next(self._numbers)) if data is not None else None
        try:
            self._do(lib.seaprox_side_set_data, side, number)
        except BaseException:
            self._data.release(number)
            raise
        self._records.set_data(connection, side, number, self._data)

    def _forget_listener(self, listener: int) -> None:
        self._datagrams.listener_closed(listener)
        self._drop_factory(self._factory_of.pop(listener, 0))

    def _drop_factory(self, number: int) -> None:
        if number in self._factories:
            # A client that was accepted in this turn gets its handler before the next one.
            with contextlib.suppress(Error):
                self.post(self._factories.pop, number, None)

    def _connect(self, request: int, side: int, host: str, port: int) -> None:
        asked = ConnectRequest(request, Side(self, side), host, port)
        try:
            if self._connector is not None:
                self._connector(asked)
        except BaseException as error:
            # The request may have its answer.
            with contextlib.suppress(Error):
                asked.failed(Reason.INTERNAL)
            if not isinstance(error, Exception):
                raise
            self._report(error, 0)

    # ---- Events ----

    def _observe_all(self) -> None:
        """Has C tell of events: the end of a connection is when what is kept for it is dropped."""
        if not self._is_observed:
            self._do(lib.seaprox_set_events, _callbacks.EVENT, None)
            self._is_observed = True

    def _observe(self, told: Any) -> None:
        try:
            if self._on_event is not None and told.kind in _EVENT_KINDS:
                self._on_event(self._event(told))
        finally:
            if told.kind == EventKind.ENDED:
                self._records.drop(told.id, self._data)
            elif told.kind == EventKind.LISTENER_CLOSED:
                self._forget_listener(told.id)

    def _event(self, told: Any) -> Event:
        kind = Kind(lib.seaprox_kind(told.id))
        state = _STATES.get(told.kind)
        return Event(
            kind=EventKind(told.kind),
            id=told.id,
            connection=Connection(self, told.id) if kind == Kind.CONNECTION else None,
            listener=Listener(self, told.id) if kind == Kind.LISTENER else None,
            link=Link(self, told.id) if kind in (Kind.LINK, Kind.GROUP) else None,
            forward=Forward(self, told.id) if kind == Kind.FORWARD else None,
            side=Side(self, told.side) if told.side else None,
            data=self._data.get(told.data),
            state=state(told.state) if state else None,
            end=self._end(told, told.data, told.dest_data) if told.kind == EventKind.ENDED else None,
        )

    def _end(self, end: Any, source: int | None = None, dest: int | None = None) -> End:
        if hasattr(end, "source_data"):
            source, dest = end.source_data, end.dest_data
        return End(
            Reason(end.reason),
            Ending(end.ending),
            Fault(end.fault),
            end.sent,
            end.received,
            self._data.get(source),
            self._data.get(dest),
        )


def check_configuration(configuration: str | Mapping[str, Any]) -> None:
    """Checks a whole configuration as Loop.apply takes it, and changes nothing. ConfigError has a line for each problem."""
    text = (configuration if isinstance(configuration, str) else toml_of(configuration)).encode()
    check(lib.seaprox_check(text, len(text)))


def _struct(name: str, /, **fields: Any) -> Any:
    """Makes a struct of C. None is its default."""
    kind = INTERFACE.structs[name]
    return kind(size=ctypes.sizeof(kind), **{field: value for field, value in fields.items() if value is not None})


def _listen_options(address: str, name: str, kind: str, link: Link | None, **fields: int | None) -> Any:
    texts = {"address": address.encode(), "name": name.encode(), "kind": kind.encode()}
    lengths = {f"{field}_len": len(text) for field, text in texts.items()}
    return _struct(
        "seaprox_listen_options", **texts, **lengths, link=link.id if link is not None else None, **fields
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else milliseconds(seconds)


_INT_MAX = 2**31 - 1
_UINT32_MAX = 2**32 - 1
_EVENT_KINDS = frozenset(EventKind)
_STATES: dict[int, type[SideState] | type[LinkState] | type[ForwardState]] = {
    EventKind.OPENED: SideState,
    EventKind.CONNECTING: SideState,
    EventKind.CONNECTED: SideState,
    EventKind.LINK: LinkState,
    EventKind.FORWARD: ForwardState,
}
