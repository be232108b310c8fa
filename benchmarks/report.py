"""What was measured, as a table for people and as JSON for comparison."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from .rows import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rows import Row, Sample

__all__ = ["SCHEMA", "Results", "comparison", "machine", "ratios", "table", "to_json"]

SCHEMA = 2
Results = dict[tuple[str, str], list["Sample"]]  # by the keys of row and kind, one for each round

# Rows of ours, and the row that each is measured against.
COMPARED = (
    ("tap-receive", "switch"),
    ("tap-send", "switch"),
    ("tap-virtio-receive", "switch-virtio"),
    ("tap-virtio-send", "switch-virtio"),
    ("tap-virtio-receive", "veth"),
    ("tap-virtio-send", "veth"),
    ("tap-virtio-receive", "slirp-receive"),
    ("tap-virtio-send", "slirp-send"),
    ("tap-receive", "veth"),
    ("tap-send", "veth"),
    ("host", "trio-loopback"),
    ("host", "loopback"),
)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in arguments:
        build = "an optimized build"
    elif sys.base_prefix == "/usr":
        build = "the distribution's build"  # Debian optimizes without saying so there
    else:
        build = "not an optimized build"
    return {
        "zttrio": _version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": build,
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
        kind: a key of `KINDS`.
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
        for kind in KINDS.values():
            if not kind.is_compared:
                continue
            ours, theirs = results.get((row, kind.key), []), results.get((anchor, kind.key), [])
            quotients = [
                a.value / b.value if kind.is_speed else b.value / a.value
                for a, b in zip(ours, theirs, strict=False)
            ]
            if quotients:
                found.append(Ratio(row, anchor, kind.key, statistics.median(quotients)))
    return found


def _median(samples: Sequence[Sample], name: str) -> float:
    values: list[float] = [getattr(sample, name) for sample in samples]
    return statistics.median(values)


def table(rows: Sequence[Row], results: Results, facts: dict[str, Any], rounds: int) -> str:
    """The whole report as text."""
    lines = [
        f"zttrio {facts['zttrio']}, {facts['python']} ({facts['build']}), trio {facts['trio']}",
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
    lines += _many(rows, results)
    compared = {(found.row, found.anchor, found.kind): found.value for found in ratios(results)}
    if compared:
        kinds = [kind for kind in KINDS.values() if any(key[2] == kind.key for key in compared)]
        columns = "".join(f"{_short(kind.title):>11}" for kind in kinds)
        lines += ["", f"{'speed as a ratio (above 1: faster)':<48}{columns}"]
        for row_key, anchor in dict.fromkeys(key[:2] for key in compared):
            cells = f"{row_key + ' / ' + anchor:<48}"
            for kind in kinds:
                value = compared.get((row_key, anchor, kind.key))
                cells += f"{'-':>11}" if value is None else f"{value:>11.2f}"
            lines.append(cells)
    return "\n".join(lines)


def _short(title: str) -> str:
    return title.removesuffix(" us")


def _many(rows: Sequence[Row], results: Results) -> list[str]:
    """The lines about many connections, and about ones that do nothing."""
    kinds = [
        kind
        for kind in KINDS.values()
        if kind.key not in ("bulk", "latency") and any(key == kind.key for _, key in results)
    ]
    if not kinds:
        return []
    lines = [
        "",
        "8 streams: MB/s together; opens: connect, exchange, close; 100, 1000: exchanges/s",
        f"{'':<48}{''.join(f'{kind.title:>12}' for kind in kinds)}",
    ]
    for row in rows:
        cells = ""
        for kind in kinds:
            samples = results.get((row.key, kind.key))
            text = f"{_median(samples, 'value') * kind.scale:.1f}" if samples else "-"
            cells += f"{text:>12}"
        if any((row.key, kind.key) in results for kind in kinds):
            lines.append(f"{row.title:<48}{cells}")
    lines += [
        f"{row.key}, idle: {_median(samples, 'wake_ups'):.1f} wake-ups a second"
        for row in rows
        if (samples := results.get((row.key, "idle")))
    ]
    return lines


def comparison(results: Results, before: dict[str, Any]) -> str:
    """*results* beside those of an earlier run, as `to_json` had them.

    Raises:
        ValueError: *before* is not such a thing, or of another schema.
    """
    if before.get("schema") != SCHEMA:
        raise ValueError(f"schema {before.get('schema')}: only {SCHEMA} can be compared")
    then = {
        (row["key"], kind): statistics.median(sample["value"] for sample in row[kind])
        for row in before["rows"]
        for kind in KINDS
        if row.get(kind)
    }
    facts = before["machine"]
    lines = [
        "",
        f"against {facts['zttrio']} on {facts['python']}, {facts['kernel']}, load {facts['load']}",
        f"{'':<36}{'then':>12}{'now':>12}{'change':>9}",
    ]
    for (row, key), samples in results.items():
        if (row, key) in then:
            kind = KINDS[key]
            old, new = then[row, key] * kind.scale, _median(samples, "value") * kind.scale
            change = f"{new / old - 1:+.0%}" if old else "-"
            lines.append(f"{row + ', ' + kind.title:<36}{old:>12.1f}{new:>12.1f}{change:>9}")
    return "\n".join(lines)


def to_json(rows: Sequence[Row], results: Results, facts: dict[str, Any]) -> dict[str, Any]:
    """The whole report, every sample included; see `Sample` for the units."""
    return {
        "schema": SCHEMA,
        "machine": facts,
        "rows": [
            {
                "key": row.key,
                "title": row.title,
                **{
                    kind: [
                        {
                            "value": sample.value,
                            "cpu": sample.cpu,
                            "p99": sample.p99,
                            "wake_ups": sample.wake_ups,
                        }
                        for sample in results.get((row.key, kind), [])
                    ]
                    for kind in KINDS
                },
            }
            for row in rows
        ],
        "ratios": [attrs.asdict(ratio) for ratio in ratios(results)],
    }
