"""How packets leave: which way to a peer, sealed for it, cut, and kept while nothing is known.

The order of ways is a direct path that is alive, a root that relays, a direct path that has gone
silent (VL1 specification, 10).  A path that has gone silent is probed while the root relays.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import attrs

from . import messages
from .armor import SUITE_AES, SUITE_PLAIN, SUITE_SALSA
from .compression import compress as lz4_compress
from .constants import (
    MAX_FRAGMENTS,
    MAX_PACKET,
    PROTOCOL_AES,
    PROTOCOL_ECHO,
    TICK,
    WAITING_TIME,
)
from .expected import Expectation, Expected
from .fragment import datagram_count, split
from .gate import Gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import NodeConfig
    from .counters import Counters
    from .endpoint import Endpoint
    from .identity import Randomness
    from .peer import Path, Peer
    from .topology import Topology
    from .whois import Whois

__all__ = ["Datagram", "Sender"]

_WAITING = 32
_HEAD = 27  # octets of a packet in front of its envelope
_PROBE_INTERVAL = 1.0  # HELLO to one unconfirmed path (15)
_PROBE_KEYS = 4096  # arbitrary
_ANSWERABLE = frozenset(
    (
        messages.HELLO,
        messages.WHOIS,
        messages.ECHO,
        messages.EXT_FRAME,
        messages.NETWORK_CONFIG_REQUEST,
        messages.NETWORK_CONFIG,
        messages.MULTICAST_GATHER,
        messages.MULTICAST_FRAME,
    )
)


class Datagram(NamedTuple):
    """What a socket has to send.

    Attributes:
        local: which socket.
        remote: where to.
        data: the UDP payload.
        ttl: hop limit of the IP packet, 0 for the system's own.
    """

    local: int
    remote: Endpoint
    data: bytes
    ttl: int = 0


@attrs.define(eq=False)
class _Waiting:
    """A message without a way, or without the identity of whom it is for."""

    address: bytes
    verb: int
    payload: bytes
    compress: bool
    context: object
    since: float


class Sender:
    """Everything between a message and its datagrams.

    Args:
        topology: where peers and roots are.
        config: for the MTU and for what HELLO says.
        rng: for packet IDs.
        counters: where drops are counted.
        epoch: seconds from 1970 to the zero of ``now``, for the timestamp in HELLO.
    """

    def __init__(
        self,
        topology: Topology,
        config: NodeConfig,
        rng: Randomness,
        counters: Counters,
        epoch: float,
    ) -> None:
        self.expected = Expected()
        self.sockets: dict[int, int] = {}
        """Length of an address (4 or 16) by socket number."""
        self.whois: Whois  # each needs the other
        self._topology = topology
        self._config = config
        self._rng = rng
        self._counters = counters
        self._epoch = epoch
        self._outbox: list[Datagram] = []
        self._waiting: deque[_Waiting] = deque()
        # Two gates: the other side's probe often arrives right behind our own, and then a HELLO
        # has to follow, because it may not answer our ECHO so soon after another one.
        self._probed: Gate[tuple[int, Endpoint]] = Gate(_PROBE_INTERVAL, _PROBE_KEYS)
        self._asked: Gate[tuple[int, Endpoint]] = Gate(_PROBE_INTERVAL, _PROBE_KEYS)

    def take(self) -> list[Datagram]:
        """The datagrams to send, in order; the outbox is empty afterwards."""
        datagrams = self._outbox
        if datagrams:
            self._outbox = []
        return datagrams

    # messages

    def send(
        self,
        address: bytes,
        verb: int,
        payload: bytes,
        now: float,
        *,
        compress: bool = False,
        context: object = None,
    ) -> bytes | None:
        """Send a message by the best way, or keep it for 5 s until there is one.

        Args:
            address: whom it is for.
            verb: what it is.
            payload: what stands behind the verb.
            now: seconds.
            compress: True to try LZ4.
            context: comes back with an OK.

        Returns:
            The packet ID if it could be sent at once.
        """
        peer = self._topology.peers.get(address)
        way = None if peer is None else self.find_way(peer, now)
        if peer is None or way is None:
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft()
                self._counters.send_waiting_evicted += 1
            self._waiting.append(_Waiting(address, verb, payload, compress, context, now))
            if peer is None:
                self.whois.ask(address, now)
            return None
        return self.send_by(peer, way, verb, payload, now, compress=compress, context=context)

    def send_burst(self, address: bytes, verb: int, payloads: Sequence[bytes], now: float) -> None:
        """Send messages that nobody answers, in order, all by one way; otherwise as `send`."""
        peer = self._topology.peers.get(address)
        way = None if peer is None else self.find_way(peer, now)
        if peer is None or way is None:
            for payload in payloads:
                self.send(address, verb, payload, now)
            return
        way.last_send = now
        local, remote = way.local, way.remote
        suite = SUITE_AES if peer.protocol >= PROTOCOL_AES else SUITE_SALSA
        route = address + self._topology.identity.address
        longest = self._config.mtu - _HEAD  # that is one datagram
        head = bytes((verb,))
        packet_ids = self._rng(8 * len(payloads))
        seal = peer.armor.seal
        counters = self._counters
        at = 0
        for payload in payloads:
            envelope = head + payload
            packet_id = packet_ids[at : at + 8]
            at += 8
            if len(envelope) > longest:
                self._seal(peer, local, remote, envelope, suite, packet_id)
                continue
            packet = seal(packet_id, route, envelope, suite, fragmented=False)
            counters.packets_out += 1
            self._put(Datagram(local, remote, packet))

    def find_way(self, peer: Peer, now: float) -> Path | None:
        """The path (the peer's, or that of a root which relays) that packets to *peer* take."""
        direct = peer.best_path(now)
        if direct is not None and direct.is_alive(now):
            return direct
        if peer.address in self._topology.roots:
            return direct  # a root that asks another root to relay to it would be a riddle
        relay = self._topology.best_root(now)
        if relay is None or not relay[1].is_alive(now):
            return direct if direct is not None or relay is None else relay[1]
        if direct is not None:
            self.probe(peer, direct.local, direct.remote, now)
        if not peer.protocol and now - peer.last_greeting >= TICK:
            # Without a HELLO neither side ever learns that the other speaks AES.
            peer.last_greeting = now
            self.send_hello(peer, relay[1].local, relay[1].remote, now, path=relay[1])
        return relay[1]

    def send_by(
        self,
        peer: Peer,
        path: Path,
        verb: int,
        payload: bytes,
        now: float,
        *,
        compress: bool = False,
        context: object = None,
    ) -> bytes | None:
        """Send a message to *peer* over *path*; see `send`."""
        path.last_send = now
        return self.send_to(
            peer, path.local, path.remote, verb, payload, now, compress=compress, context=context
        )

    def send_to(
        self,
        peer: Peer,
        local: int,
        remote: Endpoint,
        verb: int,
        payload: bytes,
        now: float,
        *,
        compress: bool = False,
        context: object = None,
    ) -> bytes | None:
        """Send a message to *peer* to exactly this endpoint; returns its packet ID."""
        if compress and (block := lz4_compress(payload)) is not None:
            envelope = b"%c%b" % (verb | messages.COMPRESSED, block)
        else:
            envelope = b"%c%b" % (verb, payload)
        suite = SUITE_AES if peer.protocol >= PROTOCOL_AES else SUITE_SALSA
        packet_id = self._seal(peer, local, remote, envelope, suite, self._rng(8))
        if packet_id is not None and verb in _ANSWERABLE:
            self.expected.note(packet_id, Expectation(peer.address, verb, now, remote, context))
        return packet_id

    def send_junk(self, local: int, remote: Endpoint) -> None:
        """Open our own NAT towards *remote* with a datagram that dies on its way (11.5)."""
        self._put(Datagram(local, remote, self._rng(4), 2))

    def forward(self, path: Path, datagram: bytes, now: float) -> None:
        """Send somebody else's datagram on."""
        path.last_send = now
        self._put(Datagram(path.local, path.remote, datagram))

    # HELLO and probes

    def send_hello(
        self, peer: Peer, local: int, remote: Endpoint, now: float, path: Path | None = None
    ) -> None:
        """Send HELLO to *peer* to exactly this endpoint, which may be a relay's (11.2)."""
        if path is not None:
            path.last_send = now
        planet = self._topology.planet
        hello = messages.Hello(
            self._config.protocol,
            self._config.version,
            int((self._epoch + now) * 1000),
            self._topology.identity,
            remote,
            None if planet is None else (planet.id, planet.timestamp),
        )
        packet_id = self._rng(8)
        moons = messages.emit_moons(self._topology.moon_revisions())
        tail = peer.armor.hello_tail(packet_id, moons)
        envelope = b"%c%b%b" % (messages.HELLO, hello.emit(), tail)
        self._counters.hellos_out += 1
        if self._seal(peer, local, remote, envelope, SUITE_PLAIN, packet_id) is not None:
            self.expected.note(packet_id, Expectation(peer.address, messages.HELLO, now, remote))

    def confirm(self, peer: Peer, local: int, remote: Endpoint, now: float) -> None:
        """Ask *peer* whether it really is at *remote*: a HELLO, at most one a second (12.1)."""
        if self._asked.allows((local, remote), now):
            self.send_hello(peer, local, remote, now)

    def probe(self, peer: Peer, local: int, remote: Endpoint, now: float) -> None:
        """Try a path that somebody has hinted at: the answer confirms it (11.5)."""
        if not self._probed.allows((local, remote), now):
            return
        if peer.protocol >= PROTOCOL_ECHO:
            self.send_to(peer, local, remote, messages.ECHO, b"", now)
        else:
            self.send_hello(peer, local, remote, now)

    def keep_alive(self, peer: Peer, path: Path, now: float) -> None:
        """Make *peer* answer over *path*, as cheaply as it can."""
        if peer.protocol >= PROTOCOL_ECHO:
            self.send_by(peer, path, messages.ECHO, b"", now)
        else:
            self.send_hello(peer, path.local, path.remote, now, path)

    def sockets_for(self, remote: Endpoint) -> list[int]:
        """Our sockets of the family of *remote*."""
        return [local for local, length in self.sockets.items() if length == len(remote.ip)]

    # waiting

    @property
    def is_waiting(self) -> bool:
        """True while messages wait for a way."""
        return bool(self._waiting)

    def waiting_addresses(self, now: float) -> list[bytes]:
        """Whom messages wait for; those that have waited too long are dropped."""
        waiting = self._waiting
        while waiting and now - waiting[0].since >= WAITING_TIME:
            waiting.popleft()
            self._counters.send_waiting_timeout += 1
        return list(dict.fromkeys(item.address for item in waiting))

    def retry(self, now: float) -> None:
        """Send what has a way now."""
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            peer = self._topology.peers.get(item.address)
            way = None if peer is None else self.find_way(peer, now)
            if peer is None or way is None:
                self._waiting.append(item)
            else:
                self.send_by(
                    peer,
                    way,
                    item.verb,
                    item.payload,
                    now,
                    compress=item.compress,
                    context=item.context,
                )

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""
        self.expected.expire(now)
        self._probed.expire(now)
        self._asked.expire(now)

    # datagrams

    def _seal(
        self,
        peer: Peer,
        local: int,
        remote: Endpoint,
        envelope: bytes,
        suite: int,
        packet_id: bytes,
    ) -> bytes | None:
        length = _HEAD + len(envelope)
        mtu = self._config.mtu
        count = datagram_count(length, mtu)
        if length > MAX_PACKET or count > MAX_FRAGMENTS:
            self._counters.packet_too_long += 1
            return None
        route = peer.address + self._topology.identity.address
        packet = peer.armor.seal(packet_id, route, envelope, suite, fragmented=count > 1)
        self._counters.packets_out += 1
        if count == 1:
            self._put(Datagram(local, remote, packet))
        else:
            for part in split(packet, mtu):
                self._put(Datagram(local, remote, part))
        return packet[:8]

    def _put(self, datagram: Datagram) -> None:
        self._counters.datagrams_out += 1
        self._counters.octets_out += len(datagram.data)
        self._outbox.append(datagram)
