"""``python -m benchmarks.loss``: goodput over a bad cable, ours beside Linux's, as one table.

::

    zttrio - TAP -+
                  +- kernel bridge - cable0 - user-space bridge - cable1 - Linux
    Linux --------+

Three transfers make one row of the table: Linux to Linux, zttrio to Linux, Linux to zttrio.  They
run side by side, each over a cable of its own (`tests.kernel.bridge`) with the same seed and the
same faults, so that a busy minute of the machine is one for all three.  Linux uses CUBIC, as we do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import attrs

from tests.kernel.bridge import bridging, rate_limited
from zttrio.wire.link import Link

from .__main__ import terminate
from .process import Failed, Process
from .report import machine
from .topology import ip, run, up, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX, OURS, PEER = "198.18.5.1", "198.18.5.2", "198.18.5.3"
KINDS = ("linux", "send", "receive")
RATE = 1.25e6  # octets a second; what three Python bridges carry without being the limit themselves
GRACE = 30.0  # seconds for a process to start and to end, beside its work; arbitrary
PATIENCE = 20.0  # the queue of the slowest sender may take so many times as long as it was filled
SLOW = 0.05  # from this loss on a cable carries so little that more of them go side by side
MORE = 3  # so many times as many, and for so many times as long
GOOD = Link()
Sample = dict[str, Any]


@attrs.frozen
class Case:
    """What is between the two ends.

    Attributes:
        name: for the table.
        rtt: how long the way there and back is, in seconds.
        data: what happens to frames on the way of the data.
        acks: the same for the way of the ACKs.
    """

    name: str
    rtt: float
    data: Link = GOOD
    acks: Link = GOOD

    @property
    def is_slow(self) -> bool:
        return self.data.loss >= SLOW


def cases() -> list[Case]:
    found = []
    for rtt in (0.05, 0.2):
        path = f"{rtt * 1000:g} ms"
        shuffled = Link(reorder=0.2, reorder_delay=rtt / 10)
        found += [
            Case(f"{path}", rtt),
            Case(f"{path}, 20% of the data late", rtt, shuffled),
            Case(f"{path}, 20% late both ways", rtt, shuffled, shuffled),
        ]
        for loss in (0.001, 0.01, 0.05, 0.1):
            bad = Link(loss=loss)
            found += [
                Case(f"{path}, {loss:.1%} of the data lost", rtt, bad),
                Case(f"{path}, {loss:.1%} of the ACKs lost", rtt, GOOD, bad),
                Case(f"{path}, {loss:.1%} lost both ways", rtt, bad, bad),
            ]
    return found


class Ends:
    """Two namespaces and everything in them but the cable, for one transfer at a time."""

    def __init__(self, number: int, stack: ExitStack) -> None:
        self.a, self.b = (f"zttrio-loss-{os.getpid()}-{number}{side}" for side in "ab")
        for netns in (self.a, self.b):
            ip("netns", "add", netns)
            stack.callback(ip, "netns", "del", netns)
            for name in ("net.ipv6.conf.all.disable_ipv6", "net.ipv4.tcp_no_metrics_save"):
                run("ip", "netns", "exec", netns, "sysctl", "-qw", f"{name}=1")
        ip("-n", self.a, "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        for netns, device in ((self.a, "tap7"), (self.a, "cable0"), (self.b, "cable1")):
            ip("-n", netns, "tuntap", "add", "dev", device, "mode", "tap")
            ip("-n", netns, "link", "set", device, "txqueuelen", "20000")
        for device in ("tap7", "cable0"):
            ip("-n", self.a, "link", "set", device, "master", "switch", "up")
        up(self.a, "switch", LINUX)
        up(self.b, "cable1", PEER)
        for netns, device in ((self.a, "switch"), (self.b, "cable1")):
            # The way to choose that works in every namespace.
            route = ("198.18.5.0/24", "dev", device, "congctl", "cubic")
            ip("-n", netns, "route", "replace", *route)

    def transfer(self, kind: str, case: Case, number: int, options: argparse.Namespace) -> Sample:
        """Measure once; what both ends said, and the rate in octets a second.

        Raises:
            Failed: a process failed, took too long, or got other octets than were sent.
        """
        seconds = options.seconds * (MORE if case.is_slow else 1)
        size = ["--octets", str(options.octets)] if options.octets else ["--seconds", str(seconds)]
        limit = GRACE + (options.limit if options.octets else PATIENCE * seconds)
        ours = ("--tap", "tap7", "--address", f"{OURS}/24")
        data, acks = (
            rate_limited(attrs.evolve(link, delay=case.rtt / 2), options.rate, case.rtt)
            for link in (case.data, case.acks)
        )
        if kind == "receive":
            source, target, host = self.b, self.a, OURS
        else:
            source, target, host = self.a, self.b, PEER
        cables = {self.a: "cable0", self.b: "cable1"}
        try:
            with (
                bridging(  # from left to right, so that the data meets the same chance in all rows
                    cables[source],
                    cables[target],
                    seed=number,
                    forth=data,
                    back=acks,
                    left_netns=source,
                    right_netns=target,
                ),
                Process(
                    "transfer",
                    target,
                    "--listen",
                    "--host",
                    host,
                    *(ours if kind == "receive" else ()),
                ) as to,
            ):
                to.wait_ready()
                sender = ("--host", host, *(ours if kind == "send" else ()), *size)
                with Process("transfer", source, *sender, "--seed", f"{number}") as of:
                    sent, received = of.result(limit), to.result(GRACE)
        except RuntimeError as exc:
            raise Failed(str(exc)) from exc
        if (sent["octets"], sent["digest"]) != (received["octets"], received["digest"]):
            raise Failed(f"{sent['octets']} octets sent, {received['octets']} others received")
        return {
            "rate": received["rate"],
            "octets": received["octets"],
            "sender": sent["counters"],
            "receiver": received["counters"],
        }


class Board:
    """Runs transfers side by side, and keeps what they gave."""

    def __init__(self, options: argparse.Namespace, count: int) -> None:
        self.options = options
        self.results: dict[str, list[dict[str, Sample]]] = {}
        self.failures: list[str] = []
        self._free: SimpleQueue[Ends] = SimpleQueue()
        self._stack = ExitStack()
        self._count = count

    @contextmanager
    def open(self) -> Iterator[None]:
        with self._stack:
            for number in range(self._count):
                self._free.put(Ends(number, self._stack))
            yield

    def measure(self, chosen: list[Case], jobs: int) -> None:
        """Every round of every case, *jobs* transfers at a time."""
        with ThreadPoolExecutor(jobs) as pool, ExitStack() as stack:
            # When interrupted: what has not begun will not begin.
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            rounds = [
                (case, number, [pool.submit(self._one, kind, case, number) for kind in KINDS])
                for number in range(1, self.options.rounds + 1)
                for case in chosen
            ]
            for case, number, futures in rounds:
                samples = [future.result() for future in futures]
                for kind, sample in zip(KINDS, samples, strict=True):
                    if isinstance(sample, str):  # a round counts as a whole
                        self.failures.append(f"{case.name}, {kind}, round {number}: {sample}")
                found = {
                    kind: sample
                    for kind, sample in zip(KINDS, samples, strict=True)
                    if not isinstance(sample, str)
                }
                if len(found) == len(KINDS):
                    self.results.setdefault(case.name, []).append(found)
                    print(line(f"{case.name} ({number})", [found]), flush=True)

    def _one(self, kind: str, case: Case, number: int) -> Sample | str:
        ends = self._free.get()
        try:
            return ends.transfer(kind, case, number, self.options)
        except Failed as exc:
            return str(exc)
        finally:
            self._free.put(ends)


def line(name: str, rounds: list[dict[str, Sample]]) -> str:
    """Medians of *rounds*; the ratios are those of each round."""
    rates = {kind: [found[kind]["rate"] for found in rounds] for kind in KINDS}
    text = f"{name:<38}{statistics.median(rates['linux']) / 1e6:>8.3f}"
    for kind in ("send", "receive"):
        ratios = [mine / linux for mine, linux in zip(rates[kind], rates["linux"], strict=True)]
        text += f"{statistics.median(rates[kind]) / 1e6:>10.3f}{statistics.median(ratios):>7.2f}"
        # Where chance weighs more than any TCP: all that arrived in all rounds, too.
        text += f"{sum(rates[kind]) / sum(rates['linux']):>7.2f}"
    return text


def head() -> str:
    return (
        f"{'':<38}{'Linux':>8}{'we send':>10}{'ratio':>7}{'mean':>7}"
        f"{'receive':>10}{'ratio':>7}{'mean':>7}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="per transfer")
    parser.add_argument("--octets", type=int, default=0, help="per transfer, instead")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for so many octets")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--jobs", type=int, default=3, help="transfers at a time")
    parser.add_argument("--rate", type=float, default=RATE, help="octets a second of the cable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--case", action="append", help="only cases with this in their name")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    if obstacle := why_not():
        parser.error(f"this needs network namespaces and TAP devices: {obstacle}")
    chosen = [case for case in cases() if any(part in case.name for part in options.case or [""])]
    if not chosen:
        parser.error(f"no such case; there are: {'; '.join(case.name for case in cases())}")
    signal.signal(signal.SIGTERM, terminate)  # so that the namespaces are removed
    facts = machine()
    slow = [case for case in chosen if case.is_slow]
    fast = [case for case in chosen if not case.is_slow]
    print(f"zttrio {facts['zttrio']}, {facts['python']}, {facts['kernel']}, load {facts['load']}")
    size = f"{options.octets} octets" if options.octets else f"{options.seconds:g} s"
    print(f"goodput in MB/s, {size} a transfer; ratio: median of each round's ratio to Linux")
    print(f"to Linux; mean: ratio of the means; every octet compared by SHA-256\n\n{head()}")
    board = Board(options, options.jobs * (MORE if slow else 1))
    with board.open():
        board.measure(fast, options.jobs)
        board.measure(slow, options.jobs * MORE)
    print(f"\nmedians of {options.rounds} rounds\n{head()}")
    for case in chosen:
        if case.name in board.results:
            print(line(case.name, board.results[case.name]))
    for failure in board.failures:
        print(failure, file=sys.stderr)
    if options.json:
        text = json.dumps({"schema": 2, "machine": facts, "rounds": board.results}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if board.failures else 0


if __name__ == "__main__":
    sys.exit(main())
