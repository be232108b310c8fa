"""What of a network's configuration reaches the stack, by the owner's choices."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from zttrio.abc import ManagedRoute, Settings
from zttrio.wire.zerotier.settings import Choices, make_settings
from zttrio.zerotier.network.netconf import DnsConfig, NetworkConfig
from zttrio.zerotier.network.netconf import ManagedRoute as ConfiguredRoute

ADDRESS = bytes.fromhex("89e92ceee5")


def _config(*addresses: str, routes: tuple[str, ...] = (), dns: str = "") -> NetworkConfig:
    found = []
    for route in routes:
        target, _, via = route.partition(" via ")
        found.append(ConfiguredRoute(ip_network(target), ip_address(via) if via else None))
    return NetworkConfig(
        0x8056C2E21C000001,
        ADDRESS,
        mtu=1400,
        addresses=tuple(map(ip_interface, addresses)),
        routes=tuple(found),
        dns=DnsConfig(dns, (ip_address("10.0.0.53"),)),
    )


def _routes(settings: Settings) -> list[str]:
    return list(map(str, settings.routes))


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3/24",
        "172.16.9.9/12",
        "192.168.0.7/16",
        "100.64.0.1/10",
        "198.18.0.1/15",
        "203.0.113.5/24",
        "11.0.0.1/8",
        "240.0.0.1/4",
        "fd80::1/88",
        "fc12::1/40",
    ],
)
def test_private_addresses_are_taken_by_default(address: str) -> None:
    assert make_settings(_config(address), Choices()).addresses == (ip_interface(address),)


@pytest.mark.parametrize("address", ["8.8.8.8/24", "2a00::1/64"])
def test_public_addresses_need_to_be_allowed(address: str) -> None:
    config = _config(address)
    assert make_settings(config, Choices()).addresses == ()
    assert make_settings(config, Choices(public=True)).addresses == (ip_interface(address),)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0/0", "224.0.0.9/4", "127.0.0.1/8", "169.254.1.1/16", "::1/128", "fe80::1/64"],
)
def test_some_addresses_are_never_taken(address: str) -> None:
    everything = Choices(public=True, default=True, dns=True)
    assert make_settings(_config(address), everything).addresses == ()


def test_without_managed_only_the_mtu_is_taken() -> None:
    config = _config("10.1.2.3/24", routes=("10.9.0.0/16",), dns="example")
    assert make_settings(config, Choices(managed=False, dns=True)) == Settings(mtu=1400)


def test_routes_are_filtered_by_scope_default_and_family() -> None:
    config = _config(
        "10.1.2.3/24",
        routes=(
            "0.0.0.0/0 via 10.1.2.1",
            "8.8.8.0/24 via 10.1.2.1",
            "10.9.0.0/16 via 10.1.2.1",
            "10.8.0.0/16",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "fd00::/8",
        ),
    )
    private = ["10.9.0.0/16 via 10.1.2.1", "10.8.0.0/16"]
    assert _routes(make_settings(config, Choices())) == private
    public = make_settings(config, Choices(public=True))
    assert _routes(public) == ["8.8.8.0/24 via 10.1.2.1", *private]
    default = make_settings(config, Choices(default=True))
    assert _routes(default) == ["0.0.0.0/0 via 10.1.2.1", *private]


def test_routes_to_ourselves_or_implied_by_an_address_are_left_out() -> None:
    config = _config(
        "10.1.2.3/24", routes=("10.1.2.0/24", "10.7.0.0/16 via 10.1.2.3", "10.1.0.0/16")
    )
    assert make_settings(config, Choices()).routes == (ManagedRoute(ip_network("10.1.0.0/16")),)


def test_a_route_is_left_out_if_the_only_address_of_its_family_was() -> None:
    config = _config("8.8.8.8/24", "fd00::1/64", routes=("10.9.0.0/16", "fd01::/64 via fd00::9"))
    assert _routes(make_settings(config, Choices())) == ["fd01::/64 via fd00::9"]


def test_name_servers_need_to_be_allowed_and_to_have_a_domain() -> None:
    assert make_settings(_config(dns="home.arpa"), Choices()).dns_servers == ()
    allowed = make_settings(_config(dns="home.arpa"), Choices(dns=True))
    assert (allowed.dns_domain, allowed.dns_servers) == ("home.arpa", (ip_address("10.0.0.53"),))
    assert make_settings(_config(dns=""), Choices(dns=True)).dns_servers == ()


def test_choices_come_from_the_names_of_the_real_software() -> None:
    assert Choices.from_file({}) == Choices()
    stored = {"allowManaged": False, "allowGlobal": True, "allowDefault": True, "allowDNS": True}
    assert Choices.from_file(stored) == Choices(managed=False, public=True, default=True, dns=True)
    assert Choices.from_file({"allowDNS": True, "portDeviceName": False}) == Choices(dns=True)
