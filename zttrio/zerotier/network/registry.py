"""Keeping track of who listens to which group, and telling those who ask (11.3, 11.4, 11.7, 11.8).

Members do so for each other.  Roots do it for every network, and controllers for theirs, or
members that know nobody yet would never find each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages
from ..gate import Buckets
from .frames import GatherAnswer, GatherResults, MulticastAnswer, MulticastLike

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..controller.layer import ControllerLayer
    from ..events import Message
    from ..node import Node
    from .derived import Group
    from .distribution import Asked
    from .frames import Gather
    from .membership import Membership
    from .multicast import GroupTable
    from .network_counters import NetworkCounters

__all__ = ["Registry"]

_PER_SECOND = 50.0  # arbitrary; answers to one peer, each of which may be long
_BURST = 200
_PEERS = 16_384  # arbitrary
_HANDLED = "message_handled"


class Registry:
    """What a node knows about groups, as others see it.

    Args:
        node: sends the answers.
        groups: who listens to what.
        networks: the memberships.
        counters: what happened.
        controller: if this node is one.
        is_open: True for a root: everybody may announce and ask, for any network.
    """

    def __init__(
        self,
        node: Node,
        groups: GroupTable,
        networks: Mapping[int, Membership],
        counters: NetworkCounters,
        controller: ControllerLayer | None,
        *,
        is_open: bool,
    ) -> None:
        self._node = node
        self._groups = groups
        self._networks = networks
        self._counters = counters
        self._controller = controller
        self._is_open = is_open
        self._asked: Buckets[bytes] = Buckets(_PER_SECOND, _BURST, _PEERS)

    def __len__(self) -> int:
        """How many peers have asked lately."""
        return len(self._asked)

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        self._groups.expire(now)
        self._asked.expire(now)

    def receive_like(self, message: Message, now: float) -> str:
        """Take in a MULTICAST_LIKE; returns the counter of what became of it."""
        address = message.peer.address
        may_speak: dict[int, bool] = {}
        for network_id, group in MulticastLike.parse(message.payload).entries:
            # The reference lets one entry that counts vouch for the next one (11.3).
            if network_id not in may_speak:
                may_speak[network_id] = self._may_speak(network_id, address, now)
            if may_speak[network_id]:
                self._counters.likes_taken += 1
                self._learn(network_id, group, address, now)
            else:
                self._counters.likes_refused += 1
        return _HANDLED

    def receive_gather(self, message: Message, question: Gather, now: float) -> str:
        """Answer a MULTICAST_GATHER; returns the counter of what became of it."""
        address = message.peer.address
        if not self._may_speak(question.network_id, address, now):
            self._counters.gathers_refused += 1
            return _HANDLED
        if not self._asked.take(address, now):
            return "message_too_often"
        results = self.results(question.network_id, question.group, address, question.limit, now)
        if results is not None:
            self._counters.gathers_answered += 1
            answer = GatherAnswer(question.network_id, question.group, results).emit()
            payload = messages.emit_ok(message.verb, message.packet_id, answer)
            self._node.send(address, messages.OK, payload, now)
        return _HANDLED

    def results(
        self, network_id: int, group: Group, asker: bytes, limit: int, now: float
    ) -> GatherResults | None:
        """Who is in a group, for somebody who asks; None if there is nothing to say (11.7)."""
        limit = min(limit, GatherAnswer.MAX_ADDRESSES)
        if not limit:
            return None
        membership = self._networks.get(network_id)
        own: list[bytes] = []
        if membership is not None and group in membership.own_groups:
            own.append(self._node.address)
        total, others = self._groups.sample(network_id, group, limit - len(own), now, but_not=asker)
        found = (*own, *others)
        return GatherResults(total + len(own), found) if found else None

    def receive_answer(self, verb: int, data: bytes, asked: Asked, now: float) -> str:
        """Believe what a peer says that we have asked; returns the counter of it (11.8)."""
        if verb == messages.MULTICAST_GATHER:
            answer = GatherAnswer.parse(data)
            about, results = (answer.network_id, answer.group), answer.results
        else:
            reply = MulticastAnswer.parse(data)
            about = reply.network_id, reply.group
            results = GatherResults(0, ()) if reply.results is None else reply.results
        if about != (asked.network_id, asked.group) or asked.network_id not in self._networks:
            return "message_unexpected"
        for address in results.addresses[: asked.limit]:
            self._learn(asked.network_id, asked.group, address, now)
        return _HANDLED

    def _may_speak(self, network_id: int, address: bytes, now: float) -> bool:
        """True if a peer's word about a network's groups counts (11.3, 11.4)."""
        membership = self._networks.get(network_id)
        if membership is not None and membership.admit(address, now) is not None:
            return True
        if self._is_open:
            return True
        controller = self._controller
        return controller is not None and controller.answers_for(network_id, address, now)

    def _learn(self, network_id: int, group: Group, address: bytes, now: float) -> None:
        if address != self._node.address and self._groups.add(network_id, group, address, now):
            membership = self._networks.get(network_id)
            if membership is not None:
                membership.outbound.distribution.learned(group, address, now)
