"""One of our Networks on a ZeroTier network, run as a process of its own in a namespace.

Writes one JSON object a line: what becomes of it, and an answer to each line of standard input:
``serve PORT`` (TCP and UDP echo), ``transfer HOST PORT OCTETS`` (sent, echoed and compared),
``connect HOST PORT SECONDS``, ``ping HOST SECONDS``, ``udp HOST PORT TEXT SECONDS``,
``listen GROUP PORT``, ``status``, ``quit``.

    our_member.py HOME PLANET NETWORK
"""

from __future__ import annotations

import hashlib
import socket
import sys
import time
from functools import partial

import trio

from our_node import emit  # type: ignore[import-not-found]  # beside this file
from zttrio import JoinError, Network

BLOCK = bytes(range(251)) * 261


async def watch(net: Network) -> None:
    """Tell when it is online, and what keeps it from that."""
    failure = ""
    while True:
        try:
            addresses = await net.wait_online()
            break
        except JoinError as exc:
            if str(exc) != failure:
                failure = str(exc)
                emit(event="refused", why=failure, kind=type(exc).__name__)
        await trio.sleep(0.1)
    emit(event="online", addresses=[str(interface.ip) for interface in addresses])


async def echo(stream: trio.SocketStream) -> None:
    try:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


async def echo_datagrams(net: Network, port: int) -> None:
    with await net.open_udp_socket(port) as sock:
        while True:
            data, sender = await sock.recvfrom(65535)
            await sock.sendto(data, sender)


async def transfer(net: Network, host: str, port: int, size: int) -> None:
    sent, received = hashlib.sha256(), hashlib.sha256()
    octets = 0
    started = time.monotonic()

    async def send() -> None:
        left = size
        while left:
            part = BLOCK[:left]
            sent.update(part)
            await stream.send_all(part)
            left -= len(part)
        await stream.send_eof()

    async with await net.open_tcp_stream(host, port) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for data in stream:
            received.update(data)
            octets += len(data)
    emit(
        event="transfer",
        octets=octets,
        intact=sent.digest() == received.digest(),
        seconds=time.monotonic() - started,
    )


async def listen(net: Network, group: str, port: int) -> None:
    with await net.open_udp_socket(port) as sock:
        membership = socket.inet_aton(group) + bytes(4)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        emit(event="listening")
        while True:
            data, sender = await sock.recvfrom(65535)
            emit(event="heard", text=data.decode(), sender=sender[0])


async def command(net: Network, nursery: trio.Nursery, words: list[str]) -> None:
    match words:
        case ["serve", port]:
            await nursery.start(partial(net.serve_tcp, echo, int(port)))
            nursery.start_soon(echo_datagrams, net, int(port))
            emit(event="serving")
        case ["transfer", host, port, size]:
            await transfer(net, host, int(port), int(size))
        case ["connect", host, port, seconds]:
            result = "silence"
            with trio.move_on_after(float(seconds)):
                try:
                    await (await net.open_tcp_stream(host, int(port))).aclose()
                    result = "connected"
                except OSError as exc:
                    result = str(exc.strerror)
            emit(event="connect", result=result)
        case ["ping", host, seconds]:
            answer: float | None = None
            with trio.move_on_after(float(seconds)):
                try:
                    answer = await net.ping(host)
                except OSError as exc:
                    emit(event="unreachable", why=str(exc))
            emit(event="ping", seconds=answer)
        case ["udp", host, port, text, seconds]:
            answered = ""
            with await net.open_udp_socket() as sock:
                await sock.sendto(text.encode(), (host, int(port)))
                with trio.move_on_after(float(seconds)):
                    answered = (await sock.recv(65535)).decode()
            emit(event="udp", text=answered)
        case ["listen", group, port]:
            nursery.start_soon(listen, net, group, int(port))
        case ["status"]:
            emit(event="status", **net.status().as_dict())
        case _:
            emit(event="unknown", words=words)


async def main() -> None:
    home, planet, network_id = sys.argv[1:]
    async with (
        Network(network_id, home=home, planet=planet) as net,
        trio.open_nursery() as nursery,
    ):
        emit(event="ready", address=net.status().identity)
        nursery.start_soon(watch, net)
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(0):
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                words = line.decode().split()
                if words == ["quit"]:
                    nursery.cancel_scope.cancel()
                else:
                    nursery.start_soon(command, net, nursery, words)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
