"""Rules as controllers and their tools write them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier.network import rules as r
from zttrio.zerotier.network.rule_json import TYPE_NAMES, rules_from_json, rules_to_json
from zttrio.zerotier.network.rules import LAYOUTS, Rule, emit_rules, is_action, parse_rules

from .data import load, vectors
from .rule_samples import random_rule

_VALUES = (
    st.sampled_from(
        [None, True, -1, 0, 8, 255, 65536, 1 << 32, 0.5, 8.0, float("nan"), [], [8], {}, {"id": 8}]
    )
    | st.integers()
    | st.text(alphabet="0123456789abcdefx:./-é", max_size=20)
)
# Types of which JSON leaves out octets without a meaning.
_NORMALIZED = frozenset(
    (
        *(r.REDIRECT, r.IPV4_SOURCE, r.IPV4_DESTINATION, r.IPV6_SOURCE, r.IPV6_DESTINATION),
        *(r.ICMP, r.INTEGER_RANGE),
    )
)


@pytest.mark.parametrize("vector", vectors("rule_encoding", "vl2"), ids=lambda v: v["hex"])
def test_json_and_octets_are_the_same_rules(vector: dict[str, Any]) -> None:
    octets = bytes.fromhex(vector["hex"])
    assert emit_rules(rules_from_json([vector["json"]])) == octets
    assert rules_to_json(parse_rules(octets)) == [vector["json"]]


def test_rules_of_a_recorded_network_are_read_and_written_back() -> None:
    for network in load("network_config")["networks"]:
        rules = network["controller_network"]["rules"]
        assert rules_to_json(rules_from_json(rules)) == rules


def test_every_rule_survives_the_way_through_json() -> None:
    random = Random(1)
    seen = set()
    for _ in range(2000):
        rule = random_rule(random)
        if rule.type not in LAYOUTS:
            continue
        seen.add(rule.type)
        written = json.loads(json.dumps(rules_to_json([rule])))
        (again,) = rules_from_json(written)
        assert rules_to_json([again]) == written
        assert again.type == rule.type
        if not is_action(rule):
            assert (again.is_not, again.is_or) == (rule.is_not, rule.is_or)
        if rule.type not in _NORMALIZED:
            assert again.fields() == rule.fields()
    assert seen == set(LAYOUTS) == set(TYPE_NAMES)


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.data())
def test_whatever_json_is_given_it_is_rules_or_a_value_error(
    seed: int, data: st.DataObject
) -> None:
    rule = random_rule(Random(seed))
    item: dict[str, Any] = {"type": "MATCH_NOTHING"}
    if rule.type in LAYOUTS:
        (item,) = rules_to_json([rule])
    for key in data.draw(st.lists(st.sampled_from([*item, "surplus"]), max_size=3)):
        item[key] = data.draw(_VALUES)
    try:
        rules = rules_from_json([item])
    except ValueError as exc:
        assert str(exc).startswith("rule 0: ")  # noqa: PT017
    else:
        emit_rules(rules)


@settings(deadline=None)
@given(st.lists(_VALUES, max_size=3))
def test_whatever_stands_in_the_list_it_is_rules_or_a_value_error(items: list[Any]) -> None:
    try:
        assert len(rules_from_json(items)) == len(items)
    except ValueError:
        assert items


ETHERTYPE = {"type": "MATCH_ETHERTYPE", "etherType": 2048}


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("ACTION_DROP", "needs an object"),
        ({}, "type: missing"),
        ({"type": "ACTION_SIDEWAYS"}, "unknown"),
        ({"type": 1}, "unknown"),
        ({"type": ["ACTION_DROP"]}, "unknown"),
        ({"type": "MATCH_ETHERTYPE"}, "etherType: missing"),
        (ETHERTYPE | {"ethertype": 1}, "does not know"),
        (ETHERTYPE | {"etherType": 65536}, "0 to 65535"),
        (ETHERTYPE | {"etherType": True}, "needs a number"),
        (ETHERTYPE | {"etherType": "0x0800"}, "needs a number"),
        (ETHERTYPE | {"etherType": 1.5}, "needs a number"),
        (ETHERTYPE | {"etherType": float("inf")}, "needs a number"),
        (ETHERTYPE | {"not": "no"}, "not: needs true or false"),
        ({"type": "ACTION_DROP", "not": True}, "neither negated"),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "10.0.0.1"}, "prefix length"),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "10.0.0.1/x"}, "prefix length"),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "fd00::/8"}, "rule 1"),
        ({"type": "MATCH_IPV6_DEST", "ip": 5}, "needs text"),
        ({"type": "MATCH_MAC_DEST", "mac": "02:00"}, "MAC"),
        ({"type": "ACTION_TEE", "address": "abc", "length": 1}, "ten hex digits"),
        ({"type": "ACTION_TEE", "address": "0123456789", "length": -2}, "length"),
        ({"type": "MATCH_CHARACTERISTICS", "mask": "sesame"}, "hex digits"),
        ({"type": "MATCH_ICMP", "icmpType": 8, "icmpCode": 256}, "icmpCode"),
        (
            {"type": "INTEGER_RANGE", "start": "0", "end": "100000000", "idx": 0, "bits": 8},
            "more than 32 bits",
        ),
        ({"type": "INTEGER_RANGE", "start": "0", "end": "1", "idx": 0, "bits": 0}, "1 to 64"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused_with_its_position(item: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        rules_from_json([ETHERTYPE, item])
    assert str(caught.value).startswith("rule 1: ")


def one(item: dict[str, Any]) -> Rule:
    (rule,) = rules_from_json([item])
    return rule


def test_what_may_be_left_out_has_the_documented_value() -> None:
    assert one({"type": "MATCH_IP_DEST_PORT_RANGE", "start": 80}).fields() == (80, 80)
    assert one({"type": "MATCH_ICMP", "icmpType": 8}).fields() == (8, 0, 0)
    assert one({"type": "ACTION_WATCH", "address": "0123456789"}).fields()[1:] == (0, 0)
    assert one({"type": "ACTION_PRIORITY", "qosBucket": 3}) == Rule(r.PRIORITY)


def test_numbers_may_be_texts_and_masks_may_be_numbers() -> None:
    assert one({"type": "MATCH_ETHERTYPE", "etherType": "2048"}).fields() == (2048,)
    assert one({"type": "MATCH_ETHERTYPE", "etherType": 2048.0}).fields() == (2048,)
    assert one({"type": "MATCH_CHARACTERISTICS", "mask": 16}).fields() == (16,)
    assert one({"type": "MATCH_CHARACTERISTICS", "mask": "0x10"}).fields() == (16,)


def test_prefix_lengths_are_clamped() -> None:
    assert one({"type": "MATCH_IPV4_DEST", "ip": "10.0.0.0/99"}).fields()[1] == 32
    assert one({"type": "MATCH_IPV6_DEST", "ip": "fd00::/999"}).fields()[1] == 128


@pytest.mark.parametrize("rule", [Rule(60), Rule(9), Rule(r.ETHERTYPE, b"\x08")])
def test_a_rule_without_a_name_or_value_is_not_written(rule: Rule) -> None:
    with pytest.raises(ValueError, match=f"type {rule.type}"):
        rules_to_json([rule])


def test_a_rule_in_json_keeps_what_the_octets_mean() -> None:
    rule = Rule.of(r.INTEGER_RANGE, 5, 5 + 2**33 + 7, 12, 0x8F)  # only 32 bits of it count
    (written,) = rules_to_json([rule])
    assert written["end"] == f"{5 + 7:016x}"
    assert (written["little"], written["bits"], written["idx"]) == (True, 16, 12)
