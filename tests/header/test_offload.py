from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.checksum import fold, pseudo_header
from zttrio.header.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader
from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL, CHECKSUM_VERIFIED, Frame
from zttrio.header.ipv4 import Ipv4Header
from zttrio.header.ipv6 import DESTINATION_OPTIONS, Ipv6Header, Option, emit_options
from zttrio.header.offload import cut as cut_and_join
from zttrio.header.offload import finish_checksum, split
from zttrio.header.tcp import ACK, CWR, FIN, PSH, TcpHeader
from zttrio.header.udp import UdpHeader

from .header_samples import IPV4, IPV6, KERNEL_FRAMES, MACS, U8, U16, U32, quick

FAMILIES = [("", 34), (" over ipv6", 54)]


def word_sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(word for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def naive_split(frame: bytes, size: int) -> list[bytes]:
    """Cut a TCP frame, one octet string after the other, with nothing of ours."""
    is_ipv4 = frame[12:14] == b"\x08\x00"
    if is_ipv4:
        tcp_at = 14 + (frame[14] & 15) * 4
        addresses = frame[26:34]
        end = 14 + int.from_bytes(frame[16:18], "big")
    else:
        tcp_at = 54 if frame[20] == 6 else 54 + 8 + 8 * frame[55]
        addresses = frame[22:54]
        end = 54 + int.from_bytes(frame[18:20], "big")
    data_at = tcp_at + (frame[tcp_at + 12] >> 4) * 4
    payload = frame[data_at:end]
    starts = list(range(0, len(payload), size)) or [0]
    result = []
    for number, start in enumerate(starts):
        data = payload[start : start + size]
        ip = bytearray(frame[14:tcp_at])
        tcp = bytearray(frame[tcp_at:data_at])
        seq = int.from_bytes(tcp[4:8], "big") + start
        tcp[4:8] = (seq % 2**32).to_bytes(4, "big")
        if number > 0:
            tcp[13] &= 0x7F
        if start != starts[-1]:
            tcp[13] &= 0xF6
        tcp[16:18] = b"\0\0"
        pseudo = addresses + struct.pack("!II", len(tcp) + len(data), 6)
        tcp[16:18] = (0xFFFF - word_sum(pseudo + tcp + data)).to_bytes(2, "big")
        if is_ipv4:
            ip[2:4] = (len(ip) + len(tcp) + len(data)).to_bytes(2, "big")
            identification = int.from_bytes(ip[4:6], "big") + number
            ip[4:6] = (identification % 2**16).to_bytes(2, "big")
            ip[10:12] = b"\0\0"
            ip[10:12] = (0xFFFF - word_sum(bytes(ip))).to_bytes(2, "big")
        else:
            ip[4:6] = (len(ip) - 40 + len(tcp) + len(data)).to_bytes(2, "big")
        result.append(frame[:14] + bytes(ip) + bytes(tcp) + data)
    return result


@st.composite
def super_segments(draw: st.DrawFn) -> tuple[bytes, int]:
    """The octets of a super-segment with a partial checksum, and where its payload starts."""
    payload = draw(st.binary(max_size=300)) * draw(st.integers(1, 6))
    is_ipv4 = draw(st.booleans())
    source, destination = (draw(IPV4 if is_ipv4 else IPV6) for _ in range(2))
    tcp = TcpHeader(
        draw(U16),
        draw(U16),
        draw(U32),
        draw(U32),
        draw(U8),
        draw(U16),
        draw(U16),
        timestamp=draw(st.none() | st.tuples(U32, U32)),
        sack_blocks=tuple(draw(st.lists(st.tuples(U32, U32), max_size=3))),
    )
    length = len(tcp.emit()) + len(payload)
    tcp.checksum = fold(pseudo_header(source, destination, 6, length))
    if is_ipv4:
        options = draw(st.sampled_from((b"", b"\x94\x04\0\0", bytes(40))))
        ip = Ipv4Header(
            source,
            destination,
            6,
            20 + len(options) + length,
            draw(U8),
            draw(U16),
            draw(st.booleans()),
            traffic_class=draw(U8),
            options=options,
        ).emit()
    else:
        extension = draw(st.sampled_from((b"", emit_options(6, [Option(0x1E, bytes(9))]))))
        first = DESTINATION_OPTIONS if extension else 6
        ip = Ipv6Header(
            *(source, destination, first, len(extension) + length),
            *(draw(U8), draw(U8), draw(st.integers(0, 0xF_FFFF))),
        ).emit()
        ip += extension
    ethertype = ETHERTYPE_IPV4 if is_ipv4 else ETHERTYPE_IPV6
    headers = EthernetHeader(draw(MACS), draw(MACS), ethertype).emit() + ip + tcp.emit()
    return headers + payload, len(headers)


@quick
@given(super_segments(), st.integers(1, 400), st.integers(14, 1900))
def test_splitting_agrees_with_the_naive_way_octet_by_octet(
    sample: tuple[bytes, int], size: int, elsewhere: int
) -> None:
    octets, data_at = sample
    expected = naive_split(octets, size)
    for cut in (data_at, elsewhere, len(octets), 14):
        for piece in (memoryview(octets)[cut:], octets[cut:], bytearray(octets[cut:])):
            frame = Frame(octets[:cut], piece, size, CHECKSUM_PARTIAL)
            frames = split(frame)
            assert [bytes(frame) for frame in frames] == expected
            assert {frame.checksum for frame in frames} == {CHECKSUM_COMPLETE}
            assert {frame.gso_size for frame in frames} == {0}
            assert cut_and_join(frame) == (bytearray().join(expected), len(expected[0]))
            assert bytes(frame) == octets  # the original is as it was


@quick
@given(super_segments(), st.integers(1, 400))
def test_a_super_segment_may_get_its_checksum_without_being_cut(
    sample: tuple[bytes, int], size: int
) -> None:
    octets, data_at = sample
    frame = Frame(octets[:data_at], octets[data_at:], size, CHECKSUM_PARTIAL)
    finished = finish_checksum(frame)
    assert (finished.gso_size, finished.checksum) == (size, CHECKSUM_COMPLETE)
    assert finished.payload is frame.payload
    before = split(frame)
    after = split(finished)
    assert list(map(bytes, before)) == list(map(bytes, after))


@quick
@given(super_segments(), st.integers(14, 1900), st.integers(0, 30))
def test_a_finished_checksum_is_the_one_of_the_naive_way(
    sample: tuple[bytes, int], cut: int, padding: int
) -> None:
    octets, _ = sample
    (expected,) = naive_split(octets, len(octets))
    padded = octets + b"\xa5" * padding
    frame = finish_checksum(Frame(padded[:cut], padded[cut:], 0, CHECKSUM_PARTIAL))
    assert bytes(frame) == expected + b"\xa5" * padding
    assert frame.checksum == CHECKSUM_COMPLETE


def without_checksum(frame: bytes, start: int, field: int, protocol: int) -> bytes:
    """The frame with what a CHECKSUM_PARTIAL frame has in its checksum field."""
    source, destination = (
        (frame[26:30], frame[30:34])
        if start == 34
        else (
            frame[22:38],
            frame[38:54],
        )
    )
    partial = fold(pseudo_header(source, destination, protocol, len(frame) - start))
    at = start + field
    return frame[:at] + partial.to_bytes(2, "big") + frame[at + 2 :]


@pytest.mark.parametrize(("suffix", "start"), FAMILIES)
@pytest.mark.parametrize(
    ("name", "field", "protocol"), [("tcp data", 16, 6), ("tcp syn", 16, 6), ("udp", 6, 17)]
)
def test_the_kernels_checksums_are_what_ours_finish_as(
    name: str, field: int, protocol: int, suffix: str, start: int
) -> None:
    frame = KERNEL_FRAMES[name + suffix]
    partial = without_checksum(frame, start, field, protocol)
    assert partial != frame
    for cut in range(14, len(frame) + 1):
        finished = finish_checksum(Frame(partial[:cut], partial[cut:], 0, CHECKSUM_PARTIAL))
        assert bytes(finished) == frame


def test_the_kernels_icmpv6_checksum_is_what_ours_finishes_as() -> None:
    frame = KERNEL_FRAMES["echo request over ipv6"]
    partial = Frame(without_checksum(frame, 54, 2, 58), checksum=CHECKSUM_PARTIAL)
    assert bytes(finish_checksum(partial)) == frame


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    octets = bytearray(KERNEL_FRAMES["udp"])
    octets = bytearray(without_checksum(bytes(octets), 34, 6, 17))
    # The payload takes up what is missing, so that the sum comes out as 0.
    frame = bytes(finish_checksum(Frame(bytes(octets[:-2]) + b"\0\0", checksum=CHECKSUM_PARTIAL)))
    octets[-2:] = frame[40:42]
    finished = bytes(finish_checksum(Frame(bytes(octets), checksum=CHECKSUM_PARTIAL)))
    assert finished[40:42] == b"\xff\xff"
    assert UdpHeader.parse(finished, 34).length == 20


@pytest.mark.parametrize("state", [CHECKSUM_COMPLETE, CHECKSUM_VERIFIED])
def test_a_frame_with_nothing_to_do_passes_untouched(state: int) -> None:
    frame = Frame(b"not even an Ethernet header", b"", 0, state)
    assert finish_checksum(frame) is frame
    assert split(frame) == [frame]
    assert split(frame)[0] is frame


def super_segment(length: int, size: int, state: int, flags: int = ACK) -> Frame:
    tcp = TcpHeader(1, 2, 0xFFFF_FF00, 4, flags, 5).emit()
    ip = Ipv4Header(b"\x0a\0\0\1", b"\x0a\0\0\2", 6, 40 + length, identification=0xFFFF).emit()
    header = EthernetHeader(b"\2" * 6, b"\4" * 6, ETHERTYPE_IPV4).emit() + ip + tcp
    return Frame(header, bytes(range(256)) * (length // 256) + bytes(length % 256), size, state)


def test_a_full_super_segment_becomes_what_the_mtu_holds() -> None:
    frames = split(super_segment(65000, 1460, CHECKSUM_PARTIAL))
    assert len(frames) == 45
    assert [len(frame) for frame in frames] == [1514] * 44 + [54 + 65000 - 44 * 1460]
    headers = [TcpHeader.parse(frame.header, 34) for frame in frames]
    assert [header.seq for header in headers] == [
        (0xFFFF_FF00 + 1460 * number) % 2**32 for number in range(45)
    ]
    packets = [Ipv4Header.parse(frame.header, 14, len(frame) - 14) for frame in frames]
    assert [packet.identification for packet in packets] == [0xFFFF, *range(44)]


def test_payloads_are_views_of_the_original() -> None:
    frame = super_segment(4000, 1460, CHECKSUM_PARTIAL)
    for piece in split(frame):
        assert isinstance(piece.payload, memoryview)
        assert piece.payload.obj is frame.payload


def test_who_vouched_for_the_whole_vouches_for_the_parts() -> None:
    frames = split(super_segment(4000, 1460, CHECKSUM_VERIFIED))
    assert [frame.checksum for frame in frames] == [CHECKSUM_VERIFIED] * 3


def test_flags_go_where_they_belong() -> None:
    frames = split(super_segment(3000, 1000, CHECKSUM_PARTIAL, FIN | PSH | ACK | CWR))
    flags = [TcpHeader.parse(frame.header, 34).flags for frame in frames]
    assert flags == [ACK | CWR, ACK, ACK | PSH | FIN]


def test_a_segment_that_fits_keeps_all_its_flags() -> None:
    frames = split(super_segment(1000, 1000, CHECKSUM_PARTIAL, FIN | PSH | ACK | CWR))
    flags = [TcpHeader.parse(frame.header, 34).flags for frame in frames]
    assert flags == [FIN | PSH | ACK | CWR]


def test_a_smaller_mtu_makes_smaller_segments() -> None:
    frames = split(super_segment(3000, 1460, CHECKSUM_PARTIAL), mtu=1040)
    assert [len(frame) for frame in frames] == [1054] * 3
    frames = split(super_segment(3000, 1000, CHECKSUM_PARTIAL), mtu=1500)
    assert [len(frame) for frame in frames] == [1054] * 3
    with pytest.raises(ValueError, match="mtu 40: no room behind 40 octets"):
        split(super_segment(3000, 1000, CHECKSUM_PARTIAL), mtu=40)


@pytest.mark.parametrize(
    "name",
    ["arp request", "last fragment", "last fragment over ipv6", "igmp report", "echo request"],
)
def test_packets_without_such_a_checksum_are_refused(name: str) -> None:
    octets = KERNEL_FRAMES[name]
    for cut in (14, 34, len(octets)):
        frame = Frame(octets[:cut], octets[cut:], checksum=CHECKSUM_PARTIAL)
        with pytest.raises(HeaderError):
            finish_checksum(frame)


@pytest.mark.parametrize("name", ["udp", "udp over ipv6", "last fragment over ipv6"])
def test_only_tcp_can_be_a_super_segment(name: str) -> None:
    with pytest.raises(HeaderError):
        split(Frame(KERNEL_FRAMES[name], b"", 10, CHECKSUM_PARTIAL))


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 5500])
def test_parts_may_stay_unfinished_as_the_whole_is(size: int) -> None:
    for address in (bytes([10, 0, 0, 1]), bytes(15) + b"\1"):
        segment = TcpHeader(1, 2, 0xFFFF_FF00, 4, ACK | PSH, 5).emit()
        if len(address) == 4:
            front = bytes(12) + b"\x08\x00"
            front += Ipv4Header(address, address, 6, 40 + size).emit()
        else:
            front = bytes(12) + b"\x86\xdd" + Ipv6Header(address, address, 6, 20 + size).emit()
        frame = Frame(front + segment, bytes(range(250)) * 22, 1000, CHECKSUM_PARTIAL)
        frame.payload = frame.payload[:size]
        pieces = split(frame, complete=False)
        assert {piece.checksum for piece in pieces} == {CHECKSUM_PARTIAL}
        assert [finish_checksum(piece) for piece in pieces] == split(frame)
    plain = Frame(frame.header, b"", 0, CHECKSUM_PARTIAL)
    assert split(plain, complete=False) == [plain]
