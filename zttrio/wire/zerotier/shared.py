"""One node for all the networks of a home: wires share it, and take turns at driving it.

A node has one identity, one port and one table of peers, however many networks it is on.  Which of
the wires drives it is nobody's business: when that one leaves, another goes on.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from zttrio.errors import WireError
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.endpoint import LOOPBACK, scope_of
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.world import PLANET

from .home import Home
from .task import NodeTask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from zttrio.zerotier.network.membership import Membership, NetworkEvent
    from zttrio.zerotier.node import Node
    from zttrio.zerotier.world import World

    from .task import Layer

__all__ = ["MakeTask", "Member", "SharedNode", "shared_node"]

_LOOPBACK_IPS = (b"\x7f\0\0\x01", bytes(15) + b"\x01")


class Member(Protocol):
    """What the node tells the wire of one network."""

    def take_event(self, event: NetworkEvent) -> None:
        """The network's configuration or status is another one."""

    def take_frames(self, frames: list[bytes]) -> None:
        """Whole Ethernet frames for the stack, in order."""

    def may_send(self) -> None:
        """The node's sockets take datagrams again."""


class MakeTask(Protocol):
    """Makes the task of a node, which has not been opened yet."""

    def __call__(self, make_layer: Callable[[Node, float], Layer]) -> Awaitable[NodeTask]:
        """Make it, with what lives on it."""


class SharedNode:
    """A node that is opened by the first wire and closed by the last.

    Args:
        make_task: called each time that the node is opened.

    Attributes:
        task: its task; set while the node is open.
        networks: its memberships; set while the node is open.
    """

    def __init__(self, make_task: MakeTask) -> None:
        self.task: NodeTask
        self.networks: Networks
        self.users: int = 0
        """Wires that have entered and not left."""
        self._make_task = make_task
        self._members: dict[int, tuple[Member, Membership]] = {}
        self._changing = trio.Lock()
        self._driving = trio.Lock()
        self._is_open = False

    async def enter(self) -> None:
        """Use the node: open it, if nobody has.  `leave` it afterwards if this succeeds.

        Raises:
            IdentityError: the identity is invalid, or others may read it.
            WireError: as `NodeTask.open`, or there is no planet.
        """
        self.users += 1
        try:
            async with self._changing:
                if not self._is_open:
                    self.task = await self._make_task(self._make_layer)
                    try:
                        await self.task.open()
                    except BaseException:
                        await self.task.close()  # noqa: ASYNC102 - it shields itself
                        raise
                    self._is_open = True
        except BaseException:
            self.users -= 1
            raise

    async def leave(self) -> None:
        """Do not use the node any longer; the last one closes it, shielded and in limited time."""
        self.users -= 1
        with trio.CancelScope(shield=True):
            async with self._changing:
                if self._is_open and not self.users:
                    self._is_open = False
                    await self.task.close()

    async def drive(self) -> None:
        """Work for the node, or wait until the one that does it has left; never returns.

        Raises:
            IdentityError: a root says that the identity is somebody else's.
            WireError: a socket died, or a file of the home cannot be written.
        """
        async with self._driving:
            await self.task.drive()

    def join(
        self, network_id: int, member: Member, *, stored: bytes | None, token: str | None
    ) -> Membership:
        """Become a member of a network.

        Raises:
            WireError: this node is on that network already, or on too many.
        """
        if network_id in self._members:
            raise WireError(
                f"network {network_id:016x}: node {self.task.node.identity} is on it already; a "
                "second station needs a home of its own"
            )
        membership = self.networks.join(network_id, trio.current_time(), stored=stored, token=token)
        self._members[network_id] = (member, membership)
        return membership

    def part(self, network_id: int) -> None:
        """Leave a network; what is stored of it stays."""
        del self._members[network_id]
        self.networks.leave(network_id, trio.current_time())

    def _make_layer(self, node: Node, now: float) -> Layer:
        self.networks = Networks(node, rng=os.urandom, epoch=time.time() - now)
        node.set_network_layer(self.networks)
        return self

    # what the task calls: see `Layer`

    def handle_timers(self, now: float) -> None:
        """Do what is due on all networks."""
        self.networks.handle_timers(now)

    def next_timer(self) -> float | None:
        """When that is."""
        return self.networks.next_timer()

    def collect(self) -> bool:
        """Give each wire what is its."""
        has_news = False
        for event in self.networks.take_events():
            found = self._members.get(event.network_id)
            if found is not None:
                found[0].take_event(event)
                has_news = True
        for member, membership in self._members.values():
            frames = membership.take_frames()
            if frames:
                member.take_frames(frames)
                has_news = True
        return has_news

    def unblocked(self) -> None:
        """Let every wire send again."""
        for member, _ in self._members.values():
            member.may_send()


_shared: trio.lowlevel.RunVar[dict[Path, SharedNode]] = trio.lowlevel.RunVar("zttrio nodes")


def shared_node(
    home: str | os.PathLike[str] | None,
    *,
    planet: World | None,
    port: int = 0,
    bind: Sequence[bytes] = (),
) -> SharedNode:
    """The node of *home* in this trio run; without a home a new one that nobody else gets.

    What was given when the node was opened holds for all who share it.

    Args:
        home: the folder.
        planet: given by the owner; None for the one in *home*.
        port: UDP port, 0 for a random one.
        bind: packed addresses to use; empty for all, or for loopback only, if the planet's roots
            are nowhere else.
    """
    make_task = partial(_make_task, home, planet, port, bind)
    if home is None:
        return SharedNode(make_task)
    try:
        nodes = _shared.get()
    except LookupError:
        nodes = {}
        _shared.set(nodes)
    path = Path(os.path.realpath(home))
    node = nodes.get(path)
    if node is None or not node.users:  # one that nobody uses may have been another planet's
        waiting = node
        node = nodes[path] = SharedNode(make_task)
        if waiting is not None:
            node._changing = waiting._changing  # it may still be closing
    return node


async def _make_task(
    home: str | os.PathLike[str] | None,
    planet: World | None,
    port: int,
    bind: Sequence[bytes],
    make_layer: Callable[[Node, float], Layer],
) -> NodeTask:
    worlds = [] if home is None else await trio.to_thread.run_sync(_stored_worlds, home)
    if planet is not None:
        worlds = [world for world in worlds if world.kind != PLANET] + [planet]
    if not any(world.kind == PLANET for world in worlds):
        where = "no home to keep it in" if home is None else f"home {home} holds none"
        raise WireError(
            f"planet: which one? {where}; name the file that lists your roots (planet=, --planet). "
            "Nothing is sent to roots that you did not choose"
        )
    ips = [e.ip for world in worlds for root in world.roots for e in root.endpoints]
    is_local = bool(ips) and all(scope_of(ip) == LOOPBACK for ip in ips)
    if is_local and not bind:
        bind = [ip for ip in _LOOPBACK_IPS if any(len(other) == len(ip) for other in ips)]
    return NodeTask(
        home,
        worlds=[] if planet is None else [planet],
        port=port,
        bind=bind,
        config=NodeConfig(loopback_paths=is_local),
        make_layer=make_layer,
    )


def _stored_worlds(folder: str | os.PathLike[str]) -> list[World]:
    return Home(folder).load_worlds()
