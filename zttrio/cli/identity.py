"""``zttrio identity``: make, show and check the identities of ZeroTier nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from zttrio.errors import IdentityError
from zttrio.wire.zerotier import generate_identity
from zttrio.wire.zerotier.home import read_identity, write_private
from zttrio.zerotier.crypto import open_backend

from .main import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from zttrio.zerotier.identity import Identity

__all__ = [
    "new_identity",
    "run_new",
    "run_show",
    "run_validate",
    "show_identity",
    "validate_identity",
]

SCHEMA = 1


async def new_identity(file: Path | None) -> Identity:
    """A new identity, written to *file* if that is given.

    Raises:
        IdentityError: *file* exists; an identity is never overwritten.
        WireError: *file* cannot be written.
    """
    if file is not None and await trio.Path(file).exists():
        raise IdentityError(f"identity {file}: it exists, and is never overwritten")
    identity = await generate_identity()
    if file is not None:
        text = identity.secret_text().encode()
        await trio.to_thread.run_sync(write_private, file, text)
    return identity


def show_identity(file: Path) -> dict[str, object]:
    """What an identity file says, without the secret.

    Raises:
        IdentityError: it is no identity.
    """
    identity = read_identity(file)
    return {
        "schema": SCHEMA,
        "address": str(identity),
        "public": identity.public.hex(),
        "has_secret": identity.secret is not None,
        "identity": identity.text(),
    }


async def validate_identity(file: Path) -> bool:
    """True if the address in *file* follows from the keys; takes a tenth of a second or more.

    Raises:
        IdentityError: it is no identity, or its secret is that of another one.
    """
    identity = read_identity(file)
    return await trio.to_thread.run_sync(lambda: identity.is_valid(open_backend()))


async def run_new(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio identity new``."""
    identity = await new_identity(namespace.file)
    print(identity.secret_text() if namespace.file is None else identity.text())
    return EXIT_OK


def run_show(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio identity show``."""
    shown = show_identity(namespace.file)
    if namespace.json:
        print(json.dumps(shown))
    else:
        print(shown["identity"])
    return EXIT_OK


async def run_validate(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio identity validate``; 1 if the identity is not valid."""
    address = read_identity(namespace.file)
    if await validate_identity(namespace.file):
        print(f"{address}: valid")
        return EXIT_OK
    print(f"{address}: not valid, its address does not follow from its keys")
    return EXIT_FAILED
