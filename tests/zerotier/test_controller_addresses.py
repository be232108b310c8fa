"""Which addresses a controller gives to whom (16.4)."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from zttrio.zerotier.controller import MemberRecord, NetworkRecord
from zttrio.zerotier.controller.assignment import Assignment, assign
from zttrio.zerotier.network.derived import rfc4193, sixplane

from .controller_bench import POOL, ControllerBench
from .data import vectors

NETWORK_ID = 0x831A3028F4CAFE01
ADDRESS = bytes.fromhex("521fa3056e")


def _assign(
    network: dict[str, Any],
    member: dict[str, Any] | None = None,
    *,
    address: bytes = ADDRESS,
    used: tuple[str, ...] = (),
) -> Assignment:
    taken = {ip_address(text).packed for text in used}
    return assign(
        NetworkRecord.new(NETWORK_ID, 0).changed(network),
        MemberRecord.new(NETWORK_ID, address, 0).changed(member or {}, 0),
        taken.__contains__,
        random.Random(1).randbytes,
    )


def _texts(assignment: Assignment) -> list[str]:
    return [str(interface) for interface in assignment.interfaces]


def _pool(start: str, end: str, *targets: str, version: int = 4) -> dict[str, Any]:
    return {
        "routes": [{"target": target} for target in targets],
        "ipAssignmentPools": [{"ipRangeStart": start, "ipRangeEnd": end}],
        f"v{version}AssignMode": {"zt": True},
    }


@pytest.mark.parametrize("vector", vectors("ipv4_assignment", "vl2"))
def test_the_first_free_ipv4_address_is_the_recorded_one(vector: dict[str, Any]) -> None:
    start, end = vector["pool"]
    target = str(ip_network(start + "/24", strict=False))
    found = _assign(_pool(start, end, target), address=bytes.fromhex(vector["address"]))
    assert _texts(found) == [vector["first_candidate"] + "/24"]
    assert found.given == (ip_address(vector["first_candidate"]),)


@pytest.mark.parametrize("vector", vectors("ipv6_pool_assignment", "vl2"))
def test_the_ipv6_address_of_a_pool_is_the_recorded_one(vector: dict[str, Any]) -> None:
    network = _pool(*vector["pool"], "fd12:3456::/64", version=6)
    found = _assign(network, address=bytes.fromhex(vector["address"]))
    assert _texts(found) == [vector["result"] + "/64"]


def test_addresses_that_cannot_be_given_are_skipped() -> None:
    # The pool's candidates from .153 on, with the network of this member.
    pool = _pool("10.99.0.1", "10.99.0.254", "10.99.0.0/24")
    assert _texts(_assign(pool, used=("10.99.0.153", "10.99.0.154"))) == ["10.99.0.155/24"]
    gateway = [{"target": "10.99.0.0/24"}, {"target": "0.0.0.0/0", "via": "10.99.0.153"}]
    assert _texts(_assign({**pool, "routes": gateway})) == ["10.99.0.154/24"]
    low = _pool("10.9.0.255", "10.9.1.1", "10.9.0.0/16")
    assert _texts(_assign(low)) == ["10.9.1.0/16"]
    narrow = _pool("10.9.1.0", "10.9.1.2", "10.9.0.0/16", "10.9.1.0/24")
    assert _texts(_assign(narrow)) == ["10.9.1.1/24"]  # .0 is the network's own name


def test_a_pool_of_one_address_gives_that_one_and_larger_ones_never_their_last() -> None:
    assert _texts(_assign(_pool("10.9.1.7", "10.9.1.7", "10.9.1.0/24"))) == ["10.9.1.7/24"]
    two = _pool("10.9.1.7", "10.9.1.8", "10.9.1.0/24")
    assert _texts(_assign(two)) == ["10.9.1.7/24"]
    assert _texts(_assign(two, used=("10.9.1.7",))) == []


def test_the_next_pool_is_tried_when_one_is_used_up() -> None:
    network = _pool("10.9.1.7", "10.9.1.7", "10.9.0.0/16")
    network["ipAssignmentPools"].append({"ipRangeStart": "10.9.2.9", "ipRangeEnd": "10.9.2.9"})
    assert _texts(_assign(network)) == ["10.9.1.7/16"]
    assert _texts(_assign(network, used=("10.9.1.7",))) == ["10.9.2.9/16"]


def test_pools_of_both_families_give_one_address_each() -> None:
    network = _pool("10.9.1.7", "10.9.1.7", "10.9.0.0/16", "fd12::/64")
    pool = {"ipRangeStart": "fd12::7", "ipRangeEnd": "fd12::7"}
    network["ipAssignmentPools"].append(pool)
    assert _texts(_assign(network)) == ["10.9.1.7/16"]
    network["v6AssignMode"] = "zt"
    assert _texts(_assign(network)) == ["fd12::7/64", "10.9.1.7/16"]
    wide = {"ipRangeStart": "fd12::f:0:0:0", "ipRangeEnd": "fd12::f:ff:0:0"}
    assert _texts(_assign({**network, "ipAssignmentPools": [wide]}))[0].startswith("fd12::f:")


def test_a_pool_outside_every_route_gives_nothing() -> None:
    assert _texts(_assign(_pool("10.9.1.1", "10.9.1.99", "10.8.0.0/16"))) == []


def test_an_address_has_the_prefix_length_of_the_longest_route_from_the_first_time_on() -> None:
    network = _pool("10.99.0.1", "10.99.0.254", "10.0.0.0/8", "10.99.0.0/24", "10.99.0.0/16")
    first = _assign(network)
    assert _texts(first) == ["10.99.0.153/24"]
    again = _assign(network, {"ipAssignments": [str(first.given[0])]})
    assert _texts(again) == ["10.99.0.153/24"]
    assert again.given == ()


def test_addresses_that_were_set_by_hand_count_inside_routes_only() -> None:
    network = _pool("10.99.0.1", "10.99.0.254", "10.99.0.0/24", "172.16.0.0/12")
    found = _assign(network, {"ipAssignments": ["172.16.0.1", "192.168.0.1", "fd00::1"]})
    assert _texts(found) == ["172.16.0.1/12"]
    assert found.given == ()  # it has a managed IPv4 address
    outside = _assign(network, {"ipAssignments": ["192.168.0.1"]})
    assert _texts(outside) == ["10.99.0.153/24"]
    everywhere = {**network, "routes": [{"target": "0.0.0.0/0", "via": "10.99.0.1"}]}
    found = _assign(everywhere, {"ipAssignments": ["192.168.0.1"]})
    assert _texts(found) == ["192.168.0.1/0"]


def test_derived_addresses_come_first_and_need_no_route() -> None:
    network = {**POOL, "v6AssignMode": "6plane,rfc4193"}
    found = _assign(network)
    assert found.interfaces[:2] == (rfc4193(NETWORK_ID, ADDRESS), sixplane(NETWORK_ID, ADDRESS))
    assert found.has_derived
    assert len(found.given) == 1
    assert not _assign(POOL).has_derived


def test_a_member_that_wants_none_gets_only_what_was_set_by_hand() -> None:
    network = {**POOL, "v6AssignMode": "6plane,rfc4193,zt"}
    member = {"noAutoAssignIps": True, "ipAssignments": ["10.99.0.7"]}
    found = _assign(network, member)
    assert _texts(found) == ["10.99.0.7/24"]
    assert not found.has_derived
    assert _texts(_assign(network, {"noAutoAssignIps": True})) == []


def test_ipv6_pools_need_a_route_without_gateway_and_fall_back_to_chance() -> None:
    network = _pool("fd12:3456::1", "fd12:3456::ffff:ffff:ffff:fffe", "fd12::/16", version=6)
    own = "fd12:3456::52:1fa3:56f"
    assert _texts(_assign(network)) == [own + "/16"]
    [chosen] = _assign(network, used=(own,)).interfaces
    assert str(chosen.ip) != own
    assert chosen.ip in ip_network("fd12:3456::/64")
    narrow = _pool("fd12::10", "fd12::13", "fd12::/64", version=6)
    taken = ("fd12::10", "fd12::11", "fd12::12")
    assert _texts(_assign(narrow, used=taken)) == ["fd12::13/64"]
    assert _texts(_assign(narrow, used=(*taken, "fd12::13"))) == []
    routed = {**network, "routes": [{"target": "fd12::/16", "via": "fd12::1"}]}
    assert _texts(_assign(routed)) == []


def test_a_full_pool_is_given_up_after_a_bounded_number_of_tries() -> None:
    tried = 0

    def is_used(packed: bytes) -> bool:
        nonlocal tried
        del packed
        tried += 1
        return True

    network = NetworkRecord.new(NETWORK_ID, 0).changed(
        _pool("10.0.0.1", "10.255.255.254", "10.0.0.0/8")
    )
    member = MemberRecord.new(NETWORK_ID, ADDRESS, 0)
    found = assign(network, member, is_used, random.Random(1).randbytes)
    assert found.interfaces == ()
    assert tried == 1000


def test_no_two_members_get_the_same_address() -> None:
    bench = ControllerBench()
    small = {
        **POOL,
        "ipAssignmentPools": [{"ipRangeStart": "10.99.0.10", "ipRangeEnd": "10.99.0.13"}],
        "private": False,
    }
    network_id = bench.network(**small)
    members = [bench.friend(f"10.0.0.{n}/9993") for n in range(5, 9)]
    configs = [bench.config(m, bench.ask(m, network_id)) for m in members]
    given = [config.addresses for config in configs if config is not None]
    assert sorted(str(a[0].ip) for a in given if a) == ["10.99.0.10", "10.99.0.11", "10.99.0.12"]
    # A deleted member's address is free again.
    holder = members[[bool(a) for a in given].index(True)]
    bench.controller.delete_member(network_id, holder.address, bench.now)
    bench.settle()
    last = members[[bool(a) for a in given].index(False)]
    bench.wait(2)
    config = bench.config(last, bench.ask(last, network_id))
    assert config is not None
    assert len(config.addresses) == 1
