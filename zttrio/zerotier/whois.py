"""Asking roots who somebody is, and the packets that wait for the answer (9.7, 10.1, 11.4).

Source addresses can be forged, so the questions are limited in rate and in number: strangers must
not be able to make us flood a root.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from . import messages
from .constants import TICK, WAITING_TIME, WHOIS_RETRY, is_reserved

if TYPE_CHECKING:
    from .counters import Counters
    from .endpoint import Endpoint
    from .sender import Sender
    from .topology import Topology

__all__ = ["Whois"]

_WAITING = 32
_QUESTIONS = 32


@attrs.define(eq=False)
class _Packet:
    """A packet from somebody we do not know yet."""

    packet: bytes
    local: int
    remote: Endpoint
    since: float


class Whois:
    """Open questions, and packets of unknown senders."""

    def __init__(self, topology: Topology, sender: Sender, counters: Counters) -> None:
        self._topology = topology
        self._sender = sender
        self._counters = counters
        self._asked: dict[bytes, float] = {}
        self._waiting: deque[_Packet] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def open_questions(self) -> int:
        """Addresses that have been asked for and not answered."""
        return len(self._asked)

    def ask(self, address: bytes, now: float) -> None:
        """Ask the best root who *address* is, unless that was done in the last half second."""
        if is_reserved(address):
            return
        root = self._topology.best_root(now, but_not=address)
        if root is None:
            return
        last = self._asked.get(address)
        if last is None and len(self._asked) >= _QUESTIONS:
            self._counters.whois_full += 1
            return
        if last is not None and now - last < WHOIS_RETRY:
            return
        self._asked[address] = now
        self._counters.whois_out += 1
        self._sender.send_by(*root, messages.WHOIS, address, now, context=address)

    def keep(self, packet: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Keep a packet until its sender's identity is known, 5 s at most."""
        if self._topology.best_root(now) is None:
            self._counters.packet_unknown_sender += 1
            return
        if len(self._waiting) >= _WAITING:
            self._waiting.popleft()
            self._counters.packet_waiting_evicted += 1
        self._waiting.append(_Packet(packet, local, remote, now))
        self.ask(packet[13:18], now)

    def release(self, address: bytes) -> list[tuple[bytes, int, Endpoint]]:
        """The packets that *address* had sent, now that it is known."""
        self._asked.pop(address, None)
        ready = [item for item in self._waiting if item.packet[13:18] == address]
        if ready:
            self._waiting = deque(item for item in self._waiting if item not in ready)
        return [(item.packet, item.local, item.remote) for item in ready]

    def waiting_addresses(self, now: float) -> list[bytes]:
        """Whose packets wait; those that have waited too long are dropped."""
        waiting = self._waiting
        while waiting and now - waiting[0].since >= WAITING_TIME:
            waiting.popleft()
            self._counters.packet_waiting_timeout += 1
        return list(dict.fromkeys(item.packet[13:18] for item in waiting))

    def expire(self, now: float) -> None:
        """Forget questions whose askers have given up."""
        for address in [a for a, last in self._asked.items() if now - last >= TICK]:
            del self._asked[address]
