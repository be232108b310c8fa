"""What was measured, as a table for people and as JSON for comparison."""

from __future__ import annotations

import os
import platform
import statistics
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rows import Row, Sample

__all__ = ["SCHEMA", "Results", "machine", "ratios", "table", "to_json"]

SCHEMA = 1
Results = dict[tuple[str, str], list["Sample"]]  # by row key and kind, one for each round
KINDS = ("bulk", "latency")

# Rows of ours, and the row that each is measured against.
COMPARED = (
    ("tap-receive", "switch"),
    ("tap-send", "switch"),
    ("tap-virtio-receive", "switch-virtio"),
    ("tap-virtio-send", "switch-virtio"),
    ("tap-virtio-receive", "veth"),
    ("tap-virtio-send", "veth"),
    ("tap-receive", "veth"),
    ("tap-send", "veth"),
    ("host", "trio-loopback"),
    ("host", "loopback"),
)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return {
        "zttrio": _version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "optimized": "--enable-optimizations" in arguments,
        "trio": metadata.version("trio"),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def _version() -> str:
    try:
        return metadata.version("zttrio")
    except metadata.PackageNotFoundError:
        return "source tree"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the name of the architecture has to do
    return platform.machine()


@attrs.frozen
class Ratio:
    """One of our rows against an anchor, in the same rounds.

    Attributes:
        row: key of our row.
        anchor: key of what it is compared with.
        kind: ``bulk`` or ``latency``.
        value: median over the rounds; above 1 means faster, whatever the kind.
    """

    row: str
    anchor: str
    kind: str
    value: float


def ratios(results: Results) -> list[Ratio]:
    """Every comparison whose two rows were measured.

    Each round's two neighbours are divided, and the median taken of that, so that a busy minute
    of the machine weighs on both sides alike.
    """
    found = []
    for row, anchor in COMPARED:
        for kind in KINDS:
            ours, theirs = results.get((row, kind), []), results.get((anchor, kind), [])
            quotients = [
                a.value / b.value if kind == "bulk" else b.value / a.value
                for a, b in zip(ours, theirs, strict=False)
            ]
            if quotients:
                found.append(Ratio(row, anchor, kind, statistics.median(quotients)))
    return found


def _median(samples: Sequence[Sample], name: str) -> float:
    values: list[float] = [getattr(sample, name) for sample in samples]
    return statistics.median(values)


def table(rows: Sequence[Row], results: Results, facts: dict[str, Any], rounds: int) -> str:
    """The whole report as text."""
    build = "optimized build" if facts["optimized"] else "not an optimized build"
    lines = [
        f"zttrio {facts['zttrio']}, {facts['python']} ({build}), trio {facts['trio']}",
        f"{facts['kernel']}, {facts['processors']} x {facts['processor']}, load {facts['load']}",
        f"one TCP connection, two processes; medians of {rounds} interleaved rounds; CPU of both",
        "",
        f"{'':<48}{'MB/s':>9}{'CPU ms/MB':>11}{'RTT us':>9}{'p99 us':>9}{'CPU us':>9}",
    ]
    for row in rows:
        cells = f"{row.title:<48}"
        if bulk := results.get((row.key, "bulk")):
            cells += f"{_median(bulk, 'value') / 1e6:>9.1f}{_median(bulk, 'cpu') * 1e9:>11.2f}"
        else:
            cells += f"{'-':>9}{'-':>11}"
        if latency := results.get((row.key, "latency")):
            cells += f"{_median(latency, 'value') * 1e6:>9.0f}{_median(latency, 'p99') * 1e6:>9.0f}"
            cells += f"{_median(latency, 'cpu') * 1e6:>9.0f}"
        else:
            cells += f"{'-':>9}{'-':>9}{'-':>9}"
        lines.append(cells)
    compared = ratios(results)
    if compared:
        lines += ["", f"{'speed as a ratio (above 1: faster)':<48}{'MB/s':>9}{'RTT':>9}"]
        titles = dict.fromkeys((ratio.row, ratio.anchor) for ratio in compared)
        for row_key, anchor in titles:
            cells = f"{row_key + ' / ' + anchor:<48}"
            for kind in KINDS:
                value = [
                    r.value
                    for r in compared
                    if (r.row, r.anchor, r.kind) == (row_key, anchor, kind)
                ]
                cells += f"{value[0]:>9.2f}" if value else f"{'-':>9}"
            lines.append(cells)
    return "\n".join(lines)


def to_json(rows: Sequence[Row], results: Results, facts: dict[str, Any]) -> dict[str, Any]:
    """The whole report, every sample included.  Octets per second, and seconds."""
    return {
        "schema": SCHEMA,
        "machine": facts,
        "rows": [
            {
                "key": row.key,
                "title": row.title,
                **{
                    kind: [
                        {"value": sample.value, "cpu": sample.cpu, "p99": sample.p99}
                        for sample in results.get((row.key, kind), [])
                    ]
                    for kind in KINDS
                },
            }
            for row in rows
        ],
        "ratios": [attrs.asdict(ratio) for ratio in ratios(results)],
    }
