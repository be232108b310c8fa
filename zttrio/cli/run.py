"""``zttrio run``: start an unmodified program with its sockets on a virtual network."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from zttrio.errors import InterceptError
from zttrio.intercept import preload
from zttrio.intercept.policy import Policy
from zttrio.tap import service

from . import network

if TYPE_CHECKING:
    from .main import Subparsers

__all__ = ["add_policy_options", "make_policy", "register", "run"]


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "run",
        help="run an unmodified program on the network",
        description="Run an unmodified program with its sockets on the virtual network.  Nothing "
        "of it reaches the host's network unless you allow it.  The exit code is the program's, "
        "or 128 and the number of the signal that ended it.",
    )
    parser.add_argument(
        "--network",
        metavar="N",
        help="name or socket path of a running `zttrio service`, or the ID of a ZeroTier network: "
        "that of a running `zttrio join`, unless --home or --planet make it a node of its own; "
        "without it the program joins the network that the other options name",
    )
    network.add_options(parser, has_network=True)
    add_policy_options(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    parser.set_defaults(run=run, usage_error=parser.error)


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-host``, ``--host-loopback`` and ``--policy`` to *parser*."""
    group = parser.add_argument_group("policy", "without these: nothing reaches the host's network")
    group.add_argument(
        "--allow-host",
        metavar="CIDR",
        action="append",
        default=[],
        help="give these destinations to the host's network; may be repeated",
    )
    group.add_argument(
        "--host-loopback",
        action="store_true",
        help="127.0.0.0/8 and ::1 are the host's instead of private to the programs",
    )
    group.add_argument("--policy", metavar="FILE", help="rules for destinations, in TOML")


def make_policy(namespace: argparse.Namespace) -> Policy:
    """The policy that *namespace* names.

    Raises:
        InterceptError: it makes no sense.
    """
    policy = Policy() if namespace.policy is None else Policy.load(namespace.policy)
    return policy.allow_host(namespace.allow_host, loopback=namespace.host_loopback)


async def run(namespace: argparse.Namespace) -> int:
    """Run the command of *namespace* and return its exit code.

    Raises:
        InterceptError: the program cannot be intercepted, or the policy makes no sense.
    """
    command = namespace.command
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        namespace.usage_error("which program? zttrio run -- CMD ...")
    policy = make_policy(namespace)
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        if namespace.network is not None and not _joins(namespace):
            address = _find_service(namespace.network)
        else:
            net = await stack.enter_async_context(network.open_network(namespace))
            if net.is_managed:  # a program that is not let in would only see timeouts
                for interface in await network.wait_online(net):
                    _say(f"online as {interface}")
            else:
                with trio.move_on_after(service.ADDRESS_WAIT):
                    await net.wait_online()
            tap = await nursery.start(
                partial(net.serve_tap, service.private_path(), policy=policy, say=_say)
            )
            address = tap.address
        code = await _supervise(command, address, is_strict=policy.is_strict)
        nursery.cancel_scope.cancel()
    return code


def _joins(namespace: argparse.Namespace) -> bool:
    """True if ``--network`` names a network to join, and not a service that is on it."""
    text = namespace.network
    if not network.is_network_id(text):
        return False
    has_own_node = not (namespace.home is namespace.planet is namespace.token is None)
    return has_own_node or not (service.default_folder() / f"nc_{text}").is_socket()


def _find_service(text: str) -> str:
    """The address of a running service, by name, path or abstract name."""
    if text.startswith("@"):
        return text
    path = Path(text) if "/" in text else service.default_folder() / f"nc_{text}"
    if not path.is_socket():
        raise InterceptError(
            f"network {text}: no tap service at {path}; start one with zttrio service"
        )
    return str(path)


async def _supervise(command: list[str], address: str, *, is_strict: bool) -> int:
    """Run the program in the foreground; signals that are meant for it reach it."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    preload.run_process,
                    command,
                    address=address,
                    is_strict=is_strict,
                    stdin=None,
                    check=False,
                )
            )
            nursery.start_soon(_forward, signals, process)
            code = await process.wait()
            nursery.cancel_scope.cancel()
    return 128 - code if code < 0 else code


async def _forward(signals: object, process: trio.Process) -> None:
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    async for number in signals:  # type: ignore[attr-defined]
        # From a terminal Ctrl-C goes to every program of the foreground, this one included.
        if number != signal.SIGINT or not is_terminal:
            process.send_signal(number)


def _say(text: str) -> None:
    print(f"zttrio: {text}", file=sys.stderr)
