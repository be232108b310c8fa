"""Worlds: the signed lists of roots that a node trusts (VL1 specification, 13).

The main world is the *planet*; worlds that a user adds are *moons*.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from .endpoint import Endpoint, emit_endpoint, parse_endpoint
from .identity import SIGNATURE_LENGTH, Identity, KeyPair, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.header.frame import Buffer

__all__ = ["MOON", "PLANET", "Root", "World", "is_update"]

PLANET = 1
MOON = 127
MAX_ROOTS = 4
MAX_ENDPOINTS = 32

_HEAD = struct.Struct("!BQQ")
_LENGTH = struct.Struct("!H")
_KEY_LENGTH = 64


@attrs.frozen
class Root:
    """One root as its world lists it.

    Attributes:
        identity: without a secret.
        endpoints: where it can be reached; none if it is found through other roots.
    """

    identity: Identity
    endpoints: tuple[Endpoint, ...] = ()


@attrs.frozen
class World:
    """A planet or a moon.

    Attributes:
        kind: PLANET or MOON.
        id: unsigned, 64 bits.
        timestamp: the revision, in milliseconds since 1970.
        update_key: the 64 octets of public keys that must sign the next revision.
        roots: at most 4.
        signature: 96 octets.
    """

    kind: int
    id: int
    timestamp: int
    update_key: bytes = attrs.field(repr=False)
    roots: tuple[Root, ...]
    signature: bytes = attrs.field(repr=False)

    @classmethod
    def make(
        cls,
        kind: int,
        world_id: int,
        timestamp: int,
        roots: Iterable[Root],
        *,
        signer: KeyPair,
        update_key: bytes | None = None,
    ) -> World:
        """A signed world.

        Args:
            kind: PLANET or MOON.
            world_id: unsigned, 64 bits.
            timestamp: milliseconds since 1970, newer than the revision before.
            roots: at most 4, with at most 32 endpoints each.
            signer: the pair that the revision before named; any pair for a first one.
            update_key: who must sign the next revision; by default *signer* again.

        Raises:
            ValueError: too many roots or endpoints.
        """
        listed = tuple(roots)
        if len(listed) > MAX_ROOTS:
            raise ValueError(f"world: at most {MAX_ROOTS} roots, got {len(listed)}")
        for root in listed:
            if len(root.endpoints) > MAX_ENDPOINTS:
                count = len(root.endpoints)
                raise ValueError(f"root {root.identity}: at most {MAX_ENDPOINTS}, got {count}")
        key = signer.public if update_key is None else update_key
        unsigned = cls(kind, world_id, timestamp, key, listed, bytes(SIGNATURE_LENGTH))
        return attrs.evolve(unsigned, signature=signer.sign(unsigned.signed_message()))

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[World, int]:
        """Read a world; returns it and where it ends.  The signature is not checked.

        Raises:
            HeaderError: there is none at *offset*.
        """
        head_end = offset + _HEAD.size
        roots_at = head_end + _KEY_LENGTH + SIGNATURE_LENGTH
        if roots_at >= len(data):
            raise HeaderError(f"world: truncated at {len(data)} octets")
        kind, world_id, timestamp = _HEAD.unpack_from(data, offset)
        if kind not in (PLANET, MOON):
            raise HeaderError(f"world {world_id:016x}: unknown type {kind}")
        update_key = bytes(data[head_end : head_end + _KEY_LENGTH])
        signature = bytes(data[head_end + _KEY_LENGTH : roots_at])
        count = data[roots_at]
        if count > MAX_ROOTS:
            raise HeaderError(f"world {world_id:016x}: {count} roots, at most {MAX_ROOTS}")
        offset = roots_at + 1
        roots = []
        for _ in range(count):
            root, offset = _parse_root(data, offset)
            roots.append(root)
        if kind == MOON:
            if offset + 2 > len(data):
                raise HeaderError(f"moon {world_id:016x}: truncated at {len(data)} octets")
            offset += 2 + _LENGTH.unpack_from(data, offset)[0]
            if offset > len(data):
                raise HeaderError(f"moon {world_id:016x}: truncated at {len(data)} octets")
        return cls(kind, world_id, timestamp, update_key, tuple(roots), signature), offset

    def emit(self) -> bytes:
        """The world as it is in files and packets."""
        return self._emit(self.signature)

    def signed_message(self) -> bytes:
        """The octets that the signature is made over (13.2)."""
        return b"\x7f" * 8 + self._emit(b"") + b"\xf7" * 8

    def is_signed_by(self, update_key: bytes) -> bool:
        """True if the secret half of *update_key* signed this."""
        return verify(update_key, self.signed_message(), self.signature)

    def lists(self, address: bytes) -> bool:
        """True if the node with *address* is one of the roots."""
        return any(root.identity.address == address for root in self.roots)

    def _emit(self, signature: bytes) -> bytes:
        pieces = [
            _HEAD.pack(self.kind, self.id, self.timestamp),
            self.update_key,
            signature,
            bytes((len(self.roots),)),
        ]
        for root in self.roots:
            pieces += (root.identity.emit(), bytes((len(root.endpoints),)))
            pieces += map(emit_endpoint, root.endpoints)
        if self.kind == MOON:
            pieces.append(_LENGTH.pack(0))
        return b"".join(pieces)


def is_update(held: World | None, candidate: World) -> bool:
    """True if *candidate* replaces *held* (13.3).

    What nobody holds is taken without a signature: where it came from must be trusted instead.
    """
    if held is None:
        return True
    return (
        candidate.kind == held.kind
        and candidate.id == held.id
        and candidate.timestamp > held.timestamp
        and candidate.is_signed_by(held.update_key)
    )


def _parse_root(data: Buffer, offset: int) -> tuple[Root, int]:
    identity, offset = Identity.parse(data, offset)
    if offset >= len(data):
        raise HeaderError(f"root {identity}: truncated at {len(data)} octets")
    count = data[offset]
    if count > MAX_ENDPOINTS:
        raise HeaderError(f"root {identity}: {count} endpoints, at most {MAX_ENDPOINTS}")
    offset += 1
    endpoints = []
    for _ in range(count):
        endpoint, offset = parse_endpoint(data, offset)
        if endpoint is not None:
            endpoints.append(endpoint)
    return Root(identity, tuple(endpoints)), offset
