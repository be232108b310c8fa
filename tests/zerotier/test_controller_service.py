"""A controller as a program: real TCP on loopback, a real disk, and SIGKILL."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from zttrio.controller import ControllerService, StoreError
from zttrio.errors import WireError
from zttrio.wire.zerotier import Home, NodeTask
from zttrio.zerotier.config import NodeConfig, RelayConfig
from zttrio.zerotier.controller import MemberAsked, MemberConfigured
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.network.membership import NetworkStatus
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.world import PLANET, Root, World

from .cable import Cable
from .controller_bench import POOL
from .data import node_identities
from .lab import WORLD_KEYS, is_valid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zttrio.wire.zerotier.task import Layer
    from zttrio.zerotier.node import Node

pytestmark = pytest.mark.kernel  # TCP on loopback

ADDRESS = node_identities()[0].address.hex()
WHERE = "10.0.0.1/9993"


def _call(port: int, token: str, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"X-ZT1-Auth": token})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        assert answer.status == 200, content
        return content
    finally:
        connection.close()


class Client:
    """Asks a service that runs in the same program."""

    def __init__(self, service: ControllerService) -> None:
        self.service = service

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        port, token = self.service.api_port, self.service.token
        return await trio.to_thread.run_sync(_call, port, token, method, path, body)


def _service(home: Path, cable: Cable, **options: Any) -> ControllerService:
    planet = World.make(
        PLANET,
        7,
        5,
        [Root(node_identities()[0].without_secret(), (Endpoint.parse(WHERE),))],
        signer=WORLD_KEYS,
    )
    return ControllerService(
        home,
        identity=node_identities()[0],
        worlds=[planet],
        config=NodeConfig(validation_interval=0),
        relay=RelayConfig(),
        open_sockets=cable.opener(WHERE),
        check=is_valid,
        **options,
    )


async def test_a_service_answers_http_and_keeps_what_it_was_told(tmp_path: Path) -> None:
    for wanted in ([], ["first"]):
        async with trio.open_nursery() as nursery:
            service = _service(tmp_path, Cable())
            await nursery.start(service.run)
            call = Client(service)
            with trio.fail_after(20):
                status = await call("GET", "/status")
                assert status["address"] == ADDRESS
                assert status["publicIdentity"] == node_identities()[0].text()
                assert status["online"] is True  # it is a root itself
                listed = await call("GET", "/unstable/controller/network")
                assert [network["name"] for network in listed["data"]] == wanted
                if not wanted:
                    made = await call("POST", f"/controller/network/{ADDRESS}______", POOL)
                    await call("PUT", f"/controller/network/{made['id']}", {"name": "first"})
            nursery.cancel_scope.cancel()
    assert (tmp_path / "controller.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "authtoken.secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "zerotier-one.port").read_text() == str(service.api_port)


class MemberLayer:
    """A member's networks, as `NodeTask` wants them."""

    def __init__(self, node: Node, now: float) -> None:
        self.networks = Networks(node, rng=os.urandom, epoch=1e9 - now)
        node.set_network_layer(self.networks)

    def handle_timers(self, now: float) -> None:
        self.networks.handle_timers(now)

    def next_timer(self) -> float | None:
        return self.networks.next_timer()

    def collect(self) -> bool:
        return bool(self.networks.take_events())

    def unblocked(self) -> None:
        pass


