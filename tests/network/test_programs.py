"""`run_process` and `serve_tap`: unmodified programs on a Network."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import InterceptError, Network
from zttrio.intercept import preload
from zttrio.wire import HostSegment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel

CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
    s.sendall(b"hello")
    s.shutdown(socket.SHUT_WR)
    sys.stdout.write(s.makefile().read())
"""


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(b"you said " + data)


@pytest.fixture
def cable(tmp_path: Path) -> Path:
    return tmp_path / "cable"


async def test_an_unmodified_program_is_a_client_by_name(cable: Path) -> None:
    async with Network(wire=HostSegment(cable), name="server") as server:
        await server.wait_online()
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_tcp, echo, 7)
            async with Network(wire=HostSegment(cable)) as client:
                await client.wait_online()
                done = await client.run_process(
                    [sys.executable, "-c", CLIENT, "server.local", "7"], capture_stdout=True
                )
                assert done.stdout == b"you said hello"
            nursery.cancel_scope.cancel()


async def test_a_program_started_elsewhere_finds_the_service(cable: Path, tmp_path: Path) -> None:
    async with Network(wire=HostSegment(cable)) as net, trio.open_nursery() as nursery:
        await net.wait_online()
        await nursery.start(net.serve_tcp, echo, 7)
        tap = await nursery.start(net.serve_tap, tmp_path / "tap" / "socket")
        done = await trio.run_process(
            [sys.executable, "-c", CLIENT, str(net.addresses[0].ip), "7"],
            capture_stdout=True,
            env=preload.environment(tap.address),
        )
        assert done.stdout == b"you said hello"
        nursery.cancel_scope.cancel()


async def test_a_service_has_a_name_and_says_what_it_blocked(
    cable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    said: list[str] = []
    program = "import socket; socket.socket().connect_ex(('203.0.113.9', 80))"
    async with Network(wire=HostSegment(cable)) as net, trio.open_nursery() as nursery:
        await net.wait_online()
        tap = await nursery.start(partial(net.serve_tap, network="lan", say=said.append))
        assert tap.address == str(tmp_path / "zttrio" / "nc_lan")
        await trio.run_process(
            [sys.executable, "-c", program], env=preload.environment(tap.address)
        )
        nursery.cancel_scope.cancel()
    assert len(said) == 1
    assert "203.0.113.9" in said[0]


async def test_failures_leave_as_themselves(cable: Path) -> None:
    async with Network(wire=HostSegment(cable)) as net:
        with pytest.raises(InterceptError, match="no such program"):
            await net.run_process(["no-such-program-anywhere"])
        with pytest.raises(subprocess.CalledProcessError):
            await net.run_process([sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(ValueError, match="via"):
            await net.run_process(["true"], via="tunnel")  # type: ignore[arg-type]
