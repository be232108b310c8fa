"""The kernel's own sockets say what ours say (see tests/network/test_dual_stack.py)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.network import dual_stack_program as program
from tests.network.test_dual_stack import RECORD

from .conftest import inside, run
from .verdict import explains

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]


# The kernel talks to itself here, and resets are among what it is asked about.
@explains("TcpOutRsts", "TcpEstabResets", "TcpAttemptFails", "TcpExtTCPAbortOnData")
def test_the_kernel_says_what_is_on_record(tmp_path: Path) -> None:
    # The far end of the cable has no addresses, or the kernel would choose among two interfaces.
    run("ip", "link", "add", program.DEVICE, "type", "veth", "peer", "name", "far")
    run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/far/disable_ipv6")
    run("ip", "link", "set", "far", "up")
    run("ip", "link", "set", program.DEVICE, "up")
    run("ip", "route", "add", "224.0.0.0/4", "dev", program.DEVICE)
    for address in (f"{program.V6}/64", f"{program.LINK_LOCAL}/64"):
        run("ip", "address", "add", address, "dev", program.DEVICE, "nodad")
    run("ip", "address", "add", f"{program.V4}/24", "dev", program.DEVICE)
    hosts, switch = tmp_path / "hosts", tmp_path / "nsswitch.conf"
    hosts.write_text("\n".join(program.HOSTS) + "\n")
    switch.write_text("hosts: files\n")
    script = (
        f"mount --bind {hosts} /etc/hosts && "
        f"mount --bind {switch} /etc/nsswitch.conf && "
        f"exec {sys.executable} -P {program.__file__}"
    )
    done = subprocess.run(
        inside("unshare", "-m", "sh", "-c", script), capture_output=True, timeout=200, check=False
    )
    if b"mount" in done.stderr and not done.stdout:
        pytest.skip(f"cannot give the program names of its own: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == RECORD.read_text().splitlines()
