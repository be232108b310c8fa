"""The ciphers of VL1 behind one small interface, with more than one implementation of each.

Salsa20 is in no Python library that the project wants to depend on, so there are two backends for
it, `Sodium` and `Lanes`, that must give the same octets (``tests/zerotier/test_ciphers.py``).  AES,
SHA-2, X25519 and Ed25519 always come from ``cryptography``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from .lanes import Lanes
from .sodium import Sodium

__all__ = ["Backend", "Lanes", "Sodium", "backends", "open_backend"]


class Backend(Protocol):
    """What VL1 needs that differs between implementations.

    Keys are 32 octets, IVs are 8.  An object belongs to one thread at a time.
    """

    name: str
    """What people call it, for status and benchmarks."""

    def salsa20_12_xor(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """*data* xor the Salsa20/12 key stream that starts at block 0."""

    def salsa20_20(self, key: bytes, iv: bytes, length: int) -> bytes:
        """The first *length* octets of the Salsa20/20 key stream."""

    def poly1305(self, key: bytes, data: bytes) -> bytes:
        """The 16-octet Poly1305 tag of *data* under a one-time key."""


def backends() -> list[Backend]:
    """Every backend that works on this machine, fastest first."""
    found: list[Backend] = []
    with suppress(OSError):  # optional: Lanes does the same, slower
        found.append(Sodium())
    found.append(Lanes())
    return found


def open_backend(name: str | None = None) -> Backend:
    """The fastest backend of this machine, or the one called *name*.

    Raises:
        ValueError: this machine has no backend of that name.
    """
    found = backends()
    if name is None:
        return found[0]
    for backend in found:
        if backend.name == name:
            return backend
    names = ", ".join(backend.name for backend in found)
    raise ValueError(f"cipher backend {name!r}: this machine has {names}")
