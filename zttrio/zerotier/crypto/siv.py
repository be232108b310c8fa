"""AES-GMAC-SIV, the cipher of suite 3 (VL1 specification, 6.4), on contexts that are kept.

Making a context costs more than sealing a packet with it, so every peer keeps its own.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB

__all__ = ["GmacSiv"]

_NONCE_TAIL = bytes(4)
_HALVES = Struct("!QQ").unpack  # of a tag
_COUNTER_MASK = ~(1 << 31)  # bit 7 of byte 12: a 32-bit counter can never carry out then


class GmacSiv:
    """One key's contexts.  An object belongs to one thread at a time.

    Args:
        k0: 32 octets, authenticates.
        k1: 32 octets, encrypts.
    """

    __slots__ = ("_block_in", "_block_out", "_counter", "_gmac")

    def __init__(self, k0: bytes, k1: bytes) -> None:
        aes = AES(k1)
        self._gmac = AESGCM(k0)
        self._block_out = Cipher(aes, ECB()).encryptor()  # noqa: S305 - one random-looking block
        self._block_in = Cipher(aes, ECB()).decryptor()  # noqa: S305 - the same block back
        self._counter = Cipher(aes, CTR(bytes(16))).encryptor()

    def seal(self, iv: bytes, data: bytes, envelope: bytes) -> tuple[bytes, bytes]:
        """Encrypt *envelope* and authenticate it together with *data*.

        Args:
            iv: 8 random octets, new for each call.
            data: 16 octets in the clear that are authenticated as well.
            envelope: the plaintext.

        Returns:
            The 16 octets that stand for IV and tag, and the ciphertext.
        """
        tag = self._gmac.encrypt(iv + _NONCE_TAIL, b"", data + envelope)
        high, low = _HALVES(tag)
        block = self._block_out.update(iv + (high ^ low).to_bytes(8, "big"))
        counter = self._counter
        counter.reset_nonce(_counter_block(block))
        return block, counter.update(envelope)

    def open(self, block: bytes, data: bytes, ciphertext: bytes) -> bytes | None:
        """The plaintext of what `seal` made, or None if anything was changed."""
        counter = self._counter
        counter.reset_nonce(_counter_block(block))
        envelope = counter.update(ciphertext)
        plain = self._block_in.update(block)
        tag = self._gmac.encrypt(plain[:8] + _NONCE_TAIL, b"", data + envelope)
        high, low = _HALVES(tag)
        if compare_digest((high ^ low).to_bytes(8, "big"), plain[8:]):
            return envelope
        return None


def _counter_block(block: bytes) -> bytes:
    return (int.from_bytes(block, "big") & _COUNTER_MASK).to_bytes(16, "big")
