"""Multicast listener discovery for a host: MLDv2, and MLDv1 where routers speak it (RFC 3810)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.errors import HeaderError
from zttrio.header import icmpv6, ipv6, mld
from zttrio.header.address import (
    ALL_NODES,
    ALL_ROUTERS,
    IPV6_UNSPECIFIED,
    is_link_local,
    packed,
)
from zttrio.header.ipv4 import PROTOCOL_ICMPV6

from .membership import Membership

if TYPE_CHECKING:
    import random

    from zttrio.header.frame import Buffer
    from zttrio.header.membership import GroupRecord

    from .addresses import Addresses
    from .counters import Counters
    from .groups import Groups
    from .icmpv6 import IcmpV6Layer
    from .igmp import GroupSender
    from .ip import Ip
    from .packet import Packet
    from .timers import TimerQueue

__all__ = ["Mld"]

ALL_MLD_ROUTERS = packed("ff02::16")  # RFC 3810 5.2.14
RECORD_LENGTH = 20  # of a record without sources
_ROUTER_ALERT = ipv6.Option(ipv6.OPTION_ROUTER_ALERT, bytes(2))  # RFC 2711: value 0 is MLD
_HOP_BY_HOP = ipv6.emit_options(PROTOCOL_ICMPV6, (_ROUTER_ALERT,))


class Mld:
    """The MLD side of one stack; a link protocol of ICMPv6.

    Args:
        icmp: registers us.
        ip: knows how long a report may be.
        sender: sends.
        addresses: what is ours.
        groups: what we are in.
        timers: for reports.
        counters: what is counted.
        rng: spreads reports.

    Attributes:
        membership: what is to be told when.
    """

    def __init__(
        self,
        icmp: IcmpV6Layer,
        ip: Ip,
        sender: GroupSender,
        addresses: Addresses,
        groups: Groups,
        timers: TimerQueue,
        counters: Counters,
        rng: random.Random,
    ) -> None:
        self.membership = Membership(2, 16, groups, self, timers, rng)
        self._ip = ip
        self._sender = sender
        self._addresses = addresses
        self._counters = counters
        groups.listeners[16] = self.membership
        kinds = (icmpv6.MLD_QUERY, icmpv6.MLD_REPORT, icmpv6.MLD_DONE, icmpv6.MLD_REPORT_V2)
        icmp.register(kinds, self)

    def receive_message(self, packet: Packet, kind: int, data: Buffer, now: float) -> None:
        """Take in one message.  Never raises."""
        counters = self._counters
        if (
            packet.hop_limit != 1
            or packet.was_fragmented
            or not is_link_local(packet.source)
            or not _has_router_alert(packet.ip_header)
        ):
            counters.mld_malformed += 1  # RFC 3810 5.1.14 and 6.2: not from a neighbor's MLD
            return
        try:
            if kind == icmpv6.MLD_QUERY:
                self._receive_query(packet, mld.MldQuery.parse(data), now)
                return
            if kind == icmpv6.MLD_REPORT:
                self.membership.receive_old_report(mld.MldV1Message.parse(data).group)
        except HeaderError:
            counters.mld_malformed += 1
            return
        counters.mld_ignored += 1

    def may_report(self, group: bytes) -> bool:
        """False for the group that everybody is in, and groups that stay in a host."""
        return group != ALL_NODES and group[1] & 0xF > 1

    def send_report(self, records: list[GroupRecord]) -> None:
        """Send records, as many in a packet as fit."""
        front = ipv6.LENGTH + len(_HOP_BY_HOP) + icmpv6.LENGTH
        count = max(1, (self._ip.mtus[16] - front) // RECORD_LENGTH)
        source = self._source()
        for start in range(0, len(records), count):
            report = mld.MldReport(tuple(records[start : start + count]))
            self._send(report.emit(source, ALL_MLD_ROUTERS), source, ALL_MLD_ROUTERS)

    def send_old_report(self, group: bytes, version: int) -> None:
        """Send a report of version 1."""
        del version
        source = self._source()
        message = mld.MldV1Message(icmpv6.MLD_REPORT, group)
        self._send(message.emit(source, group), source, group)

    def send_old_leave(self, group: bytes, version: int) -> None:
        """Say farewell in version 1."""
        del version
        source = self._source()
        message = mld.MldV1Message(icmpv6.MLD_DONE, group)
        self._send(message.emit(source, ALL_ROUTERS), source, ALL_ROUTERS)

    def _receive_query(self, packet: Packet, query: mld.MldQuery, now: float) -> None:
        if any(query.group) and packet.destination not in (query.group, ALL_NODES):
            self._counters.mld_ignored += 1
            return
        self._counters.mld_queries += 1
        self.membership.receive_query(
            query.group,
            query.sources,
            query.max_response_delay,
            query.version,
            now,
            robustness=query.robustness,
            query_interval=query.query_interval,
        )

    def _source(self) -> bytes:
        """Our link-local address, or nobody's while it is not verified (RFC 3590)."""
        for entry in self._addresses.of_family(16):
            if is_link_local(entry.packed) and not entry.is_optimistic:
                return entry.packed
        return IPV6_UNSPECIFIED

    def _send(self, message: bytes, source: bytes, destination: bytes) -> None:
        length = len(_HOP_BY_HOP) + len(message)
        header = ipv6.Ipv6Header(source, destination, ipv6.HOP_BY_HOP, length, 1)
        self._counters.mld_out += 1
        self._sender.send_to_group(header.emit() + _HOP_BY_HOP + message, destination)


def _has_router_alert(ip_header: Buffer) -> bool:
    if len(ip_header) < ipv6.LENGTH + 8 or ip_header[6] != ipv6.HOP_BY_HOP:
        return False
    length = 8 + 8 * ip_header[ipv6.LENGTH + 1]
    options = ipv6.iter_options(ip_header, ipv6.LENGTH, length)
    return any(option.kind == ipv6.OPTION_ROUTER_ALERT for option in options)
