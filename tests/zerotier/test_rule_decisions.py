"""What becomes of frames on networks with rules."""

from __future__ import annotations

from ipaddress import ip_interface
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from zttrio.zerotier.network import rules as r
from zttrio.zerotier.network.credential import Ownership, Tag, Thing
from zttrio.zerotier.network.derived import rfc4193, sixplane
from zttrio.zerotier.network.netconf import NDP_EMULATION, UNKNOWN_MATCHES, NetworkConfig
from zttrio.zerotier.network.rule_policy import Copy, Decision, Policy, RuleList
from zttrio.zerotier.network.rules import Rule, emit_rules, parse_rules

from . import naive_rules
from .data import load, names, vectors
from .naive_rules import ARP, IP4, IP6, Scene
from .rule_samples import (
    ME,
    NOBODY,
    OTHER,
    PEER,
    Peer,
    peer_of,
    random_rules,
    random_scene,
    rule_frame,
    surroundings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.network.rule_policy import Outcome

NETWORK = 0x072211D924ABCD01
WINDOW = 1_800_000
MAC_ME = bytes.fromhex("02fcd975d99c")
MAC_PEER = bytes.fromhex("023dfa89e47f")
ACCEPT = Rule.of(r.ACCEPT)
DROP = Rule.of(r.DROP)
BREAK = Rule.of(r.BREAK)
UDP = bytes.fromhex("4500001c00010000401100000a0500090a0500070001000200080000")
SYN = (
    bytes.fromhex("4500002800010000400600000a0500090a05000704000050") + bytes(9) + b"\2" + bytes(6)
)

RANDOM_CASES = load("vl2")["rule_decisions_random"]


def scene_of(case: dict[str, Any], me: bytes, network_id: int) -> Scene:
    """A recorded case; what is out of its window or not known does not count."""
    counts = abs(case.get("remote_credential_ts_offset", 0)) <= WINDOW
    counts = counts and case.get("peer_known", True)
    addresses = [ip_interface(text) for text in case.get("static_ips", ())]
    derived = [
        made.packed if made in addresses else None
        for made in (sixplane(network_id, me), rfc4193(network_id, me))
    ]

    def tags(side: str) -> dict[int, int]:
        return {int(tag): value for tag, value in case.get(f"{side}_tags", {}).items()}

    def things(side: str) -> set[bytes]:
        return {bytes.fromhex(thing) for _, thing in case.get(f"{side}_owned", ())}

    return Scene(
        inbound=case["inbound"],
        me=me,
        source=bytes.fromhex(case["zt_source"]),
        destination=bytes.fromhex(case["zt_dest"]),
        mac_source=bytes.fromhex(case["mac_source"]),
        mac_destination=bytes.fromhex(case["mac_dest"]),
        ethertype=int(case["ethertype"], 16),
        payload=bytes.fromhex(case["frame"]),
        own_tags=tags("local"),
        peer_tags=tags("remote") if counts else {},
        own_things=things("local"),
        peer_things=things("remote") if counts else set(),
        flags=case.get("flags", 0),
        sixplane=derived[0],
        rfc4193=derived[1],
    )


def outcome_of(rules: bytes, scene: Scene) -> Outcome:
    rule_list = RuleList(parse_rules(rules), surroundings(scene, Random(1)))
    return rule_list.evaluate(rule_frame(scene), is_inbound=scene.inbound)


def as_recorded(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"result": outcome.verdict.name}
    if outcome.redirect is not None:
        found["redirect_to"] = outcome.redirect.hex()
    if outcome.copy is not None:
        found["copy_to"] = outcome.copy.address.hex()
        found["copy_length"] = outcome.copy.length
        found["watch"] = outcome.copy.is_watch
    return found


@pytest.mark.parametrize(
    "case", vectors("rule_decisions", "vl2"), ids=names("rule_decisions", "vl2")
)
def test_the_reference_decides_the_same(case: dict[str, Any]) -> None:
    scene = scene_of(case, ME, NETWORK)
    outcome = outcome_of(bytes.fromhex(case["rules"]), scene)
    assert as_recorded(outcome) == case["expect"]


@pytest.mark.parametrize("number", range(len(RANDOM_CASES["cases"])))
def test_the_reference_decides_the_same_about_random_rules(number: int) -> None:
    case = RANDOM_CASES["cases"][number]
    network_id = int(RANDOM_CASES["network_id"], 16)
    scene = scene_of(case, bytes.fromhex(RANDOM_CASES["me"]), network_id)
    outcome = outcome_of(bytes.fromhex(case["rules"]), scene)
    assert as_recorded(outcome) == case["expect"]


def test_the_naive_evaluator_is_right_about_what_was_recorded() -> None:
    # or an agreement with it would mean nothing
    recorded = [(scene_of(case, ME, NETWORK), case) for case in vectors("rule_decisions", "vl2")]
    me, network_id = bytes.fromhex(RANDOM_CASES["me"]), int(RANDOM_CASES["network_id"], 16)
    recorded += [(scene_of(case, me, network_id), case) for case in RANDOM_CASES["cases"]]
    for scene, case in recorded:
        result, redirect, copy = naive_rules.evaluate(bytes.fromhex(case["rules"]), scene)
        found: dict[str, Any] = {"result": result}
        if redirect is not None:
            found["redirect_to"] = redirect.hex()
        if copy is not None:
            found |= {"copy_to": copy[0].hex(), "copy_length": copy[1], "watch": copy[2]}
        assert found == case["expect"], case


def compare(seed: int, count: int) -> dict[str, int]:
    """Decide both ways about random rules and frames; how often which verdict was found."""
    random = Random(seed)
    seen: dict[str, int] = {}
    for number in range(count):
        rules = random_rules(random)
        scene = random_scene(random)
        verdict, redirect, copy = naive_rules.evaluate(rules, scene)
        outcome = outcome_of(rules, scene)
        ours = None if outcome.copy is None else as_tuple(outcome.copy)
        found = (outcome.verdict.name, outcome.redirect, ours)
        assert found == (verdict, redirect, copy), (number, rules.hex(), scene)
        seen[verdict] = seen.get(verdict, 0) + 1
    return seen


def as_tuple(copy: Copy) -> tuple[bytes, int, bool]:
    return copy.address, copy.length, copy.is_watch


def test_ten_thousand_random_rule_sets_are_decided_as_the_specification_says() -> None:
    seen = compare(seed=1, count=10_000)
    # all outcomes are there, and none is the only interesting one
    assert len(seen) == 5
    assert min(seen.values()) > 50


@pytest.mark.slow
def test_two_hundred_thousand_random_rule_sets_are_decided_as_the_specification_says() -> None:
    compare(seed=2, count=200_000)


def test_random_policies_are_carried_out_as_the_specification_says() -> None:
    random = Random(3)
    seen = set()
    for number in range(3000):
        rules = random_rules(random, 4)
        scene = random_scene(random)
        scene.own_capabilities = [random_rules(random, 4) for _ in range(random.randrange(4))]
        scene.peer_capabilities = [random_rules(random, 4) for _ in range(random.randrange(4))]
        expected = naive_rules.decide(rules, scene)
        policy = Policy(
            parse_rules(rules),
            surroundings(scene, Random(1)),
            [parse_rules(capability) for capability in scene.own_capabilities],
        )
        decision = decide(policy, scene)
        copies = tuple(map(as_tuple, decision.copies))
        found = (decision.accepted, decision.redirect, copies)
        assert found == expected, (number, rules.hex(), scene)
        assert not policy.is_open or found == (1, None, ())
        seen.add((decision.accepted, decision.redirect is not None, len(copies)))
    assert {(0, False, 0), (1, False, 0), (1, False, 1), (1, True, 0), (2, False, 0)} <= seen


def decide(policy: Policy, scene: Scene) -> Decision:
    if scene.inbound:
        return policy.decide_inbound(
            scene.source,
            scene.mac_destination,
            scene.mac_source,
            scene.ethertype,
            memoryview(scene.payload),
            peer_of(scene),
        )
    return policy.decide_outbound(
        scene.destination,
        scene.mac_destination,
        scene.mac_source,
        scene.ethertype,
        memoryview(scene.payload),
        peer_of(scene),
    )


def config_of(rules: Sequence[Rule], **settings: Any) -> NetworkConfig:
    return NetworkConfig(
        network_id=NETWORK, address=ME, timestamp=0, rules=tuple(rules), **settings
    )


def inbound(policy: Policy, payload: bytes, peer: Peer | None = None, kind: int = IP4) -> Decision:
    return policy.decide_inbound(PEER, MAC_ME, MAC_PEER, kind, payload, peer)


def outbound(
    policy: Policy, payload: bytes, peer: Peer | None = None, to: bytes = PEER
) -> Decision:
    return policy.decide_outbound(to, MAC_PEER, MAC_ME, IP4, payload, peer)


def test_a_configuration_without_rules_lets_nothing_through() -> None:
    policy = Policy.of(config_of([]), Random(1))
    assert not policy.is_open
    assert inbound(policy, UDP).accepted == 0
    assert outbound(policy, UDP).accepted == 0


def test_a_policy_that_accepts_everything_says_so() -> None:
    assert Policy.of(config_of([ACCEPT, DROP]), Random(1)).is_open
    assert not Policy.of(config_of([DROP, ACCEPT]), Random(1)).is_open
    copy = Rule.of(r.TEE, OTHER, 0, 10)
    assert not Policy.of(config_of([copy, ACCEPT]), Random(1)).is_open


def test_own_tags_and_ownership_come_from_the_configuration() -> None:
    tag = Tag(NETWORK, 0, 7, 42, ME)
    ip = UDP[12:16]
    things = (Thing.ip(ip), Thing.mac(MAC_ME), Thing(9, bytes(range(16))))
    owned = Ownership(NETWORK, 0, 1, things, ME)
    config = config_of(
        [Rule.of(r.TAG_SENDER, 7, 42), Rule.of(r.CHARACTERISTICS, r.SENDER_OWNS_IP), ACCEPT],
        tags=(tag,),
        ownerships=(owned,),
    )
    assert outbound(Policy.of(config, Random(1)), UDP).accepted == 1
    spoofed = UDP[:12] + b"\x0a\x05\x00\x08" + UDP[16:]
    assert outbound(Policy.of(config, Random(1)), spoofed).accepted == 0
    without_tag = config_of(config.rules, ownerships=(owned,))
    assert outbound(Policy.of(without_tag, Random(1)), UDP).accepted == 0


def test_a_thing_of_unknown_kind_is_no_ipv6_address() -> None:
    strange = bytes.fromhex("fd120000000000000000000000000009")
    owned = Ownership(NETWORK, 0, 1, (Thing(9, strange),), ME)
    rules = [Rule.of(r.CHARACTERISTICS, r.SENDER_OWNS_IP), ACCEPT]
    policy = Policy.of(config_of(rules, ownerships=(owned,)), Random(1))
    packet = b"\x60" + bytes(5) + b"\x11\x40" + strange + bytes(16)
    assert policy.decide_outbound(PEER, MAC_PEER, MAC_ME, IP6, packet).accepted == 0


def test_unknown_matches_hold_if_the_network_says_so() -> None:
    rules = [Rule(60, b""), ACCEPT]
    assert inbound(Policy.of(config_of(rules), Random(1)), UDP).accepted == 0
    lenient = config_of(rules, flags=UNKNOWN_MATCHES)
    assert inbound(Policy.of(lenient, Random(1)), UDP).accepted == 1


@pytest.mark.parametrize("make", [sixplane, rfc4193])
def test_a_member_cannot_use_the_derived_address_of_another(make: Any) -> None:
    # The reference lets it, see the weakness in 9.4.
    rules = [Rule.of(r.CHARACTERISTICS, r.SENDER_OWNS_IP), ACCEPT]
    config = config_of(rules, flags=NDP_EMULATION, addresses=(make(NETWORK, ME),))

    def packet(source: bytes) -> bytes:
        derived: bytes = make(NETWORK, source).packed
        return b"\x60" + bytes(5) + b"\x11\x40" + derived + bytes(16)

    strict = Policy.of(config, Random(1))
    assert inbound(strict, packet(PEER), kind=IP6).accepted == 1
    assert inbound(strict, packet(OTHER), kind=IP6).accepted == 0
    reference = Policy.of(config, Random(1), is_strict=False)
    assert inbound(reference, packet(OTHER), kind=IP6).accepted == 1
    elsewhere = config_of(rules, flags=NDP_EMULATION)
    assert inbound(Policy.of(elsewhere, Random(1)), packet(PEER), kind=IP6).accepted == 0
    switched_off = config_of(rules, addresses=(make(NETWORK, ME),))
    assert inbound(Policy.of(switched_off, Random(1)), packet(PEER), kind=IP6).accepted == 0


def test_a_match_by_chance_holds_as_often_as_it_should() -> None:
    half = Policy.of(config_of([Rule.of(r.RANDOM, 2**31), ACCEPT]), Random(1))
    assert 400 < sum(inbound(half, UDP).accepted for _ in range(1000)) < 600


def test_own_capabilities_are_asked_in_the_order_of_their_ids() -> None:
    class Owned:
        def __init__(self, number: int, observer: bytes) -> None:
            self.id = number
            self.rules = (Rule.of(r.TEE, observer, 0, 5), ACCEPT)

    config: Any = config_of([BREAK], capabilities=(Owned(9, OTHER), Owned(3, NOBODY[:4] + b"\1")))
    decision = outbound(Policy.of(config, Random(1)), UDP)
    assert decision == Decision(1, None, (Copy(NOBODY[:4] + b"\1", 5, False),))


def test_a_capability_carries_out_its_copy_before_the_one_of_the_base_rules() -> None:
    observer = bytes.fromhex("0102030405")
    base = [Rule.of(r.WATCH, OTHER, 0, 0)]
    capability = (Rule.of(r.TEE, observer, 0, 20), ACCEPT)
    scene = Scene(False, ME, ME, PEER, MAC_ME, MAC_PEER, IP4, UDP)
    policy = Policy(base, surroundings(scene, Random(1)), [(BREAK,), (DROP,), capability])
    copies = (Copy(observer, 20, False), Copy(OTHER, len(UDP), True))
    assert outbound(policy, UDP) == Decision(1, None, copies)


def test_a_drop_in_the_base_rules_cannot_be_overridden_and_a_break_can() -> None:
    peer = Peer({}, set(), [b"\x01\x00"])
    scene = Scene(True, ME, PEER, ME, MAC_PEER, MAC_ME, IP4, UDP)
    around = surroundings(scene, Random(1))
    assert inbound(Policy([DROP], around), UDP, peer).accepted == 0
    assert inbound(Policy([BREAK], around), UDP, peer).accepted == 1
    assert inbound(Policy([BREAK], around), UDP, None).accepted == 0


def test_what_was_made_of_peers_capabilities_does_not_pile_up() -> None:
    scene = Scene(True, ME, PEER, ME, MAC_PEER, MAC_ME, IP4, UDP)
    policy = Policy([BREAK], surroundings(scene, Random(1)))
    for number in range(3000):
        length = number.to_bytes(2)
        rules = b"\x2a\x04" + length + length + b"\x01\x00"  # accept frames of this very length
        accepted = inbound(policy, UDP, Peer({}, set(), [rules])).accepted
        assert accepted == (number == len(UDP))
    assert len(policy._peer_lists) <= 1024


def test_a_copy_to_the_sender_itself_makes_nothing_super() -> None:
    copy = Rule.of(r.TEE, ME, 0, 0)
    for own_tag, verdict in ((42, "ACCEPT"), (41, "NO_MATCH")):
        rules = emit_rules([copy, Rule.of(r.TAG_RECEIVER, 7, 42), ACCEPT])
        scene = Scene(True, ME, ME, ME, MAC_PEER, MAC_ME, IP4, UDP, {7: own_tag})
        assert outcome_of(rules, scene).verdict.name == verdict
        assert naive_rules.evaluate(rules, scene)[0] == verdict


EXTENDED = b"\x60" + bytes(5) + b"\x00\x40" + bytes(32) + b"\x06" + bytes(7) + SYN[20:]
ICMPV6 = b"\x60" + bytes(5) + b"\x3a\x40" + bytes(62)


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(IP4, SYN), (IP6, EXTENDED), (IP6, ICMPV6), (ARP, bytes(30)), (0x88CC, bytes(30))],
)
def test_frames_of_any_length_are_decided_about(kind: int, whole: bytes) -> None:
    matches = [
        Rule(number, bytes(layout.size), is_not=is_not)
        for number, layout in r.LAYOUTS.items()
        for is_not in (False, True)
        if number > 15 and number != r.RANDOM
    ]
    matches += [Rule.of(r.CHARACTERISTICS, 1 << bit) for bit in (1, 60)]
    for match in matches:
        rules = emit_rules([match, ACCEPT])
        for length in range(len(whole) + 1):
            scene = Scene(
                True, ME, PEER, ME, MAC_PEER, MAC_ME, kind, whole[:length], {0: 0}, {0: 0}
            )
            assert outcome_of(rules, scene).verdict.name == naive_rules.evaluate(rules, scene)[0]


