"""Names on one network: literals, ourselves, and what the wire's stations have published."""

from __future__ import annotations

import socket as kernel
from typing import TYPE_CHECKING, Any

from .header.address import INTERFACE_INDEX, ip_text, is_link_local, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .abc import Wire

__all__ = ["Resolver"]

_LOOPBACK = (packed("::1"), packed("127.0.0.1"))
_SCOPE = f"%{INTERFACE_INDEX}"  # of link-local addresses: a Network has one interface
_NO_NAME = "name or service not known on this network"


class Resolver:
    """Answers without asking anybody outside the wire, so no name leaks to another network.

    Attributes:
        order: puts packed addresses in the order to try them in; the stack's, once there is one.
    """

    def __init__(self, wire: Wire, name: str | None) -> None:
        self._wire = wire
        self._own_name = name
        self.order: Callable[[Iterable[bytes]], list[bytes]] = list

    def lookup(self, host: str) -> list[str]:
        """Every address of *host*, the best to try first; empty if nobody has that name."""
        if (literal := _literal(host)) is not None:
            return [literal]
        name = host.rstrip(".").lower()
        found: Iterable[bytes]
        if (
            name == "localhost"
            or name.endswith(".localhost")
            or (
                self._own_name is not None and name.removesuffix(".local") == self._own_name.lower()
            )
        ):  # RFC 6761 6.3
            found = _LOOPBACK
        else:
            found = self._wire.lookup(name.removesuffix(".local"))
        return [_text(address) for address in self.order(found)]

    def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the name trio's interface gives it
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As `socket.getaddrinfo`, from this network's names only.

        Raises:
            socket.gaierror: EAI_NONAME, nobody here has that name; EAI_ADDRFAMILY, a literal of the
                other family.
        """
        numeric = flags | kernel.AI_NUMERICHOST
        if host is None or host in ("", b""):
            return kernel.getaddrinfo(None, port, family, type, proto, numeric)
        text = host.decode("ascii") if isinstance(host, bytes) else host
        literal = _literal(text)
        if literal is not None or flags & kernel.AI_NUMERICHOST:
            return kernel.getaddrinfo(literal or text, port, family, type, proto, numeric)
        found = self.lookup(text)
        if family == kernel.AF_INET6 and flags & (kernel.AI_V4MAPPED | kernel.AI_ALL):
            # RFC 3493 6.1: IPv4 addresses only if there is no other, or all are asked for.
            if not flags & kernel.AI_ALL:
                found = [address for address in found if ":" in address] or found
            numeric |= kernel.AI_V4MAPPED
        rows: list[Any] = []
        for address in found:
            try:
                rows += kernel.getaddrinfo(address, port, family, type, proto, numeric)
            except kernel.gaierror as exc:
                # The other family's address; an empty result is reported below.
                if exc.errno not in (kernel.EAI_ADDRFAMILY, kernel.EAI_FAMILY, kernel.EAI_NONAME):
                    raise
        if not rows:
            raise kernel.gaierror(kernel.EAI_NONAME, f"{text}: {_NO_NAME}")
        if flags & kernel.AI_CANONNAME:
            rows[0] = (*rows[0][:3], text, rows[0][4])
        return rows

    def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Numbers as text: there is no reverse lookup on this network.

        Raises:
            socket.gaierror: NI_NAMEREQD was given, or the address is not a literal.
        """
        if flags & kernel.NI_NAMEREQD:
            raise kernel.gaierror(kernel.EAI_NONAME, f"{sockaddr[0]}: {_NO_NAME}")
        return kernel.getnameinfo(sockaddr, flags | kernel.NI_NUMERICHOST | kernel.NI_NUMERICSERV)


def _literal(host: str) -> str | None:
    """*host* in the usual form if it is a literal address, else None."""
    literal, percent, scope = host.partition("%")
    try:
        address = packed(literal)
    except ValueError:
        return None
    if percent and (not scope or len(address) == 4):
        return None
    return _text(address)


def _text(address: bytes) -> str:
    text = ip_text(address)
    # Which interface it is does not matter, there is only one; that it is one does.
    return text + _SCOPE if len(address) == 16 and is_link_local(address) else text
