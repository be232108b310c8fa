"""``zttrio controller``: its place on the command line.

Without a command behind it, it runs a controller; the commands talk to the one that is running.
"""

from __future__ import annotations

import argparse
import os
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from .extras import later

if TYPE_CHECKING:
    from .main import Run, Subparsers

__all__ = ["register"]

PORT = 9993  # the reference's default, for UDP and HTTP alike (16.8)

_ID_DIGITS = 16
_ADDRESS_DIGITS = 10
_HEX = frozenset("0123456789abcdef")


def register(subparsers: Subparsers) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "controller",
        help="run a controller of ZeroTier networks, and tell it what to do",
        description="Without a command, run a controller: it decides who is on its networks. The "
        "commands tell the controller that runs in the same home what to do.",
    )
    home = os.environ.get("ZTTRIO_HOME") or None
    _add_where(parser, None if home is None else Path(home), "127.0.0.1")
    _add_run_options(parser)
    parser.set_defaults(run=later("controller_run", "run_controller", "controller"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _register_network(commands)
    _register_member(commands)
    rules = _command(commands, "rules", "compile a file in the rules language and use it")
    rules.add_argument("network", type=_network_id, metavar="NETWORK")
    rules.add_argument("file", type=Path, metavar="FILE", help="- for standard input")
    rules.add_argument("--check", action="store_true", help="print the rules, change nothing")
    rules.set_defaults(run=_client("set_rules"))


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running a controller")
    group.add_argument("--planet", type=Path, help="use these roots from now on")
    group.add_argument("--moon", type=Path, action="append", default=[], help="and these")
    group.add_argument("--port", type=int, default=PORT, help="UDP port (default: %(default)s)")
    group.add_argument(
        "--bind", action="append", default=[], metavar="ADDRESS", help="UDP on these addresses only"
    )
    group.add_argument(
        "--api-port", type=int, help="TCP port of the HTTP interface (default: that of UDP)"
    )
    group.add_argument("--quiet", action="store_true", help="print only what goes wrong")


def _register_network(commands: Subparsers) -> None:
    parser = commands.add_parser("network", help="make, show, change and delete networks")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    create = _command(actions, "create", "make a network and print its ID")
    create.add_argument("--name", default="", help="what members may show")
    create.add_argument("--public", action="store_true", help="every node may join")
    create.add_argument(
        "--subnet",
        dest="subnets",
        action="append",
        type=ip_network,
        default=[],
        metavar="A/B",
        help="give members addresses of this IPv4 or IPv6 network; may be repeated",
    )
    create.add_argument(
        "--6plane", dest="sixplane", action="store_true", help="and a /80 of IPv6 each"
    )
    create.add_argument("--rfc4193", action="store_true", help="and a private IPv6 address each")
    create.set_defaults(run=_client("create_network"))

    listing = _command(actions, "list", "list the networks")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_client("list_networks"))
    for name, text in (("show", "print a network's record"), ("delete", "delete a network")):
        action = _command(actions, name, text)
        action.add_argument("network", type=_network_id, metavar="NETWORK")
        action.set_defaults(run=_client(f"{name}_network"))
    change = _command(actions, "set", "change fields of a network's record")
    change.add_argument("network", type=_network_id, metavar="NETWORK")
    _add_fields(change, "mtu=1400")
    change.set_defaults(run=_client("set_network"))


def _register_member(commands: Subparsers) -> None:
    parser = commands.add_parser("member", help="let nodes in, show them, change them")
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = _command(actions, "list", "list who is on a network, and who has asked to be")
    listing.add_argument("network", type=_network_id, metavar="NETWORK")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_client("list_members"))
    for name, text in (
        ("authorize", "let nodes in"),
        ("deauthorize", "shut members out"),
        ("delete", "forget members; those that were in are shut out"),
    ):
        action = _command(actions, name, text)
        action.add_argument("network", type=_network_id, metavar="NETWORK")
        action.add_argument("members", type=_node_address, nargs="+", metavar="NODE")
        action.set_defaults(run=_client(f"{name}_members"))
    show = _command(actions, "show", "print a member's record")
    change = _command(actions, "set", "change fields of a member's record")
    for action in (show, change):
        action.add_argument("network", type=_network_id, metavar="NETWORK")
        action.add_argument("member", type=_node_address, metavar="NODE")
    _add_fields(change, 'ipAssignments=["10.0.0.7"]')
    show.set_defaults(run=_client("show_member"))
    change.set_defaults(run=_client("set_member"))


def _command(commands: Subparsers, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text)
    # The same options as in front of the command, which must not take back what is given there.
    _add_where(parser, argparse.SUPPRESS, argparse.SUPPRESS)
    return parser


def _add_where(parser: argparse.ArgumentParser, home: object, host: str) -> None:
    parser.add_argument(
        "--home",
        type=Path,
        default=home,
        metavar="DIR",
        help="identity, planet, networks and token of the controller (default: ZTTRIO_HOME)",
    )
    parser.add_argument(
        "--api-host",
        default=host,
        metavar="ADDRESS",
        help="where the HTTP interface listens (default: loopback)",
    )


def _add_fields(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "fields",
        nargs="+",
        type=_field,
        metavar="FIELD=VALUE",
        help=f"as in the record; values are JSON or plain text: {example}",
    )


def _client(function: str) -> Run:
    return later("controller_client", function, "controller")


def _network_id(text: str) -> str:
    return _hex(text, _ID_DIGITS)


def _node_address(text: str) -> str:
    return _hex(text, _ADDRESS_DIGITS)


def _hex(text: str, digits: int) -> str:
    if len(text) != digits or not set(text.lower()) <= _HEX:
        raise argparse.ArgumentTypeError(f"needs {digits} hex digits, got {text!r}")
    return text.lower()


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"needs FIELD=VALUE, got {text!r}")
    return name, value
