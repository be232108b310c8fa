"""``python -m benchmarks``: measure every row that this machine allows, and print one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs

from .process import Failed
from .report import Results, comparison, machine, table, to_json
from .rows import KINDS, Row, measure, rows
from .topology import open_topology, why_not

if TYPE_CHECKING:
    from types import FrameType

QUICK_SECONDS = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Bulk speed and latency of zttrio's TCP, beside the kernel's.  The rows with a"
        " TAP device need root; they run in network namespaces of their own.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--row", action="append", help="only these rows; may be repeated")
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help="only these; may be repeated"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print how far this is from an earlier --json"
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        type=Path,
        const=Path("-"),
        metavar="FOLDER",
        help="print where the time goes, instead of the table, or write it to files there",
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, QUICK_SECONDS

    before = json.loads(options.compare.read_text(encoding="utf-8")) if options.compare else None
    signal.signal(signal.SIGTERM, terminate)  # so that the namespaces are removed
    facts = machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zttrio-bench-")))
        obstacle = why_not()
        topology = None if obstacle else stack.enter_context(open_topology(folder))
        if obstacle:
            print(f"without the TAP rows: {obstacle}", file=sys.stderr)
        chosen = [row for row in rows(folder, topology) if row.key in (options.row or [row.key])]
        if not chosen:
            parser.error(f"no such row here: {', '.join(options.row)}")
        kinds = options.kind or list(KINDS)
        if options.profile is not None:
            ours = [row for row in chosen if row.is_ours]
            return write_profiles(ours, kinds, options.seconds, options.profile)
        if options.quick:
            chosen = each_kind_once(chosen)
        results, failures = run(chosen, kinds, options.rounds, options.seconds)
    print(table(chosen, results, facts, options.rounds))
    if before is not None:
        print(comparison(results, before))
    for failure in failures:
        print(failure, file=sys.stderr)
    if options.json:
        text = json.dumps(to_json(chosen, results, facts), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0


def each_kind_once(chosen: list[Row]) -> list[Row]:
    """All rows, but what needs many connections only of one of ours and of one anchor."""
    seen: set[tuple[bool, str]] = set()
    rows = []
    for row in chosen:
        kinds = tuple(
            kind
            for kind in row.kinds
            if kind in ("bulk", "latency") or (row.is_ours, kind) not in seen
        )
        seen.update((row.is_ours, kind) for kind in kinds)
        rows.append(attrs.evolve(row, kinds=kinds))
    return rows


def run(
    chosen: list[Row], kinds: list[str], rounds: int, seconds: float
) -> tuple[Results, list[str]]:
    """Measure all rows once, then all of them again, so that every row sees the same minutes."""
    results: Results = {}
    failures = []
    for number in range(1, rounds + 1):
        for kind in kinds:
            if number > 1 and not KINDS[kind].is_compared:
                continue  # these do not depend on who else is busy
            for row in chosen:
                if kind not in row.kinds:
                    continue
                progress(f"round {number} of {rounds}: {row.key} {kind}")
                try:
                    sample = measure(row, kind, seconds)
                except Failed as exc:
                    failures.append(f"{row.key} {kind}, round {number}: {exc}")
                else:
                    results.setdefault((row.key, kind), []).append(sample)
    progress("")
    return results, failures


def write_profiles(chosen: list[Row], kinds: list[str], seconds: float, folder: Path) -> int:
    """cProfile's text for every work and every end that is ours, printed or in files."""
    if folder != Path("-"):
        folder.mkdir(parents=True, exist_ok=True)
    for row in chosen:
        for kind in kinds:
            if kind not in row.kinds or kind in ("idle", "memory"):
                continue
            progress(f"profile: {row.key} {kind}")
            sample = measure(row, kind, seconds, profile=True)
            progress("")
            for end, text in sample.profiles.items():
                report = f"=== {row.title}: {kind}, the {end}\n{text}"
                if folder == Path("-"):
                    print(report)
                else:
                    file = folder / f"{row.key}-{kind}-{end}.txt"
                    file.write_text(report, encoding="utf-8")
    return 0


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def terminate(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
