"""A bad cable in real time: a seeded user-space bridge between two TAP devices.

``python -m tests.kernel.bridge --left DEVICE --right DEVICE ...`` joins the kernel interfaces of
two devices, in one or two network namespaces, by two `zttrio.wire.link.Direction`s, which are what
`zttrio.testing.Lab` uses in virtual time.  It prints ``ready``, works until its standard input
ends, and then prints what happened to frames as one JSON object.

A process of its own, because who is measured must not wait for who delays; and with plain TAP
devices, because every frame shall have its own fate: the kernels cut and sum before it.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import trio

from zttrio.header.frame import Frame
from zttrio.wire.link import Direction, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bridge", "Counts", "bridging", "rate_limited"]

ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x4000_0000
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
LONGEST = 1 << 16
BURST = 64  # frames read before the other direction has its turn; arbitrary
END = 10.0  # seconds for the process to start and to end; arbitrary


def rate_limited(link: Link, rate: float, rtt: float) -> Link:
    """*link* at *rate* octets a second, with a queue of one bandwidth-delay product.

    The queue is at least 64 full frames, as a small switch's would be.
    """
    return attrs.evolve(link, rate=rate, queue=int(max(rate * rtt, 64 * 1514)))


class Bridge:
    """Reads both devices, and writes each frame to the other one when its time has come."""

    def __init__(self, left: int, right: int, forth: Direction, back: Direction) -> None:
        self._ways = {left: (forth, right), right: (back, left)}
        self._flying: list[tuple[float, int, int, Frame]] = []
        self._order = count()
        self._nap: trio.CancelScope | None = None
        self.frames = 0
        self.refused = 0

    async def run(self) -> None:
        """Carry frames until cancelled."""
        async with trio.open_nursery() as nursery:
            for device in self._ways:
                nursery.start_soon(self._read, device)
            nursery.start_soon(self._deliver)

    async def _read(self, device: int) -> None:
        direction, other = self._ways[device]
        while True:
            await trio.lowlevel.wait_readable(device)
            now = trio.current_time()
            first = self._flying[0][0] if self._flying else inf
            for _ in range(BURST):
                try:
                    frame = Frame(os.read(device, LONGEST))
                except BlockingIOError:
                    break
                self.frames += 1
                for due, arrived in direction.transit(frame, now)[0]:
                    if due <= now:
                        self._write(other, arrived)
                    else:
                        heapq.heappush(self._flying, (due, next(self._order), other, arrived))
            if self._flying and self._flying[0][0] < first and self._nap is not None:
                self._nap.deadline = self._flying[0][0]

    async def _deliver(self) -> None:
        while True:
            now = trio.current_time()
            while self._flying and self._flying[0][0] <= now:
                _, _, device, frame = heapq.heappop(self._flying)
                self._write(device, frame)
            deadline = self._flying[0][0] if self._flying else inf
            with trio.CancelScope(deadline=deadline) as self._nap:
                await trio.sleep_forever()

    def _write(self, device: int, frame: Frame) -> None:
        try:
            os.write(device, bytes(frame))
        except OSError:  # the interface is down, or its queue is full: a cable would not know
            self.refused += 1


def open_tap(name: str, netns: str | None) -> int:
    """A descriptor of the TAP device *name*, in the network namespace of that name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if netns is not None:
        space = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(space, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"network namespace {netns}")
        os.close(space)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def serve(bridge: Bridge) -> None:
    """Run *bridge* until standard input ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bridge.run)
        tell("ready")
        await trio.lowlevel.wait_readable(sys.stdin)  # nobody writes there: it is the end
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for side in ("left", "right"):
        parser.add_argument(f"--{side}", required=True, help="a TAP device")
        parser.add_argument(f"--{side}-netns", help="the network namespace that it is in")
    for way in ("forth", "back"):
        parser.add_argument(f"--{way}", type=json.loads, default={}, help="Link, as JSON")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    left = open_tap(options.left, options.left_netns)
    right = open_tap(options.right, options.right_netns)
    forth = Direction(Link(**options.forth), Random(f"{options.seed}/forth"))
    back = Direction(Link(**options.back), Random(f"{options.seed}/back"))
    bridge = Bridge(left, right, forth, back)
    trio.run(serve, bridge)
    ways = {"forth": attrs.asdict(forth.counters), "back": attrs.asdict(back.counters)}
    tell(json.dumps({"frames": bridge.frames, "refused": bridge.refused, **ways}))


@attrs.define
class Counts:
    """What a bridge has done, filled in when it has ended.

    Attributes:
        frames: frames read from both devices.
        refused: frames that a device did not take.
        forth: `DirectionCounters` of the way from left to right, by name.
        back: the same for the other way.
    """

    frames: int = 0
    refused: int = 0
    forth: dict[str, int] = attrs.Factory(dict)
    back: dict[str, int] = attrs.Factory(dict)


@contextmanager
def bridging(
    left: str,
    right: str,
    *,
    seed: int | str,
    forth: Link,
    back: Link,
    left_netns: str | None = None,
    right_netns: str | None = None,
) -> Iterator[Counts]:
    """Join two TAP devices for the time of the block.

    Args:
        left: the name of one device.
        right: the name of the other.
        seed: where all chance comes from.
        forth: what the way from left to right is like.
        back: what the way from right to left is like.
        left_netns: the name of the network namespace of *left*, if that is not this one.
        right_netns: the same for *right*.

    Raises:
        RuntimeError: the bridge did not start, or failed.
    """
    command = [sys.executable, "-P", "-m", "tests.kernel.bridge", "--seed", str(seed)]
    for name, device, netns in (("left", left, left_netns), ("right", right, right_netns)):
        command += [f"--{name}", device]
        command += [] if netns is None else [f"--{name}-netns", netns]
    for name, link in (("forth", forth), ("back", back)):
        changed: dict[str, Any] = attrs.asdict(link, filter=partial(_is_changed, Link()))
        command += [f"--{name}", json.dumps(changed)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    counts = Counts()
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the bridge did not start: {process.communicate()[1].strip()}")
        yield counts
        output, errors = process.communicate(timeout=END)
        if process.returncode:
            raise RuntimeError(f"the bridge failed: {errors.strip()}")
        for name, value in json.loads(output).items():
            setattr(counts, name, value)
    finally:
        process.kill()
        process.communicate()


def _is_changed(default: Link, attribute: attrs.Attribute[Any], value: object) -> bool:
    return bool(value != getattr(default, attribute.name))


if __name__ == "__main__":
    main()
