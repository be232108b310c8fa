"""``python -m benchmarks.loss``: goodput over a bad cable, ours beside Linux's, as one table.

::

    zttrio - TAP -+
                  +- kernel bridge - cable0 - user-space bridge - cable1 - Linux
    Linux --------+

Both use the same user-space bridge (`tests.kernel.bridge`) with the same seed and the same faults
in both directions, and Linux uses CUBIC, as we do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tests.kernel.bridge import bridging, rate_limited
from zttrio.wire.link import Link

from .__main__ import progress, terminate
from .report import machine
from .rows import Failed, Row, measure
from .topology import ip, run, up, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

LINUX, OURS, PEER = "198.18.5.1", "198.18.5.2", "198.18.5.3"
RATE = 4e6  # octets a second; what a Python bridge carries without being the limit itself
QUICK_SECONDS = 2.0


@attrs.frozen
class Case:
    """What is between the two ends, in both directions, and how long the way there and back is."""

    name: str
    rtt: float
    link: Link

    def cable(self) -> Link:
        return rate_limited(attrs.evolve(self.link, delay=self.rtt / 2), RATE, self.rtt)


CASES = [
    Case(f"{loss:.1%} loss, {rtt * 1000:g} ms", rtt, Link(loss=loss))
    for rtt in (0.05, 0.2)
    for loss in (0.0, 0.001, 0.01, 0.05, 0.1)
]
CASES += [
    Case(f"20% reordered, {rtt * 1000:g} ms", rtt, Link(reorder=0.2, reorder_delay=rtt / 10))
    for rtt in (0.05, 0.2)
]


@contextmanager
def open_ends() -> Iterator[list[Row]]:
    """Make the two namespaces and everything in them but the cable; the rows to measure."""
    a, b = (f"zttrio-loss-{os.getpid()}-{side}" for side in "ab")
    with ExitStack() as stack:
        for netns in (a, b):
            ip("netns", "add", netns)
            stack.callback(ip, "netns", "del", netns)
            for name in ("net.ipv6.conf.all.disable_ipv6", "net.ipv4.tcp_no_metrics_save"):
                run("ip", "netns", "exec", netns, "sysctl", "-qw", f"{name}=1")
        ip("-n", a, "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        for netns, device in ((a, "tap7"), (a, "cable0"), (b, "cable1")):
            ip("-n", netns, "tuntap", "add", "dev", device, "mode", "tap")
            ip("-n", netns, "link", "set", device, "txqueuelen", "20000")
        for device in ("tap7", "cable0"):
            ip("-n", a, "link", "set", device, "master", "switch", "up")
        up(a, "switch", LINUX)
        up(b, "cable1", PEER)
        for netns, device in ((a, "switch"), (b, "cable1")):
            # The way to choose that works in every namespace.
            route = ("198.18.5.0/24", "dev", device, "congctl", "cubic")
            ip("-n", netns, "route", "replace", *route)
        peer = ("--transport", "kernel", "--host", PEER)
        ours = ("--transport", "tap", "--tap", "tap7", "--address", f"{OURS}/24", "--host")
        yield [
            Row("linux", "Linux to Linux", peer, peer, b, a),
            Row("send", "zttrio to Linux", peer, (*ours, PEER), b, a),
            Row(
                "receive",
                "Linux to zttrio",
                (*ours, OURS),
                ("--transport", "kernel", "--host", OURS),
                a,
                b,
            ),
        ]


def goodput(row: Row, case: Case, seed: int, seconds: float) -> float:
    """Octets per second that arrived in order, measured once.

    Raises:
        Failed: a process failed or took too long.
    """
    netns = {name[-1]: name for name in (row.listener_netns, row.connector_netns) if name}
    cable = case.cable()
    try:
        with bridging(
            "cable0",
            "cable1",
            seed=seed,
            forth=cable,
            back=cable,
            left_netns=netns["a"],
            right_netns=netns["b"],
        ):
            return measure(row, "bulk", seconds).value
    except RuntimeError as exc:
        raise Failed(str(exc)) from exc


Results = dict[str, dict[str, list[float]]]


def ratios(found: dict[str, list[float]], key: str) -> list[float]:
    """What each round gave in comparison with Linux to Linux in the same round."""
    return [ours / linux for ours, linux in zip(found[key], found["linux"], strict=True)]


def table(results: Results, facts: dict[str, Any], rounds: int, seconds: float) -> str:
    lines = [
        f"zttrio {facts['zttrio']}, {facts['python']}, {facts['kernel']}, load {facts['load']}",
        f"goodput in MB/s; medians of {rounds} rounds of {seconds:g} s; ratios to Linux to Linux",
        "",
        f"{'both ways':<26}{'Linux':>9}{'we send':>12}{'ratio':>8}{'we receive':>14}{'ratio':>8}",
    ]
    for name, found in results.items():
        cells = f"{name:<26}{statistics.median(found['linux']) / 1e6:>9.3f}"
        for key, width in (("send", 12), ("receive", 14)):
            cells += f"{statistics.median(found[key]) / 1e6:>{width}.3f}"
            cells += f"{statistics.median(ratios(found, key)):>8.2f}"
        lines.append(cells)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--case", action="append", help="only cases whose name begins so")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS
    if obstacle := why_not():
        parser.error(f"this needs network namespaces and TAP devices: {obstacle}")
    cases = [case for case in CASES if case.name.startswith(tuple(options.case or [""]))]
    if not cases:
        parser.error(f"no such case; there are: {'; '.join(case.name for case in CASES)}")
    signal.signal(signal.SIGTERM, terminate)  # so that the namespaces are removed
    facts = machine()
    results: Results = {}
    failures = []
    with open_ends() as rows:
        for number in range(1, options.rounds + 1):
            for case in cases:
                progress(f"round {number} of {options.rounds}: {case.name}")
                try:
                    round_ = {row.key: goodput(row, case, number, options.seconds) for row in rows}
                except Failed as exc:  # a round counts as a whole
                    failures.append(f"{case.name}, round {number}: {exc}")
                    continue
                for key, value in round_.items():
                    results.setdefault(case.name, {}).setdefault(key, []).append(value)
    progress("")
    print(table(results, facts, options.rounds, options.seconds))
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.json:
        text = json.dumps({"schema": 1, "machine": facts, "octets_per_second": results}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
