"""ICMP for IPv4 as a host speaks it (RFC 792, RFC 1122 3.2.2).

An error that comes in becomes a `PathError` for the transport whose packet it quotes.  What both
families have in common, pings and the limit of errors, is in `zttrio.stack.icmp`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError
from zttrio.header import icmpv4, ipv4
from zttrio.header.checksum import checksum, update
from zttrio.header.frame import CHECKSUM_COMPLETE
from zttrio.header.ipv4 import PROTOCOL_ICMP

from .packet import PathError

if TYPE_CHECKING:
    from .counters import Counters
    from .icmp import Icmp
    from .ip import Ip
    from .packet import Packet

__all__ = ["IcmpV4Layer"]

QUOTE_PACKET = 576  # RFC 1812 4.3.2.3: an error is at most this long
ERROR_TRAFFIC_CLASS = 0xC0  # RFC 1812 4.3.2.5: internetwork control

# errno and whether it is hard (RFC 1122 4.2.3.9), by code of DESTINATION_UNREACHABLE; Linux's table
_UNREACHABLE = {
    0: (errno.ENETUNREACH, False),
    1: (errno.EHOSTUNREACH, False),
    2: (errno.ENOPROTOOPT, True),
    3: (errno.ECONNREFUSED, True),
    4: (errno.EMSGSIZE, False),
    5: (errno.EOPNOTSUPP, False),
    6: (errno.ENETUNREACH, True),
    7: (errno.EHOSTDOWN, True),
    8: (errno.EHOSTUNREACH, True),
    9: (errno.ENETUNREACH, True),
    10: (errno.EHOSTUNREACH, True),
    11: (errno.ENETUNREACH, False),
    12: (errno.EHOSTUNREACH, False),
    13: (errno.EHOSTUNREACH, True),
    14: (errno.EHOSTUNREACH, True),
    15: (errno.EHOSTUNREACH, True),
}
# RFC 1191 7.1: what to try when a router does not say how much fits
_PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)


class IcmpV4Layer:
    """The ICMP side of IPv4; a transport.

    Args:
        icmp: pings, and the limit of errors.
        ip: what it sends through.
        counters: what is counted.
    """

    def __init__(self, icmp: Icmp, ip: Ip, counters: Counters) -> None:
        self._icmp = icmp
        self._echoes = icmp.echoes
        self._ip = ip
        self._counters = counters
        ip.register(PROTOCOL_ICMP, self, (4,))

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one ICMP message.  Never raises."""
        counters = self._counters
        counters.icmp_in += 1
        data = packet.data()
        if packet.checksum == CHECKSUM_COMPLETE and checksum(data):
            counters.icmp_bad_checksum += 1
            return
        try:
            message = icmpv4.IcmpV4.parse(data)
        except HeaderError:
            counters.icmp_malformed += 1
            return
        if message.type == icmpv4.ECHO_REQUEST:
            self._answer_echo(packet, message, now)
        elif message.type == icmpv4.ECHO_REPLY:
            self._echoes.receive_reply(packet.source, message.rest, message.body, now)
        elif message.type == icmpv4.REDIRECT:
            # RFC 1122 3.2.2.2 wants them obeyed, which lets anybody on the link take our traffic;
            # Linux's secure_redirects and every hardening guide turn them off
            counters.icmp_redirects_ignored += 1
        elif message.type in icmpv4.ERROR_TYPES:
            self._receive_error_message(packet, message, now)
        else:
            counters.icmp_unknown_type += 1

    def receive_error(self, error: PathError, now: float) -> None:
        """Learn that something of ours was lost."""
        self._icmp.request_lost(error, now)

    def send_error(self, packet: Packet, kind: int, code: int, now: float) -> None:
        """Send an error about *packet*, if one may be sent."""
        data = packet.data()
        if packet.protocol == PROTOCOL_ICMP and (not data or data[0] in icmpv4.ERROR_TYPES):
            self._counters.icmp_errors_unwanted += 1
            return
        if not self._icmp.may_answer(packet, now):
            return
        ip_header = (
            packet.ip_header
            or ipv4.Ipv4Header(
                packet.source,
                packet.destination,
                packet.protocol,
                min(ipv4.LENGTH + len(data), ipv4.MAX_PACKET),
                packet.hop_limit,
                traffic_class=packet.traffic_class,
            ).emit()
        )
        room = QUOTE_PACKET - ipv4.LENGTH - icmpv4.LENGTH - len(ip_header)
        body = bytes(ip_header) + bytes(data[:room])
        message = icmpv4.IcmpV4(kind, code, body=body).emit()
        self._counters.icmp_errors_out += 1
        self._ip.send(
            packet.destination,
            packet.source,
            PROTOCOL_ICMP,
            message,
            b"",
            now,
            traffic_class=ERROR_TRAFFIC_CLASS,
            dont_fragment=False,
        )

    def send_echo_request(
        self, destination: bytes, rest: int, payload: bytes, hop_limit: int, now: float
    ) -> None:
        """Send one echo request; *rest* is identifier and sequence number."""
        message = icmpv4.IcmpV4(icmpv4.ECHO_REQUEST, 0, rest=rest, body=payload).emit()
        self._ip.send(
            self._ip.path(destination).source,
            destination,
            PROTOCOL_ICMP,
            message[: icmpv4.LENGTH],
            payload,
            now,
            hop_limit=hop_limit,
            dont_fragment=False,
        )

    def _answer_echo(self, packet: Packet, message: icmpv4.IcmpV4, now: float) -> None:
        if packet.is_multicast:
            # RFC 1122 3.2.2.6 allows silence, which keeps us out of smurf attacks
            self._counters.icmp_echo_ignored += 1
            return
        self._counters.icmp_echo_requests += 1
        # Only the type changes, so that the octets of a long ping are not summed again.
        reply = icmpv4.IcmpV4(icmpv4.ECHO_REPLY, 0, rest=message.rest)
        header = bytearray(reply.emit())
        header[2:4] = update(message.checksum, icmpv4.ECHO_REQUEST << 8 | message.code, 0).to_bytes(
            2
        )
        self._ip.send(
            packet.destination,
            packet.source,
            PROTOCOL_ICMP,
            bytes(header),
            message.body,
            now,
            traffic_class=packet.traffic_class & 0xFC,
            dont_fragment=False,
        )

    def _receive_error_message(self, packet: Packet, message: icmpv4.IcmpV4, now: float) -> None:
        try:
            quoted = ipv4.Ipv4Header.parse_quoted(message.body)
        except HeaderError:
            self._counters.icmp_malformed += 1
            return
        transport = self._ip.transports(4).get(quoted.protocol)
        octets = bytes(message.body[quoted.header_length :])
        if (
            transport is None
            or len(octets) < 8
            or quoted.fragment_offset
            or not self._ip.is_local(quoted.source)
        ):
            self._counters.icmp_errors_not_ours += 1
            return
        error, is_hard = _UNREACHABLE.get(message.code, (errno.EHOSTUNREACH, False))
        mtu = 0
        if message.type == icmpv4.TIME_EXCEEDED:
            error, is_hard = errno.EHOSTUNREACH, False
        elif message.type == icmpv4.PARAMETER_PROBLEM:
            error, is_hard = errno.EPROTO, True
        elif message.type == icmpv4.SOURCE_QUENCH:  # RFC 6633: ignored
            self._counters.icmp_errors_not_ours += 1
            return
        elif error == errno.EMSGSIZE:
            mtu = message.rest & 0xFFFF or _plateau(quoted.total_length)
        self._counters.icmp_errors_in += 1
        transport.receive_error(
            PathError(
                quoted.source,
                quoted.destination,
                quoted.protocol,
                octets,
                error,
                is_hard,
                mtu,
                packet.source,
            ),
            now,
        )


def _plateau(length: int) -> int:
    """The next smaller usual MTU for a packet of *length* octets that did not fit."""
    return next((mtu for mtu in _PLATEAUS if mtu < length), _PLATEAUS[-1])
