"""One station of a simulated Ethernet: its end of the cable, and what waits for its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.abc import Wire
from zttrio.errors import WireError

from .link import ETHERNET_HEADER
from .name import station_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from zttrio.abc import WirePort
    from zttrio.header.frame import Frame

    from .link import Direction
    from .memory import MemorySegment

__all__ = ["Bursts", "MemoryWire"]

NAME_LIMIT = 16  # names that one station may publish; arbitrary
DIRECT_LIMIT = 4  # bursts handed over before the receiver had its turn: half of Config.ring_size
INBOX_LIMIT = 65536  # frames that wait for the receiver's turn; arbitrary, one sender's window


@attrs.define
class StationCounters:
    """What one station's wire counted; the two directions of its cable count for themselves."""

    frames_sent: int = 0
    octets_sent: int = 0
    frames_received: int = 0
    octets_received: int = 0
    not_running: int = 0
    malformed: int = 0
    no_station: int = 0
    partitioned: int = 0
    in_flight_limit: int = 0
    inbox_full: int = 0


class MemoryWire(Wire):
    """One station's end of its cable; made by `MemorySegment.attach`.

    Attributes:
        up: the direction from the station to the switch.
        down: the direction from the switch to the station.
        rng: chance for whoever lives at this station; nothing else draws from it.
        is_running: True while `run` carries frames.
        counts: what this station's end has counted; `counters` adds what the cable did.
        names: what this station has published.
    """

    def __init__(
        self,
        segment: MemorySegment,
        name: str,
        mac: bytes,
        up: Direction,
        down: Direction,
        rng: Random,
    ) -> None:
        self.segment = segment
        self.name = name
        self.mac = mac
        self.mtu: int = min(up.link.mtu, down.link.mtu)
        self.max_segment: int = segment.max_segment
        self.checksum_offload: bool = segment.checksum_offload
        self.configures_addresses: bool = segment.configures_addresses
        self.has_unique_macs = True  # `attach` refuses a second one
        self.up = up
        self.down = down
        self.rng = rng
        self.is_running: bool = False
        self.counts: StationCounters = StationCounters()
        self._port: WirePort | None = None
        self._was_used = False
        self._waits_for_room = False
        self._direct = 0
        self._inbox: list[Frame] = []
        self.names: dict[str, tuple[bytes, ...]] = {}

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry frames until cancelled; see `zttrio.abc.Wire`.

        Frames that are on their way up when this is cancelled still arrive at the others, as
        long as one station of the segment runs.

        Raises:
            WireError: this wire has been used before.
        """
        if self._was_used or self.name not in self.segment.stations:
            raise WireError(f"station {self.name}: a wire serves one Network once; attach again")
        self._was_used = True
        self._port = port
        self.is_running = True
        try:
            task_status.started()
            await self.segment.run()
        finally:
            self.is_running = False
            self._port = None
            self.segment.detach(self)

    def send(self, frames: Sequence[Frame]) -> int:
        """Take frames for the wire; see `zttrio.abc.Wire`."""
        counts = self.counts
        if not self.is_running:
            counts.not_running += len(frames)
            return len(frames)
        bursts: Bursts = {}
        up = self.up
        if up.is_transparent and not up.link.push_back and self.segment.is_plain:
            self._send_at_once(frames, bursts)
            self.segment.deliver(bursts)
            return len(frames)
        now = trio.current_time()
        pushes_back = up.link.push_back
        taken = 0
        for frame in frames:
            size = len(frame)
            if pushes_back and not up.has_room(size, now):
                self._wait_for_room(up.room_at(size, now))
                break
            taken += 1
            if len(frame.header) < ETHERNET_HEADER:
                counts.malformed += 1
                continue
            counts.frames_sent += 1
            counts.octets_sent += size
            self.segment.transmit(self, frame, now, bursts)
        self.segment.deliver(bursts)
        return taken

    def _send_at_once(self, frames: Sequence[Frame], bursts: Bursts) -> None:
        """`send` where nothing can happen to frames on their way, and nobody watches."""
        counts = self.counts
        segment = self.segment
        longest = ETHERNET_HEADER + self.up.link.mtu
        octets = dropped = 0
        for frame in frames:
            header = frame.header
            if len(header) < ETHERNET_HEADER:
                counts.malformed += 1
                dropped += 1
                continue
            owner = segment.receiver_of(header, self)
            size = len(header) + len(frame.payload)
            octets += size
            if (
                owner is None
                or (size > longest and not frame.gso_size)
                or not owner.takes_at_once(frame, size)
            ):
                segment.transmit(self, frame, trio.current_time(), bursts)
                continue
            burst = bursts.get(owner)
            if burst is None:
                bursts[owner] = [frame]
            else:
                burst.append(frame)
        counts.frames_sent += len(frames) - dropped
        counts.octets_sent += octets

    def counters(self) -> dict[str, int]:
        """What the station and both directions of its cable have counted."""
        counters = attrs.asdict(self.counts)
        for prefix, direction in (("up", self.up), ("down", self.down)):
            for name, value in attrs.asdict(direction.counters).items():
                counters[f"{prefix}_{name}"] = value
        return counters

    def publish(self, name: str, addresses: Sequence[bytes]) -> None:
        """Make *name* resolve to *addresses* on the segment while this wire runs.

        Raises:
            WireError: another station has published it, or this one has too many names.
            ValueError: *name* cannot be a name.
        """
        name = station_name(name)
        owner = self.segment.owner_of(name, besides=self)
        if owner is not None:
            raise WireError(f"name {name}: taken by station {owner.name}")
        if name not in self.names and len(self.names) >= NAME_LIMIT:
            raise WireError(f"name {name}: station {self.name} has {NAME_LIMIT} names already")
        self.names[name] = tuple(addresses)

    def lookup(self, name: str) -> list[bytes]:
        """Addresses published for *name*; partitions and losses do not matter to this."""
        try:
            name = station_name(name)
        except ValueError:
            return []
        owner = self.segment.owner_of(name)
        return [] if owner is None else list(owner.names[name])

    # What the segment calls.

    @property
    def has_space(self) -> bool:
        """True if this station takes one more frame before its next turn."""
        return len(self._inbox) < INBOX_LIMIT

    def takes_at_once(self, frame: Frame, size: int) -> bool:
        """True if *frame*, of *size* octets, would arrive here at once and unchanged."""
        down = self.down
        return (
            self.is_running
            and down.is_transparent
            and (frame.gso_size > 0 or size - ETHERNET_HEADER <= down.link.mtu)
            and len(self._inbox) < INBOX_LIMIT
        )

    def take_in(self, frames: list[Frame]) -> None:
        """Hand the Network a burst, or keep it until the Network has had a turn.

        A sender with a large window sends many bursts without a pause.  On a cable without delay
        they would all arrive before the receiver can look at the first, and its ring, which is
        made for bursts that come with pauses, would drop some.
        """
        if self._inbox:
            self._inbox += frames
            return
        self._direct += 1
        if self._direct >= DIRECT_LIMIT - 1:
            self.segment.schedule_sweep(self)
        if self._direct > DIRECT_LIMIT:
            self._inbox = frames
        else:
            self._hand_over(frames)

    def sweep(self) -> None:
        """The Network has had its turn: hand over what waits as one burst."""
        self._direct = 0
        frames, self._inbox = self._inbox, []
        if frames:
            self._hand_over(frames)

    def _hand_over(self, frames: list[Frame]) -> None:
        counts = self.counts
        if self._port is None:
            counts.not_running += len(frames)
            return
        counts.frames_received += len(frames)
        counts.octets_received += sum([len(f.header) + len(f.payload) for f in frames])
        self._port.deliver(frames)

    def has_room_again(self) -> None:
        """Tell the Network that `send` accepts frames again."""
        self._waits_for_room = False
        if self._port is not None:
            self._port.send_ready()

    def _wait_for_room(self, when: float) -> None:
        if not self._waits_for_room:
            self._waits_for_room = True
            self.segment.schedule_room(self, when)


Bursts = dict[MemoryWire, list["Frame"]]
"""Frames that arrive together, by receiver."""
