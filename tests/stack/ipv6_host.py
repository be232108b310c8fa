"""As `stack_host`, for IPv6: a stack at fd00::1/64, and packets made by hand to put into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from zttrio.header import icmpv6, ndp, udp
from zttrio.header.address import is_multicast, multicast_mac, packed, solicited_node
from zttrio.header.checksum import transport_checksum
from zttrio.header.ethernet import ETHERTYPE_IPV6
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_UDP
from zttrio.header.ipv6 import LENGTH, FragmentHeader, Ipv6Header, iter_extension_headers

from .stack_host import MAC, PEER_MAC, Host, Sent, ethernet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.config import Config
    from zttrio.header.frame import Buffer, Frame

US6 = packed("fd00::1")
PEER6 = packed("fd00::2")
OTHER6 = packed("fd00::3")
FAR6 = packed("2001:db8::9")
PEER_LL = packed("fe80::2")
ROUTER = packed("fe80::ff")
ROUTER_MAC = bytes.fromhex("02000a0000ff")
ALL_NODES = packed("ff02::1")
UNSPECIFIED = bytes(16)


@attrs.define
class Sent6:
    """An IPv6 packet that the stack sent, taken apart as far as tests look."""

    destination_mac: bytes
    header: Ipv6Header
    protocol: int
    body: bytes
    packet: bytes
    frame: Frame

    @property
    def icmp(self) -> icmpv6.IcmpV6:
        assert self.protocol == PROTOCOL_ICMPV6
        assert (
            transport_checksum(
                self.header.source, self.header.destination, PROTOCOL_ICMPV6, self.body
            )
            == 0
        )
        return icmpv6.IcmpV6.parse(self.body)

    @property
    def kind(self) -> int:
        return self.icmp.type

    @property
    def solicitation(self) -> ndp.NeighborSolicitation:
        return ndp.NeighborSolicitation.parse(self.body)

    @property
    def advertisement(self) -> ndp.NeighborAdvertisement:
        return ndp.NeighborAdvertisement.parse(self.body)


def apart(sent: Sent) -> Sent6:
    """Take an IPv6 packet apart."""
    assert sent.ethertype == ETHERTYPE_IPV6
    header = Ipv6Header.parse(sent.body)
    kind, start = header.next_header, LENGTH
    for extension in iter_extension_headers(kind, sent.body):
        kind, start = extension.next_header, extension.offset + extension.length
    return Sent6(sent.destination_mac, header, kind, sent.body[start:], sent.body, sent.frame)


class Host6(Host):
    """A stack with IPv6 at fd00::1/64, whose addresses are verified, and no routers."""

    def __init__(
        self,
        *addresses: str,
        config: Config | None = None,
        mtu: int = 1500,
        seed: int = 1,
        mac: bytes = MAC,
        checksum_offload: bool = False,
    ) -> None:
        super().__init__(
            *(addresses or ("fd00::1/64",)),
            config=config,
            mtu=mtu,
            seed=seed,
            mac=mac,
            checksum_offload=checksum_offload,
        )
        self.at(20.0)  # duplicate address detection, and three router solicitations

    @property
    def link_local(self) -> bytes:
        return next(
            interface.ip.packed
            for interface in self.stack.addresses
            if interface.version == 6 and interface.is_link_local
        )

    def take6(self) -> list[Sent6]:
        """The IPv6 packets that are sent."""
        return [apart(sent) for sent in self.take() if sent.ethertype == ETHERTYPE_IPV6]

    def at6(self, now: float) -> list[Sent6]:
        """Let time pass, and return the IPv6 packets sent meanwhile."""
        return [apart(sent) for sent in self.at(now) if sent.ethertype == ETHERTYPE_IPV6]

    def meet6(self, address: bytes = PEER6, mac: bytes = PEER_MAC) -> None:
        """The stack learns *address*, as if it had asked."""
        source = self.stack.ip.select_source(address)
        self.stack.neighbors.use(address, source, self.now)
        self.put(
            advertisement(address, mac, destination=source, mac_of_us=self.stack.mac, frame_mac=mac)
        )
        self.take()


def packet6(
    content: Buffer,
    next_header: int,
    *,
    source: bytes = PEER6,
    destination: bytes = US6,
    hop_limit: int = 64,
    traffic_class: int = 0,
    payload_length: int | None = None,
) -> bytes:
    length = len(content) if payload_length is None else payload_length
    header = Ipv6Header(source, destination, next_header, length, hop_limit, traffic_class)
    return header.emit() + bytes(content)


def frame6(packet: Buffer, *, mac: bytes = PEER_MAC, to: bytes | None = None) -> bytes:
    """The packet on Ethernet, for our MAC or the group's."""
    if to is None:
        destination = bytes(packet[24:40])
        to = multicast_mac(destination) if is_multicast(destination) else MAC
    return ethernet(packet, ETHERTYPE_IPV6, source=mac, destination=to)


