"""Many hosts on one simulated Ethernet, in virtual time, the same way every time.

What makes a run repeat itself: all chance (addresses, losses, sequence numbers, ports) comes from
the lab's seed, time is `trio.testing.MockClock`'s, and trio picks the next task with a seeded
generator for as long as the lab is open.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio
import trio.testing

from zttrio.config import Config
from zttrio.network import Network
from zttrio.wire.memory import FrameRecord, MemorySegment
from zttrio.wire.name import station_name

from .scheduling import SCHEDULING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from zttrio.abc import Instrument
    from zttrio.wire.link import Link

__all__ = ["Lab"]

T = TypeVar("T")

TRACE_LENGTH = 4096  # records kept unless asked for more; a few megabytes, arbitrary
REPORTED = 40  # records in a report; a screenful
PREFIX = IPv4Network("10.0.0.0/16")
PREFIX6 = IPv6Network("fd6c:6162::/64")  # RFC 4193, "lab" in ASCII


class Lab:
    """A simulated Ethernet and the hosts on it.

    A lab is open from its first `network` to its last, or for as long as its ``with`` block, if it
    has one, or while `run` runs.  While it is open trio's scheduler is reproducible; of several
    open labs the first one's seed decides about that.

    Args:
        seed: where all chance comes from.
        link: both directions of every host's cable, unless the host has its own.  A frame crosses
            two cables, so a delay of 10 ms here makes 20 ms from host to host.
        trace: how many of the last frame records to keep; None keeps all, 0 does not look at
            frames at all, which is faster.
        max_segment: see `zttrio.wire.MemorySegment`: 0 makes hosts send real packets.

    Attributes:
        seed: as given.
        segment: the Ethernet, for what is not repeated here.
    """

    def __init__(
        self,
        seed: int | str = 0,
        *,
        link: Link | None = None,
        trace: int | None = TRACE_LENGTH,
        max_segment: int = 0,
    ) -> None:
        self.seed = seed
        self.segment: MemorySegment = MemorySegment(
            seed,
            link=link,
            max_segment=max_segment,
            observer=None if trace == 0 else self._observe,
        )
        self._records: deque[FrameRecord] = deque(maxlen=trace)
        self._digest = blake2b(digest_size=16)
        self._numbers: dict[str, int] = {}
        self._networks: dict[str, Network] = {}
        self._last_status: dict[str, str] = {}
        self._users = 0

    # life

    def __enter__(self) -> Self:
        if self._users == 0:
            SCHEDULING.seed(f"{self.seed}/scheduling")
        self._users += 1
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._users -= 1
        if self._users == 0:
            SCHEDULING.release()

    def run(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Call *async_fn* in a `trio.run` of its own, in virtual time, and return its result.

        Time stands still while any task has something to do and jumps when all of them wait.
        """
        with self:
            return trio.run(async_fn, *args, clock=trio.testing.MockClock(autojump_threshold=0))

    @asynccontextmanager
    async def network(
        self,
        name: str,
        *,
        addresses: Iterable[str] | None = None,
        link: Link | None = None,
        up: Link | None = None,
        down: Link | None = None,
        config: Config | None = None,
        instruments: Sequence[Instrument] = (),
    ) -> AsyncGenerator[Network, None]:
        """A host on the lab's Ethernet, as ``async with lab.network("a") as a``.

        The others can use its name.  A host that comes back under the same name has the same
        addresses as before.

        Args:
            name: its name.
            addresses: as for `Network`; if not given, one in 10.0.0.0/16 and one in fd6c:6162::/64
                with the same number.
            link: both directions of its cable, instead of the lab's.
            up: the direction from the host to the switch, instead of *link*.
            down: the direction from the switch to the host, instead of *link*.
            config: as for `Network`; the default does not spend the first seconds on looking for
                duplicates of the IPv6 address.
            instruments: as for `Network`.

        Raises:
            WireError: a host of that name is there already.
            ValueError: *name* cannot be a name, or an address does not parse.
        """
        name = station_name(name)
        with self:
            wire = self.segment.attach(name, link=link, up=up, down=down)
            try:
                network = Network(
                    wire=wire,
                    addresses=self._addresses(name) if addresses is None else addresses,
                    name=name,
                    config=Config(dad_transmits=0) if config is None else config,
                    instruments=instruments,
                    rng=wire.rng,
                )
                async with network:
                    self._networks[name] = network
                    try:
                        yield network
                    finally:
                        self._last_status[name] = str(network.status())
                        del self._networks[name]
            finally:
                self.segment.detach(wire)

    def _addresses(self, name: str) -> list[str]:
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        return [f"{prefix[number]}/{prefix.prefixlen}" for prefix in (PREFIX, PREFIX6)]

    # faults

    def set_link(
        self,
        name: str,
        link: Link | None = None,
        *,
        up: Link | None = None,
        down: Link | None = None,
    ) -> None:
        """Change host *name*'s cable from now on; see `zttrio.wire.MemorySegment.set_link`."""
        self.segment.set_link(name, link, up=up, down=down)

    def partition(self, *groups: Iterable[str]) -> None:
        """Let frames pass only inside each group of hosts, and among those that are in none."""
        self.segment.partition(*groups)

    def heal(self) -> None:
        """End the partition."""
        self.segment.heal()

    # what happened

    def _observe(self, record: FrameRecord) -> None:
        self._records.append(record)
        facts = f"{record.time!r}|{record.source}|{record.destination}|{record.fate}|"
        self._digest.update(facts.encode())
        self._digest.update(record.frame)

    def trace(self) -> list[FrameRecord]:
        """What became of the last frames, oldest first; how many is the lab's *trace*."""
        return list(self._records)

    def fingerprint(self) -> str:
        """32 hex digits for all frames so far: when, from whom, to whom, what became of them.

        Two runs with equal fingerprints carried the same frames at the same times.
        """
        return self._digest.hexdigest()

    def report(self) -> str:
        """What somebody needs who looks for the reason of a failure: seed, hosts, last frames.

        A host that has left is shown as it was when its block ended.
        """
        lines = [f"seed: {self.seed!r}"]
        status = {name: str(network.status()) for name, network in self._networks.items()}
        for name, text in {**self._last_status, **status}.items():
            lines += [f"host {name}:", *(f"  {line}" for line in text.splitlines())]
        if self._records:
            lines.append(f"the last {min(REPORTED, len(self._records))} frames:")
            lines += [f"  {record}" for record in list(self._records)[-REPORTED:]]
        return "\n".join(lines)
