"""``zttrio universe``: a root, a controller and a network of one's own, with one command.

The folder holds the root's home, in it the planet and the controller's database, and homes for two
members that are let in already.  By default nothing of it leaves the machine's loopback interface.
"""

from __future__ import annotations

import os
import shlex
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from zttrio._background import open_background
from zttrio.controller import ControllerService
from zttrio.errors import WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier import Home, generate_identity
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.endpoint import LOOPBACK, Endpoint, scope_of
from zttrio.zerotier.world import PLANET

from .network import end_when_terminated
from .root import prepare_home

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from zttrio.zerotier.identity import Identity
    from zttrio.zerotier.world import World

__all__ = ["Universe", "default_folder", "open_universe", "prepare", "run_universe"]

PORT = 19_993  # arbitrary; the usual 9993 may belong to the real software on this machine
MEMBERS = ("one", "two")
SUBNET = ip_network("10.99.0.0/24")
NAME = "universe"


@attrs.frozen
class Universe:
    """What there is in a folder.

    Attributes:
        folder: with `root`'s home and those of the members in it.
        endpoint: where the root is reached.
        planet: what lists it.
        members: identities of the members' homes, by name.
    """

    folder: Path
    endpoint: Endpoint
    planet: World
    members: dict[str, Identity]

    @property
    def root(self) -> Path:
        """The home of root and controller."""
        return self.folder / "root"

    @property
    def is_local(self) -> bool:
        """True if nothing of it leaves the machine."""
        return scope_of(self.endpoint.ip) == LOOPBACK


def default_folder() -> Path:
    """``$XDG_STATE_HOME/zttrio/universe``, where that is usually ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "zttrio" / "universe"


async def prepare(folder: Path, endpoint: Endpoint | None = None) -> Universe:
    """Make what is not there yet in *folder*: identities, keys, the planet.

    Args:
        folder: made, if need be.
        endpoint: where the root is to be reached; only for a new universe.

    Raises:
        IdentityError: an identity is damaged.
        WireError: the folder cannot be written, a file is damaged, or the universe that is there
            is somewhere else.
    """
    wanted = Endpoint(b"\x7f\0\0\x01", PORT) if endpoint is None else endpoint
    members: dict[str, Identity] = {}

    async def prepare_member(name: str) -> None:
        members[name] = await _member(folder / name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare_home, folder / "root", [wanted])
        for name in MEMBERS:
            nursery.start_soon(prepare_member, name)
    planet = await trio.to_thread.run_sync(_planet, folder / "root")
    [held] = planet.roots[0].endpoints[:1] or [wanted]
    if endpoint is not None and held != endpoint:
        raise WireError(
            f"universe {folder}: its root is at {held}, not {endpoint}; use another --folder"
        )
    for name in MEMBERS:
        home = await trio.to_thread.run_sync(Home, folder / name)
        await trio.to_thread.run_sync(home.save_world, planet)
    return Universe(folder, held, planet, {name: members[name] for name in MEMBERS})


async def open_universe(
    universe: Universe,
    *,
    task_status: trio.TaskStatus[tuple[ControllerService, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run root and controller until cancelled.

    ``nursery.start`` returns the service and the ID of the universe's first network, which is made
    if there is none, with the members let in.

    Raises:
        WireError: the port is taken, or a file is damaged.
        StoreError: the controller's database is damaged.
    """
    service = ControllerService(
        universe.root,
        port=universe.endpoint.port,
        bind=[universe.endpoint.ip] if universe.is_local else [],
        config=NodeConfig(loopback_paths=universe.is_local, validation_interval=0),
        relay=RelayConfig(),
    )
    async with open_background() as background:
        await background.start(service.run)
        network_id = await _first_network(service, universe.members.values())
        task_status.started((service, f"{network_id:016x}"))
        await trio.sleep_forever()


async def run_universe(namespace: argparse.Namespace) -> None:
    """Carry out ``zttrio universe``, until interrupted."""
    folder: Path = namespace.folder or default_folder()
    endpoint = None
    try:
        if namespace.advertise is not None:
            endpoint = Endpoint.parse(namespace.advertise)
        elif namespace.port is not None:
            endpoint = Endpoint(packed("127.0.0.1"), namespace.port)
    except ValueError as exc:
        raise WireError(str(exc)) from exc
    if not await trio.Path(folder / "root" / "planet").exists():
        print(f"making a universe in {folder}: some seconds for its identities", flush=True)
    universe = await prepare(folder, endpoint)
    with trio.CancelScope() as scope:
        async with open_background() as background:
            background.start_soon(end_when_terminated, scope)
            service, network_id = await background.start(open_universe, universe)
            print(describe(universe, str(service.task.node.identity), network_id), flush=True)
            await trio.sleep_forever()


def describe(universe: Universe, address: str, network_id: str) -> str:
    """What the user may do next, as commands to copy."""
    zttrio = _command()
    folder = Path(os.path.abspath(universe.folder))
    one, two = (shlex.quote(str(folder / name)) for name in MEMBERS)
    hosts = [str(host) for host, _ in zip(SUBNET.hosts(), MEMBERS, strict=False)]
    root = shlex.quote(str(folder / "root"))
    scope = "on this machine only" if universe.is_local else f"reached at {universe.endpoint}"
    return f"""\
root and controller {address} {scope}
network {network_id}, addresses in {SUBNET}

in a second terminal, a member that stays:
  {zttrio} join {network_id} --home {one}
in a third, a program that has never heard of any of this:
  {zttrio} run --network {network_id} --home {two} -- python3 -m http.server 8000
and in a fourth, another one, on the node of the second:
  {zttrio} run --network {network_id} -- curl http://{hosts[1]}:8000/

others need the file {folder / "root" / "planet"}, and to be let in:
  {zttrio} controller --home {root} member authorize {network_id} NODE"""


async def _member(folder: Path) -> Identity:
    home = await trio.to_thread.run_sync(Home, folder)
    identity = await trio.to_thread.run_sync(home.load_identity)
    if identity is None:
        identity = await generate_identity()
        await trio.to_thread.run_sync(home.save_identity, identity)
    return identity


def _planet(folder: Path) -> World:
    for world in Home(folder).load_worlds():
        if world.kind == PLANET:
            return world
    raise WireError(f"universe {folder}: its planet has gone")


async def _first_network(service: ControllerService, members: Iterable[Identity]) -> int:
    controller = service.controller
    found = controller.networks()
    if found:
        return found[0]
    now = trio.current_time()
    hosts = list(SUBNET.hosts())
    network = controller.create_network(
        {
            "name": NAME,
            "private": True,
            "v4AssignMode": {"zt": True},
            "v6AssignMode": {"rfc4193": True},
            "routes": [{"target": str(SUBNET), "via": None}],
            "ipAssignmentPools": [
                {"ipRangeStart": str(hosts[9]), "ipRangeEnd": str(hosts[-1])},
            ],
            "rules": [{"type": "ACTION_ACCEPT"}],
        },
        now,
    )
    for host, identity in zip(hosts, members, strict=False):
        fields = {"authorized": True, "ipAssignments": [str(host)]}
        controller.change_member(network.network_id, identity.address, fields, now)
    await service.commit()
    return network.network_id


def _command() -> str:
    """How this program was called, as it may be called again from the same folder."""
    name = sys.argv[0]
    if Path(name).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m zttrio"
    return shlex.quote(name) if Path(name).name == "zttrio" else "zttrio"