async def test_a_member_joins_over_http_and_the_cable(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    cable = Cable()
    service = _service(tmp_path, cable)
    events: list[MemberAsked | MemberConfigured] = []
    service.on_event = events.append
    await nursery.start(service.run)
    call = Client(service)
    make: Callable[[Node, float], Layer] = MemberLayer
    task = NodeTask(
        identity=node_identities()[1],
        worlds=service.task.node.topology.worlds(),
        open_sockets=cable.opener("10.0.1.1/9993"),
        config=NodeConfig(validation_interval=0),
        check=is_valid,
        make_layer=make,
    )
    await nursery.start(task.run)
    with trio.fail_after(30):
        network = await call("POST", f"/controller/network/{ADDRESS}______", POOL)
        assert isinstance(task.layer, MemberLayer)
        network_id = int(network["id"], 16)
        membership = task.layer.networks.join(network_id, trio.current_time())
        task.flush()

        async def status(wanted: NetworkStatus) -> None:
            while membership.status is not wanted:  # noqa: ASYNC110 - the clock is the kernel's
                await trio.sleep(0.01)

        await status(NetworkStatus.ACCESS_DENIED)
        path = f"/controller/network/{network['id']}/member"
        member = str(task.node.identity)
        assert await call("GET", path) == {member: 1}
        await call("POST", f"{path}/{member}", {"authorized": True})
        await status(NetworkStatus.OK)
        assert membership.config is not None
        [given] = (await call("GET", f"{path}/{member}"))["ipAssignments"]
        assert [str(interface) for interface in membership.config.addresses] == [f"{given}/24"]
        await call("PUT", f"/controller/network/{network['id']}", {"name": "renamed"})
        while membership.config.name != "renamed":  # noqa: ASYNC110 - as above
            await trio.sleep(0.01)
    address = task.node.address
    assert events == [MemberAsked(network_id, address), MemberConfigured(network_id, address)]


async def test_a_port_that_is_taken_is_said(tmp_path: Path, nursery: trio.Nursery) -> None:
    service = _service(tmp_path / "one", Cable())
    await nursery.start(service.run)
    other = _service(tmp_path / "two", Cable(), api_port=service.api_port)
    with pytest.raises(WireError, match=r"HTTP interface at 127\.0\.0\.1 port"):
        await other.run()


async def test_a_home_has_one_controller(tmp_path: Path, nursery: trio.Nursery) -> None:
    await nursery.start(_service(tmp_path, Cable()).run)
    with pytest.raises(StoreError, match="another process has it open"):
        await _service(tmp_path, Cable()).run()


async def test_a_database_of_another_controller_is_refused(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        service = _service(tmp_path, Cable())
        await nursery.start(service.run)
        await Client(service)("POST", "/controller/network", {})
        nursery.cancel_scope.cancel()
    other = ControllerService(
        tmp_path,
        identity=node_identities()[1],
        open_sockets=Cable().opener(WHERE),
        check=is_valid,
    )
    with pytest.raises(StoreError, match="not one of this controller's"):
        await other.run()


async def test_a_disk_that_fails_ends_the_service_and_acknowledges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _service(tmp_path, Cable())
    answers: list[object] = []

    async def ask() -> None:
        with suppress(OSError, http.client.HTTPException):
            answers.append(await Client(service)("POST", "/controller/network", {}))

    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="disk is full")):
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)

            def fail(writes: object) -> None:
                raise StoreError("database: the disk is full")

            monkeypatch.setattr(service._store, "apply", fail)
            nursery.start_soon(ask)
    assert answers == []


class Victim:
    """Controllers in another process, one after the other."""

    def __init__(self, home: Path) -> None:
        program = Path(__file__).with_name("controller_process.py")
        self._process = subprocess.Popen(
            [sys.executable, program, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.pid = 0
        self.port = 0

    def start(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self.pid, self.port = map(int, self._process.stdout.readline().split())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    Home(tmp_path).save_identity(node_identities()[0])
    (tmp_path / "authtoken.secret").write_text("token")
    made = Victim(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_a_controller_is_killed_a_hundred_times(
    victim: Victim,
) -> None:
    rng = random.Random(5)
    base = f"/controller/network/{ADDRESS}00000"
    acknowledged: dict[str, tuple[str, dict[str, bool]]] = {}
    doubtful: str | None = None
    interrupted = changes = 0
    for _ in range(100):
        victim.start()
        call = partial(_call, victim.port, "token")
        found = {}
        for network in call("GET", "/unstable/controller/network")["data"]:
            path = f"/controller/network/{network['id']}"
            members = call("GET", f"/unstable{path}/member")["data"]
            found[path] = (network["name"], {m["address"]: m["authorized"] for m in members})
        for path in found.keys() | acknowledged.keys():
            if path != doubtful:
                assert found.get(path) == acknowledged.get(path)
        acknowledged = found
        killer = threading.Timer(rng.uniform(0.0, 0.06), victim.kill)
        killer.start()
        try:
            while True:
                doubtful = path = f"{base}{rng.randrange(1, 6)}"
                name, members = acknowledged.get(path, ("", {}))
                action = rng.randrange(8)
                if action == 0:
                    if path in acknowledged:
                        call("DELETE", path)
                        del acknowledged[path]
                elif action < 4 or path not in acknowledged:
                    name = f"{rng.getrandbits(64):x}"
                    call("POST", path, {"name": name})
                    acknowledged[path] = (name, members)
                else:
                    member, authorized = f"{rng.randrange(1, 6):010x}", bool(rng.getrandbits(1))
                    call("POST", f"{path}/member/{member}", {"authorized": authorized})
                    acknowledged[path] = (name, {**members, member: authorized})
                doubtful = None
                changes += 1
        except (OSError, http.client.HTTPException, ValueError):
            interrupted += doubtful is not None
        killer.join()
    assert interrupted > 50
    assert changes > 100
