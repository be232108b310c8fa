"""IPv6 on its way in: every check a host makes, extension headers, and reassembly (RFC 8200).

The common case, a whole packet without extension headers for one of our addresses, takes the first
branch of `Ipv6Input.receive`.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError
from zttrio.header import ethernet, icmpv6, ipv6
from zttrio.header.address import IPV6_UNSPECIFIED, is_loopback
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP

from .packet import Packet

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from .addresses import Addresses
    from .counters import Counters
    from .groups import Groups
    from .icmp import Icmp
    from .ip import Ip
    from .reassembly import Reassembly

__all__ = ["MAX_EXTENSION_HEADERS", "Ipv6Input"]

_FRONT = struct.Struct("!IHBB16s16s")
_AT = 14  # where the packet starts in a frame
_MAX_PACKET = 0xFFFF
_LONGEST = ethernet.LENGTH + ipv6.LENGTH + 0xFFFF  # octets of a frame that is no jumbogram
MAX_EXTENSION_HEADERS = 64
"""Arbitrary: RFC 8504 5.3 lets hosts set a limit.  Linux has none, so repetitions do not count."""
_V4_MAPPED = bytes(10) + b"\xff\xff"
_NEXT_HEADER_AT = 6  # in the IPv6 header, for pointers
_PAYLOAD_LENGTH_AT = 4


class Ipv6Input:
    """Reads IPv6 packets from the wire.

    Args:
        ip: gets what is for us.
        addresses: what is ours.
        groups: what we listen to.
        reassembly: keeps fragments.
        icmp: says what is wrong.
        counters: what is counted.
    """

    def __init__(
        self,
        ip: Ip,
        addresses: Addresses,
        groups: Groups,
        reassembly: Reassembly,
        icmp: Icmp,
        counters: Counters,
    ) -> None:
        self._ip = ip
        self._transports = ip.transports(16)
        self._addresses = addresses
        self._groups = groups
        self._reassembly = reassembly
        self._icmp = icmp
        self._counters = counters

    def receive_plain(
        self, header: Buffer, payload: Buffer, checksum: int, gso_size: int, now: float
    ) -> bool:
        """Take in the common case; False if this is not one, and nothing has happened.

        Args:
            header: the first piece of the frame, at least 54 octets, which was sent to us alone.
            payload: the second.
            checksum: a CHECKSUM_* about the transport's checksum.
            gso_size: as in `Frame`.
            now: seconds.
        """
        word, length, protocol, hop_limit, source, destination = _FRONT.unpack_from(header, _AT)
        end = _AT + ipv6.LENGTH + length
        there = len(header) + len(payload)
        lead = source[0]
        ours = self._addresses.ours
        if (
            word >> 28 != 6
            or protocol not in self._transports
            or destination not in ours
            or lead == 0  # unspecified, loopback, mapped: looked at more closely
            or lead == 0xFF
            or source in ours
            or (
                end != there
                and (payload or end > there)
                # A super-segment that is longer than any packet says 0, see `Frame`.
                and (length or not gso_size or protocol != PROTOCOL_TCP or there <= _LONGEST)
            )
        ):
            return False
        self._counters.ip_in += 1
        self._counters.ip_delivered += 1
        start = _AT + ipv6.LENGTH
        self._transports[protocol].receive_packet(
            Packet(
                source,
                destination,
                protocol,
                header[start:] if payload else memoryview(header)[start:end],
                payload,
                header[_AT:start],
                hop_limit,
                word >> 20 & 0xFF,
                checksum,
                gso_size,
            ),
            now,
        )
        return True

    def receive(
        self, data: memoryview, checksum: int, gso_size: int, now: float, *, is_group: bool
    ) -> None:
        """Take in one packet.  Never raises.

        Args:
            data: the packet, in one piece, with Ethernet padding or without.
            checksum: a CHECKSUM_* about the transport's checksum.
            gso_size: as in `Frame`.
            now: seconds.
            is_group: the frame was sent to a group of stations.
        """
        counters = self._counters
        counters.ip_in += 1
        if len(data) < ipv6.LENGTH:
            counters.ip_truncated += 1
            return
        try:
            header = ipv6.Ipv6Header.parse_quoted(data)
        except HeaderError:
            counters.ip_malformed += 1
            return
        end = ipv6.LENGTH + header.payload_length
        is_jumbogram = end == ipv6.LENGTH and header.next_header == ipv6.HOP_BY_HOP
        if is_jumbogram:
            end = len(data)
        if end > len(data):
            counters.ip_truncated += 1
            return
        if self._is_martian(header.source, header.destination) and not (
            # somebody else who has our address says so from that address (RFC 4862 5.4.4)
            header.next_header == PROTOCOL_ICMPV6
            and header.payload_length
            and data[ipv6.LENGTH] == icmpv6.NEIGHBOR_ADVERTISEMENT
            and self._addresses.is_ours(header.source)
        ):
            counters.ip_martian += 1
            return
        if header.destination[0] == 0xFF:
            is_group = True
            if header.destination not in self._groups:
                counters.ip_group_not_joined += 1
                return
        elif not self._addresses.is_ours(header.destination):
            counters.ip_not_ours += 1
            return
        packet = Packet(
            header.source,
            header.destination,
            header.next_header,
            data[ipv6.LENGTH : end],
            b"",
            data[: ipv6.LENGTH],
            header.hop_limit,
            header.traffic_class,
            checksum,
            gso_size,
            is_group,
        )
        if is_jumbogram:
            self._refuse_jumbogram(packet, data, now)
        else:
            self._walk(packet, data[:end], ipv6.LENGTH, _NEXT_HEADER_AT, now)

    def _walk(self, packet: Packet, data: Buffer, start: int, pointer: int, now: float) -> None:
        """Go through the extension headers of *data* from *start* on, and deliver what follows.

        Args:
            packet: the packet; its protocol is what stands at *start*.
            data: all of it, from the IPv6 header on.
            start: where the next header begins.
            pointer: where *data* says what that header is.
            now: seconds.
        """
        counters = self._counters
        kind = packet.protocol
        end = len(data)
        try:
            for _ in range(MAX_EXTENSION_HEADERS):
                if kind not in _EXTENSIONS:
                    break
                length = _extension_length(kind, data, start, end)
                if kind == ipv6.FRAGMENT:
                    if packet.was_fragmented:  # fragments of fragments: a way to recurse, no more
                        counters.ip_bad_extension += 1
                    else:
                        self._take_fragment(packet, data, start, pointer, now)
                    return
                if kind == ipv6.ROUTING:
                    is_fine = self._accept_routing(packet, data, start, now)
                elif kind == ipv6.HOP_BY_HOP and (start != ipv6.LENGTH or packet.was_fragmented):
                    self._refuse(packet, data, icmpv6.PROBLEM_NEXT_HEADER, pointer, now)
                    return
                else:
                    is_fine = self._accept_options(packet, data, start, length, now)
                if not is_fine:
                    return
                if length == 8 and data[start] == kind:
                    start = _last_of_run(data, start)
                kind, pointer = data[start], start
                start += length
            else:
                counters.ip_bad_extension += 1
                return
        except HeaderError:
            counters.ip_bad_extension += 1
            return
        if kind == ipv6.NO_NEXT_HEADER:
            counters.ip_no_next_header += 1
            return
        packet.protocol = kind
        packet.ip_header = data[:start]
        packet.transport = data[start:]
        if not self._ip.deliver(packet, now):
            self._icmp.v6.parameter_problem(packet, data, icmpv6.PROBLEM_NEXT_HEADER, pointer, now)

    def _is_martian(self, source: bytes, destination: bytes) -> bool:
        """True for addresses that cannot be on a wire (RFC 4291 2.5.2, 2.5.3, 2.7)."""
        if destination == IPV6_UNSPECIFIED or is_loopback(destination):
            return True
        if destination[0] == 0xFF and destination[1] & 0xF < 2:
            return True  # a group within one host
        if source[0] == 0:
            if source == IPV6_UNSPECIFIED:
                return destination[0] != 0xFF  # only neighbor discovery speaks so, to groups
            return is_loopback(source) or source.startswith(_V4_MAPPED)
        return source[0] == 0xFF or self._addresses.is_ours(source)

    def _accept_options(
        self, packet: Packet, data: Buffer, start: int, length: int, now: float
    ) -> bool:
        """Read hop-by-hop or destination options; False if the packet is to go (RFC 8200 4.2).

        Raises:
            HeaderError: they are malformed.
        """
        for option in ipv6.iter_options(data, start, length):
            action = option.action
            if action == 0 or option.kind == ipv6.OPTION_ROUTER_ALERT:
                continue
            if option.kind == ipv6.OPTION_JUMBO_PAYLOAD and start == ipv6.LENGTH:
                # RFC 2675 3: it has no business in a packet that says how long it is
                self._refuse(packet, data, icmpv6.PROBLEM_HEADER_FIELD, option.offset, now)
                return False
            if action == 1 or (action == 3 and packet.is_multicast):
                self._counters.ip_bad_extension += 1
            else:
                self._refuse(packet, data, icmpv6.PROBLEM_OPTION, option.offset, now)
            return False
        return True

    def _accept_routing(self, packet: Packet, data: Buffer, start: int, now: float) -> bool:
        """No type of routing header is ours to obey: skip it if its route has been gone.

        Type 0 is no exception (RFC 5095).

        Raises:
            HeaderError: it is malformed.
        """
        if ipv6.RoutingHeader.parse(data, start).segments_left:
            self._refuse(packet, data, icmpv6.PROBLEM_HEADER_FIELD, start + 2, now)
            return False
        return True

    def _refuse_jumbogram(self, packet: Packet, data: Buffer, now: float) -> None:
        """A packet that claims to be longer than any frame here can carry (RFC 2675 3)."""
        try:
            length = 8 + 8 * data[ipv6.LENGTH + 1] if len(data) >= ipv6.LENGTH + 8 else 0
            for option in ipv6.iter_options(data, ipv6.LENGTH, length):
                if option.kind == ipv6.OPTION_JUMBO_PAYLOAD:
                    pointer = option.offset + 2
                    self._refuse(packet, data, icmpv6.PROBLEM_HEADER_FIELD, pointer, now)
                    return
        except HeaderError:
            pass  # counted below: without the option it is just malformed
        self._counters.ip_bad_extension += 1

    def _refuse(self, packet: Packet, data: Buffer, code: int, pointer: int, now: float) -> None:
        self._counters.ip_bad_extension += 1
        self._icmp.v6.parameter_problem(packet, data, code, pointer, now)

    def _take_fragment(
        self,
        packet: Packet,
        data: Buffer,
        at: int,
        pointer: int,
        now: float,
    ) -> None:
        """Keep a fragment, and go on with the whole packet if this was what it lacked.

        Raises:
            HeaderError: a whole packet that pretends to be a fragment is malformed behind.
        """
        header = ipv6.FragmentHeader.parse(data, at)
        start = at + ipv6.FRAGMENT_LENGTH
        piece = data[start:]
        if header.is_atomic:
            # RFC 6946: not to be mixed with others, nor to wait for them
            packet.was_fragmented = True
            self._go_on(packet, data[:at], pointer, header.next_header, piece, now)
            return
        self._counters.ip_fragments += 1
        if header.more_fragments and len(piece) & 7:
            self._counters.fragment_malformed += 1
            self._icmp.v6.parameter_problem(
                packet, data, icmpv6.PROBLEM_HEADER_FIELD, _PAYLOAD_LENGTH_AT, now
            )
            return
        length = at - ipv6.LENGTH + header.fragment_offset + len(piece)
        if length > _MAX_PACKET:
            self._counters.fragment_malformed += 1
            self._icmp.v6.parameter_problem(packet, data, icmpv6.PROBLEM_HEADER_FIELD, at + 2, now)
            return
        if header.fragment_offset == 0 and _cuts_transport(header.next_header, piece):
            self._counters.fragment_malformed += 1  # RFC 7112, RFC 8200 4.5
            self._icmp.v6.parameter_problem(packet, data, icmpv6.PROBLEM_INCOMPLETE_CHAIN, 0, now)
            return
        packet.protocol = header.next_header
        packet.ip_header = bytes(data[:start])
        packet.transport = piece
        packet.was_fragmented = True
        whole = self._reassembly.add(
            (packet.source, packet.destination, header.identification, 0),
            header.fragment_offset,
            is_last=not header.more_fragments,
            packet=packet,
            now=now,
        )
        if whole is not None:
            front = bytes(whole.ip_header)[: -ipv6.FRAGMENT_LENGTH]
            pointer = _last_next_header(front)
            self._go_on(whole, front, pointer, whole.protocol, whole.transport, now)

    def _go_on(
        self, packet: Packet, front: Buffer, pointer: int, kind: int, body: Buffer, now: float
    ) -> None:
        """Continue behind a fragment header that is taken out of its packet."""
        octets = bytearray(front)
        octets[pointer] = kind
        octets += body
        octets[4:6] = (len(octets) - ipv6.LENGTH).to_bytes(2)
        packet.protocol = kind
        packet.payload = b""
        self._walk(packet, memoryview(bytes(octets)), len(front), pointer, now)


def _last_next_header(front: bytes) -> int:
    """Where *front*, which was in front of a fragment header, says that it follows."""
    pointer = _NEXT_HEADER_AT
    at = ipv6.LENGTH
    while at < len(front):
        pointer = at
        at += 8 + 8 * front[at + 1]
    return pointer


def _extension_length(kind: int, data: Buffer, start: int, end: int) -> int:
    """Octets of the extension header at *start*.

    Raises:
        HeaderError: they are not all there.
    """
    there = end - start
    if there < 8:
        raise HeaderError(f"IPv6 extension header {kind}: cut short after {there} octets")
    length: int = 8 if kind == ipv6.FRAGMENT else 8 + 8 * data[start + 1]
    if length > there:
        raise HeaderError(f"IPv6 extension header {kind}: {length} octets do not fit {there}")
    return length


def _last_of_run(data: Buffer, start: int) -> int:
    """Where the last of several equal headers of 8 octets starts, of which the first is at *start*.

    Nothing about the others can be different, so a packet that is full of them is no work.
    """
    octets = bytes(data[start : start + 8])
    if data[start + 8 : start + 16] != octets:
        return start
    found = re.compile(b"(?:" + re.escape(octets) + b")+").match(data, start)
    assert found is not None  # noqa: S101 - it matches once, at least
    return found.end() - 8


def _cuts_transport(kind: int, piece: Buffer) -> bool:
    """True if a first fragment ends within its transport's header (RFC 8200 4.5).

    The RFC wants all headers in the first fragment.  Linux, which we follow, accepts extension
    headers that go on in the next: nothing here looks at a fragment before the packet is whole.
    """
    start, end = 0, len(piece)
    for _ in range(MAX_EXTENSION_HEADERS):
        if kind not in _EXTENSIONS or end - start < 8:
            break
        length = 8 if kind == ipv6.FRAGMENT else 8 + 8 * piece[start + 1]
        kind = piece[start]
        start += length
    return start <= end < start + _TRANSPORT_MINIMUM.get(kind, 0)


_EXTENSIONS = frozenset((ipv6.HOP_BY_HOP, ipv6.ROUTING, ipv6.FRAGMENT, ipv6.DESTINATION_OPTIONS))
_ONLY_PADDING = bytes(
    (0, ipv6.OPTION_PADN, 4, 0, 0, 0, 0)
)  # a header of 8 octets that says nothing
_TRANSPORT_MINIMUM = {PROTOCOL_TCP: 20, PROTOCOL_UDP: 8, PROTOCOL_ICMPV6: 4}
