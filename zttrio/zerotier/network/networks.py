"""The virtual networks of one node: what VL1 hands over is sorted here, by verb and by network.

`Networks` is the node's `NetworkLayer`.  What it knows about each network it has joined is in a
`Membership`; here are the messages, the questions of 8.4 (who may speak and whose words are kept
for later), and what a node does for networks that it is not on, as a root or a controller (11.4).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError

from .. import messages
from ..constants import WHOIS_RETRY
from ..gate import Buckets, Gate
from .config_request import ConfigAnswer, ConfigRequest
from .derived import controller_of
from .distribution import Asked
from .frames import (
    ExtFrame,
    Gather,
    MulticastAnswer,
    MulticastFrame,
    NetworkError,
    parse_network_id,
)
from .intake import CredentialIntake
from .kept import TIME, Kept, KeptMessages
from .member_config import MemberConfig
from .membership import (
    ConfigChanged,
    Member,
    Membership,
    NetworkEvent,
    NetworkStatus,
    Shared,
    StatusChanged,
)
from .multicast import GroupTable
from .netconf import NetworkConfig
from .network_counters import NetworkCounters
from .piece import Assembler, Piece
from .registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from ipaddress import IPv4Network, IPv6Network

    from ..controller.layer import ControllerLayer
    from ..events import Message
    from ..identity import Randomness
    from ..node import Node

__all__ = [
    "ConfigChanged",
    "Member",
    "Membership",
    "NetworkEvent",
    "NetworkStatus",
    "Networks",
    "StatusChanged",
]

_HANDLED = "message_handled"
_NOT_JOINED = "message_not_joined"
_RETRY = WHOIS_RETRY  # (8.4)
_HOUSEKEEPING = 30.0
_KEYS = 16_384  # arbitrary
_FORWARDS = 5.0  # arbitrary; pieces a second that are passed on...
_FORWARD_BURST = 100  # ...on average, and at once: two configurations of the largest size
_DISTRUST = 1.0  # arbitrary; how long nobody looks at pieces of who has brought a forged one


class Networks:
    """Every network that a node is on, and those that it keeps track of for others.

    The owner makes it the node's network layer (`Node.set_network_layer`), joins networks, calls
    `handle_timers` no later than `next_timer` says, and collects `take_events` and each
    membership's `take_frames` after each burst of calls.

    Args:
        node: sends and receives the messages.
        rng: unpredictable octets, `os.urandom` for instance.
        epoch: seconds from 1970 to the zero of ``now``.
        controller: if this node is one.
        is_registry: True if it is a root: it then keeps track of the groups of all networks.
        config: every number.

    Attributes:
        counters: what happened, by reason.
        groups: who listens to what.
    """

    def __init__(
        self,
        node: Node,
        *,
        rng: Randomness,
        epoch: float,
        controller: ControllerLayer | None = None,
        is_registry: bool = False,
        config: MemberConfig | None = None,
    ) -> None:
        self.config = config = MemberConfig() if config is None else config
        self.counters = counters = NetworkCounters()
        self.groups = GroupTable(rng)
        self.controller = controller
        self._node = node
        self._rng = rng
        self._shared = Shared(node, config, counters, self.groups, rng, epoch)
        self._networks: dict[int, Membership] = {}
        self._by_octets: dict[bytes, Membership] = {}
        self._assemblers: dict[int, Assembler] = {}
        self._intake = CredentialIntake(node, counters, self._networks)
        self._registry = Registry(
            node, self.groups, self._networks, counters, controller, is_open=is_registry
        )
        self._kept = KeptMessages(config.kept, config.kept_per_peer)
        self._complaints: Gate[tuple[int, bytes]] = Gate(config.complaint_interval, _KEYS)
        # Old pieces can be played back, and every member passes them on to every other.
        self._forwards: Buckets[int] = Buckets(_FORWARDS, _FORWARD_BURST, config.network_limit)
        self._forgers: dict[bytes, float] = {}
        self._retrying: Kept | None = None
        self._next_retry = inf
        self._next_housekeeping = inf
        self._by_verb: dict[int, Callable[[Message, float], str | None]] = {
            messages.FRAME: self._frame,
            messages.EXT_FRAME: self._ext_frame,
            messages.MULTICAST_LIKE: self._registry.receive_like,
            messages.NETWORK_CREDENTIALS: self._credentials,
            messages.NETWORK_CONFIG_REQUEST: self._config_request,
            messages.NETWORK_CONFIG: self._config_push,
            messages.MULTICAST_GATHER: self._gather,
            messages.MULTICAST_FRAME: self._multicast_frame,
        }

    # what the owner does

    @property
    def networks(self) -> Mapping[int, Membership]:
        """The networks joined, by ID."""
        return self._networks

    @property
    def kept(self) -> int:
        """Messages that wait for credentials, and have no outcome yet."""
        return len(self._kept)

    def join(
        self,
        network_id: int,
        now: float,
        *,
        stored: bytes | None = None,
        token: str | None = None,
    ) -> Membership:
        """Be a member of a network; joining one again changes nothing.

        Nothing is sent before the next `handle_timers`, which is due at once.

        Args:
            network_id: 64 bits.
            now: seconds.
            stored: the configuration kept from last time (`ConfigChanged.stored`), used until the
                controller has a newer one; one that is no good is counted and not used.
            token: what lets us in without the administrator, if the network knows such a thing.

        Raises:
            ValueError: no network can have that ID, too many are joined, or *token* is too long.
        """
        known = self._networks.get(network_id)
        if known is not None:
            return known
        if not 0 < network_id < 1 << 64:
            raise ValueError(f"network {network_id:x}: must be 1 to ffffffffffffffff")
        if len(self._networks) >= self.config.network_limit:
            raise ValueError(f"network {network_id:016x}: {len(self._networks)} joined already")
        membership = Membership(self._shared, network_id, token, now)
        self._networks[network_id] = self._by_octets[membership.id_octets] = membership
        self._assemblers[network_id] = Assembler()
        if stored is not None:
            try:
                usable = membership.use_stored(stored, NetworkConfig.parse(stored), now)
            except HeaderError:
                usable = False
            if not usable:
                self.counters.stored_config_unusable += 1
        membership.start(now)
        self._tell_node()
        return membership

    def leave(self, network_id: int, now: float) -> None:
        """Forget a network; nobody is told (7.5).  Leaving one that is not joined does nothing."""
        del now
        membership = self._networks.pop(network_id, None)
        if membership is None:
            return
        del self._by_octets[membership.id_octets]
        del self._assemblers[network_id]
        self.groups.forget_network(network_id)
        for kind in (ConfigChanged, StatusChanged):
            self._shared.events.pop((kind, network_id), None)
        self._tell_node()

    def take_events(self) -> list[NetworkEvent]:
        """What happened since the last call; of two events of a kind about a network, the last."""
        events = list(self._shared.events.values())
        self._shared.events.clear()
        return events

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None if there is nothing to wait for."""
        earliest = min(self._next_retry, self._next_housekeeping)
        for membership in self._networks.values():
            earliest = min(earliest, membership.next_timer())
        return None if earliest == inf else earliest

    def handle_timers(self, now: float) -> None:
        """Do what is due at *now*."""
        for membership in list(self._networks.values()):
            if now >= membership.next_timer():
                membership.handle_timers(now)
        if now >= self._next_retry:
            self._next_retry = inf
            self._retry(self._kept.take(), now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING
            self._registry.expire(now)
            self._complaints.expire(now)
            self._forgers = {a: t for a, t in self._forgers.items() if now - t < _DISTRUST}
            self._intake.expire(now)
            self._forwards.expire(now)

    def sizes(self) -> dict[str, int]:
        """How full the tables are; each is bounded."""
        return {
            "networks": len(self._networks),
            "groups": len(self.groups),
            "kept": len(self._kept),
            "complaints": len(self._complaints),
            "forgers": len(self._forgers),
            "gathers": len(self._registry),
            "credentials": len(self._intake),
        }

    # NetworkLayer

    def receive_message(self, message: Message, now: float) -> None:
        """Take in a message with one of `messages.NETWORK_VERBS`.

        Raises:
            HeaderError: it is malformed.
        """
        self.counters.messages_in += 1
        if self._next_housekeeping == inf:
            self._next_housekeeping = now + _HOUSEKEEPING
        try:
            outcome = self._by_verb[message.verb](message, now)
        except HeaderError:
            self.counters.message_malformed += 1
            raise
        if outcome is not None:
            self.counters.count(outcome)

    def receive_ok(
        self,
        message: Message,
        verb: int,
        packet_id: bytes,
        data: bytes,
        context: object,
        now: float,
    ) -> None:
        """Take in an OK to a message that was sent with *context*.

        Raises:
            HeaderError: it is malformed.
        """
        del packet_id
        self.counters.messages_in += 1
        try:
            outcome = self._answer(message, verb, data, context, now)
        except HeaderError:
            self.counters.message_malformed += 1
            raise
        if outcome is not None:  # pragma: no branch - who has answered us is known
            self.counters.count(outcome)

    def receive_error(
        self, message: Message, verb: int, packet_id: bytes, code: int, data: bytes, now: float
    ) -> bool:
        """Take in an ERROR about a network; True if its sender may say so (5.9).

        Raises:
            HeaderError: it is malformed.
        """
        del packet_id
        self.counters.messages_in += 1
        try:
            obeyed = self._error(message, verb, code, NetworkError.parse(code, data), now)
        except HeaderError:
            self.counters.message_malformed += 1
            raise
        self.counters.count("error_obeyed" if obeyed else "error_ignored")
        return obeyed

    # frames

    def _frame(self, message: Message, now: float) -> str | None:
        membership = self._by_octets.get(message.payload[:8])
        if membership is None:
            return self._unknown(message)
        outcome = membership.inbound.receive_frame(message, now)
        if outcome is None:
            if len(message.payload) < 10:
                raise HeaderError(f"FRAME: only {len(message.payload)} octets")
            self._refuse(message, membership.network_id, now)
        return outcome

    def _ext_frame(self, message: Message, now: float) -> str | None:
        membership = self._by_octets.get(message.payload[:8])
        if membership is None:
            return self._unknown(message)
        ext = ExtFrame.parse(message.payload)
        self._intake.take_attached(ext.network_id, ext.membership, message.peer, now)
        record = membership.admit(message.peer.address, now)
        if record is None:
            self._refuse(message, membership.network_id, now)
            return None
        return membership.inbound.receive_ext(record, message, ext, now)

    def _multicast_frame(self, message: Message, now: float) -> str | None:
        membership = self._by_octets.get(message.payload[:8])
        if membership is None:
            return self._unknown(message)
        multicast = MulticastFrame.parse(message.payload)
        address = message.peer.address
        self._intake.take_attached(multicast.network_id, multicast.membership, message.peer, now)
        record = membership.admit(address, now)
        if record is None:
            self._refuse(message, membership.network_id, now)
            return None
        outcome = membership.inbound.receive_multicast(record, multicast, now)
        if multicast.gather_limit and outcome in (
            "frame_delivered",
            "frame_no_room",
            "frame_filtered",
            "frame_redirected",
        ):
            results = self._registry.results(
                multicast.network_id, multicast.group, address, multicast.gather_limit, now
            )
            if results is not None:
                answer = MulticastAnswer(
                    multicast.network_id, multicast.group, None, results
                ).emit()
                payload = messages.emit_ok(message.verb, message.packet_id, answer)
                self._node.send(address, messages.OK, payload, now)
        return outcome

    def _unknown(self, message: Message) -> str:
        parse_network_id(message.payload)
        return _NOT_JOINED

    # what has to wait

    def _refuse(self, message: Message, network_id: int, now: float) -> None:
        """Ask a peer for its credentials, and keep what it has sent until they are here (8.4)."""
        address = message.peer.address
        if self._complaints.allows((network_id, address), now):
            self.counters.complaints += 1
            error = NetworkError(network_id).emit()
            payload = messages.emit_error(
                message.verb, message.packet_id, messages.NEED_MEMBERSHIP, error
            )
            self._node.send(address, messages.ERROR, payload, now)
        self._keep(message, network_id, now)

    def _keep(self, message: Message, network_id: int, now: float) -> None:
        since = now if self._retrying is None else self._retrying.since
        if self._kept.add(Kept(message, network_id, since)):
            self.counters.message_refused_evicted += 1
        if self._next_retry == inf:
            self._next_retry = now + _RETRY

    def _retry(self, waiting: Iterable[Kept], now: float) -> None:
        """Try messages that had to wait; what is still refused goes on waiting, 5 s in all."""
        for kept in waiting:
            if now - kept.since >= TIME:
                self.counters.message_refused += 1
                continue
            self._retrying = kept
            # It was parsed before it was kept, so this does not raise.
            outcome = self._by_verb[kept.message.verb](kept.message, now)
            self._retrying = None
            if outcome is not None:
                self.counters.count(outcome)

    def _retry_at_once(self, network_id: int, now: float) -> None:
        if self.config.deliver_at_once and self._retrying is None:
            self._retry(self._kept.take(network_id), now)

    # credentials

    def _credentials(self, message: Message, now: float) -> str | None:
        taken = self._intake.receive(message, now, is_again=self._retrying is not None)
        if taken is None:
            return "message_too_often"
        for network_id in taken.admitted:
            self._retry_at_once(network_id, now)
        if taken.is_incomplete:
            self._keep(message, 0, now)
            return None
        return _HANDLED

    # configurations

    def _config_request(self, message: Message, now: float) -> str:
        request = ConfigRequest.parse(message.payload)
        if controller_of(request.network_id) != self._node.address:
            return "request_refused"
        if self.controller is None:
            error = NetworkError(request.network_id).emit()
            payload = messages.emit_error(
                message.verb, message.packet_id, messages.UNSUPPORTED, error
            )
            self._node.send(message.peer.address, messages.ERROR, payload, now)
            return "request_refused"
        self.controller.receive_request(message, request.network_id, request.metadata, now)
        return "request_taken"

    def _config_push(self, message: Message, now: float) -> str | None:
        piece = Piece.parse(message.payload)
        membership = self._networks.get(piece.network_id)
        if membership is None:
            return _NOT_JOINED
        data, outcome = self._assemble(membership, piece, message, now)
        if data is None:
            return outcome
        outcome = self._apply(membership, data, message, now)
        if outcome != "config_malformed":
            update_id = piece.update_id
            if piece.is_legacy:
                update_id = int.from_bytes(message.packet_id, "big")
            answer = ConfigAnswer(membership.network_id, update_id).emit()
            payload = messages.emit_ok(ConfigAnswer.VERB, message.packet_id, answer)
            self._node.send(message.peer.address, messages.OK, payload, now)
        return outcome

    def _config_answer(
        self, message: Message, data: bytes, context: object, now: float
    ) -> str | None:
        piece = Piece.parse(data)
        membership = self._networks.get(piece.network_id)
        if membership is None or context != piece.network_id:
            return "message_unexpected"
        whole, outcome = self._assemble(membership, piece, message, now)
        return outcome if whole is None else self._apply(membership, whole, message, now)

    def _assemble(
        self, membership: Membership, piece: Piece, message: Message, now: float
    ) -> tuple[bytes | None, str | None]:
        """The configuration that a piece completes, or the counter of what became of it (6.2)."""
        sender = message.peer.address
        assembler = self._assemblers[piece.network_id]
        if piece.is_legacy:
            if sender != membership.controller:
                return None, "piece_refused"
            return assembler.receive(piece), None
        if not assembler.is_new(piece):
            return None, "piece_known"
        if now - self._forgers.get(sender, -inf) < _DISTRUST:
            return None, "piece_refused"
        controller = self._node.find_identity(membership.controller, now)
        if controller is None:
            self._keep(message, piece.network_id, now)
            return None, None
        if not piece.is_signed_by(controller):
            if sender != membership.controller and len(self._forgers) < _KEYS:
                self._forgers[sender] = now
            return None, "piece_refused"
        if piece.is_fast and self._forwards.take(piece.network_id, now):
            self.counters.pieces_forwarded += membership.tell_members(
                messages.NETWORK_CONFIG,
                piece.emit(),
                now,
                but_not=(sender, membership.controller),
            )
        refused = assembler.refused
        data = assembler.receive(piece)
        return data, "piece_refused" if assembler.refused != refused else "piece_kept"

    def _apply(self, membership: Membership, data: bytes, message: Message, now: float) -> str:
        """Put a whole configuration in force, if it is good (6.3)."""
        try:
            config = NetworkConfig.parse(data)
        except HeaderError:
            return "config_malformed"
        is_direct = message.peer.address == membership.controller
        return self._accept(membership, data, config, now, is_direct=is_direct)

    def accept_config(self, network_id: int, data: bytes, now: float) -> str:
        """Take a configuration from the controller in this very node.

        Returns:
            The counter of what became of it.

        Raises:
            HeaderError: it is malformed.
        """
        membership = self._networks.get(network_id)
        if membership is None:
            return _NOT_JOINED
        return self._accept(membership, data, NetworkConfig.parse(data), now, is_direct=True)

    def _accept(
        self,
        membership: Membership,
        data: bytes,
        config: NetworkConfig,
        now: float,
        *,
        is_direct: bool,
    ) -> str:
        outcome = membership.accept(data, config, now, is_direct=is_direct)
        if outcome == "config_accepted":
            self._tell_node()
            self._retry_at_once(membership.network_id, now)
        return outcome

    def _tell_node(self) -> None:
        """Say what the networks mean for VL1.

        Controllers have to be known for good: their signatures are checked when they are gone.
        And VL1 must keep out of the addresses of VL2, or it would run in a circle (15).
        """
        self._node.keep_peers(one.controller for one in self._networks.values())
        prohibited: list[IPv4Network | IPv6Network] = []
        for membership in self._networks.values():
            if membership.config is not None:
                for interface in membership.config.addresses:
                    network = interface.network
                    # A prefix of 0 would exclude the whole world.
                    prohibited.append(network if network.prefixlen else type(network)(interface.ip))
        self._node.set_prohibited(prohibited)

    # groups

    def _gather(self, message: Message, now: float) -> str:
        question = Gather.parse(message.payload)
        self._intake.take_attached(question.network_id, question.membership, message.peer, now)
        return self._registry.receive_gather(message, question, now)

    # answers and errors

    def _answer(
        self, message: Message, verb: int, data: bytes, context: object, now: float
    ) -> str | None:
        if verb == messages.NETWORK_CONFIG_REQUEST:
            return self._config_answer(message, data, context, now)
        if not isinstance(context, Asked):
            return _HANDLED  # to a copy by WATCH
        return self._registry.receive_answer(verb, data, context, now)

    def _error(
        self, message: Message, verb: int, code: int, error: NetworkError, now: float
    ) -> bool:
        membership = self._networks.get(error.network_id)
        if membership is None:
            return False
        address = message.peer.address
        if code == messages.NEED_MEMBERSHIP:
            if membership.config is None or membership.config.membership is None:
                return False
            membership.push_on_demand(address, now)
            return True
        if code == messages.UNWANTED_MULTICAST:
            if error.group is None or membership.admit(address, now) is None:
                return False
            self.groups.remove(error.network_id, error.group, address)
            return True
        if address != membership.controller:
            return False
        if code in (messages.NOT_FOUND, messages.UNSUPPORTED):
            if verb != messages.NETWORK_CONFIG_REQUEST:
                return False
            membership.fail(NetworkStatus.NOT_FOUND)
        elif code == messages.ACCESS_DENIED:
            membership.fail(NetworkStatus.ACCESS_DENIED)
        elif code == messages.AUTHENTICATION_REQUIRED:
            membership.fail(NetworkStatus.AUTHENTICATION_REQUIRED, error.url)
        else:
            return False
        return True
