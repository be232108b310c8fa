"""Valid frames, and ways to spoil them that still get past the first checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header import arp, icmpv4, icmpv6, igmp, ipv6, mld, ndp, tcp, udp
from zttrio.header.address import (
    ALL_NODES,
    BROADCAST_MAC,
    is_multicast,
    multicast_mac,
    packed,
    solicited_node,
)
from zttrio.header.checksum import checksum, transport_checksum
from zttrio.header.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    EthernetHeader,
)
from zttrio.header.frame import Frame
from zttrio.header.ipv4 import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_IGMP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Ipv4Header,
)

from .victim import GROUPS, MAC, PEER, PEER6, PEER_MAC, TCP_PORT, UDP_PORT, US, US6

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

OTHERS = [packed(f"10.0.0.{number}") for number in range(3, 200)]
ROUTER = packed("fe80::ff")
OTHERS6 = [
    ROUTER,
    packed("fe80::2"),
    packed("2001:db8::9"),
    *(packed(f"fd00::{number:x}") for number in range(3, 200)),
]


def ethernet(body: bytes, ethertype: int = ETHERTYPE_IPV4, destination: bytes = MAC) -> bytes:
    return EthernetHeader(destination, PEER_MAC, ethertype).emit() + body


def ip(content: bytes, protocol: int, source: bytes = PEER, **fields: int) -> bytes:
    header = Ipv4Header(source, US, protocol, 0)
    for name, value in fields.items():
        setattr(header, name, value)
    header.total_length = header.header_length + len(content)
    return header.emit() + content


def ours(source: bytes) -> bytes:
    """Our address of the family of *source*."""
    return US if len(source) == 4 else US6


def ip6(
    content: bytes,
    protocol: int,
    source: bytes = PEER6,
    destination: bytes = US6,
    hop_limit: int = 64,
) -> bytes:
    header = ipv6.Ipv6Header(source, destination, protocol, len(content), hop_limit)
    group = is_multicast(destination)
    mac = multicast_mac(destination) if group else MAC
    return ethernet(header.emit() + content, ETHERTYPE_IPV6, mac)


def udp_content(rng: random.Random, source: bytes = PEER) -> bytes:
    data = rng.randbytes(rng.choice((0, 1, 100, 1400)))
    header = udp.UdpHeader(
        rng.choice((53, rng.getrandbits(16))), rng.choice((UDP_PORT, 9)), 8 + len(data)
    )
    header.checksum = (
        transport_checksum(source, ours(source), PROTOCOL_UDP, header.emit(), data) or 0xFFFF
    )
    return header.emit() + data


def tcp_content(rng: random.Random, sent: Sequence[Frame], source: bytes = PEER) -> bytes:
    """A segment; half of them belong to a connection that the stack has sent something for."""
    header = tcp.TcpHeader(
        rng.choice((1024, 1025, rng.getrandbits(16))),
        TCP_PORT,
        rng.getrandbits(32),
        rng.getrandbits(32),
        rng.choice((tcp.SYN, tcp.ACK, tcp.FIN | tcp.ACK, tcp.RST, rng.getrandbits(8))),
        rng.getrandbits(16),
    )
    if sent and rng.random() < 0.5:
        octets = bytes(rng.choice(sent))
        is_v4 = octets[12:14] == b"\x08\0" and octets[23] == PROTOCOL_TCP
        is_v6 = octets[12:14] == b"\x86\xdd" and octets[20] == PROTOCOL_TCP
        to = octets[30:34] if is_v4 else octets[38:54]
        if (is_v4 or is_v6) and to == source:
            theirs = tcp.TcpHeader.parse(octets, 34 if is_v4 else 54)
            header.src_port, header.dst_port = theirs.dst_port, theirs.src_port
            header.ack = theirs.seq + bool(theirs.flags & (tcp.SYN | tcp.FIN)) & 0xFFFFFFFF
            header.seq = theirs.ack if theirs.flags & tcp.ACK else header.seq
            header.flags = rng.choice(
                (tcp.ACK, tcp.SYN | tcp.ACK, tcp.PSH | tcp.ACK, tcp.FIN | tcp.ACK, tcp.RST)
            )
    if header.flags & tcp.SYN:
        header.mss = rng.choice((None, 0, 1, 536, 1460, 65535))
        header.window_scale = rng.choice((None, 0, 7, 14, 255))
        header.sack_permitted = rng.random() < 0.5
    if rng.random() < 0.3:
        header.timestamp = (rng.getrandbits(32), rng.getrandbits(32))
    elif rng.random() < 0.3:
        header.sack_blocks = tuple(
            (rng.getrandbits(32), rng.getrandbits(32)) for _ in range(rng.randrange(4))
        )
    data = rng.randbytes(rng.choice((0, 0, 1, 536, 1400)))
    emitted = bytearray(header.emit())
    emitted[16:18] = bytes(2)
    emitted[16:18] = transport_checksum(source, ours(source), PROTOCOL_TCP, emitted, data).to_bytes(
        2
    )
    return bytes(emitted) + data


def valid(rng: random.Random, sent: Sequence[Frame]) -> bytes:
    """A frame that a well-meaning neighbor could send."""
    if rng.random() < 0.5:
        return valid6(rng, sent)
    kind = rng.randrange(10)
    source = rng.choice((PEER, PEER, rng.choice(OTHERS)))
    if kind == 0:
        question = arp.ArpPacket(rng.choice((1, 2)), PEER_MAC, source, MAC, US)
        return ethernet(question.emit(), ETHERTYPE_ARP, rng.choice((MAC, BROADCAST_MAC)))
    if kind == 1:
        message = icmpv4.IcmpV4(rng.choice((0, 8)), 0, rest=rng.getrandbits(32), body=b"echo")
        return ethernet(ip(message.emit(), PROTOCOL_ICMP, source))
    if kind == 2 and sent:
        quoted = bytes(rng.choice(sent))[14 : 14 + rng.randrange(20, 100)]
        message = icmpv4.IcmpV4(
            rng.choice((3, 3, 4, 5, 11, 12)),
            rng.randrange(17),
            rest=rng.choice((0, 576, 1400, rng.getrandbits(32))),
            body=quoted,
        )
        return ethernet(ip(message.emit(), PROTOCOL_ICMP, source))
    if kind == 3:
        return ethernet(ip(udp_content(rng, source), PROTOCOL_UDP, source))
    if kind == 4:
        content = udp_content(rng)
        start = rng.randrange(0, len(content), 8)
        end = min(len(content), start + rng.choice((8, 16, 512, 1480)))
        packet = ip(
            content[start:end],
            PROTOCOL_UDP,
            identification=rng.randrange(8),
            fragment_offset=start,
            more_fragments=end < len(content),
        )
        return ethernet(packet)
    if kind == 5:
        return ethernet(ip(rng.randbytes(20), rng.getrandbits(8), source))
    if kind == 6:
        return igmp_frame(rng)
    return ethernet(ip(tcp_content(rng, sent, source), PROTOCOL_TCP, source))


def options(rng: random.Random, next_header: int) -> bytes:
    """A hop-by-hop or destination options header."""
    kinds = (0x05, 0x1E, 0x5E, 0x9E, 0xC2, 0xDE, rng.getrandbits(8))
    found = [
        ipv6.Option(rng.choice(kinds), rng.randbytes(rng.randrange(6)))
        for _ in range(rng.choice((0, 1, 2, 9)))
    ]
    return ipv6.emit_options(next_header, found)


def valid6(rng: random.Random, sent: Sequence[Frame]) -> bytes:
    """The same for IPv6."""
    kind = rng.randrange(11)
    source = rng.choice((PEER6, PEER6, rng.choice(OTHERS6)))
    if kind == 0:
        message = icmpv6.IcmpV6(rng.choice((128, 129)), 0, rest=rng.getrandbits(32), body=b"echo")
        return ip6(message.emit(source, US6), PROTOCOL_ICMPV6, source)
    if kind == 1:
        return ip6(udp_content(rng, source), PROTOCOL_UDP, source)
    if kind == 2:
        return ip6(tcp_content(rng, sent, source), PROTOCOL_TCP, source)
    if kind == 3 and sent:
        quoted = bytes(rng.choice(sent))[14 : 14 + rng.randrange(40, 120)]
        message = icmpv6.IcmpV6(
            rng.choice((1, 2, 3, 4, 50)),
            rng.randrange(8),
            rest=rng.choice((0, 1280, 1400, rng.getrandbits(32))),
            body=quoted,
        )
        return ip6(message.emit(source, US6), PROTOCOL_ICMPV6, source)
    if kind == 4:
        content = udp_content(rng, PEER6)
        start = rng.randrange(0, len(content), 8)
        end = min(len(content), start + rng.choice((8, 16, 512, 1440)))
        more = end < len(content)
        header = ipv6.FragmentHeader(PROTOCOL_UDP, start, more, rng.randrange(8)).emit()
        return ip6(header + content[start:end], ipv6.FRAGMENT)
    if kind == 5:
        chain = b""
        next_header = PROTOCOL_UDP
        content = udp_content(rng, source)
        for _ in range(rng.choice((1, 2, 9))):
            which = rng.choice((ipv6.HOP_BY_HOP, ipv6.ROUTING, 60, 60))
            if which == ipv6.ROUTING:
                left = rng.choice((0, 0, 1))
                chain = ipv6.RoutingHeader(next_header, rng.randrange(5), left).emit() + chain
            else:
                chain = options(rng, next_header) + chain
            next_header = which
        return ip6(chain + content, next_header, source)
    if kind == 6:
        nd = ndp.NeighborSolicitation(rng.choice((US6, PEER6)))
        source = rng.choice((source, bytes(16)))
        if rng.random() < 0.7:
            nd.options.source_mac = rng.choice((PEER_MAC, rng.randbytes(6)))
        destination = rng.choice((US6, solicited_node(US6), ALL_NODES))
        return ip6(nd.emit(source, destination), PROTOCOL_ICMPV6, source, destination, 255)
    if kind == 7:
        flags = (rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5)
        na = ndp.NeighborAdvertisement(rng.choice((PEER6, rng.choice(OTHERS6), US6)), *flags)
        na.options.target_mac = rng.choice((None, PEER_MAC, rng.randbytes(6)))
        return ip6(na.emit(source, US6), PROTOCOL_ICMPV6, source, US6, 255)
    if kind == 8:
        return ip6(router_message(rng), PROTOCOL_ICMPV6, ROUTER, ALL_NODES, 255)
    if kind == 9:
        group = rng.choice((bytes(16), GROUPS[1], ALL_NODES))
        query = mld.MldQuery(
            group,
            rng.random() * 20,
            tuple(rng.randbytes(16) for _ in range(rng.choice((0, 0, 1, 100)))),
            version=rng.choice((1, 2, 2)),
        )
        message_octets = query.emit(ROUTER, ALL_NODES)
        alert = ipv6.emit_options(PROTOCOL_ICMPV6, [ipv6.Option(5, bytes(2))])
        return ip6(alert + message_octets, ipv6.HOP_BY_HOP, ROUTER, ALL_NODES, 1)
    if kind == 10:
        redirect = ndp.Redirect(rng.choice(OTHERS6), rng.choice(OTHERS6))
        redirect.options.target_mac = PEER_MAC
        if sent:
            quoted = bytes(rng.choice(sent))[14:]
            redirect.options.redirected = quoted[: len(quoted) & ~7]
        return ip6(redirect.emit(ROUTER, US6), PROTOCOL_ICMPV6, ROUTER, US6, 255)
    return ip6(rng.randbytes(20), rng.getrandbits(8), source)


def router_message(rng: random.Random) -> bytes:
    """A router advertisement with something of everything."""
    message = ndp.RouterAdvertisement(
        rng.getrandbits(8),
        preference=rng.choice((-1, 0, 1)),
        lifetime=rng.choice((0, 100, 1800, 0xFFFF)),
        reachable_time=rng.choice((0, 30.0, 4e6)),
        retransmit_time=rng.choice((0, 1.0, 4e6)),
    )
    lifetimes = (0, 1, 100, 10_000, ndp.INFINITY)
    message.options.mtu = rng.choice((None, 0, 1280, 1400, 9000))
    message.options.source_mac = rng.choice((None, PEER_MAC, rng.randbytes(6)))
    message.options.prefixes = tuple(
        ndp.PrefixInformation(
            rng.choice((packed("2001:db8::"), rng.randbytes(16))),
            rng.choice((64, 64, rng.randrange(129))),
            rng.random() < 0.7,
            rng.random() < 0.7,
            rng.choice(lifetimes),
            rng.choice(lifetimes),
        )
        for _ in range(rng.choice((0, 1, 3)))
    )
    message.options.routes = tuple(
        ndp.RouteInformation(rng.randbytes(16), rng.randrange(129), 0, rng.choice(lifetimes))
        for _ in range(rng.choice((0, 1)))
    )
    message.options.dns_servers = (ndp.DnsServers(rng.choice(lifetimes), (rng.randbytes(16),)),)
    return message.emit(ROUTER, ALL_NODES)


def igmp_frame(rng: random.Random) -> bytes:
    """A query or a report of any version."""
    group = rng.choice((bytes(4), GROUPS[0]))
    to = rng.choice((GROUPS[0], packed("224.0.0.1")))
    if rng.random() < 0.7:
        sources = tuple(rng.randbytes(4) for _ in range(rng.choice((0, 0, 1, 100))))
        version = rng.choice((1, 2, 3, 3))
        content = igmp.IgmpQuery(group, rng.random() * 20, sources, version=version).emit()
    else:
        content = igmp.IgmpMessage(rng.choice((0x12, 0x16, 0x17)), group).emit()
    header = Ipv4Header(PEER, to, PROTOCOL_IGMP, 24 + len(content), 1, options=igmp.ROUTER_ALERT)
    return ethernet(header.emit() + content, ETHERTYPE_IPV4, multicast_mac(to))


def spoil(rng: random.Random, octets: bytes) -> bytes:
    """Change a valid frame."""
    kind = rng.randrange(7)
    if kind == 0:
        return octets[: rng.randrange(len(octets) + 1)]
    if kind == 1:
        return octets + rng.randbytes(rng.choice((1, 46, 1000, 70_000)))
    if kind == 2:
        return rng.randbytes(rng.randrange(100))
    if kind == 3:
        return octets[:14] + rng.randbytes(rng.randrange(100))
    changed = bytearray(octets)
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed[rng.randrange(12, min(len(changed), 110))] = rng.choice(
            (0, 1, 0xFF, 0x80, rng.getrandbits(8))
        )
    if kind > 4:
        repair(changed)
    return bytes(changed)


def repair(changed: bytearray) -> None:
    """Make the checksums of IP and of its transport right again, as far as lengths allow."""
    if changed[12:14] == b"\x86\xdd":
        repair6(changed)
    start = 14 + (changed[14] & 15) * 4
    if changed[12:14] != b"\x08\0" or not 34 <= start <= len(changed):
        return
    changed[24:26] = bytes(2)
    changed[24:26] = checksum(changed[14:start]).to_bytes(2)
    end = min(len(changed), 14 + int.from_bytes(changed[16:18]))
    finish(changed, start, end, changed[23], bytes(changed[26:30]), bytes(changed[30:34]))


def repair6(changed: bytearray) -> None:
    """The same for IPv6, through well-formed extension headers."""
    if len(changed) < 54:
        return
    end = min(len(changed), 54 + int.from_bytes(changed[18:20]))
    kind, start = changed[20], 54
    while kind in (0, 43, 60) and start + 8 <= end:
        kind, start = changed[start], start + 8 + 8 * changed[start + 1]
    finish(changed, start, end, kind, bytes(changed[22:38]), bytes(changed[38:54]))


def finish(
    changed: bytearray, start: int, end: int, protocol: int, source: bytes, destination: bytes
) -> None:
    """Write the checksum of the transport between *start* and *end*."""
    content = changed[start:end]
    at = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6, 1: 2, PROTOCOL_IGMP: 2, PROTOCOL_ICMPV6: 2}.get(
        protocol
    )
    if at is None or len(content) < at + 2:
        return
    content[at : at + 2] = bytes(2)
    if protocol in (PROTOCOL_ICMP, PROTOCOL_IGMP):
        value = checksum(content)
    else:
        value = transport_checksum(source, destination, protocol, content)
    changed[start + at : start + at + 2] = value.to_bytes(2)


def random_frame(rng: random.Random, sent: Sequence[Frame]) -> Frame:
    """A frame, whole or cut in two, with any claim about its checksum."""
    octets = valid(rng, sent)
    if rng.random() < 0.7:
        octets = spoil(rng, octets)
    state = rng.choice((0, 0, 0, 1, 2))
    gso_size = rng.choice((0, 0, 0, 536))
    if rng.random() < 0.5 or len(octets) < 14:
        return Frame(octets, b"", gso_size, state)
    cut = rng.randrange(14, min(len(octets), 100) + 1)
    as_what = rng.choice((bytes, bytearray, memoryview))
    return Frame(as_what(octets[:cut]), as_what(octets[cut:]), gso_size, state)
