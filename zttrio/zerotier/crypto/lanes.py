"""Salsa20 in pure Python, every block of a stream at once: the fallback that always works.

A row of the cipher's state is one large integer with a 64-bit lane for each 32-bit word, so that an
addition cannot carry into its neighbour and one operation of Python works on all words of all
blocks.  The cost is nearly the same for one block as for twenty.

It is slower than libsodium by a factor of about thirty (see ``benchmarks/vl1``), which matters to
bulk traffic in suite 1 and to generating identities, not to control messages.  Integers of Python
are not constant-time: who can time this process precisely may learn something about a key.
"""

from __future__ import annotations

import struct
from array import array
from functools import lru_cache
from typing import NamedTuple

from cryptography.hazmat.primitives.poly1305 import Poly1305

__all__ = ["Lanes"]

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")  # D. J. Bernstein, Salsa20 specification, 10
_LANE = 64  # bits; the upper half is room for carries and shifts
_WORD = (1 << 32) - 1
_CHUNK = 512  # blocks at a time; measured: larger integers fall out of the cache

# Salsa20 works on the columns of a 4 x 4 matrix, then on its rows.  Kept as the four diagonals,
# each round is the same code on whole diagonals, with a turn of three of them in between.  Entry
# [row][column] is the index of the word in the state.
_DIAGONALS = ((0, 5, 10, 15), (4, 9, 14, 3), (8, 13, 2, 7), (12, 1, 6, 11))


class _Shape(NamedTuple):
    """Constants for streams of one number of blocks."""

    ones: int
    """1 in every lane of one column."""
    counting: int
    """0, 1, 2 ... in the lanes of one column."""
    mask: int
    """The low halves of all lanes of a row."""
    column: int
    """Bits of one column."""
    low: int
    """All bits of one column."""
    low3: int
    """All bits of three columns."""


@lru_cache(maxsize=64)
def _shape(blocks: int) -> _Shape:
    ones = int.from_bytes((b"\x01" + bytes(7)) * blocks, "little")
    counting = int.from_bytes(b"".join(struct.pack("<Q", i) for i in range(blocks)), "little")
    column = _LANE * blocks
    all_ones = ones | ones << column | ones << 2 * column | ones << 3 * column
    return _Shape(
        ones, counting, all_ones * _WORD, column, (1 << column) - 1, (1 << 3 * column) - 1
    )


class Lanes:
    """The pure-Python backend; see `zttrio.zerotier.crypto.Backend`."""

    name = "lanes"

    def salsa20_12_xor(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        """*data* xor the Salsa20/12 key stream that starts at block 0."""
        length = len(data)
        stream = _stream(key, iv, -(-length // 64), 12)[:length]
        return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(
            length, "little"
        )

    def salsa20_20(self, key: bytes, iv: bytes, length: int) -> bytes:
        """The first *length* octets of the Salsa20/20 key stream."""
        return _stream(key, iv, -(-length // 64), 20)[:length]

    def poly1305(self, key: bytes, data: bytes) -> bytes:
        """The 16-octet Poly1305 tag of *data* under a one-time key."""
        return Poly1305.generate_tag(key, data)


def _stream(key: bytes, iv: bytes, blocks: int, rounds: int) -> bytes:
    pieces = [
        _piece(key, iv, first, min(_CHUNK, blocks - first), rounds)
        for first in range(0, blocks, _CHUNK)
    ]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _piece(key: bytes, iv: bytes, first: int, blocks: int, rounds: int) -> bytes:
    """Blocks *first* and following of the key stream."""
    shape = _shape(blocks)
    ones, counting, mask, column, low, low3 = shape
    k = struct.unpack("<8I", key)
    n = struct.unpack("<2I", iv)
    # Counters stay below 2 ** 32: a stream has at most 163 840 blocks.
    words: list[int] = [
        word * ones
        for word in (
            *(_SIGMA[0], k[0], k[1], k[2], k[3], _SIGMA[1], n[0], n[1]),
            *(0, 0, _SIGMA[2], k[4], k[5], k[6], k[7], _SIGMA[3]),
        )
    ]
    words[8] = counting + first * ones
    start = [
        words[i] | words[j] << column | words[m] << 2 * column | words[o] << 3 * column
        for i, j, m, o in _DIAGONALS
    ]
    a, b, c, d = start
    column2, column3 = 2 * column, 3 * column
    low2 = (1 << column2) - 1
    for _ in range(rounds):
        t = (a + d) & mask
        b ^= (t << 7 | t >> 25) & mask
        t = (b + a) & mask
        c ^= (t << 9 | t >> 23) & mask
        t = (c + b) & mask
        d ^= (t << 13 | t >> 19) & mask
        t = (d + c) & mask
        a ^= (t << 18 | t >> 14) & mask
        # Turn the diagonals so that the next round's quarters stand in one column again.  Behind a
        # column round b moves to where d was and the other way round; the same turns lead back.
        turned_b = (b >> column3) | (b & low3) << column
        turned_d = (d >> column) | (d & low) << column3
        c = (c >> column2) | (c & low2) << column2
        b, d = turned_d, turned_b
    # After an even number of rounds every diagonal stands where it began.
    state = array("I", bytes(64 * blocks))
    step = 2 * blocks
    for row, value, positions in zip(start, (a, b, c, d), _DIAGONALS, strict=True):
        lanes = array("I", ((value + row) & mask).to_bytes(32 * blocks, "little"))
        for section, position in enumerate(positions):
            state[position::16] = lanes[section * step : (section + 1) * step : 2]
    return state.tobytes()