def icmp_frame6(
    message: icmpv6.IcmpV6,
    *,
    source: bytes = PEER6,
    destination: bytes = US6,
    hop_limit: int = 64,
    mac: bytes = PEER_MAC,
) -> bytes:
    packet = packet6(
        message.emit(source, destination),
        PROTOCOL_ICMPV6,
        source=source,
        destination=destination,
        hop_limit=hop_limit,
    )
    return frame6(packet, mac=mac)


def nd_frame(
    message: bytes,
    *,
    source: bytes,
    destination: bytes,
    hop_limit: int = 255,
    mac: bytes = PEER_MAC,
    mac_of_us: bytes = MAC,
) -> bytes:
    packet = packet6(
        message, PROTOCOL_ICMPV6, source=source, destination=destination, hop_limit=hop_limit
    )
    to = None if is_multicast(destination) else mac_of_us
    return frame6(packet, mac=mac, to=to)


def solicitation(
    target: bytes = US6,
    *,
    source: bytes = PEER6,
    destination: bytes | None = None,
    source_mac: bytes | None = PEER_MAC,
    nonce: bytes | None = None,
    hop_limit: int = 255,
) -> bytes:
    destination = solicited_node(target) if destination is None else destination
    message = ndp.NeighborSolicitation(target)
    message.options.source_mac = source_mac
    message.options.nonce = nonce
    return nd_frame(
        message.emit(source, destination),
        source=source,
        destination=destination,
        hop_limit=hop_limit,
    )


def advertisement(
    target: bytes = PEER6,
    mac: bytes | None = PEER_MAC,
    *,
    source: bytes | None = None,
    destination: bytes = US6,
    is_router: bool = False,
    is_solicited: bool = True,
    is_override: bool = True,
    hop_limit: int = 255,
    mac_of_us: bytes = MAC,
    frame_mac: bytes = PEER_MAC,
) -> bytes:
    source = target if source is None else source
    message = ndp.NeighborAdvertisement(target, is_router, is_solicited, is_override)
    message.options.target_mac = mac
    return nd_frame(
        message.emit(source, destination),
        source=source,
        destination=destination,
        hop_limit=hop_limit,
        mac=frame_mac,
        mac_of_us=mac_of_us,
    )


def router_advertisement(
    *prefixes: ndp.PrefixInformation,
    source: bytes = ROUTER,
    hop_limit: int = 255,
    lifetime: int = 1800,
    message: ndp.RouterAdvertisement | None = None,
) -> bytes:
    message = ndp.RouterAdvertisement(64, lifetime=lifetime) if message is None else message
    message.options.prefixes = prefixes
    message.options.source_mac = ROUTER_MAC
    return nd_frame(
        message.emit(source, ALL_NODES),
        source=source,
        destination=ALL_NODES,
        hop_limit=hop_limit,
        mac=ROUTER_MAC,
    )


def prefix(
    text: str = "2001:db8:1::",
    length: int = 64,
    *,
    is_on_link: bool = True,
    is_autonomous: bool = True,
    valid: int = 86400,
    preferred: int = 14400,
) -> ndp.PrefixInformation:
    return ndp.PrefixInformation(packed(text), length, is_on_link, is_autonomous, valid, preferred)


def udp_content6(
    data: bytes,
    src_port: int = 4000,
    dst_port: int = 5000,
    *,
    source: bytes = PEER6,
    destination: bytes = US6,
) -> bytes:
    header = udp.UdpHeader(src_port, dst_port, udp.LENGTH + len(data))
    header.checksum = (
        transport_checksum(source, destination, PROTOCOL_UDP, header.emit(), data) or 0xFFFF
    )
    return header.emit() + data


def udp_frame6(
    data: bytes,
    src_port: int = 4000,
    dst_port: int = 5000,
    *,
    source: bytes = PEER6,
    destination: bytes = US6,
) -> bytes:
    content = udp_content6(data, src_port, dst_port, source=source, destination=destination)
    return frame6(packet6(content, PROTOCOL_UDP, source=source, destination=destination))


def fragments6(
    content: bytes, size: int, *, next_header: int = PROTOCOL_UDP, identification: int = 7
) -> Iterable[bytes]:
    """Frames with *content* cut into fragments of *size* octets."""
    for offset in range(0, len(content), size):
        more = offset + size < len(content)
        header = FragmentHeader(next_header, offset, more, identification).emit()
        yield frame6(packet6(header + content[offset : offset + size], 44))
