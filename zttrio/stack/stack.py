"""The network stack: frames and time in, frames and events out.

Nothing here sleeps, sends or reads a clock.  The owner calls `Stack.receive` and
`Stack.handle_timers` with the current time; after these, and after every call on an endpoint, it
takes `Stack.frames_to_send` until that is empty and then ``events.take()``, and calls
`Stack.handle_timers` again no later than `Stack.next_timer` says.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from zttrio.config import Config
from zttrio.header import arp as arp_header
from zttrio.header import ethernet
from zttrio.header.address import BROADCAST_MAC, is_link_local, multicast_mac
from zttrio.header.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    EthernetHeader,
)
from zttrio.header.frame import Frame
from zttrio.header.ipv4 import PROTOCOL_TCP

from . import nd
from .addresses import Addresses
from .addressing import Addressing
from .arp import Arp
from .claim import Claims
from .counters import Counters
from .events import EventQueue
from .groups import Groups
from .icmp import Icmp
from .igmp import Igmp
from .ip import Ip
from .ipv4 import Ipv4Input
from .ipv6 import Ipv6Input
from .mld import Mld
from .nd import NeighborDiscovery
from .neighbor import Neighbors
from .packet import Packet
from .path import MIN_MTU
from .ports import Ports
from .reassembly import Reassembly
from .route import Route, Routes
from .routers import Routers
from .selection import Selection
from .tcp.layer import TcpLayer
from .timers import TimerQueue
from .udp import UdpLayer

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from .addresses import Address, Interface
    from .claim import Claim
    from .neighbor import Neighbor

__all__ = ["Stack"]

_FRONT = struct.Struct("!6s6sHBBHHHBBH4s4s")  # Ethernet and IPv4 headers
_FRAGMENT_BITS = 0x3FFF  # more fragments, and the offset
_MAX_FRAME = ethernet.LENGTH + 40 + 0xFFFF  # the longest IPv6 packet that is no jumbogram
_SETTLE_ROUNDS = 1000  # a conversation with ourselves that goes on longer waits for the next call


class Stack:
    """TCP/IP for one hardware address on one wire.

    Args:
        mac: the six octets of our hardware address.
        mtu: octets of the largest IP packet on the wire.
        rng: the source of everything that must be hard to guess.
        config: every number that can be turned.
        max_segment: octets of TCP payload the wire takes under one header, 0 for plain segments.
        checksum_offload: the wire finishes transport checksums (CHECKSUM_PARTIAL).
        preferred_packet: octets of the largest packet that TCP sends, 0 for *mtu*.
        network: what the network calls itself, if it does: we have other IPv6 addresses elsewhere.
        secret: makes our IPv6 addresses the same at every start (RFC 7217), and hard to guess; by
            default they are new ones each time.
        has_unique_mac: the wire sees to it that no other station has *mac*, so addresses that are
            made from it are used without duplicate address detection (RFC 4862 5.4 allows that).

    Attributes:
        ip, tcp, udp, icmp, igmp, mld, neighbors, routers, routes, ports, addresses, groups, claims,
            selection: the layers and tables.
        counters: what has happened, by reason.
        timers: all deadlines.
        events: endpoints with something to tell.

    Raises:
        ValueError: *mac* is no station's address, or *mtu* is below IPv4's 68 octets.
    """

    def __init__(
        self,
        *,
        mac: bytes,
        mtu: int,
        rng: random.Random,
        config: Config | None = None,
        max_segment: int = 0,
        checksum_offload: bool = False,
        preferred_packet: int = 0,
        network: bytes = b"",
        secret: bytes | None = None,
        has_unique_mac: bool = False,
    ) -> None:
        if len(mac) != 6 or mac[0] & 1 or not any(mac):
            raise ValueError(f"MAC {mac.hex(':')}: not the address of a station")
        if mtu < 68:
            raise ValueError(f"MTU {mtu}: IPv4 needs 68 octets (RFC 791)")
        config = Config() if config is None else config
        self.mac = mac
        self.counters = Counters()
        self.timers = TimerQueue()
        self.events = EventQueue()
        self.ports = Ports(rng, config.ephemeral_ports)
        self.addresses = Addresses(self._changed)
        self.routes = Routes(self._changed)
        self.groups = Groups()
        self.selection = Selection(self.addresses)
        self.ip = Ip(
            mac=mac,
            mtu=mtu,
            max_segment=max_segment,
            checksum_offload=checksum_offload,
            preferred_packet=preferred_packet,
            addresses=self.addresses,
            routes=self.routes,
            groups=self.groups,
            selection=self.selection,
            timers=self.timers,
            counters=self.counters,
            config=config,
            rng=rng,
        )
        self.neighbors = Neighbors(mac, self, self.timers, self.counters, config, rng)
        self.ip.neighbors = self.neighbors
        self._addressing = addressing = Addressing(
            mac,
            self.addresses,
            self.routes,
            self.groups,
            self.neighbors,
            self.ip,
            network=network,
            secret=rng.randbytes(16) if secret is None else secret,
            has_unique_mac=has_unique_mac,
        )
        self.claims = addressing.claims = Claims(
            mac, self, addressing, self.timers, self.events, self.counters, config, rng
        )
        self._arp = Arp(mac, self.addresses, self.neighbors, self.claims, self, self.counters)
        self.icmp = Icmp(self.ip, self.events, self.counters, config, rng)
        self._reassembly = Reassembly(
            self.timers, self.counters, config, self.icmp.reassembly_expired
        )
        self._ipv4 = Ipv4Input(
            self.ip, self.addresses, self.groups, self._reassembly, self.icmp, self.counters
        )
        self.routers = addressing.routers = Routers(
            mac,
            self,
            addressing,
            self.ip,
            self.addresses,
            self.routes,
            self.selection,
            self.neighbors,
            self.timers,
            self.counters,
            config,
            rng,
        )
        self._nd = addressing.discovery = NeighborDiscovery(
            mac,
            self.addresses,
            self.neighbors,
            self,
            addressing,
            self.routers,
            self.timers,
            self.counters,
            config,
            rng,
        )
        self.icmp.v6.register(nd.KINDS, self._nd)
        self.igmp = Igmp(
            self.ip, self, self.addresses, self.groups, self.timers, self.counters, rng
        )
        self.mld = addressing.mld = Mld(
            self.icmp.v6,
            self.ip,
            self,
            self.addresses,
            self.groups,
            self.timers,
            self.counters,
            rng,
        )
        self._ipv6 = Ipv6Input(
            self.ip, self.addresses, self.groups, self._reassembly, self.icmp, self.counters
        )
        self.udp = UdpLayer(
            self.ip, self.icmp, self.ports, self.groups, self.events, self.counters, config
        )
        self.tcp = TcpLayer(
            self.ip, self.ports, self.timers, self.events, self.counters, config, rng
        )

    # addresses and routes

    def start_ipv6(self, now: float, prefix: bytes | None = None) -> None:
        """Take a link-local IPv6 address, and look for routers; once is enough.

        Args:
            now: seconds.
            prefix: 16 octets of a /64 in which to take an address as well, None for none.

        Raises:
            ValueError: the MTU is below IPv6's 1280 octets.
        """
        self._addressing.start_ipv6(prefix, now)

    @property
    def has_ipv6(self) -> bool:
        """True once `start_ipv6` was called."""
        return self._addressing.has_ipv6

    def add_address(self, interface: Interface, now: float) -> Address:
        """Make *interface*'s address ours and its prefix on-link; others are told.

        An IPv4 address that another host has as well is defended, but kept (RFC 5227 2.4 c): who
        configured it knows better.  An IPv6 address is used at once, and given up if duplicate
        address detection finds another host that has it (RFC 4862, RFC 4429).

        Raises:
            ValueError: no host can have that address, or the MTU is too small for IPv6.
            OSError: EEXIST, it is ours already.
        """
        return self._addressing.add(interface.ip.packed, interface.network.prefixlen, now)

    def remove_address(self, interface: Interface | IPv4Address | IPv6Address, now: float) -> None:
        """Make the address no longer ours.

        Raises:
            OSError: EADDRNOTAVAIL, it is not ours.
        """
        del now
        self._addressing.remove(getattr(interface, "ip", interface).packed)

    def claim_address(self, now: float, interface: Interface | None = None) -> Claim:
        """Take an address only if nobody else has it (RFC 5227).

        Args:
            now: seconds.
            interface: the address to claim; None finds one in 169.254.0.0/16 (RFC 3927), and
                another whenever it is lost.

        Raises:
            ValueError: it is being claimed already.
        """
        if interface is None:
            return self.claims.claim_link_local(now)
        return self.claims.claim(interface.ip.packed, interface.network.prefixlen, now)

    def add_route(
        self,
        prefix: IPv4Network | IPv6Network,
        gateway: IPv4Address | IPv6Address | None,
        metric: int = 0,
    ) -> Route:
        """Send packets to *prefix* through *gateway*, or straight to their destinations.

        Raises:
            ValueError: the gateway is of another family.
        """
        route = Route(
            prefix.network_address.packed,
            prefix.prefixlen,
            None if gateway is None else gateway.packed,
            metric,
        )
        self.routes.add(route)
        return route

    def remove_route(self, route: Route) -> None:
        """Take back `add_route`.

        Raises:
            KeyError: there is no such route.
        """
        self.routes.remove(route)

    def set_mtu(self, mtu: int) -> None:
        """Send packets of up to *mtu* octets from now on.

        Connections that send larger ones cut what they have, as for a path that has become
        narrower.

        Raises:
            ValueError: below IPv4's 68 octets, or IPv6's 1280 if we take part in that.
        """
        smallest = MIN_MTU[16] if self.has_ipv6 else MIN_MTU[4]
        if mtu < smallest:
            raise ValueError(f"MTU {mtu}: needs {smallest} octets")
        self.ip.mtus.update({4: mtu, 16: mtu})
        self.routers.set_link_mtu(mtu)
        self.ip.forget_paths()

    def order_destinations(self, destinations: Iterable[bytes]) -> list[bytes]:
        """Packed addresses of one name, the best to try first (RFC 6724 6)."""
        return self.selection.order(destinations, self.routes)

    # what the driver calls

    def receive(self, frames: Sequence[Frame], now: float) -> None:
        """Take in a burst from the wire.  Never raises, whatever the octets."""
        counters = self.counters
        addresses = self.addresses
        transports = self.ip.transports(4)
        mac = self.mac
        octets = delivered = 0
        for frame in frames:
            header = frame.header
            payload = frame.payload
            size = len(header)
            length = size + len(payload)
            octets += length
            if size < 34:
                self._receive_short(frame, length, now)
                continue
            (
                destination_mac,
                source_mac,
                ethertype,
                first,
                traffic_class,
                total_length,
                _,
                fragment,
                ttl,
                protocol,
                _,
                source,
                destination,
            ) = _FRONT.unpack_from(header)
            end = total_length + 14
            lead = source[0]
            if (
                first == 0x45
                and ethertype == ETHERTYPE_IPV4
                and destination_mac == mac
                and not fragment & _FRAGMENT_BITS
                and 0 < lead < 224
                and lead != 127
                and destination in addresses.ours
                and protocol in transports
                and (
                    end == length
                    or (not payload and 34 <= end < length <= _MAX_FRAME)
                    or (
                        not total_length  # a super-segment that is longer than any packet
                        and frame.gso_size
                        and length > ethernet.LENGTH + 0xFFFF
                        and payload
                        and protocol == PROTOCOL_TCP
                    )
                )
                and not source_mac[0] & 1
                and source_mac != mac
                and source not in addresses.ours
                and source not in addresses.broadcasts
            ):
                # The common case, checked as thoroughly as the others and in one place.
                ip_header = header[14:34]
                if not frame.checksum and int.from_bytes(ip_header) % 0xFFFF:
                    counters.ip_in += 1
                    counters.ip_bad_checksum += 1
                    continue
                delivered += 1
                transports[protocol].receive_packet(
                    Packet(
                        source,
                        destination,
                        protocol,
                        header[34:] if payload else memoryview(header)[34:end],
                        payload,
                        ip_header,
                        ttl,
                        traffic_class,
                        frame.checksum,
                        frame.gso_size,
                    ),
                    now,
                )
            elif not (
                ethertype == ETHERTYPE_IPV6
                and destination_mac == mac
                and size >= 54
                and (length <= _MAX_FRAME or (frame.gso_size and payload))
                and not source_mac[0] & 1
                and source_mac != mac
                and self._ipv6.receive_plain(header, payload, frame.checksum, frame.gso_size, now)
            ):
                self._receive_frame(frame, destination_mac, source_mac, ethertype, length, now)
        counters.frames_in += len(frames)
        counters.octets_in += octets
        counters.ip_in += delivered
        counters.ip_delivered += delivered
        self.tcp.end_of_burst(now)
        self._settle(now)

    def handle_timers(self, now: float) -> None:
        """Do what is due."""
        self.timers.handle_timers(now)
        self._settle(now)

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, in seconds, or None if never.

        May be early, never late.
        """
        return self.timers.next_timer() if self.ip.is_settled else 0.0

    @property
    def is_quiet(self) -> bool:
        """True if there is nothing to send and nothing to tell."""
        ip = self.ip
        return not (ip.outbox or self.tcp.dirty or self.events.waits or not ip.is_settled)

    def frames_to_send(self, now: float, limit: int) -> list[Frame]:
        """At most *limit* frames for the wire, in order; fewer only if there are no more.

        What was queued comes first, then TCP makes segments for the room that is left, so that
        what the wire does not take stays in the send buffers.
        """
        ip = self.ip
        outbox = ip.outbox
        if not outbox and not self.tcp.dirty and ip.is_settled:
            return []  # as often as not: it is asked until there is no more
        self._settle(now)
        while len(outbox) < limit and self.tcp.pump(now, limit - len(outbox)):
            self._settle(now)  # segments to ourselves
        count = min(limit, len(outbox))
        frames = [outbox.popleft() for _ in range(count)]
        if frames:
            self.counters.frames_out += count
            self.counters.octets_out += sum([len(f.header) + len(f.payload) for f in frames])
            if not self.ip.is_congested:
                self.udp.wake_blocked()
        return frames

    @property
    def sizes(self) -> dict[str, int]:
        """How much every table that the network can fill holds, by name; all are bounded."""
        return {
            **self.ip.sizes,
            **self.udp.sizes,
            **self.routers.sizes,
            **self.selection.sizes,
            "neighbors": len(self.neighbors),
            "octets that wait for neighbors": self.neighbors.waiting_octets,
            "unfinished packets": len(self._reassembly),
            "octets of unfinished packets": self._reassembly.memory,
            "addresses": len(self.addresses),
            "addresses being verified": len(self._nd),
            "groups": len(self.groups),
            "reports of membership": self.igmp.membership.sizes + self.mld.membership.sizes,
            "pings": len(self.icmp.echoes),
            "timers": len(self.timers),
            "ports": len(self.ports),
        }

    # what the layers call

    def solicit(self, address: bytes, mac: bytes | None, source: bytes, now: float) -> None:
        """Ask who has *address*; see `Neighbors`."""
        del now
        if source not in self.addresses.ours:  # it was removed while a packet waited
            found = self.selection.source(address, address)
            if found is None:
                return
            source = found
        if len(address) == 4:
            self._arp.solicit(address, mac, source)
        else:
            self._nd.solicit(address, mac, source)

    def transmit(self, frame: Frame) -> None:
        """Send a complete frame; see `Neighbors`."""
        self.ip.transmit(frame)

    def neighbor_failed(self, neighbor: Neighbor, frames: list[Frame], now: float) -> None:
        """Learn of a neighbor that does not answer; see `Neighbors`."""
        if self.selection.neighbor_failed(neighbor.address, self.routes):
            self.ip.forget_paths()  # another router may do better
        self.ip.neighbor_failed(neighbor, frames, now)

    def send_arp(self, packet: arp_header.ArpPacket, destination_mac: bytes | None) -> None:
        """Send an ARP packet; see `Arp`."""
        self.counters.arp_out += 1
        header = EthernetHeader(destination_mac or BROADCAST_MAC, self.mac, ETHERTYPE_ARP)
        self.ip.transmit(Frame(header.emit() + packet.emit()))

    def is_neighbor(self, address: bytes) -> bool:
        """True if *address* is on the link; see `NeighborDiscovery`."""
        if is_link_local(address):
            return True
        route = self.routes.lookup(address)
        return route is not None and route.gateway is None

    def send_to_group(self, packet: bytes, group: bytes) -> None:
        """Send an IP packet to everybody in *group*; see `Igmp` and `Mld`."""
        ethertype = ETHERTYPE_IPV4 if len(group) == 4 else ETHERTYPE_IPV6
        header = EthernetHeader(multicast_mac(group), self.mac, ethertype)
        self.ip.transmit(Frame(header.emit() + packet))

    def send_discovery(self, message: bytes, source: bytes, destination: bytes) -> None:
        """Send a message of neighbor discovery to a group; see `Routers`."""
        self._nd.send(message, source, destination, None)

    def _changed(self) -> None:
        self.ip.forget_paths()

    def _receive_short(self, frame: Frame, length: int, now: float) -> None:
        """A frame whose first piece does not hold an IPv4 header."""
        if frame.payload:
            frame = Frame(bytes(frame), b"", frame.gso_size, frame.checksum)
        if length < ethernet.LENGTH:
            self.counters.frame_too_short += 1
            return
        header = EthernetHeader.parse(frame.header)
        self._receive_frame(frame, header.destination, header.source, header.ethertype, length, now)

    def _receive_frame(
        self,
        frame: Frame,
        destination_mac: bytes,
        source_mac: bytes,
        ethertype: int,
        length: int,
        now: float,
    ) -> None:
        """Every frame that is not the common case."""
        counters = self.counters
        if length > _MAX_FRAME:
            counters.frame_too_long += 1
            return
        is_group = destination_mac != self.mac
        if is_group and destination_mac not in self.groups.macs:
            counters.frame_not_for_us += 1
            return
        if source_mac[0] & 1 or source_mac == self.mac:
            counters.frame_bad_source += 1
            return
        data = memoryview(bytes(frame) if frame.payload else frame.header)[ethernet.LENGTH :]
        if ethertype == ETHERTYPE_IPV4:
            self._ipv4.receive(data, frame.checksum, frame.gso_size, now, is_group=is_group)
        elif ethertype == ETHERTYPE_IPV6:
            self._ipv6.receive(data, frame.checksum, frame.gso_size, now, is_group=is_group)
        elif ethertype == ETHERTYPE_ARP:
            self._arp.receive(data, now)
        else:
            counters.frame_unknown_ethertype += 1

    def _settle(self, now: float) -> None:
        """Let us hear what we said to ourselves."""
        for _ in range(_SETTLE_ROUNDS):
            if not self.ip.settle(now):
                return
            self.tcp.end_of_burst(now)
