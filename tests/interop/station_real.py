"""A real node on a ZeroTier network, run as a process of its own (see `.station`).

station_real.py SHARED_OBJECT STUB HOME PLANET PORT NETWORK
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import socket
import statistics
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from tests.interop.pattern import CHUNK, HEARD, PORTS, UDP_PORT, figures, octets
from tests.interop.real_core import (
    AF_INET,
    AF_INET6,
    DATAGRAM,
    IP_ADD_MEMBERSHIP,
    IP_MULTICAST_IF,
    SO_BROADCAST,
    SOL_SOCKET,
    STREAM,
    Core,
    CoreSocket,
)

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"
_lock = threading.Lock()


def answer(number: int, **fields: Any) -> None:
    with _lock:
        sys.stdout.write(json.dumps({"id": number, **fields}) + "\n")
        sys.stdout.flush()


def buffer_of(size: int) -> Any:
    return ctypes.create_string_buffer(size)


class Member:
    """The node, its services, and the commands; a thread for each connection and command."""

    def __init__(self, core: Core, network: int) -> None:
        self.core = core
        self.network = network
        self.heard: deque[str] = deque(maxlen=HEARD)
        self.received = 0

    # services

    def start_services(self) -> None:
        for host in (ANY_IPV4, ANY_IPV6):
            for port in PORTS:
                start(self.listen, self.core.bound(host, port, STREAM))
        udp = self.core.bound(ANY_IPV4, UDP_PORT, DATAGRAM)
        udp.option(SOL_SOCKET, SO_BROADCAST, b"\1\0\0\0")  # also to receive them
        start(self.serve_udp, udp)

    def listen(self, listener: CoreSocket) -> None:
        while True:
            try:
                start(self.serve, listener.accept())
            except OSError:
                time.sleep(0.01)  # out of connections for the moment

    def serve(self, sock: CoreSocket) -> None:
        with sock, suppress(OSError, EOFError):  # the other side's doing; it knows
            self._serve(sock)

    def _serve(self, sock: CoreSocket) -> None:
        buffer = buffer_of(CHUNK)
        match sock.receive_exactly(1):
            case b"e":
                sock.no_delay()
                while count := sock.receive(buffer):
                    sock.send_all(buffer.raw[:count] if count > 1 else buffer[0])
            case b"s":
                total = 0
                while count := sock.receive(buffer):
                    total += count
                sock.send_all(total.to_bytes(8, "big"))
            case b"d":
                digest = hashlib.sha256()
                while count := sock.receive(buffer):
                    digest.update(memoryview(buffer)[:count])
                sock.send_all(digest.digest())
            case b"g":
                size, seed = struct.unpack("!QQ", sock.receive_exactly(16))
                sock.send_all(octets(size, seed))
                sock.send_eof()
                sock.receive(buffer)
            case b"x":
                sock.send_all(b"x")

    def serve_udp(self, sock: CoreSocket) -> None:
        buffer = buffer_of(CHUNK)
        while True:
            count, sender = sock.receive_from(buffer)
            first = buffer[0] if count else b""
            if first == b"e":
                sock.send_to(buffer.raw[:count], *sender)
            elif first == b"q" and count == 1:
                sock.send_to(str(self.received).encode(), *sender)
                self.received = 0
            else:
                self.received += 1
                if self.received <= HEARD:
                    self.heard.append(buffer.raw[:count].decode(errors="replace"))

    # commands

    def carry_out(self, request: dict[str, Any]) -> None:
        number = request.pop("id")
        command = getattr(self, f"do_{request.pop('do')}")
        request.pop("within", None)
        try:
            answer(number, **command(**request))
        except Exception as exc:
            answer(number, error=f"{type(exc).__name__}: {exc}")

    def do_status(self) -> dict[str, Any]:
        library = self.core.library
        found = [self.core.address(self.network, family) for family in (AF_INET, AF_INET6)]
        return {
            "is_online": self.core.is_online,
            "status": library.zts_net_get_status(self.network),
            "addresses": [text for text in found if text],
            "mtu": library.zts_net_get_mtu(self.network),
        }

    def do_online(self) -> dict[str, Any]:
        library = self.core.library
        while library.zts_net_transport_is_ready(self.network) != 1 or not self.core.address(
            self.network, AF_INET
        ):
            time.sleep(0.02)
        return self.do_status()

    def do_echo(self, host: str, size: int, port: int = PORTS[0]) -> dict[str, Any]:
        data = octets(size, 1)
        got = bytearray()
        buffer = buffer_of(CHUNK)
        with self.connected(host, port) as sock:

            def send() -> None:
                sock.send_all(b"e" + data)
                sock.send_eof()

            sender = start(send)
            while count := sock.receive(buffer):
                got += memoryview(buffer)[:count]
            sender.join()
        return {"intact": got == data}

    def do_upload(self, host: str, size: int) -> dict[str, Any]:
        data = octets(size, 2)
        with self.connected(host) as sock:
            started = time.perf_counter()
            sock.send_all(b"d")
            sock.send_all(data)
            sock.send_eof()
            digest = sock.receive_exactly(32)
            seconds = time.perf_counter() - started
        return {"intact": digest == hashlib.sha256(data).digest(), "rate": size / seconds}

    def do_download(self, host: str, size: int) -> dict[str, Any]:
        digest = hashlib.sha256()
        buffer = buffer_of(CHUNK)
        with self.connected(host) as sock:
            started = time.perf_counter()
            sock.send_all(b"g" + struct.pack("!QQ", size, 3))
            while count := sock.receive(buffer):
                digest.update(memoryview(buffer)[:count])
            seconds = time.perf_counter() - started
        same = digest.digest() == hashlib.sha256(octets(size, 3)).digest()
        return {"intact": same, "rate": size / seconds}

    def do_connect(self, host: str, port: int) -> dict[str, Any]:
        done: dict[str, Any] = {"answer": None}

        def work() -> None:
            with suppress(OSError, EOFError), self.connected(host, port) as sock:
                sock.send_all(b"x")
                done["answer"] = sock.receive_exactly(1).decode()

        start(work).join(2)
        return dict(done)

    def do_fetch(self, host: str, port: int, path: str) -> dict[str, Any]:
        """Ask a web server for *path*; the head of its answer, and the digest of the rest."""
        received = bytearray()
        buffer = buffer_of(CHUNK)
        with self.connected(host, port) as sock:
            sock.send_all(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            while count := sock.receive(buffer):
                received += buffer.raw[:count]
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        digest = hashlib.sha256(body).hexdigest()
        return {"head": head.decode(), "size": len(body), "digest": digest}

    def do_udp(self, host: str, sizes: list[int]) -> dict[str, Any]:
        buffer = buffer_of(CHUNK)
        intact = 0
        with self.core.socket(host, DATAGRAM) as sock:
            sock.limit(2)
            for size in sizes:
                data = b"e" + octets(size - 1, size)
                for _ in range(2):
                    sock.send_to(data, host, UDP_PORT)
                    with suppress(OSError):
                        count, _ = sock.receive_from(buffer)
                        if buffer.raw[:count] == data:
                            intact += 1
                            break
        return {"intact": intact}

    def do_say(self, host: str, text: str, port: int = UDP_PORT) -> dict[str, Any]:
        with self.core.socket(host, DATAGRAM) as sock:
            sock.option(SOL_SOCKET, SO_BROADCAST, b"\1\0\0\0")
            sock.option(0, IP_MULTICAST_IF, socket.inet_aton(self.own()))
            sock.send_to(text.encode(), host, port)
        return {}

    def do_heard(self) -> dict[str, Any]:
        return {"heard": list(self.heard)}

    def do_join_group(self, group: str, port: int) -> dict[str, Any]:
        sock = self.core.bound(ANY_IPV4, port, DATAGRAM)
        value = socket.inet_aton(group) + socket.inet_aton(self.own())
        sock.option(0, IP_ADD_MEMBERSHIP, value)
        start(self.serve_udp, sock)
        return {}

    def own(self) -> str:
        """Our IPv4 address."""
        address = self.core.address(self.network, AF_INET)
        assert address is not None
        return address

    def do_figures(self) -> dict[str, Any]:
        return dict(figures())

    # measurements: see station_ours.py

    def do_bulk(self, host: str, seconds: float, streams: int = 1) -> dict[str, Any]:
        counts: list[int] = []
        block = octets(CHUNK, 5)
        began = time.perf_counter()

        def send() -> None:
            with self.connected(host) as sock:
                sock.send_all(b"s")
                while time.perf_counter() - began < seconds:
                    sock.send_all(block)
                sock.send_eof()
                counts.append(int.from_bytes(sock.receive_exactly(8), "big"))

        for thread in [start(send) for _ in range(streams)]:
            thread.join()
        return {"value": sum(counts) / (time.perf_counter() - began) / 1e6}

    def do_latency(self, host: str, seconds: float) -> dict[str, Any]:
        taken: list[float] = []
        buffer = buffer_of(1)
        with self.connected(host) as sock:
            sock.no_delay()
            sock.send_all(b"e")
            end = time.perf_counter() + seconds
            while (now := time.perf_counter()) < end:
                sock.send_all(b"p")
                sock.receive(buffer)
                taken.append(time.perf_counter() - now)
        return {"value": statistics.median(taken) * 1e6}

    def do_connections(self, host: str, seconds: float, streams: int = 8) -> dict[str, Any]:
        done: list[int] = []
        failed: list[OSError] = []
        end = time.perf_counter() + seconds

        def work() -> None:
            while time.perf_counter() < end:
                try:
                    with self.connected(host) as sock:
                        sock.send_all(b"x")
                        sock.receive_exactly(1)
                    done.append(1)
                except OSError as exc:  # it runs out of ports and of memory for connections
                    failed.append(exc)
                    time.sleep(0.01)

        for thread in [start(work) for _ in range(streams)]:
            thread.join()
        return {"value": len(done) / seconds, "failed": len(failed)}

    def do_datagrams(self, host: str, seconds: float, size: int = 100) -> dict[str, Any]:
        data = b"u" * size
        with self.core.socket(host, DATAGRAM) as sock:
            sock.limit(1)
            self._ask_count(sock, host)
            sent = 0
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                for _ in range(32):
                    with suppress(OSError):  # its own queues are full
                        sock.send_to(data, host, UDP_PORT)
                        sent += 1
            taken = time.perf_counter() - began
            time.sleep(0.3)
            received = self._ask_count(sock, host)
        return {"value": received / taken, "lost": 1 - received / sent}

    def _ask_count(self, sock: CoreSocket, host: str) -> int:
        buffer = buffer_of(100)
        for _ in range(10):
            sock.send_to(b"q", host, UDP_PORT)
            with suppress(OSError):
                count, _ = sock.receive_from(buffer)
                return int(buffer.raw[:count])
        raise AssertionError("no answer to q")

    def connected(self, host: str, port: int = PORTS[0]) -> CoreSocket:
        sock = self.core.socket(host, STREAM)
        try:
            sock.connect(host, port)
        except BaseException:
            sock.close()
            raise
        return sock


def start(work: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def main() -> None:
    shared_object, stub, home, planet, port, network = sys.argv[1:]
    sys.setswitchinterval(0.0005)  # the default would be all that a latency shows
    core = Core(shared_object, stub)
    address = core.start(home, planet, int(port))
    while not core.is_online:
        time.sleep(0.02)
    core.library.zts_net_join(int(network, 16))
    member = Member(core, int(network, 16))
    member.start_services()
    answer(0, address=address)
    for line in sys.stdin:
        start(member.carry_out, json.loads(line))


if __name__ == "__main__":
    main()
