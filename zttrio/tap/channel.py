"""One control channel: requests of one thread of one program, answered in a task of its own."""

from __future__ import annotations

import errno
import os
import socket
import struct
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

import trio

from zttrio.errors import RpcError

from . import rpc
from .broker import Reply

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["Channel", "peer_of", "repurpose"]

PATIENCE = 5.0  # s that a connection has for its one request; arbitrary
ROUNDS = 64  # requests before other tasks get their turn; arbitrary
WAITING = 64  # blocking requests of one channel that may be under way; arbitrary
_CREDENTIALS = struct.Struct("=iII")
_SOCKET_REQUEST = rpc.HEADER_LENGTH + 4
_ROOM = rpc.HEADER_LENGTH + rpc.PAYLOAD_LIMIT + 1  # one more, to notice what is too long


@cache
def _version() -> str:
    try:
        return metadata.version("zttrio")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process ID and user ID of whoever connected *sock*, as the kernel knows them."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid


async def repurpose(sock: socket.socket, broker: Broker) -> None:
    """Turn a stream connection into a socket, as the seed did; it is closed if that fails.

    The request has to come within `PATIENCE` and has to be the only one.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    data = b""
    try:
        with trio.move_on_after(PATIENCE):
            while len(data) < _SOCKET_REQUEST:
                await trio.lowlevel.wait_readable(sock)
                piece = sock.recv(_SOCKET_REQUEST - len(data))
                if not piece:
                    break
                data += piece
        answer = broker.repurpose(rpc.Request.parse(data), sock)
    except RpcError:
        broker.counters.requests_malformed += 1
        sock.close()
    except OSError as exc:
        sock.close()
        if exc.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
    except BaseException:
        sock.close()
        raise
    else:
        if answer.ret < 0:
            sock.send(answer.emit(), socket.MSG_NOSIGNAL)
            sock.close()


class Channel:
    """Serves one client connection.

    Args:
        sock: the accepted SOCK_SEQPACKET socket; closed at the end.
        broker: what the requests are for.
        network: what the network is called.
    """

    def __init__(self, sock: socket.socket, broker: Broker, network: str) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._broker = broker
        self._network = network
        self._client = f"process {peer_of(sock)[0]}"
        self._under_way: dict[int, trio.CancelScope] = {}
        self._sending = trio.Lock()

    async def run(self) -> None:
        """Answer requests until the program closes its end or sends what is no request.

        A bad request ends this channel and nothing else.
        """
        with self._socket:
            async with trio.open_nursery() as nursery:
                try:
                    await self._serve(nursery)
                except RpcError:
                    self._broker.counters.requests_malformed += 1
                except OSError as exc:
                    if exc.errno not in (errno.EPIPE, errno.ECONNRESET):
                        raise
                nursery.cancel_scope.cancel()

    async def _serve(self, nursery: trio.Nursery) -> None:
        served = 0
        while True:
            try:
                message = self._socket.recv(_ROOM)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                served = 0
                continue
            if not message:
                return
            try:
                request = rpc.Request.parse(message)
            except RpcError:
                await self._refuse_version(message)  # noqa: ASYNC120 - then nobody is left to hear it
                raise
            await self._take(request, nursery)
            served += 1
            if served == ROUNDS:
                await trio.lowlevel.checkpoint()
                served = 0

    async def _refuse_version(self, message: bytes) -> None:
        """Another version of the protocol is told ours before the channel closes."""
        version = rpc.version_of(message)
        if version is not None and version[0] != rpc.MAJOR:
            _, op, seq = version
            await self._send(rpc.Answer(op & ~rpc.ANSWER_BIT, seq, -1, errno.EPROTO).emit(), None)

    async def _take(self, request: rpc.Request, nursery: trio.Nursery) -> None:
        if request.op == rpc.OP_HELLO:
            await self._answer(request, self._greet(request))
        elif request.op == rpc.OP_CANCEL:
            scope = self._under_way.pop(request.a & 0xFFFF_FFFF, None)
            if scope is not None:
                scope.cancel()
        elif not self._broker.is_blocking(request):
            reply = await self._broker.perform(request, self._client)
            if request.op != rpc.OP_NOTE and not request.flags & rpc.REQUEST_NOREPLY:
                await self._answer(request, reply)
        elif len(self._under_way) >= WAITING:
            raise RpcError(f"channel: {WAITING} blocking requests are under way")
        else:
            nursery.start_soon(self._perform_later, request)

    async def _perform_later(self, request: rpc.Request) -> None:
        """A blocking request: the channel goes on meanwhile, for the caller may give up."""
        with trio.CancelScope() as scope:
            self._under_way[request.seq] = scope
            try:
                reply = await self._broker.perform(request, self._client)
            except RpcError:
                self._broker.counters.requests_malformed += 1
                self._socket.shutdown(socket.SHUT_RDWR)
                return
            finally:
                if self._under_way.get(request.seq) is scope:
                    del self._under_way[request.seq]
            try:
                await self._answer(request, reply)
            except OSError as exc:
                if exc.errno not in (errno.EPIPE, errno.ECONNRESET):
                    raise

    def _greet(self, request: rpc.Request) -> Reply:
        hello = rpc.HelloRequest.parse(request.payload)
        program = os.path.basename(hello.name or hello.executable) or "?"
        printable = "".join(c if c.isprintable() else "?" for c in program)
        self._client = f"{printable} (process {hello.pid})"
        if request.a != rpc.ABI:
            self._broker.report(f"{self._client}: preload library of another version")
            return Reply(-1, errno.EPROTO)
        policy = self._broker.policy
        features = 0
        if policy.is_strict:
            features |= rpc.FEATURE_STRICT
        if policy.has_host_rules:
            features |= rpc.FEATURE_HOST
        if not self._broker.keeps_residue:
            features |= rpc.FEATURE_ASK_END
        if self._broker.can_repurpose:
            features |= rpc.FEATURE_REPURPOSE
        answer = rpc.HelloAnswer(features, os.getpid(), _version(), self._network, policy.digest())
        return Reply(payload=answer.emit())

    async def _answer(self, request: rpc.Request, reply: Reply) -> None:
        answer = rpc.Answer(
            request.op,
            request.seq,
            reply.ret,
            reply.err,
            reply.flags,
            reply.sock or request.sock,
            reply.payload,
        )
        try:
            await self._send(answer.emit(), reply.descriptor)
        finally:
            if reply.descriptor is not None:
                reply.descriptor.close()

    async def _send(self, message: bytes, descriptor: socket.socket | None) -> None:
        """Send one message; waits only for a program that does not read its answers."""
        descriptors = [] if descriptor is None else [descriptor.fileno()]
        while True:  # noqa: ASYNC913 - it waits, or it is done
            try:
                if descriptors:
                    socket.send_fds(self._socket, [message], descriptors, socket.MSG_NOSIGNAL)
                else:
                    self._socket.send(message, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await self._wait_writable()
            except OSError as exc:
                if exc.errno != errno.ETOOMANYREFS:
                    raise
                await trio.sleep(0.01)  # descriptors on their way to others; there is no event
            else:
                return

    async def _wait_writable(self) -> None:
        async with self._sending:  # trio lets one task wait for it
            await trio.lowlevel.wait_writable(self._socket)
