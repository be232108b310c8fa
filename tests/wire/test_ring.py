"""Shared memory between stations, and what hostile or dying ones can do with it: nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.recording import Running, frame_to, running
from zttrio.header import ipv4
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.tcp import ACK, PSH, TcpHeader
from zttrio.wire import HostSegment, reference, ring
from zttrio.wire.reference import MARK, SHARES, Lender, References
from zttrio.wire.ring import CAPACITY, ReceiveRing, SendRing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not SHARES, reason="no memory can be shared here, or it is off")


@pytest.fixture
def rings() -> Iterator[tuple[SendRing, ReceiveRing]]:
    sender = SendRing()
    receiver = ReceiveRing(sender.descriptor)
    yield sender, receiver
    sender.close()
    receiver.close()


def is_full(sender: SendRing) -> bool:
    return sender.is_full


def is_open(lender: Lender) -> bool:
    return lender.is_open


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_put_is_taken_and_room_is_used_again(data: st.DataObject) -> None:
    sender = SendRing()
    receiver = ReceiveRing(sender.descriptor)
    waiting: list[tuple[int, bytes]] = []
    for number in range(data.draw(st.integers(1, 40))):
        if data.draw(st.booleans()) and waiting:
            place, octets = waiting.pop(0)
            assert receiver.take(place, len(octets)) == octets
            continue
        octets = bytes([number]) * data.draw(st.sampled_from((1, 70_000, 900_000, CAPACITY // 3)))
        place = sender.put(octets)
        if place < 0:
            assert sender.is_full
            assert sum(len(other) for _, other in waiting) + 2 * CAPACITY // 3 >= CAPACITY // 3
        elif data.draw(st.integers(0, 3)):  # or the datagram did not go out
            sender.keep()
            waiting.append((place, octets))
    for place, octets in waiting:
        assert receiver.take(place, len(octets)) == octets
    sender.close()
    receiver.close()


def test_a_full_ring_has_room_when_something_is_taken(
    rings: tuple[SendRing, ReceiveRing],
) -> None:
    sender, receiver = rings
    part = bytes(CAPACITY // 4)
    places = []
    while (place := sender.put(part)) >= 0:
        sender.keep()
        places.append(place)
    assert len(places) == 4
    assert is_full(sender)
    receiver.take(places[0], len(part))
    assert is_full(sender)  # it is told of at the next call
    receiver.take(places[1], len(part))
    assert not is_full(sender)
    assert sender.put(part) >= 0


@pytest.mark.parametrize("taken", [1, CAPACITY, (1 << 64) - 1])
def test_a_receiver_that_takes_what_was_never_there_is_found_out(
    rings: tuple[SendRing, ReceiveRing], taken: int
) -> None:
    sender, receiver = rings
    receiver._words[1] = taken
    with pytest.raises(ValueError, match="more was taken"):
        sender.put(b"x")


def test_what_never_fits_is_refused(rings: tuple[SendRing, ReceiveRing]) -> None:
    with pytest.raises(ValueError, match="too much"):
        rings[0].put(bytes(CAPACITY + 1))


@pytest.mark.parametrize(
    ("place", "size"), [(0, 0), (0, CAPACITY + 1), (CAPACITY - 1, 2), ((1 << 64) - 1, 1)]
)
def test_a_place_outside_is_refused(
    rings: tuple[SendRing, ReceiveRing], place: int, size: int
) -> None:
    with pytest.raises(ValueError, match="not in it"):
        rings[1].take(place, size)
    assert rings[1].take(0, 1) == b"\0"


def test_either_side_sees_that_the_other_has_ended() -> None:
    for first in (0, 1):
        sender = SendRing()
        pair = (sender, ReceiveRing(sender.descriptor))
        assert sender.is_open
        pair[first].close()
        assert pair[1 - first].is_ended
        pair[1 - first].close()


@pytest.mark.parametrize("kind", ["unsealed", "small", "no memory"])
def test_memory_that_could_be_cut_is_refused_and_closed(kind: str) -> None:
    before = open_descriptors()
    if kind == "no memory":
        descriptor = os.open("/dev/null", os.O_RDWR)
    else:
        descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, ring._SIZE if kind == "unsealed" else 4096)
        if kind == "small":
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, ring._SEALS)
    with pytest.raises((ValueError, OSError)):
        ReceiveRing(descriptor)
    assert open_descriptors() == before


class TestReferences:
    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        return ours, theirs

    def test_a_frame_arrives_as_it_was_sent_and_nothing_stays_open(self) -> None:
        before = open_descriptors()
        ours, theirs = self.pair()
        lender, references = Lender(b"sender"), References(65534)
        with ours, theirs:
            assert not is_open(lender)
            lender.offer(ours)
            lender.offer(ours)  # once is enough
            octets, ancillary, _, _ = theirs.recvmsg(100, reference.ANCILLARY)
            assert references.receive(octets, ancillary) is None
            assert is_open(lender)
            frame = Frame(b"h" * 66, bytes(100_000), 1000, CHECKSUM_PARTIAL)
            assert lender.send(ours, frame)
            octets, ancillary, _, _ = theirs.recvmsg(1000, reference.ANCILLARY)
            assert references.receive(octets, ancillary) == frame
            with pytest.raises(BlockingIOError):
                theirs.recv(1)
            references.close()
            assert not is_open(lender)
            lender.close()
        assert open_descriptors() == before

    @pytest.mark.parametrize(
        "octets",
        [
            MARK,
            MARK + bytes(22),
            MARK + bytes(22 + 13),
            MARK + bytes(22 + 14),  # no such ring
            MARK + bytes(22 + 300),
            MARK + bytes(14) + b"\xff\xff\xff\xff" + bytes(4 + 66),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, octets: bytes) -> None:
        with pytest.raises(ValueError, match="reference"):
            References(65534).receive(octets, [])

    def test_descriptors_that_are_no_offer_are_closed(self) -> None:
        before = open_descriptors()
        ours, theirs = self.pair()
        references = References(65534)
        with ours, theirs, open("/dev/null", "rb") as file:
            for octets in (b"x", bytes(12), b"\2" * 100):
                socket.send_fds(ours, [octets], [file.fileno()] * 2)
                received, ancillary, _, _ = theirs.recvmsg(1000, socket.CMSG_SPACE(8))
                with pytest.raises(ValueError, match=r"offer|ring"):
                    references.receive(received, ancillary)
        assert open_descriptors() == before

    def test_rings_are_bounded_and_those_that_have_ended_go_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reference, "RING_LIMIT", 2)
        ours, theirs = self.pair()
        references = References(65534)
        lenders = [Lender(bytes([number]) * 6) for number in range(4)]
        with ours, theirs:
            for number, lender in enumerate(lenders):
                lender.offer(ours)
                references.receive(*theirs.recvmsg(100, reference.ANCILLARY)[:2])
                if number == 1:
                    lender.close()
            assert [lender.is_open for lender in lenders] == [False, False, True, True]
            again = Lender(lenders[3]._mac)  # started anew
            again.offer(ours)
            references.receive(*theirs.recvmsg(100, reference.ANCILLARY)[:2])
            assert [lender.is_open for lender in (*lenders, again)] == [False] * 2 + [
                True,
                False,
                True,
            ]
            references.close()
            for lender in (*lenders, again):
                lender.close()

    def test_a_lying_receiver_gets_no_more_references(self) -> None:
        ours, theirs = self.pair()
        lender, references = Lender(b"sender"), References(65534)
        with ours, theirs:
            lender.offer(ours)
            references.receive(*theirs.recvmsg(100, reference.ANCILLARY)[:2])
            references._rings[b"sender"]._words[1] = 1 << 40
            assert not lender.send(ours, Frame(bytes(66), bytes(20_000)))
            assert not lender.is_open
            assert not lender.is_full
            references.close()


def super_segment(sender: Running, receiver: bytes, size: int) -> Frame:
    tcp = TcpHeader(1, 2, 3, 4, ACK | PSH, 5).emit()
    gso_size = 60_000
    length = 20 + len(tcp) + size
    header = ipv4.Ipv4Header(
        bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), 6, length if length <= 0xFFFF else 0
    )
    front = receiver + sender.mac + b"\x08\x00" + header.emit() + tcp
    payload = b"".join(bytes([number]) * gso_size for number in range(-(-size // gso_size)))
    return Frame(front, payload[:size], gso_size, CHECKSUM_PARTIAL)


class TestHostSegment:
    async def test_long_frames_go_by_reference_and_keep_their_place(self, tmp_path: Path) -> None:
        folder = tmp_path / "segment"
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            bodies: list[bytes] = []
            for number in range(60):
                size = (10, 20_000, 65_000)[number % 3]
                bodies.append(bytes([number]) * size)
                while not a.send(b.mac, bodies[-1]):
                    await trio.lowlevel.checkpoint()
                if number == 5:
                    await b.port.wait_frames(6)  # the offer has been accepted
            await b.port.wait_frames(60)
            assert b.port.bodies == bodies
            assert isinstance(a.wire, HostSegment)
            assert a.wire._peers[b.mac].lender.is_open
            by_reference = [frame for burst in b.port.bursts for frame in burst if frame.payload]
            assert len(by_reference) >= 36
            assert a.wire.counters()["frames_sent"] == b.wire.counters()["frames_received"] == 60

    async def test_a_long_frame_in_one_piece_passes_too(self, tmp_path: Path) -> None:
        folder = tmp_path / "segment"
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            frame = frame_to(b.mac, a.mac, bytes(20_000))
            for count in (1, 2):
                a.wire.send([frame, Frame(bytes(frame))])
                await b.port.wait_frames(2 * count)
            assert b.port.bodies == [bytes(20_000)] * 4

    async def test_a_super_segment_goes_whole_or_in_parts(self, tmp_path: Path) -> None:
        folder = tmp_path / "segment"
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            whole = super_segment(a, b.mac, 250_000)
            assert a.wire.send([whole]) == 1
            await b.port.wait_frames(5)
            parts = [frame for burst in b.port.bursts for frame in burst]
            assert [frame.gso_size for frame in parts] == [0] * 5
            assert b"".join(bytes(frame)[54:] for frame in parts) == whole.payload
            assert a.wire.send([whole]) == 1
            await b.port.wait_frames(6)
            assert b.port.bursts[-1][-1] == whole

    async def test_what_a_full_station_has_not_taken_of_a_super_segment_waits(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "segment"
        async with running(HostSegment(folder)) as (a,):
            other = b"\2\2\2\2\2\2"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.bind(str(folder / f"{other.hex()}.sock"))
                sock.setblocking(False)
                frames = [super_segment(a, other, 250_000) for _ in range(200)]
                taken = a.wire.send(frames)
                assert 0 < taken < 200
                assert a.send(other, b"x") == 0
                received = bytearray()
                while len(received) < taken * 250_000:
                    try:
                        octets, ancillary, _, _ = sock.recvmsg(70_000, reference.ANCILLARY)
                    except BlockingIOError:
                        await trio.lowlevel.wait_readable(sock)
                        continue
                    for descriptor in reference._descriptors(ancillary):
                        os.close(descriptor)  # it does not want the ring
                    if not octets.startswith(MARK):
                        received += octets[54:]
                assert received == bytes(frames[0].payload) * taken
                await trio.testing.wait_all_tasks_blocked()
                assert a.send(other, b"x") == 1

    async def test_a_full_ring_holds_frames_up_until_there_is_room(self, tmp_path: Path) -> None:
        folder = tmp_path / "segment"
        async with running(HostSegment(folder), HostSegment(folder)) as (a, b):
            frames = [super_segment(a, b.mac, 1_500_000) for _ in range(20)]
            a.wire.send([frame_to(b.mac, a.mac, bytes(20_000))])
            await b.port.wait_frames(1)
            taken = a.wire.send(frames)
            assert taken == 2  # of 4 MiB
            while taken < 20:
                await trio.lowlevel.checkpoint()
                taken += a.wire.send(frames[taken:])
            await b.port.wait_frames(21)
            assert [frame for burst in b.port.bursts for frame in burst][1:] == frames

    async def test_the_memory_of_those_who_left_is_given_back_when_another_comes(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / "segment"

        def shared() -> int:
            return Path("/proc/self/maps").read_text().count("memfd:zttrio ring")

        async with running(HostSegment(folder)) as (a,):
            for _ in range(5):
                async with running(HostSegment(folder)) as (b,):
                    a.wire.send([frame_to(b.mac, a.mac, bytes(20_000))])
                    await b.port.wait_frames(1)
                    assert shared() == 2  # its own and ours
        assert shared() == 0
