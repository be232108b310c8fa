"""Credentials: what a controller signs for its members, and what they show each other (4, 5.4).

Here are tags, certificates of ownership, revocations, and the message that carries them all;
the others are in `.certificate` and `.capability`.  Nothing here decides whether a credential
counts: that depends on a node's own configuration (4.7).

Every credential has ``network_id``, ``timestamp`` (signed, in the controller's milliseconds),
``id``, ``issued_to`` and ``signer`` (5 octets each), ``parse``, ``emit``, ``issue`` and
``is_signed_by``.  The last is True only for the controller that the network ID names.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeVar

import attrs

from zttrio.errors import HeaderError

from ..constants import ADDRESS_LENGTH, MAX_PAYLOAD
from .capability import Capability
from .certificate import MEMBERSHIP, MembershipCertificate, Qualifier, key_hash
from .derived import controller_of
from .signature import emit_signature, parse_signature, signed_message, skip_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from zttrio.header.frame import Buffer

    from ..identity import Identity

__all__ = [
    "MEMBERSHIP",
    "CredentialsMessage",
    "MembershipCertificate",
    "Ownership",
    "Qualifier",
    "Revocation",
    "Tag",
    "Thing",
    "key_hash",
]

# Credential types (4); the first is MEMBERSHIP.
CAPABILITY = 2
TAG = 3
OWNERSHIP = 4
REVOCATION = 6

MAX_THINGS = 16

THING_MAC = 1
THING_IPV4 = 2
THING_IPV6 = 3

FAST_PROPAGATION = 1
"""Flag of a revocation: to be passed on to everybody (13)."""

_NOBODY = bytes(ADDRESS_LENGTH)
_LENGTH = struct.Struct("!H")
_TAG = struct.Struct("!QqII5s5s")
_OWNERSHIP = struct.Struct("!QqQIH")
_THING = struct.Struct("!B16s")
_PARTIES = struct.Struct("!5s5s")
_REVOCATION = struct.Struct("!4xIQ4xIqQ5s5sB")
_THING_LENGTHS = {THING_MAC: 6, THING_IPV4: 4, THING_IPV6: 16}


def _is_controller(controller: Identity, signer: bytes, network_id: int) -> bool:
    return controller.address == signer == controller_of(network_id)


@attrs.frozen
class Tag:
    """A number that the network's rules compare (4.3).

    Attributes:
        network_id: the network it is good for.
        timestamp: when it was issued, in the controller's milliseconds.
        id: what it says something about, 32 bits.
        value: what it says, 32 bits.
        issued_to: whose it is.
        signer: the controller's address, by its own account.
        signature: 96 octets, or none.
    """

    kind: ClassVar[int] = TAG

    network_id: int
    timestamp: int
    id: int
    value: int
    issued_to: bytes
    signer: bytes = _NOBODY
    signature: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def issue(
        cls,
        controller: Identity,
        *,
        network_id: int,
        id: int,  # noqa: A002 - as the attribute
        value: int,
        issued_to: bytes,
        timestamp: int,
    ) -> Tag:
        """A signed tag.

        Raises:
            IdentityError: the secret of *controller* is not known.
        """
        unsigned = cls(network_id, timestamp, id, value, issued_to, controller.address)
        signature = controller.sign(signed_message(unsigned.body()))
        return attrs.evolve(unsigned, signature=signature)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[Tag, int]:
        """Read a tag; returns it and where it ends.  The signature is not checked.

        Raises:
            HeaderError: there is none at *offset*.
        """
        end = offset + _TAG.size
        if end > len(data):
            raise HeaderError(f"tag at {offset}: only {len(data)} octets")
        network_id, timestamp, number, value, issued_to, signer = _TAG.unpack_from(data, offset)
        signature, end = parse_signature(data, end)
        end = skip_extra(data, end)
        return cls(network_id, timestamp, number, value, issued_to, signer, signature), end

    def body(self) -> bytes:
        """What is signed."""
        return _TAG.pack(
            self.network_id, self.timestamp, self.id, self.value, self.issued_to, self.signer
        )

    def emit(self) -> bytes:
        """The same as octets."""
        return b"".join((self.body(), emit_signature(self.signature), b"\0\0"))

    def is_signed_by(self, controller: Identity) -> bool:
        """True if *controller* rules this network and signed this."""
        return _is_controller(controller, self.signer, self.network_id) and controller.verify(
            signed_message(self.body()), self.signature
        )


class Thing(NamedTuple):
    """Something that a member owns (4.4).

    Attributes:
        kind: THING_MAC, THING_IPV4 or THING_IPV6; a receiver keeps what it does not know.
        value: 16 octets, padded with zeros.
    """

    kind: int
    value: bytes

    @classmethod
    def ip(cls, packed: bytes) -> Thing:
        """An IP address, packed."""
        kind = THING_IPV4 if len(packed) == 4 else THING_IPV6
        return cls(kind, packed.ljust(16, b"\0"))

    @classmethod
    def mac(cls, mac: bytes) -> Thing:
        """A MAC."""
        return cls(THING_MAC, mac.ljust(16, b"\0"))

    @property
    def octets(self) -> bytes:
        """The value without padding."""
        return self.value[: _THING_LENGTHS.get(self.kind, 16)]


def _octets_by_kind(ownership: Ownership) -> frozenset[tuple[int, bytes]]:
    return frozenset((thing.kind, thing.octets) for thing in ownership.things)


@attrs.frozen
class Ownership:
    """The certificate of ownership, COO: which addresses a member may use (4.4).

    Attributes:
        network_id: the network it is good for.
        timestamp: when it was issued, in the controller's milliseconds.
        id: 32 bits; controllers issue one with 1.
        things: at most 16.
        issued_to: whose they are.
        flags: 64 bits, always 0.
        signer: the controller's address, by its own account.
        signature: 96 octets, or none.
    """

    kind: ClassVar[int] = OWNERSHIP

    network_id: int
    timestamp: int
    id: int
    things: tuple[Thing, ...]
    issued_to: bytes
    flags: int = 0
    signer: bytes = _NOBODY
    signature: bytes = attrs.field(default=b"", repr=False)
    _owned: frozenset[tuple[int, bytes]] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_octets_by_kind, takes_self=True)
    )

    @classmethod
    def issue(
        cls,
        controller: Identity,
        *,
        network_id: int,
        things: Iterable[Thing],
        issued_to: bytes,
        timestamp: int,
        id: int = 1,  # noqa: A002 - as the attribute
    ) -> Ownership:
        """A signed certificate.

        Raises:
            IdentityError: the secret of *controller* is not known.
            ValueError: more than 16 things.
        """
        listed = tuple(things)
        if len(listed) > MAX_THINGS:
            raise ValueError(f"ownership: at most {MAX_THINGS} things, got {len(listed)}")
        unsigned = cls(network_id, timestamp, id, listed, issued_to, signer=controller.address)
        signature = controller.sign(signed_message(unsigned.body()))
        return attrs.evolve(unsigned, signature=signature)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[Ownership, int]:
        """Read a certificate; returns it and where it ends.  The signature is not checked.

        Raises:
            HeaderError: there is none at *offset*, or it lists too much.
        """
        start = offset + _OWNERSHIP.size
        if start > len(data):
            raise HeaderError(f"ownership at {offset}: only {len(data)} octets")
        network_id, timestamp, flags, number, count = _OWNERSHIP.unpack_from(data, offset)
        if count > MAX_THINGS:
            raise HeaderError(f"ownership {number}: {count} things, at most {MAX_THINGS}")
        middle = start + count * _THING.size
        end = middle + _PARTIES.size
        if end > len(data):
            raise HeaderError(f"ownership of {count} things: truncated at {len(data)} octets")
        things = tuple(map(Thing._make, _THING.iter_unpack(bytes(data[start:middle]))))
        issued_to, signer = _PARTIES.unpack_from(data, middle)
        signature, end = parse_signature(data, end)
        end = skip_extra(data, end)
        return cls(network_id, timestamp, number, things, issued_to, flags, signer, signature), end

    def body(self) -> bytes:
        """What is signed."""
        head = _OWNERSHIP.pack(
            self.network_id, self.timestamp, self.flags, self.id, len(self.things)
        )
        listed = (_THING.pack(*thing) for thing in self.things)
        return b"".join((head, *listed, _PARTIES.pack(self.issued_to, self.signer)))

    def emit(self) -> bytes:
        """The same as octets."""
        return b"".join((self.body(), emit_signature(self.signature), b"\0\0"))

    def is_signed_by(self, controller: Identity) -> bool:
        """True if *controller* rules this network and signed this."""
        return _is_controller(controller, self.signer, self.network_id) and controller.verify(
            signed_message(self.body()), self.signature
        )

    def owns_ip(self, packed: bytes) -> bool:
        """True if this IP address is listed."""
        return (THING_IPV4 if len(packed) == 4 else THING_IPV6, packed) in self._owned

    def owns_mac(self, mac: bytes) -> bool:
        """True if this MAC is listed."""
        return (THING_MAC, mac) in self._owned


@attrs.frozen
class Revocation:
    """What the controller has taken back (4.6).

    Attributes:
        network_id: the network it is about.
        id: random, 32 bits.
        credential_type: MEMBERSHIP, CAPABILITY, TAG or OWNERSHIP.
        credential_id: which one; 0 for certificates of membership.
        threshold: what was issued then or before is void; the controller's milliseconds.
        target: whose credential it was.
        flags: FAST_PROPAGATION or 0.
        signer: the controller's address, by its own account.
        signature: 96 octets, or none.
    """

    kind: ClassVar[int] = REVOCATION

    network_id: int
    id: int
    credential_type: int
    credential_id: int
    threshold: int
    target: bytes
    flags: int = 0
    signer: bytes = _NOBODY
    signature: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def issue(
        cls,
        controller: Identity,
        *,
        network_id: int,
        id: int,  # noqa: A002 - as the attribute
        threshold: int,
        target: bytes,
        credential_type: int = MEMBERSHIP,
        credential_id: int = 0,
        flags: int = FAST_PROPAGATION,
    ) -> Revocation:
        """A signed revocation.

        Raises:
            IdentityError: the secret of *controller* is not known.
        """
        unsigned = cls(
            network_id,
            id,
            credential_type,
            credential_id,
            threshold,
            target,
            flags,
            controller.address,
        )
        signature = controller.sign(signed_message(unsigned.body()))
        return attrs.evolve(unsigned, signature=signature)

    @property
    def timestamp(self) -> int:
        """The threshold."""
        return self.threshold

    @property
    def issued_to(self) -> bytes:
        """The target."""
        return self.target

    @property
    def is_fast(self) -> bool:
        """True if it is to be passed on to everybody."""
        return self.flags & FAST_PROPAGATION != 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[Revocation, int]:
        """Read a revocation; returns it and where it ends.  The signature is not checked.

        Raises:
            HeaderError: there is none at *offset*.
        """
        end = offset + _REVOCATION.size
        if end > len(data):
            raise HeaderError(f"revocation at {offset}: only {len(data)} octets")
        (
            number,
            network_id,
            credential_id,
            threshold,
            flags,
            target,
            signer,
            credential_type,
        ) = _REVOCATION.unpack_from(data, offset)
        signature, end = parse_signature(data, end)
        end = skip_extra(data, end)
        return cls(
            network_id,
            number,
            credential_type,
            credential_id,
            threshold,
            target,
            flags,
            signer,
            signature,
        ), end

    def body(self) -> bytes:
        """What is signed."""
        return _REVOCATION.pack(
            self.id,
            self.network_id,
            self.credential_id,
            self.threshold,
            self.flags,
            self.target,
            self.signer,
            self.credential_type,
        )

    def emit(self) -> bytes:
        """The same as octets."""
        return b"".join((self.body(), emit_signature(self.signature), b"\0\0"))

    def is_signed_by(self, controller: Identity) -> bool:
        """True if *controller* rules this network and signed this."""
        return _is_controller(controller, self.signer, self.network_id) and controller.verify(
            signed_message(self.body()), self.signature
        )


class _Emits(Protocol):
    def emit(self) -> bytes: ...


_Item = TypeVar("_Item")


@attrs.frozen
class CredentialsMessage:
    """NETWORK_CREDENTIALS: credentials of any networks (5.4)."""

    memberships: tuple[MembershipCertificate, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    tags: tuple[Tag, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    ownerships: tuple[Ownership, ...] = ()

    @classmethod
    def parse(cls, payload: Buffer) -> CredentialsMessage:
        """Read a message.  It may end behind each of its five parts.  No signature is checked.

        Raises:
            HeaderError: something else is in it.
        """
        memberships = []
        at = 0
        while at < len(payload) and payload[at]:
            membership, at = MembershipCertificate.parse(payload, at)
            memberships.append(membership)
        at += 1
        capabilities, at = _parse_counted(payload, at, Capability.parse)
        tags, at = _parse_counted(payload, at, Tag.parse)
        revocations, at = _parse_counted(payload, at, Revocation.parse)
        ownerships, at = _parse_counted(payload, at, Ownership.parse)
        return cls(tuple(memberships), capabilities, tags, revocations, ownerships)

    def emit(self) -> list[bytes]:
        """As few payloads as their largest size allows, but one at least, in the order of parts.

        Receivers take one such message per second, so a second one should wait for longer (5.4).
        A credential that is larger than any packet is left out.
        """
        parts: tuple[Sequence[_Emits], ...] = (
            self.memberships,
            self.capabilities,
            self.tags,
            self.revocations,
            self.ownerships,
        )
        payloads: list[bytes] = []
        packet: list[list[bytes]] = [[] for _ in parts]
        size = _EMPTY
        for number, part in enumerate(parts):
            for item in part:
                encoded = item.emit()
                if _EMPTY + len(encoded) > MAX_PAYLOAD:
                    continue
                if size + len(encoded) > MAX_PAYLOAD:
                    payloads.append(_join(packet))
                    packet = [[] for _ in parts]
                    size = _EMPTY
                packet[number].append(encoded)
                size += len(encoded)
        payloads.append(_join(packet))
        return payloads


_EMPTY = 1 + 4 * _LENGTH.size  # octets of a message without any credential


def _join(packet: list[list[bytes]]) -> bytes:
    pieces = [*packet[0], b"\0"]
    for part in packet[1:]:
        pieces += (_LENGTH.pack(len(part)), *part)
    return b"".join(pieces)


def _parse_counted(
    payload: Buffer, at: int, parse: Callable[[Buffer, int], tuple[_Item, int]]
) -> tuple[tuple[_Item, ...], int]:
    if at >= len(payload):
        return (), at
    start = at + _LENGTH.size
    if start > len(payload):
        raise HeaderError(f"credentials: truncated at {len(payload)} octets")
    found = []
    (count,) = _LENGTH.unpack_from(payload, at)
    at = start
    for _ in range(count):  # each takes octets, so the payload bounds them
        item, at = parse(payload, at)
        found.append(item)
    return tuple(found), at
