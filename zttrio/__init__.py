"""Put a Python program, or any unmodified program, on a virtual network without root."""

from .config import Config
from .errors import (
    AccessDenied,
    HeaderError,
    IdentityError,
    InterceptError,
    JoinError,
    LocalError,
    NetworkNotFound,
    ProtocolError,
    RpcError,
    WireError,
    ZttrioError,
)
from .network import Network
from .status import ConnectionStatus, SocketStatus, Status

__all__ = [
    "AccessDenied",
    "Config",
    "ConnectionStatus",
    "HeaderError",
    "IdentityError",
    "InterceptError",
    "JoinError",
    "LocalError",
    "Network",
    "NetworkNotFound",
    "ProtocolError",
    "RpcError",
    "SocketStatus",
    "Status",
    "WireError",
    "ZttrioError",
]
