"""Interface identifiers that stay the same on one network and tell nothing on others (RFC 7217)."""

from __future__ import annotations

import hashlib

__all__ = ["LINK_LOCAL_PREFIX", "is_reserved", "stable_address"]

LINK_LOCAL_PREFIX = b"\xfe\x80" + bytes(6)

_SUBNET_ROUTER = 0  # RFC 4291 2.6.1
_RESERVED = (
    (_SUBNET_ROUTER, _SUBNET_ROUTER),
    (0x0200_5EFF_FE00_0000, 0x0200_5EFF_FEFF_FFFF),
    (0xFDFF_FFFF_FFFF_FF80, 0xFDFF_FFFF_FFFF_FFFF),
)


def is_reserved(identifier: int) -> bool:
    """True if no host may have *identifier*, the last 64 bits of an address (RFC 5453)."""
    return any(first <= identifier <= last for first, last in _RESERVED)


def stable_address(prefix: bytes, mac: bytes, network: bytes, attempt: int, secret: bytes) -> bytes:
    """The packed address for the first 8 octets of *prefix*.

    Args:
        prefix: packed; its first 64 bits count.
        mac: tells one interface of a host from another.
        network: what the network calls itself; empty if it has no name.
        attempt: how many addresses were taken already.
        secret: known to this host only, and kept, for the address to stay the same.
    """
    while True:
        identity = b"".join(
            (prefix[:8], mac, len(network).to_bytes(2), network, attempt.to_bytes(4))
        )
        digest = hashlib.blake2b(identity, digest_size=8, key=secret).digest()
        number = int.from_bytes(digest)
        if not is_reserved(number):
            return prefix[:8] + digest
        attempt += 1 << 16  # pragma: no cover - once in 2**38, apart from what duplicates cause
