"""A program annotated with trio-typing, which its users may still have; see `.ci/trio-typing`.

Run as a script it shows that such a program works with zttrio, and mypy shows that it type-checks.
It is not part of the test suite: trio-typing must not be installed beside the suite's type checker.
Annotations are evaluated when it runs, as they are in most such programs.
"""

import sys

import trio
import trio.testing
import trio_typing

import zttrio
from zttrio.testing import Lab

QUESTION = b"typed by trio-typing"


class Recorder(trio_typing.TaskStatus[list[trio.SocketListener]]):
    """A task status of the user's own making, for a service that nobody waits for."""

    def __init__(self) -> None:
        self.started_with: list[trio.SocketListener] | None = None
        self.has_started = trio.Event()

    def started(self, value: list[trio.SocketListener] | None = None) -> None:
        self.started_with = value
        self.has_started.set()


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.aclose()


async def service(
    network: zttrio.Network,
    port: int,
    *,
    task_status: trio_typing.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """A service of the user's, whose status comes from zttrio's."""
    await network.serve_tcp(echo, port, task_status=task_status)


async def ask(network: zttrio.Network, host: str, port: int) -> bytes:
    stream = await network.open_tcp_stream(host, port)
    await stream.send_all(QUESTION)
    await stream.send_eof()
    return bytes(await stream.receive_some())


async def main() -> None:
    lab = Lab(seed=1)
    recorder = Recorder()

    async def serve_and_record() -> None:
        await server.serve_tcp(echo, 9, task_status=recorder)

    async with (
        lab.network("server") as server,
        lab.network("client") as client,
        trio.open_nursery() as nursery,
    ):
        services: trio_typing.Nursery = nursery
        await services.start(service, server, 7)
        await services.start(server.serve_tcp, echo, 8)
        services.start_soon(serve_and_record)
        await recorder.has_started.wait()
        for port in (7, 8, 9):
            answer = await ask(client, "server", port)
            if answer != QUESTION:
                sys.exit(f"port {port} answered {answer!r}")
        if not recorder.started_with:
            sys.exit("serve_tcp did not say where it listens")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    sys.stdout.write("a program annotated with trio-typing works with zttrio\n")
