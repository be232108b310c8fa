"""What the kernel has to say of us: its counters, and what it knows of its connections."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["explains", "kernel_connections", "kernel_counters", "unexplained", "violations"]

T = TypeVar("T", bound="Callable[..., object]")

# What a kernel counts when its peer, or the cable, breaks the rules; and resets.
VIOLATIONS = (
    "IcmpInCsumErrors",
    "Icmp6InCsumErrors",
    "IpInAddrErrors",
    "IpInHdrErrors",
    "TcpAttemptFails",
    "TcpEstabResets",
    "TcpExtBeyondWindow",
    "TcpExtTCPAbortOnClose",
    "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnMemory",
    "TcpExtTCPAbortOnTimeout",
    "TcpExtTCPBadCsum",
    "TcpExtTCPMD5Failure",
    "TcpExtTCPOFODrop",
    "TcpExtTCPRcvQDrop",
    "TcpExtTCPSACKReneging",
    "TcpExtTCPSYNChallenge",
    "TcpExtTCPZeroWindowDrop",
    "TcpInCsumErrors",
    "TcpInErrs",
    "TcpOutRsts",
    "Udp6InCsumErrors",
    "UdpInCsumErrors",
)


def explains(*names: str) -> Callable[[T], T]:
    """The decorated test does what the kernel counts under *names*, and means it."""

    def note(function: T) -> T:
        function.explained = names  # type: ignore[attr-defined]
        return function

    return note


def ask(*command: str) -> str:
    """The output of *command* in the test's namespace, which is its main thread's."""
    inside = ("nsenter", f"--net=/proc/{os.getpid()}/ns/net")
    return subprocess.run((*inside, *command), capture_output=True, text=True, check=True).stdout


def kernel_counters() -> dict[str, int]:
    """Every counter of the namespace's kernel stack since the namespace was made."""
    counters: dict[str, int] = json.loads(
        ask("nstat", "--ignore", "--zeros", "--noupdate", "--json")
    )["kernel"]
    return counters


def violations(kernel: dict[str, int]) -> dict[str, int]:
    """What the kernel has counted against us."""
    found = {name: kernel[name] for name in VIOLATIONS if kernel.get(name)}
    # Linux drops a D-SACK as dubious, and then counts its block as wrong, if it reports more than
    # was sent twice, which is what a duplicating cable does.
    wrong = kernel.get("TcpExtTCPSACKDiscard", 0)
    if wrong > kernel.get("TcpExtTCPDSACKIgnoredDubious", 0):
        found["TcpExtTCPSACKDiscard"] = wrong
    return found


def unexplained(test: object) -> dict[str, int]:
    """What the kernel has counted against us in the namespace of *test*, a function."""
    explained = getattr(test, "explained", ())
    return {
        name: count
        for name, count in violations(kernel_counters()).items()
        if name not in explained
    }


def kernel_connections() -> dict[int, dict[str, str]]:
    """What ``ss -tio`` says of the kernel's established connections, by our port.

    Words with a value (``rto:204``, ``lost:3``) are entries, those without (``sack``) have "".
    """
    found = {}
    for line in ask("ss", "-tinoHO", "state", "established").splitlines():
        receive_queue, send_queue, local, remote, *words = line.split()
        pairs = [word.partition(":")[::2] for word in words]
        found[int(remote.rpartition(":")[2])] = {
            **dict(pairs),
            "recv_q": receive_queue,
            "send_q": send_queue,
            "local": local,
        }
    return found
