"""Fragments become packets again, or room is kept for others; overlaps are an attack."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.config import Config
from zttrio.header import icmpv4
from zttrio.header.ipv4 import PROTOCOL_UDP

from .stack_host import PEER, US, Host, ethernet, fragments, ip_packet, udp_content

if TYPE_CHECKING:
    from zttrio.stack.udp import UdpEndpoint

DATA = bytes(number % 251 for number in range(3000))


def make(config: Config | None = None) -> tuple[Host, UdpEndpoint]:
    host = Host(config=config)
    host.meet()
    endpoint = host.stack.udp.open()
    endpoint.bind(None, 5000)
    return host, endpoint


def received(endpoint: UdpEndpoint) -> bytes | None:
    datagram = endpoint.receive()
    return None if datagram is None else datagram.data


def piece(start: int, end: int, *, more: bool, identification: int = 7, tos: int = 0) -> bytes:
    """The fragment with octets *start* to *end* of one fixed datagram."""
    content = udp_content(DATA)
    return ethernet(
        ip_packet(
            content[start:end],
            PROTOCOL_UDP,
            fragment_offset=start,
            more_fragments=more,
            identification=identification,
            traffic_class=tos,
        )
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_fragments_may_come_in_any_order(order: tuple[int, ...]) -> None:
    host, endpoint = make()
    pieces = list(fragments(udp_content(DATA), 752))
    assert len(pieces) == 4
    for index in order:
        assert received(endpoint) is None
        host.put(pieces[index])
    assert received(endpoint) == DATA
    assert host.stack.sizes["unfinished packets"] == 0
    assert host.stack.sizes["octets of unfinished packets"] == 0
    host.check_books()


@given(st.integers(0, 2**32))
def test_random_cuts_in_random_order_with_duplicates_come_together(seed: int) -> None:
    rng = random.Random(seed)
    host, endpoint = make()
    length = len(udp_content(DATA))
    cuts = sorted({0, *(rng.randrange(1, length // 8) * 8 for _ in range(rng.randrange(20)))})
    ends = [*cuts[1:], length]
    pieces = [piece(start, end, more=end != length) for start, end in zip(cuts, ends, strict=True)]
    held = pieces.pop(rng.randrange(len(pieces)))
    pieces += rng.choices(pieces, k=3) if pieces else []
    rng.shuffle(pieces)
    host.put(*pieces)
    assert received(endpoint) is None
    host.put(held)
    assert received(endpoint) == DATA
    assert host.stack.sizes["octets of unfinished packets"] <= 512 + len(DATA)
    host.check_books()


def test_packets_are_told_apart_by_identification() -> None:
    host, endpoint = make()
    first = list(fragments(udp_content(b"a" * 100), 56, identification=1))
    second = list(fragments(udp_content(b"b" * 100), 56, identification=2))
    for pair in zip(first, second, strict=True):
        host.put(*pair)
    assert [received(endpoint), received(endpoint)] == [b"a" * 100, b"b" * 100]


def test_a_duplicate_is_ignored() -> None:
    host, endpoint = make()
    host.put(piece(0, 1000, more=True), piece(0, 1000, more=True), piece(1000, 3008, more=False))
    assert received(endpoint) == DATA
    assert host.counters.fragment_duplicate == 1


@pytest.mark.parametrize(
    ("known", "overlapping"),
    [
        ((0, 1000, True), (992, 2000, True)),
        ((1000, 2000, True), (0, 1008, True)),
        ((1000, 2000, True), (1000, 1504, True)),
        ((1000, 2000, True), (1000, 2504, True)),
        ((1000, 2000, True), (1104, 1504, True)),
        ((1104, 1504, True), (1000, 2000, True)),
        ((2000, 3008, False), (2000, 2504, True)),
        ((2000, 3008, False), (2000, 3008, True)),
        ((2000, 3008, True), (1000, 2000, False)),
        ((1000, 2000, False), (2000, 3008, True)),
        ((1000, 2000, False), (2000, 3008, False)),
    ],
)
def test_an_overlap_or_a_second_end_spoils_the_whole_packet(
    known: tuple[int, int, bool], overlapping: tuple[int, int, bool]
) -> None:
    host, endpoint = make()
    host.put(piece(known[0], known[1], more=known[2]))
    host.put(piece(overlapping[0], overlapping[1], more=overlapping[2]))
    assert host.counters.fragment_overlap == 1
    # RFC 5722: what still comes is discarded too, also a flawless set
    host.put(piece(0, 1000, more=True), piece(1000, 2000, more=True), piece(2000, 3008, more=False))
    assert received(endpoint) is None
    assert host.counters.fragment_refused == 3
    assert host.stack.sizes["octets of unfinished packets"] < 1000
    assert [sent.icmp for sent in host.at(30.0)] == []  # and its end is not reported
    host.put(piece(0, 1000, more=True), piece(1000, 3008, more=False))
    assert received(endpoint) == DATA
    host.check_books()


@pytest.mark.parametrize(
    "bad",
    [
        ip_packet(b"", PROTOCOL_UDP, more_fragments=True),
        ip_packet(b"", PROTOCOL_UDP, fragment_offset=8),
        ip_packet(bytes(1001), PROTOCOL_UDP, more_fragments=True),
        ip_packet(bytes(100), PROTOCOL_UDP, fragment_offset=65528),
    ],
    ids=["empty", "empty-end", "odd", "beyond-64-KiB"],
)
def test_a_fragment_that_cannot_be_is_dropped(bad: bytes) -> None:
    host, _ = make()
    host.put(ethernet(bad))
    assert host.counters.fragment_malformed == 1
    assert host.stack.sizes["unfinished packets"] == 0
    host.check_books()


def test_an_unfinished_packet_is_given_up_after_thirty_seconds_from_its_first_fragment() -> None:
    host, endpoint = make()
    host.put(piece(0, 1000, more=True))
    host.at(29.0)
    host.put(piece(1000, 2000, more=True))
    assert host.stack.next_timer() == 30.0
    assert host.at(29.999) == []
    (error,) = host.at(30.0)
    assert (error.icmp.type, error.icmp.code) == (icmpv4.TIME_EXCEEDED, 1)
    assert bytes(error.icmp.body) == piece(0, 1000, more=True)[14:][: 576 - 28]
    assert error.ip.destination == PEER
    assert host.counters.reassembly_timeout == 1
    host.put(piece(2000, 3008, more=False))
    assert received(endpoint) is None
    host.check_books()


def test_without_the_first_fragment_nobody_is_told() -> None:
    host, _ = make()
    host.put(piece(1000, 2000, more=True))
    assert host.at(40.0) == []
    assert host.counters.reassembly_timeout == 1


def test_each_packet_has_its_own_deadline() -> None:
    host, _ = make()
    for second in (0.0, 10.0, 20.0):
        host.at(second)
        host.put(piece(0, 1000, more=True, identification=int(second)))
    for second, left in ((30.0, 2), (40.0, 1), (50.0, 0)):
        host.at(second - 0.001)
        assert host.stack.sizes["unfinished packets"] == left + 1
        host.at(second)
        assert host.stack.sizes["unfinished packets"] == left


def test_the_number_of_unfinished_packets_is_bounded_and_the_oldest_make_room() -> None:
    host, endpoint = make(Config(reassembly_packets=4))
    for number in range(10):
        host.put(piece(0, 1000, more=True, identification=number))
    assert host.stack.sizes["unfinished packets"] == 4
    assert host.counters.reassembly_evicted == 6
    host.put(piece(1000, 3008, more=False, identification=9))
    assert received(endpoint) == DATA


def test_their_octets_are_bounded() -> None:
    host, endpoint = make(Config(reassembly_memory=20_000))
    for number in range(100):
        host.put(piece(0, 1000, more=True, identification=number))
        assert host.stack.sizes["octets of unfinished packets"] <= 20_000
    host.put(piece(1000, 3008, more=False, identification=99))
    assert received(endpoint) == DATA


def test_tiny_fragments_pay_for_their_overhead() -> None:
    host, endpoint = make(Config(reassembly_memory=100_000))
    for offset in range(8, 40_000, 16):
        content = ip_packet(bytes(8), 17, fragment_offset=offset, more_fragments=True)
        host.put(ethernet(content))
        assert host.stack.sizes["octets of unfinished packets"] <= 100_000
    assert host.counters.reassembly_evicted > 0
    host.put(*fragments(udp_content(DATA), 1000, identification=8))
    assert received(endpoint) == DATA


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [(0, 0, 0), (2, 3, 3), (3, 2, 3), (1, 2, 1), (0, 2, 0), (0, 3, None), (3, 0, None)],
)
def test_congestion_marks_survive(first: int, second: int, whole: int | None) -> None:
    host, endpoint = make()
    host.put(piece(0, 1000, more=True, tos=first), piece(1000, 3008, more=False, tos=second))
    datagram = endpoint.receive()
    assert (None if datagram is None else datagram.traffic_class) == whole
    host.check_books()


def test_a_ping_of_64_kib_is_answered() -> None:
    host, _ = make()
    message = icmpv4.IcmpV4(icmpv4.ECHO_REQUEST, 0, rest=9, body=bytes(65_500)).emit()
    host.put(*fragments(message, 1480, protocol=1))
    sent = host.take()
    assert len(sent) == 45
    other = Host("10.0.0.2/24", mac=sent[0].destination_mac)
    other.put(*(packet.frame for packet in sent))
    assert other.counters.reassembled == 1
    assert other.counters.icmp_echo_unexpected == 1  # whole, with a right checksum
    assert sent[0].ip.source == US


def test_the_packet_that_grows_is_evicted_last() -> None:
    host, endpoint = make(Config(reassembly_memory=5000))
    host.put(piece(0, 1000, more=True, identification=1))
    host.put(piece(0, 1000, more=True, identification=2))
    host.put(piece(1000, 2000, more=True, identification=1))
    host.put(piece(2000, 3008, more=False, identification=1))
    assert received(endpoint) == DATA
    assert host.counters.reassembly_evicted == 1
