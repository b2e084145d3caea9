"""Calls that make no sense, generated from the declarations: in other threads, with ids that name nothing or something
else, with null pointers, and with small buffers."""

from __future__ import annotations

import concurrent.futures
import ctypes
import errno
import os
import random
import re
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import seaprox
from seaprox import ErrorCode, Kind
from seaprox._abi import INTERFACE
from seaprox._library import lib

from .kit import HEADER, TOP, TestCase, in_thread, turn_until

SEED = 13
ROUNDS = 40
# The bytes behind each pointer; no length is larger.
ROOM = 64
STRUCT_ROOM = 4096

INPUTS = ("const char *", "const uint8_t *")
NAMES = ("connection", "side", "listener", "link", "forward", "server", "timer", "flow")
KINDS = {name: Kind[name.upper()] for name in NAMES}
# These take the id of a group of links, too.
GROUPS = re.compile(r"seaprox_(forward_(local|remote|dynamic)|service_open|datagrams_open|connection_route)$")
# Pointers that are never followed.
OPAQUE = re.compile(r"void \*$|seaprox_(?!id)\w+ \*$")
# Functions that would end the loop, wait, or run it.
NOT_AT_HOME = {"seaprox_free", "seaprox_run", "seaprox_run_one", "seaprox_finish", "seaprox_apply"}
# They close the descriptors that they are given.
TAKE_OVER = {"seaprox_adopt", "seaprox_connection_connect_fd"}
TEXTS = {
    "address": b"127.0.0.1:0",
    "listen": b"127.0.0.1:0",
    "target": b"127.0.0.1:9",
    "front_end": b"socks",
    "path": b"127.0.0.1",
    "toml": b"",
    "secret": b"short",
}
KILLED = int(seaprox.Reason.KILLED)
NUMBERS = {"role": 1, "stage": 1, "events": 1, "write_fd": -1, "timeout_ms": 0, "reason": KILLED, "ms": 10**9}
ERRORS = {int(code) for code in ErrorCode if code < 0 and code != ErrorCode.PANIC} | {-errno.EBADF}


class Function:
    """A function with the kinds and names of its parameters, whose pointers are plain addresses."""

    def __init__(self, name: str, kinds: list[str], names: list[str], is_for_any_thread: bool) -> None:
        self.name, self.parameters, self.is_for_any_thread = name, list(zip(kinds, names)), is_for_any_thread
        result, types = INTERFACE.functions[name]
        self.returns_a_code = result is ctypes.c_int
        self.call = lib[name]
        self.call.restype = result
        self.call.argtypes = [it if isinstance(it(), ctypes._SimpleCData) else ctypes.c_void_p for it in types]
        self.call.argtypes = [ctypes.c_void_p if it is ctypes.c_char_p else it for it in self.call.argtypes]
        self.ids = [names[at] for at, kind in enumerate(kinds) if kind == "seaprox_id"]
        self.takes_a_loop = "seaprox_loop *" in kinds
        # The places of inputs, whose length is the next parameter, and of buffers.
        pairs = [at for at in range(len(kinds) - 1) if kinds[at + 1] == "size_t"]
        self.inputs = [at for at in pairs if kinds[at] in INPUTS]
        self.buffers = [at for at in pairs if kinds[at] == "char *"]


def functions() -> list[Function]:
    commented = r"/\*((?:(?!\*/).)*)\*/\n[^;{}]*?\b(seaprox_\w+)\("
    comments = {name: comment for comment, name in re.findall(commented, HEADER.read_text(), flags=re.S)}
    text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(), flags=re.S)
    found = []
    for name, kinds in re.findall(r"^function .*?(\w+)\((.*)\)$", (TOP / "capi/abi.txt").read_text(), flags=re.M):
        declared = re.search(rf"\b{name}\(([^;{{]*?)\);", text, flags=re.S)
        assert declared, name
        names = re.findall(r"(\w+)(?:,|$)", declared[1])
        is_for_any_thread = "any thread" in re.sub(r"[\s*]+", " ", comments.get(name, "")).lower()
        found.append(Function(name, [] if kinds == "void" else kinds.split(", "), names, is_for_any_thread))
    return found


