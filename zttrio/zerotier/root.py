"""What a root does for others besides answering them: it relays, and it introduces (18).

Relayed packets are sealed for their destination; a root cannot read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages
from .constants import HOP_LIMIT
from .gate import Bucket, Gate

if TYPE_CHECKING:
    from .config import RelayConfig
    from .counters import Counters
    from .endpoint import Endpoint
    from .identity import Randomness
    from .peer import Path, Peer
    from .sender import Sender
    from .topology import Topology

__all__ = ["Relay"]

_HOPS = 0x07


class Relay:
    """Sends other nodes' datagrams on, for those that have a confirmed path to us.

    Without that condition anybody could use a root to hide where a flood comes from.
    """

    def __init__(
        self,
        topology: Topology,
        sender: Sender,
        config: RelayConfig,
        rng: Randomness,
        counters: Counters,
    ) -> None:
        self._topology = topology
        self._sender = sender
        self._config = config
        self._rng = rng
        self._counters = counters
        self._rates: dict[bytes, Bucket] = {}
        self._introduced: Gate[frozenset[bytes]] = Gate(config.introduction_interval, config.pairs)

    def relay_packet(self, datagram: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Send on a packet, or the head of one, that is for somebody else."""
        peers = self._topology.peers
        source = peers.get(datagram[13:18])
        if source is None or (local, remote) not in source.paths:
            self._counters.relay_stranger += 1
            return
        destination = self._relay(datagram, 18, local, remote, now)
        if destination is not None:
            self._introduce(source, destination, now)

    def relay_fragment(self, datagram: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Send on a fragment that is for somebody else; it does not say whose it is."""
        if not self._topology.is_confirmed(local, remote):
            self._counters.relay_stranger += 1
            return
        self._relay(datagram, 15, local, remote, now)

    def expire(self, now: float) -> None:
        """Forget old introductions and rates."""
        self._introduced.expire(now)
        full = self._config.burst / self._config.packets_per_second
        for ip in [ip for ip, rate in self._rates.items() if now - rate.filled_at >= full]:
            del self._rates[ip]

    def _relay(
        self, datagram: bytes, hops_at: int, local: int, remote: Endpoint, now: float
    ) -> Peer | None:
        """Send *datagram* on with one hop more; returns the destination if it is its own path."""
        counters = self._counters
        hops = datagram[hops_at]
        if hops & _HOPS >= HOP_LIMIT:
            counters.relay_hop_limit += 1
            return None
        if not self._may_send(remote.ip, now):
            counters.relay_rate += 1
            return None
        destination = self._topology.peers.get(datagram[8:13])
        path: Path | None = None
        if destination is not None:
            path = destination.best_path(now)
        else:
            # Another root may know; never back to where it came from.
            other = self._topology.best_root(now)
            if other is not None and other[1].remote != remote:
                path = other[1]
        if path is None:
            if destination is None:
                counters.relay_unknown_destination += 1
            else:
                counters.relay_no_path += 1
            return None
        counters.relayed += 1
        changed = b"%b%c%b" % (datagram[:hops_at], hops + 1, datagram[hops_at + 1 :])
        self._sender.forward(path, changed, now)
        return destination

    def _may_send(self, ip: bytes, now: float) -> bool:
        rate = self._rates.get(ip)
        if rate is None:
            if len(self._rates) >= self._config.senders:
                return False
            rate = self._rates[ip] = Bucket(self._config.packets_per_second, self._config.burst)
        return rate.take(1, now)

    def _introduce(self, source: Peer, destination: Peer, now: float) -> None:
        """Tell two nodes where to meet, if they can be reached in the same way (18.5)."""
        pair = _common_paths(source, destination, now)
        if pair is None:
            return
        if not self._introduced.allows(frozenset((source.address, destination.address)), now):
            return
        self._counters.introductions += 1
        told = [(source, pair[0], destination, pair[1]), (destination, pair[1], source, pair[0])]
        if self._rng(1)[0] & 1:  # neither side may count on being second
            told.reverse()
        for peer, path, other, other_path in told:
            hint = messages.Rendezvous(other.address, other_path.remote)
            self._sender.send_by(peer, path, messages.RENDEZVOUS, hint.emit(), now)


def _common_paths(one: Peer, other: Peer, now: float) -> tuple[Path, Path] | None:
    """The best path of each in the nearest scope that both have, IPv6 before IPv4."""
    for scope in range(7, -1, -1):
        for length in (16, 4):
            best = [
                min(
                    (
                        path
                        for path in peer.paths.values()
                        if path.scope == scope
                        and len(path.remote.ip) == length
                        and path.is_usable(now)
                    ),
                    key=lambda path: path.cost(now),
                    default=None,
                )
                for peer in (one, other)
            ]
            if best[0] is not None and best[1] is not None:
                return best[0], best[1]
    return None
