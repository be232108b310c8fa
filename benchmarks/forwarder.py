"""The same user-space switch as `forwarder.c`, for machines without a C compiler.

Usage: forwarder.py NETNS TAP NETNS TAP [offload]
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import sys
import threading
from pathlib import Path

FRAME = 1 << 17
CLONE_NEWNET = 0x4000_0000
TUNSETIFF, TUNSETOFFLOAD = 0x4004_54CA, 0x4004_54D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4


def attach(netns: str, tap: str, *, offload: bool) -> int:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    with Path("/var/run/netns", netns).open("rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {netns}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if offload else 0)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", tap.encode(), flags))
    if offload:
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return fd


def copy(source: int, target: int) -> None:
    buffer = memoryview(bytearray(FRAME))
    while True:
        length = os.readv(source, [buffer])
        with contextlib.suppress(OSError):  # lost, as behind any switch
            os.write(target, buffer[:length])


def main() -> None:
    netns_a, tap_a, netns_b, tap_b, *rest = sys.argv[1:]
    offload = rest == ["offload"]
    a = attach(netns_a, tap_a, offload=offload)
    b = attach(netns_b, tap_b, offload=offload)
    for pair in ((a, b), (b, a)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
    print("ready", flush=True)
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    main()
