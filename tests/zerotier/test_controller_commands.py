"""``zttrio controller`` and its commands."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from zttrio.cli import controller_run
from zttrio.cli.main import main, make_parser
from zttrio.controller import ControllerService
from zttrio.errors import WireError
from zttrio.wire.zerotier import Home
from zttrio.zerotier.controller import MemberAsked, MemberConfigured
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.world import PLANET, Root, World

from .cable import Cable
from .data import node_identities
from .lab import WORLD_KEYS, is_valid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ADDRESS = node_identities()[0].address.hex()
NODE = node_identities()[1].address.hex()


def _parse(*words: object) -> Any:
    return make_parser().parse_args([str(word) for word in words])


def test_the_home_may_stand_before_or_behind_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTTRIO_HOME", str(tmp_path / "environment"))
    assert _parse("controller", "network", "list").home == tmp_path / "environment"
    assert _parse("controller", "--home", "a", "network", "list").home.name == "a"
    assert _parse("controller", "network", "list", "--home", "b").home.name == "b"
    assert (
        _parse("controller", "--home", "a", "rules", "0" * 16, "-", "--home", "b").home.name == "b"
    )
    monkeypatch.delenv("ZTTRIO_HOME")
    assert _parse("controller").home is None


@pytest.mark.parametrize(
    "words",
    [
        ("network", "show", "12345"),
        ("network", "show", "x" * 16),
        ("network", "set", "0" * 16, "mtu"),
        ("network", "set", "0" * 16, "=5"),
        ("network", "create", "--subnet", "10.0.0.1/24"),
        ("member", "authorize", "0" * 16),
        ("member", "authorize", "0" * 16, "0" * 11),
        ("member",),
    ],
)
def test_a_command_line_that_makes_no_sense_is_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        _parse("controller", *words)
    assert caught.value.code == 2


def test_commands_without_a_home_or_a_controller_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZTTRIO_HOME", raising=False)
    assert main(["controller", "network", "list"]) == 1
    assert main(["controller"]) == 1
    assert main(["controller", "--home", str(tmp_path), "network", "list"]) == 1
    (tmp_path / "authtoken.secret").write_text("x")
    assert main(["controller", "--home", str(tmp_path), "network", "list"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["zttrio: home: needed, with --home or ZTTRIO_HOME"] * 2
    assert said[2].endswith("authtoken.secret: No such file or directory")
    assert "it has never run" in said[3]


def test_a_controller_without_a_planet_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["controller", "--home", str(tmp_path)]) == 1
    assert "name one with --planet" in capsys.readouterr().err


_WITHOUT_EXTRA = """
import sys, trio
sys.modules["h11"] = None
from zttrio.cli.main import main
sys.exit(main(["controller", "--home", "/nowhere"]))
"""


def test_a_missing_package_of_the_extra_is_named() -> None:
    command = [sys.executable, "-c", _WITHOUT_EXTRA]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "zttrio: h11 is not installed: pip install 'zttrio[controller]'\n"


def _planet(where: str) -> World:
    listed = Root(node_identities()[0].without_secret(), (Endpoint.parse(where),))
    return World.make(PLANET, 7, 5, [listed], signer=WORLD_KEYS)


@pytest.fixture
async def service(tmp_path: Path, nursery: trio.Nursery) -> ControllerService:
    made = ControllerService(
        tmp_path,
        identity=node_identities()[0],
        worlds=[_planet("10.0.0.9/9993")],
        open_sockets=Cable().opener("10.0.0.1/9993"),
        check=is_valid,
    )
    await nursery.start(partial(controller_run.run, made))
    return made


@pytest.fixture
def zttrio(
    service: ControllerService, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[str]]:
    """Runs a command line and returns what it prints."""

    async def run(*words: object, fails: bool = False) -> str:
        command = ["controller", "--home", str(service.home), *map(str, words)]
        with trio.fail_after(20):
            code = await trio.to_thread.run_sync(main, command)
        printed = capsys.readouterr()
        assert code == int(fails), printed.err
        return printed.err if fails else printed.out

    capsys.readouterr()
    return run


@pytest.mark.kernel
async def test_networks_are_made_listed_changed_and_deleted(
    zttrio: Callable[..., Awaitable[str]],
) -> None:
    subnets = ("--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/64")
    made = (await zttrio("network", "create", "--name", "first", *subnets, "--6plane")).strip()
    assert made.startswith(ADDRESS)
    record = json.loads(await zttrio("network", "show", made))
    assert record["name"] == "first"
    assert record["private"] is True
    assert [route["target"] for route in record["routes"]] == ["10.7.0.0/24", "fd00:7::/64"]
    assert record["ipAssignmentPools"][0] == {
        "ipRangeStart": "10.7.0.1",
        "ipRangeEnd": "10.7.0.255",
    }
    assert record["v4AssignMode"] == {"zt": True}
    assert record["v6AssignMode"] == {"zt": True, "6plane": True, "rfc4193": False}
    changed = await zttrio("network", "set", made, "mtu=1400", "name=77", "private=false")
    assert json.loads(changed) == {"mtu": 1400, "name": "77", "private": False}
    await zttrio("member", "authorize", made, NODE)
    assert await zttrio("network", "list") == f"{made} public 1/1 members 77\n"
    assert json.loads(await zttrio("network", "list", "--json"))[0]["mtu"] == 1400
    assert await zttrio("network", "delete", made) == f"network {made} deleted\n"
    assert await zttrio("network", "list") == ""
    assert "there is none" in await zttrio("network", "show", made, fails=True)
    assert "there is none" in await zttrio("network", "set", made, "mtu=5", fails=True)
    assert await zttrio("network", "list") == ""


@pytest.mark.kernel
async def test_members_are_let_in_shown_changed_and_shut_out(
    zttrio: Callable[..., Awaitable[str]],
) -> None:
    network = (await zttrio("network", "create")).strip()
    other = "0123456789"
    said = await zttrio("member", "authorize", network, NODE, other)
    assert said.splitlines() == [
        f"node {NODE} may be on network {network}",
        f"node {other} may be on network {network}",
    ]
    changed = await zttrio("member", "set", network, NODE, 'ipAssignments=["10.0.0.7"]', "name=Zoë")
    assert json.loads(changed) == {"ipAssignments": ["10.0.0.7"], "name": "Zoë"}
    assert json.loads(await zttrio("member", "show", network, NODE))["authorized"] is True
    await zttrio("member", "deauthorize", network, other)
    listed = (await zttrio("member", "list", network)).splitlines()
    assert sorted(listed) == sorted(
        [f"{other} asks", f'{NODE} authorized 10.0.0.7 "Zoë"'],
    )
    assert len(json.loads(await zttrio("member", "list", network, "--json"))) == 2
    assert "no field" in await zttrio("member", "set", network, NODE, "colour=red", fails=True)
    refused = await zttrio("member", "set", network, NODE, "ipAssignments=[5]", fails=True)
    assert "ipAssignments: needs texts" in refused
    unknown = await zttrio("member", "deauthorize", network, "aaaaaaaaaa", fails=True)
    assert "there is none" in unknown
    await zttrio("member", "delete", network, NODE)
    assert "there is none" in await zttrio("member", "show", network, NODE, fails=True)


@pytest.mark.kernel
async def test_rules_are_compiled_and_used(
    zttrio: Callable[..., Awaitable[str]], tmp_path: Path
) -> None:
    network = (await zttrio("network", "create")).strip()
    text = "tag role id 7 default 1;\ncap free id 3 accept;;\ndrop dport 80;\naccept;\n"
    path = tmp_path / "rules"
    path.write_text(text)
    checked = json.loads(await zttrio("rules", network, path, "--check"))
    assert [rule["type"] for rule in checked["rules"]][-1] == "ACTION_ACCEPT"
    assert json.loads(await zttrio("network", "show", network))["tags"] == []
    said = await zttrio("rules", network, path)
    count = len(checked["rules"])
    assert said == f"network {network}: {count} rules, 1 capabilities, 1 tags\n"
    record = json.loads(await zttrio("network", "show", network))
    assert record["rulesSource"] == text
    assert record["tags"] == [{"id": 7, "default": 1}]
    assert [(c["id"], len(c["rules"])) for c in record["capabilities"]] == [(3, 1)]
    assert len(record["rules"]) == count
    path.write_text("drop dport eighty;\n")
    assert "line 1" in await zttrio("rules", network, path, fails=True)
    assert json.loads(await zttrio("network", "show", network)) == record
    path.unlink()
    assert "No such file" in await zttrio("rules", network, path, fails=True)
    path.write_bytes(b"\xff")
    assert "not UTF-8" in await zttrio("rules", network, path, fails=True)


@pytest.mark.kernel
async def test_a_controller_says_who_asks_and_how_to_let_it_in(
    service: ControllerService, capsys: pytest.CaptureFixture[str]
) -> None:
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"controller {ADDRESS} with 0 networks"
    assert said[1] == f"HTTP interface: port {service.api_port}, token in {service.home}"
    network_id, node = int(ADDRESS + "000001", 16), node_identities()[1].address
    service.on_event(MemberAsked(network_id, node))
    service.on_event(MemberConfigured(network_id, node))
    asks, is_on = capsys.readouterr().out.splitlines()
    words = asks.partition(": zttrio ")[2].split()
    parsed = _parse(*words)
    assert (parsed.home, parsed.network, parsed.members) == (
        service.home,
        f"{network_id:016x}",
        [NODE],
    )
    assert is_on == f"node {NODE} is on network {network_id:016x}"


@pytest.mark.kernel
async def test_a_controller_of_a_universe_on_loopback_stays_there(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    home.save_identity(node_identities()[1])
    home.save_world(_planet("127.0.0.1/39994"))
    started = trio.Event()
    services: list[ControllerService] = []

    async def run(service: ControllerService, *, quiet: bool) -> None:
        assert quiet
        services.append(service)
        await nursery.start(service.run)
        started.set()

    monkeypatch.setattr(controller_run, "run", run)
    namespace = _parse("controller", "--home", tmp_path, "--port", 0, "--quiet")
    await controller_run.run_controller(namespace)
    [service] = services
    assert service.task.node.config.loopback_paths
    assert {sock.ip for sock in service.task._sockets} == {b"\x7f\0\0\x01"}


async def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WireError):
        await controller_run.run_controller(
            _parse("controller", "--home", tmp_path, "--bind", "nowhere")
        )
