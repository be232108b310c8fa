"""Rules as JSON: how controllers store them and their tools write them (16.9).

The reference drops rules that it does not understand, which turns "this and that: drop" into
"that: drop".  Here everything has to be understood.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from zttrio.header.address import mac_text, parse_mac

from . import rules as r
from .rules import Rule, is_action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["TYPE_NAMES", "rules_from_json", "rules_to_json"]

TYPE_NAMES = {
    r.DROP: "ACTION_DROP",
    r.ACCEPT: "ACTION_ACCEPT",
    r.TEE: "ACTION_TEE",
    r.WATCH: "ACTION_WATCH",
    r.REDIRECT: "ACTION_REDIRECT",
    r.BREAK: "ACTION_BREAK",
    r.PRIORITY: "ACTION_PRIORITY",
    r.SOURCE_ADDRESS: "MATCH_SOURCE_ZEROTIER_ADDRESS",
    r.DESTINATION_ADDRESS: "MATCH_DEST_ZEROTIER_ADDRESS",
    r.VLAN_ID: "MATCH_VLAN_ID",
    r.VLAN_PCP: "MATCH_VLAN_PCP",
    r.VLAN_DEI: "MATCH_VLAN_DEI",
    r.MAC_SOURCE: "MATCH_MAC_SOURCE",
    r.MAC_DESTINATION: "MATCH_MAC_DEST",
    r.IPV4_SOURCE: "MATCH_IPV4_SOURCE",
    r.IPV4_DESTINATION: "MATCH_IPV4_DEST",
    r.IPV6_SOURCE: "MATCH_IPV6_SOURCE",
    r.IPV6_DESTINATION: "MATCH_IPV6_DEST",
    r.IP_TOS: "MATCH_IP_TOS",
    r.IP_PROTOCOL: "MATCH_IP_PROTOCOL",
    r.ETHERTYPE: "MATCH_ETHERTYPE",
    r.ICMP: "MATCH_ICMP",
    r.SOURCE_PORT: "MATCH_IP_SOURCE_PORT_RANGE",
    r.DESTINATION_PORT: "MATCH_IP_DEST_PORT_RANGE",
    r.CHARACTERISTICS: "MATCH_CHARACTERISTICS",
    r.FRAME_SIZE: "MATCH_FRAME_SIZE_RANGE",
    r.RANDOM: "MATCH_RANDOM",
    r.TAGS_DIFFERENCE: "MATCH_TAGS_DIFFERENCE",
    r.TAGS_AND: "MATCH_TAGS_BITWISE_AND",
    r.TAGS_OR: "MATCH_TAGS_BITWISE_OR",
    r.TAGS_XOR: "MATCH_TAGS_BITWISE_XOR",
    r.TAGS_EQUAL: "MATCH_TAGS_EQUAL",
    r.TAG_SENDER: "MATCH_TAG_SENDER",
    r.TAG_RECEIVER: "MATCH_TAG_RECEIVER",
    r.INTEGER_RANGE: "INTEGER_RANGE",
}
"""What JSON calls the types."""

_TYPES = {name: kind for kind, name in TYPE_NAMES.items()}

_ADDRESS = re.compile(r"[0-9a-fA-F]{10}")
_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_PREFIX = re.compile(r"[0-9]{1,3}")
_OCTET = (1 << 8) - 1
_SHORT = (1 << 16) - 1
_WORD = (1 << 32) - 1
_LONG = (1 << 64) - 1


def rules_from_json(items: Iterable[Any]) -> tuple[Rule, ...]:
    """The rules that *items*, decoded JSON objects, describe.

    Raises:
        ValueError: a rule, named by its position from 0 on, is not understood, and why.
    """
    found: list[Rule] = []
    for position, item in enumerate(items):
        try:
            found.append(_read(item))
        except ValueError as exc:
            raise ValueError(f"rule {position}: {exc}") from exc
    return tuple(found)


def rules_to_json(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """*rules* as objects for JSON; `rules_from_json` makes the same rules of them.

    Raises:
        ValueError: a rule has an unknown type or is too short for its type.
    """
    return [_write(rule) for rule in rules]


def _read(item: Any) -> Rule:
    if not isinstance(item, dict):
        raise ValueError(f"needs an object, got {_shown(item)}")  # noqa: TRY004 - bad JSON
    source = _Object(item)
    name = source.take("type")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"type {_shown(name)}: unknown")
    is_not = source.boolean("not")
    is_or = source.boolean("or")
    read, _ = _CODECS[kind]
    rule = Rule.of(kind, *read(source), is_not=is_not, is_or=is_or)
    if is_action(rule) and (is_not or is_or):
        raise ValueError(f"{name}: actions can be neither negated nor alternatives")
    source.finish(str(name))
    return rule


def _write(rule: Rule) -> dict[str, Any]:
    name = TYPE_NAMES.get(rule.type)
    if name is None:
        raise ValueError(f"rule of type {rule.type}: unknown")
    _, write = _CODECS[rule.type]
    item: dict[str, Any] = {"type": name}
    if not is_action(rule):
        item |= {"not": rule.is_not, "or": rule.is_or}
    return item | write(*rule.fields())


class _Object:
    """A JSON object of which every key has to be used."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        self._left = dict(item)

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise ValueError(f"{key}: missing")
        return self._left.pop(key)

    def get(self, key: str, default: Any) -> Any:
        return self._left.pop(key, default)

    def boolean(self, key: str) -> bool:
        value = self.get(key, False)
        if value not in (True, False):
            raise ValueError(f"{key}: needs true or false, got {_shown(value)}")
        return bool(value)

    def integer(self, key: str, highest: int) -> int:
        return _integer(key, self.take(key), highest)

    def hexadecimal(self, key: str) -> int:
        """64 bits, as hexadecimal text or as a number."""
        value = self.take(key)
        if not isinstance(value, str):
            return _integer(key, value, _LONG)
        if _HEX.fullmatch(value) is None:
            raise ValueError(f"{key}: needs up to 16 hex digits, got {_shown(value)}")
        return int(value, 16)

    def range(self) -> tuple[int, int]:
        """``start`` and ``end``, which may be left out if it is the same (16.9)."""
        start = self.integer("start", _SHORT)
        end = _integer("end", self.get("end", start), _SHORT)
        return start, end

    def text(self, key: str) -> str:
        value = self.take(key)
        if not isinstance(value, str):
            raise ValueError(f"{key}: needs text, got {_shown(value)}")  # noqa: TRY004 - bad JSON
        return value

    def node_address(self, key: str) -> bytes:
        value = self.text(key)
        if _ADDRESS.fullmatch(value) is None:
            raise ValueError(f"{key}: needs ten hex digits, got {_shown(value)}")
        return bytes.fromhex(value)

    def finish(self, name: str) -> None:
        """Refuse what nobody took: it might be a condition with its name misspelt."""
        if self._left:
            raise ValueError(f"{name}: does not know {_shown(sorted(map(str, self._left)))}")


