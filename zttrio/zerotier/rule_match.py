"""What single matches say about a frame (9.3 to 9.6).

A match becomes a test once, when its list is made ready for one direction and one kind of frame;
whatever is known by then is decided then.  How the results are combined is in `.rule_policy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6

from . import rules as r

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from zttrio.header.frame import Buffer

    from .rules import Rule

__all__ = [
    "PeerCredentials",
    "PeerRules",
    "RuleFrame",
    "Setting",
    "Surroundings",
    "Test",
    "kind_of",
    "may_disarm",
    "reads_transport",
    "test_for",
]

# Kinds of frames that rules treat differently.  A short one has the ethertype, but not the header.
OTHER, IPV4, IPV6, ARP, SHORT_IPV4, SHORT_IPV6 = range(6)
KINDS = 6

_KINDS = {ETHERTYPE_IPV4: IPV4, ETHERTYPE_IPV6: IPV6, ETHERTYPE_ARP: ARP}
_ETHERTYPES = {
    IPV4: ETHERTYPE_IPV4,
    SHORT_IPV4: ETHERTYPE_IPV4,
    IPV6: ETHERTYPE_IPV6,
    SHORT_IPV6: ETHERTYPE_IPV6,
    ARP: ETHERTYPE_ARP,
}

_ICMPV4 = 1
_TCP = 6
_ICMPV6 = 58
_WITH_PORTS = frozenset((_TCP, 17, 132, 136))  # TCP, UDP, SCTP, UDP-Lite
_TO_SKIP = frozenset((0, 43, 60, 135))  # IPv6 headers in front of the transport's
_ND_LENGTH = 64  # of a neighbor advertisement with its IPv6 header
_SOLICITATION = 135
_ADVERTISEMENT = 136
_BROADCAST = b"\xff" * 6
_WORD = (1 << 64) - 1
_TCP_BITS = 0xFFF

SIXPLANE_PREFIX = 5  # octets of the derived addresses of 2.3, up to the node address
RFC4193_PREFIX = 11

Test = Callable[["RuleFrame"], bool]
"""A match with its NOT applied; not applicable is False."""


class PeerRules(Protocol):
    """A capability of a peer, as far as rules care."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The same tuple every time: what was made of it is found again by its identity."""
        ...


class PeerCredentials(Protocol):
    """What a peer has presented and what is valid at this moment (4.7)."""

    def tag(self, tag_id: int, /) -> int | None:
        """The value of the peer's tag, or None."""
        ...

    def capabilities(self) -> Iterable[PeerRules]:
        """The peer's capabilities, in ascending order of their IDs."""
        ...

    def owns_ip(self, ip: bytes, /) -> bool:
        """Whether an ownership certificate of the peer lists *ip*, of 4 or 16 octets."""
        ...

    def owns_mac(self, mac: bytes, /) -> bool:
        """Whether an ownership certificate of the peer lists *mac*."""
        ...


@attrs.frozen(eq=False)
class Surroundings:
    """What the deciding node brings to every decision.

    Attributes:
        address: of this node.
        tags: own tags, by ID.
        owned: IP addresses and MACs of the own ownership certificates, told apart by length.
        unknown_matches: what matches of an unknown type result in (network flag 0x08).
        derived: prefixes of 5 or 11 octets; a source address that starts with one of them, goes on
            with the sender's node address, and is in no ownership certificate, is the sender's own
            nevertheless.
        is_strict: False to accept those prefixes whatever follows, as the reference does: any
            member may then use any other's derived addresses.
        random: source of 32-bit numbers for the match by chance.
    """

    address: bytes
    random: Random
    tags: Mapping[int, int] = attrs.Factory(dict)
    owned: frozenset[bytes] = frozenset()
    unknown_matches: bool = False
    derived: Sequence[bytes] = ()
    is_strict: bool = True


_NO_PROTOCOL = -1
_NO_TRANSPORT = -1
_NO_PORT = -1


