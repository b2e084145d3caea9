"""The library: found, loaded, and compared with what this package was made for."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ._abi import INTERFACE

# The version of the interface that abi.txt describes. A library of another minor version below 1.0 is refused.
VERSION = (0, 1)

_NAME = "libseaprox.so.0"


def _load() -> ctypes.CDLL:
    name = os.environ.get("SEAPROX_LIBRARY") or _NAME
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(
            f"the C library of seaprox cannot be loaded: {error}. The Debian package libseaprox0 has it, or `make install-capi` "
            f"in the source of seaprox installs it (then run ldconfig); or set SEAPROX_LIBRARY to the path of {_NAME}"
        ) from error
    for function, (result, parameters) in INTERFACE.functions.items():
        try:
            entry = getattr(library, function)
        except AttributeError:
            raise ImportError(f"{name} lacks {function}: it is older than this package, or no library of seaprox") from None
        entry.restype, entry.argtypes = result, parameters
    found = library.seaprox_version().decode()
    if tuple(map(int, found.split(".")[:2])) != VERSION:
        raise ImportError(f"{name} has version {found}, and this package is for {'.'.join(map(str, VERSION))}")
    return library


lib: Any = _load()

LIBRARY_VERSION: str = lib.seaprox_version().decode()
