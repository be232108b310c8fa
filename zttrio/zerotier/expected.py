"""Which packets of ours may be answered: an OK to anything else has no effect (11.3).

Learning paths, identities, worlds and network configurations all hang on this table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Expectation", "Expected"]

_LIMIT = 8192
_TIME = 60.0


@attrs.define(eq=False)
class Expectation:
    """A packet that has been sent.

    Attributes:
        address: whom it went to.
        verb: what it asked.
        sent_at: when.
        remote: the endpoint it was sent to, possibly a relay's.
        context: whatever the sender wants back with the answer.
    """

    address: bytes
    verb: int
    sent_at: float
    remote: Endpoint
    context: object = None


class Expected:
    """Packets sent in the last 60 s, the last 8192 at most, by the ID they have on the wire."""

    def __init__(self) -> None:
        self._sent: dict[bytes, Expectation] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._sent)

    def note(self, packet_id: bytes, expectation: Expectation) -> None:
        """Remember a packet that may be answered."""
        if len(self._sent) >= _LIMIT:
            del self._sent[next(iter(self._sent))]
        self._sent[packet_id] = expectation

    def find(self, packet_id: bytes, address: bytes, verb: int, now: float) -> Expectation | None:
        """What an OK from *address* to *verb* answers, or None if nobody asked.

        Some requests are answered in several pieces, so an entry stays until it is too old.
        """
        sent = self._sent.get(packet_id)
        if sent is None or sent.address != address or sent.verb != verb:
            return None
        return sent if now - sent.sent_at < _TIME else None

    def expire(self, now: float) -> None:
        """Forget what nobody will answer any more."""
        while self._sent:
            packet_id = next(iter(self._sent))
            if now - self._sent[packet_id].sent_at < _TIME:
                return
            del self._sent[packet_id]
