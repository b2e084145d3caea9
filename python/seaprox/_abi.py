"""The declarations of the C interface for ctypes: read from abi.txt, which `scripts/check-capi --update` writes from the
header.

A line is a function, the type of a callback, a constant, or a field of a struct with its offset.
"""

from __future__ import annotations

import ctypes
import pathlib
import re
from typing import Any

# The types of parameters and fields. Pointers to text and bytes are addresses where C gives them, because no zero ends them.
_TYPES: dict[str, Any] = {
    "void": None,
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "seaprox_id": ctypes.c_uint64,
    "void *": ctypes.c_void_p,
    "char *": ctypes.c_char_p,
    "uint8_t *": ctypes.c_char_p,
    "const char *": ctypes.c_char_p,
    "const uint8_t *": ctypes.c_char_p,
    "int *": ctypes.POINTER(ctypes.c_int),
    "size_t *": ctypes.POINTER(ctypes.c_size_t),
    "uint32_t *": ctypes.POINTER(ctypes.c_uint32),
    "uint64_t *": ctypes.POINTER(ctypes.c_uint64),
    "seaprox_id *": ctypes.POINTER(ctypes.c_uint64),
    "const uint8_t **": ctypes.POINTER(ctypes.c_void_p),
}
_GIVEN: dict[str, Any] = dict.fromkeys(["const char *", "const uint8_t *", "char *", "uint8_t *"], ctypes.c_void_p)


class Interface:
    """All that abi.txt declares.

    functions: of each name the type of its result and those of its parameters; callbacks: function types; structs; constants.
    """

    def __init__(self, text: str) -> None:
        self.functions: dict[str, tuple[Any, list[Any]]] = {}
        self.callbacks: dict[str, Any] = {}
        self.structs: dict[str, type[ctypes.Structure]] = {}
        self.constants: dict[str, int] = {}
        self.offsets: dict[tuple[str, str], int] = {}
        fields: dict[str, list[tuple[str, str]]] = {}
        signatures: list[tuple[str, str, str, str]] = []
        for line in text.splitlines():
            what, rest = line.split(" ", 1)
            if what == "constant":
                name, value = rest.split(" = ")
                self.constants[name] = int(value, 0)
            elif what == "field":
                struct, field, offset, kind = _match(r"(\w+)\.(\w+) at (\d+): (.*)", rest)
                self.offsets[struct, field] = int(offset)
                fields.setdefault(struct, []).append((field, kind))
            else:
                result, name, parameters = _match(r"(.*?)(\w+)\((.*)\)", rest)
                signatures.append((what, result.strip(), name, parameters))
        for struct in fields:
            self.structs[struct] = type(struct, (ctypes.Structure,), {})
        # The type of a callback may have another one as its parameter, but only one that stands alone.
        for what, result, name, parameters in sorted(signatures, key=lambda it: (it[0] != "callback", "_fn" in it[3])):
            if what == "callback":
                self.callbacks[name] = self._function(result, parameters)
            else:
                self.functions[name] = (self._type(result, False), self._types(parameters, False))
        # The structs that C gives to callbacks have texts without a zero at their end.
        calls = " ".join(parameters for what, _, _, parameters in signatures if what == "callback")
        calls += " ".join(kind for members in fields.values() for _, kind in members if "(*)" in kind)
        for struct, members in fields.items():
            is_given = re.search(rf"\b{struct} \*", calls) is not None
            self.structs[struct]._fields_ = [(name, self._field(struct, name, kind, is_given)) for name, kind in members]

    def _field(self, struct: str, name: str, kind: str, is_given: bool) -> Any:
        if "(*)" not in kind:
            return self._type(kind, is_given)
        result, parameters = _match(r"(.*?) \(\*\)\((.*)\)", kind)
        callback = self._function(result, parameters)
        self.callbacks[f"{struct}.{name}"] = callback
        return callback

    def _function(self, result: str, parameters: str) -> Any:
        return ctypes.CFUNCTYPE(self._type(result, False), *self._types(parameters, True))

    def _types(self, parameters: str, is_given: bool) -> list[Any]:
        return [self._type(kind.strip(), is_given) for kind in parameters.split(",") if kind.strip() not in ("", "void")]

    def _type(self, kind: str, is_given: bool) -> Any:
        if is_given and kind in _GIVEN:
            return _GIVEN[kind]
        if kind in _TYPES:
            return _TYPES[kind]
        if kind in self.callbacks:
            return self.callbacks[kind]
        name, stars = _match(r"(?:const )?(\w+) (\*+)", kind)
        if name in self.structs:
            return ctypes.POINTER(self.structs[name])
        # An opaque number such as seaprox_loop *, or room for one.
        return ctypes.c_void_p if stars == "*" else ctypes.POINTER(ctypes.c_void_p)


def _match(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise ImportError(f"seaprox: abi.txt has a line that cannot be read: {text!r}")
    return found.groups()


INTERFACE = Interface(pathlib.Path(__file__).with_name("abi.txt").read_text(encoding="ascii"))
