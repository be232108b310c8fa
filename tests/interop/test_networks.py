"""Virtual networks with the real core as a member: our root, our controller, our Network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from zttrio.zerotier.world import PLANET

from .conftest import HERE, Node, Switch, start_node
from .test_real_core import ROOT_HOST, WORLD_ID, Universe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

EVERYTHING = [{"type": "ACTION_ACCEPT"}]
POOL: dict[str, Any] = {
    "v4AssignMode": {"zt": True},
    "ipAssignmentPools": [{"ipRangeStart": "10.99.0.10", "ipRangeEnd": "10.99.0.200"}],
    "routes": [{"target": "10.99.0.0/24", "via": None}],
    "rules": EVERYTHING,
}
PORT = 7777
LARGE = 20_000_000


class Overlay(Universe):
    """A universe whose root is its controller, too."""

    planet: Path

    async def start(self) -> None:
        self.planet = self.world(PLANET, WORLD_ID, 1)
        home = self.folder / "root"
        home.mkdir()
        secret = home / "identity.secret"
        secret.write_text(self.root_identity.secret_text())
        secret.chmod(0o600)
        self.root = await start_node(
            self.nursery,
            self.switch.host(ROOT_HOST),
            *(str(HERE / "our_controller.py"), str(home), str(self.planet), "9993"),
        )

    async def network(self, **fields: Any) -> str:
        """The ID of a new private network."""
        text = json.dumps({**POOL, **fields}, separators=(",", ":"))
        return str((await self.root.ask(f"network {text}", "network"))["network"])

    async def change(self, network_id: str, **fields: Any) -> None:
        text = json.dumps(fields, separators=(",", ":"))
        await self.root.ask(f"change {network_id} {text}", "change")

    async def authorize(self, network_id: str, node: Node, authorized: bool = True) -> None:
        text = json.dumps({"authorized": authorized}, separators=(",", ":"))
        await self.root.ask(f"member {network_id} {node.address} {text}", "member")

    async def real_member(self, number: int, network_id: str) -> tuple[Node, str]:
        """A real node that is let in, and its IP address."""
        node = await self.real(number, self.planet)
        await node.wait("online")
        await self.authorize(network_id, node)
        return node, str((await node.ask(f"join {network_id}", "joined", 60))["ip"])

    async def start_ours(self, number: int, network_id: str) -> Node:
        home = self.folder / f"ours{number}"
        home.mkdir(exist_ok=True)
        secret = home / "identity.secret"
        if not secret.exists():
            secret.write_text(self.identities.pop().secret_text())
            secret.chmod(0o600)
            self._namespaces[number] = self._namespace(number, True)
        return await start_node(
            self.nursery,
            self._namespaces[number],
            *(str(HERE / "our_member.py"), str(home), str(self.planet), network_id),
        )

    async def our_member(self, number: int, network_id: str) -> tuple[Node, str]:
        """A Network of ours that is let in, and its IPv4 address."""
        node = await self.start_ours(number, network_id)
        await self.authorize(network_id, node)
        addresses = (await node.wait("online"))["addresses"]
        return node, next(ip for ip in addresses if "." in ip)

    async def pair(self, **fields: Any) -> tuple[str, tuple[Node, str], tuple[Node, str]]:
        """A network with a real member and one of ours."""
        await self.start()
        network_id = await self.network(**fields)
        real = await self.real_member(2, network_id)
        ours = await self.our_member(3, network_id)
        return network_id, real, ours


@pytest.fixture
def overlay(
    switch: Switch, tmp_path: Path, libzt: tuple[str, str], nursery: trio.Nursery
) -> Overlay:
    made = Overlay(switch, tmp_path, libzt, nursery)
    made._namespaces = {}
    return made


async def until_answered(node: Node, command: str, event: str, **wanted: Any) -> dict[str, Any]:
    """Repeat *command* until its answer is as wanted; the first packets may find no way yet."""
    with trio.fail_after(30):
        while True:
            answer = await node.ask(command, event)
            if all(answer[key] == value for key, value in wanted.items()):
                return answer


async def test_a_real_node_joins_our_controllers_network_and_both_sides_talk(
    overlay: Overlay,
) -> None:
    _, (real, real_ip), (ours, our_ip) = await overlay.pair()
    assert real_ip.startswith("10.99.0.")
    assert our_ip.startswith("10.99.0.")
    assert (await ours.ask(f"ping {real_ip} 10", "ping"))["seconds"] is not None
    for node in (real, ours):
        await node.ask(f"serve {PORT}", "serving")
    for client, server_ip in ((ours, real_ip), (real, our_ip)):
        answer = await client.ask(f"transfer {server_ip} {PORT} {LARGE}", "transfer", 120)
        assert (answer["octets"], answer["intact"]) == (LARGE, True)
        print(f"20 MB echoed in {answer['seconds']:.1f} s")
        answer = await client.ask(f"udp {server_ip} {PORT} datagram 5", "udp")
        assert answer["text"] == "datagram"
    status = await ours.ask("status", "status")
    assert any("10.77.2.1/9993" in peer for peer in status["peers"])


async def test_two_of_ours_on_a_real_wire(overlay: Overlay) -> None:
    await overlay.start()
    network_id = await overlay.network()
    one, _ = await overlay.our_member(2, network_id)
    two, two_ip = await overlay.our_member(3, network_id)
    await two.ask(f"serve {PORT}", "serving")
    answer = await one.ask(f"transfer {two_ip} {PORT} {LARGE}", "transfer", 120)
    assert (answer["octets"], answer["intact"]) == (LARGE, True)
    print(f"20 MB echoed in {answer['seconds']:.1f} s")


async def test_a_member_that_is_shut_out_loses_access_and_gets_it_back(overlay: Overlay) -> None:
    network_id, (real, real_ip), (ours, _) = await overlay.pair()
    assert (await ours.ask(f"ping {real_ip} 10", "ping"))["seconds"] is not None
    for node in (ours, real):  # each of the two in turn
        await trio.sleep(1.1)  # the controller's clock has to move between two decisions
        await overlay.authorize(network_id, node, authorized=False)
        await trio.sleep(1)
        assert (await ours.ask(f"ping {real_ip} 2", "ping"))["seconds"] is None
        await trio.sleep(1.1)
        await overlay.authorize(network_id, node)
        await until_answered_at_all(ours, real_ip)


async def until_answered_at_all(node: Node, ip: str) -> None:
    with trio.fail_after(90):
        while (await node.ask(f"ping {ip} 2", "ping"))["seconds"] is None:
            pass


async def test_a_rule_that_drops_port_80_is_enforced_on_both_sides(overlay: Overlay) -> None:
    network_id, (real, real_ip), (ours, our_ip) = await overlay.pair()
    for node in (real, ours):
        await node.ask(f"serve {PORT}", "serving")
        await node.ask("serve 80", "serving")
    for client, ip in ((ours, real_ip), (real, our_ip)):
        await until_answered(client, f"connect {ip} 80 5", "connect", result="connected")
    await overlay.change(
        network_id,
        rules=[
            {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 80, "end": 80},
            {"type": "ACTION_DROP"},
            *EVERYTHING,
        ],
    )
    await trio.sleep(1)
    for client, ip in ((ours, real_ip), (real, our_ip)):
        answer = await client.ask(f"connect {ip} {PORT} 10", "connect")
        assert answer["result"] == "connected"
        answer = await client.ask(f"connect {ip} 80 3", "connect")
        assert answer["result"] == "silence"


async def test_a_real_node_that_is_not_let_in_stays_out(overlay: Overlay) -> None:
    await overlay.start()
    network_id = await overlay.network()
    real = await overlay.real(2, overlay.planet)
    await real.wait("online")
    await real.tell(f"join {network_id}")
    ours = await overlay.start_ours(3, network_id)
    refused = await ours.wait("refused")
    assert refused["kind"] == "AccessDenied"
    assert ours.address in refused["why"]
    with trio.fail_after(30):  # the number of ACCESS_DENIED
        while (await real.ask(f"network {network_id}", "network"))["status"] != 2:
            await trio.sleep(1)
    assert not real.find("joined")
    for node, event in ((ours, "online"), (real, "joined")):
        await overlay.authorize(network_id, node)
        await node.wait(event, 30)


async def test_datagrams_to_a_group_reach_our_member(overlay: Overlay) -> None:
    _, (real, _), (ours, _) = await overlay.pair()
    await ours.ask("listen 239.1.2.3 5353", "listening")
    with trio.fail_after(60):
        while not ours.find("heard"):
            await real.tell("send_group 239.1.2.3 5353 to-all")
            await trio.sleep(1)
    assert ours.find("heard")[0]["text"] == "to-all"


async def test_a_restarted_member_needs_no_controller_to_be_online(overlay: Overlay) -> None:
    network_id, (real, real_ip), (ours, our_ip) = await overlay.pair()
    await until_answered_at_all(ours, real_ip)
    address = ours.address
    await ours.tell("quit")
    await ours.process.wait()
    overlay.root.process.kill()
    await overlay.root.process.wait()
    again = await overlay.start_ours(3, network_id)
    assert again.address == address
    addresses = (await again.wait("online", 5))["addresses"]
    assert our_ip in addresses
    # Certificates are kept as well, and so is where the other member is.
    await until_answered_at_all(again, real_ip)
    del real
