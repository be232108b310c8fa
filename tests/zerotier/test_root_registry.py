"""A root keeps track of groups, so that members of a network without a controller meet."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from zttrio.wire.zerotier import NodeTask
from zttrio.wire.zerotier.registry import RegistryLayer
from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.network.derived import Group
from zttrio.zerotier.network.frames import MulticastLike
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.world import PLANET, Root, World

from .bench import Bench
from .cable import Cable
from .data import node_identities
from .lab import WORLD_KEYS, is_valid

if TYPE_CHECKING:
    from zttrio.wire.zerotier.task import Layer
    from zttrio.zerotier.node import Node

ROOT = "10.0.0.1/9993"
NETWORK_ID = 0xFF63000000000001  # 99.0.0.0/8, which the cable has nothing of
GROUP = Group(bytes.fromhex("01005e0000fb"))


class _Member:
    """A node on the network, which listens to the group."""

    def __init__(self, node: Node, now: float) -> None:
        rng = random.Random(now).randbytes
        self.networks = Networks(node, rng=rng, epoch=0.0)
        node.set_network_layer(self.networks)
        self.membership = self.networks.join(NETWORK_ID, now)
        self.membership.set_groups(frozenset((GROUP,)), now)
        self.frames: list[bytes] = []
        self.arrived = trio.Event()

    def handle_timers(self, now: float) -> None:
        self.networks.handle_timers(now)

    def next_timer(self) -> float | None:
        return self.networks.next_timer()

    def collect(self) -> bool:
        self.frames += self.membership.take_frames()
        if self.frames:
            self.arrived.set()
        return False

    def unblocked(self) -> None:
        pass


def _task(cable: Cable, number: int, layer: type[Layer], relay: RelayConfig | None) -> NodeTask:
    listed = Root(node_identities()[0].without_secret(), (Endpoint.parse(ROOT),))
    return NodeTask(
        identity=node_identities()[number],
        worlds=[World.make(PLANET, 7, 5, [listed], signer=WORLD_KEYS)],
        config=NodeConfig(validation_interval=0),
        relay=relay,
        open_sockets=cable.opener(f"10.0.{number}.1/9993" if number else ROOT),
        check=is_valid,
        make_layer=layer,
    )


async def test_two_members_of_a_network_without_controller_meet_by_way_of_the_root(
    nursery: trio.Nursery,
) -> None:
    cable = Cable()
    root = _task(cable, 0, RegistryLayer, RelayConfig())
    one, two = (_task(cable, number, _Member, None) for number in (1, 2))
    for task in (root, one, two):
        await nursery.start(task.run)
    with trio.fail_after(20):
        for task in (one, two):
            await task.wait_online()
        sender, receiver = one.layer, two.layer
        assert isinstance(sender, _Member)
        assert isinstance(receiver, _Member)
        assert isinstance(root.layer, RegistryLayer)
        while len(root.layer.networks.groups) < 2:  # noqa: ASYNC110 - it has no event to wait for
            await trio.sleep(0.05)
        frame = GROUP.mac + sender.membership.mac + b"\x08\x00hello"
        sender.membership.send(frame, trio.current_time())
        one.flush()
        await receiver.arrived.wait()
    assert receiver.frames == [frame]
    assert root.layer.networks.counters.gathers_answered == 1
    nursery.cancel_scope.cancel()


def test_what_a_root_has_heard_is_forgotten_in_time() -> None:
    bench = Bench(relay=RelayConfig())
    layer = RegistryLayer(bench.node, bench.now)
    assert layer.next_timer() is None
    friend = bench.friend("10.1.0.1/1234")
    friend.send(messages.MULTICAST_LIKE, MulticastLike(((NETWORK_ID, GROUP),)).emit())
    assert len(layer.networks.groups) == 1
    assert layer.next_timer() == bench.now + 30
    layer.handle_timers(bench.now + 630)
    assert len(layer.networks.groups) == 0
    assert not layer.collect()
    layer.unblocked()
