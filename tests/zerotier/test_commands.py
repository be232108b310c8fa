"""``zttrio identity``, ``zttrio planet`` and ``zttrio root``."""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from zttrio.cli import planet, root, zerotier
from zttrio.errors import IdentityError, WireError
from zttrio.header.address import packed
from zttrio.wire.zerotier import Home, NodeTask
from zttrio.wire.zerotier.home import read_identity, read_world, write_private
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root

from .data import node_identities

if TYPE_CHECKING:
    from pathlib import Path


async def _run(*words: object) -> int:
    """What ``zttrio WORDS`` does, up to its exit code."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    zerotier.register(subparsers)
    namespace = parser.parse_args([str(word) for word in words])
    code: Any = namespace.run(namespace)
    if inspect.iscoroutine(code):
        code = await code
    assert isinstance(code, int)
    return code


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "identity.secret"
    write_private(path, node_identities()[0].secret_text().encode())
    return path


_WITHOUT_EXTRA = """
import argparse, sys, trio
sys.modules["cryptography"] = None
from zttrio.cli import zerotier
from zttrio.errors import LocalError
parser = argparse.ArgumentParser()
zerotier.register(parser.add_subparsers())
namespace = parser.parse_args(["identity", "show", "nothing"])
try:
    trio.run(namespace.run, namespace)
except LocalError as exc:
    print(exc)
