"""One end of one measurement, in a process of its own: ``python -m benchmarks.endpoint``.

It knows three kinds of TCP: the kernel's, driven by plain blocking sockets, so that the anchors are
as fast as Python allows; the kernel's under trio; and zttrio's under trio.  A listener prints
``{"ready": true}`` when it can be connected to; both print one JSON object when done.  What each
end does is in `works`.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import json
import pstats
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from . import works

if TYPE_CHECKING:
    from zttrio.abc import Wire

PROFILE_LINES = 30
DESCRIPTORS = 8192  # arbitrary, more than the most connections of any row


# the kernel's TCP


def kernel_endpoint(options: argparse.Namespace) -> works.Result:
    address = (options.host, options.port)
    if not options.listen:
        return works.kernel_connector(address, options)
    with works.kernel_listener(address) as listener:
        print(json.dumps({"ready": True}), flush=True)
        return works.kernel_answerer(listener, options)


async def trio_endpoint(options: argparse.Namespace) -> works.Result:
    """What a program has that uses trio without zttrio."""
    if options.listen:
        [listener] = await trio.open_tcp_listeners(options.port, host=options.host, backlog=1024)
        async with listener:
            print(json.dumps({"ready": True}), flush=True)
            return await works.stream_answerer(listener.accept, options)

    async def open_stream() -> trio.SocketStream:
        return await trio.open_tcp_stream(options.host, options.port)

    return await works.stream_connector(open_stream, options)


# zttrio's TCP


async def zttrio_endpoint(options: argparse.Namespace) -> works.Result:
    from zttrio import Network  # here, because an anchor's process should not carry it
    from zttrio.wire import HostSegment, Tap

    is_host = options.transport == "host"
    wire: Wire = (
        HostSegment(options.folder)
        if is_host
        else Tap(options.tap, offload=not options.plain, coalesce=not options.single)
    )
    async with Network(wire=wire, addresses=[options.address]) as network:
        await network.wait_online()
        profile = cProfile.Profile() if options.profile else None
        if options.listen:
            [listener] = await network.open_tcp_listeners(
                options.port, host=options.host, backlog=1024
            )
            async with listener:
                print(json.dumps({"ready": True}), flush=True)
                result = await works.stream_answerer(listener.accept, options, profile)
        else:
            result = await works.stream_connector(
                lambda: network.open_tcp_stream(options.host, options.port), options, profile
            )
    if profile is not None:
        result["profile"] = profile_text(profile)
    return result


def profile_text(profile: cProfile.Profile) -> str:
    """The functions that took most time themselves, as cProfile prints them."""
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", choices=["kernel", "trio", "host", "tap"], required=True)
    parser.add_argument("--folder", type=Path, help="of the host segment")
    parser.add_argument("--tap", help="name of the TAP device")
    parser.add_argument("--plain", action="store_true", help="use the TAP device without offloads")
    parser.add_argument("--single", action="store_true", help="and without merging segments")
    parser.add_argument("--address", help="ours, with its prefix length")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--host", required=True, help="where to listen or to connect to")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--work", choices=sorted({*works.ANSWERS, *works.ASKS}), required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.connections > 1:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if options.transport == "kernel":
        result = kernel_endpoint(options)
    elif options.transport == "trio":
        result = trio.run(trio_endpoint, options)
    else:
        result = trio.run(zttrio_endpoint, options)
    result["is_ours"] = options.transport in ("host", "tap")
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
