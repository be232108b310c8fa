"""What both kinds of members serve, and the octets they send.

TCP services, chosen by a connection's first octet:
    e   echo, until the end
    s   sink, until the end; answers with the number of octets (8 octets)
    d   the same; answers with their SHA-256
    g   source: a size and a seed (8 octets each) follow; answers with that many octets
    x   answer one octet and close
On UDP a datagram that begins with "e" comes back, "q" is answered with the number of the others
since the last "q", as decimal text; the last of the others are kept to be asked for.
"""

from __future__ import annotations

import random
import resource
from pathlib import Path

__all__ = ["PORTS", "UDP_PORT", "figures", "octets"]

PORTS = (7000, 80)
UDP_PORT = 7001
CHUNK = 65_536
HEARD = 64


def octets(size: int, seed: int) -> bytes:
    """*size* octets that both sides can make."""
    block = random.Random(seed).randbytes(min(size, 1 << 20))
    return (block * (size // len(block) + 1))[:size] if block else b""


def figures() -> dict[str, float]:
    """Memory (KiB) and processor time (seconds) of this process."""
    values = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            values[name] = float(value.split()[0])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values["cpu"] = usage.ru_utime + usage.ru_stime
    return values
