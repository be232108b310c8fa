"""The environment switches shortcuts off, and only them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from zttrio.wire import HostSegment, MemorySegment, Tap
tap = Tap("tap7")
segment = MemorySegment(max_segment=60_000, checksum_offload=True)
print(tap._wants_offload, tap._coalesces, HostSegment.checksum_offload, segment.max_segment,
      segment.checksum_offload)
"""


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("ZTTRIO_OFFLOAD", "False True False 0 False"),
        ("ZTTRIO_COALESCE", "True False True 60000 True"),
        ("ZTTRIO_NOTHING", "True True True 60000 True"),
    ],
)
def test_the_environment_switches_shortcuts_off(variable: str, expected: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ZTTRIO_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**plain, variable: "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected
