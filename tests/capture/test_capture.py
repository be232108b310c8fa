"""Capture files are read here by a little reader of their own, and by tcpdump where it is."""

from __future__ import annotations

import errno
import io
import shutil
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.capture import Capture
from zttrio.header.arp import REQUEST, ArpPacket
from zttrio.header.checksum import fold, pseudo_header
from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.tcp import ACK, PSH, TcpHeader

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")


@attrs.frozen
class Record:
    nanoseconds: int
    octets: bytes
    length: int
    flags: int


@attrs.frozen
class Recording:
    interface_name: str
    linktype: int
    snap_length: int
    resolution: int
    records: list[Record]


def read_options(body: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    while body:
        code, length = struct.unpack_from("<HH", body)
        if code == 0:
            assert length == 0
            assert len(body) == 4, "octets behind the end of the options"
            return options
        options[code] = body[4 : 4 + length]
        body = body[4 + length + -length % 4 :]
    raise AssertionError("options without an end")


def read(file: bytes) -> Recording:
    """Read a little-endian pcapng file of one section and one interface, strictly."""
    blocks: list[tuple[int, bytes]] = []
    while file:
        kind, length = struct.unpack_from("<II", file)
        assert length % 4 == 0
        assert len(file) >= length >= 12
        assert struct.unpack_from("<I", file, length - 4)[0] == length
        blocks.append((kind, file[8 : length - 4]))
        file = file[length:]
    (first, section), (second, interface), *packets = blocks
    assert (first, second) == (0x0A0D0D0A, 1)
    assert struct.unpack_from("<IHHq", section) == (0x1A2B3C4D, 1, 0, -1)
    assert read_options(section[16:]) == {4: b"zttrio"}
    linktype, _, snap_length = struct.unpack_from("<HHI", interface)
    options = read_options(interface[8:])
    records = []
    for kind, body in packets:
        assert kind == 6
        number, high, low, kept, length = struct.unpack_from("<IIIII", body)
        assert number == 0
        padded = kept + -kept % 4
        (flags,) = struct.unpack("<I", read_options(body[20 + padded :])[2])
        assert body[20 + kept : 20 + padded] == bytes(padded - kept)
        records.append(Record(high << 32 | low, body[20 : 20 + kept], length, flags))
    return Recording(options[2].decode(), linktype, snap_length, options[9][0], records)


def arp_request() -> bytes:
    question = ArpPacket(REQUEST, OURS, b"\x0a\x09\0\1", bytes(6), b"\x0a\x09\0\2")
    return EthernetHeader(b"\xff" * 6, OURS, ETHERTYPE_ARP).emit() + question.emit()


def tcp_frame(payload: bytes, gso_size: int = 0) -> Frame:
    """A frame as the stack sends it: in two pieces, the checksum not finished."""
    source, destination = b"\x0a\x09\0\1", b"\x0a\x09\0\2"
    partial = fold(pseudo_header(source, destination, PROTOCOL_TCP, 20 + len(payload)))
    tcp = TcpHeader(7777, 80, 1000, 2000, ACK | PSH, 500, checksum=partial).emit()
    ip = Ipv4Header(source, destination, PROTOCOL_TCP, 40 + len(payload)).emit()
    ethernet = EthernetHeader(THEIRS, OURS, ETHERTYPE_IPV4).emit()
    return Frame(ethernet + ip + tcp, memoryview(payload), gso_size, CHECKSUM_PARTIAL)


def test_an_empty_capture_describes_its_interface() -> None:
    file = io.BytesIO()
    Capture(file, name="größe 5", snap_length=96).close()
    assert read(file.getvalue()) == Recording("größe 5", 1, 96, 9, [])


FRAMES = st.lists(st.binary(max_size=70).map(Frame), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), FRAMES, st.integers(0, 10**16)), max_size=4))
def test_everything_shown_is_in_the_file_in_order(
    bursts: list[tuple[bool, list[Frame], int]],
) -> None:
    file = io.BytesIO()
    expected: list[tuple[bytes, int]] = []
    with Capture(file, origin=0) as capture:
        for is_inbound, frames, microseconds in bursts:
            show = capture.frames_received if is_inbound else capture.frames_sent
            show(frames, microseconds / 1e6)
            expected += [(bytes(frame), 1 if is_inbound else 2) for frame in frames]
        assert capture.written == len(expected)
    records = read(file.getvalue()).records
    assert [(record.octets, record.flags & 3) for record in records] == expected
    assert all(record.length == len(record.octets) for record in records)


