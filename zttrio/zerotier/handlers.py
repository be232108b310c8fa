"""What each verb does when an authentic packet brings it (VL1 specification, 11).

A handler returns the counter of `PACKET_OUTCOMES` that the packet belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import messages
from .endpoint import scope_of
from .events import EchoAnswered, IdentityCollision, UserMessageReceived
from .gate import Bucket, Gate
from .identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import NodeConfig, RelayConfig
    from .counters import Counters
    from .endpoint import Endpoint
    from .events import Events, Message, NetworkLayer
    from .hello import Greeter
    from .learning import Learning
    from .peer import Peer
    from .sender import Sender
    from .topology import Topology

__all__ = ["Handlers"]

_HANDLED = "packet_handled"
_ECHO_INTERVAL = 0.166
_WHOIS_INTERVAL = 0.1
_GATE_KEYS = 16_384  # arbitrary
_PUSH_WINDOW = 30.0
_PUSH_LIMIT = 8
_HINTS_PER_SCOPE = 8
_EARLY_HINTS = 32  # arbitrary


class Handlers:
    """One method for each verb."""

    def __init__(
        self,
        identity: Identity,
        topology: Topology,
        sender: Sender,
        learning: Learning,
        greeter: Greeter,
        config: NodeConfig,
        relay_config: RelayConfig | None,
        counters: Counters,
        events: Events,
    ) -> None:
        self.network: NetworkLayer | None = None
        self._identity = identity
        self._topology = topology
        self._sender = sender
        self._learning = learning
        self._greeter = greeter
        self._config = config
        self._relay_config = relay_config
        self._counters = counters
        self._events = events
        self._echoes: Gate[tuple[int, Endpoint, bytes]] = Gate(_ECHO_INTERVAL, _GATE_KEYS)
        self._whois: Gate[bytes] = Gate(_WHOIS_INTERVAL, _GATE_KEYS)
        self._early: dict[bytes, tuple[int, Endpoint]] = {}
        self._by_verb: dict[int, Callable[[Message, float], str]] = {
            messages.NOP: self._nothing,
            messages.ERROR: self._error,
            messages.OK: self._ok,
            messages.WHOIS: self._whois_asked,
            messages.RENDEZVOUS: self._rendezvous,
            messages.ECHO: self._echo,
            messages.PUSH_DIRECT_PATHS: self._path_hints,
            messages.USER_MESSAGE: self._user_message,
            messages.REMOTE_TRACE: self._remote_trace,
            messages.ACK: self._ignore,
            messages.QOS_MEASUREMENT: self._ignore,
            messages.PATH_NEGOTIATION_REQUEST: self._ignore,
        }
        for verb in messages.NETWORK_VERBS:
            self._by_verb[verb] = self._network

    def handle(self, message: Message, now: float) -> str:
        """Act on *message*, and note what it tells about its sender.

        Returns:
            The name of the counter of its outcome.

        Raises:
            HeaderError: it is malformed.
        """
        handler = self._by_verb.get(message.verb, self._unknown)
        return handler(message, now)

    def expire(self, now: float) -> None:
        """Forget gates that are open again."""
        self._echoes.expire(now)
        for address in [a for a in self._early if not self._greeter.is_checking(a)]:
            del self._early[address]
        self._whois.expire(now)

    # without content

    def _nothing(self, message: Message, now: float) -> str:
        self._learning.received(message, now)
        return _HANDLED

    def _unknown(self, message: Message, now: float) -> str:
        self._counters.unknown_verb += 1
        return self._nothing(message, now)

    def _remote_trace(self, message: Message, now: float) -> str:
        self._counters.remote_trace += 1
        return self._nothing(message, now)

    def _ignore(self, message: Message, now: float) -> str:
        del message, now  # the reference does not even count these as a sign of life (9.11)
        return "ignored_verb"

    # answers

    def _ok(self, message: Message, now: float) -> str:
        verb, packet_id, data = messages.parse_ok(message.payload)
        sent = self._sender.expected.find(packet_id, message.peer.address, verb, now)
        if sent is None:
            return "ok_unexpected"
        if verb == messages.HELLO:
            accepted = self._greeter.receive_answer(message, sent, data, now)
            return _HANDLED if accepted else "hello_old_protocol"
        if verb == messages.WHOIS:
            if message.peer.address not in self._topology.roots:
                return "ok_not_from_root"
            self._learning.received(message, now, sent)
            self._learn_identities(data, sent.context, now)
            return _HANDLED
        self._learning.received(message, now, sent)
        if verb == messages.ECHO:
            if sent.context is not None:
                address = message.peer.address
                taken = now - sent.sent_at
                context = sent.context
                self._events.add(
                    EchoAnswered(address, data, taken, message.hops, message.remote, context)
                )
        elif self.network is None:
            self._counters.no_network_layer += 1
        else:
            self.network.receive_ok(message, verb, packet_id, data, sent.context, now)
        return _HANDLED

    def _learn_identities(self, data: bytes, asked: object, now: float) -> None:
        at = 0
        while at < len(data):
            identity, at = Identity.parse(data, at)
            if identity.address == asked:
                self._greeter.learn(identity, now)
            else:
                self._counters.whois_identity_unwanted += 1

    def _error(self, message: Message, now: float) -> str:
        verb, packet_id, code, data = messages.parse_error(message.payload)
        outcome = "error_refused"
        if code == messages.COLLISION:
            if message.peer.address in self._topology.roots:
                self._events.add(IdentityCollision(message.peer.address))
                outcome = _HANDLED
        elif code in (messages.INVALID_REQUEST, messages.BAD_PROTOCOL):
            outcome = _HANDLED  # nothing follows from these
        elif self.network is None:
            self._counters.no_network_layer += 1
        elif self.network.receive_error(message, verb, packet_id, code, data, now):
            outcome = _HANDLED
        self._learning.received(message, now)
        return outcome

    # questions

    def _whois_asked(self, message: Message, now: float) -> str:
        """Tell identities, as many as the sender may ask for."""
        peer = message.peer
        relay = self._relay_config
        if relay is None and not self._whois.allows(peer.address, now):
            return "whois_refused"
        wanted = messages.parse_addresses(message.payload)
        # Until a path is confirmed somebody may be using us to send a victim long answers.
        most = len(wanted) if (message.local, message.remote) in peer.paths else 1
        if relay is not None:
            if peer.whois_bucket is None:
                peer.whois_bucket = Bucket(relay.whois_per_second, relay.whois_burst)
            if not peer.whois_bucket.take(1, now):
                return "whois_refused"
        found: list[Identity] = []
        for number, address in enumerate(wanted):
            identity = self._find_identity(address)
            if identity is None:
                if relay is not None:
                    self._sender.whois.ask(address, now)  # our own roots, if we have any
                continue
            if number >= most or (
                relay is not None
                and found
                and peer.whois_bucket is not None
                and not peer.whois_bucket.take(1, now)
            ):
                self._counters.whois_addresses_skipped += len(wanted) - number
                break
            found.append(identity)
        if found:
            self._counters.whois_answered += 1
            data = b"".join(identity.emit() for identity in found)
            self._answer(message, data, now)
        self._learning.received(message, now)
        return _HANDLED

    def _find_identity(self, address: bytes) -> Identity | None:
        if address == self._identity.address:
            return self._identity
        if self._relay_config is None:
            return None  # whom a leaf talks to is nobody's business
        peer = self._topology.peers.get(address)
        return None if peer is None else peer.identity

    def _echo(self, message: Message, now: float) -> str:
        key = (message.local, message.remote, message.peer.address)
        if not self._echoes.allows(key, now):
            return "echo_refused"
        self._answer(message, message.payload, now)
        self._learning.received(message, now)
        return _HANDLED

    def _answer(self, message: Message, data: bytes, now: float) -> None:
        """Send an OK by the way the question came."""
        payload = messages.emit_ok(message.verb, message.packet_id, data)
        self._sender.send_to(message.peer, message.local, message.remote, messages.OK, payload, now)

    # hints about paths

    def _rendezvous(self, message: Message, now: float) -> str:
        hint = messages.Rendezvous.parse(message.payload)
        peer = self._topology.peers.get(hint.address)
        remote = hint.endpoint.unmapped()
        outcome = "rendezvous_refused"
        if message.peer.address in self._topology.roots:
            if peer is not None:
                if self._learning.may_use(peer, remote):
                    self._meet(peer, message.local, remote, now)
                    outcome = _HANDLED
            elif self._greeter.is_checking(hint.address) and len(self._early) < _EARLY_HINTS:
                # Roots introduce when the first packet passes, and do so again after 30 s only.
                self._early[hint.address] = (message.local, remote)
                outcome = _HANDLED
        self._learning.received(message, now)
        return outcome

    def peer_known(self, address: bytes, now: float) -> None:
        """Follow the introduction that came while a peer's identity was still being checked."""
        peer = self._topology.peers[address]
        early = self._early.pop(address, None)
        if early is not None and self._learning.may_use(peer, early[1]):
            self._meet(peer, *early, now)

    def _meet(self, peer: Peer, arrived_by: int, remote: Endpoint, now: float) -> None:
        """Open our NAT towards *remote*, and see whether *peer* answers from there."""
        for local in self._sockets_towards(arrived_by, remote):
            self._sender.send_junk(local, remote)
            self._sender.probe(peer, local, remote, now)

    def _sockets_towards(self, arrived_by: int, remote: Endpoint) -> list[int]:
        """The socket a hint came in by, or those of the hint's family if that is another."""
        if self._sender.sockets.get(arrived_by) == len(remote.ip):
            return [arrived_by]
        return self._sender.sockets_for(remote)

    def _path_hints(self, message: Message, now: float) -> str:
        peer = message.peer
        hints = messages.parse_path_hints(message.payload)
        peer.pushes_in = peer.pushes_in + 1 if now - peer.last_push_in <= _PUSH_WINDOW else 0
        peer.last_push_in = now
        if peer.pushes_in < _PUSH_LIMIT:
            self._follow_hints(message, hints, now)
        else:
            self._counters.push_refused += 1
        self._learning.received(message, now)
        return _HANDLED

    def _follow_hints(self, message: Message, hints: list[messages.PathHint], now: float) -> None:
        peer = message.peer
        probed: dict[tuple[int, int], int] = {}
        active = {path.remote for path in peer.paths.values() if path.is_alive(now)}
        for hint in hints:
            remote = hint.endpoint.unmapped()
            kind = (scope_of(remote.ip), len(remote.ip))
            if hint.forget or not remote.port or remote in active:
                continue
            if probed.get(kind, 0) >= _HINTS_PER_SCOPE or not self._learning.may_use(peer, remote):
                self._counters.push_skipped += 1
                continue
            probed[kind] = probed.get(kind, 0) + 1
            for local in self._sender.sockets_for(remote):
                self._sender.probe(peer, local, remote, now)

    # content

    def _user_message(self, message: Message, now: float) -> str:
        user = messages.UserMessage.parse(message.payload)
        self._events.add(UserMessageReceived(message.peer.address, user.kind, user.data))
        self._learning.received(message, now)
        return _HANDLED

    def _network(self, message: Message, now: float) -> str:
        if self.network is None:
            self._counters.no_network_layer += 1
        else:
            self.network.receive_message(message, now)
        self._learning.received(message, now)
        return _HANDLED
