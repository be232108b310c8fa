"""What single matches say about a frame (9.3 to 9.6).

A match becomes a test once, when its list is made ready for one direction and one kind of frame;
whatever is known by then is decided then.  How the results are combined is in `.rule_policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import attrs

from . import rules as r
from .rule_frame import ARP, ETHERTYPES, IPV4, IPV6, NO_PROTOCOL, OTHER, RuleFrame

if TYPE_CHECKING:
    from .rule_frame import Surroundings
    from .rules import Rule

__all__ = ["Setting", "Test", "may_disarm", "reads_transport", "test_for"]

_ICMPV4 = 1
_ICMPV6 = 58
_ND_LENGTH = 64  # of a neighbor advertisement with its IPv6 header
_SOLICITATION = 135
_ADVERTISEMENT = 136
_BROADCAST = b"\xff" * 6
_WORD = (1 << 64) - 1
_TCP_BITS = 0xFFF

Test = Callable[[RuleFrame], bool]
"""A match with its NOT applied; not applicable is False."""


@attrs.frozen
class Setting:
    """What a match is made ready for.

    Attributes:
        kind: of the frames.
        is_inbound: the direction.
        may_be_super: something earlier in the list can set `RuleFrame.is_super`.
        around: the deciding node.
    """

    kind: int
    is_inbound: bool
    may_be_super: bool
    around: Surroundings


def may_disarm(rule: Rule, setting: Setting) -> bool:
    """Whether the test of *rule* can set `RuleFrame.skip_drop`: then it must not be left out."""
    return r.TAGS_DIFFERENCE <= rule.type <= r.TAG_RECEIVER and (
        not setting.is_inbound or setting.may_be_super
    )


def reads_transport(rule: Rule, kind: int) -> bool:
    """Whether the test of *rule* needs `RuleFrame.read`."""
    return kind in (IPV4, IPV6) and rule.type in _ON_TRANSPORT


def test_for(rule: Rule, setting: Setting) -> Test | bool:
    """The test that *rule*, a match, stands for, or its result if that is known already."""
    make = _MAKERS.get(rule.type)
    if make is None:
        return setting.around.unknown_matches is not rule.is_not
    return make(rule, setting, not rule.is_not)


# Makers of tests.  *wanted* is what an ordinary result must be for the test to hold; a result of
# "not applicable" (9.3) is False whatever is wanted.


def _source_address(rule: Rule, _: Setting, wanted: bool) -> Test:
    (address,) = rule.fields()
    return lambda frame: (frame.source == address) is wanted


def _destination_address(rule: Rule, _: Setting, wanted: bool) -> Test:
    (address,) = rule.fields()
    return lambda frame: (frame.destination == address) is wanted


def _vlan(rule: Rule, _: Setting, wanted: bool) -> bool:
    (value,) = rule.fields()
    return (value == 0) is wanted  # VLAN tags are not carried (1.2)


def _mac_source(rule: Rule, _: Setting, wanted: bool) -> Test:
    (mac,) = rule.fields()
    return lambda frame: (frame.mac_source == mac) is wanted


def _mac_destination(rule: Rule, _: Setting, wanted: bool) -> Test:
    (mac,) = rule.fields()
    return lambda frame: (frame.mac_destination == mac) is wanted


def _ipv4(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    if setting.kind != IPV4:
        return False
    address, length = rule.fields()
    if length == 0:
        return wanted
    shift = max(0, 32 - length)
    network = int.from_bytes(address) >> shift
    start = 12 if rule.type == r.IPV4_SOURCE else 16
    end = start + 4
    return lambda frame: (int.from_bytes(frame.payload[start:end]) >> shift == network) is wanted


def _ipv6(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    if setting.kind != IPV6:
        return False
    address, length = rule.fields()
    shift = max(0, 128 - length)
    network = int.from_bytes(address)
    if network & ((1 << shift) - 1):
        return not wanted  # host bits in the rule: the masked address never equals it
    network >>= shift
    start = 8 if rule.type == r.IPV6_SOURCE else 24
    end = start + 16
    return lambda frame: (int.from_bytes(frame.payload[start:end]) >> shift == network) is wanted


def _tos(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    mask, low, high = rule.fields()
    if setting.kind == IPV4:
        return lambda frame: (low <= frame.payload[1] & mask <= high) is wanted
    if setting.kind != IPV6:
        return False

    def test(frame: RuleFrame) -> bool:
        payload = frame.payload
        traffic_class = (payload[0] << 4 | payload[1] >> 4) & 0xFF
        return (low <= traffic_class & mask <= high) is wanted

    return test


def _protocol(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    (protocol,) = rule.fields()
    if setting.kind == IPV4:
        return lambda frame: (frame.payload[9] == protocol) is wanted
    if setting.kind != IPV6:
        return False
    if wanted:
        return lambda frame: bool(frame.protocol == protocol)
    return lambda frame: frame.protocol not in (protocol, NO_PROTOCOL)


def _ethertype(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    (ethertype,) = rule.fields()
    if setting.kind != OTHER:
        return (ETHERTYPES[setting.kind] == ethertype) is wanted
    if ethertype in ETHERTYPES.values():
        return not wanted
    return lambda frame: (frame.ethertype == ethertype) is wanted


def _icmp(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    if setting.kind not in (IPV4, IPV6):
        return False
    protocol = _ICMPV4 if setting.kind == IPV4 else _ICMPV6
    kind, code, flags = rule.fields()
    compare_code = flags & 1 != 0

    def test(frame: RuleFrame) -> bool:
        start = frame.start
        payload = frame.payload
        if frame.protocol != protocol or start + 2 > len(payload) or payload[start] != kind:
            return False
        return (not compare_code or payload[start + 1] == code) is wanted

    return test


def _source_port(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    if setting.kind not in (IPV4, IPV6):
        return False
    low, high = rule.fields()
    if setting.kind == IPV4:
        return lambda frame: (low <= frame.source_port <= high) is wanted
    low = max(1, low)  # port 0 never matches there
    if wanted:
        return lambda frame: bool(low <= frame.source_port <= high)
    return lambda frame: not low <= frame.source_port <= high and frame.start >= 0


def _destination_port(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    if setting.kind not in (IPV4, IPV6):
        return False
    low, high = rule.fields()
    if setting.kind == IPV4:
        return lambda frame: (low <= frame.destination_port <= high) is wanted
    low = max(1, low)
    if wanted:
        return lambda frame: bool(low <= frame.destination_port <= high)
    return lambda frame: not low <= frame.destination_port <= high and frame.start >= 0


def _characteristics(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    (mask,) = rule.fields()
    if mask & r.INBOUND and setting.is_inbound:
        return wanted
    tests: list[Test] = []
    bits = mask & _TCP_BITS
    if bits and setting.kind in (IPV4, IPV6):
        if mask == bits:
            return lambda frame: (frame.tcp_bits & bits != 0) is wanted
        tests.append(lambda frame: frame.tcp_bits & bits != 0)
    if mask & r.MULTICAST:
        tests.append(lambda frame: frame.mac_destination[0] & 1 != 0)
    if mask & r.BROADCAST:
        tests.append(lambda frame: frame.mac_destination == _BROADCAST)
    if mask & r.SENDER_OWNS_IP and setting.kind in (IPV4, IPV6, ARP):
        tests.append(_ip_owner(setting))
    if mask & r.SENDER_OWNS_MAC:
        tests.append(_mac_owner(setting))
    if not tests:
        return not wanted
    if len(tests) == 1:
        (only,) = tests
        return only if wanted else lambda frame: not only(frame)
    return lambda frame: any(test(frame) for test in tests) is wanted


def _ip_owner(setting: Setting) -> Test:
    around = setting.around

    def is_owner(frame: RuleFrame, ip: bytes) -> bool:
        if not setting.is_inbound:
            return ip in around.owned
        if frame.peer is not None and frame.peer.owns_ip(ip):
            return True
        for prefix in around.derived:
            if ip.startswith(prefix):
                size = len(prefix)
                return not around.is_strict or ip[size : size + 5] == frame.source
        return False

    def ipv4(frame: RuleFrame) -> bool:
        return is_owner(frame, bytes(frame.payload[12:16]))

    def arp(frame: RuleFrame) -> bool:
        payload = frame.payload
        return len(payload) >= 28 and is_owner(frame, bytes(payload[14:18]))

    def ipv6(frame: RuleFrame) -> bool:
        payload = frame.payload
        if payload[6] == _ICMPV6 and len(payload) >= _ND_LENGTH:
            if payload[40] == _SOLICITATION:
                return True
            if payload[40] == _ADVERTISEMENT:
                return is_owner(frame, bytes(payload[48:64]))
        return is_owner(frame, bytes(payload[8:24]))

    return {IPV4: ipv4, ARP: arp, IPV6: ipv6}[setting.kind]


def _mac_owner(setting: Setting) -> Test:
    if setting.is_inbound:
        return lambda frame: frame.peer is not None and frame.peer.owns_mac(frame.mac_source)
    owned = setting.around.owned
    return lambda frame: frame.mac_source in owned


def _frame_size(rule: Rule, _: Setting, wanted: bool) -> Test:
    low, high = rule.fields()
    return lambda frame: (low <= len(frame.payload) <= high) is wanted


def _random(rule: Rule, setting: Setting, wanted: bool) -> Test:
    (probability,) = rule.fields()
    random = setting.around.random
    return lambda frame: (random.getrandbits(32) <= probability) is wanted


def _is_near(own: int, theirs: int, value: int) -> bool:
    return abs(own - theirs) <= value


def _and(own: int, theirs: int, value: int) -> bool:
    return own & theirs == value


def _or(own: int, theirs: int, value: int) -> bool:
    return own | theirs == value


def _xor(own: int, theirs: int, value: int) -> bool:
    return own ^ theirs == value


def _both(own: int, theirs: int, value: int) -> bool:
    return own == theirs == value


_COMPARISONS: dict[int, Callable[[int, int, int], bool]] = {
    r.TAGS_DIFFERENCE: _is_near,
    r.TAGS_AND: _and,
    r.TAGS_OR: _or,
    r.TAGS_XOR: _xor,
    r.TAGS_EQUAL: _both,
}


def _tags(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    tag_id, value = rule.fields()
    own = setting.around.tags.get(tag_id)
    if own is None:
        return False
    compare = _COMPARISONS[rule.type]
    is_inbound = setting.is_inbound

    def test(frame: RuleFrame) -> bool:
        theirs = None if frame.peer is None else frame.peer.tag(tag_id)
        if theirs is not None:
            return compare(own, theirs, value) is wanted
        if is_inbound and not frame.is_super:
            return False
        frame.skip_drop = True
        return True

    return test


def _sender_or_receiver(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    tag_id, value = rule.fields()
    ordinary: Test | bool
    if setting.is_inbound is (rule.type == r.TAG_RECEIVER):
        ordinary = _own_tag(setting.around.tags.get(tag_id), value, wanted)
    else:
        ordinary = _their_tag(tag_id, value, wanted, is_lenient=not setting.is_inbound)
    if not setting.may_be_super:
        return ordinary

    def test(frame: RuleFrame) -> bool:
        if frame.is_super:
            frame.skip_drop = True
            return True
        return ordinary if isinstance(ordinary, bool) else ordinary(frame)

    return test


def _own_tag(own: int | None, value: int, wanted: bool) -> bool:
    return own is not None and (own == value) is wanted


def _their_tag(tag_id: int, value: int, wanted: bool, *, is_lenient: bool) -> Test:
    def test(frame: RuleFrame) -> bool:
        theirs = None if frame.peer is None else frame.peer.tag(tag_id)
        if theirs is not None:
            return (theirs == value) is wanted
        if is_lenient:
            frame.skip_drop = True
        return is_lenient

    return test


def _integer_range(rule: Rule, _: Setting, wanted: bool) -> Test:
    low, high, index, form = rule.fields()
    high = low + ((high - low) & 0xFFFF_FFFF) & _WORD  # more than this no reader keeps (9.1)
    bits = (form & 63) + 1
    size = (bits + 7) // 8
    order: Literal["little", "big"]
    if form & 0x80:
        start, shift, order = index, 8 * size - bits, "little"
    else:
        start, shift, order = index + 8 - size, 0, "big"
    end = start + size
    mask = (1 << bits) - 1

    def test(frame: RuleFrame) -> bool:
        payload = frame.payload
        number = 0
        if end <= len(payload):
            number = int.from_bytes(payload[start:end], order) >> shift & mask
        return (low <= number <= high) is wanted

    return test


_ON_TRANSPORT = (r.IP_PROTOCOL, r.ICMP, r.SOURCE_PORT, r.DESTINATION_PORT, r.CHARACTERISTICS)
_MAKERS: dict[int, Callable[[Rule, Setting, bool], Test | bool]] = {
    r.SOURCE_ADDRESS: _source_address,
    r.DESTINATION_ADDRESS: _destination_address,
    r.VLAN_ID: _vlan,
    r.VLAN_PCP: _vlan,
    r.VLAN_DEI: _vlan,
    r.MAC_SOURCE: _mac_source,
    r.MAC_DESTINATION: _mac_destination,
    r.IPV4_SOURCE: _ipv4,
    r.IPV4_DESTINATION: _ipv4,
    r.IPV6_SOURCE: _ipv6,
    r.IPV6_DESTINATION: _ipv6,
    r.IP_TOS: _tos,
    r.IP_PROTOCOL: _protocol,
    r.ETHERTYPE: _ethertype,
    r.ICMP: _icmp,
    r.SOURCE_PORT: _source_port,
    r.DESTINATION_PORT: _destination_port,
    r.CHARACTERISTICS: _characteristics,
    r.FRAME_SIZE: _frame_size,
    r.RANDOM: _random,
    r.TAGS_DIFFERENCE: _tags,
    r.TAGS_AND: _tags,
    r.TAGS_OR: _tags,
    r.TAGS_XOR: _tags,
    r.TAGS_EQUAL: _tags,
    r.TAG_SENDER: _sender_or_receiver,
    r.TAG_RECEIVER: _sender_or_receiver,
    r.INTEGER_RANGE: _integer_range,
}