def test_both_pieces_of_a_frame_are_written() -> None:
    file = io.BytesIO()
    with Capture(file) as capture:
        capture.frames_sent([tcp_frame(b"hello zttrio\n")], 0.0)
    (record,) = read(file.getvalue()).records
    assert record.octets == bytes(tcp_frame(b"hello zttrio\n"))


@pytest.mark.parametrize(
    ("destination", "reception"),
    [("ffffffffffff", 3), ("01005e000016", 2), ("333300000001", 2), ("02000000000a", 1)],
)
def test_flags_say_which_way_and_to_whom(destination: str, reception: int) -> None:
    file = io.BytesIO()
    frame = Frame(bytes.fromhex(destination) + bytes(54))
    with Capture(file) as capture:
        capture.frames_received([frame], 0.0)
        capture.frames_sent([frame], 0.0)
    received, sent = read(file.getvalue()).records
    assert received.flags == reception << 2 | 1
    assert sent.flags == reception << 2 | 2


def test_virtual_time_is_written_to_the_nanosecond() -> None:
    file = io.BytesIO()
    with Capture(file, origin=0) as capture:
        for now in (0.0, 1e-9, 1.5, 4294967.296, 123456.789012345):
            capture.frames_sent([Frame(bytes(60))], now)
    times = [record.nanoseconds for record in read(file.getvalue()).records]
    assert times == [0, 1, 1_500_000_000, 1_000_000 * 2**32, 123_456_789_012_345]


@pytest.mark.parametrize(("now", "written"), [(-1.0, 0), (1e12, 2**64 - 1)])
def test_a_clock_beyond_what_can_be_written_does_not_end_the_network(
    now: float, written: int
) -> None:
    file = io.BytesIO()
    with Capture(file, origin=0) as capture:
        capture.frames_sent([Frame(bytes(60))], now)
    (record,) = read(file.getvalue()).records
    assert record.nanoseconds == written


def test_real_time_starts_at_the_machines_clock_and_runs_with_the_instruments() -> None:
    file = io.BytesIO()
    before = time.time_ns()
    with Capture(file) as capture:
        capture.frames_received([Frame(bytes(60))], 5000.0)
        after = time.time_ns()
        capture.frames_sent([Frame(bytes(60))], 5000.25)
    first, second = read(file.getvalue()).records
    assert before <= first.nanoseconds <= after
    assert second.nanoseconds - first.nanoseconds == 250_000_000


def test_a_snap_length_keeps_the_start_and_tells_the_whole() -> None:
    file = io.BytesIO()
    with Capture(file, snap_length=54) as capture:
        capture.frames_sent([tcp_frame(bytes(100)), Frame(arp_request())], 0.0)
    long, short = read(file.getvalue()).records
    assert (long.octets, long.length) == (bytes(tcp_frame(bytes(100)))[:54], 154)
    assert (short.octets, short.length) == (arp_request(), 42)


def test_a_super_segment_is_written_as_it_passes() -> None:
    file = io.BytesIO()
    with Capture(file) as capture:
        capture.frames_sent([tcp_frame(bytes(60000), 1460)], 0.0)
    (record,) = read(file.getvalue()).records
    assert record.length == len(record.octets) == 60054


def test_a_plain_capture_holds_what_a_plain_wire_carries() -> None:
    file = io.BytesIO()
    with Capture(file, plain=True) as capture:
        capture.frames_sent([tcp_frame(bytes(3000), 1460), tcp_frame(b"hello")], 0.0)
        assert capture.written == 4
    records = read(file.getvalue()).records
    assert [record.length for record in records] == [1514, 1514, 134, 59]
    for record in records:
        segment = record.octets[34:]
        pseudo = pseudo_header(b"\x0a\x09\0\1", b"\x0a\x09\0\2", PROTOCOL_TCP, len(segment))
        words = struct.unpack(f"!{(len(segment) + 1) // 2}H", segment + bytes(len(segment) % 2))
        assert fold(pseudo + sum(words)) == 0xFFFF


def test_junk_that_claims_to_be_a_super_segment_is_written_as_it_is() -> None:
    file = io.BytesIO()
    junk = Frame(b"\xff" * 20, b"\xff" * 20, 7, CHECKSUM_PARTIAL)
    with Capture(file, plain=True) as capture:
        capture.frames_received([junk, Frame(b"")], 0.0)
    assert [record.octets for record in read(file.getvalue()).records] == [b"\xff" * 40, b""]


