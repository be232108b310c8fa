"""The micro-tests: what a program can observe of its sockets, as a transcript.

Run it on kernel sockets and behind a front door: the two outputs must be the same.  It uses
nothing but the standard library, and prints no ports, times or descriptors.

    python -m tests.intercept.micro [GROUP...]
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = os.environ.get("TRANSCRIPT_HOST", "127.0.0.1")
BROADCAST = os.environ.get("TRANSCRIPT_BROADCAST", "10.7.0.255")
UNREACHABLE = "203.0.113.9"  # RFC 5737: nobody's, and no route to it
EVENTS = (
    select.POLLIN
    | select.POLLPRI
    | select.POLLOUT
    | select.POLLERR
    | select.POLLHUP
    | select.POLLRDHUP
)
PATIENCE = 5.0

Address = tuple[str, int]
GROUPS: dict[str, Callable[[], None]] = {}


def group(function: Callable[[], None]) -> Callable[[], None]:
    GROUPS[function.__name__] = function
    return function


def say(what: str, value: object) -> None:
    sys.stdout.write(f"{what}: {value}\n")
    sys.stdout.flush()


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the name of the errno."""
    try:
        return function(*arguments)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, repr(exc))


def say_outcome(what: str, function: Callable[..., Any], *arguments: Any) -> None:
    say(what, outcome(function, *arguments))


def mask(sock: socket.socket) -> str:
    poll = select.poll()
    poll.register(sock, EVENTS)
    events = poll.poll(0)
    return f"{events[0][1]:x}" if events else "0"


def settle(sock: socket.socket, *wanted: str, hide: int = 0) -> str:
    """The mask, once it is one of *wanted*; after a while whatever it is."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = f"{int(mask(sock), 16) & ~hide:x}"
        if now in wanted or time.monotonic() > deadline:
            return now
        time.sleep(0.002)


def make(kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
    return socket.socket(family, kind)


def listen(backlog: int = 16, host: str = HOST) -> socket.socket:
    listener = make()
    listener.bind((host, 0))
    listener.listen(backlog)
    return listener


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair: the one that called, the one that accepted."""
    with listen() as listener:
        caller = make()
        caller.connect(listener.getsockname())
        accepted, _ = listener.accept()
    return caller, accepted


def free_port() -> int:
    with make() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


def error_of(sock: socket.socket) -> str:
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[number] if number else "0"


def receive_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


def linger_zero(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def nonblocking(sock: socket.socket) -> Iterator[socket.socket]:
    sock.setblocking(False)
    try:
        yield sock
    finally:
        sock.setblocking(True)


def quiet_pipe() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def ioctl_number(sock: socket.socket, request: int) -> int:
    room = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), request, room)
    return room[0]
