"""``zttrio ping``: is a host there, and how long does an answer take?"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from typing import TYPE_CHECKING

import trio

from .main import EXIT_FAILED, EXIT_OK, Subparsers
from .network import add_options, open_network, wait_online

if TYPE_CHECKING:
    from zttrio.network import Network

__all__ = ["ping", "register", "run"]


def register(subparsers: Subparsers) -> None:
    """Add ``ping`` to the command line."""
    parser = subparsers.add_parser("ping", help="measure the round trip to a host")
    parser.add_argument("host", help="a name or an address")
    parser.add_argument("-c", "--count", type=_count, metavar="N", help="stop after N requests")
    parser.add_argument(
        "-i",
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="between two requests (default: %(default)s)",
    )
    parser.add_argument(
        "-W",
        "--wait",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="for each answer (default: %(default)s)",
    )
    add_options(parser)
    parser.set_defaults(run=run)


async def run(namespace: argparse.Namespace) -> int:
    """Carry out the command; 0 if at least one answer came."""
    async with open_network(namespace) as network:
        await wait_online(network)
        return await ping(
            network,
            namespace.host,
            count=namespace.count,
            interval=namespace.interval,
            wait=namespace.wait,
        )


async def ping(
    network: Network, host: str, *, count: int | None, interval: float, wait: float
) -> int:
    """Ping *host* and print a line for each request and a summary.

    Args:
        network: the network to do it on.
        host: a name or an address.
        count: how many requests, or None to go on until interrupted.
        interval: seconds from one request to the next.
        wait: seconds until a request counts as lost.
    """
    times: list[float] = []
    sent = 0
    try:
        while count is None or sent < count:
            next_at = trio.current_time() + interval
            sent += 1
            with trio.move_on_after(wait) as scope:
                try:
                    times.append(await network.ping(host))
                    print(f"answer from {host}: seq={sent} time={_ms(times[-1])}", flush=True)
                except OSError as exc:
                    print(f"no answer from {host}: seq={sent} {exc}", file=sys.stderr)
            if scope.cancelled_caught:
                print(f"no answer from {host}: seq={sent} after {wait:g} s", file=sys.stderr)
            if count is None or sent < count:
                await trio.sleep_until(next_at)
    finally:  # the summary is what an interrupted ping is run for
        print(_summary(host, sent, times))
    return EXIT_OK if times else EXIT_FAILED


def _summary(host: str, sent: int, times: list[float]) -> str:
    text = f"{host}: {sent} sent, {len(times)} answered"
    if times:
        text += f", min {_ms(min(times))}, median {_ms(statistics.median(times))}"
        text += f", max {_ms(max(times))}"
    return text


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
