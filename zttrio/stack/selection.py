"""Which of our addresses a packet comes from, which of theirs it goes to, and by which neighbor.

IPv6 follows RFC 6724 with its own policy table, IPv4 takes part in it as v4-mapped addresses.
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import TYPE_CHECKING

from zttrio.header.address import is_link_local, is_loopback, is_multicast, is_unspecified

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .addresses import Address, Addresses
    from .route import Routes

__all__ = ["Selection"]

REDIRECT_LIMIT = 256  # destinations with a first hop of their own; arbitrary
DEAD_LIMIT = 64  # gateways known not to answer; arbitrary

LINK_LOCAL, SITE_LOCAL, GLOBAL = 2, 5, 14  # scopes, RFC 4291 2.7
_V4_MAPPED = bytes(10) + b"\xff\xff"

# RFC 6724 2.1: prefix, its length, precedence, label; longest prefix first
_POLICY = (
    (bytes(15) + b"\x01", 128, 50, 0),
    (bytes(10) + b"\xff\xff" + bytes(4), 96, 35, 4),
    (bytes(16), 96, 1, 3),
    (b"\x20\x01" + bytes(14), 32, 5, 5),
    (b"\x20\x02" + bytes(14), 16, 30, 2),
    (b"\x3f\xfe" + bytes(14), 16, 1, 12),
    (b"\xfe\xc0" + bytes(14), 10, 1, 11),
    (b"\xfc\x00" + bytes(14), 7, 3, 13),
    (bytes(16), 0, 40, 1),
)
_POLICY_NUMBERS = tuple(
    (int.from_bytes(prefix) >> 128 - length, 128 - length, (precedence, label))
    for prefix, length, precedence, label in _POLICY
)


class Selection:
    """The choices that leave more than one right answer.

    Args:
        addresses: what is ours.
    """

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._redirects: dict[bytes, bytes] = {}
        self._dead: dict[bytes, None] = {}

    # source addresses

    def source(self, destination: bytes, next_hop: bytes) -> bytes | None:
        """Our packed address for packets to *destination*, or None if no address will do.

        Args:
            destination: packed.
            next_hop: packed; for IPv4, an address on its prefix is the best.
        """
        candidates = self._addresses.of_family(len(destination))
        if not candidates:
            return None
        if len(destination) == 4:
            for entry in candidates:
                if entry.is_on_link(next_hop):
                    return entry.packed
            return candidates[0].packed
        best = candidates[0]
        for entry in candidates[1:]:
            if _is_better_source(entry, best, destination):
                best = entry
        return best.packed

    # destination addresses

    def order(self, destinations: Iterable[bytes], routes: Routes) -> list[bytes]:
        """*destinations* (packed, of either family), best first (RFC 6724 6)."""
        rated = []
        for position, destination in enumerate(destinations):
            source = destination if is_loopback(destination) else None
            next_hop = self.next_hop(destination, routes)
            if source is None and next_hop is not None:
                source = self.source(destination, next_hop)
            rated.append((destination, source, position))
        rated.sort(key=cmp_to_key(self._compare))
        return [destination for destination, _, _ in rated]

    def _compare(
        self, one: tuple[bytes, bytes | None, int], other: tuple[bytes, bytes | None, int]
    ) -> int:
        """Negative if *one* comes first."""
        keys = []
        for destination, source, _ in (one, other):
            wide = _widen(destination)
            precedence, label = _policy(wide)
            if source is None:
                keys.append((True, True, True, True, -precedence, _scope(destination)))
                continue
            entry = self._addresses.entries.get(source)
            keys.append(
                (
                    False,  # rule 1: avoid unusable destinations
                    _scope(source) != _scope(destination),  # rule 2: prefer matching scope
                    entry is not None and entry.is_deprecated,  # rule 3: avoid deprecated addresses
                    _policy(_widen(source))[1] != label,  # rule 5: prefer matching label
                    -precedence,  # rule 6: prefer higher precedence
                    _scope(destination),  # rule 8: prefer smaller scope
                )
            )
        if keys[0] != keys[1]:
            return -1 if keys[0] < keys[1] else 1
        # Not for IPv4, whose neighbors in number are no neighbors, and whose order is the sender's.
        if len(one[0]) == 16 == len(other[0]) and one[1] is not None and other[1] is not None:
            lengths = (_common(one[1], one[0]), _common(other[1], other[0]))
            if lengths[0] != lengths[1]:
                return lengths[1] - lengths[0]  # rule 9: use longest matching prefix
        return one[2] - other[2]  # rule 10: leave the order unchanged

    # first hops

    def next_hop(self, destination: bytes, routes: Routes) -> bytes | None:
        """The packed address of the neighbor that packets to *destination* go to, or None.

        Among routes of the same prefix, a gateway that did not answer comes last (RFC 4861 6.3.6).
        """
        if is_unspecified(destination):
            return None
        redirected = self._redirects.get(destination)
        if redirected is not None:
            return redirected
        best = None
        for route in routes.candidates(destination):
            if best is None:
                best = route
            if route.prefix_length != best.prefix_length:
                break
            if route.gateway is None:
                return destination
            if route.gateway not in self._dead:
                return route.gateway
        return None if best is None else best.gateway

    def redirect(self, destination: bytes, target: bytes) -> None:
        """Send packets to *destination* to its neighbor *target* first."""
        self._redirects.pop(destination, None)
        if len(self._redirects) >= REDIRECT_LIMIT:
            del self._redirects[next(iter(self._redirects))]
        self._redirects[destination] = target

    def forget_redirects(self, target: bytes) -> None:
        """Send nothing to *target* on behalf of a redirect any more."""
        self._redirects = {
            destination: hop for destination, hop in self._redirects.items() if hop != target
        }

    def neighbor_failed(self, address: bytes, routes: Routes) -> bool:
        """*address* did not answer: others come first from now on; True if it was a first hop."""
        was_target = address in self._redirects.values()
        if was_target:
            self.forget_redirects(address)
        gateways = {route.gateway for route in routes if route.gateway is not None}
        if address not in gateways:
            return was_target
        self._dead.pop(address, None)
        self._dead[address] = None
        same_family = {gateway for gateway in gateways if len(gateway) == len(address)}
        if same_family <= self._dead.keys():
            # Nobody answers: try the others again, one after the other.
            for gateway in same_family - {address}:
                del self._dead[gateway]
        while len(self._dead) > DEAD_LIMIT:
            del self._dead[next(iter(self._dead))]
        return True

    def revive(self, address: bytes) -> None:
        """The gateway *address* was heard of."""
        self._dead.pop(address, None)

    @property
    def sizes(self) -> dict[str, int]:
        """How much every table holds."""
        return {"redirects": len(self._redirects), "dead gateways": len(self._dead)}


def _is_better_source(one: Address, other: Address, destination: bytes) -> bool:
    """True if RFC 6724 5 prefers *one* to *other* for packets to *destination*."""
    if destination in (one.packed, other.packed):
        return one.packed == destination  # rule 1: prefer same address
    scopes = (_scope(one.packed), _scope(other.packed))
    if scopes[0] != scopes[1]:  # rule 2: prefer appropriate scope
        wanted = _scope(destination)
        if scopes[0] < scopes[1]:
            return scopes[0] >= wanted
        return scopes[1] < wanted
    # rule 3: avoid deprecated addresses; RFC 4429 3.3 counts optimistic ones as such
    avoid = (one.is_deprecated or one.is_optimistic, other.is_deprecated or other.is_optimistic)
    if avoid[0] != avoid[1]:
        return avoid[1]
    label = _policy(destination)[1]  # rule 6: prefer matching label
    match = (_policy(one.packed)[1] == label, _policy(other.packed)[1] == label)
    if match[0] != match[1]:
        return match[0]
    # rule 8: use longest matching prefix, as far as the source's own prefix goes
    return min(_common(one.packed, destination), one.prefix_length) > min(
        _common(other.packed, destination), other.prefix_length
    )


def _widen(address: bytes) -> bytes:
    return _V4_MAPPED + address if len(address) == 4 else address


def _policy(address: bytes) -> tuple[int, int]:
    """Precedence and label of a 16-octet address."""
    number = int.from_bytes(address)
    return next(found for prefix, shift, found in _POLICY_NUMBERS if number >> shift == prefix)


def _scope(address: bytes) -> int:
    """RFC 6724 3.1 and 3.2."""
    if len(address) == 16 and is_multicast(address):
        return address[1] & 0xF
    if is_link_local(address) or is_loopback(address):
        return LINK_LOCAL
    if len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0xC0:
        return SITE_LOCAL
    return GLOBAL


def _common(one: bytes, other: bytes) -> int:
    """How many leading bits two addresses share, 64 at most: identifiers say nothing of nearness.

    RFC 6724 2.2 counts up to the length of the source's prefix, which is 64 for all that are made
    of router's prefixes.
    """
    difference = int.from_bytes(one) ^ int.from_bytes(other)
    return min(64, len(one) * 8 - difference.bit_length())
