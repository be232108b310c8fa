"""LZ4 blocks inside packets (VL1 specification, 7), by the ``lz4`` package."""

from __future__ import annotations

from typing import cast

import lz4.block  # type: ignore[import-untyped]

from zttrio.errors import HeaderError

from .constants import MAX_PACKET

__all__ = ["MAX_PAYLOAD", "compress", "decompress"]

MAX_PAYLOAD = MAX_PACKET - 28  # 9996: a bomb ends here
_WORTH_IT = 64  # the reference leaves shorter payloads alone


def compress(payload: bytes) -> bytes | None:
    """The LZ4 block of *payload*, or None if it is not worth it."""
    if len(payload) <= _WORTH_IT:
        return None
    block = cast(bytes, lz4.block.compress(payload, store_size=False))
    return block if len(block) < len(payload) else None


def decompress(block: bytes) -> bytes:
    """What was compressed into *block*, at most 9996 octets.

    Raises:
        HeaderError: it is no LZ4 block, or a longer one.
    """
    if not block:
        return b""
    try:
        return cast(bytes, lz4.block.decompress(block, uncompressed_size=MAX_PAYLOAD))
    except lz4.block.LZ4BlockError as exc:
        raise HeaderError(f"LZ4 block of {len(block)} octets: {exc}") from exc
