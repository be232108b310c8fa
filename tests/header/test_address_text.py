from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.header import address

from .header_samples import IPV4, IPV6, MACS, quick


@quick
@given(MACS)
def test_a_mac_survives_its_text(mac: bytes) -> None:
    text = address.mac_text(mac)
    assert len(text) == 17
    assert address.parse_mac(text) == mac
    assert address.parse_mac(text.upper().replace(":", "-")) == mac
    assert address.parse_mac(text.replace(":", "")) == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:5e:10:00",
        "02:00:5e:10:00:01:02",
        "02:00:5e:10:00:01:",
        "02:00:5e-10:00:01",
        "0200:5e100001",
        "+2:00:5e:10:00:01",
        "2:0:5e:10:0:1",
        "02:00:5e:10:00:0g",
        "02:00:5e:10:00:0\u0661",
        "02:00:5e:10:00:01\n",
    ],
)
def test_text_that_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs six pairs of hex digits"):
        address.parse_mac(text)


@quick
@given(st.one_of(IPV4, IPV6))
def test_an_address_survives_its_text(packed: bytes) -> None:
    assert address.packed(address.ip_text(packed)) == packed
    assert address.packed(ip_address(packed)) == packed


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        ("0a090001", "10.9.0.1"),
        ("00" * 16, "::"),
        ("fd000009000000000000000000000001", "fd00:9::1"),
        ("00000000000000000000ffffc0000201", "::ffff:192.0.2.1"),
        ("20010db8000000000001000000000001", "2001:db8::1:0:0:1"),
    ],
)
def test_addresses_read_as_rfc_5952_writes_them(packed: str, text: str) -> None:
    assert address.ip_text(bytes.fromhex(packed)) == text


@pytest.mark.parametrize("length", [0, 3, 5, 6, 15, 17])
def test_octets_of_no_family_have_no_text(length: int) -> None:
    with pytest.raises(ValueError, match="needs 4 or 16 octets"):
        address.ip_text(bytes(length))


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "localhost", "::1::", "fd00::/8"])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        address.packed(text)


def test_a_scope_is_not_part_of_the_packed_address() -> None:
    assert address.packed("fe80::1%2") == address.packed("fe80::1")


@quick
@given(st.one_of(IPV4, IPV6))
def test_ranges_agree_with_the_standard_library(packed: bytes) -> None:
    known = ip_address(packed)
    assert address.is_multicast(packed) == known.is_multicast
    assert address.is_unspecified(packed) == known.is_unspecified
    assert address.is_loopback(packed) == known.is_loopback
    assert address.is_link_local(packed) == known.is_link_local


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "127.0.0.1", "127.255.255.255", "128.0.0.0", "169.254.0.1", "169.255.0.1"),
        *("223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"),
        *("::", "::1", "::2", "fe80::1", "febf::1", "fec0::1", "fdff::1", "feff::1", "ff02::1"),
    ],
)
def test_the_borders_of_ranges_are_where_they_belong(text: str) -> None:
    known, packed = ip_address(text), address.packed(text)
    assert address.is_multicast(packed) == known.is_multicast
    assert address.is_unspecified(packed) == known.is_unspecified
    assert address.is_loopback(packed) == known.is_loopback
    assert address.is_link_local(packed) == known.is_link_local


def test_unspecified_follows_the_family() -> None:
    assert address.unspecified(b"\x0a\0\0\1") == IPv4Address(0).packed
    assert address.unspecified(bytes(15) + b"\1") == IPv6Address(0).packed


@pytest.mark.parametrize(
    ("group", "mac"),
    [
        ("224.0.0.22", "01:00:5e:00:00:16"),
        ("239.129.2.3", "01:00:5e:01:02:03"),
        ("ff02::16", "33:33:00:00:00:16"),
        ("ff02::1:ff00:10a", "33:33:ff:00:01:0a"),
    ],
)
def test_groups_have_the_macs_of_rfc_1112_and_rfc_2464(group: str, mac: str) -> None:
    found = address.multicast_mac(address.packed(group))
    assert address.mac_text(found) == mac
    assert address.is_multicast_mac(found)


def test_the_solicited_node_group_ends_like_the_address() -> None:
    found = address.solicited_node(address.packed("fd00:9::12:3456"))
    assert address.ip_text(found) == "ff02::1:ff12:3456"


def test_broadcast_is_a_group_and_a_station_is_none() -> None:
    assert address.is_multicast_mac(address.BROADCAST_MAC)
    assert not address.is_multicast_mac(bytes.fromhex("02000000000a"))
