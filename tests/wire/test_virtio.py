from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.header.checksum import fold, pseudo_header
from zttrio.header.frame import (
    CHECKSUM_COMPLETE,
    CHECKSUM_PARTIAL,
    CHECKSUM_VERIFIED,
    Frame,
)
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header
from zttrio.header.ipv6 import DESTINATION_OPTIONS, Ipv6Header, Option, emit_options
from zttrio.header.offload import finish_checksum, split
from zttrio.header.tcp import ACK, CWR, TcpHeader
from zttrio.header.udp import UdpHeader
from zttrio.wire import virtio

MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"
V4 = (b"\x0a\0\0\1", b"\x0a\0\0\2")
V6 = (b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2")


def front(**fields: int) -> bytes:
    """A virtio header, packed by the book: flags, gso_type, then 16-bit words of this machine."""
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
    return struct.pack("=BBHHHH", *(fields.pop(name, 0) for name in names))


def segment(version: int, size: int, *, flags: int = ACK, options: bytes = b"") -> bytes:
    """The headers of an unfinished TCP segment that carries *size* octets."""
    tcp = TcpHeader(1, 2, seq=7, ack=9, flags=flags, window=100, timestamp=(1, 2))
    addresses = V4 if version == 4 else V6
    octets = bytearray(tcp.emit())
    octets[16:18] = fold(
        pseudo_header(*addresses, PROTOCOL_TCP, len(octets) + size)
    ).to_bytes(2, "big")  # fmt: skip
    return MACS + network(version, PROTOCOL_TCP, len(octets) + size, options) + octets


def network(version: int, protocol: int, size: int, options: bytes = b"") -> bytes:
    if version == 4:
        return (
            b"\x08\0"
            + Ipv4Header(
                *V4, protocol, 20 + len(options) + size, options=options, identification=65535
            ).emit()
        )
    following = DESTINATION_OPTIONS if options else protocol
    return b"\x86\xdd" + Ipv6Header(*V6, following, len(options) + size).emit() + options


def datagrams(version: int, payload: bytes) -> bytes:
    """One unfinished UDP header in front of *payload*."""
    size = 8 + len(payload)
    addresses = V4 if version == 4 else V6
    check = fold(pseudo_header(*addresses, PROTOCOL_UDP, size))
    udp = UdpHeader(5, 6, size, check).emit()
    return MACS + network(version, PROTOCOL_UDP, size) + udp + payload


class TestSending:
    def test_a_finished_frame_gets_ten_zeros(self) -> None:
        assert virtio.encode(Frame(MACS + b"\x88\xb5junk")) == bytes(10)
        assert virtio.encode(Frame(b"", b"", 0, CHECKSUM_VERIFIED)) == bytes(10)

    @pytest.mark.parametrize(("version", "start"), [(4, 34), (6, 54)])
    def test_an_unfinished_segment_says_where_its_checksum_goes(
        self, version: int, start: int
    ) -> None:
        frame = Frame(segment(version, 5), b"hello", 0, CHECKSUM_PARTIAL)
        assert virtio.encode(frame) == front(flags=1, csum_start=start, csum_offset=16)
        joined = Frame(bytes(frame), b"", 0, CHECKSUM_PARTIAL)
        assert virtio.encode(joined) == virtio.encode(frame)
        octets = datagrams(version, b"hello")
        for cut in (len(octets), start + 8, start):
            frame = Frame(octets[:cut], octets[cut:], 0, CHECKSUM_PARTIAL)
            assert virtio.encode(frame) == front(flags=1, csum_start=start, csum_offset=6)

    @pytest.mark.parametrize(("version", "kind", "start"), [(4, 1, 34), (6, 4, 54)])
    def test_a_super_segment_says_its_kind_and_its_sizes(
        self, version: int, kind: int, start: int
    ) -> None:
        frame = Frame(segment(version, 3000), bytes(3000), 1000, CHECKSUM_PARTIAL)
        assert virtio.encode(frame) == front(
            flags=1,
            gso_type=kind,
            hdr_len=start + 32,
            gso_size=1000,
            csum_start=start,
            csum_offset=16,
        )

    def test_cwr_asks_for_care(self) -> None:
        frame = Frame(segment(4, 3000, flags=ACK | CWR), bytes(3000), 1000, CHECKSUM_PARTIAL)
        assert virtio.encode(frame)[1] == 0x81

    @pytest.mark.parametrize(
        ("version", "options", "start"),
        [(4, b"\1\1\1\0", 38), (6, emit_options(PROTOCOL_TCP, [Option(1, bytes(4))]), 62)],
    )
    def test_options_and_extension_headers_move_the_checksum(
        self, version: int, options: bytes, start: int
    ) -> None:
        frame = Frame(segment(version, 5, options=options), b"hello", 0, CHECKSUM_PARTIAL)
        assert virtio.encode(frame) == front(flags=1, csum_start=start, csum_offset=16)

    @pytest.mark.parametrize(
        "frame",
        [
            Frame(b"junk" * 4, b"", 0, CHECKSUM_PARTIAL),
            Frame(b"junk" * 20, b"", 0, CHECKSUM_PARTIAL),
            Frame(segment(4, 3000), bytes(3000), 1000, CHECKSUM_COMPLETE),
            Frame(datagrams(4, bytes(3000)), b"", 1000, CHECKSUM_PARTIAL),
            Frame(segment(4, 3000)[:40], segment(4, 3000)[40:] + bytes(3000), 1000, 2),
        ],
    )
    def test_what_the_kernel_could_not_finish_is_refused(self, frame: Frame) -> None:
        with pytest.raises(HeaderError):
            virtio.encode(frame)


class TestReceiving:
    @pytest.mark.parametrize(
        ("flags", "state"),
        [(0, CHECKSUM_COMPLETE), (1, CHECKSUM_PARTIAL), (2, CHECKSUM_VERIFIED)],
    )
    def test_the_state_of_the_checksum_is_believed(self, flags: int, state: int) -> None:
        octets = segment(4, 5) + b"hello"
        assert virtio.decode(front(flags=flags) + octets) == [Frame(octets, b"", 0, state)]

    @pytest.mark.parametrize(("version", "kind"), [(4, 1), (6, 4), (4, 0x81)])
    @pytest.mark.parametrize("size", [3000, 60_000])
    def test_a_super_segment_keeps_its_size_and_is_cut_before_its_payload(
        self, version: int, kind: int, size: int
    ) -> None:
        octets = segment(version, size) + bytes(size)
        [frame] = virtio.decode(front(flags=1, gso_type=kind, gso_size=1400) + octets)
        assert bytes(frame) == octets
        assert (frame.gso_size, frame.checksum) == (1400, CHECKSUM_PARTIAL)
        assert len(frame.payload) in (0, size)
        again = front(
            flags=1, gso_type=kind & 0x7F, gso_size=1400, hdr_len=len(octets) - size,
            csum_start=34 if version == 4 else 54, csum_offset=16,
        )  # fmt: skip
        assert virtio.encode(frame) == again

    @pytest.mark.parametrize("version", [4, 6])
    def test_a_run_of_datagrams_comes_apart(self, version: int) -> None:
        payload = bytes(range(250)) * 10
        octets = front(flags=1, gso_type=5, gso_size=1000) + datagrams(version, payload)
        frames = virtio.decode(octets)
        assert [len(frame.payload) for frame in frames] == [1000, 1000, 500]
        assert b"".join(bytes(frame.payload) for frame in frames) == payload
        for number, frame in enumerate(frames):
            assert (frame.gso_size, frame.checksum) == (0, CHECKSUM_PARTIAL)
            lone = bytearray(datagrams(version, bytes(frame.payload)))
            if version == 4:
                header = Ipv4Header.parse(bytes(frame), 14)  # verifies its checksum
                assert header.identification == (65535 + number) & 0xFFFF
                lone[14:34] = header.emit()
            assert bytes(frame) == lone
            finished = finish_checksum(frame)
            assert UdpHeader.parse(bytes(finished.header)[-8:] + frame.payload).checksum

    @pytest.mark.parametrize(
        "octets",
        [
            front(flags=1, gso_type=1) + segment(4, 3000) + bytes(3000),
            front(flags=1, gso_type=3, gso_size=1000) + datagrams(4, bytes(3000)),
            front(flags=1, gso_type=5, gso_size=1000) + segment(4, 3000) + bytes(3000),
        ],
        ids=["no size", "UDP fragmentation", "no datagrams"],
    )
    def test_what_was_not_agreed_on_is_refused(self, octets: bytes) -> None:
        with pytest.raises(HeaderError):
            virtio.decode(octets)

    @given(st.binary(max_size=20), st.sampled_from([0, 1, 3, 4, 5, 0x81]), st.integers(0, 3))
    def test_junk_is_refused_or_kept_whole(self, junk: bytes, kind: int, size: int) -> None:
        for body in (junk, junk * 400, segment(4, 5) + junk):
            if len(body) < 14:
                continue
            octets = front(flags=1, gso_type=kind, gso_size=size) + body
            try:
                frames = virtio.decode(octets)
            except HeaderError:
                continue
            if kind != 5:
                assert [bytes(frame) for frame in frames] == [body]


@pytest.mark.parametrize("version", [4, 6])
def test_both_ways_of_cutting_agree_with_the_software_on_sizes(version: int) -> None:
    frame = Frame(segment(version, 2500), bytes(2500), 1000, CHECKSUM_PARTIAL)
    assert [len(piece.payload) for piece in split(frame)] == [1000, 1000, 500]
    [back] = virtio.decode(virtio.encode(frame) + bytes(frame))
    assert [bytes(piece) for piece in split(back)] == [bytes(piece) for piece in split(frame)]
