"""The memory-hard digest that ties a node's address to its public keys (VL1 specification, 3.4).

Two megabytes have to be filled and stirred for each attempt, so that making keys for somebody
else's address is expensive.  Checking costs as much as one attempt: 0.1 s with libsodium, most of a
second without, which is why callers do it in a worker thread.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import sha512
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crypto import Backend

__all__ = ["memory_hard_digest"]

_MEMORY_BLOCKS = 32_768  # 2 MiB of 64 octets
_STEPS = 131_072  # one for each pair of words of the memory
_BLOCKS = _MEMORY_BLOCKS + _STEPS
_BLOCK_BITS = 512
_LAST_BLOCK = (1 << _BLOCK_BITS) - 1
_CHUNK = 512  # blocks; measured: as in the ciphers, larger integers fall out of the cache


def memory_hard_digest(public: bytes, backend: Backend) -> bytes:
    """The 64-octet digest of the 64 octets of public keys.

    An address is valid for the keys if it is the last five octets and the first is below 17.
    """
    seed = sha512(public).digest()
    stream = backend.salsa20_20(seed[:32], seed[32:40], 64 * _BLOCKS)
    sums = _running_sums(stream)
    memory = sums[: 8 * _MEMORY_BLOCKS]
    # The specification xors a whole block of key stream into the eight words after each step.
    # Here the words are kept without those blocks: a running sum of the stream says at any time
    # what one word still lacks, so each step touches one word instead of eight.
    words = array("Q", seed)
    if sys.byteorder == "little":
        words.byteswap()
    base = 8 * (_MEMORY_BLOCKS - 1)
    stirred = [word ^ sums[base + i] for i, word in enumerate(words)]
    for step in range(_STEPS):
        first = memory[2 * step] & 7
        second = memory[2 * step + 1] & 262_143
        owed = sums[base + first]
        stirred[first], memory[second] = memory[second] ^ owed, stirred[first] ^ owed
        base += 8
    return b"".join((stirred[i] ^ sums[base + i]).to_bytes(8, "big") for i in range(8))


def _running_sums(stream: bytes) -> array[int]:
    """Block i of the result is the xor of blocks 0 to i of *stream*, as big-endian words."""
    sums = array("Q")
    carry = 0
    for start in range(0, len(stream), 64 * _CHUNK):
        piece = stream[start : start + 64 * _CHUNK]
        # The first block is the most significant; what came before is added to it, and each
        # doubling step spreads sums twice as far to the right.
        total = int.from_bytes(piece, "big") ^ carry << (len(piece) - 64) * 8
        reach = 1
        while reach < _CHUNK:
            total ^= total >> reach * _BLOCK_BITS
            reach *= 2
        carry = total & _LAST_BLOCK
        sums.frombytes(total.to_bytes(len(piece), "big"))
    if sys.byteorder == "little":
        sums.byteswap()
    return sums
