"""httpx, which has never heard of zttrio, fetches a page over the virtual Ethernet.

.venv/bin/pip install httpx
.venv/bin/python examples/http_client.py
.venv/bin/python examples/http_client.py http://some-host.local:8000/
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import httpx
import trio

import zttrio

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = b"<p>This page has never touched the kernel's TCP.</p>\n"
REQUEST_LIMIT = 65536  # octets; arbitrary, what most web servers allow for a request's head


async def fetch(network: zttrio.Network, url: str) -> httpx.Response:
    """The response to a GET of *url*, whose host is looked up and reached on *network*."""
    with network.as_default():
        async with httpx.AsyncClient() as client:
            return await client.get(url)


async def serve_page(
    network: zttrio.Network,
    port: int,
    *,
    page: bytes = PAGE,
    task_status: trio.TaskStatus[Sequence[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer every HTTP request on *port* of *network* with *page*, until cancelled."""

    async def answer(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                head = b""
                while b"\r\n\r\n" not in head and len(head) < REQUEST_LIMIT:
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                status = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
                await stream.send_all(status + b"Content-Length: %d\r\n\r\n" % len(page) + page)
        except trio.BrokenResourceError:
            pass  # this client's connection broke; the others are still served

    await network.serve_tcp(answer, port, task_status=task_status)


async def main() -> None:
    """Fetch the URL of the command line, or serve a page and fetch that."""
    parser = argparse.ArgumentParser(description="httpx over a virtual Ethernet")
    parser.add_argument("url", nargs="?")
    options = parser.parse_args()

    async with zttrio.Network() as network:
        await network.wait_online()
        if options.url:
            print((await fetch(network, options.url)).text)
            return
        async with zttrio.Network(name="web") as web, trio.open_nursery() as nursery:
            await web.wait_online()
            await nursery.start(serve_page, web, 80)
            response = await fetch(network, "http://web.local/")
            print(f"{response.url} answered {response.status_code}: {response.text}", end="")
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
