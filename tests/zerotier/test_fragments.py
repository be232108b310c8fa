from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier.armor import Armor
from zttrio.zerotier.constants import MAX_PACKET
from zttrio.zerotier.counters import Counters
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.fragment import Reassembler, datagram_count, split

from .data import BACKENDS, names, vectors

_HERE = Endpoint.parse("10.0.0.1/9993")


def _feed(
    reassembler: Reassembler, datagram: bytes, remote: Endpoint = _HERE, now: float = 0.0
) -> bytes | None:
    if datagram[13] == 0xFF:
        whole = reassembler.receive_tail(datagram, remote, now)
        return None if whole is None else whole[0]
    return reassembler.receive_head(datagram, 0, remote, now)


def _packet(packet_id: int, length: int = 3000) -> bytes:
    return packet_id.to_bytes(8, "big") + b"destn\x01ourc\x40" + bytes(length - 19)


@pytest.mark.parametrize("vector", vectors("fragments"), ids=names("fragments"))
def test_recorded_fragments_make_the_recorded_packet(vector: dict[str, Any]) -> None:
    reassembler = Reassembler(Counters())
    results = [_feed(reassembler, bytes.fromhex(d)) for d in vector["datagrams"]]
    packets = [packet for packet in results if packet is not None]
    armor = Armor(bytes.fromhex(vector["key48"]), BACKENDS[0])
    opened = [envelope for p in packets if (envelope := armor.open(p)) is not None]
    if vector["valid"]:
        assert packets[0][:18].hex() == vector["assembled"][:36]
        assert [envelope.hex() for envelope in opened] == [vector["decrypted_from_verb"]]
    else:
        assert opened == []


@given(length=st.integers(28, MAX_PACKET), mtu=st.sampled_from([1432, 1433, 1500, 2800, 10_324]))
def test_a_packet_is_cut_into_equal_parts_that_fit_and_comes_back(length: int, mtu: int) -> None:
    packet = _packet(5, 28) + bytes(i % 251 for i in range(length - 28))
    if datagram_count(length, mtu) > 7:
        with pytest.raises(ValueError, match="7 at most"):
            split(packet, mtu)
        return
    parts = split(packet, mtu)
    assert len(parts) == datagram_count(length, mtu)
    assert all(len(part) <= mtu for part in parts)
    assert len({len(part) for part in parts[:-1]}) <= 1
    assert len(parts[-1]) <= len(parts[0])
    if len(parts) > 1:
        reassembler = Reassembler(Counters())
        assert [_feed(reassembler, part) for part in reversed(parts)][-1] == packet
        assert len(reassembler) == 0


@pytest.mark.parametrize(
    ("total", "number"), [(0, 1), (1, 1), (8, 1), (15, 1), (2, 0), (2, 2), (3, 5), (7, 7)]
)
def test_impossible_fragment_numbers_are_dropped(total: int, number: int) -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    datagram = bytes(13) + bytes((0xFF, total << 4 | number, 0)) + b"data"
    assert _feed(reassembler, datagram) is None
    assert counters.fragment_malformed == 1
    assert len(reassembler) == 0


def test_a_tail_that_contradicts_the_others_is_dropped() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    head, tail, last = split(_packet(1, 4000), 1432)
    _feed(reassembler, head)
    _feed(reassembler, tail)
    lying = last[:14] + b"\x42" + last[15:]
    assert _feed(reassembler, lying) is None
    assert counters.fragment_malformed == 1
    assert _feed(reassembler, last) == _packet(1, 4000)


def test_duplicates_change_nothing() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    head, tail, last = split(_packet(1, 4000), 1432)
    for datagram in (head, head[:-1] + b"\xee", tail, tail[:-1] + b"\xee"):
        _feed(reassembler, datagram)
    assert counters.fragment_duplicate == 2
    assert _feed(reassembler, last) == _packet(1, 4000)


def test_parts_older_than_five_seconds_are_not_used() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    head, tail = split(_packet(1, 2000), 1432)
    assert _feed(reassembler, head, now=0.0) is None
    assert _feed(reassembler, tail, now=5.0) is None
    assert counters.fragment_timeout == 1
    assert _feed(reassembler, head, now=9.9) == _packet(1, 2000)


def test_unfinished_packets_are_forgotten_after_five_seconds() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    _feed(reassembler, split(_packet(1), 1432)[0], now=0.0)
    reassembler.expire(4.9)
    assert len(reassembler) == 1
    reassembler.expire(5.0)
    assert (len(reassembler), counters.fragment_timeout) == (0, 1)


def test_a_flood_of_heads_keeps_no_more_than_32_and_one_sender_no_more_than_16() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    honest = split(_packet(999_999, 2000), 1432)
    _feed(reassembler, honest[0], Endpoint.parse("10.0.0.2/1"))
    for number in range(1000):
        _feed(reassembler, split(_packet(number), 1432)[0])
    assert len(reassembler) == 17
    assert counters.fragment_evicted == 1000 - 16
    tail = _feed(reassembler, honest[1], Endpoint.parse("10.0.0.2/1"))
    assert tail == _packet(999_999, 2000)
    for number in range(1000):
        sender = Endpoint(number.to_bytes(4, "big"), 1)
        _feed(reassembler, split(_packet(number), 1432)[0], sender)
    assert len(reassembler) == 32


def test_a_packet_that_would_be_too_long_is_dropped_when_it_is_whole() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    _feed(reassembler, _packet(1, 6000))
    tail = (1).to_bytes(8, "big") + b"destn\xff\x21\x00" + bytes(6000)
    assert _feed(reassembler, tail) is None
    assert counters.fragment_too_long == 1
    assert len(reassembler) == 0
