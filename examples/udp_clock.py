"""A clock that answers every datagram with the time (RFC 867), and a client that asks it.

.venv/bin/python examples/udp_clock.py              # the clock
.venv/bin/python examples/udp_clock.py --ask clock.local
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

import trio

import zttrio

PORT = 13  # RFC 867
RETRY_AFTER = 1.0  # seconds; arbitrary.  Datagrams get lost, also on a virtual Ethernet
ATTEMPTS = 3  # arbitrary


async def serve(
    network: zttrio.Network,
    port: int = PORT,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer datagrams on *port* of *network* until cancelled."""
    with await network.open_udp_socket(port) as sock:
        task_status.started()
        while True:
            _, client = await sock.recvfrom(1)  # what the client says does not matter
            await sock.sendto(f"{datetime.now(UTC):%A, %B %d, %Y %H:%M:%S UTC}".encode(), client)


async def ask(network: zttrio.Network, host: str, port: int = PORT) -> str:
    """The time at *host*.

    Raises:
        OSError: the host is unreachable, or nothing listens on the port.
        TimeoutError: it did not answer.
    """
    with await network.open_udp_socket() as sock:
        await sock.connect((host, port))
        for _ in range(ATTEMPTS):
            await sock.send(b"\n")
            with trio.move_on_after(RETRY_AFTER):
                return (await sock.recv(1024)).decode()
    raise TimeoutError(f"{host} did not answer {ATTEMPTS} datagrams")


async def main() -> None:
    """Be the clock, or ask it."""
    parser = argparse.ArgumentParser(description="the time of day over UDP")
    parser.add_argument("--ask", metavar="HOST", help="ask the clock there instead of being one")
    options = parser.parse_args()

    if options.ask:
        async with zttrio.Network() as network:
            await network.wait_online()
            try:
                print(f"{options.ask}: {await ask(network, options.ask)}")
            except OSError as exc:
                sys.exit(f"{options.ask}: {exc}; is the clock running?")
    else:
        async with zttrio.Network(name="clock") as network, trio.open_nursery() as nursery:
            await nursery.start(serve, network)
            addresses = ", ".join(str(address.ip) for address in await network.wait_online())
            print(f"clock on {addresses} port {PORT}, known as clock.local", flush=True)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
