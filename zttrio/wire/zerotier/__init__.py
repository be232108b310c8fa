"""ZeroTier on this machine: a network as a wire, and the task behind it.

The task gives a sans-IO node its sockets, clock and files.
"""

from .home import Home
from .shared import SharedNode
from .task import NodeTask, generate_identity
from .wire import ZeroTier

__all__ = ["Home", "NodeTask", "SharedNode", "ZeroTier", "generate_identity"]
