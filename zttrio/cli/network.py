"""Which network a sub-command means: the options that say it, and the `Network` they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zttrio.errors import LocalError
from zttrio.network import Network
from zttrio.wire import Tap

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "open_network"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--tap``, ``--address`` and ``--name`` to *parser*."""
    group = parser.add_argument_group(
        "network", "without these: the virtual Ethernet of this user's processes on this machine"
    )
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


def open_network(namespace: argparse.Namespace) -> Network:
    """The network that *namespace* names, to be entered with ``async with``.

    Raises:
        LocalError: an address is no address, or a device's name cannot be one.
    """
    try:
        wire = Tap(namespace.tap) if namespace.tap else None
        return Network(wire=wire, addresses=namespace.address, name=namespace.name)
    except ValueError as exc:
        raise LocalError(str(exc)) from exc
