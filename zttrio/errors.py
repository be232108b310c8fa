"""What zttrio raises above the socket edge.

At the socket edge errors are ``OSError`` with an errno, at the stream edge they are trio's
``ClosedResourceError``, ``BrokenResourceError`` and ``BusyResourceError``.  Everything else is a
`ZttrioError`: text is ``what: why``, and the values in the text are fields as well.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "HeaderError",
    "IdentityError",
    "InterceptError",
    "JoinError",
    "LocalError",
    "NetworkNotFound",
    "ProtocolError",
    "RpcError",
    "WireError",
    "ZttrioError",
]


class ZttrioError(Exception):
    """The base of every error that is zttrio's own."""


class JoinError(ZttrioError):
    """The network cannot be joined."""


class AccessDenied(JoinError):
    """The controller knows this node and has not let it in.

    Attributes:
        network_id: sixteen hex digits.
        node_address: ten hex digits, what the network's administrator has to authorise.
    """

    def __init__(self, network_id: str, node_address: str) -> None:
        super().__init__(network_id, node_address)
        self.network_id = network_id
        self.node_address = node_address

    def __str__(self) -> str:
        return f"network {self.network_id} has not authorised node {self.node_address}"


class NetworkNotFound(JoinError):
    """The controller does not know a network of this ID.

    Attributes:
        network_id: sixteen hex digits.
    """

    def __init__(self, network_id: str) -> None:
        super().__init__(network_id)
        self.network_id = network_id

    def __str__(self) -> str:
        return f"network {self.network_id} does not exist at its controller"


class WireError(ZttrioError):
    """The wire cannot be opened, or it died; the Network ends with this."""


class IdentityError(ZttrioError):
    """An identity is malformed, or its secret is missing or readable by others."""


class InterceptError(ZttrioError):
    """An unmodified program cannot be put on the network."""


class LocalError(ZttrioError):
    """The program asked for something that makes no sense in this state."""


class ProtocolError(ZttrioError):
    """A peer sent what the protocol does not allow."""


class HeaderError(ProtocolError):
    """The bytes cannot be a header of this kind."""


class RpcError(ProtocolError):
    """A message between intercept and tap service is malformed."""
