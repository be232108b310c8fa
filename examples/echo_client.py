"""Sends a line to an echo server on the virtual Ethernet and shows it come back."""

from __future__ import annotations

import argparse
import sys

import trio

import zttrio
from zttrio.wire import Tap

PORT = 7  # RFC 862


async def ask(network: zttrio.Network, host: str, port: int, line: bytes) -> bytes:
    """Send *line* to *host* and return everything that it answers."""
    async with await network.open_tcp_stream(host, port) as stream:
        await stream.send_all(line)
        await stream.send_eof()
        return b"".join([bytes(chunk) async for chunk in stream])


async def main() -> None:
    """Ask the server that the command line names."""
    parser = argparse.ArgumentParser(description="a client for echo_server.py")
    parser.add_argument("host", nargs="?", default="echo.local")
    parser.add_argument("line", nargs="?", default="hello from user space")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--network", metavar="ID", help="a ZeroTier network")
    parser.add_argument("--home", metavar="DIR", help="identity and planet of the ZeroTier node")
    parser.add_argument("--tap", metavar="NAME", help="stand beside the kernel on this TAP device")
    parser.add_argument("--address", metavar="A/B", action="append", default=[])
    options = parser.parse_args()

    wire = Tap(options.tap) if options.tap else None
    network = zttrio.Network(
        options.network, wire=wire, addresses=options.address, home=options.home
    )
    async with network:
        await network.wait_online()
        try:
            answer = await ask(network, options.host, options.port, f"{options.line}\n".encode())
        except OSError as exc:
            sys.exit(f"{options.host}: {exc}; is the server running?")
    print(f"{options.host} answered: {answer.decode()}", end="")


if __name__ == "__main__":
    trio.run(main)
