"""What connections that do nothing cost, in memory of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENDS = 10_000
ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import gc, trio, trio.testing
from zttrio.testing import Lab

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

async def main():
    lab = Lab(seed=1, trace=0)
    async with lab.network("a") as a, lab.network("b") as b:
        await a.wait_online()
        await b.wait_online()
        [listener] = await b.open_tcp_listeners(80, host=str(b.addresses[0].ip))
        address = (str(b.addresses[0].ip), 80)
        ends = []

        async def connect(count):
            for _ in range(count):
                sock = a.socket()
                await sock.connect(address)
                ends.append(sock)

        async def accept(count):
            for _ in range(count):
                ends.append((await listener.socket.accept())[0])

        async def open(count):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect, count)
                nursery.start_soon(accept, count)
            await trio.sleep(5)
            gc.collect()

        await open(500)
        before = resident()
        await open({ENDS} // 2)
        print(resident() - before)
        for sock in ends:
            sock.close()

trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


@pytest.mark.slow
def test_ten_thousand_idle_sockets_need_little_memory() -> None:
    """Sockets and connections of both ends: 5,000 connections have 10,000 of each."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 30 << 20
