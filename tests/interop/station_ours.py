"""A `zttrio.Network` on a ZeroTier network, run as a process of its own (see `.station`).

station_ours.py HOME PLANET PORT NETWORK
"""

from __future__ import annotations

import hashlib
import json
import statistics
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

import trio

import zttrio
from tests.interop.pattern import CHUNK, HEARD, PORTS, UDP_PORT, figures, octets
from zttrio.wire.zerotier import ZeroTier

ANY_IPV4 = "0.0.0.0"


def answer(number: int, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"id": number, **fields}) + "\n")
    sys.stdout.flush()


class Member:
    """The network, its services, and the commands."""

    def __init__(self, net: zttrio.Network, nursery: trio.Nursery) -> None:
        self.net = net
        self.nursery = nursery
        self.heard: deque[str] = deque(maxlen=HEARD)
        self.received = 0

    # services

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._serve(stream)
        except (trio.BrokenResourceError, OSError):
            pass  # the other side's doing; it knows

    async def _serve(self, stream: trio.SocketStream) -> None:
        match await stream.receive_some(1):
            case b"e":
                stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
                async for data in stream:
                    await stream.send_all(data)
            case b"s":
                count = 0
                async for data in stream:
                    count += len(data)
                await stream.send_all(count.to_bytes(8, "big"))
            case b"d":
                digest = hashlib.sha256()
                async for data in stream:
                    digest.update(data)
                await stream.send_all(digest.digest())
            case b"g":
                size, seed = struct.unpack("!QQ", await _exactly(stream, 16))
                await stream.send_all(octets(size, seed))
                await stream.send_eof()
                await stream.receive_some()
            case b"x":
                await stream.send_all(b"x")

    async def serve_udp(self, sock: trio.socket.SocketType) -> None:
        while True:
            data, sender = await sock.recvfrom(CHUNK)
            if data[:1] == b"e":
                await sock.sendto(data, sender)
            elif data == b"q":
                await sock.sendto(str(self.received).encode(), sender)
                self.received = 0
            else:
                self.received += 1
                if self.received <= HEARD:
                    self.heard.append(data.decode(errors="replace"))

    # commands

    async def carry_out(self, request: dict[str, Any]) -> None:
        number = request.pop("id")
        command = getattr(self, f"do_{request.pop('do')}")
        try:
            with trio.fail_after(request.pop("within", 60)):
                answer(number, **await command(**request))
        except Exception as exc:
            answer(number, error=f"{type(exc).__name__}: {exc}; {self.net.status()}")

    async def do_status(self) -> dict[str, Any]:
        status = self.net.status()
        return {
            "addresses": [str(interface.ip) for interface in self.net.addresses],
            "failure": status.failure,
            "counters": status.counters,
            "mtu": status.mtu,
        }

    async def do_online(self) -> dict[str, Any]:
        while True:
            try:
                await self.net.wait_online()
                return await self.do_status()
            except zttrio.JoinError:
                await trio.sleep(0.05)

    async def do_ping(self, host: str) -> dict[str, Any]:
        """An echo request every second until one is answered.

        The real core's stack ignores its addresses for some seconds after it has got them.
        """
        while True:
            with trio.move_on_after(1), suppress(OSError):
                return {"seconds": await self.net.ping(host)}
            await trio.sleep(0.1)

    async def do_echo(self, host: str, size: int, port: int = PORTS[0]) -> dict[str, Any]:
        data = octets(size, 1)
        stream = await self.net.open_tcp_stream(host, port)
        got = bytearray()
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(b"e" + data)
                await stream.send_eof()

            nursery.start_soon(send)
            async for part in stream:
                got += part
        return {"intact": got == data}

    async def do_upload(self, host: str, size: int) -> dict[str, Any]:
        data = octets(size, 2)
        stream = await self.net.open_tcp_stream(host, PORTS[0])
        async with stream:
            started = time.perf_counter()
            await stream.send_all(b"d")
            await stream.send_all(data)
            await stream.send_eof()
            digest = await _exactly(stream, 32)
            seconds = time.perf_counter() - started
        return {"intact": digest == hashlib.sha256(data).digest(), "rate": size / seconds}

    async def do_download(self, host: str, size: int) -> dict[str, Any]:
        stream = await self.net.open_tcp_stream(host, PORTS[0])
        digest = hashlib.sha256()
        async with stream:
            started = time.perf_counter()
            await stream.send_all(b"g" + struct.pack("!QQ", size, 3))
            async for part in stream:
                digest.update(part)
            seconds = time.perf_counter() - started
        same = digest.digest() == hashlib.sha256(octets(size, 3)).digest()
        return {"intact": same, "rate": size / seconds}

    async def do_connect(self, host: str, port: int) -> dict[str, Any]:
        """Whether a connection answers within two seconds."""
        with trio.move_on_after(2):
            try:
                stream = await self.net.open_tcp_stream(host, port)
            except OSError:
                return {"answer": None}
            async with stream:
                await stream.send_all(b"x")
                return {"answer": (await stream.receive_some(1)).decode()}
        return {"answer": None}

    async def do_udp(self, host: str, sizes: list[int]) -> dict[str, Any]:
        """How many datagrams of these sizes came back unchanged, at the first or second try."""
        sock = await self.net.open_udp_socket()
        intact = 0
        with sock:
            for size in sizes:
                data = b"e" + octets(size - 1, size)
                for _ in range(2):
                    await sock.sendto(data, (host, UDP_PORT))
                    with trio.move_on_after(2) as limit:
                        while (await sock.recvfrom(CHUNK))[0] != data:
                            pass
                    if not limit.cancelled_caught:
                        intact += 1
                        break
        return {"intact": intact}

    async def do_say(self, host: str, text: str, port: int = UDP_PORT) -> dict[str, Any]:
        """Send a datagram that nothing answers, also to a group or to everybody."""
        sock = await self.net.open_udp_socket()
        with sock:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_BROADCAST, 1)
            await sock.sendto(text.encode(), (host, port))
        return {}

    async def do_heard(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    async def do_join_group(self, group: str, port: int) -> dict[str, Any]:
        sock = await self.net.open_udp_socket(port)
        membership = trio.socket.inet_aton(group) + trio.socket.inet_aton(ANY_IPV4)
        sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, membership)
        self.nursery.start_soon(self.serve_udp, sock)
        return {}

    async def do_figures(self) -> dict[str, Any]:
        return dict(figures())

    # measurements

    async def do_bulk(self, host: str, seconds: float, streams: int = 1) -> dict[str, Any]:
        """Megabytes per second that arrive, this side sending."""
        counts: list[int] = []
        block = octets(CHUNK * 4, 5)
        started = time.perf_counter()

        async def send() -> None:
            stream = await self.net.open_tcp_stream(host, PORTS[0])
            async with stream:
                await stream.send_all(b"s")
                while time.perf_counter() - started < seconds:
                    await stream.send_all(block)
                await stream.send_eof()
                counts.append(int.from_bytes(await _exactly(stream, 8), "big"))

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(send)
        return {"value": sum(counts) / (time.perf_counter() - started) / 1e6}

    async def do_latency(self, host: str, seconds: float) -> dict[str, Any]:
        """Median microseconds of one octet there and back."""
        taken: list[float] = []
        stream = await self.net.open_tcp_stream(host, PORTS[0])
        async with stream:
            stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            await stream.send_all(b"e")
            end = time.perf_counter() + seconds
            while (now := time.perf_counter()) < end:
                await stream.send_all(b"p")
                await stream.receive_some(1)
                taken.append(time.perf_counter() - now)
        return {"value": statistics.median(taken) * 1e6}

    async def do_connections(self, host: str, seconds: float, streams: int = 8) -> dict[str, Any]:
        """Connections per second, each with one octet there and one back."""
        done: list[int] = []
        failed: list[OSError] = []
        end = time.perf_counter() + seconds

        async def work() -> None:
            while time.perf_counter() < end:
                try:
                    stream = await self.net.open_tcp_stream(host, PORTS[0])
                    async with stream:
                        await stream.send_all(b"x")
                        await _exactly(stream, 1)
                    done.append(1)
                except (OSError, EOFError, trio.BrokenResourceError) as exc:
                    failed.append(OSError(str(exc)))
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(work)
        return {"value": len(done) / seconds, "failed": len(failed)}

    async def do_datagrams(self, host: str, seconds: float, size: int = 100) -> dict[str, Any]:
        """UDP datagrams per second that arrive, and the part that is lost."""
        sock = await self.net.open_udp_socket()
        data = b"u" * size
        where = (host, UDP_PORT)
        with sock:
            await _ask_count(sock, where)
            sent = 0
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                for _ in range(32):
                    await sock.sendto(data, where)
                sent += 32
            taken = time.perf_counter() - started
            await trio.sleep(0.3)
            received = await _ask_count(sock, where)
        return {"value": received / taken, "lost": 1 - received / sent}


async def _ask_count(sock: trio.socket.SocketType, where: tuple[str, int]) -> int:
    for _ in range(10):
        await sock.sendto(b"q", where)
        with trio.move_on_after(1):
            return int((await sock.recvfrom(100))[0])
    raise AssertionError("no answer to q")


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        if not part:
            raise EOFError(f"the stream ended after {len(data)} of {size} octets")
        data += part
    return data


async def main() -> None:
    home, planet, port, network_id = sys.argv[1:]
    wire = ZeroTier(network_id, home=home, planet=planet, port=int(port))
    async with zttrio.Network(wire=wire) as net, trio.open_nursery() as nursery:
        member = Member(net, nursery)
        for service in PORTS:
            await nursery.start(net.serve_tcp, member.serve, service)
        nursery.start_soon(member.serve_udp, await net.open_udp_socket(UDP_PORT))
        answer(0, address=str(wire.identity))
        buffer = b""
        async for chunk in trio.lowlevel.FdStream(0):
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                nursery.start_soon(member.carry_out, json.loads(line))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
