"""What the benchmark of unmodified programs makes of its samples, and that it runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.intercept import KERNEL, LOOPBACK, SCHEMA, SEGMENT, ratio, table

if TYPE_CHECKING:
    from pathlib import Path


def test_a_ratio_is_the_median_of_the_rounds_own_quotients() -> None:
    # The second round was slow for both: the quotient of the medians would say 0.75.
    samples = {KERNEL: [200.0, 20.0, 100.0], LOOPBACK: [100.0, 10.0, 75.0], SEGMENT: [0.0] * 3}
    assert ratio(samples, LOOPBACK) == 0.5


def test_the_table_has_each_place_and_both_ratios() -> None:
    samples = {"iperf3": {KERNEL: [4e9], LOOPBACK: [2e9], SEGMENT: [1e9]}}
    text = table(samples, {"getpeername": [(20.0, 90.0)]}, 1)
    row = next(line for line in text.splitlines() if line.startswith("iperf3"))
    assert row.split() == ["iperf3", "(MB/s)", "4,000", "2,000", "1,000", "0.50", "0.25"]
    assert text.splitlines()[-1].split() == ["getpeername", "20.0", "90.0"]


@pytest.mark.slow
def test_it_measures(tmp_path: Path) -> None:
    if shutil.which("iperf3") is None or shutil.which("redis-server") is None:
        pytest.skip("needs iperf3 and redis-server")
    command = [sys.executable, "-m", "benchmarks.intercept", "--quick", "--json"]
    subprocess.run([*command, str(tmp_path / "out")], check=True, timeout=200)
    found = json.loads((tmp_path / "out").read_text())
    assert found["schema"] == SCHEMA
    assert set(found["samples"]) == {"iperf3", "connections", "redis, 50 clients"}
    for places in found["samples"].values():
        assert all(value > 0 for samples in places.values() for value in samples)
    assert 0 < found["control calls"]["getpeername"][0][0] < 10_000
