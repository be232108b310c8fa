"""``zttrio controller`` without a command: run a controller."""

from __future__ import annotations

import shlex
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from zttrio._background import open_background
from zttrio.controller import ControllerService
from zttrio.errors import LocalError, WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier import Home
from zttrio.wire.zerotier.home import read_world
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.controller import MemberAsked
from zttrio.zerotier.endpoint import LOOPBACK, scope_of
from zttrio.zerotier.world import MOON, PLANET

from .main import EXIT_OK

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from zttrio.zerotier.controller import MemberConfigured
    from zttrio.zerotier.world import World

__all__ = ["run", "run_controller"]


async def run(
    service: ControllerService,
    *,
    quiet: bool = False,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a controller until cancelled, and print one line for each thing that happens.

    Raises:
        IdentityError: the identity is damaged, or somebody else's.
        StoreError: the database or the token is damaged or in use, or cannot be written.
        WireError: a file is damaged, or a socket cannot be opened.
    """
    if not quiet:
        service.on_event = partial(_print_event, service.home)
    async with open_background() as background:
        await background.start(service.run)
        if not quiet:
            identity = service.task.node.identity
            print(f"controller {identity} with {len(service.controller.networks())} networks")
            print(f"HTTP interface: port {service.api_port}, token in {service.home}", flush=True)
        task_status.started()
        await trio.sleep_forever()


async def run_controller(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio controller``, until interrupted."""
    home: Path | None = namespace.home
    if home is None:
        raise LocalError("home: needed, with --home or ZTTRIO_HOME")
    try:
        bind = [packed(text) for text in namespace.bind]
    except ValueError as exc:
        raise WireError(str(exc)) from exc
    given = [read_world(path, MOON) for path in namespace.moon]
    if namespace.planet is not None:
        given.append(read_world(namespace.planet, PLANET))
    stored = await trio.to_thread.run_sync(_load_worlds, home)
    known = given + stored
    if not known:
        raise WireError(f"home {home}: it holds no planet; name one with --planet")
    is_local = _is_local(known)
    service = ControllerService(
        home,
        worlds=given,
        port=namespace.port,
        bind=bind or ([packed("127.0.0.1")] if is_local else []),
        config=NodeConfig(loopback_paths=is_local),
        api_host=namespace.api_host,
        api_port=namespace.api_port,
    )
    await run(service, quiet=namespace.quiet)
    return EXIT_OK


def _load_worlds(home: Path) -> list[World]:
    return Home(home).load_worlds()


def _is_local(worlds: list[World]) -> bool:
    """True for a universe that stays on this machine's IPv4 loopback."""
    ips = [e.ip for world in worlds for root in world.roots for e in root.endpoints]
    return bool(ips) and all(len(ip) == 4 and scope_of(ip) == LOOPBACK for ip in ips)


def _print_event(home: Path, event: MemberAsked | MemberConfigured) -> None:
    network, node = f"{event.network_id:016x}", event.address.hex()
    with suppress(BrokenPipeError):  # nobody reads any more; a controller goes on all the same
        if isinstance(event, MemberAsked):
            print(
                f"node {node} asks for network {network}; let it in: zttrio controller"
                f" --home {shlex.quote(str(home))} member authorize {network} {node}",
                flush=True,
            )
        else:
            print(f"node {node} is on network {network}", flush=True)
