"""What the network layer of a node asks of a controller in the same node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zttrio.zerotier.events import Message
    from zttrio.zerotier.network.dictionary import Dictionary

__all__ = ["ControllerLayer"]


class ControllerLayer(Protocol):
    """A controller as `Networks` sees it; `Controller` is one."""

    def receive_request(
        self, message: Message, network_id: int, metadata: Dictionary, now: float
    ) -> None:
        """Take in a NETWORK_CONFIG_REQUEST (16.2); answers leave by `Node.send`, now or later.

        Requests for another controller's networks are ignored.

        Args:
            message: its ``peer.identity`` is authenticated.
            network_id: the network asked for.
            metadata: what the member says about itself (5.5).
            now: seconds.
        """

    def answers_for(self, network_id: int, address: bytes, now: float) -> bool:
        """True if MULTICAST_LIKE and MULTICAST_GATHER of *address* are to be believed (11.4).

        They are for members that were sent a configuration of *network_id* within 180 s.
        """
