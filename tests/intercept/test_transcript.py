"""One program, run twice: kernel sockets and ours show it the same.

The program is tests/intercept/micro.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from .conftest import Host

ROOT = Path(__file__).parents[2]
GROUPS = [
    name
    for file in sorted(Path(__file__).with_name("micro").glob("*.py"))
    for name in re.findall(r"^@group\ndef (\w+)", file.read_text(), re.MULTILINE)
]
# The same addresses as the virtual network has, so that routes and broadcasts are the same.
KERNEL = """
ip link set lo up
ip link add zt0 type veth peer name zt1
ip address add 10.7.0.1/24 broadcast + dev zt0
ip link set zt0 up
ip link set zt1 up
exec "$@"
"""

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("group", GROUPS)
async def test_a_program_sees_what_the_kernel_would_show(host: Host, group: str) -> None:
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.intercept.micro", group]
    with trio.fail_after(60):
        result = await trio.run_process(
            ["unshare", "--net", "sh", "-c", KERNEL, "sh", *command],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    expected = result.stdout.decode()
    assert result.returncode == 0, expected
    assert (await host.run(*command, within=60)).splitlines() == expected.splitlines()
