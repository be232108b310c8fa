"""A tap service on a network of its own, and a client that speaks its protocol without a shim."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import attrs
import pytest
import trio
import trio.lowlevel

from zttrio import Config, Network
from zttrio.tap import rpc, service, standin
from zttrio.wire import MemorySegment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from zttrio.tap.service import TapService

ADDRESS = "10.7.0.1"


@attrs.define
class Tap:
    """A running service."""

    network: Network
    service: TapService
    said: list[str]

    def client(self) -> Client:
        """Another thread of a program, as the service sees it."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(self.service.address)
        sock.setblocking(False)
        return Client(sock)


@attrs.define
class Client:
    """One control channel."""

    sock: socket.socket
    seq: int = 0
    apps: list[App] = attrs.field(factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        for app in self.apps:
            app.end.close()

    def adopt(self, number: int, cookie: int) -> App:
        """Own a descriptor that has come."""
        end = socket.socket(fileno=number)
        end.setblocking(False)
        assert standin.cookie_of(end) == cookie
        app = App(self, end, cookie)
        self.apps.append(app)
        return app

    def send(self, op: int, **fields: Any) -> int:
        """Ask without waiting; returns the sequence number."""
        self.seq += 1
        self.sock.send(rpc.Request(op, seq=self.seq, **fields).emit())
        return self.seq

    async def take(self) -> tuple[rpc.Answer, int]:
        """The next answer, and the descriptor that came with it or -1."""
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(self.sock)
        data, descriptors, _, _ = socket.recv_fds(self.sock, 70_000, 1)
        return rpc.Answer.parse(data), descriptors[0] if descriptors else -1

    async def ask(self, op: int, **fields: Any) -> rpc.Answer:
        """Ask, and return the answer."""
        seq = self.send(op, **fields)
        answer, _ = await self.take()
        assert (answer.op, answer.seq) == (op, seq)
        return answer

    async def socket(self, kind: int = socket.SOCK_STREAM, domain: int = socket.AF_INET) -> App:
        """What socket() does."""
        self.send(rpc.OP_SOCKET, a=domain, b=kind, payload=bytes(4))
        answer, number = await self.take()
        assert answer.ret >= 0, answer
        return self.adopt(number, answer.sock)


@attrs.define
class App:
    """A program's end of a stand-in."""

    client: Client
    end: socket.socket
    cookie: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()

    async def ask(self, op: int, **fields: Any) -> rpc.Answer:
        """Ask about this socket."""
        return await self.client.ask(op, sock=self.cookie, **fields)

    async def bind(self, host: str = ADDRESS, port: int = 0) -> int:
        """Bind, and return the port."""
        answer = await self.ask(rpc.OP_BIND, payload=sockaddr(host, port))
        assert answer.ret == 0, answer
        return (await self.name())[1]

    async def name(self) -> tuple[str, int]:
        """What getsockname() says."""
        found = rpc.Sockaddr.parse((await self.ask(rpc.OP_GETSOCKNAME)).payload)
        return socket.inet_ntoa(found.address), found.port

    async def listen(self, backlog: int = 16) -> int:
        """Bind and listen; returns the port."""
        port = await self.bind()
        assert (await self.ask(rpc.OP_LISTEN, a=backlog)).ret == 0
        return port

    def plug(self) -> int:
        """Fill the send queue, as the preload library does before it asks to connect."""
        total = 0
        for size in (65536, 4096, 1):
            while True:
                try:
                    total += self.end.send(bytes(size))
                except BlockingIOError:
                    break
        return total

    async def connect(self, host: str, port: int, *, flags: int = 0) -> rpc.Answer:
        """Plug and connect."""
        return await self.ask(
            rpc.OP_CONNECT, a=self.plug(), payload=sockaddr(host, port), flags=flags
        )

    async def receive(self, size: int = 65536) -> bytes:
        """What comes next."""
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(self.end)
        return self.end.recv(size)

    async def receive_exactly(self, size: int) -> bytes:
        """So many octets."""
        data = b""
        while len(data) < size:
            piece = await self.receive(size - len(data))
            assert piece
            data += piece
        return data

    async def send_all(self, data: bytes) -> None:
        """All of it."""
        view = memoryview(data)
        while view:
            with trio.fail_after(10):
                await trio.lowlevel.wait_writable(self.end)
            try:
                view = view[self.end.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.checkpoint()

    async def accept(self) -> tuple[App, rpc.AcceptRecord]:
        """Take a connection from a listening stand-in."""
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(self.end)
        data, descriptors, _, _ = socket.recv_fds(self.end, 80, 1)
        record = rpc.AcceptRecord.parse(data)
        app = self.client.adopt(descriptors[0], record.cookie)
        assert app.end.recv(1) == b"\0"  # the marker
        return app, record


async def until(condition: Callable[[], object]) -> None:
    """Return when *condition* holds, which other tasks bring about."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - a condition of theirs, without an event
            await trio.lowlevel.checkpoint()


async def connected(client: Client) -> tuple[App, App, App]:
    """A listener, and both ends of a connection to it."""
    listener = await client.socket()
    port = await listener.listen()
    caller = await client.socket()
    assert (await caller.connect(ADDRESS, port)).ret == 0
    accepted, _ = await listener.accept()
    return listener, caller, accepted


def sockaddr(host: str, port: int) -> bytes:
    return rpc.Sockaddr(socket.inet_aton(host), port).emit()


@pytest.fixture
async def tap(tmp_path: Path) -> AsyncIterator[Tap]:
    wire = MemorySegment().attach("tap")
    config = Config(time_wait=0.01)
    async with (
        Network(wire=wire, addresses=[f"{ADDRESS}/24"], config=config, name="me") as network,
        trio.open_nursery() as nursery,
    ):
        said: list[str] = []
        made = await nursery.start(
            partial(
                service.serve,
                network._driver,
                network._resolver,
                name="me",
                path=tmp_path / "service" / "nc",
                say=said.append,
            )
        )
        yield Tap(network, made, said)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def client(tap: Tap) -> AsyncIterator[Client]:
    with tap.client() as made:
        yield made
