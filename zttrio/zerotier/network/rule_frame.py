"""A frame as rules see it, and what is known about the nodes at both ends (9.2 to 9.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from zttrio.header.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from random import Random

    from zttrio.header.frame import Buffer

    from .rules import Rule

__all__ = [
    "ARP",
    "ETHERTYPES",
    "IPV4",
    "IPV6",
    "KINDS",
    "NO_PROTOCOL",
    "OTHER",
    "RFC4193_PREFIX",
    "SIXPLANE_PREFIX",
    "PeerCredentials",
    "PeerRules",
    "RuleFrame",
    "Surroundings",
    "kind_of",
]

# Kinds of frames that rules treat differently.  A short one has the ethertype, but not the header.
OTHER, IPV4, IPV6, ARP, SHORT_IPV4, SHORT_IPV6 = range(6)
KINDS = 6

_KINDS = {ETHERTYPE_IPV4: IPV4, ETHERTYPE_IPV6: IPV6, ETHERTYPE_ARP: ARP}
ETHERTYPES = {
    IPV4: ETHERTYPE_IPV4,
    SHORT_IPV4: ETHERTYPE_IPV4,
    IPV6: ETHERTYPE_IPV6,
    SHORT_IPV6: ETHERTYPE_IPV6,
    ARP: ETHERTYPE_ARP,
}

_TCP = 6
_WITH_PORTS = frozenset((_TCP, 17, 132, 136))  # TCP, UDP, SCTP, UDP-Lite
_TO_SKIP = frozenset((0, 43, 60, 135))  # IPv6 headers in front of the transport's

SIXPLANE_PREFIX = 5  # octets of the derived addresses of 2.3, up to the node address
RFC4193_PREFIX = 11


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


NO_PROTOCOL = -1
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
            return NO_PROTOCOL, _NO_TRANSPORT
        following = payload[position]
        position += 8 * payload[position + 1] + 8
        if position > size:
            return NO_PROTOCOL, _NO_TRANSPORT
    return following, position


def kind_of(ethertype: int, payload: Buffer) -> int:
    """Which of the kinds that rules tell apart this is."""
    kind = _KINDS.get(ethertype, OTHER)
    if kind == IPV4:
        return IPV4 if len(payload) >= 20 else SHORT_IPV4
    if kind == IPV6:
        return IPV6 if len(payload) >= 40 else SHORT_IPV6
    return kind
