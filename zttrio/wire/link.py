"""One direction of a simulated cable: when does a frame come out, how often, and in what shape?

Knows about time, chance and sizes.  Does not know who is at the ends, and does not sleep: the
segment asks for arrival times and keeps the frames until then.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import attrs

from zttrio.errors import HeaderError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.offload import finish_checksum, split

if TYPE_CHECKING:
    from random import Random

    from attrs import Attribute

__all__ = ["Arrival", "Direction", "DirectionCounters", "Link"]

ETHERNET_HEADER = 14


def _finite_not_negative(_: object, attribute: Attribute[Any], value: float) -> None:
    if not (value >= 0 and isfinite(value)):
        raise ValueError(f"{attribute.name} must be finite and not negative, got {value}")


def _probability(_: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, got {value}")


def _positive(_: object, attribute: Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be greater than 0, got {value}")


def _mtu(_: object, attribute: Attribute[Any], value: int) -> None:
    if not 68 <= value <= 65535:  # RFC 791 3.2: every internet module forwards 68 octets
        raise ValueError(f"{attribute.name} must be between 68 and 65535, got {value}")


@attrs.frozen(kw_only=True)
class Link:
    """What one direction of a simulated cable does to frames.  The default does nothing.

    A frame meets, in this order: the MTU, the queue in front of the transmitter, the transmitter
    (`rate`), and then, on the cable, loss, duplication, delay, jitter, reordering, corruption.
    So a lost frame has used its share of the rate, as on a real cable.

    Raises:
        ValueError: a value makes no sense.
    """

    delay: float = attrs.field(default=0.0, validator=_finite_not_negative)
    """Seconds from the last octet sent to the last octet received."""
    jitter: float = attrs.field(default=0.0, validator=_finite_not_negative)
    """Up to so many more seconds, evenly spread.  Frames stay in order: one that would overtake
    arrives together with the one in front of it."""
    loss: float = attrs.field(default=0.0, validator=_probability)
    """Chance that a frame disappears; 1 is a cut cable."""
    duplicate: float = attrs.field(default=0.0, validator=_probability)
    """Chance that a frame arrives twice."""
    reorder: float = attrs.field(default=0.0, validator=_probability)
    """Chance that a frame is held back for `reorder_delay`, so that later ones overtake it."""
    reorder_delay: float = attrs.field(default=0.01, validator=_positive)
    """Seconds that a reordered frame is held back; arbitrary."""
    corrupt: float = attrs.field(default=0.0, validator=_probability)
    """Chance that one bit of the frame, anywhere in it, arrives inverted."""
    rate: float = attrs.field(default=inf, validator=_positive)
    """Octets a second that the transmitter puts on the cable."""
    queue: int = attrs.field(default=256 * 1024, validator=_finite_not_negative)
    """Octets that may wait for the transmitter, the frame on its way out included; an idle
    transmitter takes any frame.  The default is arbitrary, the size of a small switch's port."""
    push_back: bool = False
    """What a full queue does.  False: the frame is dropped, as by a switch.  True: the sender
    keeps it, as with a network card's transmit ring; only the direction that leaves a station
    can do this."""
    mtu: int = attrs.field(default=1500, validator=_mtu)
    """Largest IP packet in octets; longer ones disappear, as at a switch with a smaller MTU."""

    @property
    def is_transparent(self) -> bool:
        """True if frames pass at once and unchanged, except that too long ones disappear."""
        return (
            self.rate == inf
            and not self.delay
            and not self.jitter
            and not self.loss
            and not self.duplicate
            and not self.reorder
            and not self.corrupt
        )


@attrs.define
class DirectionCounters:
    """What one direction did to frames so far; every drop is in exactly one of the first four."""

    malformed: int = 0
    too_long: int = 0
    queue_full: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0


Arrival = tuple[float, Frame]
"""A frame and when it comes out of the cable, in seconds of the clock that went in."""


