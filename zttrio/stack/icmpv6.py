"""ICMPv6 as a host speaks it (RFC 4443); neighbor discovery and group membership are handed on.

What both families have in common, pings and the limit of errors, is in `zttrio.stack.icmp`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Protocol

from zttrio.errors import HeaderError
from zttrio.header import icmpv6, ipv6
from zttrio.header.checksum import transport_checksum, update
from zttrio.header.frame import CHECKSUM_COMPLETE, Buffer
from zttrio.header.ipv4 import PROTOCOL_ICMPV6

from .packet import PathError

if TYPE_CHECKING:
    from .counters import Counters
    from .icmp import Icmp
    from .ip import Ip
    from .packet import Packet

__all__ = ["IcmpV6Layer", "LinkProtocol"]

MINIMUM_MTU = 1280  # RFC 4443 2.4 (c): an error is at most this long

# errno and whether it is hard, by code of DESTINATION_UNREACHABLE; Linux's table
_UNREACHABLE = {
    0: (errno.ENETUNREACH, False),
    1: (errno.EACCES, True),
    2: (errno.EHOSTUNREACH, False),
    3: (errno.EHOSTUNREACH, False),
    4: (errno.ECONNREFUSED, True),
    5: (errno.EACCES, True),
    6: (errno.EACCES, True),
}


class LinkProtocol(Protocol):
    """What speaks ICMPv6 with the neighbors only: neighbor discovery, multicast listeners."""

    def receive_message(self, packet: Packet, kind: int, data: Buffer, now: float) -> None:
        """Take in one message, whose checksum is right and whose type is *kind*."""


class IcmpV6Layer:
    """The ICMP side of IPv6; a transport.

    Args:
        icmp: pings, and the limit of errors.
        ip: what it sends through.
        counters: what is counted.
    """

    def __init__(self, icmp: Icmp, ip: Ip, counters: Counters) -> None:
        self._icmp = icmp
        self._ip = ip
        self._counters = counters
        self._link_protocols: dict[int, LinkProtocol] = {}
        ip.register(PROTOCOL_ICMPV6, self, (16,))

    def register(self, kinds: tuple[int, ...], protocol: LinkProtocol) -> None:
        """Hand messages of these types to *protocol*."""
        self._link_protocols.update(dict.fromkeys(kinds, protocol))

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one message.  Never raises."""
        counters = self._counters
        counters.icmp_in += 1
        data = packet.data()
        if packet.checksum == CHECKSUM_COMPLETE and transport_checksum(
            packet.source, packet.destination, PROTOCOL_ICMPV6, data
        ):
            counters.icmp_bad_checksum += 1
            return
        try:
            message = icmpv6.IcmpV6.parse(data)
        except HeaderError:
            counters.icmp_malformed += 1
            return
        link_protocol = self._link_protocols.get(message.type)
        if link_protocol is not None:
            counters.icmp_link_messages += 1
            link_protocol.receive_message(packet, message.type, data, now)
        elif message.type == icmpv6.ECHO_REQUEST:
            self._answer_echo(packet, message, now)
        elif message.type == icmpv6.ECHO_REPLY:
            self._icmp.echoes.receive_reply(packet.source, message.rest, message.body, now)
        elif message.is_error:
            self._receive_error_message(packet, message, now)
        else:
            counters.icmp_unknown_type += 1

    def receive_error(self, error: PathError, now: float) -> None:
        """Learn that something of ours was lost."""
        self._icmp.request_lost(error, now)

    def send_echo_request(
        self, destination: bytes, rest: int, payload: bytes, hop_limit: int, now: float
    ) -> None:
        """Send one echo request; *rest* is identifier and sequence number."""
        source = self._ip.path(destination).source
        message = icmpv6.IcmpV6(icmpv6.ECHO_REQUEST, 0, rest=rest, body=payload)
        header = message.emit(source, destination)[: icmpv6.LENGTH]
        self._ip.send(
            source,
            destination,
            PROTOCOL_ICMPV6,
            header,
            payload,
            now,
            hop_limit=hop_limit,
            dont_fragment=False,
        )

    def parameter_problem(
        self, packet: Packet, data: Buffer, code: int, pointer: int, now: float
    ) -> None:
        """Send a parameter problem.

        Args:
            packet: what was wrong.
            data: all of it, from the IPv6 header on.
            code: PROBLEM_HEADER_FIELD and its kin.
            pointer: where in *data*.
            now: seconds.
        """
        try:
            kind, start = _find_transport(data[6], data)
        except HeaderError:
            kind, start = ipv6.NO_NEXT_HEADER, len(data)  # no telling what it would have been
        packet.protocol = kind
        packet.ip_header = data[:start]
        packet.transport = data[start:]
        packet.payload = b""
        self.send_error(packet, icmpv6.PARAMETER_PROBLEM, code, now, rest=pointer)

    def send_error(
        self, packet: Packet, kind: int, code: int, now: float, *, rest: int = 0
    ) -> None:
        """Send an error about *packet*, if one may be sent (RFC 4443 2.4 e)."""
        data = packet.data()
        first = data[0] if data else -1
        if packet.protocol == PROTOCOL_ICMPV6 and (
            first < icmpv6.ECHO_REQUEST or first == icmpv6.REDIRECT
        ):
            self._counters.icmp_errors_unwanted += 1
            return
        even_to_group = kind == icmpv6.PARAMETER_PROBLEM and code == icmpv6.PROBLEM_OPTION
        if not self._icmp.may_answer(packet, now, even_to_group=even_to_group):
            return
        ip_header = (
            packet.ip_header
            or ipv6.Ipv6Header(
                packet.source,
                packet.destination,
                packet.protocol,
                min(len(data), 0xFFFF),
                packet.hop_limit,
                packet.traffic_class,
            ).emit()
        )
        body = b"".join((ip_header, data))[: MINIMUM_MTU - ipv6.LENGTH - icmpv6.LENGTH]
        destination = packet.source
        if self._ip.is_local(packet.destination):
            source = packet.destination
        else:
            source = self._ip.path(destination).source
        if not source:  # we have no address for an answer
            self._counters.icmp_errors_unwanted += 1
            return
        message = icmpv6.IcmpV6(kind, code, rest=rest, body=body)
        self._counters.icmp_errors_out += 1
        self._ip.send(
            source,
            destination,
            PROTOCOL_ICMPV6,
            message.emit(source, destination),
            b"",
            now,
            dont_fragment=False,
        )

    def _answer_echo(self, packet: Packet, message: icmpv6.IcmpV6, now: float) -> None:
        destination = packet.source
        if self._ip.is_local(packet.destination):
            source = packet.destination
        else:
            source = self._ip.path(destination).source  # RFC 4443 4.2: a group was asked
        if not source or destination[0] == 0xFF or not any(destination):
            self._counters.icmp_echo_ignored += 1
            return
        self._counters.icmp_echo_requests += 1
        reply = icmpv6.IcmpV6(icmpv6.ECHO_REPLY, 0, rest=message.rest)
        if source == packet.destination and packet.checksum == CHECKSUM_COMPLETE:
            # Only the type changes, so that the octets of a long ping are not summed again.
            asked = icmpv6.ECHO_REQUEST << 8 | message.code
            value = update(message.checksum, asked, icmpv6.ECHO_REPLY << 8)
            header = bytearray(reply.emit(source, destination))
            header[2:4] = value.to_bytes(2)
        else:
            reply.body = message.body
            header = bytearray(reply.emit(source, destination)[: icmpv6.LENGTH])
        self._ip.send(
            source,
            destination,
            PROTOCOL_ICMPV6,
            bytes(header),
            message.body,
            now,
            traffic_class=packet.traffic_class & 0xFC,
            dont_fragment=False,
        )

    def _receive_error_message(self, packet: Packet, message: icmpv6.IcmpV6, now: float) -> None:
        body = message.body
        try:
            quoted = ipv6.Ipv6Header.parse_quoted(body)
            protocol, start = _find_transport(quoted.next_header, body)
        except HeaderError:
            self._counters.icmp_malformed += 1
            return
        transport = self._ip.transports(16).get(protocol)
        octets = bytes(body[start:])
        if transport is None or len(octets) < 8 or not self._ip.is_local(quoted.source):
            self._counters.icmp_errors_not_ours += 1
            return
        mtu = 0
        if message.type == icmpv6.DESTINATION_UNREACHABLE:
            error, is_hard = _UNREACHABLE.get(message.code, (errno.EHOSTUNREACH, False))
        elif message.type == icmpv6.PACKET_TOO_BIG:
            error, is_hard, mtu = errno.EMSGSIZE, False, message.rest
        elif message.type == icmpv6.TIME_EXCEEDED:
            error, is_hard = errno.EHOSTUNREACH, False
        elif message.type == icmpv6.PARAMETER_PROBLEM:
            error, is_hard = errno.EPROTO, True
        else:
            self._counters.icmp_unknown_type += 1
            return
        self._counters.icmp_errors_in += 1
        transport.receive_error(
            PathError(
                quoted.source,
                quoted.destination,
                protocol,
                octets,
                error,
                is_hard,
                mtu,
                packet.source,
            ),
            now,
        )


def _find_transport(kind: int, quoted: Buffer) -> tuple[int, int]:
    """Protocol number and start of the transport header in a quoted packet.

    Raises:
        HeaderError: it is not there, as in a later fragment.
    """
    start = ipv6.LENGTH
    for extension in ipv6.iter_extension_headers(kind, quoted):
        if extension.kind == ipv6.FRAGMENT:
            fragment = ipv6.FragmentHeader.parse(quoted, extension.offset)
            if fragment.fragment_offset:
                raise HeaderError("quoted packet: a later fragment, without transport header")
        kind, start = extension.next_header, extension.offset + extension.length
    return kind, start