"""


def test_a_missing_package_of_the_extra_is_named() -> None:
    command = [sys.executable, "-c", _WITHOUT_EXTRA]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "cryptography is not installed: pip install 'zttrio[zerotier]'\n"


async def test_an_identity_is_shown_without_its_secret(
    secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = node_identities()[0]
    assert await _run("identity", "show", secret) == 0
    assert capsys.readouterr().out == known.text() + "\n"
    assert await _run("identity", "show", "--json", secret) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "schema": 1,
        "address": str(known),
        "public": known.public.hex(),
        "has_secret": True,
        "identity": known.text(),
    }


async def test_an_identity_is_validated(
    secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await _run("identity", "validate", secret) == 0
    other = tmp_path / "other"
    text = node_identities()[1].text()
    other.write_text(node_identities()[0].address.hex() + text[10:])
    assert await _run("identity", "validate", other) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{node_identities()[0]}: valid",
        f"{node_identities()[0]}: not valid, its address does not follow from its keys",
    ]


async def test_a_new_identity_never_overwrites_a_file(secret: Path) -> None:
    with pytest.raises(IdentityError, match="never overwritten"):
        await _run("identity", "new", secret)
    assert read_identity(secret) == node_identities()[0]


@pytest.mark.slow
async def test_a_new_identity_is_written_for_its_owner_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new"
    assert await _run("identity", "new", path) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    made = read_identity(path)
    assert made.secret is not None
    assert capsys.readouterr().out == made.text() + "\n"
    assert await _run("identity", "new") == 0
    assert len(capsys.readouterr().out) == 271


async def test_a_planet_is_made_shown_and_succeeded(
    secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, key = tmp_path / "planet", tmp_path / "planet2", tmp_path / "key"
    where = f"{secret}@10.0.0.1/9993,2001:db8::1/9993"
    made = await _run("planet", "make", first, "--root", where, "--key", key, "--id", "abc")
    assert made == 0
    world = read_world(first, PLANET)
    assert (world.id, world.is_signed_by(world.update_key)) == (0xABC, True)
    assert world.roots == (
        Root(
            node_identities()[0].without_secret(),
            (Endpoint.parse("10.0.0.1/9993"), Endpoint.parse("2001:db8::1/9993")),
        ),
    )
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 128
    assert planet.open_key(key).public == world.update_key
    again = ("planet", "make", second, "--root", where, "--key", key, "--previous", first)
    assert await _run(*again) == 0
    newer = read_world(second, PLANET)
    assert newer.id == world.id
    assert newer.timestamp > world.timestamp
    capsys.readouterr()
    assert await _run("planet", "show", second) == 0
    shown = capsys.readouterr().out
    assert "planet 0000000000000abc, revision" in shown
    assert f"root {node_identities()[0]} at 10.0.0.1/9993, 2001:db8::1/9993" in shown
    assert await _run("planet", "show", "--json", second) == 0
    decoded = json.loads(capsys.readouterr().out)
    assert decoded["id"] == "0000000000000abc"
    assert decoded["signed_by_update_key"] is True


async def test_a_successor_needs_the_key_that_its_predecessor_named(
    secret: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "planet", tmp_path / "planet2"
    key, next_key = tmp_path / "key", tmp_path / "next"
    make = ("planet", "make")
    where = ("--root", f"{secret}@10.0.0.1/9993")
    handed_over = (*make, first, *where, "--key", key, "--next-key", next_key)
    assert await _run(*handed_over) == 0
    follow = (*make, second, *where, "--previous", first)
    with pytest.raises(WireError, match="names another signing key"):
        await _run(*follow, "--key", key)
    assert not second.exists()
    with pytest.raises(WireError, match="type or ID"):
        await _run(*follow, "--key", next_key, "--moon")
    assert await _run(*follow, "--key", next_key) == 0


async def test_a_moon_is_a_world_of_another_kind(secret: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "moon", tmp_path / "key"
    where = f"{secret}@10.0.0.1/9993"
    assert await _run("planet", "make", out, "--root", where, "--key", key, "--moon") == 0
    assert read_world(out, MOON).kind == MOON


@pytest.mark.parametrize("bad", ["no-at", "{}@", "{}@10.0.0.1", "{}@10.0.0.1/x"])
async def test_a_root_without_identity_or_endpoint_is_refused(
    secret: Path, tmp_path: Path, bad: str
) -> None:
    text = bad.format(secret)
    with pytest.raises(WireError, match="root"):
        await _run("planet", "make", tmp_path / "out", "--root", text, "--key", tmp_path / "key")


async def test_five_roots_are_refused(secret: Path, tmp_path: Path) -> None:
    roots = [word for _ in range(5) for word in ("--root", f"{secret}@10.0.0.1/1")]
    with pytest.raises(WireError, match="at most 4 roots, got 5"):
        await _run("planet", "make", tmp_path / "out", *roots, "--key", tmp_path / "key")


def test_a_signing_key_that_is_damaged_or_readable_is_refused(tmp_path: Path) -> None:
    pair = KeyPair.generate(lambda length: bytes(range(length)))
    path = tmp_path / "key"
    for content in (b"", pair.public, bytes(64) + pair.secret):
        write_private(path, content)
        with pytest.raises(IdentityError, match="signing key"):
            planet.open_key(path)
    write_private(path, pair.public + pair.secret)
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="others may read it"):
        planet.open_key(path)


async def test_a_root_without_a_planet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="--advertise"):
        await _run("root", "--home", tmp_path)


async def test_a_home_gets_a_planet_that_lists_its_own_root_once(tmp_path: Path) -> None:
    Home(tmp_path).save_identity(node_identities()[0])
    where = [Endpoint.parse("10.0.0.1/9993")]
    await root.prepare_home(tmp_path, where)
    [world] = Home(tmp_path).load_worlds()
    assert world.roots == (Root(node_identities()[0].without_secret(), tuple(where)),)
    assert world.is_signed_by(planet.open_key(tmp_path / "planet.key").public)
    await root.prepare_home(tmp_path, [Endpoint.parse("10.0.0.2/1")])
    assert Home(tmp_path).load_worlds() == [world]


@pytest.mark.kernel
async def test_a_root_serves_a_node_and_says_so(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    loopback = packed("127.0.0.1")
    config = NodeConfig(loopback_paths=True, validation_interval=0)
    Home(tmp_path).save_identity(node_identities()[0])
    await root.prepare_home(tmp_path, [Endpoint(loopback, 39_993)])

    async def serve(*, task_status: trio.TaskStatus[NodeTask] = trio.TASK_STATUS_IGNORED) -> None:
        await root.run(
            tmp_path, port=39_993, bind=[loopback], config=config, task_status=task_status
        )

    await nursery.start(serve)
    [world] = Home(tmp_path).load_worlds()
    leaf = NodeTask(identity=node_identities()[2], worlds=[world], bind=[loopback], config=config)
    await nursery.start(leaf.run)
    with trio.fail_after(20):
        await leaf.wait_online()
        await leaf.echo(node_identities()[0].address)
    said = capsys.readouterr().out
    assert f"root {node_identities()[0]} of planet {world.id:016x}" in said
    assert f"node {node_identities()[2]} is known" in said
