"""``python -m benchmarks.zerotier``: whole members of a ZeroTier network, ours and the real core's.

Two zttrio Networks and two nodes of libzt 1.8.4 (the real core with lwIP on top) are on one network
of our controller, each in a namespace of its own, and do the same: one way bulk, one octet there
and back, connections, datagrams, a start from nothing.  All pairs are measured in every round, one
after the other, so that a busy minute of the machine weighs on all of them; the table ends with
the ratios to libzt on both sides.

Needs root, iproute2, a C compiler, and the wheel: ``--wheel`` or ``ZTTRIO_LIBZT_WHEEL`` names it,
or else pip downloads it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tests.interop.overlay import Overlay
from tests.interop.switch import why_not
from tests.interop.wheel import NoWheelError, prepare

from .report import machine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.interop.station import Station

SCHEMA = 1
ROUNDS, SECONDS, QUICK_SECONDS = 5, 1.0, 0.3
PATIENCE = 60.0
GRACE = 20.0  # seconds for a measurement beside its work; arbitrary
PAIRS = (("zttrio", "zttrio"), ("libzt", "libzt"), ("zttrio", "libzt"), ("libzt", "zttrio"))
ANCHOR = ("libzt", "libzt")


@attrs.frozen
class Kind:
    """One thing that is measured of a pair.

    Attributes:
        key: for JSON.
        title: the row of the table.
        command: of the stations.
        fields: of the command.
        is_speed: more is better; otherwise, less.
    """

    key: str
    title: str
    command: str
    fields: dict[str, Any] = attrs.field(factory=dict)
    is_speed: bool = True


KINDS = (
    Kind("bulk", "bulk, MB/s", "bulk"),
    Kind("bulk8", "bulk, 8 streams, MB/s", "bulk", {"streams": 8}),
    Kind("latency", "one octet there and back, us", "latency", is_speed=False),
    Kind("connections", "connections/s, 8 at a time", "connections"),
    Kind("datagrams", "UDP of 100 octets, arriving/s", "datagrams", {"size": 100}),
    Kind("datagrams1000", "UDP of 1000 octets, arriving/s", "datagrams", {"size": 1000}),
    Kind("first", "start to first octet, s", "", is_speed=False),
)
Pair = tuple[str, str]
Results = dict[tuple[str, Pair], list[float | None]]


class Lab:
    """Two members of each kind, all let in and acquainted.

    Args:
        overlay: where they live.
    """

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.stations = {
            ("zttrio", 0): overlay.ours(),
            ("zttrio", 1): overlay.ours(),
            ("libzt", 0): overlay.real(),
            ("libzt", 1): overlay.real(),
        }
        found = overlay.let_in(*self.stations.values())
        self.hosts = dict(zip(self.stations, found, strict=True))
        for pair in PAIRS:
            self.first_octet(*self.ends(pair))

    def ends(self, pair: Pair) -> tuple[Station, str]:
        """The station that works, and the address of the one that serves."""
        return self.stations[pair[0], 0], self.hosts[pair[1], 1]

    def first_octet(self, client: Station, host: str) -> None:
        """Wait until a connection has brought one."""
        end = time.monotonic() + PATIENCE
        while client.ask("connect", host=host, port=7000)["answer"] != "x":
            if time.monotonic() > end:
                raise AssertionError(f"nobody answers at {host}")

    def start(self, pair: Pair) -> float:
        """Seconds from the start of a process, that was a member before, to its first octet."""
        key = pair[0], 0
        old = self.stations[key]
        old.close()
        began = time.perf_counter()
        client = self.stations[key] = self.overlay.restart(old)
        client.wait_ready()
        self.first_octet(client, self.hosts[pair[1], 1])
        return time.perf_counter() - began

    def measure(self, kind: Kind, pair: Pair, seconds: float) -> float:
        """One value."""
        if not kind.command:
            return self.start(pair)
        client, host = self.ends(pair)
        number = client.start(kind.command, host=host, seconds=seconds, **kind.fields)
        return float(client.finish(number, seconds + GRACE)["value"])

    def memory(self) -> dict[str, dict[str, float]]:
        """MB of one process of each kind now, and at most so far."""
        found = {}
        for name in ("zttrio", "libzt"):
            figures = self.stations[name, 1].ask("figures")
            found[name] = {"now": figures["VmRSS"] / 1024, "peak": figures["VmHWM"] / 1024}
        return found


def run(lab: Lab, kinds: Iterable[Kind], rounds: int, seconds: float) -> tuple[Results, list[str]]:
    """Measure everything once, then everything again; what came to nothing is None."""
    results: Results = {}
    failures: list[str] = []
    for number in range(1, rounds + 1):
        for kind in kinds:
            for pair in PAIRS:
                title = f"round {number} of {rounds}: {kind.key} {' to '.join(pair)}"
                progress(title)
                value = None
                try:
                    value = lab.measure(kind, pair, seconds)
                except AssertionError as exc:
                    failures.append(f"{title}: {exc}")
                    lab.start(pair)  # its connections may be in everybody's way
                results.setdefault((kind.key, pair), []).append(value)
    progress("")
    return results, failures


def ratio(results: Results, kind: Kind, pair: Pair) -> float | None:
    """The median over the rounds of what a pair does beside libzt; above 1 is better."""
    mine, theirs = results[kind.key, pair], results[kind.key, ANCHOR]
    quotients = [
        a / b if kind.is_speed else b / a for a, b in zip(mine, theirs, strict=True) if a and b
    ]
    return statistics.median(quotients) if quotients else None


def table(
    results: Results,
    kinds: Iterable[Kind],
    memory: dict[str, dict[str, dict[str, float]]],
    facts: dict[str, Any],
    rounds: int,
) -> str:
    """The report as text."""
    lines = [
        f"zttrio {facts['zttrio']}, {facts['python']}, trio {facts['trio']}, libzt 1.8.4",
        f"{facts['kernel']}, {facts['processors']} x {facts['processor']}, load {facts['load']}",
        f"members in namespaces, medians of {rounds} interleaved rounds",
        "in brackets the ratio to libzt with libzt, above 1 is better",
        "",
        f"{'':<34}" + "".join(f"{' to '.join(pair):>20}" for pair in PAIRS),
    ]
    for kind in kinds:
        cells = ""
        for pair in PAIRS:
            values = [value for value in results[kind.key, pair] if value is not None]
            quotient = ratio(results, kind, pair)
            if not values or quotient is None:
                cells += f"{'-':>20}"
                continue
            value = statistics.median(values)
            text = f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
            cells += f"{text:>12} ({quotient:5.2f})"
        lines.append(f"{kind.title:<34}{cells}")
    lines += ["", f"{'memory of a process, MB':<34}{'joined':>12}{'after':>12}{'peak':>12}"]
    for name in ("zttrio", "libzt"):
        before, after = memory["before"][name], memory["after"][name]
        cells = f"{before['now']:>12.1f}{after['now']:>12.1f}{after['peak']:>12.1f}"
        lines.append(f"  {name:<32}{cells}")
    return "\n".join(lines)


def progress(text: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zerotier", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="per measurement")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--kind", action="append", choices=[kind.key for kind in KINDS])
    parser.add_argument("--wheel", help="file of the libzt wheel")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS
    kinds = [kind for kind in KINDS if kind.key in (options.kind or [kind.key])]
    obstacle = why_not()
    if obstacle:
        parser.error(obstacle)
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="zttrio-bench-") as name:
        try:
            libzt = prepare(Path(name), options.wheel)
        except NoWheelError as exc:
            parser.error(str(exc))
        overlay = Overlay(Path(name), libzt)
        try:
            lab = Lab(overlay)
            before = lab.memory()
            results, failures = run(lab, kinds, options.rounds, options.seconds)
            memory = {"before": before, "after": lab.memory()}
        finally:
            overlay.close()
    print(table(results, kinds, memory, facts, options.rounds))
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.json:
        samples = [
            {"kind": key, "from": pair[0], "to": pair[1], "values": values}
            for (key, pair), values in results.items()
        ]
        document = {"schema": SCHEMA, "machine": facts, "samples": samples, "memory": memory}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