def _integer(key: str, value: Any, highest: int) -> int:
    number = value
    is_text = isinstance(value, str) and _DECIMAL.fullmatch(value) is not None
    if is_text or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= highest:
        raise ValueError(f"{key}: needs a number from 0 to {highest}, got {_shown(value)}")
    return number


def _shown(value: Any) -> str:
    found = ascii(value)
    return found if len(found) <= 60 else f"{found[:57]}..."


# How the value of each type is read and written.


def _read_nothing(_: _Object) -> tuple[Any, ...]:
    return ()


def _write_nothing() -> dict[str, Any]:
    return {}


def _read_priority(source: _Object) -> tuple[Any, ...]:
    source.get("qosBucket", 0)  # not transmitted (9.1)
    return ()


def _read_copy(source: _Object) -> tuple[Any, ...]:
    address = source.node_address("address")
    flags = _integer("flags", source.get("flags", 0), _WORD)
    length = source.get("length", 0)
    # -1 says "everything", and no frame has as much as 65 535 octets.
    return address, flags, _SHORT if length in (-1, "-1") else _integer("length", length, _SHORT)


def _write_copy(address: bytes, flags: int, length: int) -> dict[str, Any]:
    return _write_redirect(address, flags, 0) | {"length": -1 if length == _SHORT else length}


def _read_redirect(source: _Object) -> tuple[Any, ...]:
    address = source.node_address("address")
    return address, _integer("flags", source.get("flags", 0), _WORD), 0


def _write_redirect(address: bytes, flags: int, _: int) -> dict[str, Any]:
    return {"address": address.hex()} | ({"flags": flags} if flags else {})


def _read_node(source: _Object) -> tuple[Any, ...]:
    return (source.node_address("zt"),)


def _write_node(address: bytes) -> dict[str, Any]:
    return {"zt": address.hex()}


def _read_mac(source: _Object) -> tuple[Any, ...]:
    return (parse_mac(source.text("mac")),)


def _write_mac(mac: bytes) -> dict[str, Any]:
    return {"mac": mac_text(mac)}


def _number(
    key: str, highest: int
) -> tuple[Callable[[_Object], tuple[Any, ...]], Callable[[int], dict[str, Any]]]:
    """How a value that is a single number is read and written."""
    return lambda source: (source.integer(key, highest),), lambda number: {key: number}


def _read_network(
    source: _Object, parse: type[IPv4Address | IPv6Address], longest: int
) -> tuple[Any, ...]:
    value = source.text("ip")
    ip, slash, length = value.partition("/")
    # Without a length the reference takes it for 0, which matches everything.
    if not slash or _PREFIX.fullmatch(length) is None:
        raise ValueError(f"ip: needs an address and a prefix length, got {_shown(value)}")
    return parse(ip).packed, min(int(length), longest)


def _write_network(address: str, length: int, longest: int) -> dict[str, Any]:
    return {"ip": f"{address}/{min(length, longest)}"}


def _read_ipv4(source: _Object) -> tuple[Any, ...]:
    return _read_network(source, IPv4Address, 32)


def _write_ipv4(address: bytes, length: int) -> dict[str, Any]:
    return _write_network(str(IPv4Address(address)), length, 32)


