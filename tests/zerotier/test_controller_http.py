"""The small HTTP server in front of a controller, without a kernel."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.controller.http import BODY_LIMIT, Answer, Request, serve_connection, serve_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class Client:
    """The other end, which reads one answer at a time."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        while b"\r\n\r\n" not in self._received:
            await self._receive()
        head, _, body = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
        assert headers["content-type"] == "application/json"
        end = len(head) + 4 + int(headers["content-length"])
        while len(self._received) < end:
            await self._receive()
        body, self._received = self._received[len(head) + 4 : end], self._received[end:]
        return int(first.split()[1]), headers, json.loads(body)

    async def _receive(self) -> None:
        data = await self.stream.receive_some()
        assert data, self._received
        self._received += data


class Server:
    """What answers: the request itself, as JSON."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.requests: list[Request] = []
        self.refuse: Callable[[Request], Answer | None] = lambda request: None
        self.closed = trio.Event()

    async def respond(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer(200, {"path": request.path, "octets": len(request.body)})

    def connect(self) -> Client:
        mine, its = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, its)
        return Client(mine)

    async def _serve(self, stream: trio.StapledStream[Any, Any]) -> None:
        await serve_connection(stream, self.respond, lambda request: self.refuse(request))
        self.closed.set()


@pytest.fixture
def server(nursery: trio.Nursery) -> Server:
    return Server(nursery)


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    client = server.connect()
    pipelined = b"GET /a%20b?c=1&c=2&d HTTP/1.1\r\nHost: x\r\nX-Y: Z\r\n\r\n" + _post(
        "/second", b"123"
    )
    await client.send(pipelined)
    status, _, content = await client.answer()
    assert (status, content) == (200, {"path": "/a b", "octets": 0})
    assert server.requests[0].method == "GET"
    assert server.requests[0].query == {"c": "2"}
    assert server.requests[0].headers == {"host": "x", "x-y": "Z"}
    status, _, content = await client.answer()
    assert (status, content) == (200, {"path": "/second", "octets": 3})
    assert server.requests[1].body == b"123"
    await client.stream.aclose()
    await server.closed.wait()


async def test_a_body_may_come_in_chunks_and_after_a_question(server: Server) -> None:
    client = server.connect()
    await client.send(
        b"PUT /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
    await client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await client.answer())[2] == {"path": "/x", "octets": 5}


async def test_a_request_that_is_not_admitted_is_answered_without_its_body(server: Server) -> None:
    server.refuse = lambda request: Answer(401, {})
    client = server.connect()
    await client.send(_post("/x", b"abc")[:-3])
    status, headers, _ = await client.answer()
    assert (status, headers["connection"]) == (401, "close")
    assert server.requests == []
    await client.send(b"abc")  # it is still taken
    await client.stream.send_eof()
    assert await client.stream.receive_some() == b""
    await server.closed.wait()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_with_413(server: Server, chunked: bool) -> None:
    client = server.connect()

    async def send() -> None:
        if chunked:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
            for _ in range(BODY_LIMIT // 0x10000 + 1):
                await client.send(chunk)
        else:
            await client.send(_post("/", bytes(BODY_LIMIT + 1)))

    server.nursery.start_soon(send)
    status, headers, content = await client.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert content == {"message": f"body: at most {BODY_LIMIT} octets"}
    assert server.requests == []


async def test_a_body_of_exactly_the_limit_is_taken(server: Server) -> None:
    client = server.connect()
    server.nursery.start_soon(client.send, _post("/", bytes(BODY_LIMIT)))
    assert (await client.answer())[2]["octets"] == BODY_LIMIT


@pytest.mark.parametrize(
    "octets",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without Host
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + bytes(20_000),
    ],
)
async def test_what_is_no_request_gets_an_error_and_the_connection_ends(
    server: Server, octets: bytes
) -> None:
    client = server.connect()
    await client.send(octets)
    status, headers, content = await client.answer()
    assert status in (400, 431)
    assert headers["connection"] == "close"
    assert content["message"]
    await client.stream.aclose()
    await server.closed.wait()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", _post("/", b"abc")[:-1]])
async def test_a_slow_request_is_given_up_after_thirty_seconds(
    server: Server, autojump_clock: MockClock, sent: bytes
) -> None:
    client = server.connect()
    start = trio.current_time()
    if sent:
        await client.send(sent)
    assert await client.stream.receive_some() == b""
    assert trio.current_time() - start == 30
    assert server.requests == []


async def test_an_answer_that_nobody_reads_is_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(nursery)
    mine, its = trio.testing.lockstep_stream_pair()
    nursery.start_soon(server._serve, its)
    await mine.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    start = trio.current_time()
    await server.closed.wait()
    assert trio.current_time() - start == 30


async def test_a_client_that_goes_away_ends_its_connection_only(server: Server) -> None:
    client = server.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    await client.stream.aclose()
    await server.closed.wait()
    assert (await _ask(server, "/still"))[2] == {"path": "/still", "octets": 0}


async def _ask(server: Server, path: str) -> tuple[int, dict[str, str], Any]:
    client = server.connect()
    await client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    return await client.answer()


class Listener(trio.abc.Listener[Any]):
    """Gives out connections that a test has made."""

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[Any](100)

    async def accept(self) -> Any:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_only_so_many_connections_are_served_at_once(server: Server) -> None:
    listener = Listener()
    listeners: Any = [listener]
    server.nursery.start_soon(partial(serve_http, server.respond, lambda request: None, listeners))
    clients = []
    for _ in range(65):
        mine, its = trio.testing.memory_stream_pair()
        listener.send.send_nowait(its)
        clients.append(mine)
    await trio.testing.wait_all_tasks_blocked()
    assert await clients[64].receive_some() == b""
    await clients[0].aclose()
    await trio.testing.wait_all_tasks_blocked()
    mine, its = trio.testing.memory_stream_pair()
    listener.send.send_nowait(its)
    await mine.send_all(b"GET / HTTP/1.0\r\n\r\n")
    assert (await Client(mine).answer())[0] == 200


@settings(deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_junk_never_raises(pieces: list[bytes], after_a_request: bool) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = Server(nursery)
            client = server.connect()
            if after_a_request:
                await client.send(
                    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
            for piece in pieces:
                await client.send(piece)
            await client.stream.send_eof()
            await server.closed.wait()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
