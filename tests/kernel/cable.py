"""Our Network and the kernel's TCP at the two ends of a bad cable, in one network namespace.

::

    zttrio - tap7 - kernel bridge - cable0 - bridge.py - cable1 - kernel

The two devices on the left are joined by the kernel's own bridge, so that our end uses the wire
that everybody uses, offloads and all, and the user-space bridge still sees single frames.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from zttrio import Config, Network
from zttrio.wire import Tap

from .bridge import Counts, bridging
from .conftest import KERNEL, OURS, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from zttrio.wire.link import Link

OURS6, KERNEL6 = "fd00:99::1", "fd00:99::2"


@attrs.define
class Cable:
    """What is at the two ends, and in between.

    Attributes:
        network: our end, at OURS and OURS6; the kernel's is at KERNEL and KERNEL6.
        counts: what the bridge did, once the block has ended.
    """

    network: Network
    counts: Counts


@asynccontextmanager
async def open_cable(
    forth: Link, back: Link, *, seed: int | str = 0, config: Config | None = None
) -> AsyncGenerator[Cable, None]:
    """Lay a cable; *forth* is from us to the kernel, *back* from the kernel to us."""
    for name, value in (
        ("net.ipv4.tcp_no_metrics_save", "1"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
    ):
        run("sysctl", "-qw", f"{name}={value}")
    run("ip", "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
    run("ip", "link", "set", "switch", "arp", "off", "addrgenmode", "none")
    for name in ("tap7", "cable0", "cable1"):
        run("ip", "tuntap", "add", "dev", name, "mode", "tap")
        # What a device drops by itself is not of the cable's chance.
        run("ip", "link", "set", name, "addrgenmode", "none", "txqueuelen", "20000")
    for name in ("tap7", "cable0"):
        run("ip", "link", "set", name, "master", "switch")
    run("ip", "address", "add", f"{KERNEL}/24", "dev", "cable1")
    run("ip", "address", "add", f"{KERNEL6}/64", "dev", "cable1", "nodad")
    for name in ("switch", "tap7", "cable0", "cable1"):
        run("ip", "link", "set", name, "up")
    with bridging("cable0", "cable1", seed=seed, forth=forth, back=back) as counts:
        async with Network(
            wire=Tap("tap7"), addresses=[f"{OURS}/24", f"{OURS6}/64"], config=config
        ) as network:
            await network.wait_online()
            yield Cable(network, counts)
