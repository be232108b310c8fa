"""An echo server (RFC 862) on a virtual Ethernet, in user space.

Without arguments it serves every other process of this user on this machine.  On a ZeroTier
network, `zttrio universe` makes one:

    .venv/bin/python examples/echo_server.py --network ID --home DIR

Beside the kernel, as root, on a TAP device:

    ip tuntap add dev tap7 mode tap
    ip address add 10.99.0.2/24 dev tap7
    ip link set tap7 up
    .venv/bin/python examples/echo_server.py --tap tap7 --address 10.99.0.1/24
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import trio

import zttrio
from zttrio.wire import Tap

PORT = 7  # RFC 862; needs no privilege, for the port belongs to this program's own stack


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, until the client has sent everything or went away."""
    try:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # this client's connection broke; the others are still served


async def serve(
    network: zttrio.Network,
    port: int = PORT,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Echo on *port* of *network*, any number of clients at once, until cancelled."""
    await network.serve_tcp(echo, port, task_status=task_status)


async def main() -> None:
    """Serve until interrupted, after saying where, and how to try it."""
    parser = argparse.ArgumentParser(description="an echo server on a virtual Ethernet")
    parser.add_argument("--network", metavar="ID", help="a ZeroTier network")
    parser.add_argument("--home", metavar="DIR", help="identity and planet of the ZeroTier node")
    parser.add_argument("--tap", metavar="NAME", help="stand beside the kernel on this TAP device")
    parser.add_argument("--address", metavar="A/B", action="append", default=[])
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()

    wire = Tap(options.tap) if options.tap else None
    network = zttrio.Network(
        options.network, wire=wire, addresses=options.address, name="echo", home=options.home
    )
    async with network, trio.open_nursery() as nursery:
        await nursery.start(serve, network, options.port)
        addresses = [str(interface.ip) for interface in await network.wait_online()]
        print(f"echo server on {', '.join(addresses)} port {options.port}; in a second terminal:")
        if options.tap:
            print(f"  echo hello | nc -N {addresses[0]} {options.port}", flush=True)
        elif network.is_managed:
            where = f"{addresses[0]} --port {options.port} --network ID --home ANOTHER"
            print(f"  {client_command()} {where}", flush=True)
        else:
            port = "" if options.port == PORT else f" --port {options.port}"
            print(f"  {client_command()} echo.local{port}", flush=True)


def client_command() -> str:
    """How to start the client that stands beside this file, from the current folder."""
    here = Path.cwd()
    paths = [Path(sys.executable), Path(__file__).absolute().with_name("echo_client.py")]
    return " ".join(
        str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths
    )


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
