"""A root and controller of ours in one process, and members of either kind, each on a host."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import Identity, KeyPair
from zttrio.zerotier.world import PLANET, Root, World

from .station import Station
from .switch import Switch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NETWORK", "Overlay"]

HERE = Path(__file__).parent
WORLD_ID = 0x7A74747269_000002
PORT = 9993
ROOT_HOST = 1
NETWORK: Mapping[str, Any] = {
    "name": "interop",
    "private": True,
    "v4AssignMode": {"zt": True},
    "v6AssignMode": {"rfc4193": True},
    "routes": [{"target": "10.99.0.0/24", "via": None}],
    "ipAssignmentPools": [{"ipRangeStart": "10.99.0.10", "ipRangeEnd": "10.99.0.250"}],
    "rules": [{"type": "ACTION_ACCEPT"}],
}


class Overlay:
    """The processes, and what connects them.

    Args:
        folder: for homes and the planet.
        libzt: paths of the real core and its stub; see `.wheel`.

    Attributes:
        controller: the process that is the root as well.
        network: ID of its network.
    """

    def __init__(self, folder: Path, libzt: tuple[str, str]) -> None:
        self.controller: Station
        self.network: str
        self.planet = folder / "planet"
        self._folder = folder
        self._libzt = libzt
        vectors = HERE.parent / "zerotier" / "vectors" / "nodes.txt"
        self._identities = [Identity.parse_text(text) for text in vectors.read_text().split()]
        self._hosts: list[int] = []
        self._stations: list[Station] = []
        self.switch = Switch()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        root = self._identities.pop()
        endpoint = Endpoint(bytes((10, 77, ROOT_HOST, 1)), PORT)
        roots = [Root(root.without_secret(), (endpoint,))]
        keys = KeyPair.generate(random.Random(1).randbytes)
        self.planet.write_bytes(World.make(PLANET, WORLD_ID, 1, roots, signer=keys).emit())
        self.controller = self._station(ROOT_HOST, "station_controller.py", self._home(root), PORT)
        self.controller.wait_ready()
        self.network = self.create(NETWORK)

    def create(self, changes: Mapping[str, Any]) -> str:
        """Make a network; its ID."""
        return str(self.controller.ask("create", changes=dict(changes))["network"])

    def ours(self, network: str | None = None) -> Station:
        """A member that is a `zttrio.Network`; wait for it with `Station.wait_ready`."""
        home = self._home(self._identities.pop())
        return self._station(
            self._new_host(), "station_ours.py", home, PORT, network or self.network
        )

    def real(self, network: str | None = None) -> Station:
        """A member that is the real core; wait for it with `Station.wait_ready`."""
        number = self._new_host()
        home = self._home(self._identities.pop())
        return self._station(number, "station_real.py", home, PORT, network or self.network)

    def place(self) -> tuple[str, Path, str]:
        """A namespace, a home, and the node address in it, for something else of ours."""
        identity = self._identities.pop()
        return self._namespace(self._new_host()), self._home(identity), str(identity)

    def let_in(self, *members: Station, network: str | None = None) -> list[str]:
        """Wait until members have started, authorise them, and return their IPv4 addresses."""
        for member in members:
            address = member.wait_ready()["address"]
            self.change_member(address, {"authorized": True}, network)
        waiting = [(member, member.start("online")) for member in members]
        return [member.finish(number)["addresses"][0] for member, number in waiting]

    def change_member(
        self, address: str, changes: Mapping[str, Any], network: str | None = None
    ) -> dict[str, Any]:
        """Change a member's record; returns all of it."""
        network = network or self.network
        answer = self.controller.ask(
            "member", network=network, address=address, changes=dict(changes)
        )
        return dict(answer["member"])

    def close(self) -> None:
        """End everything."""
        for station in self._stations:
            station.close()
        self.switch.close()

    def restart(self, station: Station) -> Station:
        """Start again what has been closed."""
        self._stations.remove(station)
        made = Station(station.namespace, *station.command)
        self._stations.append(made)
        return made

    def _home(self, identity: Identity) -> Path:
        home = self._folder / f"home-{identity}"
        home.mkdir()
        secret = home / "identity.secret"
        secret.write_text(identity.secret_text())
        secret.chmod(0o600)
        return home

    def _new_host(self) -> int:
        return self._hosts[-1] + 1

    def _namespace(self, host: int) -> str:
        namespace = self.switch.host(host, *self._hosts)
        for other in self._hosts:
            self.switch.route(other, host)
        self._hosts.append(host)
        return namespace

    def _station(self, host: int, script: str, home: Path, port: int, *arguments: str) -> Station:
        namespace = self._namespace(host)
        libzt = self._libzt if script == "station_real.py" else ()
        station = Station(
            namespace,
            str(HERE / script),
            *libzt,
            str(home),
            str(self.planet),
            str(port),
            *arguments,
        )
        self._stations.append(station)
        return station
