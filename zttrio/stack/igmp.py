"""IGMP as a host speaks it: version 3, and older ones where routers do (RFC 3376)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zttrio.errors import HeaderError
from zttrio.header import igmp, ipv4
from zttrio.header.address import IPV4_UNSPECIFIED, packed
from zttrio.header.checksum import checksum
from zttrio.header.ipv4 import PROTOCOL_IGMP

from .groups import ALL_HOSTS
from .membership import Membership

if TYPE_CHECKING:
    import random

    from zttrio.header.membership import GroupRecord

    from .addresses import Addresses
    from .counters import Counters
    from .groups import Groups
    from .ip import Ip
    from .packet import Packet, PathError
    from .timers import TimerQueue

__all__ = ["Igmp"]

ALL_IGMP_ROUTERS = packed("224.0.0.22")  # RFC 3376 4.2.14
ALL_ROUTERS = packed("224.0.0.2")  # RFC 2236 section 3
TRAFFIC_CLASS = 0xC0  # RFC 3376 4: internetwork control
RECORD_LENGTH = 8  # of a record without sources
_HEADER_LENGTH = ipv4.LENGTH + len(igmp.ROUTER_ALERT)


class GroupSender(Protocol):
    """Where packets to groups leave."""

    def send_to_group(self, packet: bytes, group: bytes) -> None:
        """Send an IP packet to everybody in *group*."""


class Igmp:
    """The IGMP side of one stack; a transport.

    Args:
        ip: registers us.
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
        ip: Ip,
        sender: GroupSender,
        addresses: Addresses,
        groups: Groups,
        timers: TimerQueue,
        counters: Counters,
        rng: random.Random,
    ) -> None:
        self.membership = Membership(3, 4, groups, self, timers, rng)
        self._ip = ip
        self._sender = sender
        self._addresses = addresses
        self._counters = counters
        groups.listeners[4] = self.membership
        ip.register(PROTOCOL_IGMP, self, (4,))

    def receive_packet(self, packet: Packet, now: float) -> None:
        """Take in one message.  Never raises."""
        counters = self._counters
        counters.igmp_in += 1
        data = packet.data()
        if checksum(data):
            counters.igmp_bad_checksum += 1
            return
        if packet.hop_limit != 1 or len(data) < igmp.LENGTH:
            counters.igmp_malformed += 1  # from beyond the link, or cut short
            return
        kind = data[0]
        try:
            if kind == igmp.MEMBERSHIP_QUERY:
                self._receive_query(packet, igmp.IgmpQuery.parse(data), now)
                return
            if kind in (igmp.REPORT_V1, igmp.REPORT_V2):
                self.membership.receive_old_report(igmp.IgmpMessage.parse(data).group)
        except HeaderError:
            counters.igmp_malformed += 1
            return
        counters.igmp_ignored += 1

    def receive_error(self, error: PathError, now: float) -> None:
        """Reports are repeated anyway."""

    def may_report(self, group: bytes) -> bool:
        """False for the group that everybody is in."""
        return group != ALL_HOSTS

    def send_report(self, records: list[GroupRecord]) -> None:
        """Send records, as many in a packet as fit."""
        count = max(1, (self._ip.mtus[4] - _HEADER_LENGTH - igmp.LENGTH) // RECORD_LENGTH)
        for start in range(0, len(records), count):
            report = igmp.IgmpReport(tuple(records[start : start + count]))
            self._send(report.emit(), ALL_IGMP_ROUTERS)

    def send_old_report(self, group: bytes, version: int) -> None:
        """Send a report of version 1 or 2."""
        kind = igmp.REPORT_V1 if version == 1 else igmp.REPORT_V2
        self._send(igmp.IgmpMessage(kind, group).emit(), group)

    def send_old_leave(self, group: bytes, version: int) -> None:
        """Say farewell in version 2; version 1 has no such message."""
        if version == 2:
            self._send(igmp.IgmpMessage(igmp.LEAVE_GROUP, group).emit(), ALL_ROUTERS)

    def _receive_query(self, packet: Packet, query: igmp.IgmpQuery, now: float) -> None:
        if any(query.group) and packet.destination not in (query.group, ALL_HOSTS):
            self._counters.igmp_ignored += 1
            return
        self._counters.igmp_queries += 1
        self.membership.receive_query(
            query.group,
            query.sources,
            query.max_response_time,
            query.version,
            now,
            robustness=query.robustness,
            query_interval=query.query_interval,
        )

    def _send(self, message: bytes, destination: bytes) -> None:
        ours = self._addresses.of_family(4)
        header = ipv4.Ipv4Header(
            ours[0].packed if ours else IPV4_UNSPECIFIED,  # RFC 3376 4.2.13
            destination,
            PROTOCOL_IGMP,
            _HEADER_LENGTH + len(message),
            1,
            traffic_class=TRAFFIC_CLASS,
            options=igmp.ROUTER_ALERT,
        )
        self._counters.igmp_out += 1
        self._sender.send_to_group(header.emit() + message, destination)
