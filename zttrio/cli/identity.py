"""``zttrio identity``: make, show and check the identities of ZeroTier nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from zttrio.errors import IdentityError
from zttrio.wire.zerotier import generate_identity
from zttrio.wire.zerotier.home import read_identity, write_private
from zttrio.zerotier.crypto import open_backend

from .main import EXIT_FAILED, EXIT_OK, Subparsers

if TYPE_CHECKING:
    import argparse

    from zttrio.zerotier.identity import Identity

__all__ = ["new_identity", "register", "show_identity", "validate_identity"]

SCHEMA = 1


def register(subparsers: Subparsers) -> None:
    """Add ``identity`` to the command line."""
    parser = subparsers.add_parser("identity", help="make, show and check node identities")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    new = commands.add_parser("new", help="make a new identity (takes some seconds)")
    new.add_argument("file", type=Path, nargs="?", help="where to put the secret, mode 0600")
    new.set_defaults(run=_run_new)

    show = commands.add_parser("show", help="print the public part of an identity")
    show.add_argument("file", type=Path, help="identity.secret or identity.public")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_run_show)

    validate = commands.add_parser("validate", help="check that the address follows from the keys")
    validate.add_argument("file", type=Path, help="identity.secret or identity.public")
    validate.set_defaults(run=_run_validate)


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


async def _run_new(namespace: argparse.Namespace) -> int:
    identity = await new_identity(namespace.file)
    print(identity.secret_text() if namespace.file is None else identity.text())
    return EXIT_OK


def _run_show(namespace: argparse.Namespace) -> int:
    shown = show_identity(namespace.file)
    if namespace.json:
        print(json.dumps(shown))
    else:
        print(shown["identity"])
    return EXIT_OK


async def _run_validate(namespace: argparse.Namespace) -> int:
    address = read_identity(namespace.file)
    if await validate_identity(namespace.file):
        print(f"{address}: valid")
        return EXIT_OK
    print(f"{address}: not valid, its address does not follow from its keys")
    return EXIT_FAILED
