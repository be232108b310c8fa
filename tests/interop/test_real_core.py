"""Our root and our nodes with the real core as the other side."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.zerotier.crypto import open_backend
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import Identity, KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root, World

from .conftest import HERE, Node, start_node

if TYPE_CHECKING:
    from pathlib import Path

    from .switch import Switch

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

WORLD_ID = 0x7A74747269_000001
MOON_ID = 0x7A74
KEYS = KeyPair.generate(random.Random(1).randbytes)
STRANGER_KEYS = KeyPair.generate(random.Random(2).randbytes)
ROOT_HOST = 1
PAUSE = 1.1  # libzt 1.8.4 answers one ECHO a second on one path, newer cores six


class Universe:
    """One root of ours, its planet, and whoever joins."""

    def __init__(
        self, switch: Switch, folder: Path, libzt: tuple[str, str], nursery: trio.Nursery
    ) -> None:
        self.switch = switch
        self.folder = folder
        self.libzt = libzt
        self.nursery = nursery
        vectors = HERE.parent / "zerotier" / "vectors" / "nodes.txt"
        self.identities = [Identity.parse_text(t) for t in vectors.read_text().split()]
        self.root_identity = self.identities.pop()
        self.root: Node
        self.hosts: list[int] = []

    def world(
        self, kind: int, world_id: int, timestamp: int, *extra: int, signer: KeyPair = KEYS
    ) -> Path:
        """A file with a world that lists our root, at more endpoints if *extra* says so."""
        endpoints = [Endpoint(bytes((10, 77, n, 1)), 9993) for n in (ROOT_HOST, *extra)]
        root = Root(self.root_identity.without_secret(), tuple(endpoints))
        world = World.make(kind, world_id, timestamp, [root], signer=signer)
        name = f"{kind}-{world_id:x}-{timestamp}-{signer.public[:4].hex()}"
        path = self.folder / name
        path.write_bytes(world.emit())
        return path

    async def start_root(self, planet: Path, *options: str) -> Node:
        home = self.folder / "root"
        home.mkdir()
        secret = home / "identity.secret"
        secret.write_text(self.root_identity.secret_text())
        secret.chmod(0o600)
        namespace = self.switch.host(ROOT_HOST)
        script = str(HERE / "our_node.py")
        self.root = await start_node(
            self.nursery, namespace, script, str(home), str(planet), "9993", "--relay", *options
        )
        return self.root

    def _namespace(self, number: int, direct: bool) -> str:
        others = self.hosts if direct else []
        namespace = self.switch.host(number, ROOT_HOST, *others)
        self.switch.route(ROOT_HOST, number)
        for other in others:
            self.switch.route(other, number)
        self.hosts.append(number)
        return namespace

    async def real(self, number: int, planet: Path, *, direct: bool = True) -> Node:
        """A real node on host *number*."""
        script, home = str(HERE / "real_node.py"), str(self.folder / f"real{number}")
        return await start_node(
            self.nursery,
            self._namespace(number, direct),
            script,
            *self.libzt,
            home,
            str(planet),
            "9993",
        )

    async def ours(self, number: int, planet: Path, *options: str, direct: bool = True) -> Node:
        """A node of ours on host *number*."""
        home = self.folder / f"ours{number}"
        home.mkdir()
        secret = home / "identity.secret"
        secret.write_text(self.identities.pop().secret_text())
        secret.chmod(0o600)
        return await start_node(
            self.nursery,
            self._namespace(number, direct),
            str(HERE / "our_node.py"),
            str(home),
            str(planet),
            "9993",
            *options,
        )

    async def meet(self, one: Node, other: Node) -> None:
        """Let *one* echo to *other* until they talk directly."""
        with trio.fail_after(60):
            while True:
                answer = await one.ask(f"echo {other.address} 10", "echo")
                if answer["hops"] == 0:
                    return
                await trio.sleep(PAUSE)


@pytest.fixture
def universe(
    switch: Switch, tmp_path: Path, libzt: tuple[str, str], nursery: trio.Nursery
) -> Universe:
    return Universe(switch, tmp_path, libzt, nursery)


async def test_our_root_brings_two_real_nodes_online(universe: Universe) -> None:
    planet = universe.world(PLANET, WORLD_ID, 1)
    root = await universe.start_root(planet)
    one, two = await universe.real(2, planet), await universe.real(3, planet)
    for node in (one, two):
        await node.wait("online")
        await root.wait("PathFound", address=node.address)
    peers = (await root.ask("peers", "peers"))["peers"]
    assert peers[one.address]["paths"] == ["10.77.2.1/9993"]
    assert peers[two.address]["paths"] == ["10.77.3.1/9993"]
    assert peers[one.address]["protocol"] == 12
    for number, node in ((2, one), (3, two)):
        text = (universe.folder / f"real{number}" / "identity.public").read_text()
        identity = Identity.parse_text(text)
        assert identity.address.hex() == node.address
        assert identity.is_valid(open_backend())


async def test_a_real_node_and_ours_meet_by_a_relay_and_then_directly(universe: Universe) -> None:
    planet = universe.world(PLANET, WORLD_ID, 1)
    root = await universe.start_root(planet)
    real = await universe.real(2, planet, direct=False)
    ours = await universe.ours(3, planet, direct=False)
    await real.wait("online")
    await ours.wait("Online")
    for size in (0, 10, 1000, 5000):
        answer = await ours.ask(f"echo {real.address} {size}", "echo")
        assert (answer["intact"], answer["hops"]) == (True, 1), size
        await trio.sleep(PAUSE)
    counters = await root.ask("counters", "counters")
    assert counters["relayed"] >= 8
    # Our own HELLO tells the real node who we are, so only one of the two has to ask.
    assert counters["whois_answered"] >= 1
    # The real core tells of a peer without a path only if it happens to look at that moment.
    assert real.find("direct", peer=ours.address) == []
    universe.switch.route(2, 3)
    universe.switch.route(3, 2)
    await universe.meet(ours, real)
    await real.wait("path_found", peer=ours.address)
    await real.wait("direct", peer=ours.address)
    for size in (0, 10, 1000, 1404, 1405, 3000, 9000):
        await trio.sleep(PAUSE)
        answer = await ours.ask(f"echo {real.address} {size}", "echo")
        assert (answer["intact"], answer["hops"]) == (True, 0), size


@pytest.mark.parametrize(("protocol", "suite"), [(12, "opened_aes"), (11, "opened_salsa")])
async def test_the_real_core_answers_in_the_suite_that_we_announce(
    universe: Universe, protocol: int, suite: str
) -> None:
    planet = universe.world(PLANET, WORLD_ID, 1)
    await universe.start_root(planet, "--protocol", str(protocol))
    real = await universe.real(2, planet)
    ours = await universe.ours(3, planet, "--protocol", str(protocol))
    await real.wait("online")
    await ours.wait("Online")
    await universe.meet(ours, real)
    before = await ours.ask("counters", "counters")
    for _ in range(5):
        await trio.sleep(PAUSE)
        answer = await ours.ask(f"echo {real.address} 3000", "echo")
        assert (answer["intact"], answer["hops"]) == (True, 0)
    after = await ours.ask("counters", "counters")
    opened = {
        name: after[name] - before[name] for name in ("opened_aes", "opened_salsa", "opened_plain")
    }
    assert opened[suite] >= 5
    assert sum(opened.values()) - opened["opened_plain"] == opened[suite]
    assert after["packet_unauthentic"] == 0


async def test_a_real_node_orbits_our_moon(universe: Universe) -> None:
    planet = universe.world(PLANET, WORLD_ID, 1)
    moon = universe.world(MOON, MOON_ID, 77)
    root = await universe.start_root(planet, "--moon", str(moon))
    real, ours = await universe.real(2, planet), await universe.ours(3, planet)
    await real.wait("online")
    await ours.wait("Online")
    seed = root.address
    assert (await real.ask(f"orbit {MOON_ID:016x} {seed}", "orbit"))["result"] == 0
    await ours.tell(f"orbit {MOON_ID:016x} {seed}")
    await ours.wait("WorldUpdated")
    worlds = (await ours.ask("worlds", "worlds"))["worlds"]
    assert worlds == {f"{WORLD_ID:016x}": 1, f"{MOON_ID:016x}": 77}
    stored = universe.folder / "ours3" / "moons.d" / f"{MOON_ID:016x}.moon"
    with trio.fail_after(5):
        while not stored.exists():  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.1)
    assert stored.read_bytes() == moon.read_bytes()
    with trio.fail_after(150):  # a real node says what it holds in its next HELLO
        while True:
            peers = (await root.ask("peers", "peers"))["peers"]
            if peers[real.address]["moons"] == [[MOON_ID, 77]]:
                break
            await trio.sleep(2)


async def test_a_signed_planet_is_taken_and_a_forged_one_refused(universe: Universe) -> None:
    held = universe.world(PLANET, WORLD_ID, 1)
    newer = universe.world(PLANET, WORLD_ID, 2, 99)
    forged = universe.world(PLANET, WORLD_ID, 3, 98, signer=STRANGER_KEYS)
    root = await universe.start_root(newer)
    real, ours = await universe.real(2, held), await universe.ours(3, held)
    await real.wait("online")
    await ours.wait("WorldUpdated")
    stored = {
        "real": universe.folder / "real2" / "roots",
        "ours": universe.folder / "ours3" / "planet",
    }

    def revisions() -> dict[str, bytes]:
        return {name: path.read_bytes() for name, path in stored.items() if path.exists()}

    expected = dict.fromkeys(stored, newer.read_bytes())
    with trio.fail_after(30):
        while revisions() != expected:  # noqa: ASYNC110 - another process writes the files
            await trio.sleep(0.2)
    await root.tell(f"world {forged}")
    started = time.monotonic()
    rejected = 0
    while rejected == 0 and time.monotonic() - started < 120:
        await trio.sleep(2)
        rejected = (await ours.ask("counters", "counters"))["worlds_rejected"]
    assert rejected >= 1
    await trio.sleep(15)  # the real node's minute between two HELLOs is over as well
    assert revisions() == expected
    assert (await ours.ask("worlds", "worlds"))["worlds"] == {f"{WORLD_ID:016x}": 2}
