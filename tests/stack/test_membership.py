"""What hosts tell routers about groups: IGMPv3 and MLDv2, older versions, and nothing too often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from zttrio.header import icmpv6, igmp, ipv6, mld
from zttrio.header.address import multicast_mac, packed
from zttrio.header.ipv4 import PROTOCOL_ICMPV6, PROTOCOL_IGMP, Ipv4Header
from zttrio.header.membership import (
    CHANGE_TO_EXCLUDE,
    CHANGE_TO_INCLUDE,
    MODE_IS_EXCLUDE,
    MODE_IS_INCLUDE,
    GroupRecord,
)
from zttrio.stack.groups import GROUP_LIMIT
from zttrio.stack.membership import CHANGE_LIMIT

from .ipv6_host import PEER6, PEER_LL, Host6, frame6, packet6
from .stack_host import PEER, US, Host, Sent, ethernet

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_HOSTS = packed("224.0.0.1")
ALL_NODES = packed("ff02::1")
HOP_BY_HOP = ipv6.emit_options(PROTOCOL_ICMPV6, (ipv6.Option(ipv6.OPTION_ROUTER_ALERT, bytes(2)),))


@attrs.frozen
class Family:
    """The same test for both protocols.

    Attributes:
        host: makes a host that has been quiet for long enough.
        group: to be joined.
        other: another.
        routers: where reports of the current version go.
        current: that version.
        query: a frame with a query: group, sources, max delay, version, further fields.
    """

    host: Callable[[], Host]
    group: bytes
    other: bytes
    routers: bytes
    current: int
    query: Callable[..., bytes]
    source: Callable[[Host], bytes]


def igmp_query(
    group: bytes = bytes(4),
    sources: tuple[bytes, ...] = (),
    delay: float = 10.0,
    version: int = 3,
    *,
    to: bytes | None = None,
    ttl: int = 1,
    robustness: int = 0,
    interval: int = 0,
) -> bytes:
    message = igmp.IgmpQuery(
        group, delay, sources, version=version, robustness=robustness, query_interval=interval
    ).emit()
    destination = to or (group if any(group) else ALL_HOSTS)
    header = Ipv4Header(
        PEER, destination, PROTOCOL_IGMP, 24 + len(message), ttl, options=igmp.ROUTER_ALERT
    )
    return ethernet(header.emit() + message, destination=multicast_mac(destination))


def mld_query(
    group: bytes = bytes(16),
    sources: tuple[bytes, ...] = (),
    delay: float = 10.0,
    version: int = 2,
    *,
    to: bytes | None = None,
    ttl: int = 1,
    robustness: int = 0,
    interval: int = 0,
    source: bytes = PEER_LL,
    alert: bool = True,
) -> bytes:
    destination = to or (group if any(group) else ALL_NODES)
    message = mld.MldQuery(
        group, delay, sources, version=version, robustness=robustness, query_interval=interval
    ).emit(source, destination)
    if alert:
        packet = packet6(
            HOP_BY_HOP + message, 0, source=source, destination=destination, hop_limit=ttl
        )
    else:
        packet = packet6(message, 58, source=source, destination=destination, hop_limit=ttl)
    return frame6(packet)


def quiet_v6() -> Host:
    return Host6()


FAMILIES = [
    Family(
        Host,
        packed("239.1.2.3"),
        packed("239.1.2.4"),
        packed("224.0.0.22"),
        3,
        igmp_query,
        lambda host: US,
    ),
    Family(
        quiet_v6,
        packed("ff05::1234"),
        packed("ff05::1235"),
        packed("ff02::16"),
        2,
        mld_query,
        lambda host: host.link_local if isinstance(host, Host6) else b"",
    ),
]
both = pytest.mark.parametrize("family", FAMILIES, ids=["igmp", "mld"])


def reports(frames: list[Sent]) -> list[tuple[GroupRecord, ...]]:
    """The records of each report of the current version among *frames*, checked on the way."""
    found = []
    for sent in frames:
        if sent.ethertype == 0x0800 and sent.ip.protocol == PROTOCOL_IGMP:
            if sent.content[0] == igmp.REPORT_V3:
                assert sent.ip.options == igmp.ROUTER_ALERT
                assert (sent.ip.ttl, sent.ip.traffic_class) == (1, 0xC0)
                assert sent.destination_mac == multicast_mac(packed("224.0.0.22"))
                found.append(igmp.IgmpReport.parse(sent.content).records)
        elif sent.ethertype == 0x86DD and sent.body[6] == ipv6.HOP_BY_HOP:
            header = ipv6.Ipv6Header.parse(sent.body)
            message = sent.body[48:]
            assert sent.body[40:48] == HOP_BY_HOP
            assert header.hop_limit == 1
            if message[0] == icmpv6.MLD_REPORT_V2:
                assert header.destination == packed("ff02::16")
                found.append(mld.MldReport.parse(message).records)
    return found


def old_messages(frames: list[Sent]) -> list[tuple[int, bytes, bytes]]:
    """Type, group and destination of each message of an older version."""
    found = []
    for sent in frames:
        if sent.ethertype == 0x0800 and sent.ip.protocol == PROTOCOL_IGMP:
            if sent.content[0] == igmp.REPORT_V3:
                continue
            message = igmp.IgmpMessage.parse(sent.content)
            found.append((message.type, message.group, sent.ip.destination))
        elif sent.ethertype == 0x86DD and sent.body[6] == ipv6.HOP_BY_HOP:
            if sent.body[48] == icmpv6.MLD_REPORT_V2:
                continue
            old = mld.MldV1Message.parse(sent.body[48:])
            found.append((old.type, old.group, sent.body[24:40]))
    return found


@both
def test_joining_is_told_twice_within_a_second(family: Family) -> None:
    host = family.host()
    start = host.now
    host.stack.groups.join(family.group)
    record = GroupRecord(CHANGE_TO_EXCLUDE, family.group)
    sent = host.at(start)
    assert reports(sent) == [(record,)]
    later = []
    while (due := host.stack.next_timer()) is not None:
        found = reports(host.at(due))
        later += [(due - start, records) for records in found]
    ((delay, records),) = later
    assert 0 < delay <= 1
    assert records == (record,)


@both
def test_leaving_is_told_twice_too_and_ends_the_telling_of_joining(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now)
    host.stack.groups.leave(family.group)
    record = GroupRecord(CHANGE_TO_INCLUDE, family.group)
    assert reports(host.at(host.now + 5)) == [(record,), (record,)]


@both
def test_a_group_is_told_once_however_many_join_it(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.stack.groups.join(family.group)
    host.stack.groups.leave(family.group)
    assert reports(host.at(host.now + 5)) == []
    assert family.group in host.stack.groups


@both
def test_changes_at_the_same_time_share_a_report(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.stack.groups.join(family.other)
    (records,) = reports(host.at(host.now))
    assert [record.group for record in records] == [family.group, family.other]


@both
def test_a_long_report_travels_in_several_packets(family: Family) -> None:
    host = family.host()
    for number in range(500):
        host.stack.groups.join(family.group[:-2] + number.to_bytes(2))
    found = reports(host.at(host.now))
    assert len(found) > 1
    assert sum(map(len, found)) == 500


@both
def test_a_general_query_is_answered_once_within_its_time(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    start = host.now
    host.put(family.query(delay=10.0), family.query(delay=10.0))
    answers = []
    while (due := host.stack.next_timer()) is not None and due < start + 20:
        answers += [(due, records) for records in reports(host.at(due))]
    ((at, records),) = answers
    assert start < at <= start + 10
    groups = {record.group for record in records}
    assert family.group in groups
    assert {record.kind for record in records} == {MODE_IS_EXCLUDE}
    assert groups.isdisjoint({ALL_HOSTS, ALL_NODES})
    host.check_books()


@both
def test_a_query_for_a_group_is_answered_for_that_group(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.put(family.query(family.group, delay=2.0))
    assert reports(host.at(host.now + 2)) == [(GroupRecord(MODE_IS_EXCLUDE, family.group),)]
    host.put(family.query(family.other, to=family.group))
    assert reports(host.at(host.now + 20)) == []
    host.check_books()


@both
def test_a_query_for_senders_is_answered_for_those_or_for_all(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    senders = tuple(sorted(bytes([number]) * len(family.group) for number in (7, 9)))
    host.put(family.query(family.group, senders[:1]), family.query(family.group, senders[1:]))
    assert reports(host.at(host.now + 10)) == [
        (GroupRecord(MODE_IS_INCLUDE, family.group, senders),)
    ]
    host.put(family.query(family.group, senders), family.query(family.group))
    assert reports(host.at(host.now + 10)) == [(GroupRecord(MODE_IS_EXCLUDE, family.group),)]
    many = tuple(bytes([number]) * len(family.group) for number in range(1, 80))
    host.put(family.query(family.group, many))
    assert reports(host.at(host.now + 10)) == [(GroupRecord(MODE_IS_EXCLUDE, family.group),)]


@both
def test_after_leaving_no_question_is_answered(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.put(family.query(family.group))
    host.stack.groups.leave(family.group)
    kinds = {record.kind for records in reports(host.at(host.now + 20)) for record in records}
    assert kinds == {CHANGE_TO_INCLUDE}


@both
def test_the_routers_robustness_is_taken_over(family: Family) -> None:
    host = family.host()
    host.put(family.query(robustness=4))
    host.at(host.now + 20)
    host.stack.groups.join(family.group)
    assert len(reports(host.at(host.now + 20))) == 4
    host.put(family.query(robustness=0))
    host.at(host.now + 20)
    host.stack.groups.join(family.other)
    assert len(reports(host.at(host.now + 20))) == 2


@both
def test_a_query_from_beyond_the_link_is_refused(family: Family) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.put(family.query(ttl=2), family.query(ttl=255))
    assert reports(host.at(host.now + 20)) == []
    assert host.counters.igmp_malformed + host.counters.mld_malformed == 2
    host.check_books()


@pytest.mark.parametrize(
    "frame",
    [mld_query(source=PEER6), mld_query(alert=False)],
    ids=["source", "alert"],
)
def test_an_mld_query_has_a_link_local_source_and_a_router_alert(frame: bytes) -> None:
    host = Host6()
    host.put(frame)
    assert host.counters.mld_malformed + host.counters.icmp_malformed == 1
    assert reports(host.at(host.now + 20)) == []
    host.check_books()


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("igmp_malformed", b"\x11\x00\xee\xff"),
        ("igmp_bad_checksum", igmp.IgmpQuery(bytes(4), 1.0).emit()[:-1] + b"\1"),
        ("igmp_malformed", b"\x11\x0a\xee\xf2" + bytes(4) + b"\0\3"),
        ("igmp_ignored", igmp.IgmpReport(()).emit()),
        ("igmp_ignored", b"\x99" + bytes(1) + b"\x66\xff" + bytes(4)),
        ("igmp_ignored", igmp.IgmpMessage(igmp.LEAVE_GROUP, packed("239.1.2.3")).emit()),
    ],
)
def test_a_bad_igmp_message_is_counted_by_its_reason(reason: str, message: bytes) -> None:
    host = Host()
    header = Ipv4Header(PEER, ALL_HOSTS, PROTOCOL_IGMP, 20 + len(message), 1)
    host.put(ethernet(header.emit() + message, destination=multicast_mac(ALL_HOSTS)))
    assert host.counters.as_dict()[reason] == 1
    host.check_books()


# older versions


@pytest.mark.parametrize(
    ("family", "version", "report", "farewell"),
    [
        (FAMILIES[0], 1, igmp.REPORT_V1, None),
        (FAMILIES[0], 2, igmp.REPORT_V2, igmp.LEAVE_GROUP),
        (FAMILIES[1], 1, icmpv6.MLD_REPORT, icmpv6.MLD_DONE),
    ],
    ids=["igmp1", "igmp2", "mld1"],
)
def test_an_older_router_is_answered_in_its_version(
    family: Family, version: int, report: int, farewell: int | None
) -> None:
    host = family.host()
    host.stack.groups.join(family.group)
    host.stack.groups.join(family.other)
    host.at(host.now + 5)
    start = host.now
    host.put(family.query(version=version, delay=10.0))
    sent = host.at(start + 10)
    assert reports(sent) == []
    groups = {group for _, group, _ in old_messages(sent)}
    assert {family.group, family.other} <= groups
    assert all(kind == report and group == to for kind, group, to in old_messages(sent))
    host.stack.groups.leave(family.other)
    farewells = old_messages(host.at(host.now + 5))
    routers = packed("224.0.0.2") if len(family.group) == 4 else packed("ff02::2")
    assert farewells == ([] if farewell is None else [(farewell, family.other, routers)])
    host.stack.groups.join(family.other)
    assert old_messages(host.at(host.now + 5)) == [(report, family.other, family.other)] * 2
    # RFC 3376 8.12: robustness times the query interval, and one response time
    host.at(start + 2 * 125 + 10 + 1)
    host.stack.groups.leave(family.other)
    assert len(reports(host.at(host.now + 5))) == 2
    host.check_books()


def test_somebody_elses_old_report_saves_ours() -> None:
    family = FAMILIES[0]
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.put(family.query(version=2, delay=10.0))
    message = igmp.IgmpMessage(igmp.REPORT_V2, family.group).emit()
    header = Ipv4Header(PEER, family.group, PROTOCOL_IGMP, 20 + len(message), 1)
    host.put(ethernet(header.emit() + message, destination=multicast_mac(family.group)))
    assert old_messages(host.at(host.now + 20)) == []
    host.check_books()


# IPv6's own groups


def test_the_groups_of_our_addresses_are_told_again_once_somebody_can_know_us() -> None:
    host = Host("10.0.0.1/24")
    host.stack.start_ipv6(0.0)
    sources = []
    while (due := host.stack.next_timer()) is not None and due < 30:
        sent = host.at(max(due, host.now))
        sources += [frame.body[8:24] for frame in sent if reports([frame])]
    (entry,) = host.stack.addresses.of_family(16)
    assert sources == [bytes(16), bytes(16), entry.packed, entry.packed]


def test_groups_within_a_host_are_nobodys_business() -> None:
    host = Host6()
    host.stack.groups.join(packed("ff01::1234"))
    assert reports(host.at(host.now + 5)) == []


# the table


@both
def test_groups_are_bounded_and_only_groups(family: Family) -> None:
    host = family.host()
    groups = host.stack.groups
    with pytest.raises(OSError, match="not a multicast address"):
        groups.join(US)
    with pytest.raises(OSError, match="not joined"):
        groups.leave(family.group)
    before = len(groups)
    for number in range(GROUP_LIMIT - before):
        groups.join(family.group[:-2] + number.to_bytes(2))
    with pytest.raises(OSError, match="1024 are joined"):
        groups.join(family.group[:-2] + b"\xff\xff")
    groups.join(family.group[:-2] + b"\0\0")
    assert sum(map(len, reports(host.at(host.now)))) == GROUP_LIMIT - before


def test_somebody_elses_mld_report_saves_ours_too() -> None:
    family = FAMILIES[1]
    host = family.host()
    host.stack.groups.join(family.group)
    host.at(host.now + 5)
    host.put(family.query(family.group, version=1, delay=10.0))
    for kind in (icmpv6.MLD_REPORT, icmpv6.MLD_DONE):
        message = mld.MldV1Message(kind, family.group).emit(PEER_LL, family.group)
        content = HOP_BY_HOP + message
        packet = packet6(content, 0, source=PEER_LL, destination=family.group, hop_limit=1)
        host.put(frame6(packet))
    assert old_messages(host.at(host.now + 20)) == []
    assert host.counters.mld_ignored == 2
    host.check_books()


@both
def test_changes_that_nobody_could_tell_in_time_are_bounded(family: Family) -> None:
    host = family.host()
    for number in range(3000):
        group = family.group[:-2] + number.to_bytes(2)
        host.stack.groups.join(group)
        host.stack.groups.leave(group)
    assert host.stack.sizes["reports of membership"] == CHANGE_LIMIT
    assert sum(map(len, reports(host.at(host.now)))) == CHANGE_LIMIT


@pytest.mark.parametrize("length", [0, 15, 19])
def test_an_mld_message_of_no_version_is_malformed(length: int) -> None:
    host = Host6()
    message = icmpv6.IcmpV6(icmpv6.MLD_QUERY, 0, body=bytes(length)).emit(PEER_LL, ALL_NODES)
    content = HOP_BY_HOP + message
    packet = packet6(content, 0, source=PEER_LL, destination=ALL_NODES, hop_limit=1)
    host.put(frame6(packet))
    assert host.counters.mld_malformed == 1
    host.check_books()
