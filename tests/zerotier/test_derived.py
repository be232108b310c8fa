from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier.network.derived import (
    BROADCAST,
    Group,
    address_of,
    arp_group,
    controller_of,
    first_octet,
    link_local,
    mac_of,
    ndp_group,
    rfc4193,
    sixplane,
)

from .data import vectors

NETWORK_IDS = st.integers(0, 2**64 - 1)
ADDRESSES = st.binary(min_size=5, max_size=5)
GROUPS = st.builds(Group, st.binary(min_size=6, max_size=6), st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("vector", vectors("derivations", "vl2"), ids=lambda v: v["network_id"])
def test_everything_follows_from_address_and_network_as_recorded(vector: dict[str, Any]) -> None:
    network_id = int(vector["network_id"], 16)
    address = bytes.fromhex(vector["address"])
    mac = mac_of(address, network_id)
    assert mac.hex() == vector["mac"]
    assert address_of(mac, network_id) == address
    assert controller_of(network_id).hex() == vector["controller"]
    assert first_octet(network_id) == int(vector["first_octet"], 16)
    assert str(sixplane(network_id, address)) == vector["sixplane_text"]
    assert sixplane(network_id, address).packed.hex() == vector["sixplane"]
    assert str(rfc4193(network_id, address)) == vector["rfc4193_text"]
    assert rfc4193(network_id, address).packed.hex() == vector["rfc4193"]
    assert link_local(mac).packed.hex() == vector["link_local"]


@pytest.mark.parametrize(
    "vector", vectors("address_resolution_groups", "vl2"), ids=lambda v: v["ip"]
)
def test_addresses_are_resolved_in_the_recorded_groups(vector: dict[str, Any]) -> None:
    ip = ip_address(vector["ip"]).packed
    group = arp_group(ip) if len(ip) == 4 else ndp_group(ip)
    assert group == Group(bytes.fromhex(vector["mac"]), vector["adi"])


@given(address=ADDRESSES, network_id=NETWORK_IDS)
def test_a_mac_names_its_node_and_is_local_unicast(address: bytes, network_id: int) -> None:
    mac = mac_of(address, network_id)
    assert address_of(mac, network_id) == address
    assert mac[0] == first_octet(network_id) != 0x52
    assert mac[0] & 3 == 2


def test_groups_read_as_mac_and_distinguishing_information() -> None:
    assert str(BROADCAST) == "ff:ff:ff:ff:ff:ff/00000000"
    assert str(arp_group(bytes((10, 5, 0, 7)))) == "ff:ff:ff:ff:ff:ff/0a050007"
