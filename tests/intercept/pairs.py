"""Where a server and its client live: on one segment, or one of them beside the kernel's stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from tests.kernel.conftest import KERNEL, OURS, inside, run
from zttrio.wire import Tap

from .hosts import Host, Segment, Station

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PLACEMENTS", "KernelHost", "Pair", "make_pair", "open_beside"]

SEGMENT = "segment"
KERNEL_CLIENT = "kernel-client"
KERNEL_SERVER = "kernel-server"
PLACEMENTS = (SEGMENT, KERNEL_CLIENT, KERNEL_SERVER)


@attrs.define
class KernelHost(Station):
    """The kernel's end of a TAP device, with programs that nobody intercepts."""

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """*argv* in the test's namespace."""
        return inside(*map(str, argv))

    def is_listening(self, port: int) -> bool:
        """True if somebody accepts connections at *port* here."""
        return f":{port} " in run("ss", "-Htln").decode()

    def has_datagram_socket(self, port: int) -> bool:
        """True if somebody gets the datagrams for *port* here."""
        return f":{port} " in run("ss", "-Huln").decode()


@attrs.define
class Pair:
    """A server's host and its client's."""

    server: Station
    client: Station


async def open_beside(segment: Segment) -> tuple[Host, KernelHost]:
    """A host of ours on a TAP device, and the kernel at its other end.

    The test must be in a namespace of its own.
    """
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "tap7")
    run("ip", "link", "set", "tap7", "up", "txqueuelen", "20000")
    ours = await segment.host(wire=Tap("tap7"), address=OURS)
    return ours, await segment.nursery.start(_live_beside, segment)


async def _live_beside(segment: Segment, *, task_status: trio.TaskStatus[KernelHost]) -> None:
    folder = segment.folder / "kernel"
    folder.mkdir()
    async with trio.open_nursery() as nursery:
        host = KernelHost(KERNEL, folder, nursery)
        try:
            task_status.started(host)
            await trio.sleep_forever()
        finally:
            await host.stop()  # noqa: ASYNC102 - it is shielded, with a deadline


async def make_pair(placement: str, segment: Segment) -> Pair:
    """A server's host and a client's, as *placement* says."""
    if placement == SEGMENT:
        return Pair(await segment.host(name="server"), await segment.host())
    ours, kernel = await open_beside(segment)
    return Pair(ours, kernel) if placement == KERNEL_CLIENT else Pair(kernel, ours)
