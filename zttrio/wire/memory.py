"""A simulated Ethernet: stations on cables that delay and lose, around a switch without memory.

A frame crosses two links: the sender's, up to the switch, and the receiver's, down from it.  The
switch knows every station's address: a unicast frame goes to its owner, a broadcast or multicast
frame to everybody else.  Time is trio's clock, so under `trio.testing.MockClock` it is virtual,
and chance comes from the segment's seed only: see `zttrio.testing.Lab`, which ties it together.

Nothing here knows what is inside a frame behind the two hardware addresses.
"""

from __future__ import annotations

import heapq
from itertools import count
from random import Random
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.errors import WireError
from zttrio.header.frame import Frame

from .link import Direction, Link
from .name import station_name
from .shortcuts import OFFLOAD
from .station import Bursts, MemoryWire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zttrio.header.frame import Buffer

__all__ = ["FrameRecord", "MemorySegment", "MemoryWire"]

IN_FLIGHT_LIMIT = 256 << 20  # octets on all cables of a segment; arbitrary, far above any test


@attrs.frozen
class FrameRecord:
    """What became of one frame, or of one copy of it.

    Attributes:
        time: when that was decided, in seconds of trio's clock.
        source: the sending station's name.
        destination: the receiving station's name, or "" if it was dropped before the switch.
        fate: "delivered", or why it was dropped: "lost", "queue full", "too long", "malformed",
            "partitioned", "no station", "not running", "in flight limit", "inbox full".
        frame: the octets, as they arrived or would have arrived.
    """

    time: float
    source: str
    destination: str
    fate: str
    frame: bytes

    def __str__(self) -> str:
        towards = self.destination or "?"
        return f"{self.time:.6f} {self.source} > {towards} {self.fate} {self.frame.hex()}"


_Flight = tuple[float, int, "MemoryWire", "MemoryWire | None", Frame | None]
"""When, a tie-breaker, from whom, and to whom.

Without a receiver the frame arrives at the switch; without a frame it is the sender's transmitter
that has room again.
"""