def test_every_burst_is_there_for_a_reader_at_once(tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    with path.open("wb") as file, Capture(file) as capture:
        assert read(path.read_bytes()).records == []
        capture.frames_sent([Frame(arp_request())], 0.0)
        assert [record.octets for record in read(path.read_bytes()).records] == [arp_request()]


class Hesitant(io.BytesIO):
    """An unbuffered file that takes a little at a time, and nothing once it is full."""

    room = 10**9

    def write(self, octets: object, /) -> int:
        assert isinstance(octets, memoryview)
        part = bytes(octets[: min(7, self.room)])
        self.room -= len(part)
        return super().write(part)


def test_a_file_that_takes_a_little_at_a_time_gets_everything() -> None:
    file = Hesitant()
    with Capture(file) as capture:
        capture.frames_sent([Frame(arp_request())], 0.0)
    assert [record.octets for record in read(file.getvalue()).records] == [arp_request()]


def test_a_file_that_takes_nothing_ends_the_capture_and_close_says_so() -> None:
    file = Hesitant()
    capture = Capture(file)
    file.room = 10
    capture.frames_sent([Frame(arp_request())], 0.0)
    assert capture.written == 0
    with pytest.raises(BlockingIOError, match="takes none of"):
        capture.close()


class Full(io.BytesIO):
    """A file on a disk that fills up."""

    is_full = False

    def flush(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device")


def test_a_full_disk_ends_the_capture_and_not_the_network() -> None:
    file = Full()
    capture = Capture(file)
    capture.frames_sent([Frame(arp_request())], 0.0)
    file.is_full = True
    capture.frames_received([Frame(arp_request())], 0.0)  # does not raise
    length = len(file.getvalue())
    capture.frames_received([Frame(arp_request())], 0.0)
    assert len(file.getvalue()) == length
    assert capture.written == 1
    assert capture.error is not None
    with pytest.raises(OSError, match="no space left") as caught:
        capture.close()
    assert caught.value.errno == errno.ENOSPC
    capture.close()  # it has been said


def test_a_file_that_is_unusable_from_the_start_is_no_capture() -> None:
    file = Full()
    file.is_full = True
    with pytest.raises(OSError, match="no space left"):
        Capture(file)


def test_after_closing_nothing_is_written_and_the_file_is_open() -> None:
    file = io.BytesIO()
    with Capture(file) as capture:
        pass
    capture.frames_sent([Frame(arp_request())], 0.0)
    assert read(file.getvalue()).records == []
    assert not file.closed


def test_a_negative_snap_length_is_refused() -> None:
    with pytest.raises(ValueError, match="snap_length must not be negative, got -1"):
        Capture(io.BytesIO(), snap_length=-1)


TCPDUMP = shutil.which("tcpdump")


@pytest.mark.skipif(TCPDUMP is None, reason="tcpdump is not installed")
def test_tcpdump_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "frames.pcapng"
    with (
        path.open("wb") as file,
        Capture(file, origin=1_700_000_000 * 10**9, plain=True) as capture,
    ):
        capture.frames_sent([Frame(arp_request())], 0.25)
        capture.frames_sent([tcp_frame(bytes(2000), 1460)], 1.5)
    assert TCPDUMP is not None
    command = [TCPDUMP, "-n", "-v", "-tt", "--nano", "-r", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    text = " ".join(result.stdout.split())
    assert "link-type EN10MB (Ethernet)" in result.stderr
    assert "1700000000.250000000 ARP" in text
    assert "Request who-has 10.9.0.2 tell 10.9.0.1" in text
    assert text.count("1700000001.500000000 IP") == 2
    assert "seq 1000:2460, ack 2000, win 500, length 1460" in text
    assert "Flags [P.]" in text
    assert "win 500, length 540" in text
    assert text.count("(correct)") == 2


TSHARK = shutil.which("tshark")


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_tshark_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "frames.pcapng"
    with path.open("wb") as file, Capture(file, name="net0", origin=0, plain=True) as capture:
        capture.frames_received([Frame(arp_request())], 1.0)
        capture.frames_sent([tcp_frame(b"hello")], 2.0)
    assert TSHARK is not None
    fields = ("frame.interface_name", "frame.packet_flags_direction", "frame.len", "_ws.malformed")
    options = [argument for field in fields for argument in ("-e", field)]
    command = [TSHARK, "-r", str(path), "-T", "fields", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["net0", "net0"]
    assert [row[2] for row in rows] == ["42", "59"]
    assert [row[3] for row in rows] == ["", ""]
