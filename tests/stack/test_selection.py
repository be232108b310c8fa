"""Source and destination addresses: the examples of RFC 6724 section 10, and rules one by one."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from zttrio.header.address import ip_text, packed
from zttrio.stack.addresses import Addresses
from zttrio.stack.route import Route, Routes
from zttrio.stack.selection import DEAD_LIMIT, Selection
from zttrio.stack.stack import Stack


def make(*sources: str) -> tuple[Selection, Routes]:
    """A host with these addresses (``-`` in front: deprecated) and routes to everywhere."""
    addresses = Addresses(lambda: None)
    for text in sources:
        address, _, length = text.lstrip("-").partition("/")
        entry = addresses.add(packed(address), int(length or (64 if ":" in address else 24)))
        entry.is_deprecated = text.startswith("-")
    routes = Routes(lambda: None)
    for everything in ("0.0.0.0/0", "::/0"):
        network = ip_network(everything)
        routes.add(Route(network.network_address.packed, 0))
    return Selection(addresses), routes


def source(destination: str, *sources: str) -> str | None:
    selection, _ = make(*sources)
    found = selection.source(packed(destination), packed(destination))
    return None if found is None else ip_text(found)


def order(destinations: list[str], *sources: str) -> list[str]:
    selection, routes = make(*sources)
    return [
        str(ip_address(found))
        for found in selection.order([packed(text) for text in destinations], routes)
    ]


@pytest.mark.parametrize(
    ("destination", "candidates", "chosen"),
    [
        # RFC 6724 10.1, table 2
        ("2001:db8:1::1", ["2001:db8:3::1", "fe80::1"], "2001:db8:3::1"),
        ("ff05::1", ["2001:db8:3::1", "fe80::1"], "2001:db8:3::1"),
        ("2001:db8:1::1", ["-2001:db8:1::1", "2001:db8:2::1"], "2001:db8:1::1"),
        ("fe80::1", ["-fe80::2", "2001:db8:1::1"], "fe80::2"),
        ("2001:db8:1::1", ["2001:db8:1::2", "2001:db8:3::2"], "2001:db8:1::2"),
        ("2001:db8:1::1", ["2001:db8:3::2", "2001:db8:1::2"], "2001:db8:1::2"),
        ("2002:c633:6401::1", ["2002:c633:6401::d5e3", "2001:db8:1::2"], "2002:c633:6401::d5e3"),
        ("2002:c633:6401::1", ["2001:db8:1::2", "2002:c633:6401::d5e3"], "2002:c633:6401::d5e3"),
        # rule 2: the smallest scope that is large enough
        ("ff02::1", ["2001:db8:3::1", "fe80::1"], "fe80::1"),
        ("fe80::9", ["2001:db8:3::1", "fe80::1"], "fe80::1"),
        # rule 3
        ("2001:db8:9::1", ["-2001:db8:9::2", "2001:db8:3::1"], "2001:db8:3::1"),
        ("2001:db8:9::1", ["-2001:db8:9::2", "fe80::1"], "2001:db8:9::2"),
        # rule 6: unique local to unique local
        ("fd00:1::1", ["2001:db8:3::1", "fd00:2::1"], "fd00:2::1"),
        ("2001:db8:9::1", ["fd00:2::1", "2001:db9:3::1"], "2001:db9:3::1"),
        # rule 8 counts no further than the prefix of the source
        ("2001:db8:1:2:8000::1", ["2001:db8:1:2::1", "2001:db8:1:2:8000::2"], "2001:db8:1:2::1"),
        ("2001:db8:1::1", [], None),
        ("2001:db8:1::1", ["10.0.0.1"], None),
        ("10.0.0.9", ["192.0.2.1", "10.0.0.1"], "10.0.0.1"),
        ("203.0.113.1", ["192.0.2.1", "10.0.0.1"], "192.0.2.1"),
    ],
)
def test_the_source_is_chosen_by_the_rules(
    destination: str, candidates: list[str], chosen: str | None
) -> None:
    assert source(destination, *candidates) == chosen


@pytest.mark.parametrize(
    ("destinations", "candidates"),
    [
        # RFC 6724 10.2, in the order that comes out
        (["2001:db8:1::1", "198.51.100.121"], ["2001:db8:1::2", "fe80::1", "169.254.13.78"]),
        (["198.51.100.121", "2001:db8:1::1"], ["fe80::1", "198.51.100.117"]),
        (["2001:db8:1::1", "10.1.2.3"], ["2001:db8:1::2", "fe80::1", "10.1.2.4"]),
        (["fe80::1", "2001:db8:1::1"], ["2001:db8:1::2", "fe80::2"]),
        (["2002:c633:6401::1", "2001:db8:1::1"], ["2002:c633:6401::2", "fe80::2"]),
        (
            ["2001:db8:1::1", "2002:c633:6401::1"],
            ["2002:c633:6401::2", "2001:db8:1::2", "fe80::2"],
        ),
        # rule 1: what cannot be reached comes last
        (["10.0.0.2", "2001:db8:1::1"], ["10.0.0.1"]),
        (["2001:db8:1::1", "10.0.0.2"], ["2001:db8:1::2"]),
        # rule 3: from a deprecated address only if nothing else will do
        (["2001:db8:2::1", "2001:db8:1::1"], ["2001:db8:2::2", "-2001:db8:1::2/128"]),
        # rule 6: unique local addresses come after IPv4
        (["10.0.0.2", "fd00::2"], ["10.0.0.1", "fd00::1"]),
        # rule 9
        (["2001:db8:3ffe::1", "2001:db8:1::1"], ["2001:db8:3f00::2", "fe80::2"]),
        (["::1", "10.0.0.2"], ["10.0.0.1"]),
    ],
)
def test_destinations_are_ordered_by_the_rules(
    destinations: list[str], candidates: list[str]
) -> None:
    for given in (destinations, destinations[::-1]):
        assert order(given, *candidates) == destinations


def test_equally_good_destinations_keep_their_order() -> None:
    given = ["10.0.0.9", "10.0.0.2", "192.0.2.1", "10.0.0.5"]
    assert order(given, "10.0.0.1") == given
    assert order([], "10.0.0.1") == []


def test_a_destination_without_route_counts_as_out_of_reach() -> None:
    selection, routes = make("10.0.0.1", "2001:db8:1::2")
    routes.remove(next(route for route in routes if len(route.prefix) == 16))
    given = [packed("2001:db8:1::1"), packed("10.0.0.2")]
    assert selection.order(given, routes) == given[::-1]


def test_a_site_local_source_serves_a_site_local_destination() -> None:
    assert source("fec0::9", "2001:db8:1::2", "fec0::1") == "fec0::1"
    assert source("2001:db8:9::9", "fec0::1", "2001:db8:1::2") == "2001:db8:1::2"


def test_a_dead_gateway_does_not_give_way_to_a_wider_route() -> None:
    selection, routes = make("2001:db8:1::2")
    gateways = [packed("fe80::1"), packed("fe80::2")]
    routes.add(Route(packed("2001:db8::"), 32, gateways[0]))
    routes.add(Route(packed("2001::"), 16, gateways[1]))
    assert selection.neighbor_failed(gateways[0], routes)
    assert selection.next_hop(packed("2001:db8::9"), routes) == gateways[0]


def test_dead_gateways_are_bounded() -> None:
    selection, routes = make("2001:db8:1::2")
    gateways = [packed(f"fe80::{number + 1:x}") for number in range(100)]
    for number, gateway in enumerate(gateways):
        routes.add(Route(packed("2001:db8::"), 32, gateway, number))
    for gateway in gateways:
        selection.neighbor_failed(gateway, routes)
    assert selection.sizes["dead gateways"] == DEAD_LIMIT
    assert not selection.neighbor_failed(packed("fe80::abcd"), routes)


def test_equally_near_destinations_keep_their_order() -> None:
    given = ["2001:db8:1::9", "2001:db8:1::2", "2001:db8:1::5"]
    assert order(given, "2001:db8:1::1") == given


def test_the_stack_orders_destinations_by_what_it_has() -> None:
    stack = Stack(mac=bytes.fromhex("02000a000001"), mtu=1500, rng=random.Random(1))
    stack.add_address(ip_interface("10.0.0.1/24"), 0.0)
    given = [packed("2001:db8::1"), packed("10.0.0.2")]
    assert stack.order_destinations(given) == given[::-1]
