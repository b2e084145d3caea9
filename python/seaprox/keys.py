"""The keys of nodes (ed25519, RFC 8032)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ._library import lib
from .errors import check, text_of

# The bytes of a key, private or public.
KEY_BYTES = 32


class PublicKey:
    """A public key, by which nodes know each other: made of its text, as `seaprox pubkey` prints it, or of its bytes."""

    __slots__ = ("_bytes",)

    def __init__(self, key: str | bytes) -> None:
        if isinstance(key, str):
            text = key.strip().encode()
            key = _filled(lib.seaprox_key_parse, text, len(text))
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._bytes = bytes(key)

    def __bytes__(self) -> bytes:
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __str__(self) -> str:
        """Returns the text, as a line of authorized_keys has it."""
        return text_of(lib.seaprox_key_text, self._bytes)

    def __repr__(self) -> str:
        return f"<PublicKey {self._bytes.hex()}>"

    @property
    def fingerprint(self) -> str:
        """What people compare, such as SHA256:..."""
        return text_of(lib.seaprox_key_fingerprint, self._bytes)


class PrivateKey:
    """A private key: a new one, or that of its bytes."""

    __slots__ = ("_bytes",)

    def __init__(self, key: bytes | None = None) -> None:
        key = _filled(lib.seaprox_key_new) if key is None else bytes(key)
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._bytes = key

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PrivateKey:
        """Reads the key in a file as `seaprox keygen` makes it; if there is no file, makes one. Waits for the disk."""
        text = os.fsencode(path)
        return cls(_filled(lib.seaprox_key_load, text, len(text)))

    @classmethod
    def derive(cls, secret: str | bytes) -> PrivateKey:
        """Derives the key of a secret of at least 16 bytes that several nodes share: all of them have the same key then. It
        takes some tenths of a second."""
        secret = secret.encode() if isinstance(secret, str) else secret
        return cls(_filled(lib.seaprox_key_derive, secret, len(secret)))

    def __bytes__(self) -> bytes:
        return self._bytes

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public!r}>"

    @property
    def public(self) -> PublicKey:
        """The public key."""
        return PublicKey(_filled(lib.seaprox_key_public, self._bytes))


def _filled(function: Any, *args: Any) -> bytes:
    """Returns the key that a function gives."""
    key = ctypes.create_string_buffer(KEY_BYTES)
    check(function(*args, key))
    return key.raw
