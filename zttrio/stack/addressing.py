"""How we come by addresses and lose them: configured, claimed, made from prefixes, verified.

The table itself is `zttrio.stack.addresses`; what goes with an address (a route, a group, a probe
for duplicates, an announcement) is seen to here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header.address import solicited_node

from .nd import MAX_ATTEMPTS
from .path import MIN_MTU
from .route import Route
from .slaac import LINK_LOCAL_PREFIX, stable_address

if TYPE_CHECKING:
    from .addresses import Address, Addresses
    from .claim import Claims
    from .groups import Groups
    from .ip import Ip
    from .mld import Mld
    from .nd import NeighborDiscovery
    from .neighbor import Neighbors
    from .route import Routes
    from .routers import Routers

__all__ = ["Addressing"]


class Addressing:
    """The addresses of one stack, and what goes with them.

    Args:
        mac: our hardware address.
        addresses: the table.
        routes: prefixes of our addresses are on the link.
        groups: every IPv6 address has one.
        neighbors: forgets who had an address that is ours now.
        ip: told when sources change, and knows the MTU.
        network: what the network calls itself, if it does (RFC 7217).
        secret: what makes our IPv6 addresses hard to guess (RFC 7217).
        has_unique_mac: addresses that are made from *mac* need no probes (RFC 4862 5.4).

    Attributes:
        claims, discovery, routers, mld: who verifies and announces; set by the stack, since they
            work for us as well.
    """

    claims: Claims
    discovery: NeighborDiscovery
    routers: Routers
    mld: Mld

    def __init__(
        self,
        mac: bytes,
        addresses: Addresses,
        routes: Routes,
        groups: Groups,
        neighbors: Neighbors,
        ip: Ip,
        *,
        network: bytes,
        secret: bytes,
        has_unique_mac: bool,
    ) -> None:
        self._mac = mac
        self._addresses = addresses
        self._routes = routes
        self._groups = groups
        self._neighbors = neighbors
        self._ip = ip
        self._network = network
        self._secret = secret
        self._has_unique_mac = has_unique_mac
        self._link_local: Address | None = None
        # addresses in prefixes that no router gives: which prefix, and how many were duplicates
        self._chosen: dict[bytes, tuple[bytes, int]] = {}

    # for the stack's user

    @property
    def has_ipv6(self) -> bool:
        """True once `start_ipv6` was called."""
        return self._link_local is not None

    def start_ipv6(self, prefix: bytes | None, now: float) -> None:
        """Take a link-local address, and one in *prefix*; see `Stack.start_ipv6`."""
        if self._link_local is not None:
            return
        mtu = self._ip.mtus[16]
        if mtu < MIN_MTU[16]:
            raise ValueError(f"MTU {mtu}: IPv6 needs {MIN_MTU[16]} octets (RFC 8200)")
        self._choose(LINK_LOCAL_PREFIX, 0, now)
        if prefix is not None:
            self._choose(prefix, 0, now)
        self.routers.start(now)

    def add(self, packed: bytes, prefix_length: int, now: float) -> Address:
        """Take a configured address; see `Stack.add_address`."""
        if len(packed) == 16:
            self.start_ipv6(None, now)
        entry = self._add(packed, prefix_length, has_route=True)
        if len(packed) == 16:
            self.discovery.verify(entry, now, is_first=False)
        else:
            self.claims.announce(packed, now)
        return entry

    def remove(self, packed: bytes) -> None:
        """Give up any address; see `Stack.remove_address`."""
        self.claims.forget(packed)
        self._remove(packed)

    # for claims

    def gain_address(self, address: bytes, prefix_length: int, now: float) -> None:
        """Take over a claimed address; see `Claims`."""
        del now
        if address not in self._addresses.entries:
            self._add(address, prefix_length, has_route=True)

    def lose_address(self, address: bytes, now: float) -> None:
        """Give up a claimed address; see `Claims`."""
        del now
        if address in self._addresses.entries:
            self._remove(address)

    # for routers

    def autoconfigure(self, prefix: bytes, attempt: int, now: float) -> Address:
        """Make an address of a router's prefix; see `Routers`."""
        packed = self._stable_address(prefix, attempt)
        entry = self._addresses.entries.get(packed)
        if entry is None:  # it is not there unless somebody has configured this very address
            entry = self._add(packed, 64, has_route=False)
            self._verify(entry, now)
        return entry

    def withdraw(self, entry: Address, now: float) -> None:
        """Give up an address that has expired; see `Routers`."""
        del now
        if self._addresses.entries.get(entry.packed) is entry:
            self._remove(entry.packed)

    # for neighbor discovery

    def address_verified(self, entry: Address, now: float) -> None:
        """Nobody else has *entry*; see `NeighborDiscovery`."""
        del now
        if entry is self._link_local:
            self.mld.membership.repeat()
        self._ip.forget_paths()  # it is as good a source as any other from now on

    def address_duplicated(self, entry: Address, now: float) -> None:
        """Somebody else has *entry*: try another, unless it was configured (RFC 7217 6)."""
        self._remove(entry.packed)
        prefix, attempt = self._chosen.pop(entry.packed, (b"", MAX_ATTEMPTS))
        if attempt < MAX_ATTEMPTS:
            self._choose(prefix, attempt + 1, now)
        else:
            self.routers.duplicated(entry, MAX_ATTEMPTS, now)

    def _choose(self, prefix: bytes, attempt: int, now: float) -> None:
        """Take an address in a prefix that no router gives."""
        entry = self._add(self._stable_address(prefix, attempt), 64, has_route=True)
        self._chosen[entry.packed] = (prefix, attempt)
        if prefix == LINK_LOCAL_PREFIX:
            self._link_local = entry
            self.routers.source = entry.packed
        self._verify(entry, now)

    def _stable_address(self, prefix: bytes, attempt: int) -> bytes:
        network = b"" if prefix == LINK_LOCAL_PREFIX else self._network
        return stable_address(prefix, self._mac, network, attempt, self._secret)

    def _verify(self, entry: Address, now: float) -> None:
        """See to it that nobody else has *entry*, which was made from our hardware address."""
        if self._has_unique_mac:
            entry.is_optimistic = False
            self.address_verified(entry, now)
        else:
            self.discovery.verify(entry, now, is_first=True)

    def _add(self, packed: bytes, prefix_length: int, *, has_route: bool) -> Address:
        is_v6 = len(packed) == 16
        entry = self._addresses.add(packed, prefix_length, is_optimistic=is_v6)
        self._neighbors.forget(packed)
        if is_v6:
            self._groups.join(solicited_node(packed))
        if has_route and prefix_length < len(packed) * 8:
            entry.has_route = True
            self._routes.add(Route(entry.prefix, prefix_length))
        return entry

    def _remove(self, packed: bytes) -> None:
        gone = self._addresses.remove(packed)
        if len(packed) == 16:
            self.discovery.forget(packed)
            self._groups.leave(solicited_node(packed))
        if gone.has_route and not any(
            entry.has_route
            and entry.prefix == gone.prefix
            and entry.prefix_length == gone.prefix_length
            for entry in self._addresses.entries.values()
        ):
            self._routes.remove(Route(gone.prefix, gone.prefix_length))
