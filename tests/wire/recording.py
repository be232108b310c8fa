"""A Network's end of the cable that writes everything down, and frames to send to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio.header.frame import Frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from zttrio.abc import Settings, Wire

BROADCAST = b"\xff" * 6
ETHERTYPE = b"\x88\xb5"  # IEEE 802 local experimental


class RecordingPort:
    """Implements `zttrio.abc.WirePort`."""

    def __init__(self) -> None:
        self.bursts: list[list[Frame]] = []
        self.times: list[float] = []
        self.ready = 0
        self.settings: list[Settings] = []
        self.failures = 0
        self._changed = trio.lowlevel.ParkingLot()

    def deliver(self, frames: list[Frame]) -> None:
        self.bursts.append(frames)
        self.times.append(trio.current_time())
        self._changed.unpark_all()

    def send_ready(self) -> None:
        self.ready += 1
        self._changed.unpark_all()

    def configure(self, settings: Settings) -> None:
        self.settings.append(settings)
        self._changed.unpark_all()

    def failure_changed(self) -> None:
        self.failures += 1
        self._changed.unpark_all()

    @property
    def frames(self) -> list[bytes]:
        return [bytes(frame) for burst in self.bursts for frame in burst]

    @property
    def bodies(self) -> list[bytes]:
        """What the frames carry, without their Ethernet headers."""
        return [frame[14:] for frame in self.frames]

    async def wait_frames(self, count: int) -> None:
        while len(self.frames) < count:
            await self._changed.park()

    async def wait_ready(self, count: int = 1) -> None:
        while self.ready < count:
            await self._changed.park()


def frame_to(destination: bytes, source: bytes, body: bytes = b"") -> Frame:
    """A frame in two pieces, as the stack makes them."""
    return Frame(destination + source + ETHERTYPE, body)


@attrs.frozen
class Running:
    """A wire that runs, and the port it delivers to."""

    wire: Wire
    port: RecordingPort

    @property
    def mac(self) -> bytes:
        return self.wire.mac

    def send(self, destination: bytes, *bodies: bytes) -> int:
        return self.wire.send([frame_to(destination, self.wire.mac, body) for body in bodies])


@asynccontextmanager
async def running(*wires: Wire) -> AsyncGenerator[tuple[Running, ...], None]:
    """Run *wires* inside the block."""
    async with trio.open_nursery() as nursery:
        stations = tuple(Running(wire, RecordingPort()) for wire in wires)
        for station in stations:
            await nursery.start(station.wire.run, station.port)
        yield stations
        nursery.cancel_scope.cancel()
