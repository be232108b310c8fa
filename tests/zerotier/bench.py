"""One node under test, and puppets: peers whose every packet a test writes by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from zttrio.zerotier import messages
from zttrio.zerotier.armor import SUITE_AES, SUITE_PLAIN, Armor
from zttrio.zerotier.compression import decompress
from zttrio.zerotier.counters import DATAGRAM_OUTCOMES, PACKET_OUTCOMES
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.messages import Hello, HelloAnswer
from zttrio.zerotier.node import Node
from zttrio.zerotier.world import PLANET, Root, World

from .data import BACKENDS, node_identities
from .lab import EPOCH, WORLD_ID, WORLD_KEYS, is_valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.config import NodeConfig, RelayConfig
    from zttrio.zerotier.events import Event
    from zttrio.zerotier.identity import Identity

HERE = Endpoint.parse("10.0.0.1/9993")


class Sent(NamedTuple):
    """A packet that the node sent, opened."""

    remote: Endpoint
    verb: int
    payload: bytes
    packet_id: bytes
    suite: int
    raw: bytes


class Puppet:
    """A peer without a mind of its own."""

    def __init__(self, bench: Bench, identity: Identity, endpoint: Endpoint) -> None:
        self.bench = bench
        self.identity = identity
        self.endpoint = endpoint
        self.armor = Armor(identity.agree(bench.node.identity), BACKENDS[0])

    @property
    def address(self) -> bytes:
        return self.identity.address

    def packet(
        self,
        verb: int,
        payload: bytes = b"",
        *,
        suite: int = SUITE_AES,
        hops: int = 0,
        to: bytes | None = None,
    ) -> bytes:
        """A sealed packet, for the node under test unless *to* says otherwise."""
        route = (self.bench.node.address if to is None else to) + self.address
        packet_id = self.bench.random.randbytes(8)
        envelope = bytes((verb,)) + payload
        sealed = self.armor.seal(packet_id, route, envelope, suite, fragmented=False)
        return with_hops(sealed, hops)

    def hello(
        self,
        *,
        protocol: int = 12,
        hops: int = 0,
        timestamp: int = 77,
        planet: tuple[int, int] = (WORLD_ID, 1),
        moons: Sequence[tuple[int, int]] = (),
        sent_to: Endpoint | None = HERE,
        identity: Identity | None = None,
        tail: bytes | None = None,
    ) -> bytes:
        """A sealed HELLO."""
        identity = (self.identity if identity is None else identity).without_secret()
        hello = Hello(protocol, (1, 2, 3), timestamp, identity, sent_to, planet)
        packet_id = self.bench.random.randbytes(8)
        plain = messages.emit_moons(moons) if tail is None else tail
        envelope = bytes((messages.HELLO,)) + hello.emit()
        envelope += self.armor.hello_tail(packet_id, plain)
        route = self.bench.node.address + self.address
        sealed = self.armor.seal(packet_id, route, envelope, SUITE_PLAIN, fragmented=False)
        return with_hops(sealed, hops)

    def send(
        self,
        verb: int,
        payload: bytes = b"",
        *,
        at: Endpoint | None = None,
        suite: int = SUITE_AES,
        hops: int = 0,
    ) -> list[Sent]:
        """Send a message; returns what the node sends in response."""
        return self.deliver(self.packet(verb, payload, suite=suite, hops=hops), at=at)

    def deliver(self, datagram: bytes, *, at: Endpoint | None = None) -> list[Sent]:
        """Send octets; returns what the node sends in response."""
        return self.bench.receive(datagram, self.endpoint if at is None else at)

    def answer(self, sent: Sent, *, at: Endpoint | None = None, data: bytes = b"") -> list[Sent]:
        """Answer something the node sent, as a well-behaved peer would."""
        if sent.verb == messages.HELLO:
            data = HelloAnswer(77, 12, (1, 2, 3), HERE).emit() + data
        payload = messages.emit_ok(sent.verb, sent.packet_id, data)
        return self.send(messages.OK, payload, at=at)

    def meet(self, at: Endpoint | None = None) -> None:
        """Become a peer with a confirmed path, as it happens in real life."""
        sent = self.deliver(self.hello(), at=at)
        confirmation = [s for s in sent if s.verb == messages.HELLO]
        assert len(confirmation) == 1, sent
        self.answer(confirmation[0], at=at)
        assert (0, self.endpoint if at is None else at) in self.bench.paths(self)


class Bench:
    """A node, time, and everything it sends."""

    def __init__(
        self,
        *,
        config: NodeConfig | None = None,
        relay: RelayConfig | None = None,
        root: str | None = "10.9.9.9/9993",
        planet_timestamp: int = 1,
        identity: Identity | None = None,
    ) -> None:
        self.random = random.Random(3)
        self.now = 5000.0
        self._identities = iter(node_identities())
        self.node = Node(
            next(self._identities) if identity is None else identity,
            rng=random.Random(4).randbytes,
            backend=BACKENDS[0],
            epoch=EPOCH,
            config=config,
            relay=relay,
        )
        self.node.set_sockets({0: 4, 1: 16}, [HERE])
        self.puppets: dict[bytes, Puppet] = {}
        self.events: list[Event] = []
        self.planet: World | None = None
        if root is not None:
            self.root = self.puppet(root)
            listed = Root(self.root.identity.without_secret(), (self.root.endpoint,))
            self.planet = World.make(
                PLANET, WORLD_ID, planet_timestamp, [listed], signer=WORLD_KEYS
            )
            self.node.set_world(self.planet, self.now)
        self.node.start(self.now)
        self.starting = self.collect()

    def puppet(self, endpoint: str, identity: Identity | None = None) -> Puppet:
        """A new peer, unknown to the node."""
        if identity is None:
            identity = next(self._identities)
        puppet = Puppet(self, identity, Endpoint.parse(endpoint))
        self.puppets[puppet.address] = puppet
        return puppet

    def friend(self, endpoint: str) -> Puppet:
        """A new peer that the node knows, with a confirmed path."""
        puppet = self.puppet(endpoint)
        self.node.add_peer(puppet.identity.without_secret(), (), self.now)
        puppet.meet()
        self.now += 1.1  # past the gate of HELLOs to one path
        return puppet

    def online(self) -> Puppet:
        """Let the root answer; returns it."""
        hello = next(s for s in self.starting if s.remote == self.root.endpoint)
        self.root.answer(hello)
        return self.root

    def receive(self, datagram: bytes, remote: Endpoint, local: int = 0) -> list[Sent]:
        """Give the node a datagram; identities to check are checked at once."""
        self.node.receive(local, remote, datagram, self.now)
        self.check_identities()
        return self.collect()

    def check_identities(self) -> None:
        while (identity := self.node.next_validation()) is not None:
            self.node.identity_checked(identity, self.now, is_valid=is_valid(identity))

    def wait(self, seconds: float) -> list[Sent]:
        """Let time pass; returns what the node sends meanwhile."""
        end = self.now + seconds
        sent = []
        while (when := self.node.next_timer()) is not None and when <= end:
            self.now = max(self.now, when)
            self.node.handle_timers(self.now)
            sent += self.collect()
        self.now = end
        return sent

    def collect(self) -> list[Sent]:
        """What the node has sent; datagrams that are no packets have verb -1."""
        self.events += self.node.take_events()
        return [self._open(d.remote, d.data) for d in self.node.datagrams_to_send()]

    def collect_events(self) -> list[Event]:
        """Everything that happened so far."""
        self.events += self.node.take_events()
        return self.events

    def paths(self, puppet: Puppet) -> set[tuple[int, Endpoint]]:
        peer = self.node.topology.peers.get(puppet.address)
        return set() if peer is None else set(peer.paths)

    def is_online(self) -> bool:
        return self.node.is_online

    def check_totals(self) -> None:
        """Every datagram and every packet has exactly one outcome."""
        counted = self.node.counters.as_dict()
        assert sum(counted[name] for name in DATAGRAM_OUTCOMES) == counted["datagrams_in"]
        assert (
            sum(counted[name] for name in PACKET_OUTCOMES) + self.node.waiting
            == counted["packets_in"]
            == counted["packets_whole"] + counted["fragment_completed"]
        )

    def _open(self, remote: Endpoint, raw: bytes) -> Sent:
        puppet = self.puppets.get(raw[8:13])
        if len(raw) < 28 or puppet is None or raw[13:18] != self.node.address:
            return Sent(remote, -1, b"", b"", -1, raw)
        envelope = puppet.armor.open(raw)
        assert envelope is not None
        payload = envelope[1:]
        if envelope[0] & messages.COMPRESSED:
            payload = decompress(payload)
        verb = envelope[0] & messages.VERB_MASK
        return Sent(remote, verb, payload, raw[:8], raw[18] >> 3 & 7, raw)


def with_hops(packet: bytes, hops: int) -> bytes:
    """The same packet after some relays."""
    return packet[:18] + bytes((packet[18] & 0xF8 | hops,)) + packet[19:]


def verbs(sent: list[Sent]) -> list[str]:
    """What was sent, for assertions that read well."""
    return [messages.verb_name(s.verb) if s.verb >= 0 else "junk" for s in sent]
