"""The certificate of membership, COM: what opens a network's gate (4.1, 4.2)."""

from __future__ import annotations

import struct
from hashlib import sha384
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import attrs

from zttrio.errors import HeaderError

from ..constants import ADDRESS_LENGTH
from ..identity import SIGNATURE_LENGTH
from .derived import controller_of

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from ..identity import Identity

__all__ = ["MEMBERSHIP", "MembershipCertificate", "Qualifier", "key_hash"]

MEMBERSHIP = 1
"""The credential type (4)."""

MAX_QUALIFIERS = 8

_QUALIFIER = struct.Struct("!QQQ")
_TIMESTAMP, _NETWORK, _MEMBER = range(3)
_HASH_QUALIFIERS = range(3, 7)
_ANYTHING = (1 << 64) - 1
_ADDRESS_MASK = (1 << 40) - 1
_NOBODY = bytes(ADDRESS_LENGTH)
_LENGTH = struct.Struct("!H")


def key_hash(identity: Identity) -> bytes:
    """The 48 octets that tell an identity from another with the same address (4.1)."""
    return sha384(identity.address + identity.public).digest()


class Qualifier(NamedTuple):
    """A value of a certificate of membership, and how far the other side's may differ."""

    id: int
    value: int
    delta: int


@attrs.frozen
class MembershipCertificate:
    """The certificate of membership, COM: whom the controller has let in, and when (4.1).

    Attributes:
        qualifiers: at most 8, with ascending IDs.
        signer: the controller's address, or zero if nobody has signed.
        signature: 96 octets, or none.
    """

    kind: ClassVar[int] = MEMBERSHIP
    id: ClassVar[int] = 0

    qualifiers: tuple[Qualifier, ...]
    signer: bytes = _NOBODY
    signature: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def issue(
        cls, controller: Identity, *, network_id: int, member: Identity, timestamp: int, window: int
    ) -> MembershipCertificate:
        """A signed certificate.

        Args:
            controller: who signs.
            network_id: which network *member* may use.
            member: who may.
            timestamp: the controller's milliseconds.
            window: how far certificates of two members may be apart, in milliseconds.

        Raises:
            IdentityError: the secret of *controller* is not known.
        """
        digest = key_hash(member)
        qualifiers = (
            Qualifier(_TIMESTAMP, timestamp & _ANYTHING, window),
            Qualifier(_NETWORK, network_id, 0),
            Qualifier(_MEMBER, int.from_bytes(member.address, "big"), _ANYTHING),
            *(
                Qualifier(number, int.from_bytes(digest[8 * i : 8 * i + 8], "big"), _ANYTHING)
                for i, number in enumerate(_HASH_QUALIFIERS)
            ),
        )
        unsigned = cls(qualifiers, controller.address)
        return attrs.evolve(unsigned, signature=controller.sign(unsigned.body()))

    @property
    def network_id(self) -> int:
        """The network; 0 if the certificate does not say."""
        return self._find(_NETWORK).value

    @property
    def timestamp(self) -> int:
        """When it was issued, in the controller's milliseconds."""
        value = self._find(_TIMESTAMP).value
        return value - (1 << 64) if value >> 63 else value

    @property
    def window(self) -> int:
        """How far a certificate that agrees may be away in time, in milliseconds."""
        return self._find(_TIMESTAMP).delta

    @property
    def issued_to(self) -> bytes:
        """The member's address; zero if the certificate does not say."""
        return (self._find(_MEMBER).value & _ADDRESS_MASK).to_bytes(ADDRESS_LENGTH, "big")

    address = issued_to

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[MembershipCertificate, int]:
        """Read a certificate; returns it and where it ends.  The signature is not checked.

        Raises:
            HeaderError: there is none at *offset*, or its qualifiers are too many or descend.
        """
        start = offset + 3
        if start > len(data):
            raise HeaderError(f"COM at {offset}: only {len(data)} octets")
        if data[offset] != 1:
            raise HeaderError(f"COM: unknown version {data[offset]}")
        (count,) = _LENGTH.unpack_from(data, offset + 1)
        if count > MAX_QUALIFIERS:
            raise HeaderError(f"COM: {count} qualifiers, at most {MAX_QUALIFIERS}")
        middle = start + count * _QUALIFIER.size
        end = middle + ADDRESS_LENGTH
        if end > len(data):
            raise HeaderError(f"COM with {count} qualifiers: truncated at {len(data)} octets")
        listed = tuple(map(Qualifier._make, _QUALIFIER.iter_unpack(bytes(data[start:middle]))))
        if any(listed[i].id > listed[i + 1].id for i in range(count - 1)):
            raise HeaderError("COM: qualifiers descend")
        signer = bytes(data[middle:end])
        if signer == _NOBODY:
            return cls(listed), end
        stop = end + SIGNATURE_LENGTH
        if stop > len(data):
            raise HeaderError(f"COM: truncated in the signature, {len(data)} octets")
        return cls(listed, signer, bytes(data[end:stop])), stop

    def body(self) -> bytes:
        """What is signed."""
        return b"".join(_QUALIFIER.pack(*qualifier) for qualifier in self.qualifiers)

    def emit(self) -> bytes:
        """The same as octets."""
        head = b"\x01" + _LENGTH.pack(len(self.qualifiers))
        return b"".join((head, self.body(), self.signer, self.signature))

    def is_signed_by(self, controller: Identity) -> bool:
        """True if *controller* rules this network and signed this."""
        return controller.address == self.signer == controller_of(
            self.network_id
        ) and controller.verify(self.body(), self.signature)

    def agrees_with(self, other: MembershipCertificate, identity: Identity) -> bool:
        """True if the holder of this one may talk to the holder of *other* (4.2).

        Args:
            other: the peer's; its signature has been checked.
            identity: the peer's, which it has proven to be its own.
        """
        if not self.qualifiers or not other.qualifiers:
            return False
        theirs = {qualifier.id: qualifier.value for qualifier in other.qualifiers}
        for number, value, delta in self.qualifiers:
            found = theirs.get(number)
            if found is None or abs(value - found) > delta:
                return False
        if not any(qualifier.id in _HASH_QUALIFIERS for qualifier in self.qualifiers):
            return True
        digest = key_hash(identity)
        return all(
            theirs.get(number) == int.from_bytes(digest[8 * i : 8 * i + 8], "big")
            for i, number in enumerate(_HASH_QUALIFIERS)
        )

    def _find(self, number: int) -> Qualifier:
        for qualifier in self.qualifiers:
            if qualifier.id == number:
                return qualifier
        return Qualifier(number, 0, 0)