def _read_ipv6(source: _Object) -> tuple[Any, ...]:
    return _read_network(source, IPv6Address, 128)


def _write_ipv6(address: bytes, length: int) -> dict[str, Any]:
    return _write_network(str(IPv6Address(address)), length, 128)


def _read_tos(source: _Object) -> tuple[Any, ...]:
    return tuple(source.integer(key, _OCTET) for key in ("mask", "start", "end"))


def _write_tos(mask: int, start: int, end: int) -> dict[str, Any]:
    return {"mask": mask, "start": start, "end": end}


def _read_icmp(source: _Object) -> tuple[Any, ...]:
    kind = source.integer("icmpType", _OCTET)
    code = source.get("icmpCode", None)
    if code is None or code == -1:
        return kind, 0, 0
    return kind, _integer("icmpCode", code, _OCTET), 1


def _write_icmp(kind: int, code: int, flags: int) -> dict[str, Any]:
    return {"icmpType": kind, "icmpCode": code if flags & 1 else None}


def _read_range(source: _Object) -> tuple[Any, ...]:
    return source.range()


def _write_range(start: int, end: int) -> dict[str, Any]:
    return {"start": start, "end": end}


def _read_mask(source: _Object) -> tuple[Any, ...]:
    return (source.hexadecimal("mask"),)


def _write_mask(mask: int) -> dict[str, Any]:
    return {"mask": f"{mask:016x}"}


def _read_tag(source: _Object) -> tuple[Any, ...]:
    return source.integer("id", _WORD), source.integer("value", _WORD)


def _write_tag(tag_id: int, value: int) -> dict[str, Any]:
    return {"id": tag_id, "value": value}


def _read_integer(source: _Object) -> tuple[Any, ...]:
    start = source.hexadecimal("start")
    end = source.hexadecimal("end")
    if (end - start) & _LONG > _WORD:
        raise ValueError(f"end: {end:016x} is more than 32 bits beyond start {start:016x}")
    index = source.integer("idx", _SHORT)
    bits = source.integer("bits", 64)
    if bits == 0:
        raise ValueError("bits: needs 1 to 64, got 0")
    return start, end, index, (0x80 if source.boolean("little") else 0) | (bits - 1)


def _write_integer(start: int, end: int, index: int, form: int) -> dict[str, Any]:
    end = (start + ((end - start) & _WORD)) & _LONG  # what readers take it for
    return {
        "start": f"{start:016x}",
        "end": f"{end:016x}",
        "idx": index,
        "little": form & 0x80 != 0,
        "bits": (form & 63) + 1,
    }


_NOTHING = (_read_nothing, _write_nothing)
_COPY = (_read_copy, _write_copy)
_NODE = (_read_node, _write_node)
_MAC = (_read_mac, _write_mac)
_IPV4 = (_read_ipv4, _write_ipv4)
_IPV6 = (_read_ipv6, _write_ipv6)
_RANGE = (_read_range, _write_range)
_TAG = (_read_tag, _write_tag)

_CODECS: dict[int, tuple[Callable[[_Object], tuple[Any, ...]], Callable[..., dict[str, Any]]]] = {
    r.DROP: _NOTHING,
    r.ACCEPT: _NOTHING,
    r.TEE: _COPY,
    r.WATCH: _COPY,
    r.REDIRECT: (_read_redirect, _write_redirect),
    r.BREAK: _NOTHING,
    r.PRIORITY: (_read_priority, _write_nothing),
    r.SOURCE_ADDRESS: _NODE,
    r.DESTINATION_ADDRESS: _NODE,
    r.VLAN_ID: _number("vlanId", _SHORT),
    r.VLAN_PCP: _number("vlanPcp", _OCTET),
    r.VLAN_DEI: _number("vlanDei", _OCTET),
    r.MAC_SOURCE: _MAC,
    r.MAC_DESTINATION: _MAC,
    r.IPV4_SOURCE: _IPV4,
    r.IPV4_DESTINATION: _IPV4,
    r.IPV6_SOURCE: _IPV6,
    r.IPV6_DESTINATION: _IPV6,
    r.IP_TOS: (_read_tos, _write_tos),
    r.IP_PROTOCOL: _number("ipProtocol", _OCTET),
    r.ETHERTYPE: _number("etherType", _SHORT),
    r.ICMP: (_read_icmp, _write_icmp),
    r.SOURCE_PORT: _RANGE,
    r.DESTINATION_PORT: _RANGE,
    r.CHARACTERISTICS: (_read_mask, _write_mask),
    r.FRAME_SIZE: _RANGE,
    r.RANDOM: _number("probability", _WORD),
    r.TAGS_DIFFERENCE: _TAG,
    r.TAGS_AND: _TAG,
    r.TAGS_OR: _TAG,
    r.TAGS_XOR: _TAG,
    r.TAGS_EQUAL: _TAG,
    r.TAG_SENDER: _TAG,
    r.TAG_RECEIVER: _TAG,
    r.INTEGER_RANGE: (_read_integer, _write_integer),
}
