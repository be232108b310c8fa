"""``zttrio service``: a tap service for programs that are started elsewhere."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import trio

from zttrio.intercept import preload

from . import network
from .run import add_policy_options, make_policy

if TYPE_CHECKING:
    import argparse

    from .main import Subparsers

__all__ = ["register", "run"]


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "service",
        help="give sockets of a network to programs started elsewhere",
        description="Join a network and give its sockets to unmodified programs that are started "
        "with `zttrio run --network N`, or with the two variables that this command prints.",
    )
    parser.add_argument(
        "--network",
        metavar="N",
        default="host",
        help="what `zttrio run --network` calls it; sixteen hex digits also name the ZeroTier "
        "network to join",
    )
    parser.add_argument("--path", help="of the service's socket, in a folder closed to others")
    network.add_options(parser, has_network=True)
    add_policy_options(parser)
    parser.set_defaults(run=run)


async def run(namespace: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises:
        InterceptError: another service of that name is running, or its folder is not private.
    """
    policy = make_policy(namespace)
    name = namespace.network
    if not network.is_network_id(name):
        namespace.network = None  # or it would be taken for one
    async with network.open_network(namespace) as net, trio.open_nursery() as nursery:
        tap = await nursery.start(
            partial(
                net.serve_tap,
                namespace.path,
                policy=policy,
                network=name,
                say=_say,
            )
        )
        print(f"ZTTRIO_NET={tap.address}")
        print(f"LD_PRELOAD={preload.find_library()}", flush=True)
        for interface in await network.wait_online(net):
            _say(f"online as {interface}")


def _say(text: str) -> None:
    print(f"zttrio: {text}", file=sys.stderr)
