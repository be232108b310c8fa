"""Revocations on their way to members (VL2 spec, 5.4, 13, 16.7).

A member believes one NETWORK_CREDENTIALS message per second and drops others without a word, so
two members shut out in quick succession must not be two messages in quick succession.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

import attrs

from zttrio.zerotier import messages
from zttrio.zerotier.network.credential import CredentialsMessage, Revocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.zerotier.identity import Randomness
    from zttrio.zerotier.node import Node

    from .state import ControllerCounters

__all__ = ["Mail", "Notice"]

_SPACING = 1.1  # a second, and what the network's delay may take off it
_PER_MESSAGE = 60  # of 152 octets: fits 9996
_BUNDLES = 256  # that wait for one member; arbitrary


@attrs.define(eq=False)
class Notice:
    """That a member is one no longer; signed once, when the first of the others is told.

    Attributes:
        network_id: of which network.
        target: who.
        threshold: since when, in ms since 1970.
        signed: None before anybody is told.
    """

    network_id: int
    target: bytes
    threshold: int
    signed: Revocation | None = None


@attrs.define(eq=False)
class _Box:
    """What one member still has to be told."""

    waiting: deque[Sequence[Notice]] = attrs.field(factory=lambda: deque(maxlen=_BUNDLES))
    next_at: float = -inf


class Mail:
    """Sends revocations, to each member as often as it listens."""

    def __init__(self, node: Node, rng: Randomness, counters: ControllerCounters) -> None:
        self._node = node
        self._rng = rng
        self._counters = counters
        self._boxes: dict[bytes, _Box] = {}

    def add(self, address: bytes, notices: Sequence[Notice]) -> None:
        """Tell a member soon; call `handle_timers` afterwards."""
        if notices:
            self._boxes.setdefault(address, _Box()).waiting.append(notices)

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None."""
        return min((box.next_at for box in self._boxes.values()), default=None)

    def handle_timers(self, now: float) -> None:
        """Send what is due."""
        for address, box in list(self._boxes.items()):
            if box.next_at > now:
                continue
            if not box.waiting:
                del self._boxes[address]
                continue
            bundle: list[Notice] = []
            while box.waiting and len(bundle) < _PER_MESSAGE:
                room = _PER_MESSAGE - len(bundle)
                first = box.waiting.popleft()
                bundle += first[:room]
                if len(first) > room:
                    box.waiting.appendleft(first[room:])
            box.next_at = now + _SPACING
            self._counters.revocations += len(bundle)
            message = CredentialsMessage(revocations=tuple(map(self._sign, bundle)))
            for payload in message.emit():
                self._node.send(address, messages.NETWORK_CREDENTIALS, payload, now, compress=True)

    def _sign(self, notice: Notice) -> Revocation:
        if notice.signed is None:
            notice.signed = Revocation.issue(
                self._node.identity,
                network_id=notice.network_id,
                id=int.from_bytes(self._rng(4), "big"),
                threshold=notice.threshold,
                target=notice.target,
            )
        return notice.signed
