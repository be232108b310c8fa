"""The small parts that keep everything else bounded."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier.config import NodeConfig, RelayConfig, TrustedPath
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.expected import Expectation, Expected
from zttrio.zerotier.gate import Bucket, Buckets, Gate
from zttrio.zerotier.surface import Surface

HERE = Endpoint.parse("10.0.0.1/1")


def test_a_gate_lets_each_key_through_once_per_interval() -> None:
    gate: Gate[str] = Gate(2.0, 10)
    assert gate.allows("a", 0.0)
    assert not gate.allows("a", 1.9)
    assert gate.allows("b", 1.9)
    assert gate.allows("a", 2.0)
    assert not gate.allows("a", 3.9)


def test_a_full_gate_refuses_new_keys_and_keeps_the_old_ones_until_their_time() -> None:
    gate: Gate[int] = Gate(2.0, 3)
    for key in range(3):
        assert gate.allows(key, key * 0.5)
    assert not gate.allows(3, 1.5)
    assert len(gate) == 3
    assert gate.allows(3, 2.0)  # the first one's interval is over
    assert not gate.allows(0, 2.0)
    assert len(gate) == 3
    gate.expire(100.0)
    assert len(gate) == 0


@given(times=st.lists(st.floats(0, 100), max_size=200).map(sorted))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(times: list[float]) -> None:
    bucket = Bucket(rate=2.0, burst=5.0)
    given_out = [when for when in times if bucket.take(1, when)]
    for i, first in enumerate(given_out):
        for j in range(i, len(given_out)):
            assert j - i + 1 <= 5 + 2.0 * (given_out[j] - first) + 1e-6


def test_a_bucket_starts_full_and_fills_again() -> None:
    bucket = Bucket(rate=1.0, burst=2.0)
    assert [bucket.take(1, 0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1, 1.0) for _ in range(2)] == [True, False]
    assert not bucket.take(3, 1000.0)


def test_every_key_has_a_bucket_of_its_own_and_new_ones_wait_for_room() -> None:
    buckets: Buckets[int] = Buckets(rate=1.0, burst=2.0, limit=3)
    for key in range(3):
        assert [buckets.take(key, 0.0) for _ in range(3)] == [True, True, False]
    assert not buckets.take(3, 0.0)
    assert buckets.take(0, 1.0)
    buckets.expire(2.0)
    assert len(buckets) == 1
    assert buckets.take(3, 2.0)


def test_what_may_be_answered_is_bounded_in_number_and_time() -> None:
    expected = Expected()
    for number in range(10_000):
        sent = Expectation(b"alice", 8, number * 0.001, HERE)
        expected.note(number.to_bytes(8, "big"), sent)
    assert len(expected) == 8192
    assert expected.find((0).to_bytes(8, "big"), b"alice", 8, 10.0) is None
    newest = (9999).to_bytes(8, "big")
    assert expected.find(newest, b"alice", 8, 10.0) is not None
    assert expected.find(newest, b"bobby", 8, 10.0) is None
    assert expected.find(newest, b"alice", 1, 10.0) is None
    expected.expire(60.0 + 5.0)
    assert len(expected) == 4999
    expected.expire(1000.0)
    assert len(expected) == 0


def test_reports_of_our_address_are_bounded_and_forgotten_after_ten_minutes() -> None:
    surface = Surface()
    for number in range(600):
        remote = Endpoint(bytes((10, 1, number >> 8, number & 255)), 1)
        surface.report(bytes(5), 0, remote, HERE, float(number), is_root=False)
    assert len(surface) == 512
    assert surface.addresses(600.0) == [HERE]
    surface.expire(600.0 + 300.0)
    assert len(surface) == 299
    assert surface.addresses(1300.0) == []


def test_the_newest_report_comes_first() -> None:
    surface = Surface()
    other = Endpoint.parse("10.0.0.2/2")
    surface.report(b"aaaaa", 0, Endpoint.parse("10.1.0.1/1"), HERE, 0.0, is_root=False)
    surface.report(b"bbbbb", 0, Endpoint.parse("10.1.0.2/1"), other, 1.0, is_root=False)
    assert surface.addresses(2.0) == [other, HERE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": 3},
        {"protocol": 13},
        {"mtu": 1399},
        {"mtu": 10_325},
        {"peer_limit": 0},
        {"validation_interval": -1},
        {"online_timeout": 0},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=name):
        NodeConfig(**wrong)  # type: ignore[arg-type]


def test_a_relay_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="packets_per_second"):
        RelayConfig(packets_per_second=0)


@pytest.mark.parametrize("path_id", [0, -1, 1 << 64])
def test_a_trusted_path_needs_a_number(path_id: int) -> None:
    with pytest.raises(ValueError, match="path_id"):
        TrustedPath(ip_network("10.0.0.0/8"), path_id)
