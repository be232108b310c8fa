"""What an authentic packet tells besides its content: its sender lives, and maybe where (12.1).

A datagram's source address proves nothing by itself, it can be forged or replayed; only an answer
to something we sent confirms a path.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from . import messages
from .endpoint import LOOPBACK, is_usable, scope_of
from .events import PathFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network

    from .config import NodeConfig
    from .counters import Counters
    from .endpoint import Endpoint
    from .events import Events, Message
    from .expected import Expectation
    from .peer import Peer
    from .sender import Sender
    from .surface import Surface
    from .topology import Topology

__all__ = ["Learning"]

_TRAFFIC = messages.NETWORK_VERBS - {messages.MULTICAST_LIKE, messages.NETWORK_CREDENTIALS} | {
    messages.USER_MESSAGE
}
_PUSH_INTERVAL_RELAYED = 15.0
_PUSH_INTERVAL_DIRECT = 120.0
_PUSH_LIMIT = 1200  # octets


class Learning:
    """Bookkeeping after each packet: liveness, paths, latency, our own address."""

    def __init__(
        self,
        topology: Topology,
        sender: Sender,
        surface: Surface,
        config: NodeConfig,
        counters: Counters,
        events: Events,
    ) -> None:
        self.local_addresses: list[Endpoint] = []
        """Where our sockets can be reached as far as this machine knows."""
        self.prohibited: tuple[IPv4Network | IPv6Network, ...] = ()
        """Subnets of our own virtual networks: no VL1 inside VL2 (12.2)."""
        self.on_root: Callable[[float], None]
        self._topology = topology
        self._sender = sender
        self._surface = surface
        self._config = config
        self._counters = counters
        self._events = events

    def received(self, message: Message, now: float, answer: Expectation | None = None) -> None:
        """Note an authentic packet.

        Args:
            message: the packet.
            now: seconds.
            answer: what it answers, if it is an OK that was expected.
        """
        peer = message.peer
        peer.last_receive = now
        if message.verb in _TRAFFIC:
            peer.last_traffic = now
        if peer.address in self._topology.roots:
            self.on_root(now)
        if message.hops == 0:
            self._learn_path(message, now, answer)
        if now < peer.trusted_until:
            self._push(peer, message.hops, now)

    def may_use(self, peer: Peer, remote: Endpoint) -> bool:
        """True if a path of *peer* may lead to *remote* (12.2)."""
        ip = remote.ip
        if not is_usable(ip) and not (self._config.loopback_paths and scope_of(ip) == LOOPBACK):
            return False
        root = self._topology.roots.get(peer.address)
        if (
            root is not None
            and root.endpoints
            and all(ip != endpoint.ip for endpoint in root.endpoints)
        ):
            return False
        forbidden = (*self.prohibited, *self._config.blacklist)
        if not forbidden:
            return True
        address = ip_address(ip)
        return not any(address in network for network in forbidden)

    def report_surface(self, message: Message, seen: Endpoint, now: float) -> None:
        """Note that the sender of *message* sees the socket it came in by as *seen* (14)."""
        is_root = message.peer.address in self._topology.roots
        scope = self._surface.report(
            message.peer.address, message.local, message.remote, seen, now, is_root=is_root
        )
        if scope is None:
            return
        self._counters.surface_resets += 1
        for peer in self._topology.peers.values():
            for path in peer.paths.values():
                if path.scope == scope and len(path.remote.ip) == len(seen.ip):
                    path.is_suspended = True
                    self._sender.keep_alive(peer, path, now)

    def _learn_path(self, message: Message, now: float, answer: Expectation | None) -> None:
        peer, local, remote = message.peer, message.local, message.remote
        path = peer.paths.get((local, remote))
        if path is None:
            for other in peer.paths.values():
                # A node that sends from several ports would otherwise make us jump between them.
                if other.local == local and other.remote.ip == remote.ip and other.is_alive(now):
                    return
            if not self.may_use(peer, remote):
                self._counters.probe_refused += 1
                return
            if answer is None:
                self._sender.confirm(peer, local, remote, now)
                return
            path = self._topology.confirm(peer, local, remote, now)
        path.last_receive = now
        if answer is not None:
            path.is_suspended = False
            if answer.remote == remote:
                path.last_send = max(path.last_send, answer.sent_at)
                path.add_latency(now - answer.sent_at)
        if not peer.is_direct and not path.is_suspended:
            peer.is_direct = True
            self._events.add(PathFound(peer.address, local, remote))

    def _push(self, peer: Peer, hops: int, now: float) -> None:
        """Tell a peer that we share a network with where we can be reached (11.7)."""
        interval = _PUSH_INTERVAL_RELAYED if hops else _PUSH_INTERVAL_DIRECT
        if now - peer.last_push < interval:
            return
        endpoints: list[Endpoint] = []
        size = 2
        for endpoint in dict.fromkeys(self.local_addresses + self._surface.addresses(now)):
            size += 7 + len(endpoint.ip)
            if size > _PUSH_LIMIT:
                break
            if self.may_use(peer, endpoint):
                endpoints.append(endpoint)
        if endpoints:
            peer.last_push = now
            hints = messages.emit_path_hints(endpoints)
            self._sender.send(peer.address, messages.PUSH_DIRECT_PATHS, hints, now, compress=True)
