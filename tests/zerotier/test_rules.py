"""Rule lists as octets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.errors import HeaderError
from zttrio.zerotier.network import rules as r
from zttrio.zerotier.network.rules import (
    LAYOUTS,
    Rule,
    emit_rules,
    is_action,
    parse_counted_rules,
    parse_rules,
)

from .data import vectors

RULES = st.integers(0, 63).flatmap(
    lambda kind: st.builds(
        Rule,
        st.just(kind),
        st.binary(min_size=LAYOUTS[kind].size if kind in LAYOUTS else 0, max_size=255),
        st.booleans(),
        st.booleans(),
    )
)


@pytest.mark.parametrize("vector", vectors("rule_encoding", "vl2"), ids=lambda v: v["hex"])
def test_rules_are_encoded_as_the_reference_encodes_them(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    (rule,) = parse_rules(octets)
    assert emit_rules([rule]) == octets
    assert rule.is_not is vector["json"].get("not", False)
    assert rule.is_or is vector["json"].get("or", False)
    assert is_action(rule) is vector["json"]["type"].startswith("ACTION_")
    again = Rule.of(rule.type, *rule.fields(), is_not=rule.is_not, is_or=rule.is_or)
    assert again == rule


@settings(deadline=None, max_examples=30)
@given(st.lists(RULES, max_size=8))
def test_whatever_was_parsed_is_written_as_it_was(rules: list[Rule]) -> None:
    octets = emit_rules(rules)
    assert parse_rules(octets) == tuple(rules)
    assert parse_counted_rules(b"head" + octets + b"tail", 4, len(rules)) == (
        tuple(rules),
        4 + len(octets),
    )
    for rule in rules:
        rule.fields()  # never fails after parsing


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 10))
def test_any_octets_are_rules_or_refused(data: bytes, count: int) -> None:
    try:
        rules = parse_rules(memoryview(data))
    except HeaderError:
        pass
    else:
        assert emit_rules(rules) == data
    try:
        rules, end = parse_counted_rules(data, 3, count)
    except HeaderError:
        pass
    else:
        assert len(rules) == count
        assert emit_rules(rules) == data[3:end]


def test_rules_over_the_limit_are_not_even_looked_at() -> None:
    many = b"\x01\x00" * 1024
    assert len(parse_rules(many + b"\xff\xff")) == r.NETWORK_LIMIT
    assert len(parse_rules(many, limit=3)) == 3


def test_a_known_rule_that_is_too_short_is_refused_and_a_longer_one_is_not() -> None:
    with pytest.raises(HeaderError, match="type 37"):
        parse_rules(b"\x25\x01\x08")
    (rule,) = parse_rules(b"\x25\x03\x08\x00\xff")
    assert rule.fields() == (0x0800,)


def test_an_unknown_rule_is_kept_with_its_octets() -> None:
    octets = b"\xff\x03abc\x0b\x00"
    match, action = parse_rules(octets)
    assert match == Rule(63, b"abc", is_not=True, is_or=True)
    assert match.fields() == ()
    assert not is_action(match)
    assert is_action(action)


@pytest.mark.parametrize(
    "octets", [b"\x01", b"\x01\x01", b"\x25\x02\x08", b"\x01\x00\x25"], ids=bytes.hex
)
def test_a_list_that_ends_within_a_rule_is_refused(octets: bytes) -> None:
    with pytest.raises(HeaderError):
        parse_rules(octets)


def test_a_target_is_a_number_of_which_forty_bits_count() -> None:
    (rule,) = parse_rules(b"\x02\x0e" + b"\xaa\xbb\xcc" + b"\x01\x02\x03\x04\x05" + bytes(6))
    assert rule.fields() == (b"\x01\x02\x03\x04\x05", 0, 0)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(10, ()), (60, ()), (r.ETHERTYPE, ()), (r.ETHERTYPE, (65536,)), (r.DROP, (1,))],
)
def test_a_rule_is_not_made_of_the_wrong_fields(kind: int, fields: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"type {kind}"):
        Rule.of(kind, *fields)


@pytest.mark.parametrize("rule", [Rule(64), Rule(-1), Rule(60, bytes(256))])
def test_a_rule_that_does_not_fit_its_octets_is_not_written(rule: Rule) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        emit_rules([rule])


def test_the_fields_of_a_rule_that_is_too_short_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="only 1 octets"):
        Rule(r.ETHERTYPE, b"\x08").fields()
