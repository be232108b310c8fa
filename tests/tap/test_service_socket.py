"""Where the service's socket is, and who may use it."""

from __future__ import annotations

import os
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Network
from zttrio.errors import InterceptError
from zttrio.tap import channel, rpc, service
from zttrio.wire import MemorySegment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zttrio.tap.service import TapService


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    wire = MemorySegment().attach("one")
    async with Network(wire=wire, addresses=["10.7.0.1/24"]) as made:
        yield made


async def start(
    network: Network, nursery: trio.Nursery, path: Path | None = None, **options: object
) -> TapService:
    made: TapService = await nursery.start(
        partial(
            service.serve,
            network._driver,
            network._resolver,
            path=path,
            **options,  # type: ignore[arg-type]
        )
    )
    return made


async def test_the_folder_is_made_private(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "new" / "nc"
    async with trio.open_nursery() as nursery:
        tap = await start(network, nursery, path)
        assert tap.address == str(path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_folder_open_to_others_is_refused(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(InterceptError, match="closed to others"):
        await service.serve(network._driver, network._resolver, path=folder / "nc")


async def test_a_folder_that_is_a_link_is_refused(network: Network, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InterceptError, match="must be a folder"):
        await service.serve(network._driver, network._resolver, path=tmp_path / "link" / "nc")


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "private" / "nc"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(path))
    async with trio.open_nursery() as nursery:
        await start(network, nursery, path)
        with pytest.raises(InterceptError, match="another service is running"):
            await service.serve(network._driver, network._resolver, path=path)
        assert path.exists()
        nursery.cancel_scope.cancel()


async def test_a_path_too_long_for_a_socket_becomes_an_abstract_name(
    network: Network, tmp_path: Path
) -> None:
    async with trio.open_nursery() as nursery:
        tap = await start(network, nursery, tmp_path / ("long" * 40) / "nc")
        assert tap.address.startswith("@zttrio-")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect("\0" + tap.address[1:])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "request_",
    [
        rpc.Request(rpc.OP_BIND, sock=5, payload=bytes(4)),
        rpc.Request(rpc.OP_SOCKET, sock=0, a=2, b=1, payload=bytes(4)),
        rpc.Request(rpc.OP_SOCKET, sock=5, a=2, b=2, payload=bytes(4)),
        rpc.Request(rpc.OP_SOCKET, sock=5, a=1, b=1, payload=bytes(4)),
        rpc.Request(rpc.OP_SOCKET, sock=5, a=2, b=1, payload=b"\x11\0\0\0"),
    ],
)
async def test_a_connection_becomes_no_socket_without_a_proper_request(
    network: Network, tmp_path: Path, request_: rpc.Request
) -> None:
    async with trio.open_nursery() as nursery:
        tap = await start(network, nursery, tmp_path / "private" / "nc")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(tap.address + ".s")
            sock.setblocking(False)
            sock.send(request_.emit())
            with trio.fail_after(10):
                await trio.lowlevel.wait_readable(sock)
            answer = sock.recv(100)
            assert not answer or rpc.Answer.parse(answer).ret < 0
        assert not tap.broker.connections
        nursery.cancel_scope.cancel()


async def test_a_connection_that_asks_for_nothing_is_closed(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "PATIENCE", 0.01)
    async with trio.open_nursery() as nursery:
        tap = await start(network, nursery, tmp_path / "private" / "nc")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(tap.address + ".s")
            sock.setblocking(False)
            with trio.fail_after(10):
                await trio.lowlevel.wait_readable(sock)
            assert sock.recv(1) == b""
        nursery.cancel_scope.cancel()


async def test_users_who_are_not_allowed_are_not_served(network: Network, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        users = {os.geteuid() + 1}
        tap = await start(network, nursery, tmp_path / "private" / "nc", users=users)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(tap.address)
            sock.setblocking(False)
            with trio.fail_after(10):
                await trio.lowlevel.wait_readable(sock)
            assert sock.recv(1) == b""
        assert tap.broker.counters.clients_refused == 1
        nursery.cancel_scope.cancel()


def test_the_default_folder_is_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert service.default_folder() == tmp_path / "zttrio"
    assert service.private_path() != service.private_path()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert service.default_folder().name == f"zttrio-{os.geteuid()}"
