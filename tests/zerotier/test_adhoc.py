from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier.network.adhoc import adhoc_config, is_adhoc
from zttrio.zerotier.network.netconf import NetworkConfig
from zttrio.zerotier.network.rules import DESTINATION_PORT, emit_rules

from .data import vectors
from .test_derived import ADDRESSES

_NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    "vector",
    [vector for vector in vectors("adhoc", "vl2") if "ports" not in vector],
    ids=lambda vector: vector["network_id"],
)
def test_a_network_without_controller_is_computed_as_recorded(vector: dict[str, Any]) -> None:
    network_id = int(vector["network_id"], 16)
    address = bytes.fromhex(vector.get("address", "521fa3056e"))
    config = adhoc_config(network_id, address, _NOW)
    assert is_adhoc(network_id)
    if "invalid" in vector:
        assert config is None
        return
    assert config is not None
    assert (config.network_id, config.address) == (network_id, address)
    assert (config.timestamp, config.window, config.revision) == (_NOW, 7_200_000, 1)
    assert config.name == vector["name"]
    assert config.is_public is (vector["type"] == 1)
    assert config.flags == vector["flags"]
    assert config.multicast_limit == vector["multicast_limit"]
    assert config.mtu == vector["mtu"]
    assert [str(interface) for interface in config.addresses] == vector["static_ips"]
    assert emit_rules(config.rules).hex() == vector["rules"]
    assert len(config.rules) == vector["rule_count"]
    assert config.membership is None
    hubs = [specialist.address.hex() for specialist in config.specialists]
    assert hubs == ([vector["hub"]] if "hub" in vector else [])
    assert not config.active_bridges | config.anchors | config.replicators


@pytest.mark.parametrize(
    "vector",
    [vector for vector in vectors("adhoc", "vl2") if "ports" in vector],
    ids=lambda vector: vector["network_id"],
)
def test_the_network_id_names_the_first_and_the_last_port(vector: dict[str, Any]) -> None:
    config = adhoc_config(int(vector["network_id"], 16), b"12345", _NOW)
    assert config is not None
    ranges = [rule.fields() for rule in config.rules if rule.type == DESTINATION_PORT]
    assert ranges == [tuple(vector["ports"])]


def test_a_hub_of_zero_is_none() -> None:
    config = adhoc_config(0xFF0A000000000001, b"12345", _NOW)
    assert config is not None
    assert config.specialists == ()


@pytest.mark.parametrize("network_id", [0xFF00500050000002, 0xFF0A831A3028F400 | 2, 2**64 - 1])
def test_other_networks_that_start_with_ff_have_no_configuration(network_id: int) -> None:
    assert is_adhoc(network_id)
    assert adhoc_config(network_id, b"12345", _NOW) is None


def test_networks_with_a_controller_are_not_computed() -> None:
    assert not is_adhoc(0xFE00500050000000)
    assert adhoc_config(0xFE00500050000000, b"12345", _NOW) is None


@given(low=st.integers(0, 2**56 - 1), address=ADDRESSES.filter(any))
def test_a_computed_configuration_survives_its_encoding(low: int, address: bytes) -> None:
    for tail in (0x000000, 0x01):
        network_id = 0xFF << 56 | low & ~(0xFFFFFF if tail == 0 else 0xFF) | tail
        config = adhoc_config(network_id, address, _NOW)
        if config is not None:
            assert NetworkConfig.parse(config.emit()) == config
