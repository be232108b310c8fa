"""A whole stack with a cable end in the test's hand, and packets made by hand to put into it."""

from __future__ import annotations

import random
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import attrs

from zttrio.header import arp, icmpv4, udp
from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.checksum import transport_checksum
from zttrio.header.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    LENGTH,
    EthernetHeader,
)
from zttrio.header.frame import Frame
from zttrio.header.ipv4 import PROTOCOL_ICMP, PROTOCOL_UDP, Ipv4Header
from zttrio.stack.counters import (
    ARP_OUTCOMES,
    FRAME_OUTCOMES,
    ICMP_OUTCOMES,
    IGMP_OUTCOMES,
    IP_OUTCOMES,
    LINK_OUTCOMES,
    UDP_OUTCOMES,
    Counters,
)
from zttrio.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.config import Config
    from zttrio.header.frame import Buffer

MAC = bytes.fromhex("02000a000001")
PEER_MAC = bytes.fromhex("02000a000002")
OTHER_MAC = bytes.fromhex("02000a000003")
US = packed("10.0.0.1")
PEER = packed("10.0.0.2")
OTHER = packed("10.0.0.3")
BROADCAST = packed("10.0.0.255")


@attrs.define
class Sent:
    """A frame that the stack sent, taken apart as far as tests look."""

    destination_mac: bytes
    source_mac: bytes
    ethertype: int
    body: bytes
    frame: Frame

    @property
    def arp(self) -> arp.ArpPacket:
        assert self.ethertype == ETHERTYPE_ARP
        return arp.ArpPacket.parse(self.body)

    @property
    def ip(self) -> Ipv4Header:
        assert self.ethertype == ETHERTYPE_IPV4
        return Ipv4Header.parse(self.body)

    @property
    def content(self) -> bytes:
        """What the IPv4 packet carries."""
        return self.body[self.ip.header_length : self.ip.total_length]

    @property
    def icmp(self) -> icmpv4.IcmpV4:
        assert self.ip.protocol == PROTOCOL_ICMP
        return icmpv4.IcmpV4.parse(self.content)


class Host:
    """A stack at 10.0.0.1/24, and the other end of its cable."""

    def __init__(
        self,
        *addresses: str,
        config: Config | None = None,
        mtu: int = 1500,
        seed: int = 1,
        mac: bytes = MAC,
        checksum_offload: bool = False,
    ) -> None:
        self.now = 0.0
        self.stack = Stack(
            mac=mac,
            mtu=mtu,
            rng=random.Random(seed),
            config=config,
            checksum_offload=checksum_offload,
        )
        for address in addresses or ("10.0.0.1/24",):
            self.stack.add_address(ip_interface(address), self.now)
        self.take()  # announcements

    @property
    def counters(self) -> Counters:
        return self.stack.counters

    def put(self, *frames: Frame | bytes) -> None:
        """Frames arrive."""
        self.stack.receive(
            [frame if isinstance(frame, Frame) else Frame(frame) for frame in frames], self.now
        )

    def take(self, limit: int = 10_000) -> list[Sent]:
        """What the stack sends, checked to be well-formed Ethernet from its own MAC."""
        found = []
        for frame in self.stack.frames_to_send(self.now, limit):
            octets = bytes(frame)
            header = EthernetHeader.parse(octets)
            assert header.source == self.stack.mac
            found.append(
                Sent(header.destination, header.source, header.ethertype, octets[LENGTH:], frame)
            )
        return found

    def at(self, now: float) -> list[Sent]:
        """Let time pass, timer by timer, and return everything sent meanwhile."""
        assert now >= self.now
        found = []
        while (due := self.stack.next_timer()) is not None and due <= now:
            self.now = max(self.now, due)
            self.stack.handle_timers(self.now)
            found += self.take()
        self.now = now
        return found + self.take()

    def meet(self, address: bytes = PEER, mac: bytes = PEER_MAC) -> None:
        """The stack learns *address*, as if it had asked."""
        source = self.stack.ip.select_source(address)
        self.stack.neighbors.use(address, source, self.now)
        self.put(arp_frame(arp.REPLY, mac, address, self.stack.mac, source))
        self.take()

    def check_books(self) -> None:
        """Every frame and packet that came in is accounted for, once."""
        c = self.counters.as_dict()
        wire = c["ip_in"] - c["ip_loopback"]
        assert c["frames_in"] == sum(c[name] for name in FRAME_OUTCOMES) + wire
        assert c["arp_in"] == sum(c[name] for name in ARP_OUTCOMES)
        assert c["ip_in"] + c["reassembled"] == sum(c[name] for name in IP_OUTCOMES)
        assert c["icmp_in"] == sum(c[name] for name in ICMP_OUTCOMES)
        assert c["icmp_link_messages"] == sum(c[name] for name in LINK_OUTCOMES)
        assert c["igmp_in"] == sum(c[name] for name in IGMP_OUTCOMES)
        assert c["udp_in"] == sum(c[name] for name in UDP_OUTCOMES)


