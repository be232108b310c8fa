"""ARP as a host does it: asks, answers, learns no more than it has to (RFC 826, RFC 1122 2.3.2).

An entry of the neighbor cache is made by our own question, or by a question for us; every other
packet can only change an entry that is there (RFC 826's merge).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zttrio.errors import HeaderError
from zttrio.header import arp
from zttrio.header.address import (
    IPV4_BROADCAST,
    IPV4_UNSPECIFIED,
    UNSPECIFIED_MAC,
    is_loopback,
    is_multicast,
    is_multicast_mac,
)

from .neighbor import INCOMPLETE, PROBE

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .addresses import Addresses
    from .claim import Claims
    from .counters import Counters
    from .neighbor import Neighbors

__all__ = ["Arp"]


class ArpSender(Protocol):
    """Where ARP packets leave."""

    def send_arp(self, packet: arp.ArpPacket, destination_mac: bytes | None) -> None:
        """Send *packet*, to everybody if *destination_mac* is None."""


class Arp:
    """The ARP side of one stack.

    Args:
        mac: our hardware address.
        addresses: what is ours.
        neighbors: what is learned goes there.
        claims: told about conflicts.
        sender: takes what is to be sent.
        counters: what is counted.
    """

    def __init__(
        self,
        mac: bytes,
        addresses: Addresses,
        neighbors: Neighbors,
        claims: Claims,
        sender: ArpSender,
        counters: Counters,
    ) -> None:
        self._mac = mac
        self._addresses = addresses
        self._neighbors = neighbors
        self._claims = claims
        self._sender = sender
        self._counters = counters

    def solicit(self, address: bytes, mac: bytes | None, source: bytes) -> None:
        """Ask who has *address*: everybody, or only *mac* if that is not None.

        Args:
            address: packed.
            mac: where it was last seen, to be verified.
            source: our packed address, for the answer; must be ours.
        """
        packet = arp.ArpPacket(arp.REQUEST, self._mac, source, UNSPECIFIED_MAC, address)
        self._sender.send_arp(packet, mac)

    def receive(self, data: Buffer, now: float) -> None:
        """Take in what an ARP frame carries.  Never raises."""
        counters = self._counters
        counters.arp_in += 1
        try:
            packet = arp.ArpPacket.parse(data)
        except HeaderError:
            counters.arp_malformed += 1
            return
        sender_ip = packet.sender_ip
        if (
            packet.sender_mac in (self._mac, UNSPECIFIED_MAC)
            or is_multicast_mac(packet.sender_mac)
            or is_multicast(sender_ip)
            or is_loopback(sender_ip)
            or sender_ip == IPV4_BROADCAST
        ):
            counters.arp_malformed += 1
            return
        if self._claims.receive(packet, now):
            counters.arp_conflicts += 1
            return
        if packet.operation == arp.REQUEST and self._addresses.is_ours(packet.target_ip):
            counters.arp_requests_answered += 1
            self._answer(packet, now)
            return
        neighbor = self._neighbors.get(sender_ip)
        if neighbor is None:
            if packet.operation == arp.REQUEST and packet.target_ip != sender_ip:
                counters.arp_not_for_us += 1
            else:
                counters.arp_unsolicited += 1
        elif (
            packet.operation == arp.REPLY
            and neighbor.state in (INCOMPLETE, PROBE)
            and self._addresses.is_ours(packet.target_ip)
        ):
            counters.arp_replies += 1
            self._neighbors.set_reachable(neighbor, now, packet.sender_mac)
        else:
            counters.arp_unsolicited += 1
            self._neighbors.learn(sender_ip, packet.sender_mac, now)

    def _answer(self, packet: arp.ArpPacket, now: float) -> None:
        sender_ip = packet.sender_ip
        if sender_ip != IPV4_UNSPECIFIED and any(
            entry.is_on_link(sender_ip) for entry in self._addresses.entries.values()
        ):
            self._neighbors.learn(sender_ip, packet.sender_mac, now)
        reply = arp.ArpPacket(
            arp.REPLY, self._mac, packet.target_ip, packet.sender_mac, packet.sender_ip
        )
        self._sender.send_arp(reply, packet.sender_mac)
