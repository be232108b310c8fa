"""What lives on a root besides its relay: it knows who listens to which group of which network.

Members that have nobody else to ask find each other by that, on networks without a controller for
instance.  A root is on none of these networks and sees none of their frames.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from zttrio.zerotier.network.networks import Networks

if TYPE_CHECKING:
    from zttrio.zerotier.node import Node

__all__ = ["RegistryLayer"]


class RegistryLayer:
    """The network layer of a root; a `Layer` of its task.

    Args:
        node: the root's.
        now: seconds.
    """

    def __init__(self, node: Node, now: float) -> None:
        self.networks = Networks(node, rng=os.urandom, epoch=time.time() - now, is_registry=True)
        node.set_network_layer(self.networks)

    def handle_timers(self, now: float) -> None:
        """Forget what is too old."""
        self.networks.handle_timers(now)

    def next_timer(self) -> float | None:
        """When that is."""
        return self.networks.next_timer()

    def collect(self) -> bool:
        """There is nobody to hand anything to."""
        return False

    def unblocked(self) -> None:
        """Nothing here counts what the sockets take."""
