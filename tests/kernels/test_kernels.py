"""The C library and its Python twins: the same claims about both, and the same octets from both."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio import kernels
from zttrio.errors import HeaderError
from zttrio.header.checksum import sum_of, transport_checksum
from zttrio.header.frame import (
    CHECKSUM_COMPLETE,
    CHECKSUM_PARTIAL,
    CHECKSUM_VERIFIED,
    Frame,
)
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header
from zttrio.header.ipv6 import Ipv6Header
from zttrio.header.tcp import ACK, ECE, FIN, PSH, SYN, TcpHeader

if TYPE_CHECKING:
    from collections.abc import Callable

    Merge = Callable[[bytearray, int, list[int]], list[Frame]]

MACS = b"\2\0\0\0\0\1\2\0\0\0\0\2"
V4 = (b"\x0a\0\0\1", b"\x0a\0\0\2")
V6 = (b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2")
STRIDE = 1600

native = pytest.mark.skipif(not kernels.is_native, reason="no C library, or ZTTRIO_PURE=1")
MERGES = [
    pytest.param(kernels.merge_in_python, id="python"),
    pytest.param(kernels.merge, id="native", marks=native),
]
SPLITS = [
    pytest.param(kernels.split_in_python, id="python"),
    pytest.param(kernels.split, id="native", marks=native),
]
CUTS = [
    pytest.param(kernels.cut_in_python, id="python"),
    pytest.param(kernels.cut, id="native", marks=native),
]
WRITES = [
    pytest.param(kernels.write_frames_in_python, id="python"),
    pytest.param(kernels.write_frames, id="native", marks=native),
]


@attrs.frozen
class Segment:
    """One TCP segment on a cable."""

    seq: int = 1000
    data: bytes = bytes(100)
    flags: int = ACK
    version: int = 4
    port: int = 5
    ack: int = 7
    window: int = 100
    stamp: int | None = 1
    sack: tuple[tuple[int, int], ...] = ()
    ttl: int = 64
    traffic_class: int = 0
    padding: bytes = b""
    damage: int = -1

    def octets(self) -> bytes:
        tcp = TcpHeader(
            self.port, 80, self.seq, self.ack, self.flags, self.window,
            timestamp=None if self.stamp is None else (self.stamp, 2), sack_blocks=self.sack,
        ).emit()  # fmt: skip
        source, destination = V4 if self.version == 4 else V6
        check = transport_checksum(source, destination, PROTOCOL_TCP, tcp, self.data)
        tcp = tcp[:16] + check.to_bytes(2, "big") + tcp[18:]
        size = len(tcp) + len(self.data)
        if self.version == 4:
            ip = b"\x08\0" + Ipv4Header(
                source, destination, PROTOCOL_TCP, 20 + size, ttl=self.ttl,
                traffic_class=self.traffic_class, identification=self.seq & 0xFFFF,
            ).emit()  # fmt: skip
        else:
            ip = b"\x86\xdd" + Ipv6Header(
                source, destination, PROTOCOL_TCP, size, hop_limit=self.ttl,
                traffic_class=self.traffic_class,
            ).emit()  # fmt: skip
        octets = bytearray(MACS + ip + tcp + self.data + self.padding)
        if self.damage >= 0:
            octets[self.damage % len(octets)] ^= 0x55
        return bytes(octets)


def burst(frames: list[bytes]) -> tuple[bytearray, int, list[int]]:
    buffer = bytearray(STRIDE * len(frames))
    for number, octets in enumerate(frames):
        buffer[number * STRIDE : number * STRIDE + len(octets)] = octets
    return buffer, STRIDE, [len(octets) for octets in frames]


def run(count: int, **fixed: Any) -> list[Segment]:
    """Segments of 100 octets, each the next of the one before."""
    return [
        Segment(seq=(0xFFFF_FF00 + 100 * number) % 2**32, data=bytes([number]) * 100, **fixed)
        for number in range(count)
    ]


@pytest.mark.parametrize("merge", MERGES)
class TestMerge:
    @pytest.mark.parametrize("version", [4, 6])
    def test_segments_in_a_row_become_one_and_come_apart_again_as_they_were(
        self, merge: Merge, version: int
    ) -> None:
        segments = run(5, version=version)
        segments[-1] = attrs.evolve(segments[-1], flags=ACK | PSH, data=b"end")
        [frame] = merge(*burst([segment.octets() for segment in segments]))
        assert (frame.gso_size, frame.checksum) == (100, CHECKSUM_PARTIAL)
        assert bytes(frame.payload) == b"".join(segment.data for segment in segments)
        again = [bytes(piece) for piece in kernels.split_in_python(frame)]
        if version == 4:  # identifications are counted up from the first one's
            assert [octets[34:] for octets in again] == [s.octets()[34:] for s in segments]
            for octets in again:
                Ipv4Header.parse(octets, 14)
        else:
            assert again == [segment.octets() for segment in segments]

    def test_flows_that_alternate_are_merged_each_on_its_own(self, merge: Merge) -> None:
        first, second = run(4, port=5), run(4, port=6)
        mixed = [s.octets() for pair in zip(first, second, strict=True) for s in pair]
        frames = merge(*burst(mixed))
        assert [len(frame.payload) for frame in frames] == [400, 400]

    @pytest.mark.parametrize(
        "other",
        [
            {"flags": ACK | FIN},
            {"flags": ACK | SYN},
            {"ack": 8},
            {"window": 99},
            {"stamp": 2},
            {"ttl": 63},
            {"traffic_class": 4},
            {"data": b""},
            {"data": bytes(101)},
            {"seq": 1},
            {"damage": 60},
        ],
        ids=str,
    )
    def test_what_differs_is_not_merged_and_does_not_get_ahead(
        self, merge: Merge, other: dict[str, Any]
    ) -> None:
        segments = run(5)
        segments[2] = attrs.evolve(segments[2], **other)
        frames = merge(*burst([segment.octets() for segment in segments]))
        assert [frame.gso_size for frame in frames][:2] == [100, 0]
        assert bytes(frames[1]) == segments[2].octets()
        expected = CHECKSUM_COMPLETE if "damage" in other else CHECKSUM_VERIFIED
        assert frames[1].checksum == expected
        assert b"".join(bytes(frame.payload) for frame in frames[2:]).endswith(bytes([4]) * 100)

    def test_a_short_segment_and_one_with_psh_are_the_last(self, merge: Merge) -> None:
        lasts: list[dict[str, Any]] = [{"flags": ACK | PSH}, {"data": b"short"}]
        for last in lasts:
            segments = run(4)
            segments[1] = attrs.evolve(segments[1], **last)
            size = len(segments[1].data)
            segments[2:] = [attrs.evolve(s, seq=(s.seq - 100 + size) % 2**32) for s in segments[2:]]
            frames = merge(*burst([segment.octets() for segment in segments]))
            assert [len(frame.payload) for frame in frames] == [100 + size, 200]
            flags = [frame.header[47] for frame in frames]
            assert flags == [last.get("flags", ACK), ACK]

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("stamp", [1, None])
    def test_of_acks_in_a_row_the_last_one_is_left(
        self, merge: Merge, version: int, stamp: int | None
    ) -> None:
        acks = [
            Segment(ack=(2**32 - 2 + number) % 2**32, data=b"", version=version, window=9 - number,
                    stamp=stamp and (2**32 - 2 + number) % 2**32)
            for number in range(5)
        ]  # fmt: skip
        frames = merge(*burst([ack.octets() for ack in acks]))
        assert [bytes(frame) for frame in frames] == [acks[-1].octets()]
        assert frames[0].checksum == CHECKSUM_VERIFIED

    @pytest.mark.parametrize(
        "other",
        [
            {"ack": 7},
            {"ack": 6},
            {"ack": 8 + 2**31},
            {"seq": 999},
            {"seq": 1001},
            {"flags": ACK | PSH},
            {"flags": ACK | ECE},
            {"flags": ACK | FIN},
            {"stamp": 0},
            {"stamp": None},
            {"sack": ((20, 30),)},
            {"ttl": 63},
            {"traffic_class": 3},
            {"version": 6},
            {"port": 6},
            {"data": b"x"},
            {"damage": 50},
        ],
        ids=str,
    )
    def test_an_ack_that_says_something_else_leaves_the_one_before_alone(
        self, merge: Merge, other: dict[str, Any]
    ) -> None:
        first = Segment(ack=7, data=b"")
        second = attrs.evolve(first, **({"ack": 8} | other))
        frames = merge(*burst([first.octets(), second.octets()]))
        assert [bytes(frame) for frame in frames] == [first.octets(), second.octets()]

    def test_an_ack_does_not_get_ahead_of_data(self, merge: Merge) -> None:
        ack, data = Segment(ack=7, data=b""), Segment(ack=8)
        late = attrs.evolve(ack, ack=9, seq=1100)
        octets = [segment.octets() for segment in (ack, data, late)]
        assert [bytes(frame) for frame in merge(*burst(octets))] == octets

    def test_padding_is_no_data(self, merge: Merge) -> None:
        segments = [attrs.evolve(s, padding=b"pad") for s in run(3)]
        [frame] = merge(*burst([segment.octets() for segment in segments]))
        assert len(frame.payload) == 300
        [alone] = merge(*burst([segments[0].octets()]))
        assert bytes(alone) == segments[0].octets()
        assert not alone.payload

    def test_no_packet_grows_beyond_65535_octets(self, merge: Merge) -> None:
        segments = [Segment(seq=1400 * number, data=bytes(1400), version=6) for number in range(60)]
        frames = merge(*burst([segment.octets() for segment in segments]))
        assert [len(frame.payload) for frame in frames] == [1400 * 46, 1400 * 14]
        assert all(len(frame) - 14 <= 65535 for frame in frames)

    def test_what_is_no_tcp_comes_through_as_it_is(self, merge: Merge) -> None:
        udp = Ipv4Header(*V4, PROTOCOL_UDP, 28 + 20).emit() + bytes(28)
        frames = [MACS + b"\x08\x06" + bytes(46), MACS + b"\x08\0" + udp, MACS + b"\x08\0"]
        assert merge(*burst(frames)) == [Frame(octets) for octets in frames]

    @pytest.mark.parametrize("damage", [20, 40, 66, 700, 1400, 1513])
    def test_of_two_full_segments_with_the_opposite_damage_none_is_merged(
        self, merge: Merge, damage: int
    ) -> None:
        segments = [Segment(seq=1448 * i, data=bytes([i]) * 1448) for i in range(6)]
        octets = [bytearray(segment.octets()) for segment in segments]
        octets[2][damage] = (octets[2][damage] + 16) & 0xFF
        octets[4][damage] = (octets[4][damage] - 16) & 0xFF
        frames = merge(*burst([bytes(frame) for frame in octets]))
        assert [len(frame.payload) for frame in frames] == [2896, 0, 1448, 0, 1448]
        states = [frame.checksum for frame in frames]
        bad, alone = CHECKSUM_COMPLETE, CHECKSUM_VERIFIED
        assert states == [CHECKSUM_PARTIAL, bad, alone, bad, alone]
        assert [bytes(frames[1]), bytes(frames[3])] == [bytes(octets[2]), bytes(octets[4])]

    def test_the_buffer_may_be_used_again_at_once(self, merge: Merge) -> None:
        buffer, stride, lengths = burst([segment.octets() for segment in run(3)])
        frames = merge(buffer, stride, lengths)
        before = [bytes(frame) for frame in frames]
        buffer[:] = b"\xff" * len(buffer)
        assert [bytes(frame) for frame in frames] == before


SEGMENTS = st.builds(
    Segment,
    seq=st.sampled_from([0, 50, 100, 200, 300]),
    data=st.sampled_from([b"", bytes(50), b"\1" * 100, b"\2" * 99, b"\xff" * 100]),
    flags=st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN, SYN]),
    version=st.sampled_from([4, 4, 6]),
    port=st.sampled_from([5, 5, 6]),
    ack=st.sampled_from([7, 7, 7, 8, 9, 7 + 2**31]),
    stamp=st.sampled_from([1, 1, 1, 2, 2 + 2**31, None]),
    sack=st.sampled_from([(), (), ((20, 30),)]),
    padding=st.sampled_from([b"", b"", b"\0", b"pad"]),
    damage=st.sampled_from([-1, -1, -1, -1, 12, 14, 16, 20, 23, 30, 40, 46, 60]),
)


@native
@settings(max_examples=100, deadline=None)
@given(st.lists(SEGMENTS, min_size=1, max_size=12), st.binary(min_size=14, max_size=80))
def test_both_merge_alike(segments: list[Segment], junk: bytes) -> None:
    frames = [*(segment.octets() for segment in segments), junk]
    arguments = burst(frames)
    expected = kernels.merge_in_python(*arguments)
    assert kernels.merge(*arguments) == expected
    assert kernels.merge_burst(frames) == kernels.merge_burst_in_python(frames) == expected


def test_a_burst_of_nothing_is_nothing() -> None:
    assert kernels.merge_burst([]) == kernels.merge_burst_in_python([]) == []


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("version", [4, 6])
def test_a_super_segment_becomes_segments_with_right_checksums(
    split: Callable[..., list[Frame]], version: int
) -> None:
    octets = Segment(seq=2**32 - 100, data=bytes(range(250)), version=version, flags=0x99).octets()
    cut = len(octets) - 250
    frames = split(Frame(octets[:cut], octets[cut:], 100, CHECKSUM_PARTIAL), 1500)
    expected = [
        Segment(
            seq=(2**32 - 100 + 100 * index) % 2**32,
            data=bytes(range(100 * index, min(100 * index + 100, 250))),
            version=version,
            flags=flags,
        ).octets()
        for index, flags in enumerate((0x90, 0x10, 0x19))
    ]
    at = 34 if version == 4 else 14  # the test's identifications are not counted up
    assert [bytes(frame)[at:] for frame in frames] == [octets[at:] for octets in expected]
    numbers = [int.from_bytes(bytes(frame)[18:20], "big") for frame in frames]
    if version == 4:
        assert all((b - a) & 0xFFFF == 1 for a, b in pairwise(numbers))


@native
@settings(deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.binary(max_size=700),
    st.integers(1, 300),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, 1500, 150]),
    st.booleans(),
)
def test_both_split_alike(
    version: int, data: bytes, size: int, flags: int, seq: int, mtu: int | None, joined: bool
) -> None:
    octets = Segment(seq=seq, data=data, version=version, flags=flags).octets()
    cut = len(octets) if joined else len(octets) - len(data)
    frame = Frame(octets[:cut], memoryview(octets)[cut:], size, CHECKSUM_PARTIAL)
    expected = kernels.split_in_python(frame, mtu)
    assert [bytes(f) for f in kernels.split(frame, mtu)] == [bytes(f) for f in expected]


@native
def test_what_is_not_a_super_segment_is_only_finished() -> None:
    octets = Segment().octets()
    assert kernels.split(Frame(octets), 1500) == [Frame(octets)]
    with pytest.raises(ValueError, match="mtu 40: no room"):
        kernels.split(Frame(octets, b"", 10, CHECKSUM_PARTIAL), 40)


@native
@given(st.binary(max_size=300))
def test_both_sum_alike(data: bytes) -> None:
    library = kernels._library
    assert library is not None
    total = sum_of(data)
    assert library.zttrio_sum(data, len(data)) == (total % 0xFFFF or (0xFFFF if total else 0))


@native
def test_a_burst_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 frames in 3200 octets"):
        kernels.merge(bytearray(2 * STRIDE), STRIDE, [14, 14, 14])


def test_the_environment_forces_the_twins() -> None:
    code = "from zttrio import kernels as k; print(k.is_native, k.merge is k.merge_in_python)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "ZTTRIO_PURE": "1",
            "PYTHONPATH": str(Path(kernels.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False True\n"


def test_a_library_that_is_not_there_or_is_another_is_left_alone(tmp_path: Path) -> None:
    assert kernels._load(tmp_path / "missing.so") is None
    (tmp_path / "junk.so").write_bytes(b"junk")
    assert kernels._load(tmp_path / "junk.so") is None


@pytest.mark.parametrize("cut", CUTS)
def test_cutting_gives_the_octets_of_splitting(
    cut: Callable[..., tuple[bytearray, int]],
) -> None:
    octets = Segment(data=bytes(range(250)), flags=0x18).octets()
    frame = Frame(octets[:-250], octets[-250:], 100, CHECKSUM_PARTIAL)
    pieces = [bytes(piece) for piece in kernels.split_in_python(frame, 1500)]
    assert cut(frame, 1500) == (bytearray().join(pieces), len(pieces[0]))
    with pytest.raises(ValueError, match="no room"):
        cut(frame, 40)
    with pytest.raises(HeaderError):
        cut(Frame(octets, b"", 0, CHECKSUM_COMPLETE), 1500)


@pytest.mark.parametrize("write", WRITES)
def test_frames_are_written_one_by_one_until_the_device_is_full(
    write: Callable[..., tuple[int, int]],
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps boundaries
    with ours, theirs:
        ours.setblocking(False)
        assert write(ours.fileno(), bytearray(b"aaabbbcc"), 3) == (3, 0)
        assert write(ours.fileno(), bytearray(b"aaabbbcc"), 3, 6) == (1, 0)
        assert write(ours.fileno(), bytearray(b"aaa"), 3, 3) == (0, 0)
        assert [theirs.recv(10) for _ in range(4)] == [b"aaa", b"bbb", b"cc", b"cc"]
        frames = bytearray(1000 * 10_000)
        count, error = write(ours.fileno(), frames, 10_000)
        assert 0 < count < 1000
        assert error == errno.EAGAIN
        assert sum(len(theirs.recv(10_001)) for _ in range(count)) == 10_000 * count
    assert write(ours.fileno(), bytearray(b"aaa"), 3) == (0, errno.EBADF)
