"""A virtual day in the life of six hosts that come and go, on cables that fail in every way."""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.testing import Lab, Link

if TYPE_CHECKING:
    from zttrio import Network

pytestmark = pytest.mark.slow

DAY = 86400.0
SETTLE = 2 * 3600.0  # longer than any connection can take to give up
HOSTS = tuple("abcdef")
PORT = 7
GOOD = Link(delay=0.002)
FAULTS = (
    Link(delay=0.01, loss=0.05),
    Link(delay=0.1, jitter=0.02, loss=0.01),
    Link(delay=0.005, reorder=0.2, reorder_delay=0.004),
    Link(delay=0.005, duplicate=0.1, loss=0.02),
    Link(delay=0.02, corrupt=0.02),
    Link(delay=0.02, rate=20_000, queue=16_000),
    Link(delay=0.005, mtu=1300),  # a black hole for full segments: nobody says why
    Link(loss=1.0),
)


class Soak:
    """Everything that happens on one day.

    Attributes:
        tally: how many conversations ended in which way.
    """

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.seed = seed
        self.tally: Counter[str] = Counter()
        self.streams = 0
        self.settled = 0
        self.problems: list[str] = []

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in HOSTS:
                nursery.start_soon(self.live, name)
            nursery.start_soon(self.break_things)

    # the cables

    async def break_things(self) -> None:
        rng = Random(f"{self.seed}/faults")
        while trio.current_time() < DAY:
            await trio.sleep(rng.expovariate(1 / 600))
            there = list(self.lab.segment.stations)
            if rng.random() < 0.3 and len(there) > 1:
                cut = rng.randrange(1, len(there))
                rng.shuffle(there)
                self.lab.partition(there[:cut], there[cut:])
            else:
                for name in rng.sample(there, min(2, len(there))):
                    fault = rng.choice(FAULTS)
                    # Either both directions or one of them.
                    self.lab.set_link(name, up=fault, down=rng.choice((fault, GOOD)))
            await trio.sleep(rng.expovariate(1 / 120))
            self.lab.heal()
            for name in self.lab.segment.stations:
                self.lab.set_link(name, GOOD)

    # the hosts

    async def live(self, name: str) -> None:
        """Come and go until the day is over, and then stay until everything has settled."""
        rng = Random(f"{self.seed}/{name}")
        while trio.current_time() < DAY:
            async with self.lab.network(name) as network:
                leave_at = trio.current_time() + rng.expovariate(1 / 7200)
                if leave_at >= DAY - 600:
                    leave_at = math.inf
                with trio.move_on_at(leave_at):
                    async with trio.open_nursery() as nursery:
                        await nursery.start(network.serve_tcp, self.echo, PORT)
                        async with trio.open_nursery() as clients:
                            for number in range(2):
                                clients.start_soon(self.call_others, network, name, rng, number)
                        await trio.sleep_until(DAY + SETTLE)
                        self.check_settled(name, network)
                        nursery.cancel_scope.cancel()
            await trio.sleep(rng.expovariate(1 / 300))

    async def echo(self, stream: trio.SocketStream) -> None:
        """Send back what comes, and notice callers that have vanished."""
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 300)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30)
        try:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()
        except trio.BrokenResourceError:
            self.tally["server: broken"] += 1
        else:
            self.tally["server: done"] += 1

    async def call_others(self, network: Network, name: str, rng: Random, number: int) -> None:
        rng = Random(f"{self.seed}/{name}/{number}/{trio.current_time()}")
        others = [other for other in HOSTS if other != name]
        while True:
            await trio.sleep(rng.expovariate(1 / 900))
            if trio.current_time() > DAY:
                return
            try:
                stream = await network.open_tcp_stream(rng.choice(others), PORT)
            except OSError:
                self.tally["client: not connected"] += 1
                continue
            async with stream:
                self.streams += 1
                try:
                    await self.talk(stream, rng)
                except trio.BrokenResourceError:
                    self.tally["client: broken"] += 1

    async def talk(self, stream: trio.SocketStream, rng: Random) -> None:
        data = rng.randbytes(int(rng.expovariate(1 / 10_000)) + 1)
        kind = rng.choice(("whole", "whole", "pauses", "hangs up"))
        back = bytearray()

        async def send() -> None:
            for start in range(0, len(data), 4000):
                await stream.send_all(data[start : start + 4000])
                if kind == "pauses":
                    await trio.sleep(rng.expovariate(1 / 30))
            await stream.send_eof()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while chunk := await stream.receive_some(rng.randrange(1, 20_000)):
                    back += chunk
                    if kind == "hangs up" and len(back) > len(data) / 2:
                        self.tally["client: hung up"] += 1
                        nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            broken, rest = group.split(trio.BrokenResourceError)
            if rest is not None:
                raise
            assert broken is not None
            raise trio.BrokenResourceError from broken
        finally:
            if bytes(back) != data[: len(back)]:
                self.problems.append(f"wrong bytes at {trio.current_time()}")
        if kind != "hangs up":
            if len(back) != len(data):
                self.problems.append(f"end of file too early at {trio.current_time()}")
            self.tally["client: done"] += 1

    # the end

    def check_settled(self, name: str, network: Network) -> None:
        status = network.status()
        if status.connections:
            self.problems.append(f"{name}: still has {[str(c) for c in status.connections]}")
        left = [port for port in status.ports if not port.endswith(f":{PORT}")]
        if left:
            self.problems.append(f"{name}: still holds {left}")
        sizes = network._driver.stack.tcp.sizes
        if any(size for table, size in sizes.items() if table != "tcp dirty"):
            self.problems.append(f"{name}: still has {sizes}")
        self.settled += 1


def test_a_day_of_churn_faults_and_partitions_leaves_every_byte_right_and_nothing_behind() -> None:
    lab = Lab("soak", link=GOOD, trace=0)
    soak = Soak(lab, seed=1)
    began = time.perf_counter()
    lab.run(soak.run)
    took = time.perf_counter() - began
    assert not soak.problems
    assert soak.settled == len(HOSTS)
    assert soak.streams > 500
    assert soak.tally["client: done"] > 300
    assert soak.tally["client: hung up"] > 50
    assert soak.tally["client: broken"] > 0  # there were faults that no TCP survives
    assert took < 60, (took, soak.tally)
