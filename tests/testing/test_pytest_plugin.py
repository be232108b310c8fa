from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
async def test_that_passes(lab, autojump_clock):
    assert lab.seed == "test_that_passes"
    async with lab.network("a") as a, lab.network("b") as b:
        assert await a.ping("b") == 0

async def test_that_uses_network(network, lab, autojump_clock):
    async with lab.network("peer") as peer:
        assert await peer.ping("network") == 0

async def test_that_fails(lab, autojump_clock):
    async with lab.network("a") as a, lab.network("b") as b:
        await a.ping("b")
        assert False, "on purpose"

def test_that_fails_without_a_lab():
    assert False, "on purpose"
"""


def test_a_failing_test_shows_its_lab_and_others_do_not(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    plugins = ("pytest_trio.plugin", "zttrio.testing.pytest_plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *(f"-p{name}" for name in plugins), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("zttrio lab") == 1
    report = done.stdout.partition("zttrio lab")[2]
    assert "seed: 'test_that_fails'" in report
    assert "host a:" in report
    assert "10.0.0.2/16" in report
    assert "a > b delivered" in report
