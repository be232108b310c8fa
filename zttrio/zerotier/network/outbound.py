"""How frames of the local stack leave: to a member, by a bridge, or to a group (10.1, 11, 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages
from ..constants import MAX_PAYLOAD, is_reserved
from .bridging import BridgeRoutes, GroupsBehind
from .derived import BROADCAST, Group, address_of, first_octet
from .distribution import LONGEST, Distribution
from .emulation import NeighborEmulation
from .frames import (
    EXT_FRAME_HEADER,
    FRAME_HEADER,
    REDIRECT_OUT,
    TEE_OUT,
    WATCH_OUT,
)
from .multicast import random_sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .member_record import MemberRecord
    from .membership import Membership
    from .netconf import NetworkConfig
    from .rule_policy import Decision

__all__ = ["Outbound"]

ETHERNET = 14
"""Octets of an Ethernet header."""

_NOBODY = bytes(5)
_BRIDGES = 32  # tried for an unknown destination (1.2)
_ARP = b"\x08\x06"
_ARP_LENGTH = ETHERNET + 28
_ARP_IPV4 = b"\x08\x00\x06\x04"  # protocol, and both lengths
_ARP_REQUEST = 1
_LONGEST = ETHERNET + MAX_PAYLOAD - FRAME_HEADER
_LONGEST_EXT = ETHERNET + MAX_PAYLOAD - EXT_FRAME_HEADER


class Outbound:
    """One membership's frames on their way out.

    Args:
        membership: whose.
    """

    def __init__(self, membership: Membership) -> None:
        self.routes = BridgeRoutes()
        """What is known to be behind other members."""
        self.distribution = Distribution(membership, self)
        self._membership = membership
        self._node = membership.node
        self._counters = membership.counters
        self._first = first_octet(membership.network_id)
        self._prefix = membership.id_octets
        self._ext_prefix = membership.id_octets + b"\0"
        self._behind = GroupsBehind()
        self._emulation: NeighborEmulation | None = None

    def configure(self, config: NetworkConfig) -> None:
        """Follow the configuration that is in force now."""
        self._emulation = None
        if config.ndp_emulation:
            self._emulation = NeighborEmulation(config.network_id, config.address, config.addresses)
        if not self._membership.is_bridge:
            self._behind = GroupsBehind()

    def groups_behind(self) -> frozenset[Group]:
        """Groups of the machines that we are the bridge for."""
        return self._behind.groups()

    def sizes(self) -> dict[str, int]:
        """How full the tables are."""
        return {
            "routes": len(self.routes),
            "behind": len(self._behind),
            **self.distribution.sizes(),
        }

    def expire(self, now: float) -> bool:
        """Forget what is too old; True if groups behind us were."""
        self.distribution.expire(now)
        return self._behind.expire(now)

    # frames of the local stack

    def send(self, frame: bytes, now: float) -> str:
        """Send a frame; returns the counter of what became of it."""
        membership = self._membership
        if len(frame) < ETHERNET:
            return "out_malformed"
        config = membership.config
        if config is None:
            return "out_no_config"
        mine = membership.mac
        is_own = frame[6:12] == mine
        if not is_own and not membership.is_bridge:
            return "out_bad_source"
        if frame[0] & 1:
            return self._multicast(frame, config, now, is_own=is_own)
        destination = frame[:6]
        if destination == mine:
            return "out_to_self" if membership.deliver(frame) else "out_ring_full"
        if frame[0] != self._first:
            return self._bridge(frame, config, now)
        record = membership.members.by_mac.get(destination)
        if record is None:
            address = address_of(destination, membership.network_id)
            if is_reserved(address) or address == self._node.address:
                return "out_bad_destination"
            record = membership.members.obtain(address, now)
            if record is None:
                return "out_no_room"
        if len(frame) > (_LONGEST if is_own else _LONGEST_EXT):
            return "out_too_long"
        if not membership.policy.is_open:
            decision = self.decide(record.address, record, frame)
            outcome = self._carry_out(decision, frame, now, may_copy=True)
            if outcome is not None:
                return outcome
        membership.push_if_due(record, now)
        if is_own:
            self._node.send(record.address, messages.FRAME, self._prefix + frame[12:], now)
        else:
            self._node.send(record.address, messages.EXT_FRAME, self._ext_prefix + frame, now)
        return "out_unicast"

    def send_burst(self, frames: Iterable[bytes], now: float) -> None:
        """Send frames in order, those that follow one another to the same member together."""
        run: list[bytes] = []
        header = b""
        for frame in frames:
            if frame[:ETHERNET] != header:
                if run:
                    self._send_run(run, now)
                    run = []
                header = frame[:ETHERNET]
            run.append(frame)
        if run:
            self._send_run(run, now)

    def _send_run(self, frames: list[bytes], now: float) -> None:
        """Send frames with one and the same header; quickly, if none needs to be looked at."""
        membership = self._membership
        first = frames[0]
        record = membership.members.by_mac.get(first[:6])
        if (
            record is None
            or membership.config is None
            or not membership.policy.is_open
            or first[6:12] != membership.mac
            or len(first) < ETHERNET
            or max(map(len, frames)) > _LONGEST
        ):
            for frame in frames:
                membership.send(frame, now)
            return
        membership.push_if_due(record, now)
        prefix = self._prefix
        payloads = [prefix + frame[12:] for frame in frames]
        self._node.send_burst(record.address, messages.FRAME, payloads, now)
        self._counters.frames_out += len(frames)
        self._counters.out_unicast += len(frames)

    def decide(self, destination: bytes, record: MemberRecord | None, frame: bytes) -> Decision:
        """What the rules say about a frame of ours to a node, or to zeros in a first pass."""
        membership = self._membership
        if record is not None:
            membership.freshen(record)
        return membership.policy.decide_outbound(
            destination,
            frame[:6],
            frame[6:12],
            frame[12] << 8 | frame[13],
            frame[ETHERNET:],
            record,
        )

    def decide_for(self, address: bytes, frame: bytes, now: float) -> MemberRecord | None:
        """Filter a copy for one of many recipients; its record if it may be sent to it."""
        membership = self._membership
        record = membership.members.obtain(address, now)
        if record is None:
            return None
        if not membership.policy.is_open:
            decision = self.decide(address, record, frame)
            if self._carry_out(decision, frame, now, may_copy=False) is not None:
                return None
        return record

    def send_ext(self, address: bytes, flags: int, frame: bytes, now: float) -> None:
        """Send a frame, or the beginning of one, with both its MACs."""
        if address == self._node.address or is_reserved(address) or len(frame) > _LONGEST_EXT:
            self._counters.copies_impossible += 1  # a rule may name anybody
            return
        head = self._prefix + bytes((flags,))
        self._node.send(address, messages.EXT_FRAME, head + frame, now)

    def _carry_out(
        self, decision: Decision, frame: bytes, now: float, *, may_copy: bool
    ) -> str | None:
        """Copy and redirect a frame; the counter of what became of it, None if it goes on."""
        if not decision.accepted:
            return "out_filtered"
        if may_copy:
            for copy in decision.copies:
                self._counters.copies_out += 1
                flags = WATCH_OUT if copy.is_watch else TEE_OUT
                self.send_ext(copy.address, flags, frame[: ETHERNET + copy.length], now)
        if decision.redirect is None:
            return None
        self.send_ext(decision.redirect, REDIRECT_OUT, frame, now)
        return "out_redirected"

    # bridges

    def _bridge(self, frame: bytes, config: NetworkConfig, now: float) -> str:
        """Send a frame to a machine that is not a member (14)."""
        membership = self._membership
        if len(frame) > _LONGEST_EXT:
            return "out_too_long"
        if not membership.policy.is_open:
            decision = self.decide(_NOBODY, None, frame)
            outcome = self._carry_out(decision, frame, now, may_copy=True)
            if outcome is not None:
                return outcome
        others = config.active_bridges - {self._node.address}
        known = self.routes.find(frame[:6])
        if known is not None and known in others:
            recipients = [known]
        else:
            recipients = sorted(others)
            if len(recipients) > _BRIDGES:
                recipients = random_sample(recipients, _BRIDGES, membership.shared.rng)
        if not recipients:
            return "out_no_bridge"
        for address in recipients:
            record = self.decide_for(address, frame, now)
            if record is not None:
                if membership.shared.config.push_always:
                    membership.push_if_due(record, now)
                self.send_ext(address, 0, frame, now)
        return "out_bridged"

    # groups

    def _multicast(self, frame: bytes, config: NetworkConfig, now: float, *, is_own: bool) -> str:
        """Send a frame to a group (11.1)."""
        membership = self._membership
        group = group_of(frame)
        if group == BROADCAST and not config.broadcast:
            return "out_broadcast_off"
        if self._emulation is not None:
            advertisement = self._emulation.answer(frame)
            if advertisement is not None:
                return "out_emulated" if membership.deliver(advertisement) else "out_ring_full"
        if not config.multicast_limit:
            return "out_multicast_off"
        if len(frame) > LONGEST:
            return "out_too_long"
        if not is_own and self._behind.learn(group, now):
            membership.find_own_groups(now)
        if not membership.policy.is_open:
            decision = self.decide(_NOBODY, None, frame)
            outcome = self._carry_out(decision, frame, now, may_copy=True)
            if outcome is not None:
                return outcome
        self.distribution.send(group, frame, None, now)
        return "out_multicast"


def group_of(frame: bytes) -> Group:
    """The group that a frame with a multicast destination goes to (11.1)."""
    destination = frame[:6]
    if (
        destination == BROADCAST.mac
        and frame[12:14] == _ARP
        and len(frame) >= _ARP_LENGTH
        and frame[16:20] == _ARP_IPV4
        and frame[21] == _ARP_REQUEST
    ):
        return Group(destination, int.from_bytes(frame[38:42], "big"))
    return Group(destination)
