"""The task around a node, with real time and threads but a cable instead of the kernel's UDP."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.errors import IdentityError, WireError
from zttrio.wire.zerotier import Home, NodeTask
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import IdentityCollision, UserMessageReceived, WorldUpdated
from zttrio.zerotier.identity import Identity
from zttrio.zerotier.world import MOON, PLANET, Root, World

from .cable import Cable, CableSocket
from .data import node_identities
from .lab import WORLD_KEYS, is_valid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from zttrio.wire.zerotier.sockets import SocketCounters
    from zttrio.zerotier.node import Node

ROOT = "10.0.0.1/9993"
QUICK = NodeConfig(validation_interval=0)


def _world(kind: int = PLANET, world_id: int = 7, timestamp: int = 5, root: int = 0) -> World:
    listed = Root(node_identities()[root].without_secret(), (Endpoint.parse(ROOT),))
    return World.make(kind, world_id, timestamp, [listed], signer=WORLD_KEYS)


def _root(cable: Cable, *worlds: World) -> NodeTask:
    return NodeTask(
        identity=node_identities()[0],
        worlds=worlds or [_world()],
        config=QUICK,
        relay=RelayConfig(),
        open_sockets=cable.opener(ROOT),
        check=is_valid,
    )


def _leaf(cable: Cable, number: int, home: Path | None = None, *worlds: World) -> NodeTask:
    return NodeTask(
        home,
        identity=node_identities()[number],
        worlds=worlds or [_world()],
        config=QUICK,
        open_sockets=cable.opener(f"10.0.{number}.1/9993"),
        check=is_valid,
    )


async def _meet(one: NodeTask, two: NodeTask) -> None:
    """Let two nodes talk until they do so directly."""
    for _ in range(60):
        if (await one.echo(two.node.address)).hops == 0:
            return
        await trio.sleep(0.2)  # a path answers one ECHO in a sixth of a second
    raise AssertionError("they never met")


async def test_two_nodes_find_each_other_through_a_root(nursery: trio.Nursery) -> None:
    cable = Cable()
    root, one, two = _root(cable), _leaf(cable, 1), _leaf(cable, 2)
    for task in (root, one, two):
        await nursery.start(task.run)
    with trio.fail_after(20):
        await one.wait_online()
        await two.wait_online()
        answer = await one.echo(two.node.address, b"x" * 3000)
        assert answer.payload == b"x" * 3000
        await _meet(one, two)
        one.send_user_message(two.node.address, 70_000, b"hello")
        received = await two.receive_user_message()
        assert received == UserMessageReceived(one.node.address, 70_000, b"hello")


async def test_everything_is_closed_and_stored_when_a_task_is_cancelled(tmp_path: Path) -> None:
    cable = Cable()
    async with trio.open_nursery() as nursery:
        root, one, two = _root(cable), _leaf(cable, 1, tmp_path), _leaf(cable, 2)
        for task in (root, one, two):
            await nursery.start(task.run)
        with trio.fail_after(20):
            await one.wait_online()
            await _meet(one, two)
        nursery.cancel_scope.cancel()
    assert all(sock.is_closed for sock in cable.sockets.values())
    [peer] = Home(tmp_path).load_peers(0.0)
    assert peer.identity == node_identities()[2]
    assert peer.endpoints == (Endpoint.parse("10.0.2.1/9993"),)

    # The next run reaches that peer without anybody's help.
    cable.cut.add(Endpoint.parse(ROOT))
    async with trio.open_nursery() as nursery:
        one, two = _leaf(cable, 1, tmp_path), _leaf(cable, 2)
        await nursery.start(two.run)
        # Two strangers would need the root; the second knows the first from its own cache.
        two.node.add_peer(node_identities()[1].without_secret(), (), trio.current_time())
        await nursery.start(one.run)
        with trio.fail_after(20):
            answer = await one.echo(two.node.address)
        assert answer.hops == 0
        nursery.cancel_scope.cancel()


async def test_whom_the_networks_need_is_remembered_wherever_it_is(tmp_path: Path) -> None:
    kept, other = (node_identities()[number].without_secret() for number in (5, 6))
    async with trio.open_nursery() as nursery:
        one = _leaf(Cable(), 1, tmp_path)
        await nursery.start(one.run)
        for identity in (kept, other):
            one.node.add_peer(identity, (), trio.current_time())
        one.node.keep_peers([kept.address])
        nursery.cancel_scope.cancel()
    [peer] = Home(tmp_path).load_peers(0.0)
    assert (peer.identity, peer.endpoints) == (kept, ())
    async with trio.open_nursery() as nursery:
        one = _leaf(Cable(), 1, tmp_path)
        await nursery.start(one.run)
        assert one.node.find_identity(kept.address, trio.current_time()) == kept
        nursery.cancel_scope.cancel()


async def test_a_home_keeps_identity_and_worlds_and_the_newest_revision_wins(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    home = Home(tmp_path)
    home.save_identity(node_identities()[3])
    home.save_world(_world(timestamp=9))
    home.save_world(_world(MOON, 0xA, 4))
    task = NodeTask(
        tmp_path,
        worlds=[_world(timestamp=8), _world(MOON, 0xB, 1), _world(MOON, 0xA, 6)],
        open_sockets=Cable().opener("10.0.3.1/1"),
    )
    await nursery.start(task.run)
    assert task.node.identity == node_identities()[3]
    held = {(w.kind, w.id): w.timestamp for w in task.node.topology.worlds()}
    expected = {(PLANET, 7): 9, (MOON, 0xA): 6, (MOON, 0xB): 1}
    assert held == expected
    assert {(w.kind, w.id): w.timestamp for w in home.load_worlds()} == expected
    await task.deorbit(0xA)
    assert [w.id for w in home.load_worlds()] == [7, 0xB]


async def test_another_planet_given_by_the_owner_replaces_the_stored_one(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    Home(tmp_path).save_world(_world(world_id=1, timestamp=99))
    task = _leaf(Cable(), 1, tmp_path, _world(world_id=2, timestamp=3))
    await nursery.start(task.run)
    assert task.node.topology.planet == _world(world_id=2, timestamp=3)
    assert Home(tmp_path).load_worlds() == [_world(world_id=2, timestamp=3)]


async def test_an_update_from_a_root_is_stored(tmp_path: Path, nursery: trio.Nursery) -> None:
    cable = Cable()
    newer = _world(timestamp=6)
    leaf = _leaf(cable, 1, tmp_path, _world(timestamp=5))
    updated = trio.Event()
    leaf.on_event = lambda event: updated.set() if isinstance(event, WorldUpdated) else None
    await nursery.start(_root(cable, newer).run)
    await nursery.start(leaf.run)
    with trio.fail_after(20):
        await updated.wait()
        while Home(tmp_path).load_worlds() != [newer]:  # noqa: ASYNC110 - a thread writes it
            await trio.sleep(0.01)


async def test_a_socket_that_dies_ends_the_task_with_its_own_error() -> None:
    cable = Cable()
    leaf = _leaf(cable, 1)
    with pytest.RaisesGroup(pytest.RaisesExc(WireError, match="gone")):
        async with trio.open_nursery() as nursery:
            await nursery.start(leaf.run)
            cable.sockets[Endpoint.parse("10.0.1.1/9993")].die(WireError("gone"))
    assert cable.sockets[Endpoint.parse("10.0.1.1/9993")].is_closed


async def test_datagrams_that_the_kernel_does_not_take_are_sent_later(
    nursery: trio.Nursery,
) -> None:
    cable = Cable()
    root, leaf = _root(cable), _leaf(cable, 1)
    await nursery.start(root.run)
    await nursery.start(leaf.run)
    with trio.fail_after(20):
        await leaf.wait_online()
        sock = cable.sockets[leaf_endpoint := Endpoint.parse("10.0.1.1/9993")]
        assert sock.endpoint == leaf_endpoint
        sock.is_blocked = True
        done = trio.Event()

        async def ask() -> None:
            await leaf.echo(root.node.address)
            done.set()

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert sock.has_backlog
        assert not done.is_set()
        sock.unblock()
        await done.wait()


async def test_an_identity_whose_address_is_somebody_elses_does_not_start() -> None:
    good = node_identities()[1]
    stolen = Identity(node_identities()[2].address, good.public, good.secret)
    task = NodeTask(identity=stolen, open_sockets=Cable().opener("10.0.1.1/1"))
    with pytest.raises(IdentityError, match="not that of its keys"):
        await task.run()


async def test_a_relay_that_no_world_lists_does_not_start() -> None:
    cable = Cable()
    task = NodeTask(
        identity=node_identities()[1],
        worlds=[_world()],
        relay=RelayConfig(),
        open_sockets=cable.opener("10.0.1.1/1"),
    )
    with pytest.raises(WireError, match="none of its worlds lists it"):
        await task.run()
    assert cable.sockets[Endpoint.parse("10.0.1.1/1")].is_closed


async def test_a_node_whose_address_a_root_gives_to_somebody_else_stops() -> None:
    task = _leaf(Cable(), 1)
    message = "another node has this address"
    with pytest.RaisesGroup(pytest.RaisesExc(IdentityError, match=message)):
        async with trio.open_nursery() as nursery:
            await nursery.start(task.run)
            task._handle(IdentityCollision(b"\x01\x02\x03\x04\x05"))


async def test_messages_that_no_program_receives_are_counted(nursery: trio.Nursery) -> None:
    task = _leaf(Cable(), 1)
    await nursery.start(task.run)
    for number in range(1100):
        task._handle(UserMessageReceived(bytes(5), 70_000, number.to_bytes(2, "big")))
    assert task.messages_dropped == 76
    assert (await task.receive_user_message()).data == bytes(2)


async def test_a_cancelled_echo_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    cable = Cable()
    root, leaf = _root(cable), _leaf(cable, 1)
    await nursery.start(root.run)
    await nursery.start(leaf.run)
    with trio.fail_after(20):
        await leaf.wait_online()
        with trio.CancelScope() as scope:
            scope.cancel()
            await leaf.echo(root.node.address)
        assert scope.cancelled_caught
        await trio.sleep(0.2)
        assert (await leaf.echo(root.node.address, b"later")).payload == b"later"


async def test_time_passes_for_a_node_without_traffic(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cable = Cable()
    sent: list[float] = []
    carry = cable.carry

    def listen(source: Endpoint, destination: Endpoint, data: bytes) -> None:
        sent.append(trio.current_time())
        carry(source, destination, data)

    cable.carry = listen  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        task = _leaf(cable, 1)
        await nursery.start(task.run)
        start = trio.current_time()
        await trio.sleep(21)
        nursery.cancel_scope.cancel()
    # Nobody answers, so the root is greeted every five seconds.
    assert [round(when - start, 3) for when in sent] == [0, 5, 10, 15, 20]
    assert autojump_clock.current_time() >= 21


class _Ticks:
    """A layer that wants to be called every second, and echoes to another node when it is."""

    def __init__(self, node: Node, now: float) -> None:
        self.node = node
        self.due = now + 1
        self.called: list[float] = []
        self.collected = 0
        self.unblocks = 0

    def handle_timers(self, now: float) -> None:
        if now >= self.due:
            self.called.append(now)
            self.due = now + 1

    def next_timer(self) -> float:
        return self.due

    def collect(self) -> bool:
        self.collected += 1
        return False

    def unblocked(self) -> None:
        self.unblocks += 1


async def test_a_layer_is_called_when_it_asked_to_be(autojump_clock: MockClock) -> None:
    task = NodeTask(
        identity=node_identities()[1],
        open_sockets=Cable().opener("10.0.1.1/1"),
        check=is_valid,
        make_layer=_Ticks,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(task.run)
        layer = task.layer
        assert isinstance(layer, _Ticks)
        start = layer.due - 1
        await trio.sleep(3.5)
        assert [round(when - start, 6) for when in layer.called] == [1, 2, 3]
        assert layer.collected > 3
        nursery.cancel_scope.cancel()


async def test_another_task_goes_on_driving_a_node_that_notices_nothing(
    nursery: trio.Nursery,
) -> None:
    cable = Cable()
    root, one, two = _root(cable), _leaf(cable, 1), _leaf(cable, 2)
    for task in (root, two):
        await nursery.start(task.run)
    await one.open()
    node = one.node
    for turn in range(3):
        with trio.fail_after(20), trio.CancelScope() as turn_scope:
            async with trio.open_nursery() as turns:
                turns.start_soon(one.drive)
                await one.wait_online()
                await two.wait_online()
                one.send_user_message(two.node.address, 70_000, bytes((turn,)) * 3000)
                assert (await two.receive_user_message()).data == bytes((turn,)) * 3000
                turn_scope.cancel()
        # What arrives between two turns waits in the sockets.
        two.send_user_message(node.address, 70_000, bytes((turn,)))
        await trio.testing.wait_all_tasks_blocked()
        assert not cable.sockets[Endpoint.parse("10.0.1.1/9993")].is_closed
    assert one.node is node
    with trio.fail_after(20):
        nursery.start_soon(one.drive)
        for turn in range(3):
            assert (await one.receive_user_message()).data == bytes((turn,))
    await one.close()
    assert cable.sockets[Endpoint.parse("10.0.1.1/9993")].is_closed


async def test_an_identity_whose_check_was_interrupted_is_checked_by_the_next_task(
    nursery: trio.Nursery,
) -> None:
    cable = Cable()
    may_go_on = threading.Event()
    checks: list[Identity] = []

    def check(identity: Identity) -> bool:
        if identity != node_identities()[1]:
            checks.append(identity)
            may_go_on.wait(10)
        return is_valid(identity)

    one = NodeTask(
        identity=node_identities()[1],
        worlds=[_world()],
        config=QUICK,
        open_sockets=cable.opener("10.0.1.1/9993"),
        check=check,
    )
    two = _leaf(cable, 2)
    for task in (_root(cable), two):
        await nursery.start(task.run)
    await one.open()
    with trio.fail_after(20):
        async with trio.open_nursery() as turn:
            turn.start_soon(one.drive)
            await one.wait_online()
            await two.wait_online()
            two.send_user_message(one.node.address, 70_000, b"hello")
            while not checks:  # noqa: ASYNC110 - a thread appends to it
                await trio.sleep(0.01)
            turn.cancel_scope.cancel()
        may_go_on.set()
        nursery.start_soon(one.drive)
        assert (await one.receive_user_message()).data == b"hello"
    assert checks == [node_identities()[2].without_secret()] * 2
    await one.close()


async def test_a_file_that_could_not_be_written_in_one_turn_is_written_at_the_end(
    tmp_path: Path,
) -> None:
    task = _leaf(Cable(), 1, tmp_path)
    written: list[int] = []
    await task.open()
    task.write_later(lambda: written.append(1))
    task.write_later(lambda: written.append(2))
    assert written == []
    await task.close()
    assert written == [1, 2]


async def test_a_home_serves_one_node_at_a_time(tmp_path: Path, nursery: trio.Nursery) -> None:
    one, two = _leaf(Cable(), 1, tmp_path), _leaf(Cable(), 1, tmp_path)
    await one.open()
    with pytest.raises(WireError, match="another node is running in it"):
        await two.run()
    await one.close()
    await nursery.start(two.run)


async def test_a_node_keeps_its_random_port_while_that_is_free(tmp_path: Path) -> None:
    asked: list[int] = []
    taken: set[int] = set()

    def open_sockets(
        addresses: Sequence[bytes], port: int, counters: SocketCounters
    ) -> list[CableSocket]:
        del addresses, counters
        asked.append(port)
        if port in taken:
            raise WireError("taken")
        return [CableSocket(Cable(), Endpoint(bytes((10, 0, 1, 1)), port or 20_000 + len(asked)))]

    async def start_once(port: int = 0) -> None:
        task = NodeTask(
            tmp_path,
            identity=node_identities()[1],
            port=port,
            open_sockets=open_sockets,
            check=is_valid,
        )
        await task.open()
        await task.close()

    await start_once()
    await start_once()
    assert asked == [0, 20_001]
    taken.add(20_001)
    await start_once()
    await start_once()
    assert asked[2:] == [20_001, 0, 20_004]
    await start_once(9993)  # asked for, and nothing that anybody has to remember
    await start_once()
    assert asked[5:] == [9993, 20_004]
