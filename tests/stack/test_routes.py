"""The longest prefix wins, then the metric; each family has a table of its own."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.header.address import packed
from zttrio.stack.route import Route, Routes


def route(prefix: str, gateway: str | None = None, metric: int = 0) -> Route:
    network = ip_network(prefix)
    return Route(
        network.network_address.packed,
        network.prefixlen,
        None if gateway is None else packed(gateway),
        metric,
    )


def make(*routes: Route) -> Routes:
    table = Routes(lambda: None)
    for entry in routes:
        table.add(entry)
    return table


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    wide = route("0.0.0.0/0", "10.0.0.1")
    middle = route("10.0.0.0/8", "10.0.0.2", metric=0)
    narrow = route("10.1.0.0/16", metric=9)
    for table in (make(wide, middle, narrow), make(narrow, middle, wide)):
        assert table.lookup(packed("10.1.2.3")) == narrow
        assert table.lookup(packed("10.2.2.3")) == middle
        assert table.lookup(packed("192.0.2.1")) == wide
        assert list(table.candidates(packed("10.1.2.3"))) == [narrow, middle, wide]


def test_among_equal_prefixes_the_lower_metric_wins_then_the_older() -> None:
    slow = route("::/0", "fe80::1", metric=20)
    fast = route("::/0", "fe80::2", metric=10)
    late = route("::/0", "fe80::3", metric=10)
    table = make(slow, fast, late)
    assert list(table.candidates(packed("2001:db8::1"))) == [fast, late, slow]


def test_families_do_not_see_each_other() -> None:
    table = make(route("0.0.0.0/0", "10.0.0.1"))
    assert table.lookup(packed("2001:db8::1")) is None


def test_a_removed_route_is_gone_and_removing_it_again_is_an_error() -> None:
    entry = route("10.0.0.0/8")
    table = make(entry, route("10.0.0.0/8", "10.0.0.1", metric=5))
    table.remove(entry)
    found = table.lookup(packed("10.1.1.1"))
    assert found is not None
    assert found.metric == 5
    with pytest.raises(KeyError, match=r"10\.0\.0\.0/8: not in the table"):
        table.remove(entry)
    table.remove(found)
    assert len(table) == 0
    assert table.lookup(packed("10.1.1.1")) is None


def test_adding_twice_is_adding_once_and_changes_are_reported() -> None:
    changes: list[None] = []
    table = Routes(lambda: changes.append(None))
    table.add(route("10.0.0.0/8"))
    table.add(route("10.0.0.0/8"))
    assert len(table) == len(changes) == 1


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Route(packed("10.0.0.1"), 8), "behind the prefix"),
        (Route(packed("10.0.0.0"), 33), "0 to 32"),
        (Route(packed("10.0.0.0"), 8, packed("fe80::1")), "another family"),
    ],
)
def test_nonsense_is_refused(bad: Route, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make(bad)


@given(st.integers(0, 2**32), st.booleans())
def test_lookup_agrees_with_a_linear_search(seed: int, is_v6: bool) -> None:
    rng = random.Random(seed)
    bits = 128 if is_v6 else 32
    networks: list[IPv4Network | IPv6Network] = []
    for _ in range(rng.randrange(20)):
        length = rng.randrange(bits + 1)
        number = rng.choice((0, rng.getrandbits(bits))) >> bits - length << bits - length
        networks.append(ip_network((number.to_bytes(bits // 8), length)))
    table = make(*(Route(net.network_address.packed, net.prefixlen) for net in networks))
    base = rng.choice([int(net.network_address) for net in networks] or [0])
    address = ip_address((base ^ 1 << rng.randrange(bits)).to_bytes(bits // 8))
    best = max((net.prefixlen for net in networks if address in net), default=None)
    found = table.lookup(address.packed)
    assert (None if found is None else found.prefix_length) == best
