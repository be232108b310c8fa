"""What a node tells its owner, and what it hands to the layer of virtual networks."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeAlias

import attrs

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .peer import Peer
    from .world import World

__all__ = [
    "EchoAnswered",
    "Event",
    "Events",
    "IdentityCollision",
    "Message",
    "NetworkLayer",
    "Offline",
    "Online",
    "PathFound",
    "PathLost",
    "PeerKnown",
    "PeerLost",
    "UserMessageReceived",
    "WorldUpdated",
]


@attrs.define(eq=False)
class Message:
    """An authentic message from a peer, decrypted and decompressed.

    Attributes:
        peer: who sent it.
        local: which of our sockets it came in by.
        remote: the endpoint it came from: the peer's, or a relay's if *hops* is not 0.
        hops: how many relays it has passed, as they say.
        packet_id: as it was on the wire, for answers to quote.
        verb: one of `messages`.
        payload: what stands behind the verb.
    """

    peer: Peer
    local: int
    remote: Endpoint
    hops: int
    packet_id: bytes
    verb: int
    payload: bytes


class NetworkLayer(Protocol):
    """Virtual networks (VL2) as the node sees them: it hands over their messages and knows no more.

    The layer answers with `Node.send`.  Methods never raise anything but HeaderError, which
    counts the message as malformed.
    """

    def receive_message(self, message: Message, now: float) -> None:
        """Take in a message with one of `messages.NETWORK_VERBS`."""

    def receive_ok(
        self,
        message: Message,
        verb: int,
        packet_id: bytes,
        data: bytes,
        context: object,
        now: float,
    ) -> None:
        """Take in an OK to a message that the layer sent with *context*.

        Args:
            message: the OK itself.
            verb: what is answered.
            packet_id: of the message that is answered.
            data: the rest of the OK.
            context: what `Node.send` was given.
            now: seconds.
        """

    def receive_error(
        self, message: Message, verb: int, packet_id: bytes, code: int, data: bytes, now: float
    ) -> bool:
        """Take in an ERROR about a network; True if its sender may say so (11.1)."""


@attrs.frozen
class Online:
    """A root has answered: other nodes can be found now."""


@attrs.frozen
class Offline:
    """No root has been heard for too long."""


@attrs.frozen
class PeerKnown:
    """A peer's identity has been learned and checked."""

    address: bytes


@attrs.frozen
class PeerLost:
    """A peer has been forgotten, because it was silent for too long."""

    address: bytes


@attrs.frozen
class PathFound:
    """A direct path to a peer has been confirmed."""

    address: bytes
    local: int
    remote: Endpoint


@attrs.frozen
class PathLost:
    """A peer's last direct path is silent; packets take a relay."""

    address: bytes


@attrs.frozen
class EchoAnswered:
    """An ECHO of `Node.echo` came back.

    Attributes:
        address: who answered.
        payload: what it sent back.
        round_trip: seconds since the ECHO was sealed.
        hops: 0 if the answer came directly.
        remote: where it came from.
        context: what `Node.echo` was given.
    """

    address: bytes
    payload: bytes
    round_trip: float
    hops: int
    remote: Endpoint
    context: object


@attrs.frozen
class UserMessageReceived:
    """A peer sent a USER_MESSAGE."""

    address: bytes
    kind: int
    data: bytes


@attrs.frozen
class WorldUpdated:
    """A newer revision of a world, or a moon we wanted, is held now; worth storing."""

    world: World


@attrs.frozen
class IdentityCollision:
    """A root says that somebody else has our address: this identity is useless (11.1)."""

    reporter: bytes


Event: TypeAlias = (
    Online
    | Offline
    | PeerKnown
    | PeerLost
    | PathFound
    | PathLost
    | EchoAnswered
    | UserMessageReceived
    | WorldUpdated
    | IdentityCollision
)

_LIMIT = 4096


class Events:
    """What happened, oldest first, until the owner takes it; an owner who never does loses some.

    Attributes:
        dropped: how many made room for newer ones.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: deque[Event] = deque()

    def add(self, event: Event) -> None:
        """Tell the owner."""
        if len(self._queue) >= _LIMIT:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(event)

    def take(self) -> list[Event]:
        """Everything that happened since the last call."""
        events = list(self._queue)
        self._queue.clear()
        return events
