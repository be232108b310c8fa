"""The neighbor cache: which hardware address is behind a next hop, for both families.

The states are RFC 4861 section 7.3's, which Linux uses for ARP as well.  How to ask is the
business of `zttrio.stack.arp` and its IPv6 sibling; this room knows when to ask, what waits for
the answer, and when to stop believing it.

A REACHABLE neighbor whose `Neighbor.fresh_until` has passed is what the RFC calls STALE: the hot
path compares one number, and no timer is needed for the change.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Protocol

from zttrio.header.address import ip_text, mac_text
from zttrio.header.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from zttrio.config import Config
    from zttrio.header.frame import Frame

    from .counters import Counters
    from .timers import TimerQueue

__all__ = ["DELAY", "INCOMPLETE", "PROBE", "REACHABLE", "STALE", "Neighbor", "Neighbors"]

INCOMPLETE = 0  # asked, not answered
REACHABLE = 1  # answered, or heard of by a transport, until `fresh_until`
STALE = 2  # known, but not to be relied on
DELAY = 3  # used while stale: a transport may still confirm it
PROBE = 4  # asked again, directly
GONE = 5  # no longer in the cache
_TIMED = (INCOMPLETE, DELAY, PROBE)
_NAMES = ("INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "GONE")

DELAY_FIRST_PROBE = 5.0  # RFC 4861 10 DELAY_FIRST_PROBE_TIME
_RANDOM_FACTORS = (0.5, 1.5)  # RFC 4861 10 MIN_RANDOM_FACTOR, MAX_RANDOM_FACTOR
QUEUE_OCTETS = 212_992  # waiting for one neighbor; Linux's unres_qlen_bytes
TOTAL_QUEUE_OCTETS = 4 << 20  # waiting for all neighbors together; arbitrary
_NO_ETHERNET = bytes(14)


class Neighbor:
    """One entry.  Plain slots: the sending path reads it for every packet.

    Attributes:
        address: packed next hop.
        mac: its hardware address, or None while INCOMPLETE.
        ethernet: the Ethernet header of frames to it.
        state: one of the states above.
        fresh_until: until then frames go out without a further thought.
        used: when a frame was last sent to it, roughly; the cache drops the longest unused.
        due: when it is asked again or given up.
        attempts: how often it was asked in this state.
        source: our address in the packet that made us ask.
        is_router: it said so (RFC 4861 7.3.3).
    """

    __slots__ = (
        "address",
        "attempts",
        "due",
        "ethernet",
        "fresh_until",
        "is_router",
        "mac",
        "queue",
        "queued_octets",
        "source",
        "state",
        "used",
    )

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.mac: bytes | None = None
        self.ethernet = _NO_ETHERNET
        self.state = INCOMPLETE
        self.fresh_until = -inf
        self.used = -inf
        self.due = inf
        self.attempts = 0
        self.source = b""
        self.is_router = False
        self.queue: deque[Frame] | None = None
        self.queued_octets = 0

    def __str__(self) -> str:
        if self.mac is None:
            return _NAMES[self.state]
        return f"{mac_text(self.mac)} {_NAMES[self.state]}"


class NeighborUser(Protocol):
    """Who the cache works for: the IP layer."""

    def solicit(self, address: bytes, mac: bytes | None, source: bytes, now: float) -> None:
        """Ask who has *address*: everybody, or only *mac* if that is not None."""

    def transmit(self, frame: Frame) -> None:
        """Send a frame that has waited, now complete."""

    def neighbor_failed(self, neighbor: Neighbor, frames: list[Frame], now: float) -> None:
        """Learn that *neighbor* did not answer and that *frames* (without Ethernet) are lost."""


class Neighbors:
    """The neighbor cache; a timer owner.  Bounded in entries, and in octets that wait.

    Args:
        mac: our own hardware address.
        user: asked to solicit, to transmit, and told about failures.
        timers: where the cache's one deadline is kept.
        counters: what is counted.
        config: limits and intervals.
        rng: spreads the reachable time (RFC 4861 6.3.2).

    Attributes:
        reachable_time: how long an answer is believed, in seconds, by octets of an address.
        retry_interval: between two questions, in seconds, by octets of an address.
    """

    def __init__(
        self,
        mac: bytes,
        user: NeighborUser,
        timers: TimerQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        self.deadline = inf
        self.queued = inf
        self._mac = mac
        self._user = user
        self._timers = timers
        self._counters = counters
        self._rng = rng
        self._limit = config.neighbor_limit
        self._attempts = config.neighbor_attempts
        self._queue_packets = config.neighbor_queue
        self._queued_octets = 0
        self._base_reachable = dict.fromkeys((4, 16), config.neighbor_reachable)
        self.reachable_time = {
            octets: self._spread(base) for octets, base in self._base_reachable.items()
        }
        self.retry_interval = dict.fromkeys((4, 16), config.neighbor_retry)
        self._table: dict[bytes, Neighbor] = {}
        # For each state and family, neighbors in order of `due`, since all wait equally long
        self._waiting: dict[tuple[int, int], dict[bytes, Neighbor]] = {
            (state, octets): {} for state in _TIMED for octets in (4, 16)
        }

    def get(self, address: bytes) -> Neighbor | None:
        """The entry of *address*, if there is one; changes nothing."""
        return self._table.get(address)

    def use(self, address: bytes, source: bytes, now: float) -> Neighbor:
        """The entry to send a packet to, made and asked for if there is none.

        A stale entry starts RFC 4861's way to a probe.  If the result is INCOMPLETE the packet
        belongs into `enqueue`.

        Args:
            address: packed next hop.
            source: our packed address in the packet.
            now: seconds.
        """
        neighbor = self._table.get(address)
        if neighbor is None:
            self._make_room()
            neighbor = self._table[address] = Neighbor(address)
            neighbor.source = source
            neighbor.used = now
            self._ask(neighbor, INCOMPLETE, now)
        else:
            neighbor.used = now
            state = neighbor.state
            if state == STALE or (state == REACHABLE and now >= neighbor.fresh_until):
                neighbor.source = source
                neighbor.due = now + DELAY_FIRST_PROBE
                self._enter(neighbor, DELAY)
        return neighbor

    def enqueue(self, neighbor: Neighbor, frame: Frame, now: float) -> None:
        """Keep *frame* until *neighbor* answers; the oldest makes room (RFC 1122 2.3.2.2).

        Args:
            neighbor: an INCOMPLETE one.
            frame: with 14 octets of anything where the Ethernet header goes.
            now: seconds.
        """
        neighbor.used = now
        queue = neighbor.queue
        if queue is None:
            queue = neighbor.queue = deque()
        size = len(frame)
        while queue and (
            len(queue) >= self._queue_packets or neighbor.queued_octets + size > QUEUE_OCTETS
        ):
            self._forget_octets(neighbor, len(queue.popleft()))
            self._counters.neighbor_queue_full += 1
        if self._queued_octets + size > TOTAL_QUEUE_OCTETS:
            self._counters.neighbor_queue_full += 1
            return
        queue.append(frame)
        neighbor.queued_octets += size
        self._queued_octets += size

    def confirm(self, address: bytes, now: float) -> None:
        """Believe in *address* again: a transport has seen its packets arrive (RFC 4861 7.3.1).

        Does nothing for an address whose hardware address is not known.
        """
        neighbor = self._table.get(address)
        if neighbor is not None and neighbor.mac is not None:
            self.set_reachable(neighbor, now)

    def learn(self, address: bytes, mac: bytes, now: float) -> Neighbor | None:
        """Note what a neighbor said about itself unasked: a new or changed entry becomes STALE.

        Args:
            address: packed.
            mac: its hardware address.
            now: seconds.

        Returns:
            The entry, or None if the cache is full: a stranger pushes nobody out.
        """
        neighbor = self._table.get(address)
        if neighbor is None:
            if len(self._table) >= self._limit:
                self._counters.neighbor_table_full += 1
                return None
            neighbor = self._table[address] = Neighbor(address)
            neighbor.used = now
        if neighbor.mac != mac:
            self.set_stale(neighbor, mac)
        return neighbor

    def set_reachable(self, neighbor: Neighbor, now: float, mac: bytes | None = None) -> None:
        """A proof that *neighbor* is there; with *mac*, that this is where."""
        neighbor.used = now
        neighbor.fresh_until = now + self.reachable_time[len(neighbor.address)]
        if neighbor.state != REACHABLE or mac is not None:
            self._enter(neighbor, REACHABLE)
            if mac is not None:
                self._set_mac(neighbor, mac)

    def set_stale(self, neighbor: Neighbor, mac: bytes | None = None) -> None:
        """*neighbor* is to be verified before it is relied on; with *mac*, it moved there."""
        neighbor.fresh_until = -inf
        self._enter(neighbor, STALE)
        if mac is not None:
            self._set_mac(neighbor, mac)

    def forget(self, address: bytes) -> None:
        """Drop the entry of *address* and what waits for it, if there is one."""
        neighbor = self._table.get(address)
        if neighbor is not None:
            self._remove(neighbor)

    def set_parameters(self, octets: int, reachable: float | None, retry: float | None) -> None:
        """Take over what a router advertises (RFC 4861 6.3.4); None keeps a value.

        Args:
            octets: of an address of the family this is for.
            reachable: seconds an answer is believed, before spreading.
            retry: seconds between questions.
        """
        if reachable is not None and reachable != self._base_reachable[octets]:
            self._base_reachable[octets] = reachable
            self.reachable_time[octets] = self._spread(reachable)
        if retry is not None:
            self.retry_interval[octets] = retry

    def handle_timer(self, now: float) -> None:
        """Ask again where an answer is overdue, and give up after the last attempt."""
        for neighbor in self._due(DELAY, now):
            self._ask(neighbor, PROBE, now)
        for state in (INCOMPLETE, PROBE):
            for neighbor in self._due(state, now):
                if neighbor.attempts < self._attempts:
                    self._ask(neighbor, state, now)
                else:
                    self._fail(neighbor, now)
        self._rearm()

    def __iter__(self) -> Iterator[Neighbor]:
        return iter(self._table.values())

    def __len__(self) -> int:
        return len(self._table)

    def as_dict(self) -> dict[str, str]:
        """Addresses and what is known about them, as text."""
        return {ip_text(neighbor.address): str(neighbor) for neighbor in self}

    @property
    def waiting_octets(self) -> int:
        """Octets of all packets that wait for an answer."""
        return self._queued_octets

    def _spread(self, base: float) -> float:
        return base * self._rng.uniform(*_RANDOM_FACTORS)

    def _ask(self, neighbor: Neighbor, state: int, now: float) -> None:
        if neighbor.state != state:
            neighbor.attempts = 0
        neighbor.attempts += 1
        neighbor.due = now + self.retry_interval[len(neighbor.address)]
        self._enter(neighbor, state)
        self._user.solicit(neighbor.address, neighbor.mac, neighbor.source, now)

    def _enter(self, neighbor: Neighbor, state: int) -> None:
        octets = len(neighbor.address)
        if neighbor.state in _TIMED:
            self._waiting[neighbor.state, octets].pop(neighbor.address, None)
        neighbor.state = state
        if state in _TIMED:
            self._waiting[state, octets][neighbor.address] = neighbor
            if neighbor.due < self.deadline:
                self.deadline = neighbor.due
                self._timers.schedule(self)

    def _set_mac(self, neighbor: Neighbor, mac: bytes) -> None:
        neighbor.mac = mac
        ethertype = ETHERTYPE_IPV4 if len(neighbor.address) == 4 else ETHERTYPE_IPV6
        neighbor.ethernet = EthernetHeader(mac, self._mac, ethertype).emit()
        queue, neighbor.queue = neighbor.queue, None
        if queue:
            self._forget_octets(neighbor, neighbor.queued_octets)
            for frame in queue:
                frame.header = neighbor.ethernet + bytes(frame.header[14:])
                self._user.transmit(frame)

    def _due(self, state: int, now: float) -> list[Neighbor]:
        found = []
        for octets in (4, 16):
            for neighbor in self._waiting[state, octets].values():
                if neighbor.due > now:
                    break
                found.append(neighbor)
        return found

    def _rearm(self) -> None:
        self.deadline = min(
            (next(iter(held.values())).due for held in self._waiting.values() if held), default=inf
        )

    def _fail(self, neighbor: Neighbor, now: float) -> None:
        self._counters.neighbor_unreachable += 1
        frames = self._remove(neighbor)
        self._counters.neighbor_packets_lost += len(frames)
        self._user.neighbor_failed(neighbor, frames, now)

    def _remove(self, neighbor: Neighbor) -> list[Frame]:
        del self._table[neighbor.address]
        self._enter(neighbor, GONE)
        neighbor.fresh_until = -inf
        frames = list(neighbor.queue or ())
        neighbor.queue = None
        self._forget_octets(neighbor, neighbor.queued_octets)
        return frames

    def _forget_octets(self, neighbor: Neighbor, octets: int) -> None:
        neighbor.queued_octets -= octets
        self._queued_octets -= octets

    def _make_room(self) -> None:
        """See to it that one more entry fits.

        Unanswered questions go first, oldest first, so that a scan of our prefix pushes nobody out
        who has answered; but not if they are few, so that a cache full of answers still learns.
        """
        if len(self._table) < self._limit:
            return
        asking = max((self._waiting[INCOMPLETE, octets] for octets in (4, 16)), key=len)
        if asking and len(asking) >= self._limit // 4:
            victim = next(iter(asking.values()))
        else:
            known = (entry for entry in self._table.values() if entry.state != INCOMPLETE)
            victim = min(known, key=lambda entry: entry.used)
        self._counters.neighbor_evicted += 1
        self._counters.neighbor_packets_lost += len(self._remove(victim))
