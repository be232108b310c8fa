"""How frames of other members arrive: what is believed, what the rules let in (10.2, 11.6).

Every method here is for a peer that has passed the gate, except `receive_frame`, which is the way
of nearly all frames and therefore asks the gate itself, in one comparison if nothing has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages
from .frames import REDIRECT_IN, TEE_IN, WATCH_IN, emit_network_id

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

    from ..events import Message
    from .frames import ExtFrame, MulticastFrame
    from .member_record import MemberRecord
    from .membership import Membership
    from .netconf import NetworkConfig

__all__ = ["Inbound"]

_HEADER = 10  # octets of FRAME in front of the Ethernet payload
_ETHERNET = 14
_MAX_PAYLOAD = 10_000  # (11.6)
_DELIVERED = "frame_delivered"
_NO_ROOM = "frame_no_room"
_ZERO = bytes(6)


class Inbound:
    """One membership's frames on their way in.

    Args:
        membership: whose.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._counters = membership.counters
        self._config: NetworkConfig  # nobody passes the gate without

    def configure(self, config: NetworkConfig) -> None:
        """Follow the configuration that is in force now."""
        self._config = config

    def receive_frame(self, message: Message, now: float) -> str | None:
        """Take in a FRAME; returns the counter of what became of it, None at a closed gate."""
        membership = self._membership
        record = membership.admit(message.peer.address, now)
        if record is None:
            return None
        payload = message.payload
        if len(payload) <= _HEADER:
            return "frame_empty"
        frame = b"".join((membership.mac, record.mac, payload[8:]))
        if not membership.policy.is_open:
            verdict = self._filter(record, frame, now)
            if not isinstance(verdict, int):
                return verdict
        return _DELIVERED if membership.deliver(frame) else _NO_ROOM

    def receive_ext(self, record: MemberRecord, message: Message, ext: ExtFrame, now: float) -> str:
        """Take in an EXT_FRAME (10.2)."""
        outcome = self._judge_ext(record, ext, now)
        if ext.wants_answer and outcome in (
            "frame_filtered",
            "frame_redirected",
            "frame_empty",
            _DELIVERED,
            _NO_ROOM,
        ):
            data = emit_network_id(ext.network_id)
            answer = messages.emit_ok(messages.EXT_FRAME, message.packet_id, data)
            self._membership.node.send(record.address, messages.OK, answer, now)
        return outcome

    def _judge_ext(self, record: MemberRecord, ext: ExtFrame, now: float) -> str:
        membership = self._membership
        config = self._config
        if not ext.payload:
            return "frame_empty"
        source, destination = ext.source, ext.destination
        # A multicast source is nobody's, and a stack that took it for somebody's could be confused.
        if source in (_ZERO, membership.mac) or source[0] & 1:
            return "frame_bad_source"
        frame = _frame(destination, source, ext.ethertype, ext.payload)
        verdict = self._filter(record, frame, now)
        if not isinstance(verdict, int):
            return verdict
        if verdict == 1:
            if source != record.mac:
                if record.address not in config.active_bridges:
                    return "frame_not_from_bridge"
                membership.outbound.routes.learn(source, record.address)
            if destination != membership.mac:
                if destination[0] & 1:
                    if not config.multicast_limit:
                        return "frame_multicast_off"
                elif not membership.is_bridge:
                    return "frame_not_for_us"
        return _DELIVERED if membership.deliver(frame) else _NO_ROOM

    def receive_multicast(self, record: MemberRecord, multicast: MulticastFrame, now: float) -> str:
        """Take in a MULTICAST_FRAME (11.6)."""
        membership = self._membership
        config = self._config
        if not config.multicast_limit:
            return "frame_multicast_off"
        if not multicast.payload:
            return "frame_empty"
        destination = multicast.group.mac
        if not destination[0] & 1 or len(multicast.payload) > _MAX_PAYLOAD:
            return "frame_not_multicast"
        source = record.mac if multicast.source is None else multicast.source
        if source in (_ZERO, membership.mac) or source[0] & 1:
            return "frame_bad_source"
        frame = _frame(destination, source, multicast.ethertype, multicast.payload)
        if multicast.replicate and membership.node.address in config.replicators:
            membership.outbound.distribution.send(multicast.group, frame, record.address, now)
        if source != record.mac:
            if record.address not in config.active_bridges:
                return "frame_not_from_bridge"
            membership.outbound.routes.learn(source, record.address)
        verdict = self._filter(record, frame, now)
        if not isinstance(verdict, int):
            return verdict
        return _DELIVERED if membership.deliver(frame) else _NO_ROOM

    def _filter(self, record: MemberRecord, frame: bytes, now: float) -> int | str:
        """What the rules say, with copies and redirection done.

        Returns:
            1, or 2 if the frame's MACs do not matter; or the counter of why it is not delivered.
        """
        membership = self._membership
        membership.freshen(record)  # credentials that have come since the gate
        decision = membership.policy.decide_inbound(
            record.address,
            frame[:6],
            frame[6:12],
            frame[12] << 8 | frame[13],
            frame[_ETHERNET:],
            record,
        )
        if not decision.accepted:
            return "frame_filtered"
        outbound = membership.outbound
        for copy in decision.copies:
            self._counters.copies_out += 1
            flags = WATCH_IN if copy.is_watch else TEE_IN
            outbound.send_ext(copy.address, flags, frame[: _ETHERNET + copy.length], now)
        if decision.redirect is not None:
            outbound.send_ext(decision.redirect, REDIRECT_IN, frame, now)
            return "frame_redirected"
        return decision.accepted


def _frame(destination: bytes, source: bytes, ethertype: int, payload: Buffer) -> bytes:
    return b"".join((destination, source, ethertype.to_bytes(2, "big"), payload))
