"""Random rules, and frames that they have something to say about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.zerotier.network.rule_frame import RuleFrame, Surroundings
from zttrio.zerotier.network.rules import LAYOUTS, Rule, emit_rules, parse_rules

from .naive_rules import ARP, IP4, IP6, Scene

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

ME = bytes.fromhex("317251008d")
PEER = bytes.fromhex("f051ad3d6e")
OTHER = bytes.fromhex("586146bce0")
NOBODY = bytes(5)
SIXPLANE = bytes.fromhex("fc2389dcd8") + ME + bytes(5) + b"\x01"
RFC4193 = bytes.fromhex("fd072211d924abcd019993") + ME

_NODES = (ME, PEER, OTHER, NOBODY)
_MACS = tuple(
    bytes.fromhex(mac)
    for mac in ("023dfa89e47f", "02fcd975d99c", "ffffffffffff", "333300000001", "01005e000001")
)
_IPV4 = tuple(bytes.fromhex(ip) for ip in ("0a050009", "0a050007", "c0a80001", "0a0500ff"))
_IPV6 = (
    bytes.fromhex("fd120000000000000000000000000009"),
    bytes.fromhex("fe800000000000000000000000000001"),
    SIXPLANE,
    RFC4193,
    SIXPLANE[:5] + OTHER + SIXPLANE[10:],
    RFC4193[:11] + PEER,
)
_PORTS = (0, 22, 80, 443, 65535)
_PROTOCOLS = (1, 6, 6, 17, 58, 132, 136, 50)
_ETHERTYPES = (IP4, ARP, IP6, 0x88CC)
_TAGS = (7, 9)


class Peer:
    """Credentials that are all valid."""

    def __init__(self, tags: dict[int, int], things: set[bytes], rules: Iterable[bytes]) -> None:
        self._tags = tags
        self._things = things
        self._capabilities = tuple(map(Capability, rules))

    def tag(self, tag_id: int, /) -> int | None:
        return self._tags.get(tag_id)

    def capabilities(self) -> tuple[Capability, ...]:
        return self._capabilities

    def owns_ip(self, ip: bytes, /) -> bool:
        return ip in self._things

    def owns_mac(self, mac: bytes, /) -> bool:
        return mac in self._things


class Capability:
    """A rule list of a peer."""

    def __init__(self, rules: bytes) -> None:
        self.rules = parse_rules(rules)


def surroundings(scene: Scene, random: Random, *, is_strict: bool = False) -> Surroundings:
    derived = []
    if scene.flags & 4:
        if scene.sixplane is not None:
            derived.append(scene.sixplane[:5])
        if scene.rfc4193 is not None:
            derived.append(scene.rfc4193[:11])
    return Surroundings(
        scene.me,
        random,
        scene.own_tags,
        frozenset(scene.own_things),
        scene.flags & 8 != 0,
        derived,
        is_strict,
    )


def peer_of(scene: Scene) -> Peer:
    return Peer(scene.peer_tags, scene.peer_things, scene.peer_capabilities)


def rule_frame(scene: Scene) -> RuleFrame:
    return RuleFrame(
        scene.source,
        scene.destination,
        scene.mac_destination,
        scene.mac_source,
        scene.ethertype,
        scene.payload,
        peer_of(scene),
    )


def random_rules(random: Random, longest: int = 10) -> bytes:
    rules = [random_rule(random) for _ in range(random.randrange(longest + 1))]
    if random.random() < 0.4:  # what a single match says
        rules = [random_rule(random, actions=0), Rule(1)]
    if random.random() < 0.2:  # a copy to us that is not taken: what follows is super
        rules = [Rule.of(42, 65535, 65535), Rule.of(2, ME, 0, 0), *rules]
    return emit_rules(rules)


def random_rule(random: Random, actions: float = 0.4) -> Rule:
    if random.random() < actions:
        kind = random.choices((0, 1, 2, 3, 4, 5, 6, 9), (6, 6, 3, 3, 3, 2, 1, 1))[0]
    else:
        kind = random.choice((*range(24, 52), 35, 36, 37, 39, 40, 41, 41, 41, 44, 49, 50, 60))
    is_not = random.random() < 0.3
    is_or = random.random() < 0.3
    if kind not in LAYOUTS:
        return Rule(kind, random.randbytes(random.randrange(4)), is_not, is_or)
    rule = Rule.of(kind, *_fields(kind, random), is_not=is_not, is_or=is_or)
    if random.random() < 0.02:  # longer values are fine
        rule = Rule(kind, rule.value + b"\0", is_not, is_or)
    return rule


def _fields(kind: int, random: Random) -> tuple[object, ...]:
    choice, below = random.choice, random.randrange
    match kind:
        case 0 | 1 | 5 | 6:
            return ()
        case 2 | 3 | 4:
            return choice(_NODES), 0, choice((0, 0, 10, 64, 65535))
        case 24 | 25:
            return (choice(_NODES),)
        case 26 | 27 | 28:
            return (below(2),)
        case 29 | 30:
            return (choice(_MACS),)
        case 31 | 32:
            return choice(_IPV4), choice((0, 8, 9, 24, 31, 32, 40))
        case 33 | 34:
            return _prefix(choice(_IPV6), random)
        case 35:
            return below(256), *sorted((below(256), below(256)))
        case 36:
            return (choice(_PROTOCOLS),)
        case 37:
            return (choice(_ETHERTYPES),)
        case 38:
            return choice((3, 8, 128)), below(2), below(2)
        case 39 | 40:
            return choice(_PORTS), choice(_PORTS)
        case 41:
            bits = (63, 62, 61, 60, 59, 11, 8, 4, 1, 0, 40)
            return (sum(1 << bit for bit in random.sample(bits, choice((1, 1, 1, 2, 3)))),)
        case 42:
            return choice((0, 28, 60)), choice((27, 28, 100, 65535))
        case 43:
            return (choice((0, 2**32 - 1)),)
        case 51:
            low = choice((0, 1, 6, 17, 0x0A050009, 2**64 - 1, random.getrandbits(16)))
            high = (low + choice((0, 1, 255, 2**32 - 1, 2**32 + 1, 2**40))) % 2**64
            return low, high, choice((0, 2, 8, 12, 60, 65535)), below(256)
        case _:
            return choice(_TAGS), below(4)


def _prefix(address: bytes, random: Random) -> tuple[bytes, int]:
    length = random.choice((0, 7, 8, 40, 64, 127, 128, 200))
    if random.random() < 0.8:
        shift = max(0, 128 - length)
        address = (int.from_bytes(address) >> shift << shift).to_bytes(16)
    return address, length


def random_payload(ethertype: int, random: Random) -> bytes:
    choice = random.choice
    protocol = choice(_PROTOCOLS)
    body = _transport(protocol, random) if random.random() < 0.9 else b""
    if ethertype == IP4:
        words = choice((5, 5, 5, 6, 15, 0, 4))
        head = bytes((0x40 | words, random.randrange(256))) + bytes(7) + bytes((protocol, 0, 0))
        payload = head + choice(_IPV4) + choice(_IPV4) + bytes(max(0, 4 * words - 20)) + body
    elif ethertype == IP6:
        extensions = b""
        for _ in range(choice((0, 0, 0, 1, 2))):
            size = choice((0, 0, 1))
            extensions = bytes((protocol, size)) + bytes(6 + 8 * size) + extensions
            protocol = choice((0, 43, 60, 135, 44))
        head = random.randbytes(2) + bytes(4) + bytes((protocol, 64))
        payload = head + choice(_IPV6) + choice(_IPV6) + extensions + body
    elif ethertype == ARP:
        payload = bytes(14) + choice(_IPV4) + bytes(10)
    else:
        payload = random.randbytes(random.randrange(64))
    if random.random() < 0.3:
        payload = payload[: random.randrange(len(payload) + 1)]
    return payload


def _transport(protocol: int, random: Random) -> bytes:
    choice = random.choice
    if protocol in (1, 58):
        kind = choice((3, 8, 128, 135, 136))
        return bytes((kind, choice((0, 1)))) + bytes(6) + choice(_IPV6)
    ports = choice(_PORTS).to_bytes(2) + choice(_PORTS).to_bytes(2)
    return ports + bytes(8) + random.randbytes(2) + bytes(choice((0, 6)))


def random_scene(random: Random) -> Scene:
    choice = random.choice
    inbound = random.random() < 0.5
    ethertype = choice(_ETHERTYPES[:3] * 2 + _ETHERTYPES)
    things = (*_MACS[:2], *_IPV4, *_IPV6)
    return Scene(
        inbound=inbound,
        me=ME,
        source=choice((PEER,) * 20 + (ME,)) if inbound else ME,  # the latter never happens
        destination=ME if inbound else choice((PEER, NOBODY)),
        mac_source=choice(_MACS[:2]),
        mac_destination=choice(_MACS),
        ethertype=ethertype,
        payload=random_payload(ethertype, random),
        own_tags={tag: random.randrange(4) for tag in _TAGS if random.random() < 0.7},
        peer_tags={tag: random.randrange(4) for tag in _TAGS if random.random() < 0.6},
        own_things=set(random.sample(things, 4)),
        peer_things=set(random.sample(things, 4)),
        flags=choice((0, 4, 8, 12)),
        sixplane=choice((None, SIXPLANE)),
        rfc4193=choice((None, RFC4193)),
    )
