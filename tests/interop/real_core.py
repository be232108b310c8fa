"""The real core behind ctypes: a node, its networks and their sockets.

Every call gives up the interpreter's lock.  Numbers are those of lwIP, which libzt's sockets are.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["Core", "CoreSocket"]

AF_INET, AF_INET6 = 2, 10
STREAM, DATAGRAM = 1, 2
SOL_SOCKET, SO_BROADCAST = 0xFFF, 0x20
IP_ADD_MEMBERSHIP, IP_MULTICAST_IF = 3, 6


class Core:
    """One node.

    Args:
        shared_object: of the wheel.
        stub: with what the wheel leaves undefined.
    """

    def __init__(self, shared_object: str, stub: str) -> None:
        ctypes.CDLL(stub, mode=ctypes.RTLD_GLOBAL)
        library = self.library = ctypes.CDLL(shared_object)
        self.errno = ctypes.c_int.in_dll(library, "zts_errno")
        number = ctypes.c_uint64
        library.zts_node_get_id.restype = number
        for name in ("join", "leave", "transport_is_ready", "get_status", "get_mtu"):
            getattr(library, f"zts_net_{name}").argtypes = [number]
        library.zts_addr_is_assigned.argtypes = [number, ctypes.c_uint]
        library.zts_addr_get_str.argtypes = [number, ctypes.c_uint, ctypes.c_char_p, ctypes.c_uint]
        library.zts_net_compute_adhoc_id.restype = number
        for name in ("send", "recv", "sendto", "recvfrom"):
            getattr(library, f"zts_bsd_{name}").restype = ctypes.c_ssize_t
        library.zts_bsd_send.argtypes = [
            *(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        ]
        library.zts_bsd_recv.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        ]

    def start(self, home: str, planet: str, port: int) -> str:
        """Start the node, and return its address.

        Raises:
            SystemExit: it does not take the planet: it must not start with its built-in roots.
        """
        library = self.library
        os.makedirs(home, exist_ok=True)
        library.zts_init_from_storage(home.encode())
        world = Path(planet).read_bytes()
        if library.zts_init_set_roots(world, len(world)) != 0:
            raise SystemExit("zts_init_set_roots failed: it must not start with its built-in roots")
        library.zts_init_set_port(ctypes.c_uint16(port))
        library.zts_init_allow_secondary_port(0)
        library.zts_init_allow_port_mapping(0)
        if library.zts_node_start() != 0:
            raise SystemExit("zts_node_start failed")
        # A node that has not started yet answers with an error, which looks like an address.
        while not 0 < (address := library.zts_node_get_id()) < 1 << 40:
            time.sleep(0.02)
        return f"{address:010x}"

    @property
    def is_online(self) -> bool:
        """True if a root has answered lately."""
        return bool(self.library.zts_node_is_online() == 1)

    def address(self, network: int, family: int) -> str | None:
        """The address of a family that the network's controller has given."""
        if self.library.zts_addr_is_assigned(network, family) != 1:
            return None
        text = ctypes.create_string_buffer(46)
        if self.library.zts_addr_get_str(network, family, text, 46) != 0:
            return None
        return text.value.decode()

    def socket(self, host: str, kind: int, protocol: int = 0) -> CoreSocket:
        """A socket of the family of *host*."""
        family = AF_INET6 if ":" in host else AF_INET
        return CoreSocket(self, self.library.zts_bsd_socket(family, kind, protocol))

    def bound(self, host: str, port: int, kind: int) -> CoreSocket:
        """A socket that is bound, and listens if it is a stream's."""
        sock = self.socket(host, kind)
        self.library.zts_set_reuse_addr(sock.number, 1)
        name = pack(host, port)
        sock.check("bind", self.library.zts_bsd_bind(sock.number, name, len(name)))
        if kind == STREAM:
            sock.check("listen", self.library.zts_bsd_listen(sock.number, 128))
        return sock


class CoreSocket:
    """One of libzt's sockets.  Everything raises OSError."""

    def __init__(self, core: Core, number: int) -> None:
        self.core = core
        self.number = number
        self._library = core.library
        self.check("socket", number)

    def check(self, what: str, result: int) -> int:
        """The result, if it is none of an error."""
        if result < 0:
            number = self.core.errno.value
            raise OSError(number, f"libzt {what}: {result}, {os.strerror(number)}")
        return result

    def connect(self, host: str, port: int) -> None:
        name = pack(host, port)
        self.check("connect", self._library.zts_bsd_connect(self.number, name, len(name)))

    def accept(self) -> CoreSocket:
        name, size = ctypes.create_string_buffer(28), ctypes.c_uint32(28)
        result = self._library.zts_bsd_accept(self.number, name, ctypes.byref(size))
        return CoreSocket(self.core, self.check("accept", result))

    def no_delay(self) -> None:
        self._library.zts_set_no_delay(self.number, 1)

    def limit(self, seconds: float) -> None:
        """Wait for data at most so long."""
        self._library.zts_set_recv_timeout(self.number, int(seconds), int(seconds % 1 * 1e6))

    def option(self, level: int, name: int, value: bytes) -> None:
        result = self._library.zts_bsd_setsockopt(self.number, level, name, value, len(value))
        self.check("setsockopt", result)

    def send_all(self, data: bytes) -> None:
        at, step = 0, 1 << 16
        while at < len(data):
            part = data[at : at + step]
            at += self.check("send", self._library.zts_bsd_send(self.number, part, len(part), 0))

    def receive(self, buffer: Any) -> int:
        """Octets put into *buffer*; 0 at the end."""
        result = self._library.zts_bsd_recv(self.number, buffer, len(buffer), 0)
        return self.check("recv", result)

    def receive_exactly(self, size: int) -> bytes:
        data, buffer = b"", ctypes.create_string_buffer(size)
        while len(data) < size:
            view = (ctypes.c_char * (size - len(data))).from_buffer(buffer)
            count = self.receive(view)
            if not count:
                raise EOFError(f"the stream ended after {len(data)} of {size} octets")
            data += buffer.raw[:count]
        return data

    def send_to(self, data: bytes, host: str, port: int) -> None:
        name = pack(host, port)
        result = self._library.zts_bsd_sendto(self.number, data, len(data), 0, name, len(name))
        self.check("sendto", result)

    def receive_from(self, buffer: Any) -> tuple[int, tuple[str, int]]:
        name, size = ctypes.create_string_buffer(28), ctypes.c_uint32(28)
        result = self._library.zts_bsd_recvfrom(
            self.number, buffer, ctypes.c_size_t(len(buffer)), 0, name, ctypes.byref(size)
        )
        return self.check("recvfrom", result), unpack(name.raw)

    def send_eof(self) -> None:
        self.check("shutdown", self._library.zts_bsd_shutdown(self.number, 1))

    def close(self) -> None:
        if self.number >= 0:
            self._library.zts_bsd_close(self.number)
            self.number = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def pack(host: str, port: int) -> bytes:
    """lwIP's sockaddr: its length and its family in front."""
    if ":" in host:
        ip = socket.inet_pton(socket.AF_INET6, host)
        return struct.pack("!BBHI", 28, AF_INET6, port, 0) + ip + bytes(4)
    return struct.pack("!BBH", 16, AF_INET, port) + socket.inet_aton(host) + bytes(8)


def unpack(name: bytes) -> tuple[str, int]:
    """Host and port of lwIP's sockaddr."""
    (port,) = struct.unpack_from("!H", name, 2)
    if name[1] == AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
    return socket.inet_ntoa(name[4:8]), port
