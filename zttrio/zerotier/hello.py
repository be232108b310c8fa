"""HELLO and its answer: how two nodes get to know each other (VL1 specification, 11.2).

An identity that nobody here has seen costs real work to check, so strangers pass three tests in
order of price: a rate limit, the packet's MAC, and the memory-hard digest.  The last runs outside
(see `Greeter.next_validation`), one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from zttrio.errors import HeaderError

from . import messages
from .constants import MIN_PROTOCOL, PROTOCOL_ECHO
from .endpoint import Endpoint
from .events import Message, PeerKnown, WorldUpdated
from .gate import Gate
from .messages import Hello, HelloAnswer
from .peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from .armor import Armor
    from .config import NodeConfig
    from .counters import Counters
    from .events import Events
    from .expected import Expectation
    from .identity import Identity
    from .learning import Learning
    from .sender import Sender
    from .topology import Topology
    from .world import World

__all__ = ["Greeter"]

_GATE_KEYS = 16_384  # as many as the reference has
_PENDING_TIME = 10.0  # arbitrary: senders repeat a HELLO after 5 s
_WORLD_INTERVAL = 5.0  # arbitrary: a world is the only long answer that a stranger can get


@attrs.define(eq=False)
class _Greeting:
    """A HELLO whose MAC is right."""

    packet: bytes
    hello: Hello
    armor: Armor
    local: int
    remote: Endpoint


@attrs.define(eq=False)
class _Pending:
    """An identity that waits for the memory-hard check."""

    since: float
    greeting: _Greeting | None  # None if a root told us
    is_started: bool = False


class Greeter:
    """Answers HELLOs, reads their answers, and keeps the identities that have to be checked."""

    def __init__(
        self,
        topology: Topology,
        sender: Sender,
        learning: Learning,
        config: NodeConfig,
        counters: Counters,
        events: Events,
    ) -> None:
        self.on_peer: Callable[[bytes, float], None]
        """Called with the address of a peer that has just become known."""
        self._topology = topology
        self._sender = sender
        self._learning = learning
        self._config = config
        self._counters = counters
        self._events = events
        self._pending: dict[Identity, _Pending] = {}
        self._gate: Gate[bytes] = Gate(config.validation_interval, _GATE_KEYS)

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def waiting(self) -> int:
        """HELLOs that wait for the check of their sender's identity."""
        return sum(pending.greeting is not None for pending in self._pending.values())

    # HELLO

    def receive(self, packet: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Take in a packet of suite 0 whose verb is HELLO."""
        counters = self._counters
        if packet[27] != messages.HELLO:  # it is never compressed
            counters.hello_malformed += 1
            return
        try:
            hello = Hello.parse(packet[28:])
        except HeaderError:
            counters.hello_malformed += 1
            return
        if hello.protocol < MIN_PROTOCOL:
            counters.hello_old_protocol += 1
            return
        source = packet[13:18]
        if hello.identity.address != source:
            counters.hello_wrong_address += 1
            return
        peer = self._topology.peers.get(source)
        if peer is None:
            self._receive_stranger(packet, hello, local, remote, now)
        elif peer.identity != hello.identity:
            self._receive_collision(packet, hello, local, remote, now)
        elif peer.armor.open(packet) is None:
            counters.hello_unauthentic += 1
            peer.bad_packets += 1
        else:
            self._greet(peer, _Greeting(packet, hello, peer.armor, local, remote), now)

    def _receive_stranger(
        self, packet: bytes, hello: Hello, local: int, remote: Endpoint, now: float
    ) -> None:
        counters = self._counters
        if not self._gate.allows(_bucket(remote), now):
            counters.hello_gated += 1
            return
        greeting = self._authenticate(packet, hello, local, remote)
        if greeting is None:
            counters.hello_unauthentic += 1
            return
        pending = self._pending.get(hello.identity)
        if pending is not None:
            if pending.greeting is not None:
                counters.hello_gated += 1  # the newer one takes its place
            pending.greeting = greeting
        elif len(self._pending) >= self._config.validation_queue:
            counters.hello_validation_full += 1
        else:
            self._pending[hello.identity] = _Pending(now, greeting)

    def _receive_collision(
        self, packet: bytes, hello: Hello, local: int, remote: Endpoint, now: float
    ) -> None:
        """Tell somebody that the address is taken; the first identity keeps it."""
        if not self._gate.allows(_bucket(remote), now):
            self._counters.hello_collision_gated += 1
            return
        greeting = self._authenticate(packet, hello, local, remote)
        if greeting is None:
            self._counters.hello_unauthentic += 1
            return
        self._counters.hello_collision += 1
        stranger = Peer(hello.identity, greeting.armor, now, protocol=hello.protocol)
        error = messages.emit_error(messages.HELLO, packet[:8], messages.COLLISION)
        self._sender.send_to(stranger, local, remote, messages.ERROR, error, now)

    def _authenticate(
        self, packet: bytes, hello: Hello, local: int, remote: Endpoint
    ) -> _Greeting | None:
        try:
            armor = self._topology.make_armor(hello.identity)
        except HeaderError:
            return None
        if armor.open(packet) is None:
            return None
        return _Greeting(packet, hello, armor, local, remote)

    def _greet(self, peer: Peer, greeting: _Greeting, now: float) -> None:
        """Answer an authentic HELLO of a known peer."""
        packet, hello = greeting.packet, greeting.hello
        packet_id = packet[:8]
        try:
            tail = peer.armor.hello_tail(packet_id, packet[28 + hello.length :])
            moons = messages.parse_moons(tail)
        except HeaderError:
            self._counters.hello_malformed += 1
            return
        self._counters.packet_handled += 1
        hops = packet[18] & 7
        message = Message(
            peer, greeting.local, greeting.remote, hops, packet_id, messages.HELLO, b""
        )
        # Stored before the answer is sealed, so that the answer can be in AES already.
        peer.protocol = hello.protocol
        peer.version = hello.version
        peer.moons = tuple(moons)
        seen_from = greeting.remote
        if hello.protocol < PROTOCOL_ECHO:
            seen_from = Endpoint(seen_from.ip, 0)
        answer = HelloAnswer(
            hello.timestamp,
            self._config.protocol,
            self._config.version,
            seen_from,
            self._newer_worlds(peer, hello, moons, now),
        )
        payload = messages.emit_ok(messages.HELLO, packet_id, answer.emit())
        self._sender.send_to(peer, greeting.local, greeting.remote, messages.OK, payload, now)
        if hello.sent_to is not None and hops == 0:
            self._learning.report_surface(message, hello.sent_to, now)
        self._learning.received(message, now)

    def _newer_worlds(
        self, peer: Peer, hello: Hello, moons: list[tuple[int, int]], now: float
    ) -> bytes:
        newer: list[World] = []
        planet = self._topology.planet
        if planet is not None and hello.planet is not None:
            world_id, timestamp = hello.planet
            if world_id == planet.id and timestamp < planet.timestamp:
                newer.append(planet)
        for moon_id, timestamp in moons:
            moon = self._topology.moons.get(moon_id)
            if moon is not None and timestamp < moon.timestamp and moon not in newer:
                newer.append(moon)
        if not newer or now - peer.last_world_sent < _WORLD_INTERVAL:
            return b""
        peer.last_world_sent = now
        return b"".join(world.emit() for world in newer)

    # OK(HELLO)

    def receive_answer(
        self, message: Message, expectation: Expectation, data: bytes, now: float
    ) -> bool:
        """Take in an OK(HELLO) that was expected; False if it is to be ignored.

        Raises:
            HeaderError: it is malformed.
        """
        answer = HelloAnswer.parse(data)
        if answer.protocol < MIN_PROTOCOL:
            return False
        peer = message.peer
        sender_may_update = (
            peer.address in self._topology.roots
            or peer.address in self._topology.wanted_moons.values()
        )
        worlds = messages.parse_worlds(answer.worlds) if sender_may_update else []
        peer.protocol = answer.protocol
        peer.version = answer.version
        self._learning.received(message, now, expectation)
        if answer.seen_from is not None and message.hops == 0:
            self._learning.report_surface(message, answer.seen_from, now)
        for world in worlds:
            if self._topology.offer_world(world, peer.address, now):
                self._counters.worlds_accepted += 1
                self._events.add(WorldUpdated(world))
            else:
                self._counters.worlds_rejected += 1
        return True

    # checking identities

    def learn(self, identity: Identity, now: float) -> None:
        """Take in an identity that a root has told us, after checking it if so configured."""
        if identity.address in self._topology.peers:
            return
        if not self._config.validate_whois:
            self._add(identity, None, now)
        elif identity in self._pending:
            return
        elif len(self._pending) >= self._config.validation_queue:
            self._counters.whois_validation_full += 1
        else:
            self._pending[identity] = _Pending(now, None)

    def is_checking(self, address: bytes) -> bool:
        """True while an identity with *address* waits for its check."""
        return any(identity.address == address for identity in self._pending)

    @property
    def has_validations(self) -> bool:
        """True if `next_validation` has one to give."""
        return any(not pending.is_started for pending in self._pending.values())

    def next_validation(self) -> Identity | None:
        """The next identity to check with `Identity.is_valid`, or None.

        Whoever takes one answers with `checked`.
        """
        for identity, pending in self._pending.items():
            if not pending.is_started:
                pending.is_started = True
                return identity
        return None

    def checked(self, identity: Identity, now: float, *, is_valid: bool) -> None:
        """Go on with an identity from `next_validation`."""
        pending = self._pending.pop(identity, None)
        if pending is None:
            return
        if is_valid:
            self._add(identity, pending.greeting, now)
        elif pending.greeting is None:
            self._counters.whois_identity_invalid += 1
        else:
            self._counters.hello_invalid += 1

    def expire(self, now: float) -> None:
        """Give up on identities that waited too long for a worker."""
        self._gate.expire(now)
        for identity, pending in list(self._pending.items()):
            if not pending.is_started and now - pending.since >= _PENDING_TIME:
                del self._pending[identity]
                if pending.greeting is not None:
                    self._counters.hello_validation_timeout += 1

    def _add(self, identity: Identity, greeting: _Greeting | None, now: float) -> None:
        armor = None if greeting is None else greeting.armor
        peer = self._topology.add_peer(identity, now, armor)
        if peer is None:
            if greeting is not None:
                self._counters.hello_collision += 1
            return
        self._events.add(PeerKnown(peer.address))
        if greeting is not None:
            self._greet(peer, greeting, now)
        self.on_peer(peer.address, now)


def _bucket(remote: Endpoint) -> bytes:
    """Whom the price of a new identity counts against: an IPv4 /24 or an IPv6 /48 (15)."""
    return remote.ip[:3] if len(remote.ip) == 4 else remote.ip[:6]
