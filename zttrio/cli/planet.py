"""``zttrio planet``: make and show worlds, the signed lists of a network's roots.

A signing key file holds 128 octets: the public and the secret halves of an X25519 and an Ed25519
key pair.  Whoever has it can give every node that trusts the world other roots.
"""

from __future__ import annotations

import json
import secrets
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from zttrio.errors import IdentityError, WireError
from zttrio.wire.zerotier.home import read_identity, read_world, write_private, write_public
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.identity import KeyPair
from zttrio.zerotier.world import MOON, PLANET, Root, World, is_update

from .main import EXIT_OK

if TYPE_CHECKING:
    import argparse

__all__ = ["make_planet", "open_key", "run_make", "run_show", "show_planet"]

SCHEMA = 1
_HALF = 64


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


def run_make(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio planet make``."""
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


def run_show(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio planet show``."""
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