class Direction:
    """One direction of a cable, with its own source of chance.

    Every draw comes from *rng*, which no other direction uses: what happens here depends on the
    frames that went in here, and on nothing else.
    """

    def __init__(self, link: Link, rng: Random) -> None:
        self.counters: DirectionCounters = DirectionCounters()
        self._rng = rng
        self._idle_at = -inf  # when the transmitter has sent all that it accepted
        self.link = link

    @property
    def link(self) -> Link:
        """How the cable behaves from now on; frames on their way are not affected."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self.is_transparent: bool = link.is_transparent
        self._last_arrival = -inf  # another path: it may be faster than the old one

    def passes(self, frame: Frame) -> bool:
        """True if *frame* comes out at once and unchanged, so that `transit` is not needed."""
        return self.is_transparent and (
            frame.gso_size > 0 or len(frame) - ETHERNET_HEADER <= self._link.mtu
        )

    def has_room(self, size: int, now: float) -> bool:
        """True if a frame of *size* octets would find room in front of the transmitter."""
        link = self._link
        backlog = self._idle_at - now
        # Half an octet for rounding: at `room_at` there is room, or the sender would spin.
        return backlog <= 0 or backlog * link.rate + size <= link.queue + 0.5

    def room_at(self, size: int, now: float) -> float:
        """When a frame of *size* octets will find room, and the queue is at least half empty.

        Waiting for half of it makes the sender come back with a burst and not with one frame.
        """
        link = self._link
        backlog = max(0.0, min(link.queue - size, link.queue / 2))
        return max(now, self._idle_at - backlog / link.rate)

    def transit(self, frame: Frame, now: float) -> tuple[list[Arrival], str]:
        """Put *frame* on the cable: its arrivals, none or several, and why any of it was dropped.

        A super-segment is cut first, because every one of its segments has its own fate.
        """
        if not frame.gso_size:
            return self._transit(frame, now)
        arrivals: list[Arrival] = []
        reason = ""
        try:
            pieces = split(frame, self._link.mtu)
        except (HeaderError, ValueError):
            self.counters.malformed += 1
            return [], "malformed"
        for piece in pieces:
            arrived, dropped = self._transit(piece, now)
            arrivals += arrived
            reason = reason or dropped
        return arrivals, reason

    def _transit(self, frame: Frame, now: float) -> tuple[list[Arrival], str]:
        link, rng, counters = self._link, self._rng, self.counters
        size = len(frame)
        if size - ETHERNET_HEADER > link.mtu:
            counters.too_long += 1
            return [], "too long"
        sent_at = now
        if link.rate < inf:
            if not self.has_room(size, now):
                counters.queue_full += 1
                return [], "queue full"
            sent_at = self._idle_at = max(now, self._idle_at) + size / link.rate
        if link.loss and rng.random() < link.loss:
            counters.lost += 1
            return [], "lost"
        arrivals = [self._arrival(frame, sent_at)]
        if link.duplicate and rng.random() < link.duplicate:
            counters.duplicated += 1
            arrivals.append(self._arrival(frame, sent_at))
        return arrivals, ""

    def _arrival(self, frame: Frame, sent_at: float) -> Arrival:
        link, rng = self._link, self._rng
        due = sent_at + link.delay
        if link.jitter:
            due += rng.random() * link.jitter
        if link.reorder and rng.random() < link.reorder:
            self.counters.reordered += 1
            due += link.reorder_delay  # and nobody waits for it
        else:
            due = self._last_arrival = max(due, self._last_arrival)
        if link.corrupt and rng.random() < link.corrupt:
            self.counters.corrupted += 1
            frame = _corrupted(frame, rng)
        return due, frame


def _corrupted(frame: Frame, rng: Random) -> Frame:
    """The same frame with one bit inverted, and with a checksum that can tell."""
    if frame.checksum == CHECKSUM_PARTIAL:
        with suppress(HeaderError):  # then there is no checksum that could tell
            frame = finish_checksum(frame)
    octets = bytearray(bytes(frame))
    bit = rng.randrange(8 * len(octets))
    octets[bit // 8] ^= 1 << bit % 8
    return Frame(bytes(octets))
