"""IPv4 on its way in: every check a host makes, and reassembly (RFC 791, RFC 1122 3.2).

The common case, a whole packet without options for one of our addresses, is handled by
`zttrio.stack.stack.Stack.receive` itself; what comes here is everything else, and is checked from
the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.errors import HeaderError
from zttrio.header import icmpv4, ipv4
from zttrio.header.address import IPV4_UNSPECIFIED, is_loopback, is_multicast
from zttrio.header.checksum import sum_of

from .packet import Packet

if TYPE_CHECKING:
    from .addresses import Addresses
    from .counters import Counters
    from .groups import Groups
    from .icmp import Icmp
    from .ip import Ip
    from .reassembly import Reassembly

__all__ = ["Ipv4Input"]

_LOOSE_SOURCE_ROUTE = 131
_STRICT_SOURCE_ROUTE = 137
_END, _NOP = 0, 1


class Ipv4Input:
    """Reads IPv4 packets from the wire.

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
        self._addresses = addresses
        self._groups = groups
        self._reassembly = reassembly
        self._icmp = icmp
        self._counters = counters

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
        if len(data) < ipv4.LENGTH:
            counters.ip_truncated += 1
            return
        try:
            header = ipv4.Ipv4Header.parse_quoted(data)
        except HeaderError:
            counters.ip_malformed += 1
            return
        header_length = header.header_length
        if header.total_length < header_length:
            counters.ip_malformed += 1
            return
        if header.total_length > len(data):
            counters.ip_truncated += 1
            return
        ip_header = data[:header_length]
        if sum_of(ip_header) != 0xFFFF:
            counters.ip_bad_checksum += 1
            return
        destination = header.destination
        if self._is_martian(header.source, destination):
            counters.ip_martian += 1
            return
        if is_multicast(destination):
            is_group = True
            if destination not in self._groups:
                counters.ip_group_not_joined += 1
                return
        elif destination in self._addresses.broadcasts:
            is_group = True
        elif not self._addresses.is_ours(destination):
            counters.ip_not_ours += 1
            return
        if header.options and not self._accept_options(header.options):
            return
        packet = Packet(
            header.source,
            destination,
            header.protocol,
            data[header_length : header.total_length],
            b"",
            bytes(ip_header),
            header.ttl,
            header.traffic_class,
            checksum,
            gso_size,
            is_group,
        )
        if header.is_fragment:
            counters.ip_fragments += 1
            whole = self._reassembly.add(
                (header.source, destination, header.identification, header.protocol),
                header.fragment_offset,
                is_last=not header.more_fragments,
                packet=packet,
                now=now,
            )
            if whole is None:
                return
            packet = whole
        if not self._ip.deliver(packet, now):
            self._icmp.v4.send_error(
                packet, icmpv4.DESTINATION_UNREACHABLE, icmpv4.UNREACHABLE_PROTOCOL, now
            )

    def _is_martian(self, source: bytes, destination: bytes) -> bool:
        """True for addresses that cannot be on a wire (RFC 1122 3.2.1.3, RFC 1812 5.3.7)."""
        if is_loopback(destination) or destination == IPV4_UNSPECIFIED:
            return True
        first = source[0]
        if first == 0:
            # a host that asks for its address, and IGMP of one that has none yet
            return source != IPV4_UNSPECIFIED or not self._ip.is_group(destination)
        return (
            first == 127
            or first >= 224
            or self._addresses.is_ours(source)
            or source in self._addresses.broadcasts
        )

    def _accept_options(self, options: bytes) -> bool:
        """Read the options, of which none changes what we do; False if the packet is to go.

        Source routes are refused: a host has no business forwarding (RFC 1122 3.3.5), and an end
        point that obeys them answers strangers along their path.
        """
        at = 0
        while at < len(options) and options[at] != _END:
            kind = options[at]
            if kind == _NOP:
                at += 1
                continue
            length = options[at + 1] if at + 1 < len(options) else 0
            if length < 2 or at + length > len(options):
                self._counters.ip_malformed += 1
                return False
            if kind in (_LOOSE_SOURCE_ROUTE, _STRICT_SOURCE_ROUTE):
                self._counters.ip_source_routed += 1
                return False
            at += length
        return True
