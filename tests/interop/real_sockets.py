"""What a real node does on a network: libzt's sockets behind ctypes, a thread for each command.

The same commands and answers as those of ``our_member.py`` except ``ping``, and ``join NETWORK``,
``leave NETWORK``, ``network NETWORK``, ``send_group GROUP PORT TEXT``.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INET, STREAM, DATAGRAM = 2, 1, 2  # libzt's numbers; it was built without raw sockets
CHUNK = 65536
BLOCK = bytes(range(251)) * 261
SIZE = 16  # of its sockaddr_in


class Sockets:
    """The socket functions of one loaded library."""

    def __init__(self, library: ctypes.CDLL, emit: Callable[..., None]) -> None:
        self.library = library
        self.emit = emit
        self.errno = ctypes.c_int.in_dll(library, "zts_errno")
        u64 = ctypes.c_uint64
        for name in ("net_join", "net_leave", "net_transport_is_ready", "net_get_status"):
            getattr(library, f"zts_{name}").argtypes = [u64]
        library.zts_addr_get_str.argtypes = [u64, ctypes.c_uint, ctypes.c_char_p, ctypes.c_uint]
        library.zts_addr_is_assigned.argtypes = [u64, ctypes.c_uint]
        for name in ("send", "recv", "sendto", "recvfrom"):
            getattr(library, f"zts_bsd_{name}").restype = ctypes.c_ssize_t
        library.zts_bsd_send.argtypes = [
            *(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        ]
        library.zts_bsd_recv.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        ]

    def run(self, words: list[str]) -> bool:
        """Carry out a command, in a thread; False if it is none of ours."""
        method = getattr(self, f"do_{words[0]}", None)
        if method is None:
            return False

        def guarded() -> None:
            try:
                method(*words[1:])
            except OSError as exc:
                self.emit(event="error", command=words, why=str(exc))

        threading.Thread(target=guarded, daemon=True).start()
        return True

    # sockets

    def check(self, result: int, what: str) -> int:
        if result < 0:
            raise OSError(self.errno.value, f"{what}: {result}, errno {self.errno.value}")
        return result

    def open(self, kind: int) -> int:
        return self.check(self.library.zts_bsd_socket(INET, kind, 0), "socket")

    def close(self, fd: int) -> None:
        self.library.zts_bsd_close(fd)

    def name(self, host: str, port: int) -> bytes:
        return struct.pack("!BBH", SIZE, INET, port) + socket.inet_aton(host) + bytes(8)

    def bind(self, fd: int, port: int) -> None:
        self.check(self.library.zts_bsd_bind(fd, self.name("0.0.0.0", port), SIZE), "bind")

    def receive_from(self, fd: int) -> tuple[bytes, bytes]:
        buffer = ctypes.create_string_buffer(CHUNK)
        name = ctypes.create_string_buffer(28)
        size = ctypes.c_uint32(28)
        count = self.library.zts_bsd_recvfrom(fd, buffer, CHUNK, 0, name, ctypes.byref(size))
        self.check(count, "recvfrom")
        return buffer.raw[:count], name.raw[:SIZE]

    def set_patience(self, fd: int, seconds: float) -> None:
        self.library.zts_set_recv_timeout(fd, int(seconds), int(seconds % 1 * 1e6))

    # networks

    def do_join(self, text: str) -> None:
        network_id = int(text, 16)
        self.library.zts_net_join(network_id)
        while not (
            self.library.zts_net_transport_is_ready(network_id) == 1
            and self.library.zts_addr_is_assigned(network_id, INET) == 1
        ):
            time.sleep(0.02)
        buffer = ctypes.create_string_buffer(46)
        self.library.zts_addr_get_str(network_id, INET, buffer, 46)
        self.emit(event="joined", ip=buffer.value.decode())

    def do_leave(self, text: str) -> None:
        self.library.zts_net_leave(int(text, 16))
        self.emit(event="left")

    def do_network(self, text: str) -> None:
        self.emit(event="network", status=self.library.zts_net_get_status(int(text, 16)))

    # services and clients

    def do_serve(self, port: str) -> None:
        fd = self.open(STREAM)
        self.bind(fd, int(port))
        self.check(self.library.zts_bsd_listen(fd, 16), "listen")
        datagrams = self.open(DATAGRAM)
        self.bind(datagrams, int(port))
        threading.Thread(target=self._echo_datagrams, args=(datagrams,), daemon=True).start()
        self.emit(event="serving")
        while True:
            name = ctypes.create_string_buffer(28)
            size = ctypes.c_uint32(28)
            client = self.library.zts_bsd_accept(fd, name, ctypes.byref(size))
            if client >= 0:
                threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, fd: int) -> None:
        buffer = ctypes.create_string_buffer(CHUNK)
        while (count := self.library.zts_bsd_recv(fd, buffer, CHUNK, 0)) > 0:
            if not self._send_all(fd, buffer.raw[:count]):
                break
        self.close(fd)

    def _send_all(self, fd: int, data: bytes) -> bool:
        while data:
            count = self.library.zts_bsd_send(fd, data, len(data), 0)
            if count < 0:
                return False
            data = data[count:]
        return True

    def _echo_datagrams(self, fd: int) -> None:
        while True:
            data, name = self.receive_from(fd)
            self.library.zts_bsd_sendto(fd, data, len(data), 0, name, SIZE)

    def do_transfer(self, host: str, port: str, size: str) -> None:
        fd = self.open(STREAM)
        self.check(self.library.zts_bsd_connect(fd, self.name(host, int(port)), SIZE), "connect")
        sent, received = hashlib.sha256(), hashlib.sha256()
        started = time.monotonic()

        def send() -> None:
            left = int(size)
            while left:
                part = BLOCK[:left]
                sent.update(part)
                if not self._send_all(fd, part):
                    return
                left -= len(part)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        octets = 0
        buffer = ctypes.create_string_buffer(CHUNK)
        while octets < int(size) and (c := self.library.zts_bsd_recv(fd, buffer, CHUNK, 0)) > 0:
            octets += c
            received.update(buffer.raw[:c])
        sender.join()
        self.close(fd)
        intact = sent.digest() == received.digest()
        seconds = time.monotonic() - started
        self.emit(event="transfer", octets=octets, intact=intact, seconds=seconds)

    def do_connect(self, host: str, port: str, seconds: str) -> None:
        result = ["silence"]

        def connect() -> None:
            fd = self.open(STREAM)
            if self.library.zts_bsd_connect(fd, self.name(host, int(port)), SIZE) == 0:
                result[0] = "connected"
            else:
                result[0] = f"errno {self.errno.value}"
            self.close(fd)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(float(seconds))
        self.emit(event="connect", result=result[0])

    def do_udp(self, host: str, port: str, text: str, seconds: str) -> None:
        fd = self.open(DATAGRAM)
        self.set_patience(fd, float(seconds))
        data = text.encode()
        self.library.zts_bsd_sendto(fd, data, len(data), 0, self.name(host, int(port)), SIZE)
        answer: bytes = b""
        with contextlib.suppress(OSError):
            answer, _ = self.receive_from(fd)
        self.close(fd)
        self.emit(event="udp", text=answer.decode())

    def do_send_group(self, group: str, port: str, text: str) -> None:
        fd = self.open(DATAGRAM)
        data = text.encode()
        self.library.zts_bsd_sendto(fd, data, len(data), 0, self.name(group, int(port)), SIZE)
        self.close(fd)

