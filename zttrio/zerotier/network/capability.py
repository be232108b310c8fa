"""Capabilities: rules of a network that only their holders have (4.5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

import attrs

from zttrio.errors import HeaderError

from ..constants import ADDRESS_LENGTH
from .derived import controller_of
from .rules import CAPABILITY_LIMIT, Rule, emit_rules, parse_counted_rules
from .signature import emit_signature, parse_signature, signed_message, skip_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zttrio.header.frame import Buffer

    from ..identity import Identity

    Lookup: TypeAlias = Callable[[bytes], Identity | None]
    """The identity of a node address, or None if it is not known yet."""

__all__ = ["Capability", "Custody"]

MAX_CUSTODY = 7

_HEAD = struct.Struct("!QqIH")
_NOBODY = bytes(ADDRESS_LENGTH)


class Custody(NamedTuple):
    """One step of a capability's way to its holder.

    Attributes:
        to: whom it was given to.
        giver: who gave it, and signed.
        signature: 96 octets; none if it is of a type that nobody knows.
    """

    to: bytes
    giver: bytes
    signature: bytes


@attrs.frozen
class Capability:
    """A list of rules with the controller's signature.

    The signature does not cover the holder: whoever has received a capability can present it as
    its own (the reference has this weakness too).

    Attributes:
        network_id: the network it is good for.
        timestamp: when it was issued, in the controller's milliseconds.
        id: what the network's rules call it, 32 bits.
        rules: at most 64.
        max_custody: how long the chain may become, 1 to 7.
        custody: how it came to its holder, the controller's step first.
    """

    kind: ClassVar[int] = 2

    network_id: int
    timestamp: int
    id: int
    rules: tuple[Rule, ...]
    max_custody: int = 1
    custody: tuple[Custody, ...] = attrs.field(default=(), repr=False)

    @classmethod
    def issue(
        cls,
        controller: Identity,
        *,
        network_id: int,
        id: int,  # noqa: A002 - as the attribute
        rules: Iterable[Rule],
        issued_to: bytes,
        timestamp: int,
        max_custody: int = 1,
    ) -> Capability:
        """A signed capability.

        Raises:
            IdentityError: the secret of *controller* is not known.
            ValueError: too many rules, or a chain of an impossible length.
        """
        listed = tuple(rules)
        if len(listed) > CAPABILITY_LIMIT:
            raise ValueError(
                f"capability {id}: at most {CAPABILITY_LIMIT} rules, got {len(listed)}"
            )
        if not 1 <= max_custody <= MAX_CUSTODY:
            raise ValueError(f"capability {id}: chain of 1 to {MAX_CUSTODY}, got {max_custody}")
        unsigned = cls(network_id, timestamp, id, listed, max_custody)
        signature = controller.sign(signed_message(unsigned.body()))
        step = Custody(issued_to, controller.address, signature)
        return attrs.evolve(unsigned, custody=(step,))

    @property
    def issued_to(self) -> bytes:
        """The holder's address; zero if there is none."""
        return self.custody[-1].to if self.custody else _NOBODY

    @property
    def signer(self) -> bytes:
        """Who issued it, by its own account; zero if nobody did."""
        return self.custody[0].giver if self.custody else _NOBODY

    @property
    def givers(self) -> tuple[bytes, ...]:
        """Whose identities are needed to check the chain."""
        return tuple(step.giver for step in self.custody)

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> tuple[Capability, int]:
        """Read a capability; returns it and where it ends.  No signature is checked.

        Raises:
            HeaderError: there is none at *offset*.
        """
        end = offset + _HEAD.size
        if end > len(data):
            raise HeaderError(f"capability at {offset}: only {len(data)} octets")
        network_id, timestamp, number, count = _HEAD.unpack_from(data, offset)
        if count > CAPABILITY_LIMIT:
            raise HeaderError(f"capability {number}: {count} rules, at most {CAPABILITY_LIMIT}")
        rules, end = parse_counted_rules(data, end, count)
        if end >= len(data):
            raise HeaderError(f"capability {number}: truncated at {len(data)} octets")
        max_custody = data[end]
        if not 1 <= max_custody <= MAX_CUSTODY:
            raise HeaderError(f"capability {number}: chain of {max_custody}, at most {MAX_CUSTODY}")
        custody, end = _parse_custody(data, end + 1, max_custody)
        end = skip_extra(data, end)
        return cls(network_id, timestamp, number, rules, max_custody, custody), end

    def body(self) -> bytes:
        """What every custodian signs."""
        head = _HEAD.pack(self.network_id, self.timestamp, self.id, len(self.rules))
        return b"".join((head, emit_rules(self.rules), bytes((self.max_custody,))))

    def emit(self) -> bytes:
        """The same as octets."""
        pieces = [self.body()]
        for step in self.custody:
            pieces += (step.to, step.giver, emit_signature(step.signature))
        pieces += (_NOBODY, b"\0\0")
        return b"".join(pieces)

    def is_signed_by(self, controller: Identity, identity_of: Lookup | None = None) -> bool:
        """True if *controller* rules this network and issued this, and the chain holds.

        Args:
            controller: the network's.
            identity_of: for the givers of a chain of more than one step; without an identity of
                one of them the answer is False.
        """
        if controller.address != controller_of(self.network_id) or not self.custody:
            return False
        message = signed_message(self.body())
        holder = controller.address
        for step in self.custody:
            if step.giver != holder:
                return False
            if holder == controller.address:
                giver: Identity | None = controller
            else:
                giver = identity_of(holder) if identity_of is not None else None
            if giver is None or not giver.verify(message, step.signature):
                return False
            holder = step.to
        return True


def _parse_custody(data: Buffer, offset: int, limit: int) -> tuple[tuple[Custody, ...], int]:
    chain: list[Custody] = []
    while True:
        middle = offset + ADDRESS_LENGTH
        to = bytes(data[offset:middle])
        if len(to) < ADDRESS_LENGTH:
            raise HeaderError(f"custody chain: truncated at {len(data)} octets")
        if to == _NOBODY:
            return tuple(chain), middle
        if len(chain) == limit:
            raise HeaderError(f"custody chain: more than {limit} steps")
        end = middle + ADDRESS_LENGTH
        signature, offset = parse_signature(data, end)
        chain.append(Custody(to, bytes(data[middle:end]), signature))
