"""How a frame reaches a group: the copies, the questions who else listens, and those who are late.

The sender makes a copy for each member of the group that it knows, up to the network's limit, and
asks registries for more; whoever turns up within five seconds gets the frame too (11.5).
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import attrs

from .. import messages
from ..constants import MAX_PAYLOAD
from .frames import Gather, MulticastFrame
from .multicast import random_sample

if TYPE_CHECKING:
    from .derived import Group
    from .membership import Membership
    from .netconf import NetworkConfig
    from .outbound import Outbound

__all__ = ["LONGEST", "Asked", "Distribution"]

_ETHERNET = 14
LONGEST = _ETHERNET + MAX_PAYLOAD - 31
"""Octets of a frame that fits into a MULTICAST_FRAME with every optional field (5.8)."""

_QUEUE = 32  # frames of a group (1.2)
_QUEUED = 1024  # arbitrary; frames of all groups
_QUEUE_TIME = 5.0
_GROUPS = 4096  # arbitrary; groups whose questions are timed
_GATHER_AGAIN = 60.0
_REGISTRIES = 16
_MOST = 65_535  # arbitrary; recipients of one frame, whatever the configuration says


class Asked(NamedTuple):
    """What a message of ours asked about: the context of its OK.

    Attributes:
        network_id: which network.
        group: which group.
        limit: how many members we wanted to hear about.
    """

    network_id: int
    group: Group
    limit: int


@attrs.define(eq=False)
class _Queued:
    """A frame that members of its group who turn up late are to have too."""

    frame: bytes
    origin: bytes | None
    gather: int
    limit: int
    since: float
    sent_to: set[bytes]


class Distribution:
    """One membership's frames to groups.

    Args:
        membership: whose.
        outbound: decides about each copy.
    """

    def __init__(self, membership: Membership, outbound: Outbound) -> None:
        self._membership = membership
        self._outbound = outbound
        self._node = membership.node
        self._shared = membership.shared
        self._counters = membership.counters
        self._queues: dict[Group, deque[_Queued]] = {}
        self._queued = 0
        self._gathered: dict[Group, float] = {}  # the one asked for longest ago comes first

    def sizes(self) -> dict[str, int]:
        """How full the tables are."""
        return {"queued": self._queued, "gathered": len(self._gathered)}

    def send(self, group: Group, frame: bytes, origin: bytes | None, now: float) -> None:
        """Bring a frame that the rules let out to the members of a group.

        Args:
            group: which group.
            frame: a whole Ethernet frame.
            origin: the member that has sent it to us to be replicated, or None.
            now: seconds.
        """
        membership = self._membership
        config = membership.config
        if config is None or len(frame) > LONGEST:
            return  # the latter can only be a frame to be replicated
        me = self._node.address
        if config.replicators and me not in config.replicators and not membership.is_bridge:
            replicator = self._best(config.replicators, now)
            if replicator is not None:
                self._replicate(replicator, group, frame, now)
                return
        known = self._shared.groups.members(membership.network_id, group, now)
        limit = min(config.multicast_limit, _MOST)
        bridges = sorted(config.active_bridges - {me, origin})
        gather = 1
        if len(known) >= limit:
            known = random_sample(known, limit, self._shared.rng)
        else:
            gather = limit - len(known) + 1
            self._gather(group, gather, config, now, is_empty=not known)
        queued = _Queued(frame, origin, gather, limit, now, set())
        for address in dict.fromkeys((*bridges, *known)):
            if len(queued.sent_to) >= limit:
                break
            self._send_copy(queued, group, address, now)
        if gather > 1 and len(queued.sent_to) < limit:
            self._enqueue(group, queued)

    def learned(self, group: Group, address: bytes, now: float) -> None:
        """Send what waits for members of a group to one that has just turned up."""
        for queued in list(self._queues.get(group, ())):
            if now - queued.since < _QUEUE_TIME and address not in queued.sent_to:
                self._send_copy(queued, group, address, now)
                if len(queued.sent_to) >= queued.limit:
                    self._remove(group, queued)

    def expire(self, now: float) -> None:
        """Forget frames that nobody will want any more."""
        for group, queue in list(self._queues.items()):
            for queued in list(queue):
                if now - queued.since >= _QUEUE_TIME:
                    self._remove(group, queued)
        while self._gathered:
            group = next(iter(self._gathered))
            if now - self._gathered[group] < _GATHER_AGAIN:
                return
            del self._gathered[group]

    # copies

    def _send_copy(self, queued: _Queued, group: Group, address: bytes, now: float) -> None:
        membership = self._membership
        if address in (queued.origin, self._node.address):
            return
        queued.sent_to.add(address)  # also if the rules are against it
        record = self._outbound.decide_for(address, queued.frame, now)
        if record is None:
            return
        membership.push_if_due(record, now)
        self._send_frame(address, group, queued.frame, queued.gather, now)

    def _replicate(self, address: bytes, group: Group, frame: bytes, now: float) -> None:
        """Let a replicator make the copies."""
        membership = self._membership
        record = membership.members.obtain(address, now)
        if record is not None and self._shared.config.push_always:
            membership.push_if_due(record, now)
        self._send_frame(address, group, frame, None, now)

    def _send_frame(
        self, address: bytes, group: Group, frame: bytes, gather: int | None, now: float
    ) -> None:
        membership = self._membership
        config = membership.config
        replicate = gather is None
        source = frame[6:12]
        message = MulticastFrame(
            membership.network_id,
            group,
            frame[12] << 8 | frame[13],
            frame[_ETHERNET:],
            source=source if replicate or source != membership.mac else None,
            gather_limit=gather,
            replicate=replicate,
        )
        self._counters.multicast_copies += 1
        self._node.send(
            address,
            messages.MULTICAST_FRAME,
            message.emit(),
            now,
            compress=config is not None and not config.no_compression,
            context=None if gather is None else Asked(membership.network_id, group, gather),
        )

    def _best(self, addresses: frozenset[bytes], now: float) -> bytes | None:
        """Whom a message takes the least time to, among those that can be reached."""
        best, least = None, inf
        for address in sorted(addresses):
            if not self._node.can_reach(address, now):
                continue
            path = self._node.topology.peers[address].best_path(now)
            latency = inf if path is None or path.latency is None else path.latency
            if best is None or latency < least:
                best, least = address, latency
        return best

    # questions

    def _gather(
        self, group: Group, limit: int, config: NetworkConfig, now: float, *, is_empty: bool
    ) -> None:
        """Ask registries who else listens, unless that was done lately."""
        since = now - self._gathered.get(group, -inf)
        if since < (self._shared.config.gather_interval if is_empty else _GATHER_AGAIN):
            return
        self._gathered.pop(group, None)
        if len(self._gathered) >= _GROUPS:
            del self._gathered[next(iter(self._gathered))]
        self._gathered[group] = now
        membership = self._membership
        root = self._node.topology.best_root(now)
        registries = [] if root is None else [root[0].address]
        registries.append(membership.controller)
        registries += sorted(config.anchors | config.replicators)
        question = Gather(membership.network_id, group, limit, config.membership).emit()
        asked = Asked(membership.network_id, group, limit)
        for address in list(dict.fromkeys(registries))[:_REGISTRIES]:
            if address != self._node.address and self._node.can_reach(address, now):
                self._counters.gathers_out += 1
                self._node.send(address, messages.MULTICAST_GATHER, question, now, context=asked)

    # the queue

    def _enqueue(self, group: Group, queued: _Queued) -> None:
        queue = self._queues.setdefault(group, deque())
        queue.append(queued)
        self._queued += 1
        if len(queue) > _QUEUE:
            self._evict(group)
        elif self._queued > _QUEUED:
            self._evict(next(iter(self._queues)))

    def _evict(self, group: Group) -> None:
        self._remove(group, self._queues[group][0])
        self._counters.multicast_queue_evicted += 1

    def _remove(self, group: Group, queued: _Queued) -> None:
        queue = self._queues[group]
        queue.remove(queued)
        self._queued -= 1
        if not queue:
            del self._queues[group]
