"""The addresses that are ours, and what follows from their prefixes."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface, IPv6Interface
from math import inf
from typing import TYPE_CHECKING

import attrs

from zttrio.header.address import (
    IPV4_BROADCAST,
    ip_text,
    is_loopback,
    is_multicast,
    is_unspecified,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Address", "Addresses", "Interface"]

Interface = IPv4Interface | IPv6Interface


@attrs.define(eq=False)
class Address:
    """One of our addresses.

    Attributes:
        packed: 4 or 16 octets.
        prefix_length: bits.
        is_optimistic: duplicate address detection has not finished (RFC 4862 5.4); it is used
            already, with the restraint of RFC 4429.
        is_deprecated: not to be chosen for new conversations (RFC 4862 5.5.4).
        has_route: its prefix is on the link because we have the address; prefixes of routers are
            on the link only if they say so (RFC 5942).
        preferred_until: when it becomes deprecated, in seconds, or inf.
        valid_until: when it goes away, in seconds, or inf.
        broadcast: the directed broadcast address of its prefix, or None.
    """

    packed: bytes
    prefix_length: int
    is_optimistic: bool = False
    is_deprecated: bool = False
    has_route: bool = False
    preferred_until: float = inf
    valid_until: float = inf
    broadcast: bytes | None = attrs.field(init=False, default=None)
    _host_bits: int = attrs.field(init=False)
    _prefix: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._host_bits = len(self.packed) * 8 - self.prefix_length
        number = int.from_bytes(self.packed)
        self._prefix = number >> self._host_bits
        if len(self.packed) == 4 and self._host_bits > 1:  # RFC 3021: a /31 has no broadcast
            self.broadcast = (number | (1 << self._host_bits) - 1).to_bytes(4)

    def is_on_link(self, other: bytes) -> bool:
        """True if *other* has the same prefix."""
        return (
            len(other) == len(self.packed)
            and int.from_bytes(other) >> self._host_bits == self._prefix
        )

    @property
    def prefix(self) -> bytes:
        """The packed address with zeros behind the prefix."""
        return (self._prefix << self._host_bits).to_bytes(len(self.packed))

    @property
    def interface(self) -> Interface:
        """The same for the world outside the stack."""
        text = f"{ip_text(self.packed)}/{self.prefix_length}"
        return IPv4Interface(text) if len(self.packed) == 4 else IPv6Interface(text)


class Addresses:
    """The table of our addresses; iterating gives them as the world outside writes them.

    Args:
        changed: called after every change.

    Attributes:
        entries: every address, in the order they were added.
        ours: the packed addresses that packets to us have; loopback ones are not among them.
        broadcasts: the directed broadcast addresses of our prefixes, and the limited one.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.entries: dict[bytes, Address] = {}
        self.ours: frozenset[bytes] = frozenset()
        self.broadcasts: frozenset[bytes] = frozenset((IPV4_BROADCAST,))

    def add(self, packed: bytes, prefix_length: int, *, is_optimistic: bool = False) -> Address:
        """Make *packed* ours.

        Raises:
            ValueError: no host can have that address.
            OSError: EEXIST, it is ours already.
        """
        entry = Address(packed, prefix_length, is_optimistic)
        if (
            is_unspecified(packed)
            or is_multicast(packed)
            or is_loopback(packed)
            or packed in (IPV4_BROADCAST, entry.broadcast)
        ):
            raise ValueError(f"address {entry.interface}: no host can have it")
        if packed in self.entries:
            raise OSError(errno.EEXIST, f"address {entry.interface}: already ours")
        self.entries[packed] = entry
        self.refresh()
        return entry

    def remove(self, packed: bytes) -> Address:
        """Make *packed* no longer ours.

        Raises:
            OSError: EADDRNOTAVAIL, it is not ours.
        """
        entry = self.entries.pop(packed, None)
        if entry is None:
            raise OSError(errno.EADDRNOTAVAIL, f"address {ip_text(packed)}: not ours")
        self.refresh()
        return entry

    def refresh(self) -> None:
        """Work out again what follows from `entries`; call after changing one of them."""
        self.ours = frozenset(self.entries)
        found = {entry.broadcast for entry in self.entries.values() if entry.broadcast is not None}
        self.broadcasts = frozenset(found | {IPV4_BROADCAST})
        self._changed()

    def is_ours(self, packed: bytes) -> bool:
        """True if packets to *packed* from the wire are for us; loopback addresses are not."""
        return packed in self.ours

    def of_family(self, octets: int) -> list[Address]:
        """The addresses of the family with *octets* octets."""
        return [entry for entry in self.entries.values() if len(entry.packed) == octets]

    def __iter__(self) -> Iterator[Interface]:
        for entry in self.entries.values():
            yield entry.interface

    def __len__(self) -> int:
        return len(self.entries)
