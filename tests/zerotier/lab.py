"""A physical internet in virtual time: hosts, NATs, delay and loss, driving real `Node` objects.

Nothing here is random except what follows from the seed, so a run that fails fails again.
"""

from __future__ import annotations

import heapq
import random
from enum import Enum
from functools import cache, partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import Identity, KeyPair
from zttrio.zerotier.node import Node
from zttrio.zerotier.world import PLANET, Root, World

from .data import BACKENDS, node_identities

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.events import Event
    from zttrio.zerotier.network.networks import NetworkEvent, Networks

E = TypeVar("E")

EPOCH = 1_700_000_000.0
WORLD_ID = 0x1122334455667788
WORLD_KEYS = KeyPair.generate(random.Random(1).randbytes)


@cache
def is_valid(identity: Identity) -> bool:
    """The memory-hard check, done once per identity; our own test data passes it by definition."""
    return identity in node_identities() or identity.is_valid(BACKENDS[0])


class NatKind(Enum):
    """What RFC 4787 and everybody before it calls them."""

    FULL_CONE = "full cone"
    RESTRICTED = "restricted"
    PORT_RESTRICTED = "port restricted"
    SYMMETRIC = "symmetric"


class Nat:
    """One public IP address in front of any number of hosts."""

    TIMEOUT = 60.0

    def __init__(self, kind: NatKind, ip: bytes) -> None:
        self.kind = kind
        self.ip = ip
        self._ports = count(20_000)
        self._mapped: dict[tuple[Endpoint, Endpoint | None], tuple[int, float]] = {}
        self._inside: dict[int, Endpoint] = {}
        self._contacted: dict[tuple[int, Endpoint], float] = {}

    def outgoing(self, source: Endpoint, destination: Endpoint, now: float) -> Endpoint:
        key = (source, destination if self.kind is NatKind.SYMMETRIC else None)
        port, last = self._mapped.get(key, (0, -1e9))
        if now - last > self.TIMEOUT:
            port = next(self._ports)
            self._inside[port] = source
        self._mapped[key] = (port, now)
        self._contacted[port, destination] = now
        return Endpoint(self.ip, port)

    def incoming(self, port: int, source: Endpoint, now: float) -> Endpoint | None:
        inside = self._inside.get(port)
        fresh = [e for (p, e), last in self._contacted.items() if p == port and now - last <= 60]
        if inside is None or not fresh:
            return None
        if self.kind is NatKind.FULL_CONE:
            allowed = True
        elif self.kind is NatKind.RESTRICTED:
            allowed = any(e.ip == source.ip for e in fresh)
        else:
            allowed = source in fresh
        return inside if allowed else None

    def renumber(self, ip: bytes) -> None:
        """The provider gives us another address; every mapping is gone."""
        self.ip = ip
        self._mapped.clear()
        self._inside.clear()
        self._contacted.clear()


