"""The declarations of the package against the header."""

from __future__ import annotations

import ctypes
import enum
import re

from seaprox import enums
from seaprox._abi import INTERFACE

from .kit import HEADER, TOP, TestCase

# Functions that no method calls, with the reason.
UNUSED = {
    "seaprox_run": "Loop.run turns the loop, so that signals are handled between two turns",
    "seaprox_strerror": "the text of seaprox_last_error says more",
}

ENUMS = {
    "seaprox_error": enums.ErrorCode,
    "seaprox_reason": enums.Reason,
    "seaprox_kind": enums.Kind,
    "seaprox_role": enums.Role,
    "seaprox_side_state": enums.SideState,
    "seaprox_stage": enums.Stage,
    "seaprox_ending": enums.Ending,
    "seaprox_fault": enums.Fault,
    "seaprox_cause": enums.Cause,
    "seaprox_log_level": enums.LogLevel,
    "seaprox_poll_event": enums.PollEvent,
    "seaprox_event_kind": enums.EventKind,
    "seaprox_verdict": enums.Verdict,
    "seaprox_link_state": enums.LinkState,
    "seaprox_link_event_kind": enums.LinkEventKind,
    "seaprox_forward_state": enums.ForwardState,
}


def header() -> str:
    text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(), flags=re.S)
    return re.sub(r"^\s*#.*$", "", text, flags=re.M)


class Declarations(TestCase):
    def test_the_package_has_the_dump_of_the_header(self) -> None:
        ours, theirs = TOP / "python/seaprox/abi.txt", TOP / "capi/abi.txt"
        self.assertEqual(ours.read_text(), theirs.read_text(), "scripts/check-capi --update copies it")

    def test_each_function_of_the_header_is_declared_with_its_parameters(self) -> None:
        functions = {}
        text = re.sub(r"typedef[^;{]*(\{.*?\}[^;]*)?;|enum \w+ \{.*?\};", "", header(), flags=re.S)
        for name, parameters in re.findall(r"\b(seaprox_\w+)\(([^;]*)\);", text):
            functions[name] = 0 if parameters == "void" else parameters.count(",") + 1
        self.assertGreater(len(functions), 70)
        self.assertEqual(functions, {name: len(it[1]) for name, it in INTERFACE.functions.items()})

    def test_each_function_of_the_header_is_called(self) -> None:
        code = "".join(path.read_text() for path in (TOP / "python/seaprox").glob("*.py"))
        called = set(re.findall(r"\blib\.(seaprox_\w+)", code))
        self.assertEqual(called | set(UNUSED), set(INTERFACE.functions))
        self.assertFalse(called & set(UNUSED))

    def test_each_enum_of_the_header_has_its_members(self) -> None:
        found = dict(re.findall(r"enum (\w+) \{(.*?)\};", header(), flags=re.S))
        self.assertEqual(set(found), set(ENUMS))
        for name, body in found.items():
            theirs = {item: int(value) for item, value in re.findall(r"(\w+) = (-?\d+)", body)}
            ours: type[enum.IntEnum] = ENUMS[name]  # type: ignore[assignment]
            mine = {item.name: item.value for item in ours}
            self.assertEqual(len(theirs), len(mine), name)
            for item, value in theirs.items():
                own = [member for member in mine if item.endswith(f"_{member}")]
                self.assertIn(value, [mine[member] for member in own], item)

    def test_each_struct_is_laid_out_as_the_c_compiler_does(self) -> None:
        if ctypes.sizeof(ctypes.c_void_p) != 8:
            self.skipTest("the dump is that of a system of 64 bits")
        for (struct, field), offset in INTERFACE.offsets.items():
            self.assertEqual(getattr(INTERFACE.structs[struct], field).offset, offset, f"{struct}.{field}")

    def test_texts_and_keys_that_c_gives_are_addresses_because_no_zero_ends_them(self) -> None:
        for struct, field in (("seaprox_link_event", "text"), ("seaprox_link_event", "key")):
            fields = {it[0]: it[1] for it in INTERFACE.structs[struct]._fields_}
            self.assertIs(fields[field], ctypes.c_void_p)

    def test_each_reason_has_a_word(self) -> None:
        self.assertEqual([it.word for it in enums.Reason], [it.name.lower() for it in enums.Reason])
        self.assertEqual(enums.Reason(999), enums.Reason.OTHER)
