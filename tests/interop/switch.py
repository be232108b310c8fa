"""Network namespaces without a way out: a bridge, and hosts on it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

__all__ = ["Switch", "why_not"]


def why_not() -> str | None:
    """Why there can be no namespaces here, or None if there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and iproute2"
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Switch:
    """A bridge, and namespaces on it: 10.77.N.1/24 each, no default route, no IPv6.

    Raises:
        subprocess.CalledProcessError: the kernel refuses.
    """

    _serial = itertools.count()

    def __init__(self) -> None:
        self.prefix = f"ztt{os.getpid()}x{next(self._serial)}"
        self._names: list[str] = []
        self._add("sw")
        self._in("sw", "ip", "link", "add", "br0", "type", "bridge")
        self._in("sw", "ip", "link", "set", "br0", "up")

    def host(self, number: int, *reachable: int) -> str:
        """Make namespace *number*; it has routes to those in *reachable* only."""
        name = f"n{number}"
        self._add(name)
        full, switch, port = f"{self.prefix}{name}", f"{self.prefix}sw", f"p{number}"
        _ip(
            *("link", "add", "eth0", "netns", full, "type", "veth"),
            *("peer", "name", port, "netns", switch),
        )
        self._in("sw", "ip", "link", "set", port, "master", "br0", "up")
        self._in(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        self._in(name, "ip", "addr", "add", f"10.77.{number}.1/24", "dev", "eth0")
        self._in(name, "ip", "link", "set", "eth0", "up")
        self._in(name, "ip", "link", "set", "lo", "up")
        self.route(number, *reachable)
        return full

    def route(self, number: int, *reachable: int) -> None:
        """Let a namespace reach others."""
        for other in reachable:
            self._in(f"n{number}", "ip", "route", "replace", f"10.77.{other}.0/24", "dev", "eth0")

    def close(self) -> None:
        """Remove everything."""
        for name in self._names:
            _ip("netns", "del", name)

    def _add(self, name: str) -> None:
        _ip("netns", "add", self.prefix + name)
        self._names.append(self.prefix + name)

    def _in(self, name: str, *words: str) -> None:
        _ip("netns", "exec", self.prefix + name, *words)
