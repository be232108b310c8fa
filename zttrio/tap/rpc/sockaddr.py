"""Socket addresses as the kernel's structures hold them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from zttrio.errors import RpcError

from .numbers import AF_INET, AF_INET6

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer

__all__ = ["SOCKADDR_IN6_LENGTH", "SOCKADDR_IN_LENGTH", "SOCKADDR_ROOM", "Sockaddr", "family_of"]

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2sI16sI")
SOCKADDR_IN_LENGTH = _SOCKADDR_IN.size
SOCKADDR_IN6_LENGTH = _SOCKADDR_IN6.size
SOCKADDR_ROOM = 28
_NATIVE = struct.Struct("=I")
_NETWORK = struct.Struct("!I")


@attrs.define
class Sockaddr:
    """A socket address as the kernel's structures hold it.

    Attributes:
        address: packed, 4 octets (``sockaddr_in``) or 16 (``sockaddr_in6``).
        port: in host order.
        flow_info: ``sin6_flowinfo`` as a number in host order.
        scope: ``sin6_scope_id``.
    """

    address: bytes
    port: int
    flow_info: int = 0
    scope: int = 0

    @classmethod
    def parse(cls, data: Buffer) -> Sockaddr:
        """Read a ``sockaddr_in`` or ``sockaddr_in6``; octets behind it are ignored, as Linux does.

        Raises:
            RpcError: too short, or of another family.
        """
        if len(data) >= SOCKADDR_IN_LENGTH:
            family, port, address = _SOCKADDR_IN.unpack_from(data)
            if family == AF_INET:
                return cls(address, int.from_bytes(port, "big"))
            if family == AF_INET6 and len(data) >= SOCKADDR_IN6_LENGTH:
                _, port, flow_info, address, scope = _SOCKADDR_IN6.unpack_from(data)
                return cls(address, int.from_bytes(port, "big"), _swap(flow_info), scope)
        raise RpcError(f"socket address: {len(data)} octets are no AF_INET or AF_INET6 address")

    def emit(self) -> bytes:
        """The structure the kernel would fill in, 16 or 28 octets."""
        port = self.port.to_bytes(2, "big")
        if len(self.address) == 4:
            return _SOCKADDR_IN.pack(AF_INET, port, self.address)
        return _SOCKADDR_IN6.pack(AF_INET6, port, _swap(self.flow_info), self.address, self.scope)


def _swap(number: int) -> int:
    """``htonl`` between a structure read in native order and its network-order field."""
    return int(_NATIVE.unpack(_NETWORK.pack(number))[0])


def family_of(data: Buffer) -> int:
    """The address family in front of a socket address, or 0 if there is none."""
    return int(struct.unpack_from("=H", data)[0]) if len(data) >= 2 else 0
