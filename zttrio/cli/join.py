"""``zttrio join`` and ``zttrio status``: be on a ZeroTier network, and look at somebody who is.

A home in use holds a socket, ``status.sock``, that answers with one line of JSON.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zttrio.errors import InterceptError, LocalError, WireError

from . import network
from .main import EXIT_OK
from .network import note

if TYPE_CHECKING:
    import argparse

    from zttrio.network import Network

    from .main import Subparsers

__all__ = ["ask_status", "join", "register", "run_join", "run_status", "serve_status"]

SOCKET = "status.sock"
_LOOK = 0.5  # s between two looks at what has changed; arbitrary
_LARGEST = 16 << 20  # octets of a status; arbitrary
_BACKLOG = 16


def register(subparsers: Subparsers) -> None:
    """Add ``join`` and ``status`` to the command line."""
    parser = subparsers.add_parser(
        "join",
        help="be on a ZeroTier network, and stay",
        description="Join a ZeroTier network, print the addresses that it gives us, and stay until "
        "interrupted. `zttrio run --network ID` puts programs on it meanwhile.",
    )
    parser.add_argument("network", metavar="ID", help="sixteen hex digits")
    network.add_options(parser, has_network=True)
    parser.set_defaults(run=run_join)

    parser = subparsers.add_parser("status", help="show what a running `zttrio join` is doing")
    parser.add_argument("--home", metavar="DIR", help="the one it uses (default: ZTTRIO_HOME)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_status)


async def run_join(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio join``, until interrupted.

    Raises:
        LocalError: the network ID is none.
        JoinError: the network does not exist.
        WireError: the node cannot run.
    """
    if namespace.home is None:
        namespace.home = os.environ.get("ZTTRIO_HOME") or None
    net = network.open_network(namespace, namespace.network)
    async with net, trio.open_nursery() as nursery:
        nursery.start_soon(network.end_when_terminated, nursery.cancel_scope)
        if namespace.home is not None:
            nursery.start_soon(serve_status, net, Path(namespace.home))
        nursery.start_soon(_serve_programs, net, namespace.network)
        await join(net, namespace.network)
    return EXIT_OK


async def join(net: Network, network_id: str) -> None:
    """Print what becomes of *net* until cancelled: who we are, our addresses, refusals.

    Raises:
        JoinError: the network does not exist, or wants something that nobody can do here.
    """
    print(f"node {net.status().identity} joins network {network_id}", flush=True)
    shown: tuple[str, ...] = ()
    refused = ""
    await network.wait_online(net)
    while True:
        status = net.status()
        if status.addresses != shown:
            shown = status.addresses
            print(f"online as {' '.join(shown) or 'nobody: without an address'}", flush=True)
        if status.failure != refused:
            refused = status.failure
            note(refused or "let in again")
        await trio.sleep(_LOOK)


async def _serve_programs(net: Network, network_id: str) -> None:
    """Let `zttrio run --network ID` use this node."""
    try:
        await net.serve_tap(network=network_id, say=note)
    except (InterceptError, OSError) as exc:
        note(f"programs cannot use this node: {exc}")


async def serve_status(net: Network, home: Path) -> None:
    """Answer ``zttrio status`` until cancelled; without a socket the rest goes on."""
    path = home / SOCKET
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        try:
            path.unlink(missing_ok=True)  # the home is ours alone, so this is an old one
            await listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as exc:
            note(f"status: {path}: {exc.strerror or exc}")
            return
        try:
            while True:
                client, _ = await listener.accept()
                answer = json.dumps(net.status().as_dict()).encode() + b"\n"
                stream = trio.SocketStream(client)
                with trio.move_on_after(1):  # a client that does not read is not waited for
                    async with stream:
                        with suppress(trio.BrokenResourceError):
                            await stream.send_all(answer)
        finally:
            path.unlink(missing_ok=True)


async def ask_status(home: Path) -> dict[str, Any]:
    """What the node in *home* is doing.

    Raises:
        WireError: nobody runs there.
    """
    path = home / SOCKET
    try:
        stream = await trio.open_unix_socket(path)
        async with stream:
            data = b""
            async for chunk in stream:
                data += chunk
                if len(data) > _LARGEST:
                    break
        answer: dict[str, Any] = json.loads(data)
    except (OSError, RuntimeError, trio.BrokenResourceError, ValueError) as exc:
        raise WireError(f"home {home}: no `zttrio join` is running in it ({exc})") from exc
    return answer


async def run_status(namespace: argparse.Namespace) -> int:
    """Carry out ``zttrio status``.

    Raises:
        LocalError: there is no home to ask.
        WireError: nobody runs there.
    """
    home = namespace.home or os.environ.get("ZTTRIO_HOME")
    if not home:
        raise LocalError("status: of which node? name its --home")
    status = await ask_status(Path(home))
    print(json.dumps(status) if namespace.json else show_status(status))
    return EXIT_OK


def show_status(status: dict[str, Any]) -> str:
    """A status for people."""
    lines = [
        f"{status['wire']}  node {status['identity']}  {status['mac']}  mtu {status['mtu']}",
        f"addresses  {' '.join(status['addresses']) or 'none yet'}",
    ]
    if status["failure"]:
        lines.append(f"refused    {status['failure']}")
    lines += [f"peer       {row}" for row in status["peers"]]
    lines += [
        f"tcp {row['state']:<12} {row['local']} -> {row['remote']}" for row in status["connections"]
    ]
    lines += [f"{row['protocol']} {row['local']}" for row in status["sockets"]]
    return "\n".join(lines)
