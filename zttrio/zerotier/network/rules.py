"""Rules: what a network lets through, as the octets of a configuration and as fields.

A rule list is a flat sequence of entries: matches, and after each group of them the action that
they decide about.  What they do is in `.rule_policy` and `.rule_match`, how people write them in
`.rule_json` and `.rule_language`.  Section numbers in these files are those of the VL2
specification.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import attrs

from zttrio.errors import HeaderError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zttrio.header.frame import Buffer

__all__ = ["Rule", "emit_rules", "is_action", "parse_counted_rules", "parse_rules"]

# Types, 9.1.  The first sixteen are actions.
DROP = 0
ACCEPT = 1
TEE = 2
WATCH = 3
REDIRECT = 4
BREAK = 5
PRIORITY = 6
SOURCE_ADDRESS = 24
DESTINATION_ADDRESS = 25
VLAN_ID = 26
VLAN_PCP = 27
VLAN_DEI = 28
MAC_SOURCE = 29
MAC_DESTINATION = 30
IPV4_SOURCE = 31
IPV4_DESTINATION = 32
IPV6_SOURCE = 33
IPV6_DESTINATION = 34
IP_TOS = 35
IP_PROTOCOL = 36
ETHERTYPE = 37
ICMP = 38
SOURCE_PORT = 39
DESTINATION_PORT = 40
CHARACTERISTICS = 41
FRAME_SIZE = 42
RANDOM = 43
TAGS_DIFFERENCE = 44
TAGS_AND = 45
TAGS_OR = 46
TAGS_XOR = 47
TAGS_EQUAL = 48
TAG_SENDER = 49
TAG_RECEIVER = 50
INTEGER_RANGE = 51

NETWORK_LIMIT = 1024
"""Rules of a network (1.2)."""
CAPABILITY_LIMIT = 64
"""Rules of a capability (1.2)."""

# Bits of the characteristics word (9.4); the low eight are TCP's flags.
INBOUND = 1 << 63
MULTICAST = 1 << 62
BROADCAST = 1 << 61
SENDER_OWNS_IP = 1 << 60
SENDER_OWNS_MAC = 1 << 59

_NOT = 0x80
_OR = 0x40
_TYPE = 0x3F
_FIRST_MATCH = 16

_NOTHING = struct.Struct("")
_TARGET = struct.Struct("!3x5sIH")  # a 64-bit integer of which only the address counts
_OCTET = struct.Struct("!B")
_SHORT = struct.Struct("!H")
_ADDRESS = struct.Struct("!5s")
_MAC = struct.Struct("!6s")
_IPV4 = struct.Struct("!4sB")
_IPV6 = struct.Struct("!16sB")
_THREE = struct.Struct("!BBB")
_RANGE = struct.Struct("!HH")
_TAG = struct.Struct("!II")

LAYOUTS = {
    DROP: _NOTHING,
    ACCEPT: _NOTHING,
    TEE: _TARGET,
    WATCH: _TARGET,
    REDIRECT: _TARGET,
    BREAK: _NOTHING,
    PRIORITY: _NOTHING,
    SOURCE_ADDRESS: _ADDRESS,
    DESTINATION_ADDRESS: _ADDRESS,
    VLAN_ID: _SHORT,
    VLAN_PCP: _OCTET,
    VLAN_DEI: _OCTET,
    MAC_SOURCE: _MAC,
    MAC_DESTINATION: _MAC,
    IPV4_SOURCE: _IPV4,
    IPV4_DESTINATION: _IPV4,
    IPV6_SOURCE: _IPV6,
    IPV6_DESTINATION: _IPV6,
    IP_TOS: _THREE,
    IP_PROTOCOL: _OCTET,
    ETHERTYPE: _SHORT,
    ICMP: _THREE,
    SOURCE_PORT: _RANGE,
    DESTINATION_PORT: _RANGE,
    CHARACTERISTICS: struct.Struct("!Q"),
    FRAME_SIZE: _RANGE,
    RANDOM: struct.Struct("!I"),
    TAGS_DIFFERENCE: _TAG,
    TAGS_AND: _TAG,
    TAGS_OR: _TAG,
    TAGS_XOR: _TAG,
    TAGS_EQUAL: _TAG,
    TAG_SENDER: _TAG,
    TAG_RECEIVER: _TAG,
    INTEGER_RANGE: struct.Struct("!QQHB"),
}
"""What the value of each known type consists of (9.1)."""


@attrs.frozen
class Rule:
    """One entry of a rule list.

    Attributes:
        type: 0 to 63; below 16 it is an action.
        value: the octets behind the length octet, as they came, so that a list can be signed again.
        is_not: the result of this match is inverted. Means nothing on actions.
        is_or: this match is an alternative to what precedes it. Means nothing on actions.
    """

    type: int
    value: bytes = b""
    is_not: bool = False
    is_or: bool = False

    @classmethod
    def of(cls, type: int, *fields: Any, is_not: bool = False, is_or: bool = False) -> Rule:  # noqa: A002 - as the attribute
        """A rule of a known type from the fields of its value, see `LAYOUTS`.

        Addresses and MACs are octets, everything else is an integer.

        Raises:
            ValueError: these are not the fields of that type.
        """
        layout = LAYOUTS.get(type)
        if layout is None:
            raise ValueError(f"rule of type {type}: unknown")
        try:
            value = layout.pack(*fields)
        except struct.error as exc:
            raise ValueError(f"rule of type {type} with {fields}: {exc}") from exc
        return cls(type, value, is_not, is_or)

    def fields(self) -> tuple[Any, ...]:
        """The fields of the value, as `of` takes them; none for an unknown type.

        Raises:
            ValueError: the value is too short for its type. Parsed rules never are.
        """
        layout = LAYOUTS.get(self.type, _NOTHING)
        if len(self.value) < layout.size:
            raise ValueError(f"rule of type {self.type}: only {len(self.value)} octets of value")
        return layout.unpack_from(self.value)


def is_action(rule: Rule) -> bool:
    """Whether *rule* decides, instead of looking at the frame."""
    return rule.type < _FIRST_MATCH


def parse_rules(data: Buffer, limit: int = NETWORK_LIMIT) -> tuple[Rule, ...]:
    """The rules that *data* consists of, but not more than the first *limit* (6.1).

    Raises:
        HeaderError: *data* ends within a rule, or a known type has too few octets.
    """
    found: list[Rule] = []
    offset = 0
    while offset < len(data) and len(found) < limit:
        rule, offset = _parse_rule(data, offset)
        found.append(rule)
    return tuple(found)


def parse_counted_rules(data: Buffer, offset: int, count: int) -> tuple[tuple[Rule, ...], int]:
    """*count* rules that start at *offset*, and where they end. The caller bounds *count*.

    Raises:
        HeaderError: there are fewer, or a known type has too few octets.
    """
    found: list[Rule] = []
    for _ in range(count):
        rule, offset = _parse_rule(data, offset)
        found.append(rule)
    return tuple(found), offset


def _parse_rule(data: Buffer, offset: int) -> tuple[Rule, int]:
    start = offset + 2
    if start > len(data):
        raise HeaderError(f"rule at {offset}: only {len(data)} octets")
    end = start + data[offset + 1]
    if end > len(data):
        raise HeaderError(f"rule at {offset}: ends at {end} of {len(data)} octets")
    kind = data[offset] & _TYPE
    layout = LAYOUTS.get(kind)
    if layout is not None and end - start < layout.size:
        raise HeaderError(f"rule of type {kind}: {end - start} octets, needs {layout.size}")
    head = data[offset]
    return Rule(kind, bytes(data[start:end]), head & _NOT != 0, head & _OR != 0), end


def emit_rules(rules: Iterable[Rule]) -> bytes:
    """*rules* as octets.

    Raises:
        ValueError: a type or a value that does not fit its octet.
    """
    parts = []
    for rule in rules:
        if not 0 <= rule.type <= _TYPE or len(rule.value) > 255:
            raise ValueError(f"rule of type {rule.type}, {len(rule.value)} octets: does not fit")
        head = rule.type | (_NOT if rule.is_not else 0) | (_OR if rule.is_or else 0)
        parts.append(bytes((head, len(rule.value))) + rule.value)
    return b"".join(parts)
