"""Who is there: the peers we know, the worlds we trust, and the roots that follow from them.

Nothing here sends; `upstream` keeps in touch with the roots and `sender` uses them.
"""

from __future__ import annotations

from math import floor, inf
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError

from .armor import Armor
from .constants import UNKNOWN_LATENCY
from .peer import Path, Peer
from .world import MOON, PLANET, Root, World, is_update

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import NodeConfig
    from .counters import Counters
    from .crypto import Backend
    from .endpoint import Endpoint
    from .identity import Identity

__all__ = ["Topology"]

_SILENCE_STEP = 61.0  # (13.4)
_ROOT_TIMEOUT = 500.0


class Topology:
    """Peers by address, worlds, and roots.

    Args:
        identity: ours, with its secret.
        config: for limits.
        backend: for the peers' keys.
        counters: where evictions are counted.
    """

    def __init__(
        self, identity: Identity, config: NodeConfig, backend: Backend, counters: Counters
    ) -> None:
        self.identity = identity
        self.peers: dict[bytes, Peer] = {}
        self.planet: World | None = None
        self.moons: dict[int, World] = {}
        self.wanted_moons: dict[int, bytes] = {}
        self.roots: dict[bytes, Root] = {}
        """Without ourselves."""
        self.is_root = False
        """True if one of our worlds lists us."""
        self.kept: frozenset[bytes] = frozenset()
        """Peers that the owner wants to know for good."""
        self._config = config
        self._backend = backend
        self._counters = counters
        self._confirmed: dict[tuple[int, Endpoint], int] = {}

    def make_armor(self, identity: Identity) -> Armor:
        """The key we share with *identity*.

        Raises:
            HeaderError: there is no secret to share.
        """
        return Armor(self.identity.agree(identity), self._backend)

    def add_peer(self, identity: Identity, now: float, armor: Armor | None = None) -> Peer | None:
        """The peer with *identity*, made now if it is new.

        The first identity seen for an address keeps it (3.7).

        Returns:
            None if the address belongs to another identity, or is ours, or no key can be agreed.
        """
        if identity.address == self.identity.address:
            return None
        known = self.peers.get(identity.address)
        if known is not None:
            return known if known.identity == identity else None
        if armor is None:
            try:
                armor = self.make_armor(identity)
            except HeaderError:
                return None
        if len(self.peers) >= self._config.peer_limit:
            self._evict()
        peer = self.peers[identity.address] = Peer(identity.without_secret(), armor, now)
        return peer

    def remove_peer(self, peer: Peer) -> None:
        """Forget *peer* and its paths."""
        for path in peer.paths.values():
            self._unconfirm(path)
        del self.peers[peer.address]

    def confirm(self, peer: Peer, local: int, remote: Endpoint, now: float) -> Path:
        """Add a new path of *peer*, which has just answered us from there."""
        before = set(peer.paths)
        path = peer.add_path(local, remote, self._config.paths_per_peer, now)
        self._confirmed[local, remote] = self._confirmed.get((local, remote), 0) + 1
        for key in before - set(peer.paths):
            self._release(key)
        return path

    def is_confirmed(self, local: int, remote: Endpoint) -> bool:
        """True if some peer has a confirmed path from there."""
        return (local, remote) in self._confirmed

    def expire(self, now: float) -> list[Peer]:
        """Forget dead paths, and peers that have been silent too long; returns those peers."""
        gone = []
        for peer in self.peers.values():
            for path in peer.expire_paths(now):
                self._unconfirm(path)
            silence = now - peer.last_receive
            if silence >= self._config.peer_timeout and not self.must_keep(peer.address):
                gone.append(peer)
        for peer in gone:
            self.remove_peer(peer)
        return gone

    def must_keep(self, address: bytes) -> bool:
        """True for peers that stay however silent: roots, seeds of moons, whom the owner wants."""
        return (
            address in self.roots or address in self.kept or address in self.wanted_moons.values()
        )

    # worlds

    def worlds(self) -> list[World]:
        """The planet and the moons that we hold."""
        planet = [] if self.planet is None else [self.planet]
        return planet + list(self.moons.values())

    def moon_revisions(self) -> list[tuple[int, int]]:
        """World ID and timestamp of our moons; 0 for those wanted and not held."""
        held = [(moon.id, moon.timestamp) for moon in self.moons.values()]
        return held + [(moon_id, 0) for moon_id in self.wanted_moons if moon_id not in self.moons]

    def set_world(self, world: World, now: float) -> None:
        """Trust *world*, which comes from our own storage."""
        if world.kind == PLANET:
            self.planet = world
        else:
            self.moons[world.id] = world
        self._find_roots(now)

    def drop_moon(self, moon_id: int, now: float) -> None:
        """Neither want nor hold a moon any longer."""
        self.wanted_moons.pop(moon_id, None)
        self.moons.pop(moon_id, None)
        self._find_roots(now)

    def offer_world(self, world: World, sender: bytes, now: float) -> bool:
        """Take *world*, which *sender* told us, if it is a good update; True if it was (13.3)."""
        if world.kind == MOON:
            held = self.moons.get(world.id)
            if held is None and not (
                self.wanted_moons.get(world.id) == sender and world.lists(sender)
            ):
                return False
        else:
            held = self.planet
            if held is None:
                return False  # a planet comes from the owner of this node, never from the network
        if sender not in self.roots and self.wanted_moons.get(world.id) != sender:
            return False
        if not is_update(held, world):
            return False
        self.set_world(world, now)
        return True

    # roots

    def best_root(self, now: float, but_not: bytes | None = None) -> tuple[Peer, Path] | None:
        """The root to relay through, and its path; None if none can be reached (13.4)."""
        best: tuple[Peer, Path] | None = None
        least = (True, inf)
        for address in self.roots:
            peer = self.peers.get(address)
            if peer is None or address == but_not or now - peer.last_receive >= _ROOT_TIMEOUT:
                continue
            path = peer.best_path(now)
            if path is None:
                continue
            latency = UNKNOWN_LATENCY if path.latency is None else path.latency
            silence = now - peer.last_receive
            # One that answers comes before one that does not; the rest is the reference's rule.
            cost = (not path.is_alive(now), latency * (floor(silence / _SILENCE_STEP) + 1))
            if cost < least:
                best, least = (peer, path), cost
        return best

    def _find_roots(self, now: float) -> None:
        mine = self.identity.address
        listed: dict[bytes, Root] = {}
        for root in self._listed_roots():
            # A root in two worlds is reached by the endpoints of both.
            known = listed.get(root.identity.address)
            if known is not None:
                endpoints = tuple(dict.fromkeys(known.endpoints + root.endpoints))
                listed[root.identity.address] = Root(known.identity, endpoints)
            else:
                listed[root.identity.address] = root
        ours = listed.pop(mine, None)
        self.is_root = ours is not None and ours.identity == self.identity
        self.roots = listed
        for address, root in list(listed.items()):
            known_peer = self.peers.get(address)
            if known_peer is not None and known_peer.identity != root.identity:
                # A world is signed, what we learned otherwise is not.
                self.remove_peer(known_peer)
            if self.add_peer(root.identity, now) is None:
                del self.roots[address]

    def _listed_roots(self) -> Iterable[Root]:
        for world in self.worlds():
            yield from world.roots

    # bookkeeping

    def _evict(self) -> None:
        candidates = [peer for peer in self.peers.values() if not self.must_keep(peer.address)]
        if candidates:
            self.remove_peer(min(candidates, key=lambda peer: peer.last_receive))
            self._counters.peers_evicted += 1

    def _unconfirm(self, path: Path) -> None:
        self._release((path.local, path.remote))

    def _release(self, key: tuple[int, Endpoint]) -> None:
        left = self._confirmed.get(key, 0) - 1
        if left > 0:
            self._confirmed[key] = left
        else:
            self._confirmed.pop(key, None)
