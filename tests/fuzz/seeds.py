"""Valid frames, and ways to spoil them that still get past the first checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.header import arp, icmpv4, tcp, udp
from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.checksum import checksum, transport_checksum
from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader
from zttrio.header.frame import Frame
from zttrio.header.ipv4 import PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header

from .victim import MAC, PEER, PEER_MAC, TCP_PORT, UDP_PORT, US

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

OTHERS = [packed(f"10.0.0.{number}") for number in range(3, 200)]


def ethernet(body: bytes, ethertype: int = ETHERTYPE_IPV4, destination: bytes = MAC) -> bytes:
    return EthernetHeader(destination, PEER_MAC, ethertype).emit() + body


def ip(content: bytes, protocol: int, source: bytes = PEER, **fields: int) -> bytes:
    header = Ipv4Header(source, US, protocol, 0)
    for name, value in fields.items():
        setattr(header, name, value)
    header.total_length = header.header_length + len(content)
    return header.emit() + content


def udp_content(rng: random.Random, source: bytes = PEER) -> bytes:
    data = rng.randbytes(rng.choice((0, 1, 100, 1400)))
    header = udp.UdpHeader(
        rng.choice((53, rng.getrandbits(16))), rng.choice((UDP_PORT, 9)), 8 + len(data)
    )
    header.checksum = transport_checksum(source, US, PROTOCOL_UDP, header.emit(), data) or 0xFFFF
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
        if octets[12:14] == b"\x08\0" and octets[23] == PROTOCOL_TCP and octets[30:34] == source:
            theirs = tcp.TcpHeader.parse(octets, 34)
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
    emitted[16:18] = transport_checksum(source, US, PROTOCOL_TCP, emitted, data).to_bytes(2)
    return bytes(emitted) + data


def valid(rng: random.Random, sent: Sequence[Frame]) -> bytes:
    """A frame that a well-meaning neighbor could send."""
    kind = rng.randrange(9)
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
    return ethernet(ip(tcp_content(rng, sent, source), PROTOCOL_TCP, source))


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
        changed[rng.randrange(12, min(len(changed), 90))] = rng.choice(
            (0, 1, 0xFF, 0x80, rng.getrandbits(8))
        )
    if kind > 4:
        repair(changed)
    return bytes(changed)


def repair(changed: bytearray) -> None:
    """Make the checksums of IPv4 and of its transport right again, as far as lengths allow."""
    start = 14 + (changed[14] & 15) * 4
    if changed[12:14] != b"\x08\0" or not 34 <= start <= len(changed):
        return
    changed[24:26] = bytes(2)
    changed[24:26] = checksum(changed[14:start]).to_bytes(2)
    end = min(len(changed), 14 + int.from_bytes(changed[16:18]))
    content = changed[start:end]
    source, destination, protocol = bytes(changed[26:30]), bytes(changed[30:34]), changed[23]
    at = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6, PROTOCOL_ICMP: 2}.get(protocol)
    if at is None or len(content) < at + 2:
        return
    content[at : at + 2] = bytes(2)
    if protocol == PROTOCOL_ICMP:
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
