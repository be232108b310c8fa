"""Who gets which node, and where that node may send."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.zerotier.data import node_identities
from tests.zerotier.lab import is_valid
from zttrio.errors import WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier import Home
from zttrio.wire.zerotier.shared import SharedNode, _make_task, shared_node

from .zerotier_universe import planet

if TYPE_CHECKING:
    from pathlib import Path

    from zttrio.wire.zerotier.task import Layer, NodeTask
    from zttrio.zerotier.node import Node
    from zttrio.zerotier.world import World


def no_layer(node: Node, now: float) -> Layer:
    raise AssertionError("the node is not opened")


async def make(home: Path | None, world: World | None, *bind: str) -> NodeTask:
    return await _make_task(home, world, 0, [packed(text) for text in bind], no_layer)


async def test_one_home_is_one_node_as_long_as_somebody_uses_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    one = shared_node(home, planet=planet())
    one.users += 1  # what `enter` does
    assert shared_node(tmp_path / "." / "home", planet=None) is one
    (tmp_path / "link").symlink_to(home)
    assert shared_node(tmp_path / "link", planet=None) is one
    assert shared_node(tmp_path / "other", planet=None) is not one
    one.users -= 1
    two = shared_node(home, planet=planet(world_id=8))
    assert two is not one


async def test_without_a_home_everybody_gets_a_node_of_its_own() -> None:
    assert shared_node(None, planet=planet()) is not shared_node(None, planet=planet())


async def test_a_failed_start_leaves_nobody_behind(tmp_path: Path) -> None:
    node = shared_node(tmp_path, planet=None)
    with pytest.raises(WireError, match="did not choose"):
        await node.enter()
    assert node.users == 0
    other = Home(tmp_path)
    other.lock()
    other.unlock()


async def test_a_universe_on_loopback_keeps_to_loopback(tmp_path: Path) -> None:
    task = await make(None, planet("127.0.0.1/9993"))
    assert (task._bind, task._config.loopback_paths) == ([packed("127.0.0.1")], True)
    task = await make(None, planet("::1/9993"))
    assert (task._bind, task._config.loopback_paths) == ([packed("::1")], True)
    task = await make(None, planet("127.0.0.1/9993"), "127.0.0.5")
    assert task._bind == [packed("127.0.0.5")]
    Home(tmp_path).save_world(planet("127.0.0.1/9993"))
    task = await make(tmp_path, None)
    assert (task._bind, task._config.loopback_paths) == ([packed("127.0.0.1")], True)


async def test_any_other_universe_keeps_off_it(tmp_path: Path) -> None:
    task = await make(None, planet("10.0.0.1/9993"))
    assert (list(task._bind), task._config.loopback_paths) == ([], False)
    # The planet that is given now counts, not the one that was there.
    Home(tmp_path).save_world(planet("127.0.0.1/9993"))
    task = await make(tmp_path, planet("10.0.0.1/9993", world_id=9))
    assert (list(task._bind), task._config.loopback_paths) == ([], False)


async def test_a_node_that_does_not_start_lets_go_of_its_home(tmp_path: Path) -> None:
    def never(node: Node, now: float) -> Layer:
        raise WireError("this one does not start")

    async def make_broken(make_layer: object) -> NodeTask:
        del make_layer
        task = await make(tmp_path, planet("127.0.0.1/9993"))
        task._make_layer = never
        task._check = is_valid
        task._open_sockets = lambda *_: ()
        return task

    Home(tmp_path).save_identity(node_identities()[1])
    node = SharedNode(make_broken)
    with pytest.raises(WireError, match="does not start"):
        await node.enter()
    other = Home(tmp_path)  # what was taken is free again
    other.lock()
    other.unlock()
