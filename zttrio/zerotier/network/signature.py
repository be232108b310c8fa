"""The signature at the end of credentials (3.3)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError

from ..identity import SIGNATURE_LENGTH

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["emit_signature", "parse_signature", "signed_message", "skip_extra"]

_SIGNATURE = struct.Struct("!BH")
_LENGTH = struct.Struct("!H")
_TYPE = 1
_MARK = b"\x7f" * 8


def signed_message(body: bytes) -> bytes:
    """The octets that are signed for a credential: its body, no extra fields, and marks around."""
    return b"".join((_MARK, body, b"\0\0", _MARK))


def emit_signature(signature: bytes) -> bytes:
    """A signature with its type and length; an empty one is written as type 0."""
    return _SIGNATURE.pack(_TYPE if signature else 0, len(signature)) + signature


def parse_signature(data: Buffer, offset: int) -> tuple[bytes, int]:
    """The 96 octets of the signature at *offset*, and where it ends; other types give nothing.

    Raises:
        HeaderError: it is cut short or has the wrong length.
    """
    start = offset + _SIGNATURE.size
    if start > len(data):
        raise HeaderError(f"signature at {offset}: only {len(data)} octets")
    kind, length = _SIGNATURE.unpack_from(data, offset)
    if kind == _TYPE and length != SIGNATURE_LENGTH:
        raise HeaderError(f"signature of {length} octets: has {SIGNATURE_LENGTH}")
    end = start + length
    if end > len(data):
        raise HeaderError(f"signature at {offset}: ends at {end} of {len(data)} octets")
    return (bytes(data[start:end]) if kind == _TYPE else b""), end


def skip_extra(data: Buffer, offset: int) -> int:
    """Where the extra fields at *offset*, which nobody uses, end.

    Raises:
        HeaderError: they are cut short.
    """
    start = offset + _LENGTH.size
    if start > len(data):
        raise HeaderError(f"extra fields at {offset}: only {len(data)} octets")
    end = start + int(_LENGTH.unpack_from(data, offset)[0])
    if end > len(data):
        raise HeaderError(f"extra fields at {offset}: end at {end} of {len(data)} octets")
    return end