class RuleFrame:
    """A frame under decision, with what was read from it, and the state of one list's evaluation.

    Attributes:
        source: node address of the sender.
        destination: node address of the recipient, zeros while there is none.
        mac_destination: 6 octets.
        mac_source: 6 octets.
        ethertype: of the frame.
        payload: what stands behind the Ethernet header.
        peer: credentials of the other node, None if nothing is known about it.
        is_super: the list ordered a copy or a redirection to us, and it was not taken.
        skip_drop: the next DROP is disarmed, because the other side's tags are unknown.
        is_read: what follows is there.
        start: offset of the transport header, -1 if the walk there failed.
        protocol: of the transport header.
        source_port: -1 if there is none.
        destination_port: -1 if there is none.
        tcp_bits: the low twelve bits of the characteristics word (9.4).
    """

    __slots__ = (
        "destination",
        "destination_port",
        "ethertype",
        "is_read",
        "is_super",
        "mac_destination",
        "mac_source",
        "payload",
        "peer",
        "protocol",
        "skip_drop",
        "source",
        "source_port",
        "start",
        "tcp_bits",
    )

    start: int
    protocol: int
    source_port: int
    destination_port: int
    tcp_bits: int

    def __init__(
        self,
        source: bytes,
        destination: bytes,
        mac_destination: bytes,
        mac_source: bytes,
        ethertype: int,
        payload: Buffer,
        peer: PeerCredentials | None = None,
    ) -> None:
        self.source = source
        self.destination = destination
        self.mac_destination = mac_destination
        self.mac_source = mac_source
        self.ethertype = ethertype
        self.payload = payload
        self.peer = peer
        self.is_super = False
        self.skip_drop = False
        self.is_read = False

    def read(self, kind: int) -> None:
        """Look at the transport header, once; *kind* is IPV4 or IPV6."""
        if self.is_read:
            return
        self.is_read = True
        payload = self.payload
        size = len(payload)
        if kind == IPV4:
            # Neither checked nor reassembled: later fragments are taken for what they hold.
            protocol = payload[9]
            start = (payload[0] & 15) * 4
        else:
            protocol, start = _walk(payload)
        self.protocol = protocol
        self.start = start
        self.source_port = self.destination_port = _NO_PORT
        self.tcp_bits = 0
        if protocol not in _WITH_PORTS or start + 4 >= size:
            return
        self.source_port = payload[start] << 8 | payload[start + 1]
        self.destination_port = payload[start + 2] << 8 | payload[start + 3]
        # Where the flags are not there, the reference reads beyond the end on IPv4.  On IPv6 it
        # needs an octet more than it reads; both ends have to agree, so this does, too.
        if protocol == _TCP and size > start + (13 if kind == IPV4 else 14):
            self.tcp_bits = (payload[start + 12] & 15) << 8 | payload[start + 13]


def _walk(payload: Buffer) -> tuple[int, int]:
    """The IPv6 header walk of 9.3: protocol and offset of the transport header."""
    size = len(payload)
    following = payload[6]
    position = 40
    while following in _TO_SKIP:
        if position + 8 > size:
            return _NO_PROTOCOL, _NO_TRANSPORT
        following = payload[position]
        position += 8 * payload[position + 1] + 8
        if position > size:
            return _NO_PROTOCOL, _NO_TRANSPORT
    return following, position


def kind_of(ethertype: int, payload: Buffer) -> int:
    """Which of the kinds that rules tell apart this is."""
    kind = _KINDS.get(ethertype, OTHER)
    if kind == IPV4:
        return IPV4 if len(payload) >= 20 else SHORT_IPV4
    if kind == IPV6:
        return IPV6 if len(payload) >= 40 else SHORT_IPV6
    return kind


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
    return lambda frame: frame.protocol not in (protocol, _NO_PROTOCOL)


def _ethertype(rule: Rule, setting: Setting, wanted: bool) -> Test | bool:
    (ethertype,) = rule.fields()
    if setting.kind != OTHER:
        return (_ETHERTYPES[setting.kind] == ethertype) is wanted
    if ethertype in _KINDS:
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
