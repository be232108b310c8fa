"""Names on one network: literals, ourselves, and what the wire's stations have published."""

from __future__ import annotations

import socket as kernel
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .abc import Wire

__all__ = ["Resolver"]

_LOOPBACK = ("::1", "127.0.0.1")
_NO_NAME = "name or service not known on this network"


class Resolver:
    """Answers without asking anybody outside the wire, so no name leaks to another network."""

    def __init__(self, wire: Wire, name: str | None) -> None:
        self._wire = wire
        self._own_name = name

    def lookup(self, host: str) -> list[str]:
        """Every address of *host*, literals as they are; empty if nobody has that name."""
        try:
            return [str(ip_address(host.partition("%")[0])) + "".join(host.partition("%")[1:])]
        except ValueError:
            pass
        name = host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 6.3
            return list(_LOOPBACK)
        name = name.removesuffix(".local")
        if self._own_name is not None and name == self._own_name.lower():
            return list(_LOOPBACK)
        return [str(ip_address(address)) for address in self._wire.lookup(name)]

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
            socket.gaierror: EAI_NONAME, nobody here has that name.
        """
        numeric = flags | kernel.AI_NUMERICHOST
        if host is None or host in ("", b""):
            return kernel.getaddrinfo(None, port, family, type, proto, numeric)
        text = host.decode("ascii") if isinstance(host, bytes) else host
        rows: list[Any] = []
        found = [text] if flags & kernel.AI_NUMERICHOST else self.lookup(text)
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
