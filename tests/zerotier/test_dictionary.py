from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zttrio.zerotier.network.dictionary import Dictionary

from .data import load

_KEYS = st.text(
    st.characters(max_codepoint=0xFF, exclude_characters="\0\r\n="), min_size=0, max_size=8
)
_U64 = st.integers(0, 2**64 - 1)


def _names(vector: dict[str, Any]) -> str:
    return str(vector["name"])


@pytest.mark.parametrize("vector", load("vl2")["dictionary"]["encode"], ids=_names)
def test_dictionaries_are_written_as_recorded(vector: dict[str, Any]) -> None:
    lines = []
    first = Dictionary()
    for key, value in vector["pairs"]:  # one by one, because a key may come twice
        line = Dictionary()
        if "uint" in value:
            line.set_int(key, value["uint"])
        else:
            line.set_bytes(key, bytes.fromhex(value["bytes"]))
        lines.append(line.emit())
        first = Dictionary(line | first)
    assert b"\n".join(lines).hex() == vector["encoded"]
    assert Dictionary.parse(bytes.fromhex(vector["encoded"])) == first


@pytest.mark.parametrize("vector", load("vl2")["dictionary"]["decode"], ids=_names)
def test_dictionaries_are_read_as_recorded(vector: dict[str, Any]) -> None:
    dictionary = Dictionary.parse(bytes.fromhex(vector["blob"]))
    for key, expected in vector["get"].items():
        value = dictionary.get(key)
        assert (None if value is None else value.hex()) == expected["bytes"]
        assert dictionary.get_int(key) == int(expected["uint"], 16)


@given(content=st.dictionaries(_KEYS, st.binary(max_size=40), max_size=6))
def test_a_dictionary_survives_its_encoding_in_order(content: dict[str, bytes]) -> None:
    dictionary = Dictionary(content)
    encoded = dictionary.emit()
    assert list(Dictionary.parse(encoded).items()) == list(content.items())
    assert not encoded.endswith(b"\n")
    assert b"\0" not in encoded


@given(value=st.binary(max_size=60))
def test_any_value_is_read_as_a_naive_reader_does(value: bytes) -> None:
    line = value.partition(b"\0")[0].replace(b"\r", b"\n").partition(b"\n")[0]
    meant = bytearray()
    escaped = False
    for octet in line:
        if escaped:
            meant.append({0x30: 0, 0x6E: 10, 0x72: 13, 0x65: 0x3D}.get(octet, octet))
            escaped = False
        elif octet == 0x5C:
            escaped = True
        else:
            meant.append(octet)
    assert Dictionary.parse(b"k=" + value)["k"] == meant


@given(data=st.binary(max_size=200))
def test_anything_is_a_dictionary(data: bytes) -> None:
    dictionary = Dictionary.parse(data)
    assert sum(len(value) for value in dictionary.values()) <= len(data)
    for key in dictionary:
        assert 0 <= dictionary.get_int(key) < 2**64
        assert -(2**63) <= dictionary.get_signed(key) < 2**63
        assert len(dictionary.get_address(key)) == 5
        dictionary.get_bool(key)
        dictionary.get_text(key)
    assert Dictionary.parse(dictionary.emit()) == dictionary


@given(number=_U64)
def test_integers_are_sixteen_digits(number: int) -> None:
    dictionary = Dictionary()
    dictionary.set_int("n", number)
    assert len(dictionary["n"]) == 16
    assert dictionary.get_int("n") == number
    signed = dictionary.get_signed("n")
    dictionary.set_int("n", signed)
    assert dictionary.get_int("n") == number


def test_what_is_missing_or_empty_has_a_default() -> None:
    dictionary = Dictionary.parse(b"empty=")
    for key in ("empty", "missing"):
        assert dictionary.get_int(key, 7) == 7
        assert dictionary.get_signed(key, -7) == -7
        assert dictionary.get_address(key) == bytes(5)
    assert dictionary.get_text("missing", "none") == "none"
    assert dictionary.get_bytes("missing", b"none") == b"none"
    assert dictionary.get_bool("missing", default=True)
    assert not dictionary.get_bool("empty", default=True)


def test_a_value_that_is_empty_hides_a_later_one() -> None:
    assert Dictionary.parse(b"a=\na=1").get_int("a") == 0


@pytest.mark.parametrize(
    ("text", "meant"), [(b"1", True), (b"true", True), (b"T", True), (b"0", False), (b"yes", False)]
)
def test_booleans_are_told_by_their_first_letter(text: bytes, meant: bool) -> None:
    assert Dictionary(k=text).get_bool("k") is meant


def test_setters_write_what_getters_read() -> None:
    dictionary = Dictionary()
    dictionary.set_bool("on", True)
    dictionary.set_bool("off", False)
    dictionary.set_address("id", bytes.fromhex("00521fa305"))
    dictionary.set_text("n", "Käse")
    assert dictionary.emit() == "on=1\noff=0\nid=00521fa305\nn=Käse".encode()
    assert dictionary.get_bool("on")
    assert not dictionary.get_bool("off")
    assert dictionary.get_address("id").hex() == "00521fa305"
    assert dictionary.get_text("n") == "Käse"


def test_text_ends_at_a_nul_and_need_not_be_utf_8() -> None:
    assert Dictionary.parse(b"n=a\xff\\0b").get_text("n") == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("key", ["a=b", "a\nb", "a\rb", "a\0b", "\N{EURO SIGN}"])
def test_a_key_that_cannot_be_read_again_is_not_written(key: str) -> None:
    with pytest.raises(ValueError):
        Dictionary({key: b""}).emit()


@pytest.mark.parametrize("line", [b"\\0", b"\\\\", b"a=\n", b"\n", b"\\", b"=", b"k=f"], ids=repr)
def test_the_largest_dictionary_takes_no_longer_for_being_strange(line: bytes) -> None:
    data = b"k=" + line * (484_519 // len(line))
    started = perf_counter()
    Dictionary.parse(data).get_int("k")
    assert perf_counter() - started < 3.0  # under 0.2 s on a calm machine; quadratic takes minutes
