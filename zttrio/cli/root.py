"""``zttrio root``: run a root, so that a network needs nobody else's servers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from zttrio._background import open_background
from zttrio.errors import WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier import Home, NodeTask, generate_identity
from zttrio.wire.zerotier.home import read_world
from zttrio.wire.zerotier.registry import RegistryLayer
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.events import PathFound, PeerKnown, PeerLost, WorldUpdated
from zttrio.zerotier.world import MOON, PLANET, Root

from .main import EXIT_OK
from .planet import make_planet, open_key

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from zttrio.zerotier.events import Event
    from zttrio.zerotier.world import World

__all__ = ["prepare_home", "run", "run_root"]

PORT = 9993  # the reference's default (17.1)


async def prepare_home(folder: Path, advertise: Sequence[Endpoint]) -> None:
    """Give a home an identity and a planet of its own, where it has none.

    Args:
        folder: the home.
        advertise: where the root is reached; without any, no planet is made.

    Raises:
        IdentityError: the identity in *folder* is damaged.
        WireError: *folder* cannot be written, or its planet is damaged.
    """
    home = await trio.to_thread.run_sync(Home, folder)
    identity = await trio.to_thread.run_sync(home.load_identity)
    if identity is None:
        identity = await generate_identity()
        await trio.to_thread.run_sync(home.save_identity, identity)
    if advertise and not await trio.Path(folder / "planet").exists():
        key = await trio.to_thread.run_sync(open_key, folder / "planet.key")
        planet = make_planet([Root(identity.without_secret(), tuple(advertise))], key)
        await trio.to_thread.run_sync(home.save_world, planet)


async def run(
    home: Path,
    *,
    worlds: Sequence[World] = (),
    port: int = PORT,
    bind: Sequence[bytes] = (),
    config: NodeConfig | None = None,
    quiet: bool = False,
    task_status: trio.TaskStatus[NodeTask] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a root until cancelled, and print one line for each thing that happens.

    Args:
        home: the folder; without an identity there it gets a new one.
        worlds: a planet and moons to store in *home* and serve.
        port: UDP port.
        bind: packed addresses to use, empty for all.
        config: the node's numbers.
        quiet: print nothing.
        task_status: reports the task when the root has started.

    Raises:
        IdentityError: the identity is damaged, or somebody else's.
        WireError: no world lists this root, a file is damaged, or a socket cannot be opened.
    """
    task = NodeTask(
        home,
        worlds=worlds,
        port=port,
        bind=bind,
        config=config,
        relay=RelayConfig(),
        make_layer=RegistryLayer,
    )
    if not quiet:
        task.on_event = _print_event
    async with open_background() as background:
        await background.start(task.run)
        if not quiet:
            for world in task.node.topology.worlds():
                kind = "planet" if world.kind == PLANET else "moon"
                print(f"root {task.node.identity} of {kind} {world.id:016x}", flush=True)
        task_status.started(task)
        await trio.sleep_forever()


async def run_root(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio root``, until interrupted."""
    try:
        advertise = [Endpoint.parse(text) for text in namespace.advertise]
        bind = [packed(text) for text in namespace.bind]
        config = NodeConfig(validation_interval=namespace.validation_interval)
    except ValueError as exc:
        raise WireError(str(exc)) from exc
    worlds = [read_world(path, MOON) for path in namespace.moon]
    if namespace.planet is not None:
        worlds.append(read_world(namespace.planet, PLANET))
    if not worlds and not advertise and not await trio.Path(namespace.home / "planet").exists():
        raise WireError(
            f"home {namespace.home}: it holds no planet; name one with --planet, or make one with "
            "--advertise"
        )
    await prepare_home(namespace.home, advertise)
    await run(
        namespace.home,
        worlds=worlds,
        port=namespace.port,
        bind=bind,
        config=config,
        quiet=namespace.quiet,
    )
    return EXIT_OK


def _print_event(event: Event) -> None:
    with suppress(BrokenPipeError):  # nobody reads any more; a root goes on all the same
        if isinstance(event, PeerKnown):
            print(f"node {event.address.hex()} is known", flush=True)
        elif isinstance(event, PathFound):
            print(f"node {event.address.hex()} is at {event.remote}", flush=True)
        elif isinstance(event, PeerLost):
            print(f"node {event.address.hex()} has gone", flush=True)
        elif isinstance(event, WorldUpdated):
            print(f"world {event.world.id:016x} has revision {event.world.timestamp}", flush=True)
