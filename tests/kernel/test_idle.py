"""A Network that has nothing to do leaves the processor alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import inside, run

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

ROOT = Path(__file__).parents[2]
QUIET = 10.0  # seconds
PROGRAM = """
import trio
from zttrio import Network
from zttrio.wire import HostSegment, Tap

async def main():
    async with (
        Network(wire=Tap("tap7", up=True), addresses=["10.99.0.1/24"]) as tap,
        Network(wire=HostSegment(FOLDER), addresses=["10.98.0.1/24"]) as host,
    ):
        await tap.open_tcp_listeners(80)
        await host.open_tcp_listeners(80)
        await trio.sleep(20)  # announcements, router solicitations, the kernel's own greetings
        print("quiet", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_an_idle_network_makes_no_system_call_in_ten_seconds(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")  # the kernel's end stays silent
    program = PROGRAM.replace("FOLDER", repr(str(tmp_path / "cable")))
    process = subprocess.Popen(
        inside(sys.executable, "-c", program),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    log = tmp_path / "calls"
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"quiet\n"
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", str(log), "-p", str(process.pid)],
            stderr=subprocess.PIPE,
        )
        time.sleep(QUIET)
        tracer.terminate()
        _, errors = tracer.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    calls = [line for line in log.read_text().splitlines() if "resumed" in line or "(" in line]
    # What was being waited in when the tracer came shows up once, and never returns.
    begun = [line for line in calls if "epoll_wait" in line and "=" not in line.split(")")[-1]]
    finished = [line for line in calls if line not in begun and "detached" not in line]
    assert not errors, errors
    assert len(begun) == 1, "the tracer saw the one call that it came into"
    assert finished == []
