"""The machines that the rows are measured on: two network namespaces, made here and removed here.

There is no route out of them.  Addresses are from 198.18.0.0/15, which is RFC 2544's for this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SLIRP_GATEWAY",
    "SLIRP_LISTENER",
    "SLIRP_MTU",
    "SWITCH",
    "TAP",
    "TAP_ADDRESS",
    "TAP_PEER",
    "VETH_PEER",
    "Topology",
    "open_topology",
    "why_not",
]

HERE = Path(__file__).parent
VETH_ADDRESS, VETH_PEER = "198.18.0.1", "198.18.0.2"
SWITCH = {False: ("198.18.1.1", "198.18.1.2"), True: ("198.18.2.1", "198.18.2.2")}
TAP_ADDRESS, TAP_PEER = "198.18.3.1", "198.18.3.2"  # the kernel's, and zttrio's
TAP = "zttrio0"
SLIRP_MTU = 65520  # the largest, and its fastest
SLIRP_GATEWAY = "10.0.2.2"  # what slirp4netns calls the loopback of the namespace it runs in
SLIRP_LISTENER = "127.0.0.1"
FORWARDER_START = 10.0  # seconds; arbitrary


@attrs.frozen
class Topology:
    """Two namespaces, joined by a veth pair and by user-space switches, and a TAP device for us.

    Attributes:
        a: name of the namespace that also has the TAP device `TAP`.
        b: name of the other one.
        forwarder: which program the user-space switches are: C or Python.
        behind_slirp: name of a third one, which slirp4netns joins with *b*; None without it.
    """

    a: str
    b: str
    forwarder: str
    behind_slirp: str | None = None


def why_not() -> str | None:
    """Why namespaces and TAP devices cannot be had here, or None if they can."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "there is no ip program (iproute2)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no usable /dev/net/tun"
    return None


@contextmanager
def open_topology(folder: Path) -> Iterator[Topology]:
    """Make the namespaces, and remove them with everything in them.

    Args:
        folder: for what is compiled.

    Raises:
        RuntimeError: a command failed; the text has its output.
    """
    a, b = (f"zttrio-bench-{os.getpid()}-{side}" for side in "ab")
    with ExitStack() as stack:
        for netns in (a, b):
            ip("netns", "add", netns)
            stack.callback(ip, "netns", "del", netns)
            # Router solicitations and the like would be noise.
            run("ip", "netns", "exec", netns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            ip("-n", netns, "link", "set", "lo", "up")
        ip("-n", a, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", b)
        up(a, "veth0", VETH_ADDRESS)
        up(b, "veth0", VETH_PEER)
        command = forwarder_command(folder)
        for offload, addresses in SWITCH.items():
            device = "switch1" if offload else "switch0"
            for netns, address in zip((a, b), addresses, strict=True):
                virtio = ["vnet_hdr"] if offload else []
                ip("-n", netns, "tuntap", "add", "dev", device, "mode", "tap", *virtio)
                up(netns, device, address)
            arguments = [a, device, b, device, *(["offload"] if offload else [])]
            stack.enter_context(forwarding([*command, *arguments]))
        ip("-n", a, "tuntap", "add", "dev", TAP, "mode", "tap")
        up(a, TAP, TAP_ADDRESS)
        behind_slirp = None
        if shutil.which("slirp4netns") is not None:
            behind_slirp = f"zttrio-bench-{os.getpid()}-c"
            ip("netns", "add", behind_slirp)
            stack.callback(ip, "netns", "del", behind_slirp)
            ip("-n", behind_slirp, "link", "set", "lo", "up")
            stack.enter_context(slirp(b, behind_slirp))
        language = "Python" if command[0] == sys.executable else "C"
        yield Topology(a, b, language, behind_slirp)


def up(netns: str, device: str, address: str) -> None:
    ip("-n", netns, "address", "add", f"{address}/24", "dev", device)
    ip("-n", netns, "link", "set", device, "up")


def ip(*arguments: str) -> None:
    run("ip", *arguments)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


def forwarder_command(folder: Path) -> list[str]:
    """The user-space switch: compiled if there is a compiler, else the Python one."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return [sys.executable, str(HERE / "forwarder.py")]
    program = folder / "forwarder"
    run(compiler, "-O2", "-pthread", "-o", str(program), str(HERE / "forwarder.c"))
    return [str(program)]


@contextmanager
def slirp(outside: str, inside: str) -> Iterator[None]:
    """Run slirp4netns: the user-space stack, in C, of rootless containers."""
    ready, say_ready = os.pipe()
    command = [
        *("ip", "netns", "exec", outside, "slirp4netns", "--configure", f"--mtu={SLIRP_MTU}"),
        *("--disable-dns", f"--ready-fd={say_ready}", "--netns-type=path"),
        *(f"/var/run/netns/{inside}", "tap0"),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(say_ready,),
        text=True,
    )
    os.close(say_ready)
    try:
        with open(ready, "rb") as file:
            if not file.read(1):
                raise RuntimeError(f"slirp4netns: {process.communicate()[0].strip()}")
        yield
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def forwarding(command: list[str]) -> Iterator[None]:
    """Run a user-space switch; it ends when its standard input does, so also when we are killed."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{' '.join(command)}: {process.communicate()[1].strip()}")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(FORWARDER_START)
        finally:
            process.kill()
            process.wait()
