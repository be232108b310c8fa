from __future__ import annotations

from math import inf, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.header.frame import CHECKSUM_COMPLETE, CHECKSUM_PARTIAL, Frame
from zttrio.header.ipv4 import PROTOCOL_TCP, Ipv4Header
from zttrio.header.offload import finish_checksum
from zttrio.header.tcp import ACK, TcpHeader
from zttrio.wire.link import Direction, Link


def frame(size: int, fill: int = 0) -> Frame:
    return Frame(bytes(14), bytes([fill]) * (size - 14))


def direction(seed: int = 1, **link: Any) -> Direction:
    return Direction(Link(**link), Random(seed))


def arrivals(cable: Direction, count: int, *, every: float = 0.0) -> list[tuple[float, int]]:
    """When *count* numbered frames, sent so far apart, come out, and their numbers."""
    result = []
    for number in range(count):
        arrived, _ = cable.transit(frame(64, number), number * every)
        result += [(due, out.payload[0]) for due, out in arrived]
    return sorted(result)


def test_the_default_link_is_transparent_and_a_faulty_one_is_not() -> None:
    assert Link().is_transparent
    for faulty in (
        Link(delay=0.1),
        Link(jitter=0.1),
        Link(loss=0.1),
        Link(duplicate=0.1),
        Link(reorder=0.1),
        Link(corrupt=0.1),
        Link(rate=1e6),
    ):
        assert not faulty.is_transparent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay", -1),
        ("delay", inf),
        ("delay", nan),
        ("jitter", -0.1),
        ("loss", 1.1),
        ("loss", -0.1),
        ("loss", nan),
        ("duplicate", 2),
        ("reorder", -1),
        ("corrupt", 1.5),
        ("reorder_delay", 0),
        ("rate", 0),
        ("rate", nan),
        ("queue", -1),
        ("mtu", 67),
        ("mtu", 65536),
    ],
)
def test_a_link_refuses_a_number_that_makes_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        Link(**{field: value})


def test_delay_moves_every_frame_by_exactly_that_much() -> None:
    cable = direction(delay=0.25)
    assert arrivals(cable, 3, every=0.5) == [(0.25, 0), (0.75, 1), (1.25, 2)]


def test_jitter_varies_the_delay_within_its_bounds_and_keeps_the_order() -> None:
    cable = direction(delay=1.0, jitter=0.5)
    out = arrivals(cable, 200, every=0.001)
    assert [number for _, number in out] == list(range(200))
    spread = [due - 0.001 * number for due, number in out]
    assert min(spread) >= 1.0
    assert max(spread) <= 1.5 + 0.2  # a frame may have to wait for the one in front of it
    assert len({round(delay, 6) for delay in spread}) > 10


def test_loss_takes_the_share_that_it_says() -> None:
    cable = direction(loss=0.1)
    lost = sum(not cable.transit(frame(64), 0.0)[0] for _ in range(10_000))
    assert lost == cable.counters.lost
    assert 900 < lost < 1100


def test_a_loss_of_one_is_a_cut_cable() -> None:
    cable = direction(loss=1.0)
    assert [cable.transit(frame(64), 0.0) for _ in range(100)] == [([], "lost")] * 100


def test_duplicates_are_the_same_frame_twice() -> None:
    cable = direction(duplicate=1.0, delay=0.1)
    sent = frame(64)
    copies, dropped = cable.transit(sent, 0.0)
    assert [(due, bytes(copy)) for due, copy in copies] == [(0.1, bytes(sent))] * 2
    assert not dropped
    assert cable.counters.duplicated == 1


def test_a_reordered_frame_is_overtaken_by_those_sent_within_its_extra_delay() -> None:
    cable = direction(delay=0.1)
    first, _ = cable.transit(frame(64, 0), 0.0)
    cable.link = Link(delay=0.1, reorder=1.0, reorder_delay=0.05)
    held, _ = cable.transit(frame(64, 1), 0.0)
    cable.link = Link(delay=0.1)
    third, _ = cable.transit(frame(64, 2), 0.04)
    fourth, _ = cable.transit(frame(64, 3), 0.06)
    order = sorted((due, out.payload[0]) for due, out in first + held + third + fourth)
    assert [number for _, number in order] == [0, 2, 1, 3]
    assert held[0][0] == pytest.approx(0.15)
    assert cable.counters.reordered == 1


def test_a_held_back_frame_does_not_hold_back_those_behind_it() -> None:
    cable = direction(delay=0.1, reorder=0.3, reorder_delay=1.0)
    out = arrivals(cable, 100, every=0.001)
    on_time = [due for due, number in out if due == pytest.approx(0.1 + 0.001 * number)]
    assert len(on_time) == 100 - cable.counters.reordered
    assert 10 < cable.counters.reordered < 60


def test_corruption_inverts_exactly_one_bit_of_the_frame() -> None:
    cable = direction(corrupt=1.0)
    sent = frame(64, 0x55)
    seen = set()
    for _ in range(200):
        [(_, out)], _ = cable.transit(sent, 0.0)
        difference = int.from_bytes(bytes(out)) ^ int.from_bytes(bytes(sent))
        assert difference.bit_count() == 1
        seen.add(difference)
    assert len(seen) > 100  # anywhere in it
    assert bytes(sent) == bytes(frame(64, 0x55))  # the sender's own octets stay
    assert cable.counters.corrupted == 200


