"""HTTP/1.1 for one small service: requests in, answers out, everything bounded.

Knows connections, sizes and time limits (RFC 9112, through h11); what a request means is `api`'s
business.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import h11
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Answer", "Request", "serve_connection", "serve_http"]

BODY_LIMIT = 4 << 20  # octets; a network with all its rules and capabilities has less than one
_HEAD_LIMIT = 16_384  # octets; arbitrary
_READ_TIME = 30.0  # seconds for a whole request, and for the next one; arbitrary
_WRITE_TIME = 30.0  # arbitrary
_CONNECTIONS = 64  # arbitrary
_LINGER = 2.0  # seconds that the rest of a refused request may take; arbitrary
_CHUNK = 65_536


@attrs.frozen
class Request:
    """What somebody wants.

    Attributes:
        method: in capitals.
        path: decoded, without the query.
        query: the last value of each key.
        headers: by name in small letters; of several the last.
        body: at most 4 MiB.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False, default=b"")


@attrs.frozen
class Answer:
    """What it gets: a status and a JSON value."""

    status: int
    content: Any


async def serve_http(
    respond: Callable[[Request], Awaitable[Answer]],
    admit: Callable[[Request], Answer | None],
    listeners: list[trio.SocketListener],
) -> None:
    """Serve connections until cancelled; more than 64 at once are closed without an answer.

    Args:
        respond: carries out a request.
        admit: called with a request that has no body yet; what it returns is the answer, and the
            connection is closed without reading the body.
        listeners: closed at the end.
    """
    connections = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal connections
        if connections >= _CONNECTIONS:
            await stream.aclose()
            return
        connections += 1
        try:
            await serve_connection(stream, respond, admit)
        finally:
            connections -= 1

    await trio.serve_listeners(handle, listeners)


async def serve_connection(
    stream: trio.abc.HalfCloseableStream,
    respond: Callable[[Request], Awaitable[Answer]],
    admit: Callable[[Request], Answer | None],
) -> None:
    """Serve one connection until it is over, and close it; see `serve_http`."""
    try:
        async with stream:
            await _Connection(stream, respond, admit).serve()
    except trio.BrokenResourceError:
        pass  # whoever asked has gone


class _RefusedError(Exception):
    """The request gets this answer, and the connection no other one."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class _Connection:
    """One connection: requests one after the other."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        respond: Callable[[Request], Awaitable[Answer]],
        admit: Callable[[Request], Answer | None],
    ) -> None:
        self._stream = stream
        self._respond = respond
        self._admit = admit
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)

    async def serve(self) -> None:
        """Answer until the other side has had enough, or does not speak HTTP, or is too slow."""
        while True:
            try:
                with trio.move_on_after(_READ_TIME) as reading:
                    request = await self._read_request()
                if reading.cancelled_caught or request is None:
                    return
                answer = await self._respond(request)
            except h11.RemoteProtocolError as exc:
                await self._refuse(Answer(exc.error_status_hint, {"message": str(exc)}))
                return
            except _RefusedError as exc:
                await self._refuse(exc.answer)
                return
            await self._answer(answer, is_last=False)
            if self._http.our_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def _read_request(self) -> Request | None:
        """The next request, whole; None if there is none."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        request = _parse(event)
        refusal = self._admit(request)
        if refusal is None and int(request.headers.get("content-length", "0")) > BODY_LIMIT:
            refusal = _too_large()
        if refusal is not None:
            raise _RefusedError(refusal)
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            body += event.data
            if len(body) > BODY_LIMIT:
                raise _RefusedError(_too_large())
        return attrs.evolve(request, body=bytes(body))

    async def _next_event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(bytes(await self._stream.receive_some(_CHUNK)))

    async def _refuse(self, answer: Answer) -> None:
        """Give the last answer, and let the rest of what is being sent arrive.

        Closing at once would make the kernel send a reset, which can overtake the answer.
        """
        await self._answer(answer, is_last=True)
        with trio.move_on_after(_LINGER):
            await self._stream.send_eof()
            left = 2 * BODY_LIMIT
            while left > 0 and (data := await self._stream.receive_some(_CHUNK)):
                left -= len(data)

    async def _answer(self, answer: Answer, *, is_last: bool) -> None:
        body = json.dumps(answer.content).encode() + b"\n"
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
        ]
        if is_last:
            headers.append(("connection", "close"))
        with trio.move_on_after(_WRITE_TIME) as writing:
            reason = HTTPStatus(answer.status).phrase.encode()
            head = h11.Response(status_code=answer.status, headers=headers, reason=reason)
            await self._send(head)
            await self._send(h11.Data(data=body))
            await self._send(h11.EndOfMessage())
        if writing.cancelled_caught:
            raise trio.BrokenResourceError("nobody reads the answer")

    async def _send(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            await self._stream.send_all(data)


def _parse(event: h11.Request) -> Request:
    try:
        target = event.target.decode("ascii")
        parts = urlsplit(target)
        path, query = unquote(parts.path, errors="strict"), parse_qs(parts.query)
    except ValueError as exc:
        raise _RefusedError(Answer(400, {"message": f"target: {exc}"})) from exc
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
    last = {key: values[-1] for key, values in query.items()}
    return Request(event.method.decode("ascii"), path, last, headers)


def _too_large() -> Answer:
    return Answer(413, {"message": f"body: at most {BODY_LIMIT} octets"})
