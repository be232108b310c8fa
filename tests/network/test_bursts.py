"""How bursts come in: at once if the stack is idle, through a bounded ring if it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio import Config, Network
from zttrio.abc import Instrument, Wire
from zttrio.header.frame import Frame
from zttrio.testing import Lab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.abc import WirePort

JUNK = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02" + b"\x88\xb5junk"


class HandWire(Wire):
    """A cable whose far end is the test."""

    name = "hand"
    mac = b"\x02\0\0\0\0\x01"
    mtu = 1500

    def __init__(self) -> None:
        self.port: WirePort | None = None
        self.answers: list[list[Frame]] = []
        self.depth = self.deepest = 0

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        port.deliver([Frame(JUNK)])  # before there is a stack
        self.port = port
        task_status.started()
        await trio.sleep_forever()

    def deliver(self, count: int = 1) -> None:
        assert self.port is not None
        self.port.deliver([Frame(JUNK) for _ in range(count)])

    def send(self, frames: Sequence[Frame]) -> int:
        assert self.port is not None
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        answers, self.answers = self.answers, []
        for burst in answers:
            self.port.deliver(burst)
        self.depth -= 1
        return len(frames)


def seen(network: Network) -> int:
    return network.status().counters.get("frames_in", 0)


def drops(network: Network) -> int:
    return network.status().counters.get("ring_drops", 0)


async def test_an_idle_stack_takes_a_burst_before_deliver_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = HandWire()
    async with Network(wire=wire, addresses=["10.0.0.1/24"]) as net:
        await trio.testing.wait_all_tasks_blocked()
        assert seen(net) == 1  # the one that came first of all was not lost
        wire.deliver(3)
        assert seen(net) == 4


async def test_bursts_that_a_wire_delivers_from_within_send_wait_and_the_oldest_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sizes: list[int] = []

    class Sizes(Instrument):
        def frames_received(self, frames: Sequence[Frame], now: float) -> None:
            sizes.append(len(frames))

    wire = HandWire()
    config = Config(ring_size=2)
    async with Network(
        wire=wire, addresses=["10.0.0.1/24"], config=config, instruments=[Sizes()]
    ) as net:
        await trio.testing.wait_all_tasks_blocked()
        # Five bursts of 1, 2, 4, 8, 16 frames arrive during one call of `send`.  The poll task
        # waits for the first, the ring holds two more.
        wire.answers = [[Frame(JUNK)] * (1 << number) for number in range(5)]
        with trio.move_on_after(0.1):
            await net.ping("10.0.0.9")
        assert not wire.answers
        assert wire.deepest == 1
        assert drops(net) == 2 + 4
        assert seen(net) == 1 + 1 + 8 + 16
        wire.deliver()
        assert seen(net) == 27  # idle again
        assert sizes == [1, 1, 8, 16, 1]


async def test_an_instrument_that_raises_ends_its_own_network_and_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Broken(Instrument):
        def frames_received(self, frames: Sequence[Frame], now: float) -> None:
            raise ArithmeticError("broken")

    lab = Lab(seed=1)
    async with lab.network("a") as a, lab.network("c") as c:
        await a.wait_online()
        await c.wait_online()
        with pytest.raises(ArithmeticError, match="broken"):
            async with lab.network("b", instruments=[Broken()]) as b:
                await b.wait_online()
                await a.ping(str(b.addresses[0].ip))
        assert await c.ping(str(a.addresses[0].ip)) >= 0
