"""What has to be said without being asked: HELLO to roots, ECHO on quiet paths (12.4, 13.4)."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .constants import HELLO_PERIOD, PATH_ALIVE, PATH_HEARTBEAT
from .events import Offline, Online, PathLost

if TYPE_CHECKING:
    from .config import NodeConfig
    from .endpoint import Endpoint
    from .events import Events
    from .identity import Randomness
    from .learning import Learning
    from .peer import Path, Peer
    from .sender import Sender
    from .topology import Topology

__all__ = ["Upkeep"]

_TRAFFIC_TIME = 500.0


class Upkeep:
    """The five-second tick: roots, paths in use, moons still wanted, and whether we are online."""

    def __init__(
        self,
        topology: Topology,
        sender: Sender,
        learning: Learning,
        config: NodeConfig,
        rng: Randomness,
        events: Events,
    ) -> None:
        self.is_online = False
        self._topology = topology
        self._sender = sender
        self._learning = learning
        self._config = config
        self._rng = rng
        self._events = events
        self._root_heard = -inf
        learning.on_root = self.root_heard

    def root_heard(self, now: float) -> None:
        """A root has sent us an authentic packet."""
        self._root_heard = now
        self._set_online(now)

    def tick(self, now: float) -> None:
        """Send what is due.  Called every 5 s."""
        self._set_online(now)
        for address in list(self._topology.roots):
            self.contact_root(address, now)
        for peer in self._topology.peers.values():
            if peer.address not in self._topology.roots:
                self._keep_in_touch(peer, now)
            if peer.is_direct and not any(path.is_alive(now) for path in peer.paths.values()):
                peer.is_direct = False
                self._events.add(PathLost(peer.address))
        self.look_for_moons(now)

    def contact_root(self, address: bytes, now: float) -> None:
        """Find a path to a root, or keep the one we have."""
        peer = self._topology.peers[address]
        path = peer.best_path(now)
        if path is None or not path.is_alive(now):
            peer.last_hello = now
            endpoints = self._topology.roots[address].endpoints
            for length in (4, 16):
                choices = [e for e in endpoints if len(e.ip) == length]
                if choices:
                    self._hello(peer, choices[self._rng(1)[0] % len(choices)], now)
            if not endpoints:
                self._hello_through_relay(peer, now)
        elif now - peer.last_hello >= HELLO_PERIOD:
            peer.last_hello = now
            for known in peer.paths.values():
                if known.is_usable(now):
                    self._sender.send_hello(peer, known.local, known.remote, now, known)
        elif _is_due(path, now):
            self._sender.keep_alive(peer, path, now)

    def greet(self, peer: Peer, endpoint: Endpoint, now: float) -> None:
        """Try a peer at an address where it was once, as a cache remembers (12.5)."""
        if self._learning.may_use(peer, endpoint):
            self._hello(peer, endpoint, now)

    def look_for_moons(self, now: float) -> None:
        """Ask the seeds of moons that we want and do not hold."""
        topology = self._topology
        for moon_id, seed in topology.wanted_moons.items():
            if moon_id in topology.moons or seed == topology.identity.address:
                continue
            peer = topology.peers.get(seed)
            if peer is None:
                self._sender.whois.ask(seed, now)
                continue
            path = peer.best_path(now)
            if path is not None:
                self._sender.send_hello(peer, path.local, path.remote, now, path)
            else:
                self._hello_through_relay(peer, now)

    def _keep_in_touch(self, peer: Peer, now: float) -> None:
        if now - peer.last_traffic >= _TRAFFIC_TIME:
            return
        usable = [path for path in peer.paths.values() if path.is_usable(now)]
        if now - peer.last_hello >= HELLO_PERIOD:
            peer.last_hello = now
            for path in usable:
                self._sender.send_hello(peer, path.local, path.remote, now, path)
            return
        for path in usable:
            if _is_due(path, now):
                self._sender.keep_alive(peer, path, now)

    def _hello(self, peer: Peer, endpoint: Endpoint, now: float) -> None:
        for local in self._sender.sockets_for(endpoint):
            self._sender.send_hello(peer, local, endpoint, now)

    def _hello_through_relay(self, peer: Peer, now: float) -> None:
        relay = self._topology.best_root(now, but_not=peer.address)
        if relay is not None:
            path = relay[1]
            self._sender.send_hello(peer, path.local, path.remote, now, path)

    def _set_online(self, now: float) -> None:
        is_online = now - self._root_heard < self._config.online_timeout or self._topology.is_root
        if is_online != self.is_online:
            self.is_online = is_online
            self._events.add(Online() if is_online else Offline())


def _is_due(path: Path, now: float) -> bool:
    """True if a path needs a sign of life: from us, or soon from the other side.

    The reference looks at what it sent only; then a path that carries one-way traffic, or loses
    a few packets, counts as dead now and then.
    """
    return (
        now - path.last_send >= PATH_HEARTBEAT
        or PATH_HEARTBEAT <= now - path.last_receive < PATH_ALIVE
    )
