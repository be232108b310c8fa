"""Sockets of one network, with the interface of trio's own.

`Socket` is a `trio.socket.SocketType`, so `trio.SocketStream`, `trio.SocketListener` and every
library on top of them work unmodified.  This room knows the stack's endpoints and the driver; how
TCP and UDP behave is the stack's business.
"""

from __future__ import annotations

import errno
import socket as kernel
from typing import TYPE_CHECKING

from .base import Socket
from .datagram import DatagramSocket
from .stream import StreamSocket

if TYPE_CHECKING:
    from zttrio.driver import Driver
    from zttrio.resolve import Resolver

__all__ = ["DatagramSocket", "Socket", "StreamSocket", "make_socket"]

_FAMILIES = (kernel.AF_INET, kernel.AF_INET6)
_CLASSES: dict[int, type[DatagramSocket | StreamSocket]] = {
    kernel.SOCK_STREAM: StreamSocket,
    kernel.SOCK_DGRAM: DatagramSocket,
}


def make_socket(
    driver: Driver,
    resolver: Resolver,
    family: int,
    type: int,  # noqa: A002 - the kernel's word
    proto: int,
) -> Socket:
    """A socket as ``socket(family, type, proto)`` asks for.

    Raises:
        OSError: EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT, or ENETDOWN.
    """
    type &= ~(kernel.SOCK_NONBLOCK | kernel.SOCK_CLOEXEC)  # noqa: A001
    if family not in _FAMILIES:
        raise OSError(errno.EAFNOSUPPORT, f"socket: family {family} is neither INET nor INET6")
    if type not in _CLASSES:
        raise OSError(errno.ESOCKTNOSUPPORT, f"socket: type {type} is neither STREAM nor DGRAM")
    chosen = _CLASSES[type]
    if proto not in (0, chosen.protocol):
        raise OSError(
            errno.EPROTONOSUPPORT, f"socket: protocol {proto} does not go with type {type}"
        )
    driver.check()
    if family == kernel.AF_INET6 and not driver.stack.has_ipv6:
        raise OSError(errno.EAFNOSUPPORT, "socket: this Network has no IPv6 (MTU or Config.ipv6)")
    return chosen(driver, resolver, family)
