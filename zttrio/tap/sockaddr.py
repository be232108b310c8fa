"""Socket addresses of programs <-> packed addresses of the stack, with Linux's rules and errors."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from zttrio.header.address import (
    INTERFACE_INDEX,
    IPV4_UNSPECIFIED,
    IPV6_UNSPECIFIED,
    is_link_local,
)

from .rpc import AF_INET, AF_INET6, SOCKADDR_IN6_LENGTH, SOCKADDR_IN_LENGTH, Sockaddr, family_of

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["for_program", "for_stack", "wildcard"]

AF_UNSPEC = 0
V4_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2
_WITHOUT_SCOPE = 24  # sockaddr_in6 as RFC 2133 had it; Linux still takes it


def for_stack(data: Buffer, domain: int, *, is_bind: bool = False) -> tuple[bytes, int]:
    """The packed address and port that a program of *domain* means.

    A v4-mapped address comes out as the IPv4 address it stands for.

    Raises:
        OSError: EINVAL, it is too short; EAFNOSUPPORT, it is of the other family.
    """
    length = SOCKADDR_IN_LENGTH if domain == AF_INET else _WITHOUT_SCOPE
    if len(data) < length:
        raise OSError(errno.EINVAL, f"socket address: {len(data)} octets are too few")
    family = family_of(data)
    if family == AF_UNSPEC and domain == AF_INET and is_bind:
        # A relic that Linux honours for the wildcard address.
        address = bytes(data[4:8])
        if any(address):
            raise OSError(errno.EAFNOSUPPORT, "socket address: of no family")
        return address, int.from_bytes(data[2:4])
    if family != domain:
        raise OSError(errno.EAFNOSUPPORT, f"socket address: family {family}, not {domain}")
    if domain == AF_INET6:
        data = bytes(data[:SOCKADDR_IN6_LENGTH]).ljust(SOCKADDR_IN6_LENGTH, b"\0")
    found = Sockaddr.parse(data)
    if found.address.startswith(V4_MAPPED):
        return found.address[12:], found.port
    return found.address, found.port


def for_program(address: bytes | None, port: int, domain: int) -> bytes:
    """What a program of *domain* reads for a packed address (None: the wildcard) and port."""
    if address is None:
        address = wildcard(domain)
    if domain == AF_INET6 and len(address) == 4:
        address = IPV6_UNSPECIFIED if address == IPV4_UNSPECIFIED else V4_MAPPED + address
    is_scoped = len(address) == 16 and is_link_local(address)
    return Sockaddr(address, port, scope=INTERFACE_INDEX if is_scoped else 0).emit()


def wildcard(domain: int) -> bytes:
    """The packed wildcard address of *domain*."""
    return IPV6_UNSPECIFIED if domain == AF_INET6 else IPV4_UNSPECIFIED