def test_the_rate_spaces_frames_by_their_size() -> None:
    cable = direction(rate=1000.0, queue=10_000)
    out = [cable.transit(frame(100), 0.0)[0][0][0] for _ in range(3)]
    out.append(cable.transit(frame(50), 0.0)[0][0][0])
    assert out == pytest.approx([0.1, 0.2, 0.3, 0.35])
    assert cable.transit(frame(100), 10.0)[0][0][0] == pytest.approx(10.1)  # idle in between


def test_a_full_queue_drops_what_comes_last() -> None:
    cable = direction(rate=1000.0, queue=250)
    fates = [cable.transit(frame(100), 0.0)[1] for _ in range(4)]
    assert fates == ["", "", "queue full", "queue full"]
    assert cable.transit(frame(100), 0.06)[1] == ""  # 60 octets have left, 140 are there
    assert cable.counters.queue_full == 2


def test_an_idle_transmitter_takes_a_frame_larger_than_its_queue() -> None:
    cable = direction(rate=1000.0, queue=0)
    assert cable.transit(frame(500), 0.0)[1] == ""
    assert cable.transit(frame(500), 0.4)[1] == "queue full"
    assert cable.transit(frame(500), 0.5)[1] == ""


def test_a_lost_frame_has_used_its_share_of_the_rate() -> None:
    cable = direction(rate=1000.0, loss=1.0)
    cable.transit(frame(100), 0.0)
    cable.link = Link(rate=1000.0)
    assert cable.transit(frame(100), 0.0)[0][0][0] == pytest.approx(0.2)


@given(
    rate=st.floats(1.0, 1e10),
    queue=st.integers(0, 10**7),
    size=st.integers(14, 65536),
    backlog=st.lists(st.integers(14, 1514), max_size=20),
)
def test_there_is_room_when_room_at_says_so(
    rate: float, queue: int, size: int, backlog: list[int]
) -> None:
    cable = direction(rate=rate, queue=queue)
    now = 1e6  # where rounding shows
    for waiting in backlog:
        cable.transit(frame(waiting), now)
    assert cable.has_room(size, cable.room_at(size, now) + 1e-9)


def test_packets_longer_than_the_mtu_disappear() -> None:
    cable = direction(mtu=576)
    assert cable.transit(frame(14 + 576), 0.0)[1] == ""
    assert cable.transit(frame(14 + 577), 0.0) == ([], "too long")
    assert cable.passes(frame(14 + 576))
    assert not cable.passes(frame(14 + 577))
    assert cable.counters.too_long == 1


def test_a_faster_path_overtakes_what_is_on_the_old_one() -> None:
    cable = direction(delay=1.0)
    assert cable.transit(frame(64), 0.0)[0][0][0] == 1.0
    cable.link = Link(delay=0.1)
    assert cable.transit(frame(64), 0.0)[0][0][0] == 0.1


def super_segment(gso_size: int, payload: bytes) -> Frame:
    tcp = TcpHeader(1, 2, seq=1000, ack=0, flags=ACK, window=100).emit()
    ip = Ipv4Header(
        source=b"\x0a\0\0\1",
        destination=b"\x0a\0\0\2",
        protocol=PROTOCOL_TCP,
        total_length=20 + len(tcp) + len(payload),
    ).emit()
    ethernet = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0"
    return Frame(ethernet + ip + tcp, payload, gso_size, CHECKSUM_PARTIAL)


def test_every_segment_of_a_super_segment_has_its_own_fate() -> None:
    payload = Random(7).randbytes(100 * 1000)[:60_000]
    cable = direction(loss=0.3, mtu=1500)
    out, dropped = cable.transit(super_segment(1000, payload), 0.0)
    assert dropped == "lost"
    assert len(out) + cable.counters.lost == 60
    assert 0 < cable.counters.lost < 60
    for _, piece in out:
        assert piece.gso_size == 0
        seq = TcpHeader.parse(piece.header, 34).seq
        assert bytes(piece.payload) == payload[seq - 1000 : seq]


def test_a_corrupted_frame_carries_a_checksum_that_can_tell() -> None:
    cable = direction(corrupt=1.0)
    sent = super_segment(0, b"x" * 100)
    assert sent.checksum == CHECKSUM_PARTIAL
    [(_, out)], _ = cable.transit(sent, 0.0)
    assert out.checksum == CHECKSUM_COMPLETE
    difference = int.from_bytes(bytes(out)) ^ int.from_bytes(bytes(finish_checksum(sent)))
    assert difference.bit_count() == 1


def test_a_frame_that_has_no_checksum_to_finish_is_corrupted_as_it_is() -> None:
    cable = direction(corrupt=1.0)
    sent = Frame(bytes(64), b"", 0, CHECKSUM_PARTIAL)
    [(_, out)], _ = cable.transit(sent, 0.0)
    assert int.from_bytes(bytes(out)).bit_count() == 1


def test_a_super_segment_that_is_none_is_counted_and_dropped() -> None:
    cable = direction(delay=0.1)
    assert cable.transit(Frame(bytes(60), b"x" * 5000, 1000), 0.0) == ([], "malformed")
    assert cable.counters.malformed == 1


def test_what_one_direction_does_depends_on_its_own_seed_and_frames_only() -> None:
    def fates(cable: Direction) -> list[Any]:
        return [
            [(due, bytes(out)) for due, out in cable.transit(frame(64), n * 0.01)[0]]
            for n in range(300)
        ]

    def faulty(seed: int) -> Direction:
        return direction(
            seed, loss=0.1, jitter=0.01, duplicate=0.1, reorder=0.1, corrupt=0.1, delay=0.02
        )

    assert fates(faulty(5)) == fates(faulty(5))
    assert fates(faulty(5)) != fates(faulty(6))