def ethernet(
    body: Buffer,
    ethertype: int = ETHERTYPE_IPV4,
    *,
    source: bytes = PEER_MAC,
    destination: bytes = MAC,
) -> bytes:
    return EthernetHeader(destination, source, ethertype).emit() + bytes(body)


def arp_frame(
    operation: int,
    sender_mac: bytes,
    sender_ip: bytes,
    target_mac: bytes,
    target_ip: bytes,
    *,
    destination: bytes | None = None,
) -> bytes:
    body = arp.ArpPacket(operation, sender_mac, sender_ip, target_mac, target_ip).emit()
    if destination is None:
        destination = BROADCAST_MAC if operation == arp.REQUEST else target_mac
    return ethernet(body, ETHERTYPE_ARP, source=sender_mac, destination=destination)


def ip_packet(
    content: Buffer,
    protocol: int,
    *,
    source: bytes = PEER,
    destination: bytes = US,
    **fields: int,
) -> bytes:
    header = Ipv4Header(source, destination, protocol, 0)
    for name, value in fields.items():
        setattr(header, name, value)
    header.total_length = header.header_length + len(content)
    return header.emit() + bytes(content)


def udp_content(
    data: bytes,
    src_port: int = 4000,
    dst_port: int = 5000,
    *,
    source: bytes = PEER,
    destination: bytes = US,
) -> bytes:
    header = udp.UdpHeader(src_port, dst_port, udp.LENGTH + len(data))
    header.checksum = (
        transport_checksum(source, destination, PROTOCOL_UDP, header.emit(), data) or 0xFFFF
    )
    return header.emit() + data


def udp_frame(
    data: bytes,
    src_port: int = 4000,
    dst_port: int = 5000,
    *,
    source: bytes = PEER,
    destination: bytes = US,
    destination_mac: bytes = MAC,
) -> bytes:
    content = udp_content(data, src_port, dst_port, source=source, destination=destination)
    packet = ip_packet(content, PROTOCOL_UDP, source=source, destination=destination)
    return ethernet(packet, destination=destination_mac)


def echo_frame(payload: bytes = b"ping", *, rest: int = 0x12340001, source: bytes = PEER) -> bytes:
    message = icmpv4.IcmpV4(icmpv4.ECHO_REQUEST, 0, rest=rest, body=payload).emit()
    return ethernet(ip_packet(message, PROTOCOL_ICMP, source=source))


def fragments(
    content: bytes, size: int, *, protocol: int = PROTOCOL_UDP, identification: int = 7
) -> Iterable[bytes]:
    """Frames with *content* cut into fragments of *size* octets."""
    for offset in range(0, len(content), size):
        yield ethernet(
            ip_packet(
                content[offset : offset + size],
                protocol,
                fragment_offset=offset,
                more_fragments=offset + size < len(content),
                identification=identification,
            )
        )
