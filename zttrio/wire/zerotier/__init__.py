"""ZeroTier on this machine: the task that gives a sans-IO node its sockets, clock and files."""

from .home import Home
from .task import NodeTask, generate_identity

__all__ = ["Home", "NodeTask", "generate_identity"]
