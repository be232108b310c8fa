"""ZeroTier's rules language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.zerotier.network import rules as r
from zttrio.zerotier.network.rule_language import RuleSyntaxError, compile_text
from zttrio.zerotier.network.rule_words import (
    ACTIONS,
    CHARACTERISTICS,
    ETHERTYPES,
    MATCHES,
    PROTOCOLS,
    RESERVED,
    TAG_MATCHES,
)
from zttrio.zerotier.network.rules import LAYOUTS, Rule

NODE = bytes.fromhex("deadbeef11")

OFFICE = """
# Only IP, and only with addresses that the controller gave.
drop
  not ethertype ipv4
  and not ethertype arp
  and not ethertype ipv6   # nothing else
  or not chr ipauth
;

macro reach($port)
  accept ipprotocol tcp and dport $port;
;

tag floor
  id 1000
  enum 1 ground
  enum 2 First     # names are the same in capitals
  flag 4 lift
  default ground
;

include reach(22)
include reach(80-81);

accept
  dport 139 or dport 445
  and tdiff floor 0
  and tor floor lift
;

break chr tcp_syn and not chr tcp_ack;

cap superuser
  id 2000 default
  accept;
;

tee -1 deadbeef11 chr inbound;
accept;
"""


def test_a_whole_network_is_described() -> None:
    compiled = compile_text(OFFICE)
    ports = [
        rule
        for low, high in ((22, 22), (80, 81))
        for rule in (
            Rule.of(r.IP_PROTOCOL, 6),
            Rule.of(r.DESTINATION_PORT, low, high),
            Rule.of(r.ACCEPT),
        )
    ]
    assert compiled.rules == (
        Rule.of(r.ETHERTYPE, 0x0800, is_not=True),
        Rule.of(r.ETHERTYPE, 0x0806, is_not=True),
        Rule.of(r.ETHERTYPE, 0x86DD, is_not=True),
        Rule.of(r.CHARACTERISTICS, 1 << 60, is_not=True, is_or=True),
        Rule.of(r.DROP),
        *ports,
        Rule.of(r.DESTINATION_PORT, 139, 139),
        Rule.of(r.DESTINATION_PORT, 445, 445, is_or=True),
        Rule.of(r.TAGS_DIFFERENCE, 1000, 0),
        Rule.of(r.TAGS_OR, 1000, 16),
        Rule.of(r.ACCEPT),
        Rule.of(r.CHARACTERISTICS, 2),
        Rule.of(r.CHARACTERISTICS, 16, is_not=True),
        Rule.of(r.BREAK),
        Rule.of(r.CHARACTERISTICS, 1 << 63),
        Rule.of(r.TEE, NODE, 0, 65535),
        Rule.of(r.ACCEPT),
    )
    (capability,) = compiled.capabilities
    assert (capability.name, capability.id, capability.is_default) == ("superuser", 2000, True)
    assert capability.rules == (Rule.of(r.ACCEPT),)
    (tag,) = compiled.tags
    assert (tag.name, tag.id, tag.default) == ("floor", 1000, 1)
    assert tag.values == {"ground": 1, "first": 2}
    assert tag.flags == {"lift": 16}


def test_it_becomes_the_fields_of_a_controllers_network() -> None:
    text = (
        "accept; cap b id 9 drop; ; cap a id 3 default accept; ; tag t id 5; tag s id 4 default 0;"
    )
    assert compile_text(text).as_json() == {
        "rules": [{"type": "ACTION_ACCEPT"}],
        "capabilities": [
            {"id": 3, "default": True, "rules": [{"type": "ACTION_ACCEPT"}]},
            {"id": 9, "default": False, "rules": [{"type": "ACTION_DROP"}]},
        ],
        "tags": [{"id": 4, "default": 0}, {"id": 5, "default": None}],
    }


def test_the_manuals_example_compiles() -> None:
    manual = Path(__file__).parents[2] / "docs" / "reference" / "rules.md"
    (example,) = re.findall(r"```text\n(.*?)```", manual.read_text(), re.DOTALL)
    compiled = compile_text(example)
    assert [tag.name for tag in compiled.tags] == ["role"]
    assert compiled.rules[-1] == Rule.of(r.ACCEPT)
    assert len(compiled.rules) == 5 + 2 * 4 + 3 + 1


def test_every_word_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "reference" / "rules.md").read_text()
    words = set(re.findall(r"[a-z_0-9]+", manual))
    known = {*RESERVED, *ETHERTYPES, *PROTOCOLS, *CHARACTERISTICS} - {"priority"}
    assert known <= words


def test_a_text_without_rules_is_a_network_that_lets_nothing_through() -> None:
    assert compile_text("  # nothing\n").rules == ()


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("ztsrc DEADBEEF11", r.SOURCE_ADDRESS, (NODE,)),
        ("ztdest deadbeef11", r.DESTINATION_ADDRESS, (NODE,)),
        ("vlan 3", r.VLAN_ID, (3,)),
        ("vlanpcp 7", r.VLAN_PCP, (7,)),
        ("vlandei 1", r.VLAN_DEI, (1,)),
        ("macsrc 02:11:22:33:44:55", r.MAC_SOURCE, (bytes.fromhex("021122334455"),)),
        ("macdest ff-ff-ff-ff-ff-ff", r.MAC_DESTINATION, (b"\xff" * 6,)),
        ("ipsrc 10.0.0.0/8", r.IPV4_SOURCE, (bytes.fromhex("0a000000"), 8)),
        ("ipdest 10.0.0.1/8", r.IPV4_DESTINATION, (bytes.fromhex("0a000001"), 8)),
        ("ipsrc fd00::/8", r.IPV6_SOURCE, (b"\xfd" + bytes(15), 8)),
        ("ipdest ::1/128", r.IPV6_DESTINATION, (bytes(15) + b"\1", 128)),
        ("iptos 0xfc 32-48", r.IP_TOS, (252, 32, 48)),
        ("iptos 255 5", r.IP_TOS, (255, 5, 5)),
        ("ipprotocol icmp6", r.IP_PROTOCOL, (58,)),
        ("ipprotocol 255", r.IP_PROTOCOL, (255,)),
        ("ethertype 0x88cc", r.ETHERTYPE, (0x88CC,)),
        ("ethertype wol", r.ETHERTYPE, (2114,)),
        ("icmp 8 0", r.ICMP, (8, 0, 1)),
        ("icmp 8 -1", r.ICMP, (8, 0, 0)),
        ("sport 1024-65535", r.SOURCE_PORT, (1024, 65535)),
        ("dport 80", r.DESTINATION_PORT, (80, 80)),
        ("chr tcp_syn", r.CHARACTERISTICS, (2,)),
        ("chr tcp_syn, tcp_fin", r.CHARACTERISTICS, (3,)),
        ("chr 61,62", r.CHARACTERISTICS, (3 << 61,)),
        ("chr macauth", r.CHARACTERISTICS, (1 << 59,)),
        ("framesize 60-1500", r.FRAME_SIZE, (60, 1500)),
        ("random 0.5", r.RANDOM, (2147483647,)),
        ("random 1", r.RANDOM, (4294967295,)),
        ("random .25", r.RANDOM, (1073741823,)),
        ("random 0", r.RANDOM, (0,)),
        ("tdiff 7 1", r.TAGS_DIFFERENCE, (7, 1)),
        ("tand kind both", r.TAGS_AND, (7, 3)),
        ("tor kind 0x10", r.TAGS_OR, (7, 16)),
        ("txor kind high", r.TAGS_XOR, (7, 1 << 31)),
        ("teq KIND Both", r.TAGS_EQUAL, (7, 3)),
        ("tseq kind low", r.TAG_SENDER, (7, 1)),
        ("treq 7 4294967295", r.TAG_RECEIVER, (7, 4294967295)),
    ],
)
def test_a_match_says_what_its_words_say(text: str, kind: int, fields: tuple[Any, ...]) -> None:
    tag = "tag kind id 7 enum 3 both flag 31 high flag 0 low;"  # behind its use
    for prefix, is_not in (("", False), ("and ", False), ("not ", True), ("and not ", True)):
        compiled = compile_text(f"drop {prefix}{text}; {tag}")
        assert compiled.rules == (Rule.of(kind, *fields, is_not=is_not), Rule.of(r.DROP))
        compiled = compile_text(f"drop ethertype 1 or {prefix.removeprefix('and ')}{text};{tag}")
        assert compiled.rules[1] == Rule.of(kind, *fields, is_not=is_not, is_or=True)


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("drop", r.DROP, ()),
        ("ACCEPT", r.ACCEPT, ()),
        ("break", r.BREAK, ()),
        ("tee 64 deadbeef11", r.TEE, (NODE, 0, 64)),
        ("watch -1 deadbeef11", r.WATCH, (NODE, 0, 65535)),
        ("redirect deadbeef11", r.REDIRECT, (NODE, 0, 0)),
    ],
)
def test_an_action_says_what_its_words_say(text: str, kind: int, fields: tuple[Any, ...]) -> None:
    assert compile_text(f"{text};").rules == (Rule.of(kind, *fields),)
    rules = compile_text(f"{text} dport 80;").rules
    assert rules == (Rule.of(r.DESTINATION_PORT, 80, 80), Rule.of(kind, *fields))


def test_every_type_that_means_something_on_a_network_has_a_word() -> None:
    types = {action.type for action in ACTIONS.values()}
    types |= {match.type for match in MATCHES.values()} | set(TAG_MATCHES.values())
    assert types | {r.IPV6_SOURCE, r.IPV6_DESTINATION} == set(LAYOUTS) - {
        r.PRIORITY,
        r.INTEGER_RANGE,
    }


def port(number: int) -> tuple[Rule, Rule]:
    return Rule.of(r.DESTINATION_PORT, number, number), Rule.of(r.ACCEPT)


def test_macros_may_be_used_before_they_are_defined_and_within_each_other() -> None:
    text = """
        include both(22, 80) cap c id 1 include one(443) ;
        macro both($a, $b) include one($a) include one($b) ;
        macro one($p) accept dport $p; ;
    """
    compiled = compile_text(text)
    assert compiled.rules == (*port(22), *port(80))
    assert compiled.capabilities[0].rules == port(443)


def test_arguments_may_be_parts_of_words_and_names() -> None:
    text = """
        macro m($ip, $low, $tag, $value)
          accept ipdest $ip/32 and dport $low-90 and tseq $tag $value;
        ;
        tag t id 1 enum 5 five;
        include m(127.0.0.1, 80, t, five)
        macro nothing() ;
        include nothing()
        include nothing
    """
    assert compile_text(text).rules == (
        Rule.of(r.IPV4_DESTINATION, bytes.fromhex("7f000001"), 32),
        Rule.of(r.DESTINATION_PORT, 80, 90),
        Rule.of(r.TAG_SENDER, 1, 5),
        Rule.of(r.ACCEPT),
    )


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("accept", "line 1, column 7", "semicolon is missing"),
        ("accept;\n  ;", "line 2, column 3", "nothing to end"),
        ("allow;", "line 1, column 1", "unknown as an action"),
        ("accept dport 80\ndrop;", "line 2, column 1", "semicolon is missing before it"),
        ("accept or dport 80;", "column 8", "always hold"),
        ("accept dport 80 or;", "column 17", "match is missing"),
        ("accept dport 80 and not;", "column 21", "match is missing"),
        ("accept not not dport 80;", "column 12", "not: unknown as a match"),
        ("accept dport 80 and or sport 80;", "column 21", "or: unknown as a match"),
        ("accept dport 80,443;", "column 16", "unknown as a match"),
        ("accept dport;", "column 8", "arguments are missing"),
        ("accept icmp 8;", "column 8", "arguments are missing"),
        ("accept chr tcp_syn,;", "column 8", "arguments are missing"),
        ("accept chr tcp_sin;", "column 8", "not a number or a name"),
        ("accept chr 64;", "column 8", "more than 63"),
        ("accept dport 90-80;", "column 8", "ends before it starts"),
        ("accept dport 80-90-100;", "column 8", "90-100 is not a number"),
        ("accept dport 65536;", "column 8", "more than 65535"),
        ("accept ethertype 1e3;", "column 8", "not a number"),
        ("accept ipprotocol 256;", "column 8", "more than 255"),
        ("accept ipsrc 10.0.0.1;", "column 8", "no prefix length"),
        ("accept ipsrc 10.0.0.300/8;", "column 8", "not an IP address"),
        ("accept ipsrc 10.0.0.0/33;", "column 8", "more than 32"),
        ("accept ipdest fd00::1/64;", "column 8", "would never match"),
        ("accept ipdest fd00:::/64;", "column 8", "not an IP address"),
        ("accept macsrc 02:11;", "column 8", "not a MAC"),
        ("accept ztsrc 123;", "column 8", "ten hex digits"),
        ("accept random 1.5;", "column 8", "more than 1"),
        ("accept random -1;", "column 8", "from 0 to 1"),
        ("accept random .;", "column 8", "from 0 to 1"),
        ("accept tseq nobody 1;", "column 8", "no tag nobody"),
        ("tag t id 1; accept tseq t nothing;", "column 20", "not a number or a name"),
        ("accept dport $port;", "column 14", "not a parameter"),
        ("tee 70000 deadbeef11;", "column 1", "more than 65535"),
        ("tee 10;", "column 1", "needs 2 arguments"),
        ("redirect deadbeef;", "column 1", "ten hex digits"),
        ("tag 5 id 1;", "column 5", "no name for a tag"),
        ("tag accept id 1;", "column 5", "the language uses the word"),
        ("tag t;", "column 5", "no id"),
        ("tag t id 1 id 2;", "column 12", "there twice"),
        ("tag t id 4294967296;", "column 10", "more than 4294967295"),
        ("tag t id 1; tag t id 2;", "column 17", "defined twice"),
        ("tag t id 1; tag u id 1;", "column 17", "another one has its id"),
        ("tag t id 1 enum 1 a flag 1 a;", "column 28", "defined twice"),
        ("tag t id 1 flag 32 a;", "column 17", "more than 31"),
        ("tag t id 1 default a;", "column 20", "not a number or a name"),
        ("tag t id 1 accept;", "column 12", "unknown in a tag"),
        ("tag t id 1", "column 11", "semicolon is missing"),
        ("tag", "column 4", "name of a tag is missing"),
        ("cap c accept; ;", "column 5", "no id"),
        ("cap c id 1 id 2 accept; ;", "column 12", "there twice"),
        ("cap c id 1; cap c id 2;", "column 17", "defined twice"),
        ("cap c id 1; cap d id 1;", "column 17", "another one has its id"),
        ("cap c id 1 tag t id 1; ;", "column 12", "unknown as an action"),
        ("cap c id 1 accept;", "column 19", "semicolon is missing"),
        # the semicolon ends the capability, so this would drop everybody's frames
        ("macro m accept;; cap c id 1 include m; drop; ;", "column 46", "nothing to end"),
        ("include m", "column 9", "not defined"),
        ("macro m accept;; macro m drop;;", "column 24", "defined twice"),
        ("macro m(p) accept;;", "column 9", "after a $"),
        ("macro m($p,$p) accept;;", "column 12", "name of its own"),
        ("macro m($p accept;;", "column 12", "needs a comma"),
        ("macro m($p,) accept;;", "column 12", "where an argument belongs"),
        ("macro m($p) accept dport $p;; include m", "column 39", "needs 1 arguments, got 0"),
        ("macro m accept;; include m(1)", "column 26", "needs 0 arguments, got 1"),
        ("macro m include m ; include m", "column 17", "without end"),
        ("macro m($p) accept dport $P$q;; include m(1)", "column 26", "not a parameter"),
        ("macro m($p) accept dport $p;; include m(x)", "column 20", "x is not a number"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, place: str, why: str) -> None:
    with pytest.raises(RuleSyntaxError) as caught:
        compile_text(text)
    shown = str(caught.value)
    assert place in shown
    assert why in shown
    assert isinstance(caught.value, ValueError)


def test_the_limits_of_networks_and_capabilities_hold() -> None:
    assert len(compile_text("accept;" * 1024).rules) == 1024
    with pytest.raises(RuleSyntaxError, match="more than 1024 rules"):
        compile_text("accept;" * 1025)
    inner = "accept;" * 65
    with pytest.raises(RuleSyntaxError, match="cap c: it gets more than 64 rules"):
        compile_text(f"cap c id 1 {inner} ;")
    tags = "".join(f"tag t{number} id {number};" for number in range(129))
    with pytest.raises(RuleSyntaxError, match="one more than 128"):
        compile_text(tags)
    with pytest.raises(RuleSyntaxError, match="characters"):
        compile_text("#" * (1 << 20) + "#")


@pytest.mark.parametrize("body", ["accept;", ""])
def test_macros_that_double_each_other_come_to_an_end(body: str) -> None:
    text = f"macro m0 {body} ;"
    for number in range(1, 30):
        text += f"macro m{number} include m{number - 1} include m{number - 1} ;"
    with pytest.raises(RuleSyntaxError):
        compile_text(text + "include m29")


WORDS = st.sampled_from(
    [
        *sorted(RESERVED),
        *(";", ";", ";", "(", ")", ",", "$p", "m", "t", "1", "80-90", "10.0.0.0/8", "fd00::/8"),
        *("deadbeef11", "\n", "# no", "0x", "tcp", "ipv4", "inbound", "-1", "0.5"),
    ]
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=60))
def test_any_text_compiles_or_says_where_it_does_not(text: str) -> None:
    try:
        compile_text(text)
    except RuleSyntaxError as exc:
        assert 1 <= exc.line <= text.count("\n") + 1  # noqa: PT017
        assert exc.column >= 1  # noqa: PT017
