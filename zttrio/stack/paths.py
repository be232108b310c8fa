"""What is known about the way to each destination, worked out once and remembered.

Decides nothing about packets: `ip` sends them the way that it learns here.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING

from zttrio.header import ipv4, ipv6
from zttrio.header.address import (
    BROADCAST_MAC,
    ip_text,
    is_loopback,
    is_multicast,
    is_unspecified,
    multicast_mac,
    packed,
)
from zttrio.header.checksum import sum_of
from zttrio.header.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader

from .neighbor import Neighbor
from .path import GROUP, LOCAL, MIN_MTU, NOWHERE, UNICAST, Path, PathMtus

if TYPE_CHECKING:
    import random

    from .addresses import Addresses
    from .route import Routes
    from .selection import Selection
    from .timers import TimerQueue

__all__ = ["LOOPBACK_MTU", "Paths"]

_IPV4_LOOPBACK = packed("127.0.0.1")
LOOPBACK_MTU = 65535
JUMBO_SEGMENT = 1 << 20  # octets of the largest super-segment; arbitrary
PATH_LIMIT = 4096  # destinations remembered; arbitrary
_MAX_TRANSPORT_HEADER = 60  # what a super-segment leaves room for, so that 16 bits hold its length


class Paths:
    """The ways from one stack.

    Args:
        mac: our hardware address.
        mtu: octets of the largest packet on the wire.
        max_segment: octets of TCP payload that the wire takes under one header, or 0; only more
            than 65535 let super-segments be longer than a packet may be.
        checksum_offload: the wire takes CHECKSUM_PARTIAL.
        preferred_packet: octets of the largest packet that TCP sends on the wire, 0 for *mtu*.
        addresses: what is ours.
        routes: where packets go.
        selection: which of our addresses packets come from.
        timers: for path MTUs.
        hop_limit: of packets whose sender does not say.
        rng: first IPv4 identifications.

    Attributes:
        mtus: octets of the largest packet on the wire, by octets of an address.
        hop_limits: of packets whose sender does not say, by octets of an address.
        pmtus: path MTUs that were reported.
    """

    def __init__(
        self,
        *,
        mac: bytes,
        mtu: int,
        max_segment: int,
        checksum_offload: bool,
        preferred_packet: int,
        addresses: Addresses,
        routes: Routes,
        selection: Selection,
        timers: TimerQueue,
        hop_limit: int,
        rng: random.Random,
    ) -> None:
        self.mtus: dict[int, int] = {4: mtu, 16: mtu}
        self.hop_limits: dict[int, int] = {4: hop_limit, 16: hop_limit}
        self.pmtus: PathMtus = PathMtus(timers, self._forget_path)
        self._mac = mac
        if max_segment <= LOOPBACK_MTU:  # a wire for frames whose length fits into their header
            most = LOOPBACK_MTU - ipv4.LENGTH - _MAX_TRANSPORT_HEADER
        else:
            most = JUMBO_SEGMENT
        self._max_segment = min(max_segment, most)
        self._needs_checksum = not checksum_offload
        self._preferred = preferred_packet
        self._addresses = addresses
        self._routes = routes
        self._selection = selection
        self._rng = rng
        self._paths: dict[bytes, Path] = {}

    def is_local(self, address: bytes) -> bool:
        """True if packets to *address* stay here: our own addresses and the loopback ones."""
        return self._addresses.is_ours(address) or is_loopback(address)

    def may_bind(self, address: bytes) -> bool:
        """True if a socket may have *address* as its own: local, unspecified, or a group's."""
        return (
            self.is_local(address)
            or is_unspecified(address)
            or is_multicast(address)
            or address in self._addresses.broadcasts
        )

    def is_group(self, address: bytes) -> bool:
        """True for multicast and broadcast addresses."""
        return is_multicast(address) or address in self._addresses.broadcasts

    def is_broadcast(self, address: bytes) -> bool:
        """True for the limited broadcast address and those of our prefixes."""
        return address in self._addresses.broadcasts

    def path(self, destination: bytes) -> Path:
        """What is known about the way to *destination*; remembered."""
        path = self._paths.get(destination)
        if path is None:
            if len(self._paths) >= PATH_LIMIT:
                del self._paths[next(iter(self._paths))]
            path = self._paths[destination] = self._find_path(destination)
        return path

    def select_source(self, destination: bytes) -> bytes:
        """The packed address that packets to *destination* come from.

        Raises:
            OSError: ENETUNREACH, no route or no address of that family.
        """
        path = self.path(destination)
        if path.kind == NOWHERE:
            raise OSError(path.error, f"{ip_text(destination)}: no route or no address to use")
        return path.source

    def path_mtu(self, destination: bytes) -> int:
        """Octets of the largest packet to *destination*, as far as is known."""
        return self.path(destination).mtu

    def segment_mtu(self, destination: bytes) -> int:
        """Octets of the largest packet to *destination* that TCP should send."""
        path = self.path(destination)
        if self._preferred and path.kind == UNICAST:
            return min(path.mtu, self._preferred)
        return path.mtu

    def needs_checksum(self, destination: bytes) -> bool:
        """False if a transport may leave its checksum CHECKSUM_PARTIAL.

        The field then holds the folded pseudo-header sum, not complemented.
        """
        return self.path(destination).needs_checksum

    def max_segment(self, destination: bytes) -> int:
        """Octets of TCP payload that may go under one header, or 0 for plain segments only."""
        return self.path(destination).max_segment

    def forget_paths(self) -> None:
        """Work out every path again; called when addresses, routes or routers change."""
        self._paths.clear()

    def _forget_path(self, destination: bytes) -> None:
        self._paths.pop(destination, None)

    def _find_path(self, destination: bytes) -> Path:
        octets = len(destination)
        if self.is_local(destination):
            path = Path(destination, LOCAL, Neighbor(destination))
            # As on Linux, all of 127.0.0.0/8 hears from 127.0.0.1.
            is_one_of_many = octets == 4 and not self._addresses.is_ours(destination)
            path.source = _IPV4_LOOPBACK if is_one_of_many else destination
            path.mtu = LOOPBACK_MTU
            path.max_segment = JUMBO_SEGMENT  # no header has to say how long it is
            path.needs_checksum = False
        elif self.is_group(destination):
            path = self._group_path(destination)
        else:
            path = self._unicast_path(destination)
        path.room = path.mtu - (ipv4.LENGTH if octets == 4 else ipv6.LENGTH)
        if path.source:
            path.address_sum = sum_of(path.source + destination)
        path.identification = self._rng.getrandbits(16)
        return path

    def _group_path(self, destination: bytes) -> Path:
        path = Path(destination, GROUP, Neighbor(destination))
        path.is_broadcast = self.is_broadcast(destination)
        path.hop_limit = self.hop_limits[4] if path.is_broadcast else 1  # RFC 1112 6.1
        path.mtu = self.mtus[len(destination)]
        path.needs_checksum = self._needs_checksum
        source = self._selection.source(destination, destination)
        if source is None:
            path.kind = NOWHERE
            path.error = errno.ENETUNREACH
            return path
        path.source = source
        neighbor = path.neighbor
        neighbor.mac = BROADCAST_MAC if path.is_broadcast else multicast_mac(destination)
        ethertype = ETHERTYPE_IPV4 if len(destination) == 4 else ETHERTYPE_IPV6
        neighbor.ethernet = EthernetHeader(neighbor.mac, self._mac, ethertype).emit()
        neighbor.fresh_until = inf
        return path

    def _unicast_path(self, destination: bytes) -> Path:
        next_hop = self._selection.next_hop(destination, self._routes)
        source = None if next_hop is None else self._selection.source(destination, next_hop)
        if next_hop is None or source is None:
            path = Path(destination, NOWHERE, Neighbor(destination))
            path.error = errno.ENETUNREACH
            path.mtu = self.mtus[len(destination)]
            return path
        # fresh_until of a new entry makes the first packet look in the cache
        path = Path(destination, UNICAST, Neighbor(next_hop))
        path.next_hop = next_hop
        path.source = source
        path.hop_limit = self.hop_limits[len(destination)]
        path.needs_checksum = self._needs_checksum
        path.max_segment = self._max_segment
        reported = self.pmtus.get(destination)
        smallest = MIN_MTU[len(destination)]
        mtu = self.mtus[len(destination)]
        path.mtu = mtu if reported is None else min(mtu, max(reported, smallest))
        path.may_discover = reported is None or reported >= smallest
        return path
