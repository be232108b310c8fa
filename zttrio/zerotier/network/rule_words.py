"""The words of the rules language: actions, matches and names of numbers.

How they are put together is in `.rule_language`.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from zttrio.header.address import parse_mac

from . import rules as r

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Fields: TypeAlias = tuple[Any, ...]

__all__ = [
    "ACTIONS",
    "MATCHES",
    "RESERVED",
    "TAG_MATCHES",
    "ActionWord",
    "MatchWord",
    "WordError",
    "number",
]


class WordError(ValueError):
    """An argument that its action or match does not take."""


class ActionWord(NamedTuple):
    """An action.

    Attributes:
        type: of the rule.
        arguments: how many.
        read: what makes the rule's fields of them.
    """

    type: int
    arguments: int
    read: Callable[[Sequence[str]], Fields]


class MatchWord(NamedTuple):
    """A match.

    Attributes:
        type: of the rule.
        arguments: how many.
        read: what makes the rule's type and fields of *type* and the arguments; IP addresses of
            both families come under one word.
        takes_list: the last argument may be several, with commas between them.
    """

    type: int
    arguments: int
    read: Callable[[int, Sequence[str]], tuple[int, Fields]]
    takes_list: bool = False


ETHERTYPES = {
    "ipv4": 0x0800,
    "arp": 0x0806,
    "wol": 0x0842,
    "rarp": 0x8035,
    "ipv6": 0x86DD,
    "atalk": 0x809B,
    "aarp": 0x80F3,
    "ipx_a": 0x8137,
    "ipx_b": 0x8138,
}

PROTOCOLS = {
    "icmp": 1,
    "icmp4": 1,
    "icmpv4": 1,
    "igmp": 2,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "rdp": 27,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "icmpv6": 58,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
}

CHARACTERISTICS = {
    "inbound": 63,
    "multicast": 62,
    "broadcast": 61,
    "ipauth": 60,
    "macauth": 59,
    "tcp_rs0": 11,
    "tcp_rs1": 10,
    "tcp_rs2": 9,
    "tcp_ns": 8,
    "tcp_cwr": 7,
    "tcp_ece": 6,
    "tcp_urg": 5,
    "tcp_ack": 4,
    "tcp_psh": 3,
    "tcp_rst": 2,
    "tcp_syn": 1,
    "tcp_fin": 0,
}
"""Bits of the characteristics word (9.4)."""

_DECIMAL = re.compile(r"[0-9]{1,20}")
_HEX = re.compile(r"0x[0-9a-f]{1,16}")
_FRACTION = re.compile(r"[0-9]{0,20}\.?[0-9]{0,20}")
_ADDRESS = re.compile(r"[0-9a-f]{10}")
_OCTET = (1 << 8) - 1
_SHORT = (1 << 16) - 1
_UINT32 = (1 << 32) - 1


def number(text: str, highest: int, names: Mapping[str, int] | None = None) -> int:
    """The number that *text* is, decimal, hexadecimal after ``0x``, or by its name.

    Raises:
        WordError: it is none, or too large.
    """
    if names is not None and text in names:
        return names[text]
    if _DECIMAL.fullmatch(text):
        found = int(text)
    elif _HEX.fullmatch(text):
        found = int(text, 16)
    else:
        known = "a number" if names is None else "a number or a name of one"
        raise WordError(f"{text} is not {known}")
    if found > highest:
        raise WordError(f"{text} is more than {highest}")
    return found


def _range(text: str, highest: int) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = number(first, highest)
    high = number(last, highest) if dash else low
    if high < low:
        raise WordError(f"{text} ends before it starts")
    return low, high


def _node(text: str) -> bytes:
    if _ADDRESS.fullmatch(text) is None:
        raise WordError(f"{text} is not a node address of ten hex digits")
    return bytes.fromhex(text)


# Actions


def _nothing(_: Sequence[str]) -> Fields:
    return ()


def _copy(texts: Sequence[str]) -> Fields:
    length = _SHORT if texts[0] == "-1" else number(texts[0], _SHORT)
    return _node(texts[1]), 0, length


def _redirect(texts: Sequence[str]) -> Fields:
    return _node(texts[0]), 0, 0


ACTIONS = {
    "drop": ActionWord(r.DROP, 0, _nothing),
    "accept": ActionWord(r.ACCEPT, 0, _nothing),
    "break": ActionWord(r.BREAK, 0, _nothing),
    "tee": ActionWord(r.TEE, 2, _copy),
    "watch": ActionWord(r.WATCH, 2, _copy),
    "redirect": ActionWord(r.REDIRECT, 1, _redirect),
}

# Matches


def _read_node(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    return kind, (_node(texts[0]),)


def _read_mac(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    try:
        return kind, (parse_mac(texts[0]),)
    except ValueError as exc:
        raise WordError(f"{texts[0]} is not a MAC") from exc


def _read_ip(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    ip, slash, length = texts[0].partition("/")
    if not slash:
        raise WordError(f"{texts[0]} has no prefix length, as in 192.0.2.0/24")
    try:
        if ":" not in ip:
            return kind, (IPv4Address(ip).packed, number(length, 32))
        packed = IPv6Address(ip).packed
    except AddressValueError as exc:
        raise WordError(f"{ip} is not an IP address") from exc
    bits = number(length, 128)
    if int.from_bytes(packed) & ((1 << (128 - bits)) - 1):
        # 9.3: other than with IPv4, they are compared, with zeros.
        raise WordError(f"{texts[0]} has bits behind the prefix and would never match")
    other = r.IPV6_SOURCE if kind == r.IPV4_SOURCE else r.IPV6_DESTINATION
    return other, (packed, bits)


def _read_tos(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    return kind, (number(texts[0], _OCTET), *_range(texts[1], _OCTET))


def _read_protocol(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    return kind, (number(texts[0], _OCTET, PROTOCOLS),)


def _read_ethertype(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    return kind, (number(texts[0], _SHORT, ETHERTYPES),)


def _read_icmp(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    icmp_type = number(texts[0], _OCTET)
    if texts[1] == "-1":
        return kind, (icmp_type, 0, 0)
    return kind, (icmp_type, number(texts[1], _OCTET), 1)


def _read_range(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    return kind, _range(texts[0], _SHORT)


def _read_characteristics(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    mask = 0
    for text in texts:
        if text != ",":
            mask |= 1 << number(text, 63, CHARACTERISTICS)
    return kind, (mask,)


def _read_random(kind: int, texts: Sequence[str]) -> tuple[int, Fields]:
    if _FRACTION.fullmatch(texts[0]) is None or texts[0] in ("", "."):
        raise WordError(f"{texts[0]} is not a number from 0 to 1")
    probability = float(texts[0])
    if probability > 1:
        raise WordError(f"{texts[0]} is more than 1")
    return kind, (int(probability * _UINT32),)


def _read_number(highest: int) -> Callable[[int, Sequence[str]], tuple[int, Fields]]:
    return lambda kind, texts: (kind, (number(texts[0], highest),))


MATCHES = {
    "ztsrc": MatchWord(r.SOURCE_ADDRESS, 1, _read_node),
    "ztdest": MatchWord(r.DESTINATION_ADDRESS, 1, _read_node),
    "vlan": MatchWord(r.VLAN_ID, 1, _read_number(_SHORT)),
    "vlanpcp": MatchWord(r.VLAN_PCP, 1, _read_number(_OCTET)),
    "vlandei": MatchWord(r.VLAN_DEI, 1, _read_number(_OCTET)),
    "macsrc": MatchWord(r.MAC_SOURCE, 1, _read_mac),
    "macdest": MatchWord(r.MAC_DESTINATION, 1, _read_mac),
    "ipsrc": MatchWord(r.IPV4_SOURCE, 1, _read_ip),
    "ipdest": MatchWord(r.IPV4_DESTINATION, 1, _read_ip),
    "iptos": MatchWord(r.IP_TOS, 2, _read_tos),
    "ipprotocol": MatchWord(r.IP_PROTOCOL, 1, _read_protocol),
    "ethertype": MatchWord(r.ETHERTYPE, 1, _read_ethertype),
    "icmp": MatchWord(r.ICMP, 2, _read_icmp),
    "sport": MatchWord(r.SOURCE_PORT, 1, _read_range),
    "dport": MatchWord(r.DESTINATION_PORT, 1, _read_range),
    "chr": MatchWord(r.CHARACTERISTICS, 1, _read_characteristics, takes_list=True),
    "framesize": MatchWord(r.FRAME_SIZE, 1, _read_range),
    "random": MatchWord(r.RANDOM, 1, _read_random),
}

TAG_MATCHES = {
    "tdiff": r.TAGS_DIFFERENCE,
    "tand": r.TAGS_AND,
    "tor": r.TAGS_OR,
    "txor": r.TAGS_XOR,
    "teq": r.TAGS_EQUAL,
    "tseq": r.TAG_SENDER,
    "treq": r.TAG_RECEIVER,
}
"""Matches whose arguments, a tag and a value, may be names."""

RESERVED = frozenset(
    (
        *ACTIONS,
        *MATCHES,
        *TAG_MATCHES,
        *("macro", "include", "tag", "cap", "id", "default", "enum", "flag"),
        *("and", "or", "not", "priority"),
    )
)
"""Words that nobody may use as a name."""