class MemorySegment:
    """A simulated Ethernet segment in this process.

    Stations come with `attach`.  One that stops running has left; its name may be used again.

    Args:
        seed: where all chance comes from: addresses, losses, delays.  The same seed and the same
            frames at the same times give the same result, whatever order stations attach in.
        link: both directions of the cable of each station that brings no link of its own.
        max_segment: octets of TCP payload that the stations may send under one header; 0, the
            default, makes them send real packets.  More than 65535, up to 1 MiB, is fastest.
        checksum_offload: True lets stations leave checksums unfinished, which is faster and hides
            wrong ones.
        configures_addresses: True makes a Network without addresses choose one by itself.
        observer: called with a `FrameRecord` for each frame whose fate is decided.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        link: Link | None = None,
        max_segment: int = 0,
        checksum_offload: bool = False,
        configures_addresses: bool = False,
        observer: Callable[[FrameRecord], None] | None = None,
    ) -> None:
        self.seed = seed
        self.link: Link = Link() if link is None else link
        self.max_segment: int = max_segment if OFFLOAD else 0
        self.checksum_offload: bool = checksum_offload and OFFLOAD
        self.configures_addresses = configures_addresses
        self.observer = observer
        self._stations: dict[str, MemoryWire] = {}
        self._owners: dict[bytes, MemoryWire] = {}
        self._visits: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._flights: list[_Flight] = []
        self._order = count()
        self._in_flight = 0
        self._pumping = trio.Lock()
        self._nap: trio.CancelScope | None = None
        self._sleeper: trio.lowlevel.Task | None = None
        self._to_sweep: dict[MemoryWire, None] = {}

    def attach(
        self,
        name: str,
        *,
        mac: bytes | None = None,
        link: Link | None = None,
        up: Link | None = None,
        down: Link | None = None,
    ) -> MemoryWire:
        """A new station, as a wire for one Network.

        Args:
            name: what the station is called in `partition`, `set_link` and records.
            mac: its hardware address; made from the seed and the name if not given.
            link: both directions of its cable, instead of the segment's.
            up: the direction from the station to the switch, instead of *link*.
            down: the direction from the switch to the station, instead of *link*.

        Raises:
            WireError: the name or the hardware address is taken.
            ValueError: *name* cannot be a name, or *mac* cannot be a station's address.
        """
        name = station_name(name)
        if name in self._stations:
            raise WireError(f"station {name}: this segment has one already")
        visit = self._visits.get(name, 0)
        self._visits[name] = visit + 1
        base = f"{self.seed}/{name}/{visit}"
        if mac is None:
            # Not from the number of the visit: who comes back has the same card in the machine.
            mac = b"\x02" + Random(f"{self.seed}/{name}/mac").randbytes(5)
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"mac: needs 6 octets of a unicast address, got {mac.hex(':')}")
        if mac in self._owners:
            owner = self._owners[mac].name
            raise WireError(f"station {name}: its address {mac.hex(':')} is the one of {owner}")
        link = link or self.link
        wire = MemoryWire(
            self,
            name,
            mac,
            Direction(up or link, Random(f"{base}/up")),
            Direction(down or link, Random(f"{base}/down")),
            Random(f"{base}/station"),
        )
        self._stations[name] = wire
        self._owners[mac] = wire
        return wire

    @property
    def stations(self) -> tuple[str, ...]:
        """The names of the attached stations, in the order in which they came."""
        return tuple(self._stations)

    def set_link(
        self,
        name: str,
        link: Link | None = None,
        *,
        up: Link | None = None,
        down: Link | None = None,
    ) -> None:
        """Change the cable of station *name* from now on.

        Frames on their way arrive as they would have.  `Wire.mtu` stays what it was: if the new
        MTU is smaller, longer frames disappear, as they would behind a real switch.

        Args:
            name: the station.
            link: both directions.
            up: the direction from the station to the switch.
            down: the direction from the switch to the station.

        Raises:
            ValueError: there is no such station.
        """
        wire = self._station(name)
        if (new := up or link) is not None:
            wire.up.link = new
        if (new := down or link) is not None:
            wire.down.link = new

    def partition(self, *groups: Iterable[str]) -> None:
        """Let frames pass only inside each of *groups*.

        The stations in none of them form one more group, and so do those that attach later.
        A station that leaves and comes back finds itself on its old side.  Replaces any partition
        before it.  Frames that are past the switch still arrive.

        Raises:
            ValueError: there is no such station, or one is in two groups.
        """
        members: dict[str, int] = {}
        for number, group in enumerate(groups):
            for name in (self._station(text).name for text in group):
                if members.setdefault(name, number) != number:
                    raise ValueError(f"station {name}: is in two groups of the partition")
        self._groups = members

    def heal(self) -> None:
        """End the partition: everybody reaches everybody again."""
        self._groups = {}

    def _station(self, name: str) -> MemoryWire:
        try:
            return self._stations[station_name(name)]
        except KeyError:
            known = ", ".join(self._stations) or "none"
            raise ValueError(f"station {name!r}: not on this segment, which has {known}") from None

    # What the stations' wires call.

    def detach(self, wire: MemoryWire) -> None:
        """Take the station away, if it is there; what is on its way to it will be dropped.

        A wire that runs does this itself when it stops.
        """
        if self._stations.get(wire.name) is wire:
            del self._stations[wire.name]
            del self._owners[wire.mac]

    def owner_of(self, name: str, besides: MemoryWire | None = None) -> MemoryWire | None:
        """The running station, not *besides*, that has published *name*; or None."""
        for wire in self._stations.values():
            if wire is not besides and wire.is_running and name in wire.names:
                return wire
        return None

    def transmit(self, wire: MemoryWire, frame: Frame, now: float, bursts: Bursts) -> None:
        """Take *frame* from the station; what arrives somewhere at once is added to *bursts*."""
        if wire.up.passes(frame):
            self._switch(wire, frame, now, bursts)
            return
        arrivals, dropped = wire.up.transit(frame, now)
        if dropped:
            self._record(now, wire, None, dropped, frame)
        for due, arrived in arrivals:
            if due <= now:
                self._switch(wire, arrived, now, bursts)
            else:
                self._fly(due, now, wire, None, arrived)

    @property
    def is_plain(self) -> bool:
        """True if nobody watches frames, and no partition keeps them from anybody."""
        return self.observer is None and not self._groups

    def receiver_of(self, header: Buffer, sender: MemoryWire) -> MemoryWire | None:
        """The station that a unicast frame from *sender* goes to, None if there is no such one."""
        owner = self._owners.get(bytes(header[:6]))
        return None if owner is sender else owner

    def schedule_room(self, wire: MemoryWire, when: float) -> None:
        """Tell the station at *when* that its transmitter has room."""
        self._push((when, next(self._order), wire, None, None))

    def schedule_sweep(self, wire: MemoryWire) -> None:
        """Call the station's `sweep` when everybody else has had a turn."""
        self._to_sweep[wire] = None
        self._wake()

    def deliver(self, bursts: Bursts) -> None:
        """Hand each station what has arrived for it."""
        for wire, frames in bursts.items():
            wire.take_in(frames)

    async def run(self) -> None:
        """Deliver what is due, for all stations, until cancelled.

        Every running station's task calls this, and one of them does the work: frames that left
        a station before it stopped still arrive, and a due time costs one wake-up.
        """
        async with self._pumping:
            while True:
                swept, self._to_sweep = self._to_sweep, {}
                for wire in swept:
                    wire.sweep()
                self._arrive(trio.current_time())
                if self._to_sweep:
                    await trio.lowlevel.checkpoint()
                elif not self._flights:
                    await self._sleep()
                else:
                    with trio.CancelScope(deadline=self._flights[0][0]) as self._nap:
                        try:
                            await self._sleep()
                        finally:
                            self._nap = None

    async def _sleep(self) -> None:
        """Wait for `_wake`, which costs a tenth of what ending a nap early does."""
        self._sleeper = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        """Make `run` look again, if it sleeps."""
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    # Between the cables.

    def _arrive(self, now: float) -> None:
        """Move on everything whose time has come."""
        flights = self._flights
        bursts: Bursts = {}
        ready: dict[MemoryWire, None] = {}
        while flights and flights[0][0] <= now:
            _, _, source, target, frame = heapq.heappop(flights)
            if frame is None:
                ready[source] = None
                continue
            self._in_flight -= len(frame)
            if target is None:
                self._switch(source, frame, now, bursts)
            else:
                self._arrived(source, target, frame, now, bursts)
        self.deliver(bursts)
        for wire in ready:
            wire.has_room_again()

    def _switch(self, source: MemoryWire, frame: Frame, now: float, bursts: Bursts) -> None:
        header = frame.header
        if header[0] & 1:
            for target in self._stations.values():
                if target is not source:
                    # A frame belongs to who receives it, so each gets one; the octets are shared.
                    copy = Frame(frame.header, frame.payload, frame.gso_size, frame.checksum)
                    self._descend(source, target, copy, now, bursts)
            return
        owner = self._owners.get(bytes(header[:6]))
        if owner is None or owner is source:
            source.counts.no_station += 1
            self._record(now, source, None, "no station", frame)
        else:
            self._descend(source, owner, frame, now, bursts)

    def _descend(
        self, source: MemoryWire, target: MemoryWire, frame: Frame, now: float, bursts: Bursts
    ) -> None:
        groups = self._groups
        if groups and groups.get(source.name) != groups.get(target.name):
            source.counts.partitioned += 1
            self._record(now, source, target, "partitioned", frame)
            return
        if target.down.passes(frame):
            self._arrived(source, target, frame, now, bursts)
            return
        arrivals, dropped = target.down.transit(frame, now)
        if dropped:
            self._record(now, source, target, dropped, frame)
        for due, arrived in arrivals:
            if due <= now:
                self._arrived(source, target, arrived, now, bursts)
            else:
                self._fly(due, now, source, target, arrived)

    def _arrived(
        self, source: MemoryWire, target: MemoryWire, frame: Frame, now: float, bursts: Bursts
    ) -> None:
        if not target.is_running:
            target.counts.not_running += 1
            self._record(now, source, target, "not running", frame)
            return
        if not target.has_space:
            target.counts.inbox_full += 1
            self._record(now, source, target, "inbox full", frame)
            return
        self._record(now, source, target, "delivered", frame)
        burst = bursts.get(target)
        if burst is None:
            bursts[target] = [frame]
        else:
            burst.append(frame)

    def _fly(
        self, due: float, now: float, source: MemoryWire, target: MemoryWire | None, frame: Frame
    ) -> None:
        size = len(frame)
        if self._in_flight + size > IN_FLIGHT_LIMIT:
            source.counts.in_flight_limit += 1
            self._record(now, source, target, "in flight limit", frame)
            return
        self._in_flight += size
        self._push((due, next(self._order), source, target, frame))

    def _push(self, flight: _Flight) -> None:
        heapq.heappush(self._flights, flight)
        if self._nap is None:
            self._wake()
        elif flight[0] < self._nap.deadline:
            self._nap.deadline = flight[0]

    def _record(
        self, now: float, source: MemoryWire, target: MemoryWire | None, fate: str, frame: Frame
    ) -> None:
        if self.observer is not None:
            destination = "" if target is None else target.name
            self.observer(FrameRecord(now, source.name, destination, fate, bytes(frame)))
