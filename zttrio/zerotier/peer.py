"""Another node as we know it: its identity and key, and the ways its packets take.

Everything here is about one peer; which peers there are is `topology`'s business, and what is sent
to them `sender`'s.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import attrs

from .constants import PATH_ALIVE, PATH_EXPIRY, UNKNOWN_LATENCY
from .endpoint import scope_of

if TYPE_CHECKING:
    from .armor import Armor
    from .endpoint import Endpoint
    from .gate import Bucket
    from .identity import Identity

__all__ = ["Path", "Peer", "ReplayWindow"]

_WINDOW = 2048  # at least this many packet IDs of a peer are remembered (21)...
_WINDOW_TIME = 15.0  # ...or those of this many seconds, whichever is less


@attrs.define(eq=False)
class Path:
    """A way to a peer that has been confirmed: it answered something of ours from there.

    Attributes:
        local: which of our sockets.
        remote: the other end.
        last_receive: of an authentic packet that came straight from the peer.
        last_send: of anything.
        latency: of a round trip in seconds, None while unknown.
        is_suspended: True from a change of our own address until the path proves itself again.
    """

    local: int
    remote: Endpoint
    last_receive: float
    last_send: float = -inf
    latency: float | None = None
    is_suspended: bool = False
    scope: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.scope = scope_of(self.remote.ip)

    def is_alive(self, now: float) -> bool:
        """True if packets have come by it lately."""
        return now - self.last_receive < PATH_ALIVE and not self.is_suspended

    def is_usable(self, now: float) -> bool:
        """True if it is worth trying."""
        return now - self.last_receive < PATH_EXPIRY and not self.is_suspended

    def cost(self, now: float) -> float:
        """What ranks paths, lower is better (12.3)."""
        latency = UNKNOWN_LATENCY if self.latency is None else self.latency
        silence = now - self.last_receive
        if silence >= PATH_ALIVE:
            latency += UNKNOWN_LATENCY + min(silence, 140.0)
        return latency * (8 - self.scope)

    def add_latency(self, sample: float) -> None:
        """Take in the time of one round trip."""
        self.latency = sample if self.latency is None else (self.latency + sample) / 2


class ReplayWindow:
    """Packet IDs seen lately, so that a recorded packet is not believed a second time (21)."""

    __slots__ = ("_newer", "_older", "_since")

    def __init__(self) -> None:
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._since = -inf

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def has_seen(self, packet_id: bytes, now: float) -> bool:
        """True if *packet_id* was here before; it is remembered from now on."""
        if packet_id in self._newer or packet_id in self._older:
            return True
        if len(self._newer) >= _WINDOW or now - self._since >= _WINDOW_TIME:
            self._older = self._newer
            self._newer = set()
            self._since = now
        self._newer.add(packet_id)
        return False


@attrs.define(eq=False)
class Peer:
    """One node other than ours.

    Attributes:
        identity: checked, or from a world we trust.
        armor: the key we share.
        protocol: what it speaks, 0 while it has not said.
        version: its software, as it says.
        paths: confirmed ones, by our socket and the remote endpoint.
        last_receive: of any authentic packet, also by a relay.
        last_traffic: of a packet that belongs to a virtual network or an application.
        last_hello: when all paths were last sent a HELLO.
        last_greeting: when it was last asked by a relay what it speaks.
        last_push: when it was last told our addresses.
        trusted_until: while it belongs to one of our networks, as the network layer says.
        bad_packets: how many claimed to be its and were not authentic.
        moons: world ID and timestamp of its moons, as its last HELLO said.
        is_direct: True while the owner has been told of a direct path that is alive.
    """

    identity: Identity
    armor: Armor
    last_receive: float
    protocol: int = 0
    version: tuple[int, int, int] = (0, 0, 0)
    paths: dict[tuple[int, Endpoint], Path] = attrs.field(factory=dict)
    last_traffic: float = -inf
    last_hello: float = -inf
    last_greeting: float = -inf
    last_push: float = -inf
    trusted_until: float = -inf
    bad_packets: int = 0
    is_direct: bool = False
    pushes_in: int = 0
    last_push_in: float = -inf
    last_world_sent: float = -inf
    moons: tuple[tuple[int, int], ...] = ()
    replay: ReplayWindow = attrs.field(factory=ReplayWindow)
    whois_bucket: Bucket | None = None

    @property
    def address(self) -> bytes:
        """Its 5 octets."""
        return self.identity.address

    def best_path(self, now: float) -> Path | None:
        """The usable path of least cost, the later of two equal ones, or None (12.3)."""
        best, least = None, inf
        for path in self.paths.values():
            if path.is_usable(now) and (cost := path.cost(now)) <= least:
                best, least = path, cost
        return best

    def add_path(self, local: int, remote: Endpoint, limit: int, now: float) -> Path:
        """Keep a way that has just been confirmed; the worst old one makes room (12.1)."""
        for key, path in list(self.paths.items()):
            # The same host from another port, and silent: its NAT has moved it.
            if key[0] == local and key[1].ip == remote.ip and not path.is_alive(now):
                del self.paths[key]
        if len(self.paths) >= limit:
            silent = min(self.paths, key=lambda key: self.paths[key].last_receive)
            del self.paths[silent]
        path = self.paths[local, remote] = Path(local, remote, now)
        return path

    def expire_paths(self, now: float) -> list[Path]:
        """Forget paths that have been silent too long; returns them."""
        old = [path for path in self.paths.values() if now - path.last_receive >= PATH_EXPIRY]
        for path in old:
            del self.paths[path.local, path.remote]
        return old
