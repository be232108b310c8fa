"""``zttrio planet``: make and show worlds, the signed lists of a network's roots.

A signing key file holds 128 octets: the public and the secret halves of an X25519 and an Ed25519
key pair.  Whoever has it can give every node that trusts the world other roots.
"""

from __future__ import annotations

import argparse
import json
import secrets
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from zttrio.errors import IdentityError, WireError
from zttrio.wire.zerotier.home import read_identity, read_world, write_private, write_public
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root, World, is_update

from .main import EXIT_OK, Subparsers

__all__ = ["make_planet", "open_key", "register", "show_planet"]

SCHEMA = 1
_HALF = 64


def register(subparsers: Subparsers) -> None:
    """Add ``planet`` to the command line."""
    parser = subparsers.add_parser("planet", help="make and show signed lists of roots")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    make = commands.add_parser("make", help="sign a list of roots")
    make.add_argument("out", type=Path, help="the file to write")
    make.add_argument(
        "--root",
        dest="roots",
        action="append",
        required=True,
        metavar="IDENTITY@ADDRESS/PORT[,...]",
        help="a root's identity file and where it is reached; up to four times",
    )
    make.add_argument(
        "--key", type=Path, required=True, help="the signing key, made if it does not exist"
    )
    make.add_argument("--next-key", type=Path, help="who signs the next revision (default: KEY)")
    make.add_argument("--previous", type=Path, help="the revision that this one replaces")
    make.add_argument("--id", type=_world_id, help="sixteen hex digits (default: random)")
    make.add_argument("--moon", action="store_true", help="make a moon instead of a planet")
    make.set_defaults(run=_run_make)

    show = commands.add_parser("show", help="print what a world file says")
    show.add_argument("file", type=Path, help="a planet or a moon")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_run_show)


def open_key(file: Path) -> KeyPair:
    """The signing key in *file*, made there with mode 0600 if it does not exist.

    Raises:
        IdentityError: the file is no key, or others may read it.
        WireError: the file cannot be read or written.
    """
    try:
        if not file.exists():
            pair = KeyPair.generate(secrets.token_bytes)
            write_private(file, pair.public + pair.secret)
            return pair
        mode = file.stat().st_mode
        data = file.read_bytes()
    except OSError as exc:
        raise WireError(f"signing key {file}: {exc.strerror}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IdentityError(f"signing key {file}: others may read it; chmod 600 it")
    if len(data) != 2 * _HALF:
        raise IdentityError(f"signing key {file}: {len(data)} octets, needs {2 * _HALF}")
    pair = KeyPair.from_secret(data[_HALF:])
    if pair.public != data[:_HALF]:
        raise IdentityError(f"signing key {file}: its two halves do not belong together")
    return pair


def make_planet(
    roots: list[Root],
    key: KeyPair,
    *,
    kind: int = PLANET,
    world_id: int | None = None,
    previous: World | None = None,
    next_key: KeyPair | None = None,
) -> World:
    """A signed world, dated now.

    Args:
        roots: at most 4, with at most 32 endpoints each.
        key: must be the one that *previous* named.
        kind: PLANET or MOON.
        world_id: by default that of *previous*, or a random one.
        previous: the revision it replaces.
        next_key: signs the revision after this; by default *key* again.

    Raises:
        WireError: nodes that hold *previous* would not take this.
        ValueError: too many roots or endpoints.
    """
    if world_id is None:
        world_id = previous.id if previous is not None else secrets.randbits(64)
    timestamp = time.time_ns() // 1_000_000
    if previous is not None:
        timestamp = max(timestamp, previous.timestamp + 1)
    update_key = None if next_key is None else next_key.public
    world = World.make(kind, world_id, timestamp, roots, signer=key, update_key=update_key)
    if previous is not None and not is_update(previous, world):
        raise WireError(
            f"world {world.id:016x}: the previous revision {previous.id:016x} names another "
            "signing key, type or ID"
        )
    return world


def show_planet(world: World) -> dict[str, object]:
    """What a world says, for people and programs."""
    return {
        "schema": SCHEMA,
        "type": "planet" if world.kind == PLANET else "moon",
        "id": f"{world.id:016x}",
        "timestamp": world.timestamp,
        "update_key": world.update_key.hex(),
        "signed_by_update_key": world.is_signed_by(world.update_key),
        "roots": [
            {
                "identity": root.identity.text(),
                "address": str(root.identity),
                "endpoints": [str(endpoint) for endpoint in root.endpoints],
            }
            for root in world.roots
        ],
    }


def _parse_root(text: str) -> Root:
    file, at, endpoints = text.rpartition("@")
    if not at:
        raise WireError(f"root {text!r}: has the form IDENTITY@ADDRESS/PORT")
    try:
        parsed = tuple(Endpoint.parse(endpoint) for endpoint in endpoints.split(","))
    except ValueError as exc:
        raise WireError(f"root {text!r}: {exc}") from exc
    return Root(read_identity(Path(file)).without_secret(), parsed)


def _world_id(text: str) -> int:
    value = int(text, 16)
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError("needs at most sixteen hex digits")
    return value


def _run_make(namespace: argparse.Namespace) -> int:
    try:
        world = make_planet(
            [_parse_root(text) for text in namespace.roots],
            open_key(namespace.key),
            kind=MOON if namespace.moon else PLANET,
            world_id=namespace.id,
            previous=namespace.previous and read_world(namespace.previous),
            next_key=namespace.next_key and open_key(namespace.next_key),
        )
    except ValueError as exc:
        raise WireError(str(exc)) from exc
    write_public(namespace.out, world.emit())
    print(f"wrote {namespace.out}: {show_planet(world)['type']} {world.id:016x}")
    return EXIT_OK


def _run_show(namespace: argparse.Namespace) -> int:
    world = read_world(namespace.file)
    shown = show_planet(world)
    if namespace.json:
        print(json.dumps(shown))
        return EXIT_OK
    when = datetime.fromtimestamp(world.timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    print(f"{shown['type']} {shown['id']}, revision {world.timestamp} ({when})")
    print(f"next revision signed by {world.update_key.hex()}")
    for root in world.roots:
        where = ", ".join(map(str, root.endpoints)) or "no endpoint"
        print(f"root {root.identity} at {where}")
    return EXIT_OK