def test_flags_that_are_cut_off_count_as_zero() -> None:
    rules = [Rule.of(r.CHARACTERISTICS, 0xFFF), DROP, ACCEPT]
    policy = Policy.of(config_of(rules), Random(1))
    assert inbound(policy, SYN).accepted == 0
    assert inbound(policy, SYN[:34]).accepted == 0  # a tiny fragment does not get its SYN past
    assert inbound(policy, SYN[:33]).accepted == 1


def test_an_endless_chain_of_ipv6_headers_ends_with_the_packet() -> None:
    rules = [Rule.of(r.IP_PROTOCOL, 0, is_not=True), DROP, ACCEPT]
    policy = Policy.of(config_of(rules), Random(1))
    packet = b"\x60" + bytes(5) + b"\x00\x40" + bytes(32) + bytes(2000)  # hop by hop for ever
    assert inbound(policy, packet, kind=IP6).accepted == 1  # the walk failed: not applicable


class Sealed(bytes):
    """A payload that nobody may look into."""

    def __getitem__(self, _: Any) -> Any:
        raise AssertionError("looked into the payload")


def test_the_usual_rules_are_decided_about_without_looking_into_the_packet() -> None:
    usual = [Rule.of(r.ETHERTYPE, kind, is_not=True) for kind in (IP4, ARP, IP6)]
    not_ours = Rule.of(r.ETHERTYPE, 0x88CC)
    policy = Policy.of(config_of([*usual, DROP, not_ours, DROP, ACCEPT]), Random(1))
    for kind in (IP4, ARP, IP6):
        assert inbound(policy, Sealed(UDP * 2), kind=kind).accepted == 1
    assert inbound(policy, Sealed(UDP), kind=0x88CC).accepted == 0
