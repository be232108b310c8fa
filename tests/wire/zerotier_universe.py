"""A ZeroTier universe without a kernel: one node that is root and controller, and wires to it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import trio

from tests.zerotier.cable import Cable
from tests.zerotier.data import node_identities
from tests.zerotier.lab import WORLD_KEYS, is_valid
from zttrio.wire.zerotier import NodeTask, SharedNode, ZeroTier
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.controller import Controller
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.world import PLANET, Root, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zttrio.wire.zerotier.task import Layer
    from zttrio.zerotier.controller.journal import Write
    from zttrio.zerotier.node import Node

ROOT = "10.0.0.1/9993"
QUICK = NodeConfig(validation_interval=0)
EVERYTHING = [{"type": "ACTION_ACCEPT"}]
POOL: dict[str, Any] = {
    "v4AssignMode": {"zt": True},
    "ipAssignmentPools": [{"ipRangeStart": "10.99.0.10", "ipRangeEnd": "10.99.0.200"}],
    "routes": [{"target": "10.99.0.0/24", "via": None}],
    "rules": EVERYTHING,
}


def planet(endpoint: str = ROOT, world_id: int = 7) -> World:
    listed = Root(node_identities()[0].without_secret(), (Endpoint.parse(endpoint),))
    return World.make(PLANET, world_id, 5, [listed], signer=WORLD_KEYS)


class ControllerNode:
    """What lives on the root: a controller that keeps its records in memory."""

    def __init__(self, node: Node, now: float) -> None:
        epoch = time.time() - now
        self.stored: list[Write] = []
        self.controller = Controller(node, rng=os.urandom, epoch=epoch)
        self.networks = Networks(
            node, rng=os.urandom, epoch=epoch, controller=self.controller, is_registry=True
        )
        node.set_network_layer(self.networks)

    def handle_timers(self, now: float) -> None:
        self.networks.handle_timers(now)
        self.controller.handle_timers(now)

    def next_timer(self) -> float | None:
        timers = [self.networks.next_timer(), self.controller.next_timer()]
        return min((when for when in timers if when is not None), default=None)

    def collect(self) -> bool:
        if not self.controller.has_writes:
            return False
        batch = self.controller.take_writes()
        self.stored += batch.writes
        self.controller.written(batch.number, trio.current_time())
        return True

    def unblocked(self) -> None:
        pass


class Universe:
    """Its root has the first of the test identities, its members the others."""

    def __init__(self) -> None:
        self.cable = Cable()
        self.root = NodeTask(
            identity=node_identities()[0],
            worlds=[planet()],
            config=QUICK,
            relay=RelayConfig(),
            open_sockets=self.cable.opener(ROOT),
            check=is_valid,
            make_layer=ControllerNode,
        )

    @property
    def controller(self) -> Controller:
        assert isinstance(self.root.layer, ControllerNode)
        return self.root.layer.controller

    def network(self, **fields: Any) -> int:
        """A new network; private, with a pool and without rules that drop."""
        record = self.controller.create_network({**POOL, **fields}, trio.current_time())
        self.root.flush()
        return record.network_id

    def change_network(self, network_id: int, **fields: Any) -> None:
        self.controller.change_network(network_id, fields, trio.current_time())
        self.root.flush()

    def authorize(self, network_id: int, number: int, authorized: bool = True) -> None:
        """Let the member with test identity *number* in, or out."""
        address = node_identities()[number].address
        fields = {"authorized": authorized}
        self.controller.change_member(network_id, address, fields, trio.current_time())
        self.root.flush()

    def node(self, number: int, home: Path | None = None) -> SharedNode:
        """A node with test identity *number*."""

        async def make(make_layer: Callable[[Node, float], Layer]) -> NodeTask:
            await trio.lowlevel.checkpoint()
            return NodeTask(
                home,
                identity=node_identities()[number],
                worlds=[planet()],
                config=QUICK,
                open_sockets=self.cable.opener(f"10.0.{number}.1/9993"),
                check=is_valid,
                make_layer=make_layer,
            )

        return SharedNode(make)

    def wire(self, network_id: int, number: int, **options: Any) -> ZeroTier:
        """A member that is let in."""
        self.authorize(network_id, number)
        return on_node(network_id, self.node(number), **options)


def on_node(network_id: int, node: SharedNode, **options: Any) -> ZeroTier:
    """A wire on *node*."""
    wire = ZeroTier(network_id, **options)
    wire._given = node
    return wire
