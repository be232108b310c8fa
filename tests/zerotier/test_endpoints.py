from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier.endpoint import (
    Endpoint,
    emit_endpoint,
    is_usable,
    parse_endpoint,
    scope_of,
)

from .data import vectors

_IP = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
ENDPOINTS = st.builds(Endpoint, _IP, st.integers(0, 0xFFFF))


@pytest.mark.parametrize("vector", vectors("ip_scope"), ids=lambda v: v["ip"])
def test_scopes_are_those_of_the_real_software(vector: dict[str, Any]) -> None:
    packed = ip_address(vector["ip"]).packed
    assert scope_of(packed) == vector["scope_value"]
    assert is_usable(packed) is vector["usable_as_path"]


@pytest.mark.parametrize("vector", vectors("inet_address"), ids=lambda v: v["text"])
def test_inet_addresses_are_encoded_as_recorded(vector: dict[str, Any]) -> None:
    none = vector["text"] == "(none)"
    endpoint = None if none else Endpoint.parse(vector["text"])
    binary = bytes.fromhex(vector["binary"])
    assert emit_endpoint(endpoint) == binary
    assert parse_endpoint(b"xx" + binary + b"rest", 2) == (endpoint, 2 + len(binary))
    assert none or str(endpoint) == vector["text"]


@given(endpoint=ENDPOINTS)
def test_an_endpoint_survives_its_encoding(endpoint: Endpoint) -> None:
    binary = emit_endpoint(endpoint)
    assert parse_endpoint(binary, 0) == (endpoint, len(binary))
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(data=st.binary(max_size=40), offset=st.integers(0, 20))
def test_junk_is_an_inet_address_or_a_header_error(data: bytes, offset: int) -> None:
    try:
        _, end = parse_endpoint(data, offset)
    except HeaderError:
        return
    assert offset < end <= len(data)


@pytest.mark.parametrize(
    ("binary", "length"),
    [("01aabbccddeeff", 7), ("02aabbccddeeff", 7), ("030002aabb", 5), ("030000", 3)],
)
def test_other_kinds_of_links_are_skipped(binary: str, length: int) -> None:
    assert parse_endpoint(bytes.fromhex(binary) + b"rest", 0) == (None, length)


@pytest.mark.parametrize(
    "binary", ["", "05", "ff0000", "040a0000", "0600", "0300", "03000501", "01aabb"]
)
def test_a_cut_or_unknown_inet_address_is_refused(binary: str) -> None:
    with pytest.raises(HeaderError):
        parse_endpoint(bytes.fromhex(binary), 0)


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "10.0.0.1/", "10.0.0.1/65536", "10.0.0.1/-1", "x/1", "10.0.0.1/+1"]
)
def test_text_that_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Endpoint.parse(text)


def test_a_mapped_endpoint_is_an_ipv4_one() -> None:
    mapped = Endpoint(ip_address("::ffff:10.1.2.3").packed, 5)
    assert mapped.unmapped() == Endpoint.parse("10.1.2.3/5")
    plain = Endpoint.parse("2001:db8::1/5")
    assert plain.unmapped() is plain
