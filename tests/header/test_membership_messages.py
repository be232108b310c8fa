from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header import igmp, membership
from zttrio.header.address import packed
from zttrio.header.checksum import checksum, transport_checksum
from zttrio.header.icmpv6 import MLD_DONE, MLD_REPORT
from zttrio.header.igmp import IgmpMessage, IgmpQuery, IgmpReport
from zttrio.header.ipv4 import PROTOCOL_ICMPV6
from zttrio.header.membership import GroupRecord, decode_time, encode_time
from zttrio.header.mld import MldQuery, MldReport, MldV1Message

from .header_samples import IPV4, IPV6, KERNEL_FRAMES, U8, U16, disguises, quick

BITS = st.booleans()
COUNTS = st.integers(0, 7)
SHORT_TIMES = U8.map(lambda code: decode_time(code, 4))
TENTHS = SHORT_TIMES.map(lambda tenths: tenths / 10)
MILLISECONDS = U16.map(lambda code: decode_time(code, 12) / 1000)


def lists_of(addresses: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(addresses, max_size=4).map(tuple)


def records_of(
    addresses: st.SearchStrategy[bytes],
) -> st.SearchStrategy[tuple[GroupRecord, ...]]:
    auxiliary = st.integers(0, 3).map(lambda n: bytes(range(4 * n)))
    record = st.builds(GroupRecord, U8, addresses, lists_of(addresses), auxiliary)
    return st.lists(record, max_size=4).map(tuple)


@quick
@given(st.builds(IgmpQuery, IPV4, TENTHS, lists_of(IPV4), BITS, COUNTS, SHORT_TIMES))
def test_an_igmp_query_survives_the_wire(query: IgmpQuery) -> None:
    octets = query.emit()
    assert checksum(octets) == 0
    for data, offset in disguises(octets):
        assert IgmpQuery.parse(data, offset) == query


@quick
@given(records_of(IPV4))
def test_an_igmp_report_survives_the_wire(records: tuple[GroupRecord, ...]) -> None:
    octets = IgmpReport(records).emit()
    assert checksum(octets) == 0
    for data, offset in disguises(octets):
        assert IgmpReport.parse(data, offset) == IgmpReport(records)


@quick
@given(st.sampled_from((igmp.REPORT_V1, igmp.REPORT_V2, igmp.LEAVE_GROUP)), IPV4)
def test_an_old_igmp_message_survives_the_wire(kind: int, group: bytes) -> None:
    octets = IgmpMessage(kind, group).emit()
    assert checksum(octets) == 0
    for data, offset in disguises(octets):
        assert IgmpMessage.parse(data, offset) == IgmpMessage(kind, group)


@quick
@given(
    st.builds(MldQuery, IPV6, MILLISECONDS, lists_of(IPV6), BITS, COUNTS, SHORT_TIMES)
    | st.builds(MldQuery, IPV6, U16.map(lambda ms: ms / 1000), version=st.just(1)),
    IPV6,
    IPV6,
)
def test_an_mld_query_survives_the_wire(query: MldQuery, source: bytes, destination: bytes) -> None:
    octets = query.emit(source, destination)
    assert transport_checksum(source, destination, PROTOCOL_ICMPV6, octets) == 0
    for data, offset in disguises(octets):
        assert MldQuery.parse(data, offset) == query


@quick
@given(records_of(IPV6), IPV6, IPV6)
def test_an_mld_report_survives_the_wire(
    records: tuple[GroupRecord, ...], source: bytes, destination: bytes
) -> None:
    octets = MldReport(records).emit(source, destination)
    assert transport_checksum(source, destination, PROTOCOL_ICMPV6, octets) == 0
    for data, offset in disguises(octets):
        assert MldReport.parse(data, offset) == MldReport(records)


@quick
@given(st.sampled_from((MLD_REPORT, MLD_DONE)), IPV6)
def test_an_old_mld_message_survives_the_wire(kind: int, group: bytes) -> None:
    for data, offset in disguises(MldV1Message(kind, group).emit(group, group)):
        assert MldV1Message.parse(data, offset) == MldV1Message(kind, group)


def test_the_kernels_igmp_messages_are_read_and_written_alike() -> None:
    query = KERNEL_FRAMES["igmp query"][38:50]
    assert IgmpQuery.parse(query) == IgmpQuery(bytes(4), 10.0, robustness=2, query_interval=3)
    assert IgmpQuery.parse(query).emit() == query
    report = KERNEL_FRAMES["igmp report"][38:]
    record = GroupRecord(membership.CHANGE_TO_EXCLUDE, packed("239.1.2.3"))
    assert IgmpReport.parse(report) == IgmpReport((record,))
    assert IgmpReport((record,)).emit() == report


def test_the_kernels_mld_report_is_read_and_written_alike() -> None:
    frame = KERNEL_FRAMES["mld report"]
    report = MldReport(
        (
            GroupRecord(membership.CHANGE_TO_EXCLUDE, packed("ff02::1:ff00:1")),
            GroupRecord(membership.CHANGE_TO_EXCLUDE, packed("ff02::1:ff00:a")),
        )
    )
    assert MldReport.parse(frame[62:]) == report
    assert report.emit(frame[22:38], frame[38:54]) == frame[62:]


def test_the_length_of_a_query_is_its_version() -> None:
    query = IgmpQuery(packed("239.1.2.3"), 10.0, robustness=2, query_interval=125)
    octets = query.emit()
    assert IgmpQuery.parse(octets).version == 3
    assert IgmpQuery.parse(octets[:8]) == IgmpQuery(query.group, 10.0, version=2)
    assert IgmpQuery.parse(octets[:1] + b"\0" + octets[2:8]) == IgmpQuery(
        query.group, 10.0, version=1
    )
    for length in (0, 7, 9, 10, 11):
        with pytest.raises(HeaderError):
            IgmpQuery.parse(octets[:length])
    octets = MldQuery(packed("ff02::2"), 10.0).emit(bytes(16), bytes(16))
    assert MldQuery.parse(octets).version == 2
    assert MldQuery.parse(octets[:24]).version == 1
    for length in (0, 23, 25, 26, 27):
        with pytest.raises(HeaderError):
            MldQuery.parse(octets[:length])


@pytest.mark.parametrize("version", [1, 2])
def test_old_igmp_queries_survive_the_wire(version: int) -> None:
    query = IgmpQuery(packed("239.1.2.3"), 10.0, version=version)
    assert len(query.emit()) == 8
    assert IgmpQuery.parse(query.emit()) == query


@pytest.mark.parametrize("mantissa", [4, 12])
def test_time_codes_say_what_the_rfcs_say(mantissa: int) -> None:
    limit = 1 << mantissa + 3
    assert decode_time(limit - 1, mantissa) == limit - 1
    # RFC 3376 4.1.1: (mant | 0x10) << (exp + 3); RFC 3810 5.1.3: (mant | 0x1000) << (exp + 3)
    assert decode_time(limit, mantissa) == limit
    assert decode_time(2 * limit - 1, mantissa) == ((2 << mantissa) - 1) << 10
    assert decode_time(0x8A if mantissa == 4 else 0x8ABC, mantissa) == (
        208 if mantissa == 4 else 0x1ABC << 3
    )
    assert decode_time(0xBA if mantissa == 4 else 0xBABC, mantissa) == (
        0x1A << 6 if mantissa == 4 else 0x1ABC << 6
    )


@quick
@given(st.integers(0, 1 << 24), st.sampled_from((4, 12)))
def test_a_time_is_encoded_as_the_longest_that_is_not_longer(value: int, mantissa: int) -> None:
    code = encode_time(value, mantissa)
    largest = (2 << mantissa + 3) - 1
    assert 0 <= code <= largest
    assert decode_time(code, mantissa) <= value
    if code < largest:
        assert decode_time(code + 1, mantissa) > value


@pytest.mark.parametrize("length", range(1, 32))
def test_a_report_cut_short_is_refused(length: int) -> None:
    sources = (packed("10.0.0.1"), packed("10.0.0.2"))
    octets = IgmpReport((GroupRecord(1, packed("239.1.2.3"), sources, bytes(8)),)).emit()
    assert len(octets) == 32
    with pytest.raises(HeaderError):
        IgmpReport.parse(octets[:length])


def test_a_count_that_promises_too_much_is_refused() -> None:
    octets = bytearray(IgmpReport((GroupRecord(1, packed("239.1.2.3")),)).emit())
    octets[7] = 2
    with pytest.raises(HeaderError):
        IgmpReport.parse(octets)
    octets[7] = 1
    octets[10:12] = b"\xff\xff"
    with pytest.raises(HeaderError, match="65535 addresses need 262140 octets, got 0"):
        IgmpReport.parse(octets)
    query = bytearray(MldQuery(packed("ff02::2"), 1.0).emit(bytes(16), bytes(16)))
    query[27] = 1
    with pytest.raises(HeaderError, match="1 addresses need 16 octets, got 0"):
        MldQuery.parse(query)


def test_messages_of_another_type_are_refused() -> None:
    report = KERNEL_FRAMES["igmp report"][38:]
    query = KERNEL_FRAMES["igmp query"][38:50]
    with pytest.raises(HeaderError, match="type 0x22"):
        IgmpQuery.parse(report)
    with pytest.raises(HeaderError, match="type 0x11"):
        IgmpReport.parse(query)
    with pytest.raises(HeaderError, match="type 0x11"):
        IgmpMessage.parse(query)
    mld = KERNEL_FRAMES["mld report"][62:]
    with pytest.raises(HeaderError, match="type 143"):
        MldQuery.parse(mld)
    with pytest.raises(HeaderError, match="type 143"):
        MldV1Message.parse(mld)
    with pytest.raises(HeaderError, match="type 131"):
        MldReport.parse(MldV1Message(MLD_REPORT, bytes(16)).emit(bytes(16), bytes(16)))
    with pytest.raises(HeaderError, match="needs 24 octets"):
        MldV1Message.parse(bytes((MLD_REPORT,)) + bytes(22))


def test_auxiliary_data_of_odd_size_is_not_emitted() -> None:
    with pytest.raises(ValueError, match="3 octets: no multiple of 4"):
        GroupRecord(1, bytes(4), auxiliary=bytes(3)).emit()


def test_a_time_too_long_to_say_is_said_as_the_longest() -> None:
    assert IgmpQuery.parse(IgmpQuery(bytes(4), 1e6).emit()).max_response_time == 3174.4
    assert IgmpQuery.parse(IgmpQuery(bytes(4), 1e6, version=2).emit()).max_response_time == 25.5
    octets = MldQuery(bytes(16), 1e6, version=1).emit(bytes(16), bytes(16))
    assert MldQuery.parse(octets).max_response_delay == 65.535