class Host:
    """A machine with one UDP socket and one node."""

    def __init__(
        self, lab: Lab, name: str, node: Node, endpoint: Endpoint, nat: Nat | None
    ) -> None:
        self.lab = lab
        self.name = name
        self.node = node
        self.endpoint = endpoint
        self.nat = nat
        self.is_up = True
        self.events: list[Event] = []
        self.sent: list[tuple[float, Endpoint, bytes]] = []
        """What left, if `keep` is set."""
        self.keep = False
        self.networks: Networks | None = None
        """The node's virtual networks, if it has any."""
        self.network_events: list[tuple[float, NetworkEvent]] = []
        self.wake_at: float | None = None

    @property
    def address(self) -> bytes:
        return self.node.address

    def start(self) -> None:
        self.node.start(self.lab.now)
        self.flush()

    def flush(self) -> None:
        """Do for the node what its task does."""
        lab, node = self.lab, self.node
        for datagram in node.datagrams_to_send():
            if self.keep:
                self.sent.append((lab.now, datagram.remote, datagram.data))
            if self.is_up:
                lab.transmit(self, datagram.remote, datagram.data, datagram.ttl)
        self.events += node.take_events()
        when = node.next_timer()
        if self.networks is not None:
            self.network_events += [(lab.now, event) for event in self.networks.take_events()]
            other = self.networks.next_timer()
            when = min((t for t in (when, other) if t is not None), default=None)
        while (identity := node.next_validation()) is not None:
            lab.at(lab.now + 0.1, partial(self._checked, identity))
        if when is not None and (self.wake_at is None or when < self.wake_at):
            self.wake_at = when
            lab.at(when, lambda: self._wake(when))

    def seen(self, kind: type[E]) -> list[E]:
        """Events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def is_direct_to(self, other: Host) -> bool:
        peer = self.node.topology.peers.get(other.address)
        return peer is not None and any(p.is_alive(self.lab.now) for p in peer.paths.values())

    def receive(self, remote: Endpoint, data: bytes) -> None:
        if self.is_up:
            self.node.receive(0, remote, data, self.lab.now)
            self.flush()

    def _wake(self, when: float) -> None:
        if self.wake_at == when:
            self.wake_at = None
            self.node.handle_timers(self.lab.now)
            if self.networks is not None:
                self.networks.handle_timers(self.lab.now)
            self.flush()

    def _checked(self, identity: Identity) -> None:
        self.node.identity_checked(identity, self.lab.now, is_valid=is_valid(identity))
        self.flush()


class Lab:
    """The internet between hosts."""

    def __init__(self, seed: int = 1, *, delay: float = 0.02, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.delay = delay
        self.loss = loss
        self.random = random.Random(seed)
        self.hosts: dict[str, Host] = {}
        self.carried = 0
        self._identities = iter(node_identities())
        self._listening: dict[Endpoint, Host] = {}
        self._nats: dict[bytes, Nat] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.blocked: set[frozenset[bytes]] = set()
        """Pairs of IP addresses between which nothing passes."""

    def host(
        self,
        name: str,
        ip: str,
        *,
        port: int = 9993,
        nat: Nat | None = None,
        config: NodeConfig | None = None,
        relay: RelayConfig | None = None,
        planet: World | None = None,
        identity: Identity | None = None,
    ) -> Host:
        """Add a machine; behind *nat* its own address is a private one."""
        node = Node(
            next(self._identities) if identity is None else identity,
            rng=random.Random(self.random.random()).randbytes,
            backend=BACKENDS[0],
            epoch=EPOCH,
            config=config,
            relay=relay,
        )
        endpoint = Endpoint.parse(f"{ip}/{port}")
        node.set_sockets({0: len(endpoint.ip)}, [endpoint])
        if planet is not None:
            node.set_world(planet, self.now)
        host = self.hosts[name] = Host(self, name, node, endpoint, nat)
        self._listening[endpoint] = host
        if nat is not None:
            self._nats[nat.ip] = nat
        return host

    def root(self, name: str = "root", ip: str = "10.0.0.1", **config: float) -> tuple[Host, World]:
        """A root, and a planet that lists it."""
        identity = next(self._identities)
        endpoint = Endpoint.parse(f"{ip}/9993")
        roots = [Root(identity.without_secret(), (endpoint,))]
        planet = World.make(PLANET, WORLD_ID, 1, roots, signer=WORLD_KEYS)
        host = self.host(
            name,
            ip,
            identity=identity,
            planet=planet,
            relay=RelayConfig(**config),  # type: ignore[arg-type]
            config=NodeConfig(validation_interval=0),
        )
        return host, planet

    def move(self, nat: Nat, ip: bytes) -> None:
        """Give a NAT another public address."""
        del self._nats[nat.ip]
        nat.renumber(ip)
        self._nats[ip] = nat

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            when, _, action = heapq.heappop(self._agenda)
            self.now = max(self.now, when)
            action()
        self.now = end

    def start(self) -> None:
        """Start every node, at slightly different times."""
        for host in self.hosts.values():
            self.at(self.now + self.random.random() * 0.5, host.start)

    def transmit(self, host: Host, remote: Endpoint, data: bytes, ttl: int) -> None:
        """Carry a datagram from *host* to wherever *remote* is."""
        source = host.endpoint
        if host.nat is not None:
            source = host.nat.outgoing(source, remote, self.now)
        if ttl or self.random.random() < self.loss:
            return
        if frozenset((source.ip, remote.ip)) in self.blocked:
            return
        self.at(
            self.now + self.delay * (0.8 + 0.4 * self.random.random()),
            lambda: self._arrive(source, remote, data, host.nat),
        )

    def _arrive(
        self, source: Endpoint, remote: Endpoint, data: bytes, source_nat: Nat | None
    ) -> None:
        self.carried += 1
        target = self._listening.get(remote)
        if target is not None and (target.nat is None or target.nat is source_nat):
            target.receive(source, data)  # public, or behind the same NAT
            return
        nat = self._nats.get(remote.ip)
        inside = None if nat is None else nat.incoming(remote.port, source, self.now)
        if inside is not None:
            self._listening[inside].receive(source, data)
