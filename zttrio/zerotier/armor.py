"""Seals and opens packets between two nodes: suites 0, 1 and 3 (VL1 specification, 6).

An `Armor` is the 48-octet key that two nodes share, in all the forms the suites need it.  It knows
headers as far as they are authenticated, and nothing of what is inside.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from .crypto.siv import GmacSiv
from .identity import derive_key

if TYPE_CHECKING:
    from .crypto import Backend

__all__ = ["FRAGMENTED", "SUITE_AES", "SUITE_PLAIN", "SUITE_SALSA", "SUITE_TRUSTED", "Armor"]

SUITE_PLAIN = 0  # authenticated, readable: HELLO
SUITE_SALSA = 1
SUITE_TRUSTED = 2  # neither encrypted nor authenticated (16); never sealed or opened here
SUITE_AES = 3

FRAGMENTED = 0x40
_LEGACY_ENCRYPTED = 0x80
_FIRST_BLOCK = bytes(64)
_HALF_BLOCK = bytes(32)
_AAD_TAIL = bytes(5)


class Armor:
    """The shared key of two nodes.  An object belongs to one thread at a time.

    Args:
        key: 48 octets, from `Identity.agree`.
        backend: for suites 0 and 1.
    """

    __slots__ = ("_backend", "_key", "_mangled_part", "_rest", "_siv")

    def __init__(self, key: bytes, backend: Backend) -> None:
        self._backend = backend
        self._key = key
        self._mangled_part = int.from_bytes(key[:21], "big")
        self._rest = key[21:32]
        self._siv: GmacSiv | None = None  # most peers of a root never need it

    def seal(
        self, packet_id: bytes, route: bytes, envelope: bytes, suite: int, *, fragmented: bool
    ) -> bytes:
        """The whole packet as it goes on the wire.

        Args:
            packet_id: 8 octets that have never been used with this key.
            route: destination and source, 10 octets.
            envelope: verb and payload.
            suite: SUITE_PLAIN, SUITE_SALSA or SUITE_AES.
            fragmented: True if the packet will be cut.

        Returns:
            The packet.  Its first 8 octets are its ID; in suite 3 they are not *packet_id*.
        """
        flags = suite << 3 | (FRAGMENTED if fragmented else 0)
        if suite == SUITE_AES:
            data = b"%b%c%b" % (route, flags, _AAD_TAIL)
            block, ciphertext = self._need_siv().seal(packet_id, data, envelope)
            return b"%b%b%c%b%b" % (block[:8], route, flags, block[8:], ciphertext)
        if suite == SUITE_SALSA:
            flags |= _LEGACY_ENCRYPTED
        head = b"%b%b%c" % (packet_id, route, flags)
        key = self._mangle(head, flags, len(envelope) + 27)
        if suite == SUITE_SALSA:
            stream = self._backend.salsa20_12_xor(key, packet_id, _FIRST_BLOCK + envelope)
            body = stream[64:]
        else:
            stream = self._backend.salsa20_12_xor(key, packet_id, _HALF_BLOCK)
            body = envelope
        return head + self._backend.poly1305(stream[:32], body)[:8] + body

    def open(self, packet: bytes) -> bytes | None:
        """The envelope of a packet of suite 0, 1 or 3, or None if it is not authentic.

        Args:
            packet: a whole packet, at least 28 octets, assembled if it was fragmented.
        """
        flags = packet[18]
        suite = flags >> 3 & 7
        if suite == SUITE_AES:
            data = b"%b%c%b" % (packet[8:18], flags & 0xF8, _AAD_TAIL)
            return self._need_siv().open(packet[:8] + packet[19:27], data, packet[27:])
        if suite not in (SUITE_PLAIN, SUITE_SALSA):
            return None
        packet_id = packet[:8]
        envelope = packet[27:]
        key = self._mangle(packet, flags & 0xF8, len(packet))
        backend = self._backend
        one_time = backend.salsa20_12_xor(key, packet_id, _HALF_BLOCK)
        if not compare_digest(backend.poly1305(one_time, envelope)[:8], packet[19:27]):
            return None
        if suite == SUITE_PLAIN:
            return envelope
        return backend.salsa20_12_xor(key, packet_id, _FIRST_BLOCK + envelope)[64:]

    def hello_tail(self, packet_id: bytes, tail: bytes) -> bytes:
        """Encrypt or decrypt the last part of a HELLO (6.3).  Once per packet."""
        iv = packet_id[:7] + bytes((packet_id[7] & 0xF8,))
        return self._backend.salsa20_12_xor(self._key[:32], iv, tail)

    def _mangle(self, head: bytes, flags: int, length: int) -> bytes:
        """The key of one packet: size, direction and flags are part of it (6.1)."""
        mixed = b"%b%c%b" % (head[:18], flags, (length & 0xFFFF).to_bytes(2, "little"))
        part = self._mangled_part ^ int.from_bytes(mixed, "big")
        return part.to_bytes(21, "big") + self._rest

    def _need_siv(self) -> GmacSiv:
        siv = self._siv
        if siv is None:
            k0, k1 = derive_key(self._key, b"0")[:32], derive_key(self._key, b"1")[:32]
            siv = self._siv = GmacSiv(k0, k1)
        return siv
