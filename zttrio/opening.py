"""How `Network.open_tcp_stream` gets from a host to a stream.

A name has any number of addresses, and trio knows how to try them.  A literal has one: all that
trio's way would add is a resolver, a nursery and a second turn of its loop.
"""

from __future__ import annotations

import os
import socket as kernel
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["open_tcp_stream"]


async def open_tcp_stream(
    make_socket: Callable[[int], trio.socket.SocketType],
    host: str | bytes,
    port: int,
    happy_eyeballs_delay: float | None,
    local_address: str | None,
) -> trio.SocketStream:
    """Connect to *host*; trio's sockets are those of the right network already.

    Args:
        make_socket: a TCP socket of a family.
        host: a name or a literal address.
        port: of the host.
        happy_eyeballs_delay: seconds before the next address is tried as well; None for trio's.
        local_address: to come from, or None for whatever suits the host.

    Raises:
        OSError: as `Network.open_tcp_stream`.
    """
    family = None if local_address is not None else _family_of(host)
    if family is not None and port in range(1, 0x10000):
        sock = make_socket(family)
        try:
            await sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)
    try:
        return await trio.open_tcp_stream(
            host,
            port,
            happy_eyeballs_delay=happy_eyeballs_delay,
            local_address=local_address,
        )
    except OSError as exc:
        group = exc.__cause__
        if exc.errno is None and isinstance(group, BaseExceptionGroup):
            codes = {getattr(child, "errno", None) for child in group.exceptions}
            if len(codes) == 1 and (code := codes.pop()) is not None:
                raise OSError(code, f"{exc}: {os.strerror(code)}") from group
        raise


def _family_of(host: str | bytes) -> int | None:
    """The family of a literal address, without a scope; None for everything else."""
    for family in (kernel.AF_INET, kernel.AF_INET6):
        try:
            kernel.inet_pton(family, host)  # type: ignore[arg-type] # not a str is an error, too
        except (OSError, TypeError, ValueError):
            continue
        return family
    return None
