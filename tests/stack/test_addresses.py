"""What is ours, what is a broadcast, and what no host can have."""

from __future__ import annotations

import errno
from ipaddress import ip_interface

import pytest

from zttrio.header.address import IPV4_BROADCAST, packed
from zttrio.stack.addresses import Addresses


def make(*texts: str) -> Addresses:
    table = Addresses(lambda: None)
    for text in texts:
        interface = ip_interface(text)
        table.add(interface.ip.packed, interface.network.prefixlen)
    return table


def test_addresses_come_out_in_the_order_they_went_in() -> None:
    table = make("10.0.0.1/24", "fd00::1/64", "10.0.1.1/31")
    assert [str(interface) for interface in table] == ["10.0.0.1/24", "fd00::1/64", "10.0.1.1/31"]
    assert len(table) == 3


def test_a_prefix_longer_than_30_bits_has_no_directed_broadcast() -> None:
    table = make("10.0.0.1/24", "10.0.1.1/31", "10.0.2.1/32")
    assert table.broadcasts == {IPV4_BROADCAST, packed("10.0.0.255")}
    table.remove(packed("10.0.0.1"))
    assert table.broadcasts == {IPV4_BROADCAST}


def test_addresses_are_told_apart_by_family() -> None:
    table = make("10.0.0.1/24", "fd00::1/64")
    assert [entry.packed for entry in table.of_family(16)] == [packed("fd00::1")]
    assert table.ours == {packed("fd00::1"), packed("10.0.0.1")}
    assert not table.is_ours(packed("10.0.0.2"))


def test_on_link_means_the_same_prefix_of_the_same_family() -> None:
    entry = make("10.0.0.1/9").entries[packed("10.0.0.1")]
    assert entry.is_on_link(packed("10.127.0.1"))
    assert not entry.is_on_link(packed("10.128.0.1"))
    assert not entry.is_on_link(packed("fd00::1"))
    assert entry.prefix == packed("10.0.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/8",
        "224.0.0.1/24",
        "255.255.255.255/32",
        "127.0.0.1/8",
        "10.0.0.255/24",
        "ff02::1/64",
    ],
)
def test_an_address_no_host_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no host can have it"):
        make(text)


def test_an_address_is_ours_once() -> None:
    table = make("10.0.0.1/24")
    with pytest.raises(OSError, match=r"10\.0\.0\.1/16: already ours") as caught:
        table.add(packed("10.0.0.1"), 16)
    assert caught.value.errno == errno.EEXIST
    table.remove(packed("10.0.0.1"))
    with pytest.raises(OSError, match="not ours") as caught:
        table.remove(packed("10.0.0.1"))
    assert caught.value.errno == errno.EADDRNOTAVAIL
