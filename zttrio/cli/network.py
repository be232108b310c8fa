"""Which network a sub-command means: the options that say it, and the `Network` they name."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import trio

from zttrio.errors import AccessDenied, LocalError
from zttrio.network import Network
from zttrio.wire import Tap

if TYPE_CHECKING:
    import argparse
    from ipaddress import IPv4Interface, IPv6Interface

__all__ = [
    "add_options",
    "end_when_terminated",
    "is_network_id",
    "note",
    "open_network",
    "wait_online",
]

_ID_DIGITS = 16
_SILENCE = 10.0  # s until the user is told that nobody has answered; arbitrary
_PATIENCE = 0.5  # s between two looks at whether we are let in by now; arbitrary


def add_options(parser: argparse.ArgumentParser, *, has_network: bool = False) -> None:
    """Add the options that name a network to *parser*.

    Args:
        parser: of the sub-command.
        has_network: it has a ``--network``, or an argument ``network``, with more to it.
    """
    group = parser.add_argument_group(
        "network",
        "without these: the ZeroTier network that ZTTRIO_NETWORK names, or the virtual Ethernet of "
        "this user's processes on this machine",
    )
    if not has_network:
        group.add_argument("--network", metavar="ID", help="a ZeroTier network, sixteen hex digits")
    group.add_argument(
        "--home",
        metavar="DIR",
        help="identity and state of the ZeroTier node (default: what ZTTRIO_HOME names, or a new "
        "node each time)",
    )
    group.add_argument(
        "--planet",
        metavar="FILE",
        help="the ZeroTier roots to use, kept in the home; there are none by default",
    )
    group.add_argument("--token", help="lets us into a network whose controller knows it")
    group.add_argument(
        "--tap",
        metavar="NAME",
        help="stand beside the kernel on this TAP device (Linux, as root)",
    )
    group.add_argument(
        "--address",
        metavar="A/B",
        action="append",
        default=[],
        help="an address of ours with its prefix length, such as 10.99.0.1/24; may be repeated",
    )
    group.add_argument("--name", help="what others on the network may call us")


def open_network(namespace: argparse.Namespace, network_id: str | None = None) -> Network:
    """The network that *namespace* names, to be entered with ``async with``.

    Args:
        namespace: the parsed command line.
        network_id: by default the ``--network``.

    Raises:
        LocalError: an address or a network ID is none, a device's name cannot be one, options
            contradict each other, or a package for ZeroTier is missing.
    """
    if network_id is None and not namespace.tap:
        network_id = namespace.network
    try:
        wire = Tap(namespace.tap) if namespace.tap else None
        return Network(
            network_id,
            wire=wire,
            addresses=namespace.address,
            name=namespace.name,
            home=namespace.home,
            planet=namespace.planet,
            token=namespace.token,
        )
    except ValueError as exc:
        raise LocalError(str(exc)) from exc


def is_network_id(text: str) -> bool:
    """True if *text* is the ID of a ZeroTier network rather than somebody's name for one."""
    try:
        return len(text) == _ID_DIGITS and int(text, 16) > 0
    except ValueError:
        return False


async def wait_online(network: Network) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """Wait until *network* has an address, and tell the user what has to be done for that.

    Raises:
        JoinError: the network does not exist, or wants something that nobody can do here.
        OSError: ENETDOWN, the wire died.
    """
    said = ""
    while True:
        news = ""
        try:
            with trio.move_on_after(_SILENCE):
                return await network.wait_online()
            news = "still waiting: " + _missing(network)
        except AccessDenied as exc:
            news = f"{exc}; waiting until its administrator does"
            await trio.sleep(_PATIENCE)
        if news != said:
            said = news
            note(news)


def _missing(network: Network) -> str:
    """What stands between *network* and an address."""
    if not network.is_managed:
        return "nobody has given us an address"
    roots = [peer.split() for peer in network.status().peers if peer.endswith(" root")]
    if all("relayed" in root for root in roots):
        return "no root of the planet answers"
    return "the network's controller does not answer, or has no address for us"


async def end_when_terminated(scope: trio.CancelScope) -> None:
    """Cancel *scope* at SIGTERM, so that whatever stops a service lets it say goodbye."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def note(text: str) -> None:
    """Tell the user something that is not the command's output; nobody has to listen."""
    try:
        print(f"zttrio: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