def last_error() -> str:
    text = ctypes.create_string_buffer(200)
    lib.seaprox_last_error(text, len(text), None)
    return text.value.decode()


class Hostile(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.functions = functions()
        self.by_name = {it.name: it for it in self.functions}
        self.random = random.Random(SEED)
        print(f"seed {SEED}")
        self.kept: list[Any] = []
        self.key, self.folder = seaprox.PrivateKey(), tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.socket = socket.socket()
        self.addCleanup(self.socket.close)
        self.no_callbacks = {name: kind(lambda *_: 0) for name, kind in INTERFACE.callbacks.items() if "." not in name}

    # ---- Arguments ----

    def room(self, content: bytes = b"", size: int = ROOM) -> int:
        """Returns the address of new memory, which is kept until the end of the test."""
        self.kept.append(ctypes.create_string_buffer(content, size))
        return ctypes.addressof(self.kept[-1])

    def struct(self, function: Function, name: str) -> int:
        """Returns the address of a struct whose fields have a meaning."""
        struct = INTERFACE.structs[name]()
        struct.size = ctypes.sizeof(struct)
        if hasattr(struct, "address"):
            address = b"127.0.0.1:1" if function.name == "seaprox_link_dial" else b"127.0.0.1:0"
            struct.address, struct.address_len = address, len(address)
        if hasattr(struct, "peer_key"):
            struct.peer_key = bytes(self.key.public)
        self.kept.append(struct)
        return ctypes.addressof(struct)

    def fair(self, function: Function, loop: int | None, ids: dict[str, int]) -> list[Any]:
        """Returns arguments that a program could mean."""
        args: list[Any] = []
        for at, (kind, name) in enumerate(function.parameters):
            if kind == "seaprox_loop *":
                args.append(loop)
            elif kind == "seaprox_id":
                args.append(ids[name])
            elif at in function.inputs:
                args.append(self.room(TEXTS.get(name, b"text")))
            elif at - 1 in function.inputs:
                args.append(len(TEXTS.get(function.parameters[at - 1][1], b"text")))
            elif at - 1 in function.buffers:
                args.append(ROOM)
            elif kind in self.no_callbacks:
                args.append(ctypes.cast(self.no_callbacks[kind], ctypes.c_void_p).value)
            elif kind.startswith("const seaprox_"):
                args.append(self.struct(function, kind.split()[1]))
            elif name == "fd":
                args.append(os.dup(self.socket.fileno()) if function.name in TAKE_OVER else self.socket.fileno())
            elif kind.endswith("*"):
                # Room for a result; what stands for itself, such as a request, is a number of nothing.
                args.append(8 if OPAQUE.match(kind) else self.room())
            else:
                args.append(NUMBERS.get(name, 1))
        return args

    def junk(self, function: Function, args: list[Any]) -> list[Any]:
        """Changes all arguments but loops and ids. No length exceeds the memory behind its pointer."""
        args, pick = list(args), self.random.choice
        for at, (kind, name) in enumerate(function.parameters):
            if kind in ("seaprox_loop *", "seaprox_id", "seaprox_loop **"):
                continue
            if at in function.inputs:
                # No text of these is UTF-8, so none names a file or a host.
                args[at] = pick([None, self.room(b"\xff" + self.random.randbytes(ROOM - 1))])
                args[at + 1] = self.random.randrange(16)
            elif at in function.buffers:
                args[at] = pick([None, self.room()])
                args[at + 1] = self.random.randrange(ROOM + 1)
            elif at - 1 in function.inputs + function.buffers:
                continue
            elif kind.startswith("const seaprox_"):
                real = ctypes.sizeof(INTERFACE.structs[kind.split()[1]])
                size = pick([0, 1, 7, real, self.random.randrange(STRUCT_ROOM + 1)])
                args[at] = pick([None, self.room(size.to_bytes(4, "little"), STRUCT_ROOM)])
            elif kind in self.no_callbacks:
                args[at] = pick([None, args[at]])
            elif name in ("fd", "write_fd"):
                if name == "fd" and function.name in TAKE_OVER:
                    os.close(args[at])
                args[at] = pick([-1, -(2**31), 2**20, 2**31 - 1])
            elif kind.endswith("*") and not OPAQUE.match(kind):
                args[at] = pick([None, args[at]])
            elif kind.endswith("*"):
                args[at] = pick([None, 1, 8, 2**64 - 16, self.random.randrange(2**64)])
            else:
                args[at] = pick([-1, 0, 1, 7, 99, 2**31 - 1, -(2**31), self.random.randrange(2**64)])
        return args

    # ---- The loop ----

    def make(self, name: str, loop: int, ids: dict[str, int]) -> int:
        """Calls a function that makes something. Returns its id."""
        function, out = self.by_name[name], ctypes.c_uint64()
        args = self.fair(function, loop, ids)
        args[-1] = ctypes.addressof(out)
        self.assertEqual(function.call(*args), 0, f"{name}: {last_error()}")
        return out.value

    def records(self, loop: int) -> dict[str, int]:
        """Makes a record of each kind. Returns their ids by the names of parameters."""
        ids = {"link": 0}
        ids["flow"] = self.make("seaprox_datagrams_open", loop, ids)
        ids["link"] = self.make("seaprox_link_dial", loop, ids)
        ids["forward"] = self.make("seaprox_forward_local", loop, ids)
        ids["server"] = self.make("seaprox_link_serve", loop, ids)
        ids["listener"] = self.make("seaprox_listen", loop, ids)
        ids["timer"] = self.make("seaprox_after", loop, ids)
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.socket, before = other, self.socket
        ids["connection"] = self.make("seaprox_adopt", loop, ids)
        self.socket = before
        other.close()
        ids["side"] = lib.seaprox_connection_source(loop, ids["connection"])
        self.assertEqual({name: lib.seaprox_kind(id) for name, id in ids.items()}, KINDS)
        return ids

    def group(self, loop: seaprox.Loop) -> int:
        """Returns the id of a group of links."""
        path, peer = f"{self.folder.name}/key", self.key.public.fingerprint
        seaprox.PrivateKey.load(path)
        link = {"name": "two", "connect": ["127.0.0.2:1", "127.0.0.3:1"], "peer-key": peer}
        loop.apply({"key": path, "link": [link]})
        id: int = lib.seaprox_link_named(loop._handle, b"two", 3)
        self.assertEqual(lib.seaprox_kind(id), Kind.GROUP)
        return id

    def end(self, loop: seaprox.Loop, ids: dict[str, int]) -> None:
        """Ends the records, so that their ids are stale."""
        raw = loop._handle
        ends = {
            "flow": (lib.seaprox_flow_close, ()),
            "forward": (lib.seaprox_forward_close, ()),
            "link": (lib.seaprox_link_close, ()),
            "server": (lib.seaprox_server_close, (1,)),
            "listener": (lib.seaprox_listener_close, ()),
            "timer": (lib.seaprox_cancel, ()),
            "connection": (lib.seaprox_connection_close, (KILLED,)),
        }
        for name, (function, more) in ends.items():
            self.assertEqual(function(raw, ids[name], *more), 0, f"{name}: {last_error()}")
        gone = (lib.seaprox_link_state, lib.seaprox_forward_state)
        turn_until(loop, lambda: all(f(raw, ids[name]) < 0 for f, name in zip(gone, ("link", "forward"))))

    def assert_alive(self, loop: int, ids: dict[str, int]) -> None:
        """Asserts that each record is what it was."""
        text = self.room()
        self.assertGreater(lib.seaprox_connection_stage(loop, ids["connection"]), 0)
        self.assertEqual(lib.seaprox_connection_source(loop, ids["connection"]), ids["side"])
        self.assertEqual(lib.seaprox_side_role(loop, ids["side"]), 1)
        self.assertGreater(lib.seaprox_listener_port(loop, ids["listener"]), 0)
        self.assertGreater(lib.seaprox_server_port(loop, ids["server"]), 0)
        self.assertEqual(lib.seaprox_link_state(loop, ids["link"]), seaprox.LinkState.CONNECTING)
        self.assertEqual(lib.seaprox_forward_state(loop, ids["forward"]), seaprox.ForwardState.LISTENING)
        self.assertEqual(self.by_name["seaprox_flow_describe"].call(loop, ids["flow"], text, ROOM, None), 0)
        self.assertEqual(lib.seaprox_cancel(loop, ids["timer"]), 0)

    def assert_fails(self, function: Function, args: list[Any], expected: set[int], what: object) -> None:
        """Calls a function. Asserts that it answers with one of these errors, and with nothing else."""
        result = function.call(*args)
        if function.returns_a_code:
            self.assertIn(result, expected, f"{function.name}, {what}: {last_error()}")
        else:
            self.assertFalse(result, f"{function.name}, {what}")
            self.assertNotEqual(last_error(), "", f"{function.name}, {what}")

    # ---- The tests ----

    def test_every_function_of_a_loop_refuses_another_thread_unless_any_thread_may_call_it(self) -> None:
        loop, free = self.loop(), self.loop()
        raw, ids, done = loop._handle, self.records(loop._handle), list[str]()
        ours = [it for it in self.functions if it.takes_a_loop]
        free_ones = {it.name for it in ours if it.is_for_any_thread}
        self.assertEqual(free_ones, {"seaprox_finish", "seaprox_wake", "seaprox_post"})

        def elsewhere() -> None:
            for function in ours:
                for is_fair in [True] + [False] * 3:
                    at = free._handle if function.is_for_any_thread else raw
                    args = self.fair(function, at, ids)
                    if function.is_for_any_thread:
                        self.assertEqual(function.call(*args), 0, function.name)
                    elif is_fair:
                        self.assert_fails(function, args, {ErrorCode.THREAD}, "in another thread")
                    else:
                        self.assert_fails(function, self.junk(function, args), ERRORS, "junk in another thread")
                done.append(function.name)

        in_thread(elsewhere)
        self.assertEqual(len(done), len(ours))
        done.clear()
        # The same while the loop runs.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(elsewhere)
            turn_until(loop, running.done)
            running.result()
        self.assert_alive(raw, ids)

    def test_every_function_refuses_a_loop_that_was_freed_or_never_made(self) -> None:
        loop, gone = self.loop(), self.loop()
        ids, raw = self.records(loop._handle), gone._handle
        gone.close()
        for function in self.functions:
            if not function.takes_a_loop:
                continue
            for handle in (raw, loop._handle + 1, loop._handle + 8, 1, 2**63, 2**64 - 16):
                args = self.fair(function, handle, ids)
                self.assert_fails(function, args, {ErrorCode.STALE}, f"loop {handle}")
                args = self.junk(function, self.fair(function, handle, ids))
                self.assert_fails(function, args, ERRORS, f"loop {handle}, and junk")
            self.assert_fails(function, self.fair(function, None, ids), {ErrorCode.INVALID}, "no loop")
        self.assert_alive(loop._handle, ids)

    def wrong_ids(
        self, name: str, live: dict[str, int], gone: dict[str, int], group: int
    ) -> Iterator[tuple[int, set[int], str]]:
        """Returns ids that a parameter must not take, with the errors and a description of each."""
        dead, other = {ErrorCode.STALE, ErrorCode.OVER}, {ErrorCode.INVALID}
        yield gone[name], dead, "ended"
        for kind, id in live.items():
            if kind != name:
                yield id, other, f"a {kind}"
                yield gone[kind], other, f"a {kind} that has ended"
            else:
                yield id + (1 << 32), dead, "of the next epoch"
                yield id - (1 << 32), dead, "of the epoch before"
                yield id ^ (1 << 63), dead, "of a far epoch"
                yield id + 1, dead, "of the next index"
                yield id | 0x0FFF_FFFF, dead, "of the last index"
                yield id & 0xFFFF_FFFF, dead, "without an epoch"
            for bit in range(28, 32):
                yield id ^ (1 << bit), dead | other, f"a {kind} with another kind"
        if name != "link":
            yield group, other, "a group"
        for _ in range(4):
            yield self.random.randrange(1 << 62, 1 << 64), dead | other, "a random number"

    def test_every_function_refuses_ids_that_have_ended_or_name_another_kind_or_nothing(self) -> None:
        loop = self.loop()
        raw, group, old = loop._handle, self.group(loop), self.records(loop._handle)
        self.end(loop, old)
        live, calls = self.records(raw), 0
        ours = [it for it in self.functions if it.takes_a_loop and it.ids]
        for function in ours:
            for name in function.ids:
                wrong = list(self.wrong_ids(name, live, old, group))
                if name == "link" and not GROUPS.match(function.name):
                    wrong.append((group, {ErrorCode.INVALID}, "a group"))
                for id, errors, what in wrong:
                    args = self.fair(function, raw, {**live, name: id})
                    self.assert_fails(function, args, errors, f"{name} {what}")
                    args = self.junk(function, self.fair(function, raw, {**live, name: id}))
                    self.assert_fails(function, args, ERRORS, f"{name} {what}, and junk")
                    calls += 2
                self.kept.clear()
        # Ids stand in options, too.
        for id in (old["link"], live["side"], live["link"] + (1 << 32)):
            for function in (self.by_name["seaprox_listen"], self.by_name["seaprox_listen_datagrams"]):
                args = self.fair(function, raw, live)
                INTERFACE.structs["seaprox_listen_options"].from_address(args[1]).link = id
                self.assert_fails(function, args, {ErrorCode.STALE, ErrorCode.INVALID}, f"link {id:#x} of options")
        self.assertGreater(calls, 5000)
        for link in (live["link"], group):
            self.assertEqual(lib.seaprox_connection_route(raw, live["connection"], link), 0)
        self.assert_alive(raw, live)

    def test_every_function_refuses_null_with_a_length_and_writes_no_more_than_fits(self) -> None:
        loop = self.loop()
        raw, live, checked = loop._handle, self.records(loop._handle), 0
        for function in self.functions:
            for at in function.inputs:
                for length in (1, 2, 9, ROOM):
                    args = self.fair(function, raw, live)
                    args[at : at + 2] = None, length
                    stale = {ErrorCode.STALE} if "transit" in function.name else set()
                    self.assert_fails(function, args, {ErrorCode.INVALID} | stale, f"null and {length}")
                    checked += 1
            for at in function.buffers:
                if "key" in function.name and "link" not in function.name:
                    continue
                for cap in range(12):
                    args = self.fair(function, raw, live)
                    memory = ctypes.create_string_buffer(b"\xaa" * ROOM, ROOM)
                    args[at : at + 2] = ctypes.addressof(memory) if cap else None, cap
                    self.assertEqual(function.call(*args), 0, f"{function.name}: {last_error()}")
                    self.assertEqual(memory.raw[cap:], b"\xaa" * (ROOM - cap), f"{function.name} with {cap}")
                    checked += 1
        self.assertGreater(checked, 200)
        self.assert_alive(raw, live)

    def test_no_junk_in_other_arguments_ends_the_process(self) -> None:
        loop = self.loop()
        live = self.records(loop._handle)
        for function in self.functions:
            # With ids that are good a call could have an effect.
            if function.name in NOT_AT_HOME or function.ids:
                continue
            for _ in range(ROUNDS):
                args = self.junk(function, self.fair(function, loop._handle, live))
                result = function.call(*args)
                if function.returns_a_code and result < 0:
                    self.assertIn(result, ERRORS, f"{function.name}: {last_error()}")
                if function.name == "seaprox_new" and result == 0:
                    made = ctypes.c_void_p.from_address(args[-1]).value
                    self.assertEqual(lib.seaprox_free(made), 0)
            self.kept.clear()
        self.assertTrue(loop.run_one(0))
        self.assert_alive(loop._handle, live)
