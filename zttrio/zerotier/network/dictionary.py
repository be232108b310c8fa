"""Dictionaries: the key=value lines that requests and configurations consist of (3.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["Dictionary"]

_INTEGER = re.compile(rb"[ \t-\r]*([+-]?)(?:0[xX])?0*([0-9a-fA-F]*)")
_FORBIDDEN_IN_KEYS = re.compile("[\0\r\n=]")
_ADDRESS_MASK = (1 << 40) - 1
_MAX_INTEGER = (1 << 64) - 1


class Dictionary(dict[str, bytes]):
    """Values by key, in the order in which they are written.

    Reading is as lenient as the reference: anything is a dictionary, and a value that makes no
    sense reads as zero.  Keys that are not ASCII are read as if they were Latin-1.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, data: Buffer) -> Dictionary:
        """Read the octets up to the first NUL.  The first of equal keys counts."""
        found = cls()
        text = bytes(data).partition(b"\0")[0]
        for line in text.replace(b"\r", b"\n").split(b"\n"):
            key, equals, value = line.partition(b"=")
            if equals:
                found.setdefault(key.decode("latin-1"), value)
        for name, value in found.items():
            if b"\\" in value:
                found[name] = _unescaped(value)
        return found

    def emit(self) -> bytes:
        """The same as octets, without a line end at the end.

        Raises:
            ValueError: a key contains NUL, CR, LF or ``=``, or is not Latin-1.
        """
        lines = []
        for key, value in self.items():
            if _FORBIDDEN_IN_KEYS.search(key):
                raise ValueError(f"key {key!r}: cannot be written")
            escaped = (
                value.replace(b"\\", b"\\\\")
                .replace(b"\0", b"\\0")
                .replace(b"\n", b"\\n")
                .replace(b"\r", b"\\r")
                .replace(b"=", b"\\e")
            )
            lines.append(key.encode("latin-1") + b"=" + escaped)
        return b"\n".join(lines)

    def get_bytes(self, key: str, default: bytes = b"") -> bytes:
        """The value as it is."""
        return self.get(key, default)

    def get_text(self, key: str, default: str = "") -> str:
        """The value as UTF-8 text up to a NUL; what is not UTF-8 becomes U+FFFD."""
        value = self.get(key)
        if value is None:
            return default
        return value.partition(b"\0")[0].decode("utf-8", "replace")

    def get_int(self, key: str, default: int = 0) -> int:
        """The value as an unsigned integer of 64 bits; *default* if it is missing or empty.

        Too large values become 2**64 - 1, negative ones wrap around, other text is 0.
        """
        value = self.get(key)
        if not value:
            return default
        match = _INTEGER.match(value)
        if match is None:  # pragma: no cover - the pattern matches the empty string
            return 0
        sign, digits = match.groups()
        number = _MAX_INTEGER if len(digits) > 16 else int(digits or b"0", 16)
        return -number & _MAX_INTEGER if sign == b"-" else number

    def get_signed(self, key: str, default: int = 0) -> int:
        """The value as a signed integer of 64 bits, as times are."""
        number = self.get_int(key, default & _MAX_INTEGER)
        return number - (1 << 64) if number >> 63 else number

    def get_bool(self, key: str, default: bool = False) -> bool:
        """True if the value starts with ``1``, ``t`` or ``T``; *default* if it is missing."""
        value = self.get(key)
        return default if value is None else value[:1] in (b"1", b"t", b"T")

    def get_address(self, key: str) -> bytes:
        """The value as a node address, 5 octets; zero if it is missing."""
        return (self.get_int(key) & _ADDRESS_MASK).to_bytes(5, "big")

    def set_bytes(self, key: str, value: bytes) -> None:
        """Set a value as it is."""
        self[key] = value

    def set_text(self, key: str, value: str) -> None:
        """Set text, as UTF-8."""
        self[key] = value.encode()

    def set_int(self, key: str, value: int) -> None:
        """Set an integer of 64 bits, signed or not: 16 hex digits."""
        self[key] = b"%016x" % (value & _MAX_INTEGER)

    def set_bool(self, key: str, value: bool) -> None:
        """Set ``1`` or ``0``."""
        self[key] = b"1" if value else b"0"

    def set_address(self, key: str, value: bytes) -> None:
        """Set a node address: 10 hex digits."""
        self[key] = value.hex().encode()


def _unescaped(value: bytes) -> bytes:
    # A configuration can be half a megabyte of escapes, so this looks at whole values, not at each
    # escape.  A raw value has no NUL, which therefore stands for a backslash until the end.
    value = value.replace(b"\\\\", b"\0")
    value = value.replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\\e", b"=")
    # What follows any other backslash stands for itself, behind the last one is nothing.
    parts = value.split(b"\\0")
    return b"\0".join(part.replace(b"\\", b"").replace(b"\0", b"\\") for part in parts)
