"""Neighbor discovery between hosts: solicitations, advertisements, duplicates (RFC 4861, RFC 4862).

What routers say is handed to `zttrio.stack.routers`.  Everything is checked before it is believed:
hop limit 255 proves that a message comes from the link, and what comes in fragments is ignored (RFC
6980).  An entry of the neighbor cache is made by our own question, or by a question for us from an
address on the link; everything else can only change an entry that is there.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs

from zttrio.errors import HeaderError
from zttrio.header import icmpv6, ndp
from zttrio.header.address import (
    ALL_NODES,
    IPV6_UNSPECIFIED,
    is_link_local,
    is_multicast,
    is_multicast_mac,
    multicast_mac,
    solicited_node,
)
from zttrio.header.ethernet import ETHERTYPE_IPV6, EthernetHeader
from zttrio.header.frame import Buffer, Frame
from zttrio.header.ipv4 import PROTOCOL_ICMPV6
from zttrio.header.ipv6 import Ipv6Header

from .neighbor import INCOMPLETE, REACHABLE, Neighbors

if TYPE_CHECKING:
    import random

    from zttrio.config import Config

    from .addresses import Address, Addresses
    from .counters import Counters
    from .packet import Packet
    from .timers import TimerQueue

__all__ = ["HOP_LIMIT", "KINDS", "NeighborDiscovery"]

HOP_LIMIT = 255  # RFC 4861 3.1: no router has forwarded it
MAX_RTR_SOLICITATION_DELAY = 1.0  # RFC 4861 10
MAX_ATTEMPTS = 3  # RFC 7217 7 IDGEN_RETRIES

KINDS = (
    icmpv6.ROUTER_SOLICITATION,
    icmpv6.ROUTER_ADVERTISEMENT,
    icmpv6.NEIGHBOR_SOLICITATION,
    icmpv6.NEIGHBOR_ADVERTISEMENT,
    icmpv6.REDIRECT,
)


class Link(Protocol):
    """What neighbor discovery sees of the link: the stack."""

    def transmit(self, frame: Frame) -> None:
        """Send a complete frame."""

    def is_neighbor(self, address: bytes) -> bool:
        """True if *address* is on the link, as far as we know."""


class DiscoveryUser(Protocol):
    """Who has addresses verified."""

    def address_verified(self, entry: Address, now: float) -> None:
        """Nobody else has this address."""

    def address_duplicated(self, entry: Address, now: float) -> None:
        """Somebody else has it."""


class RouterListener(Protocol):
    """Who listens to routers."""

    def receive_advertisement(self, source: bytes, data: Buffer, now: float) -> None:
        """Take in a router advertisement from the link-local *source*."""

    def receive_redirect(self, source: bytes, data: Buffer, now: float) -> None:
        """Take in a redirect from the link-local *source*."""

    def router_vanished(self, address: bytes, now: float) -> None:
        """A neighbor says that it is no router any more."""


@attrs.define(eq=False)
class _Probe:
    """Duplicate address detection of one address.

    Attributes:
        entry: the address.
        due: when the next solicitation is sent, or success declared.
        sent: solicitations so far.
        nonce: in our own solicitations, to know them when they come back (RFC 7527).
    """

    entry: Address
    due: float
    sent: int
    nonce: bytes


class NeighborDiscovery:
    """The neighbor discovery of one stack; a timer owner.

    Args:
        mac: our hardware address.
        addresses: what is ours.
        neighbors: what is learned goes there.
        link: sends, and knows who is on it.
        user: hears about duplicates.
        routers: hears what routers say.
        timers: where the one deadline is kept.
        counters: what is counted.
        config: how often an address is probed.
        rng: nonces and delays.
    """

    def __init__(
        self,
        mac: bytes,
        addresses: Addresses,
        neighbors: Neighbors,
        link: Link,
        user: DiscoveryUser,
        routers: RouterListener,
        timers: TimerQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        self.deadline = inf
        self.queued = inf
        self._mac = mac
        self._addresses = addresses
        self._neighbors = neighbors
        self._link = link
        self._user = user
        self._routers = routers
        self._timers = timers
        self._counters = counters
        self._transmits = config.dad_transmits
        self._rng = rng
        self._probes: dict[bytes, _Probe] = {}

    # our own questions

    def solicit(self, address: bytes, mac: bytes | None, source: bytes) -> None:
        """Ask who has *address*: everybody who could, or only *mac* if that is not None.

        Args:
            address: packed.
            mac: where it was last seen, to be verified.
            source: our packed address, for the answer; must be ours.
        """
        destination = solicited_node(address) if mac is None else address
        entry = self._addresses.entries.get(source)
        message = ndp.NeighborSolicitation(address)
        if entry is None or not entry.is_optimistic:
            # RFC 4429 3.2: while somebody else may have our address, nobody is to learn it
            message.options.source_mac = self._mac
        self.send(message.emit(source, destination), source, destination, mac)

    def verify(self, entry: Address, now: float, *, is_first: bool) -> None:
        """Find out whether somebody else has *entry* (RFC 4862 5.4).

        Args:
            entry: the address; its user hears how it ended.
            now: seconds.
            is_first: everybody else may be starting at this moment too: wait for up to a second.
        """
        if not self._transmits:
            entry.is_optimistic = False
            self._user.address_verified(entry, now)
            return
        delay = self._rng.uniform(0, MAX_RTR_SOLICITATION_DELAY) if is_first else 0.0
        probe = _Probe(entry, now + delay, 0, self._rng.randbytes(6))
        self._probes[entry.packed] = probe
        if delay == 0.0:
            self._step(probe, now)
        self._rearm()

    def forget(self, address: bytes) -> None:
        """Stop verifying *address*."""
        self._probes.pop(address, None)

    def handle_timer(self, now: float) -> None:
        """Send the next probe, or believe in the address."""
        for probe in list(self._probes.values()):
            if probe.due <= now:
                self._step(probe, now)
        self._rearm()

    def __len__(self) -> int:
        return len(self._probes)

    # what others say

    def receive_message(self, packet: Packet, kind: int, data: Buffer, now: float) -> None:
        """Take in one message of neighbor discovery.  Never raises."""
        counters = self._counters
        if packet.hop_limit != HOP_LIMIT or data[1] != 0 or packet.was_fragmented:
            counters.nd_refused += 1
            return
        try:
            if kind == icmpv6.NEIGHBOR_SOLICITATION:
                self._receive_solicitation(packet, ndp.NeighborSolicitation.parse(data), now)
            elif kind == icmpv6.NEIGHBOR_ADVERTISEMENT:
                self._receive_advertisement(packet, ndp.NeighborAdvertisement.parse(data), now)
            elif kind == icmpv6.ROUTER_SOLICITATION:
                counters.nd_ignored += 1  # for routers only
            elif not is_link_local(packet.source):
                counters.nd_refused += 1
            elif kind == icmpv6.ROUTER_ADVERTISEMENT:
                self._routers.receive_advertisement(packet.source, data, now)
            else:
                self._routers.receive_redirect(packet.source, data, now)
        except HeaderError:
            counters.nd_malformed += 1

    def _receive_solicitation(
        self, packet: Packet, message: ndp.NeighborSolicitation, now: float
    ) -> None:
        """RFC 4861 7.1.1 and 7.2.3, RFC 4862 5.4.3."""
        counters = self._counters
        source = packet.source
        target = message.target
        mac = message.options.source_mac
        is_probe = source == IPV6_UNSPECIFIED
        if is_multicast(target) or (
            is_probe and (packet.destination != solicited_node(target) or mac is not None)
        ):
            counters.nd_refused += 1
            return
        entry = self._addresses.entries.get(target)
        if entry is None:
            counters.nd_ignored += 1
            return
        if is_probe:
            probe = self._probes.get(target)
            if probe is not None:
                if message.options.nonce == probe.nonce:
                    counters.nd_ignored += 1  # our own, by a loop in the wire
                else:
                    counters.nd_duplicates += 1
                    self._duplicated(probe, now)
                return
            counters.nd_answered += 1
            self._advertise(entry, ALL_NODES, None, is_solicited=False)
            return
        if not self._link.is_neighbor(source) or (mac is not None and self._is_bad_mac(mac)):
            counters.nd_refused += 1
            return
        counters.nd_answered += 1
        if mac is not None:
            self._neighbors.learn(source, mac, now)
            self._advertise(entry, source, mac, is_solicited=True)
            return
        neighbor = self._neighbors.use(source, target, now)
        frame = self._advertisement(entry, source, neighbor.mac, is_solicited=True)
        if neighbor.state == INCOMPLETE:
            self._neighbors.enqueue(neighbor, frame, now)
        else:
            self._link.transmit(frame)

    def _receive_advertisement(
        self, packet: Packet, message: ndp.NeighborAdvertisement, now: float
    ) -> None:
        """RFC 4861 7.1.2 and 7.2.5, RFC 4862 5.4.4."""
        counters = self._counters
        target = message.target
        mac = message.options.target_mac
        if (
            is_multicast(target)
            or (is_multicast(packet.destination) and message.is_solicited)
            or (mac is not None and self._is_bad_mac(mac))
        ):
            counters.nd_refused += 1
            return
        if target in self._addresses.entries:
            probe = self._probes.get(target)
            if probe is not None:
                counters.nd_duplicates += 1
                self._duplicated(probe, now)
            else:
                counters.nd_conflicts += 1  # too late to yield (RFC 4862 5.4.4 leaves it open)
            return
        neighbor = self._neighbors.get(target)
        if neighbor is None or (mac is None and neighbor.state == INCOMPLETE):
            counters.nd_ignored += 1
            return
        counters.nd_advertisements += 1
        was_router = neighbor.is_router
        if neighbor.state == INCOMPLETE:
            neighbor.is_router = message.is_router
            if message.is_solicited:
                self._neighbors.set_reachable(neighbor, now, mac)
            else:
                self._neighbors.set_stale(neighbor, mac)
            return
        is_news = mac is not None and mac != neighbor.mac
        if is_news and not message.is_override:
            if neighbor.state == REACHABLE:
                self._neighbors.set_stale(neighbor)
            return
        if message.is_solicited:
            self._neighbors.set_reachable(neighbor, now, mac if is_news else None)
        elif is_news:
            self._neighbors.set_stale(neighbor, mac)
        neighbor.is_router = message.is_router
        if was_router and not message.is_router:
            self._routers.router_vanished(target, now)

    def _is_bad_mac(self, mac: bytes) -> bool:
        return is_multicast_mac(mac) or mac == self._mac or not any(mac)

    # out

    def send(self, message: bytes, source: bytes, destination: bytes, mac: bytes | None) -> None:
        """Send one message to a neighbor whose hardware address is known.

        Args:
            message: from its ICMPv6 type on, with its checksum.
            source: packed.
            destination: packed.
            mac: where to; None if *destination* is a group.
        """
        self._link.transmit(self._frame(message, source, destination, mac))

    def _frame(self, message: bytes, source: bytes, destination: bytes, mac: bytes | None) -> Frame:
        if mac is None:
            mac = multicast_mac(destination)
        ethernet = EthernetHeader(mac, self._mac, ETHERTYPE_IPV6)
        header = Ipv6Header(source, destination, PROTOCOL_ICMPV6, len(message), HOP_LIMIT)
        self._counters.nd_out += 1
        return Frame(ethernet.emit() + header.emit() + message)

    def _advertise(
        self, entry: Address, destination: bytes, mac: bytes | None, *, is_solicited: bool
    ) -> None:
        self._link.transmit(self._advertisement(entry, destination, mac, is_solicited=is_solicited))

    def _advertisement(
        self, entry: Address, destination: bytes, mac: bytes | None, *, is_solicited: bool
    ) -> Frame:
        message = ndp.NeighborAdvertisement(
            entry.packed,
            is_solicited=is_solicited,
            is_override=not entry.is_optimistic,  # RFC 4429 3.3
        )
        message.options.target_mac = self._mac
        octets = message.emit(entry.packed, destination)
        return self._frame(octets, entry.packed, destination, mac)

    # duplicate address detection

    def _step(self, probe: _Probe, now: float) -> None:
        entry = probe.entry
        if probe.sent == self._transmits:
            del self._probes[entry.packed]
            entry.is_optimistic = False
            self._user.address_verified(entry, now)
            return
        probe.sent += 1
        probe.due = now + self._neighbors.retry_interval[16]
        message = ndp.NeighborSolicitation(entry.packed)
        message.options.nonce = probe.nonce
        destination = solicited_node(entry.packed)
        octets = message.emit(IPV6_UNSPECIFIED, destination)
        self.send(octets, IPV6_UNSPECIFIED, destination, None)

    def _duplicated(self, probe: _Probe, now: float) -> None:
        del self._probes[probe.entry.packed]
        self._rearm()
        self._user.address_duplicated(probe.entry, now)

    def _rearm(self) -> None:
        self.deadline = min((probe.due for probe in self._probes.values()), default=inf)
        self._timers.schedule(self)
