"""getaddrinfo() and getnameinfo() for unmodified programs, from the virtual network's names.

Programs get all socket types at once and choose by their hints, so nothing here depends on them.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from zttrio.header.address import is_loopback, packed

from .rpc import AF_INET, AF_INET6, ResolveAnswer, ResolveRow, Sockaddr
from .sockaddr import V4_MAPPED, for_program, wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ResolveError", "name_of", "resolve"]

# glibc's, which Python names only in part.
EAI_NODATA = -5
EAI_ADDRFAMILY = -9
EAI_NONAME = int(socket.EAI_NONAME)
EAI_SERVICE = int(socket.EAI_SERVICE)

_TYPES = (
    (int(socket.SOCK_STREAM), int(socket.IPPROTO_TCP), "tcp"),
    (int(socket.SOCK_DGRAM), int(socket.IPPROTO_UDP), "udp"),
    (int(socket.SOCK_RAW), 0, None),
)
_LOOPBACK = {AF_INET: packed("127.0.0.1"), AF_INET6: packed("::1")}


class ResolveError(Exception):
    """A name has no answer.

    Attributes:
        code: the EAI number that the program gets.
        is_unknown_name: it was a name, and nobody has it.
    """

    def __init__(self, code: int, text: str, *, is_unknown_name: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.is_unknown_name = is_unknown_name


def resolve(
    node: str | None,
    service: str | None,
    family: int,
    flags: int,
    found: Sequence[str],
    families: Iterable[int],
) -> ResolveAnswer:
    """Answer one getaddrinfo().

    Args:
        node: the host, or None.
        service: a port number, a service name, or None.
        family: AF_INET, AF_INET6, or 0 for both.
        flags: AI_* bits.
        found: the addresses of *node*, as texts.
        families: those in which we have an address, for AI_ADDRCONFIG; none if that is unknown.

    Raises:
        ResolveError: there is no answer.
    """
    ports = _ports(service, flags)
    addresses, canonical = _addresses(node, family, flags, found)
    if flags & socket.AI_ADDRCONFIG and node is not None and not _is_literal(node):
        have = set(families) or {AF_INET, AF_INET6}
        addresses = [address for address in addresses if _family(address) in have]
    if not addresses:
        raise ResolveError(EAI_NODATA, f"{node}: no address of the family that was asked for")
    rows = [
        ResolveRow(
            _family(address), kind, protocol, for_program(address, ports[kind], _family(address))
        )
        for address in addresses
        for kind, protocol, _ in _TYPES
        if kind in ports
    ]
    return ResolveAnswer(rows, canonical if flags & socket.AI_CANONNAME else "")


def _family(address: bytes) -> int:
    return AF_INET if len(address) == 4 else AF_INET6


def _is_literal(node: str) -> bool:
    try:
        packed(node.partition("%")[0])
    except ValueError:
        return False
    return True


def _ports(service: str | None, flags: int) -> dict[int, int]:
    """The port of *service* for each socket type that has one."""
    if not service:
        return {kind: 0 for kind, _, _ in _TYPES}
    if service.isascii() and service.isdigit():
        return {kind: int(service) & 0xFFFF for kind, _, _ in _TYPES}
    if flags & socket.AI_NUMERICSERV:
        raise ResolveError(EAI_NONAME, f"service {service}: not a number")
    ports = {}
    for kind, _, transport in _TYPES:
        if transport is not None:
            try:
                ports[kind] = socket.getservbyname(service, transport)
            except OSError:
                continue  # not a service of this transport
    if not ports:
        raise ResolveError(EAI_SERVICE, f"service {service}: not known")
    return ports


def _addresses(
    node: str | None, family: int, flags: int, texts: Sequence[str]
) -> tuple[list[bytes], str]:
    wanted = (AF_INET, AF_INET6) if family == 0 else (family,)
    if node is None:
        if flags & socket.AI_PASSIVE:
            return [wildcard(one) for one in wanted], ""
        return [_LOOPBACK[one] for one in reversed(wanted)], ""
    is_literal = _is_literal(node)
    if flags & socket.AI_NUMERICHOST and not is_literal:
        raise ResolveError(EAI_NONAME, f"{node}: not an address")
    found = [packed(text.partition("%")[0]) for text in texts]
    if not found:
        raise ResolveError(
            EAI_NONAME, f"{node}: nobody on this network has that name", is_unknown_name=True
        )
    fitting = [address for address in found if _family(address) in wanted]
    if family == AF_INET6 and flags & socket.AI_V4MAPPED and (not fitting or flags & socket.AI_ALL):
        fitting += [V4_MAPPED + address for address in found if len(address) == 4]
    if not fitting and is_literal:
        raise ResolveError(EAI_ADDRFAMILY, f"{node}: of the other family")
    return fitting, node


def name_of(address: Sockaddr, flags: int, names: dict[bytes, str]) -> tuple[str, str]:
    """Answer one getnameinfo().

    Args:
        address: whose name is wanted.
        flags: NI_* bits.
        names: what is known, by packed address.

    Raises:
        ResolveError: NI_NAMEREQD, and there is no name.
    """
    ip = address.address
    if ip.startswith(V4_MAPPED):
        ip = ip[12:]
    name = None
    if not flags & socket.NI_NUMERICHOST:
        name = "localhost" if is_loopback(ip) else names.get(ip)
    if name is None:
        if flags & socket.NI_NAMEREQD:
            raise ResolveError(EAI_NONAME, "no name for this address on the virtual network")
        name = socket.inet_ntop(AF_INET if len(address.address) == 4 else AF_INET6, address.address)
        if address.scope:
            name += f"%{address.scope}"
    return name, _service_of(address.port, flags)


def _service_of(port: int, flags: int) -> str:
    if not flags & socket.NI_NUMERICSERV:
        try:
            return socket.getservbyport(port, "udp" if flags & socket.NI_DGRAM else "tcp")
        except OSError:
            pass  # no name for it: the number will do
    return str(port)
