"""``zttrio identity``, ``planet``, ``root`` and ``universe``: their place on the command line.

What they do is imported when one of them is run, because it needs the packages of the
``zerotier`` extra, and because the other commands should not wait for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .extras import later

if TYPE_CHECKING:
    from .main import Subparsers

__all__ = ["register"]

PORT = 9993  # the reference's default (17.1)


def register(subparsers: Subparsers) -> None:
    """Add the commands to the command line."""
    _register_identity(subparsers)
    _register_planet(subparsers)
    _register_root(subparsers)
    _register_universe(subparsers)


def _register_identity(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("identity", help="make, show and check node identities")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    new = commands.add_parser("new", help="make a new identity (takes some seconds)")
    new.add_argument("file", type=Path, nargs="?", help="where to put the secret, mode 0600")
    new.set_defaults(run=later("identity", "run_new", "zerotier"))

    show = commands.add_parser("show", help="print the public part of an identity")
    show.add_argument("file", type=Path, help="identity.secret or identity.public")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=later("identity", "run_show", "zerotier"))

    validate = commands.add_parser("validate", help="check that the address follows from the keys")
    validate.add_argument("file", type=Path, help="identity.secret or identity.public")
    validate.set_defaults(run=later("identity", "run_validate", "zerotier"))


def _register_planet(subparsers: Subparsers) -> None:
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
    make.set_defaults(run=later("planet", "run_make", "zerotier"))

    show = commands.add_parser("show", help="print what a world file says")
    show.add_argument("file", type=Path, help="a planet or a moon")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=later("planet", "run_show", "zerotier"))


def _register_root(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "root",
        help="run a root for ZeroTier nodes",
        description="Run a root. With --advertise, a home without a planet gets a new one that "
        "lists this root, and the key that signs its later revisions; give the file HOME/planet "
        "to every node.",
    )
    parser.add_argument("--home", type=Path, required=True, help="identity, planet and moons")
    parser.add_argument("--planet", type=Path, help="use this planet from now on")
    parser.add_argument("--moon", type=Path, action="append", default=[], help="serve this moon")
    parser.add_argument(
        "--advertise",
        action="append",
        default=[],
        metavar="ADDRESS/PORT",
        help="where nodes reach this root; for making a planet",
    )
    parser.add_argument("--port", type=int, default=PORT, help="UDP port (default: %(default)s)")
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="listen on these addresses only; worth it on a machine with several, because answers "
        "then come from where they were asked",
    )
    parser.add_argument(
        "--validation-interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="between two new nodes from one /24 or /48 (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="print only what goes wrong")
    parser.set_defaults(run=later("root", "run_root", "zerotier"))


def _register_universe(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "universe",
        help="run a root, a controller and a network of your own",
        description="Run a root and a controller with one network, and print what to do next. By "
        "default all of it stays on this machine's loopback interface.",
    )
    parser.add_argument(
        "--folder", type=Path, help="keeps it all (default: zttrio/universe in XDG_STATE_HOME)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", type=int, help="UDP port on loopback, for a new universe")
    where.add_argument(
        "--advertise",
        metavar="ADDRESS/PORT",
        help="where other machines reach this one, for a new universe",
    )
    parser.set_defaults(run=later("universe", "run_universe", "controller"))


def _world_id(text: str) -> int:
    value = int(text, 16)
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError("needs at most sixteen hex digits")
    return value
