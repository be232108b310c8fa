"""What the benchmarks make of their samples, and that a measurement measures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.process import Failed
from benchmarks.report import SCHEMA, comparison, machine, ratios, table, to_json
from benchmarks.rows import Row, Sample, measure, rows

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.report import Results

MEGA = 1e6
OURS = Row("tap-receive", "ours", ("--transport", "tap"), ("--transport", "kernel"))
ANCHOR = Row("switch", "the anchor", ("--transport", "kernel"), ("--transport", "kernel"))


def samples(*values: float) -> list[Sample]:
    return [Sample(value, 1e-9) for value in values]


def test_a_ratio_is_the_median_of_the_rounds_own_quotients() -> None:
    # The second round was slow for both: the quotient of the medians would say 1.5.
    results: Results = {
        ("tap-receive", "bulk"): samples(200, 20, 150),
        ("switch", "bulk"): samples(100, 10, 300),
    }
    [found] = ratios(results)
    assert (found.row, found.anchor, found.kind) == ("tap-receive", "switch", "bulk")
    assert found.value == 2.0


def test_a_shorter_round_trip_is_a_ratio_above_1() -> None:
    results: Results = {
        ("tap-receive", "latency"): samples(50e-6),
        ("switch", "latency"): samples(100e-6),
    }
    assert [found.value for found in ratios(results)] == [2.0]


def test_a_row_without_its_anchor_has_no_ratio() -> None:
    assert ratios({("tap-receive", "bulk"): samples(100)}) == []


def test_the_table_has_medians_and_says_on_what_they_depend() -> None:
    results: Results = {
        ("tap-receive", "bulk"): samples(100 * MEGA, 300 * MEGA, 200 * MEGA),
        ("switch", "bulk"): samples(100 * MEGA, 100 * MEGA, 100 * MEGA),
        ("switch", "latency"): [Sample(50e-6, 30e-6, 90e-6)],
    }
    facts = machine()
    text = table([OURS, ANCHOR], results, facts, 3)
    lines = text.splitlines()
    assert facts["python"] in lines[0]
    assert facts["kernel"] in lines[1]
    [ours] = [line for line in lines if line.startswith("ours")]
    [anchor] = [line for line in lines if line.startswith("the anchor")]
    [ratio] = [line for line in lines if line.startswith("tap-receive / switch")]
    assert ours.split()[1:] == ["200.0", "1.00", "-", "-", "-"]
    assert anchor.split()[2:] == ["100.0", "1.00", "50", "90", "30"]
    assert ratio.split()[3:] == ["2.00"]


def test_the_json_has_every_sample_and_a_schema_number() -> None:
    results: Results = {("switch", "bulk"): samples(1.0, 2.0)}
    written = json.loads(json.dumps(to_json([ANCHOR], results, machine())))
    assert written["schema"] == SCHEMA
    [row] = written["rows"]
    assert [sample["value"] for sample in row["bulk"]] == [1.0, 2.0]
    assert row["latency"] == []


def test_an_earlier_run_is_put_beside_this_one() -> None:
    before = to_json([ANCHOR], {("switch", "bulk"): samples(1 * MEGA, 3 * MEGA)}, machine())
    text = comparison(
        {("switch", "bulk"): samples(3 * MEGA), ("switch", "latency"): samples(1e-6)},
        json.loads(json.dumps(before)),
    )
    [line] = [line for line in text.splitlines() if line.startswith("switch")]
    assert line.split() == ["switch,", "MB/s", "2.0", "3.0", "+50%"]
    with pytest.raises(ValueError, match="schema 1"):
        comparison({}, {**before, "schema": 1})


def row_called(key: str, folder: Path) -> Row:
    [row] = [row for row in rows(folder, None) if row.key == key]
    return row


@pytest.mark.parametrize(
    "kind",
    ["bulk", "latency", "connects"]
    + [pytest.param(kind, marks=pytest.mark.slow) for kind in ("streams", "hundred")],
)
def test_the_host_segment_is_measured_between_two_processes(kind: str, tmp_path: Path) -> None:
    sample = measure(row_called("host", tmp_path), kind, 0.05)
    assert sample.value > 0
    assert sample.cpu > 0
    assert (sample.p99 >= sample.value) == (kind == "latency")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bulk", "latency", "streams", "connects", "hundred"])
@pytest.mark.parametrize("key", ["loopback", "trio-loopback"])
def test_an_anchor_does_the_same_works(key: str, kind: str, tmp_path: Path) -> None:
    assert measure(row_called(key, tmp_path), kind, 0.05).value > 0


def test_a_profile_is_taken_of_both_ends(tmp_path: Path) -> None:
    sample = measure(row_called("host", tmp_path), "bulk", 0.2, profile=True)
    assert set(sample.profiles) == {"connector", "listener"}
    assert all("stack.py" in text for text in sample.profiles.values())


def test_a_failing_end_is_reported_with_its_own_words(tmp_path: Path) -> None:
    host = row_called("host", tmp_path)
    arguments = ("--transport", "host", "--folder", str(tmp_path), "--address", "nonsense")
    row = Row("broken", "broken", (*arguments, "--host", "198.18.4.1"), host.connector)
    with pytest.raises(Failed, match="nonsense"):
        measure(row, "bulk", 0.05)
