"""The micro-tests: what a program can observe of its sockets, as a transcript.

Run it on kernel sockets and behind a front door: the two outputs must be the same.  It uses
nothing but the standard library, and prints no ports, times or descriptors.

    python transcript.py [GROUP...]
"""

from __future__ import annotations

import array
import errno
import fcntl
import hashlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
    print(f"{what}: {value}", flush=True)


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


def settle(sock: socket.socket, wanted: str, hide: int = 0) -> str:
    """The mask, once it is *wanted*; after a while whatever it is."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = f"{int(mask(sock), 16) & ~hide:x}"
        if now == wanted or time.monotonic() > deadline:
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


# T1: states and errno values


@group
def states() -> None:
    sock = make()
    say("fresh send", outcome(sock.send, b"x"))
    say("fresh recv", outcome(sock.recv, 1))
    say("fresh shutdown", outcome(make().shutdown, socket.SHUT_WR))
    say("fresh getpeername", outcome(sock.getpeername))
    say("fresh getsockname", outcome(sock.getsockname))
    say("fresh accept", outcome(sock.accept))
    say("fresh type", sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    say("fresh domain", sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN))
    say("fresh protocol", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL))
    say("fresh acceptconn", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    say_outcome("bind elsewhere", sock.bind, (UNREACHABLE, 0))
    say_outcome("bind", sock.bind, (HOST, 0))
    say_outcome("bind twice", sock.bind, (HOST, 0))
    say("bound name", (sock.getsockname()[0], sock.getsockname()[1] != 0))
    say_outcome("listen", sock.listen, 5)
    say_outcome("bind after listen", sock.bind, (HOST, 0))
    say("listening acceptconn", sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    say("listening idle", settle(sock, "0", hide=select.POLLOUT))
    say_outcome("listening connect", sock.connect, (HOST, 9))
    say_outcome("listening send", sock.send, b"x")
    say_outcome("listening recv", sock.recv, 1)
    say_outcome("listening getpeername", sock.getpeername)
    say_outcome("listen again", sock.listen, 7)
    with nonblocking(sock):
        say_outcome("accept nothing", sock.accept)
    caller = make()
    caller.connect(sock.getsockname())
    say("listening pending", settle(sock, "1", hide=select.POLLOUT))
    accepted, address = sock.accept()
    say("accepted address", address == caller.getsockname())
    say("accepted names", accepted.getpeername() == caller.getsockname())
    say("accepted local", accepted.getsockname() == sock.getsockname())
    say("connected idle", mask(caller))
    say_outcome("connected connect", caller.connect, sock.getsockname())
    say_outcome("connected listen", caller.listen)
    say_outcome("connected bind", caller.bind, (HOST, 0))
    say_outcome("connected accept", caller.accept)
    caller.send(b"x")
    say("connected data", settle(accepted, "5"))
    say_outcome("second bind to the port", make().bind, sock.getsockname())
    for one in (caller, accepted, sock):
        one.close()


@group
def arguments() -> None:
    sock = make()
    libc_address = struct.pack("=H", socket.AF_INET)
    del libc_address
    say_outcome("socket raw family", socket.socket, socket.AF_INET, socket.SOCK_SEQPACKET)
    say_outcome("socket wrong protocol", socket.socket, socket.AF_INET, socket.SOCK_STREAM, 17)
    say_outcome("connect to port 0", sock.connect, (HOST, 0))
    say_outcome("connect nowhere", sock.connect, (UNREACHABLE, 80))
    with listen() as listener:
        port = listener.getsockname()[1]
        say_outcome("connect to 0.0.0.0", sock.connect, ("0.0.0.0", port))
        say("peer of 0.0.0.0", sock.getpeername()[0])
    sock.close()
    sock = make()
    say_outcome("unknown option", sock.getsockopt, socket.SOL_SOCKET, 3999)
    say_outcome("set unknown option", sock.setsockopt, socket.IPPROTO_TCP, 3999, 1)
    say_outcome("set type", sock.setsockopt, socket.SOL_SOCKET, socket.SO_TYPE, 1)
    say_outcome("short value", sock.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"\1")
    say_outcome("ipv6 option", sock.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    datagram = make(socket.SOCK_DGRAM)
    say_outcome("tcp option", datagram.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.close()
    datagram.close()


# T2, T3: readiness and non-blocking connect


@group
def nonblocking_connect() -> None:
    with listen() as listener:
        sock = make()
        sock.setblocking(False)
        epoll = select.epoll()
        epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        epoll.poll(0)  # what a fresh socket shows is not the same everywhere
        say_outcome("connect", sock.connect, listener.getsockname())
        say("mask after", settle(sock, "4"))
        events = epoll.poll(PATIENCE)
        say("edge after", [f"{bits & ~select.EPOLLHUP:x}" for _, bits in events])
        say("edge once", epoll.poll(0.05))
        say("SO_ERROR", error_of(sock))
        say_outcome("second connect", sock.connect, listener.getsockname())
        say_outcome("third connect", sock.connect, listener.getsockname())
        accepted, _ = listener.accept()
        accepted.send(b"hello")
        say("edge data", [f"{bits:x}" for _, bits in epoll.poll(PATIENCE)])
        say("data", sock.recv(10))
        accepted.close()
        say("edge end", [f"{bits:x}" for _, bits in epoll.poll(PATIENCE)])
        epoll.close()
        sock.close()


@group
def refused() -> None:
    quiet_pipe()
    port = free_port()
    sock = make()
    sock.setblocking(False)
    say_outcome("connect", sock.connect, (HOST, port))
    say("mask", settle(sock, "201d"))
    say("SO_ERROR", error_of(sock))
    say("SO_ERROR again", error_of(sock))
    say_outcome("second connect after SO_ERROR", sock.connect, (HOST, port))
    say_outcome("third connect", sock.connect, (HOST, port))
    say("mask third", settle(sock, "201d"))
    sock.close()

    sock = make()
    sock.setblocking(False)
    sock.connect_ex((HOST, port))
    settle(sock, "201d")
    say_outcome("second connect", sock.connect, (HOST, port))
    say_outcome("third connect", sock.connect, (HOST, port))
    settle(sock, "201d")
    sock.close()

    sock = make()
    sock.setblocking(False)
    sock.connect_ex((HOST, port))
    settle(sock, "201d")
    say_outcome("recv", sock.recv, 1)
    say_outcome("recv again", sock.recv, 1)
    say_outcome("send", sock.send, b"x")
    sock.close()

    sock = make()
    sock.setblocking(False)
    sock.connect_ex((HOST, port))
    settle(sock, "201d")
    say_outcome("send first", sock.send, b"x")
    say_outcome("send second", sock.send, b"x")
    sock.close()

    with listen() as listener:
        sock = make()
        sock.setblocking(False)
        sock.connect_ex((HOST, port))
        settle(sock, "201d")
        say("error", error_of(sock))
        sock.connect_ex(listener.getsockname())
        say("retry on the same descriptor", outcome(sock.connect, listener.getsockname()))
        say("retry mask", settle(sock, "4"))
        say("retry error", error_of(sock))
        accepted, _ = listener.accept()
        accepted.send(b"hi")
        settle(sock, "5")
        say("retry data", sock.recv(2))
        accepted.close()
        sock.close()

        sock = make()
        say_outcome("blocking refused", sock.connect, (HOST, port))
        say_outcome("then a listener", sock.connect, listener.getsockname())
        say("then connected", mask(sock))
        sock.close()

    poll_set = select.epoll()
    sock = make()
    sock.setblocking(False)
    poll_set.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
    poll_set.poll(0)
    sock.connect_ex((HOST, port))
    settle(sock, "201d")
    say("edge refused", [f"{bits:x}" for _, bits in poll_set.poll(PATIENCE)])
    poll_set.close()
    sock.close()


@group
def unanswered() -> None:
    with listen(0) as listener:
        full = []
        for _ in range(2):
            sock = make()
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
            settle(sock, "4")
            full.append(sock)
        waiting = make()
        waiting.setblocking(False)
        # Beyond backlog + 1 the handshake does not end before somebody accepts.
        waiting.connect_ex(listener.getsockname())
        time.sleep(0.3)
        states = [mask(sock) for sock in full]
        say("fit the backlog", states[:1])
        say_outcome("third is under way", waiting.connect, listener.getsockname())
        say("its mask", mask(waiting))
        say_outcome("its send", waiting.send, b"x")
        say_outcome("its recv", waiting.recv, 1)
        say_outcome("its name", waiting.getpeername)
        say_outcome("its error", error_of, waiting)
        blocking = make()
        blocking.settimeout(None)
        blocking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 100_000))
        start = time.monotonic()
        say_outcome("SO_SNDTIMEO", blocking.connect, listener.getsockname())
        say("took as long", 0.08 < time.monotonic() - start < 1)
        for sock in [*full, waiting, blocking]:
            sock.close()


@group
def blocking_connect() -> None:
    """A signal while connect() blocks, with and without SA_RESTART."""
    for restart in (False, True):
        with listen(0) as listener:
            fill = [make() for _ in range(2)]
            for sock in fill:
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
            settle(fill[0], "4")
            time.sleep(0.1)
            seen: list[int] = []
            signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
            signal.siginterrupt(signal.SIGALRM, not restart)
            call = make()
            done = threading.Event()

            def accept_later() -> None:
                done.wait(0.4)
                for _ in range(2):
                    listener.accept()[0].close()

            thread = threading.Thread(target=accept_later)
            thread.start()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            libc_result = connect_raw(call, listener.getsockname())
            signal.setitimer(signal.ITIMER_REAL, 0)
            say(f"restart {restart}", libc_result)
            say("handler ran", bool(seen))
            done.set()
            thread.join()
            if not restart:
                say("goes on", settle(call, "4"))
                say("error", error_of(call))
            for sock in [*fill, call]:
                sock.close()


def connect_raw(sock: socket.socket, address: Address) -> str:
    """connect(2) as it is, without Python's retry after EINTR."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    packed = struct.pack("=H", socket.AF_INET)
    packed += struct.pack("!H", address[1]) + socket.inet_aton(address[0]) + bytes(8)
    result = libc.connect(sock.fileno(), packed, len(packed))
    return "0" if result == 0 else errno.errorcode[ctypes.get_errno()]


@group
def readiness() -> None:
    """poll, select and epoll, level, edge, one-shot, with a pipe in the same set."""
    caller, accepted = pair()
    read_end, write_end = os.pipe()
    poll = select.poll()
    poll.register(accepted, select.POLLIN)
    poll.register(read_end, select.POLLIN)
    say("nothing", poll.poll(0))
    os.write(write_end, b"x")
    say("pipe only", [fd == read_end for fd, _ in poll.poll(PATIENCE * 1000)])
    caller.send(b"abc")
    settle(accepted, "5")
    say("both", len(poll.poll(PATIENCE * 1000)))
    say("select", len(select.select([accepted, read_end], [accepted], [], PATIENCE)[0]))
    level, edge = select.epoll(), select.epoll()
    level.register(accepted, select.EPOLLIN)
    edge.register(accepted, select.EPOLLIN | select.EPOLLET)
    once = select.epoll()
    once.register(accepted, select.EPOLLIN | select.EPOLLONESHOT)
    say("level", len(level.poll(PATIENCE)))
    say("level again", len(level.poll(PATIENCE)))
    say("edge", len(edge.poll(PATIENCE)))
    say("edge again", len(edge.poll(0)))
    say("one-shot", len(once.poll(PATIENCE)))
    say("one-shot again", len(once.poll(0)))
    say("peek", accepted.recv(10, socket.MSG_PEEK))
    say("FIONREAD", ioctl_number(accepted, termios.FIONREAD))
    say("recv", accepted.recv(2))
    caller.send(b"d")
    say("edge for more", len(edge.poll(PATIENCE)))
    settle(accepted, "5")
    time.sleep(0.05)
    say("rest", accepted.recv(10))
    with nonblocking(accepted):
        say_outcome("empty", accepted.recv, 1)
    for one in (level, edge, once, caller, accepted):
        one.close()
    os.close(read_end)
    os.close(write_end)


def ioctl_number(sock: socket.socket, request: int) -> int:
    room = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), request, room)
    return room[0]


# T5: accept


@group
def accepting() -> None:
    with listen() as listener:
        callers = [make() for _ in range(3)]
        for caller in callers:
            caller.connect(listener.getsockname())
        listener.setblocking(False)
        accepted = []
        deadline = time.monotonic() + PATIENCE
        while len(accepted) < 3 and time.monotonic() < deadline:
            try:
                accepted.append(listener.accept()[0])
            except BlockingIOError:
                time.sleep(0.002)
        say("accepted", len(accepted))
        say_outcome("no more", listener.accept)
        say("inherit blocking", [sock.gettimeout() for sock in accepted])
        flags = [fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK for sock in accepted]
        say("inherit flags", flags)
        for sock in [*callers, *accepted]:
            sock.close()
    with listen() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller = make()
        caller.connect(listener.getsockname())
        sock, _ = listener.accept()
        say("inherited keepalive", sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        say("inherited nodelay", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        caller.close()
        sock.close()
    listener = listen()
    waker = threading.Timer(0.1, listener.shutdown, [socket.SHUT_RDWR])
    waker.start()
    say_outcome("shutdown wakes accept", listener.accept)
    waker.join()
    listener.close()
    listener = listen()
    callers = [make() for _ in range(2)]
    for caller in callers:
        caller.connect(listener.getsockname())
    settle(listener, "1", hide=select.POLLOUT)
    listener.close()
    for caller in callers:
        say("closed with pending", settle(caller, "201d"))
        say_outcome("closed with pending recv", caller.recv, 1)
        caller.close()


@group
def accept_flags() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with listen() as listener:
        caller = make()
        caller.connect(listener.getsockname())
        number = libc.accept4(listener.fileno(), None, None, socket.SOCK_NONBLOCK)
        say("accept4 nonblock", bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK))
        say("accept4 cloexec", fcntl.fcntl(number, fcntl.F_GETFD))
        os.close(number)
        caller.close()
        say(
            "accept4 bad flags",
            (libc.accept4(listener.fileno(), None, None, 7), errno_name(ctypes)),
        )


def errno_name(ctypes: Any) -> str:
    return errno.errorcode[ctypes.get_errno()]


@group
def accept_without_descriptors() -> None:
    import resource

    with listen() as listener:
        caller = make()
        caller.connect(listener.getsockname())
        settle(listener, "1", hide=select.POLLOUT)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                held.append(os.dup(2))
        except OSError:
            pass
        say_outcome("accept without descriptors", listener.accept)
        say_outcome("socket without descriptors", make)
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        accepted, _ = listener.accept()
        caller.send(b"alive")
        say("accept afterwards", accepted.recv(5))
        accepted.close()
        caller.close()


# T6: half close, resets


@group
def half_close() -> None:
    quiet_pipe()
    caller, accepted = pair()
    accepted.shutdown(socket.SHUT_WR)
    say("peer SHUT_WR", settle(caller, "2005"))
    say("recv", caller.recv(1))
    say("send", caller.send(b"still"))
    say("peer receives", accepted.recv(10))
    caller.shutdown(socket.SHUT_WR)
    say("both", settle(caller, "2015"))
    say_outcome("send after both", caller.send, b"x")
    say("peer end", accepted.recv(1))
    caller.close()
    accepted.close()

    caller, accepted = pair()
    caller.shutdown(socket.SHUT_RD)
    say("own SHUT_RD", settle(caller, "2005"))
    say("own SHUT_RD recv", caller.recv(1))
    say("own SHUT_RD send", caller.send(b"x"))
    say("own SHUT_RD peer", accepted.recv(1))
    caller.close()
    accepted.close()

    caller, accepted = pair()
    caller.shutdown(socket.SHUT_RDWR)
    say("own SHUT_RDWR", settle(caller, "2015"))
    say("own SHUT_RDWR recv", caller.recv(1))
    say("own SHUT_RDWR peer", settle(accepted, "2005"))
    caller.close()
    accepted.close()

    caller, accepted = pair()
    accepted.close()
    say("peer closed", settle(caller, "2005"))
    say("peer closed recv", caller.recv(1))
    say("peer closed first send", caller.send(b"x"))
    settle(caller, "201d")
    say("peer closed second send", outcome(caller.send, b"x") in ("EPIPE", "ECONNRESET"))
    caller.close()


@group
def resets() -> None:
    quiet_pipe()
    caller, accepted = pair()
    caller.send(b"unread")
    settle(accepted, "5")
    accepted.close()
    say("closed with unread data", settle(caller, "201d"))
    say_outcome("recv", caller.recv, 1)
    say_outcome("recv again", caller.recv, 1)
    say_outcome("send", caller.send, b"x")
    say("SO_ERROR", error_of(caller))
    caller.close()

    caller, accepted = pair()
    linger_zero(accepted)
    accepted.close()
    say("linger 0", settle(caller, "201d"))
    say("linger 0 SO_ERROR", error_of(caller))
    say_outcome("linger 0 recv", caller.recv, 1)
    say_outcome("linger 0 peer", caller.getpeername)
    caller.close()

    caller, accepted = pair()
    accepted.send(b"last words")
    settle(caller, "5")
    linger_zero(accepted)
    accepted.close()
    say("with data queued", settle(caller, "201d"))
    say_outcome("with data queued recv", caller.recv, 100)
    say_outcome("with data queued then", caller.recv, 100)
    say_outcome("with data queued end", caller.recv, 100)
    caller.close()

    caller, accepted = pair()
    thread = threading.Timer(0.1, lambda: (linger_zero(accepted), accepted.close()))
    thread.start()
    say_outcome("blocked recv", caller.recv, 1)
    thread.join()
    caller.close()


# T7: transfers


@group
def transfers() -> None:
    for size, seed in ((1, 1), (100_000, 2), (8 << 20, 3)):
        source = random.Random(seed)
        data = source.randbytes(size)
        caller, accepted = pair()
        received: list[bytes] = []

        def read() -> None:
            reader = random.Random(seed + 100)
            while piece := accepted.recv(reader.choice((1, 100, 4096, 65536, 1 << 20))):
                received.append(piece)

        thread = threading.Thread(target=read)
        thread.start()
        at = 0
        while at < size:
            step = source.choice((1, 57, 4096, 65536, 300_000))
            if size <= 100_000 or step > 57:
                at += caller.send(data[at : at + step])
        caller.shutdown(socket.SHUT_WR)
        thread.join()
        whole = b"".join(received)
        say(f"{size} octets", (len(whole), hashlib.sha256(whole).hexdigest()[:16]))
        caller.close()
        accepted.close()
    sendfile()
    vectors()


def sendfile() -> None:
    data = random.Random(4).randbytes(3 << 20)
    memory = os.memfd_create("transcript")
    os.write(memory, data)
    caller, accepted = pair()
    thread = threading.Thread(
        target=lambda: say("sendfile", hashlib.sha256(receive_all(accepted)).hexdigest()[:16])
    )
    thread.start()
    at = 0
    while at < len(data):
        at += os.sendfile(caller.fileno(), memory, at, len(data) - at)
    caller.shutdown(socket.SHUT_WR)
    thread.join()
    os.close(memory)
    caller.close()
    accepted.close()


def vectors() -> None:
    caller, accepted = pair()
    pieces = [b"%04d" % number for number in range(1024)]
    say("writev", os.writev(caller.fileno(), pieces))
    say("MSG_WAITALL", len(accepted.recv(4000, socket.MSG_WAITALL)))
    say("rest", accepted.recv(96, socket.MSG_WAITALL)[-8:])
    caller.send(b"abcdef")
    settle(accepted, "5")
    say("MSG_PEEK", accepted.recv(3, socket.MSG_PEEK))
    say("MSG_TRUNC", accepted.recv_into(bytearray(4), 4, socket.MSG_TRUNC))
    say("behind MSG_TRUNC", accepted.recv(10))
    first, second = bytearray(2), bytearray(3)
    caller.send(b"12345")
    settle(accepted, "5")
    say("readv", (os.readv(accepted.fileno(), [first, second]), bytes(first), bytes(second)))
    caller.sendmsg([b"a", b"b"])
    settle(accepted, "5")
    say("recvmsg", accepted.recvmsg(10)[:1])
    say("sendto with address", caller.sendto(b"x", (HOST, 9)))
    settle(accepted, "5")
    say("recvfrom", accepted.recvfrom(10))
    caller.settimeout(None)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    say_outcome("SO_RCVTIMEO", accepted.recv, 1)
    read_end, write_end = os.pipe()
    os.write(write_end, b"spliced")
    say("splice", splice(read_end, caller.fileno(), 7))
    settle(accepted, "5")
    say("splice data", accepted.recv(10))
    for number in (read_end, write_end):
        os.close(number)
    caller.close()
    accepted.close()


def splice(source: int, target: int, size: int) -> int:
    return os.splice(source, target, size)


# T8: back-pressure


@group
def back_pressure() -> None:
    caller, accepted = pair()
    caller.setblocking(False)
    sent = 0
    block = bytes(1 << 16)
    quiet = 0
    while quiet < 20 and sent < 256 << 20:
        try:
            sent += caller.send(block)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.02)
    say("writer is stopped", quiet >= 20)
    say("bounded", sent < 64 << 20)
    say("not writable", int(mask(caller), 16) & select.POLLOUT)
    taken = 0
    while taken < sent:
        taken += len(accepted.recv(1 << 20))
    say("all arrives", taken == sent)
    say("writable again", settle(caller, "4"))
    caller.close()
    accepted.close()


# T9: datagrams


@group
def datagrams() -> None:
    one, two = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    say("fresh", mask(one))
    say("fresh name", one.getsockname())
    say_outcome("no destination", one.send, b"x")
    say_outcome("getpeername", one.getpeername)
    say_outcome("shutdown", make(socket.SOCK_DGRAM).shutdown, socket.SHUT_RD)
    say_outcome("listen", one.listen)
    say_outcome("accept", one.accept)
    two.bind((HOST, 0))
    say_outcome("bind twice", two.bind, (HOST, 0))
    address = two.getsockname()
    say("sendto", one.sendto(b"hello", address))
    say("readable", settle(two, "5"))
    say("FIONREAD", ioctl_number(two, termios.FIONREAD))
    data, source = two.recvfrom(100)
    say("recvfrom", (data, source[0], source[1] == one.getsockname()[1]))
    say_outcome("too long", one.sendto, bytes(65_508), address)
    say_outcome("longest", one.sendto, bytes(65_507), address)
    settle(two, "5")
    say("longest arrives", len(two.recv(70_000)))
    say_outcome("port 0", one.sendto, b"x", (HOST, 0))
    say_outcome("broadcast", one.sendto, b"x", (BROADCAST, 9))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    say_outcome("broadcast allowed", one.sendto, b"x", (BROADCAST, 9))
    say_outcome("unreachable", one.sendto, b"x", (UNREACHABLE, 9))
    one.sendto(b"", address)
    say("empty readable", settle(two, "5"))
    data, source = two.recvfrom(100)
    say("empty", (data, source[1] == one.getsockname()[1]))
    one.sendto(b"boundary", address)
    one.sendto(b"kept", address)
    settle(two, "5")
    time.sleep(0.05)
    say("first", two.recv(100))
    say("second", two.recv(100))
    one.sendto(b"truncated", address)
    settle(two, "5")
    say("truncated", two.recvmsg(5)[:1] + (two_flags(one, two, address),))
    one.sendto(b"full length", address)
    settle(two, "5")
    say("MSG_TRUNC", two.recv_into(bytearray(4), 4, socket.MSG_TRUNC))
    one.sendto(b"peeked", address)
    settle(two, "5")
    say("MSG_PEEK", two.recv(100, socket.MSG_PEEK))
    say("MSG_PEEK again", two.recvfrom(3, socket.MSG_PEEK)[0])
    say("peeked", two.recv(100))
    with nonblocking(two):
        say_outcome("empty queue", two.recv, 1)
    two.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
    say_outcome("SO_RCVTIMEO", two.recv, 1)
    one.sendmsg([b"in ", b"pieces"], [], 0, address)
    settle(two, "5")
    say("read", os.read(two.fileno(), 100))
    one.connect(address)
    os.write(one.fileno(), b"written")
    settle(two, "5")
    say("write", two.recv(100))
    one.close()
    two.close()


def two_flags(one: socket.socket, two: socket.socket, address: Address) -> bool:
    one.sendto(b"truncated", address)
    settle(two, "5")
    return bool(two.recvmsg(5)[2] & socket.MSG_TRUNC)


@group
def datagram_peers() -> None:
    server, client, stranger = (make(socket.SOCK_DGRAM) for _ in range(3))
    for sock in (server, stranger):
        sock.bind((HOST, 0))
    client.bind((HOST, free_port()))
    client.connect(server.getsockname())
    say("peer", client.getpeername() == server.getsockname())
    stranger.sendto(b"not from the peer", client.getsockname())
    server.sendto(b"from the peer", client.getsockname())
    settle(client, "5")
    time.sleep(0.05)
    say("filtered", client.recv(100))
    with nonblocking(client):
        say_outcome("only that", client.recv, 100)
    say("send", client.send(b"to the peer"))
    settle(server, "5")
    say("received", server.recv(100))
    say("elsewhere", client.sendto(b"to a stranger", stranger.getsockname()))
    settle(stranger, "5")
    say("stranger", stranger.recv(100))
    unconnect(client)
    say_outcome("dissolved", client.getpeername)
    stranger.sendto(b"welcome now", client.getsockname())
    say("unfiltered", (settle(client, "5"), client.recv(100)))
    # Another socket on the same port takes what the connected one does not.
    first, second = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    for sock in (first, second):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((HOST, 0))
    first.connect(server.getsockname())
    second.bind(first.getsockname())
    server.sendto(b"for the first", first.getsockname())
    stranger.sendto(b"for the second", first.getsockname())
    settle(first, "5")
    settle(second, "5")
    say("first", first.recv(100))
    say("second", second.recv(100))
    for sock in (server, client, stranger, first, second):
        sock.close()


def unconnect(sock: socket.socket) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.connect(sock.fileno(), struct.pack("=H", socket.AF_UNSPEC) + bytes(14), 16)


@group
def datagram_errors() -> None:
    port = free_port()
    sock = make(socket.SOCK_DGRAM)
    sock.connect((HOST, port))
    say("first send", sock.send(b"x"))
    say("told", settle(sock, "c") in ("c", "5"))
    say_outcome("then recv", sock.recv, 1)
    with nonblocking(sock):
        say_outcome("once", sock.recv, 1)
    sock.send(b"x")
    settle(sock, "c")
    say_outcome("then send", sock.send, b"x")
    settle(sock, "c")
    say("SO_ERROR", error_of(sock))
    say("SO_ERROR again", error_of(sock))
    sock.close()
    sock = make(socket.SOCK_DGRAM)
    sock.sendto(b"x", (HOST, port))
    time.sleep(0.1)
    say("unconnected hears nothing", (mask(sock), error_of(sock)))
    sock.close()


@group
def datagram_controls() -> None:
    one, two = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    two.bind(("0.0.0.0", 0))
    address = (HOST, two.getsockname()[1])
    two.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    two.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
    one.sendto(b"x", address)
    settle(two, "5")
    _, controls, flags, _ = two.recvmsg(10, 512)
    found = {(level, kind): data for level, kind, data in controls}
    info = found.get((0, 8), bytes(12))
    say("pktinfo", socket.inet_ntoa(info[8:12]))
    say("tos", found.get((0, 1)))
    say("flags", flags)
    one.sendto(b"x", address)
    settle(two, "5")
    say("no room for controls", bool(two.recvmsg(10, 8)[2] & socket.MSG_CTRUNC))
    one.close()
    two.close()


# T10: options


@group
def options() -> None:
    stream = [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, (1, 0, 5)),
        (socket.SOL_SOCKET, socket.SO_REUSEPORT, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, (1, 0, 7)),
        (socket.SOL_SOCKET, socket.SO_BROADCAST, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_OOBINLINE, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, (8192, 100_000, 1)),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, (8192, 100_000, 1)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, (1, 0, 9)),
        (socket.IPPROTO_TCP, socket.TCP_CORK, (1, 0)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, (100, 0, 40_000)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, (10, 0)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, (5, 0, 200)),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (5000, -1)),
        (socket.IPPROTO_TCP, socket.TCP_SYNCNT, (3, 0)),
        (socket.IPPROTO_TCP, socket.TCP_LINGER2, (30,)),
        (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, (1, 5, 30)),
        (socket.IPPROTO_IP, socket.IP_TOS, (0x10,)),
        (socket.IPPROTO_IP, socket.IP_TTL, (10, 256)),
        (socket.IPPROTO_IP, 10, (0, 2, 9)),  # IP_MTU_DISCOVER
        (socket.IPPROTO_IP, 11, (1, 0)),  # IP_RECVERR
        (socket.IPPROTO_IP, 24, (1, 0)),  # IP_BIND_ADDRESS_NO_PORT
    ]
    sock = make()
    for level, option, values in stream:
        for value in values:
            say(
                f"option {level} {option} = {value}",
                (outcome(sock.setsockopt, level, option, value), sock.getsockopt(level, option)),
            )
    say("linger", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    linger_zero(sock)
    say("linger set", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    say("maxseg", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
    say("one octet", sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1))
    say("short", sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 2))
    say("info state", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0])
    sock.close()
    caller, accepted = pair()
    say("connected info", caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[0])
    say("connected nodelay", outcome(caller.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1))
    say("connected reads", caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    for one in (caller, accepted):
        one.close()
    datagram = make(socket.SOCK_DGRAM)
    for level, option, values in (
        (socket.SOL_SOCKET, socket.SO_BROADCAST, (1, 0)),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, (8192, 1)),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, (8192, 1)),
        (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, (5,)),
        (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, (0, 1)),
        (socket.IPPROTO_IP, socket.IP_RECVTOS, (1, 0)),
    ):
        for value in values:
            say(
                f"datagram option {level} {option} = {value}",
                (
                    outcome(datagram.setsockopt, level, option, value),
                    datagram.getsockopt(level, option),
                ),
            )
    say("error", error_of(datagram))
    datagram.close()


# T11, T12: processes


@group
def processes() -> None:
    caller, accepted = pair()
    child = os.fork()
    if not child:
        caller.send(b"from the child")
        os._exit(0)
    os.waitpid(child, 0)
    settle(accepted, "5")
    say("fork", accepted.recv(100))
    say("open after the child ended", mask(caller))

    copy = os.dup(caller.fileno())
    caller.close()
    os.write(copy, b"through dup")
    settle(accepted, "5")
    say("dup", accepted.recv(100))
    target = os.dup(0)
    os.dup2(copy, target)
    os.close(copy)
    os.write(target, b"through dup2")
    settle(accepted, "5")
    say("dup2", accepted.recv(100))
    os.close(target)
    say("last close", settle(accepted, "2005"))
    accepted.close()

    with listen() as listener:
        children = []
        for _ in range(3):
            child = os.fork()
            if not child:
                sock, _ = listener.accept()
                sock.send(b"served")
                sock.close()
                os._exit(0)
            children.append(child)
        answers = []
        for _ in range(3):
            with make() as sock:
                sock.connect(listener.getsockname())
                answers.append(receive_all(sock))
        for child in children:
            os.waitpid(child, 0)
        say("three acceptors", answers)

    with listen() as listener:
        os.set_inheritable(listener.fileno(), True)  # noqa: FBT003
        program = (
            "import socket, sys\n"
            "sock = socket.socket(fileno=int(sys.argv[1]))\n"
            "print(sock.family.name, sock.type.name, sock.getsockopt(1, 30), flush=True)\n"
            "got, address = sock.accept()\n"
            "got.sendall(got.recv(100).upper())\n"
        )
        started = subprocess.Popen(
            [sys.executable, "-c", program, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
        )
        assert started.stdout is not None
        say("inherited over exec", started.stdout.readline())
        with make() as sock:
            sock.connect(listener.getsockname())
            sock.send(b"loud")
            say("served over exec", receive_all(sock))
        started.wait()
        started.stdout.close()


@group
def programs() -> None:
    """Sockets as standard input and output of other programs, and a clean environment."""
    with listen() as listener:
        with make() as sock:
            sock.connect(listener.getsockname())
            accepted, _ = listener.accept()
            child = subprocess.Popen(["cat"], stdin=accepted, stdout=accepted, env={})
            accepted.close()
            sock.sendall(b"through cat")
            sock.shutdown(socket.SHUT_WR)
            say("cat", receive_all(sock))
            child.wait()
        program = (
            "import socket, sys\n"
            "sock = socket.create_connection(('" + HOST + "', int(sys.argv[1])))\n"
            "sock.sendall(b'clean')\n"
        )
        subprocess.run(
            [sys.executable, "-S", "-c", program, str(listener.getsockname()[1])],
            env={},
            check=True,
        )
        accepted, _ = listener.accept()
        say("clean environment", receive_all(accepted))
        accepted.close()
        for shell in ("system", "popen"):
            script = f'exec {sys.executable} -S -c "{program}" {listener.getsockname()[1]}'
            saved = dict(os.environ)
            os.environ.clear()
            os.environ["PATH"] = saved.get("PATH", "")
            if shell == "system":
                os.system(script)
            else:
                os.popen(script).close()
            os.environ.update(saved)
            accepted, _ = listener.accept()
            say(shell, receive_all(accepted))
            accepted.close()


@group
def passing() -> None:
    caller, accepted = pair()
    left, right = socket.socketpair()
    child = os.fork()
    if not child:
        right.close()
        _, numbers, _, _ = socket.recv_fds(left, 1, 1)
        got = socket.socket(fileno=numbers[0])
        say("passed names", got.getpeername()[0])
        got.send(b"passed")
        os._exit(0)
    left.close()
    socket.send_fds(right, [b"x"], [caller.fileno()])
    os.waitpid(child, 0)
    caller.close()
    settle(accepted, "2005")
    say("passed", accepted.recv(100))
    accepted.close()
    right.close()
    datagram = make(socket.SOCK_DGRAM)
    datagram.bind((HOST, 0))
    left, right = socket.socketpair()
    socket.send_fds(right, [b"x"], [datagram.fileno()])
    _, numbers, _, _ = socket.recv_fds(left, 1, 1)
    got = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=numbers[0])
    sender = make(socket.SOCK_DGRAM)
    sender.sendto(b"datagram", got.getsockname())
    settle(got, "5")
    say("passed datagram", got.recv(100))
    for sock in (datagram, left, right, got, sender):
        sock.close()


@group
def closing() -> None:
    caller, accepted = pair()
    os.close_range if hasattr(os, "close_range") else None
    os.closerange(50, 2000)
    caller.send(b"x")
    settle(accepted, "5")
    say("closerange spares", accepted.recv(1))
    sock = make()
    say("socket afterwards", sock.fileno() >= 0)
    sock.close()
    file = caller.makefile("rwb")
    file.write(b"line\n")
    file.flush()
    accepted.send(b"back\n")
    say("makefile", (accepted.recv(100), file.readline()))
    file.close()
    caller.close()
    stream = os.fdopen(os.dup(accepted.fileno()), "rb")
    stream.close()
    accepted.close()
    with make() as one, make() as two:
        number = one.fileno()
        os.dup2(two.fileno(), number)
        say("dup2 over a socket", outcome(one.getpeername))


# threads


@group
def threads() -> None:
    with listen(64) as listener:
        address = listener.getsockname()

        def serve() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    data = receive_all(sock)
                    if data == b"stop":
                        return
                    sock.sendall(data[::-1])

        servers = [threading.Thread(target=serve) for _ in range(3)]
        for server in servers:
            server.start()
        failures: list[object] = []

        def call(number: int) -> None:
            for turn in range(10):
                with make() as sock:
                    sock.connect(address)
                    text = b"%d-%d" % (number, turn)
                    sock.sendall(text)
                    sock.shutdown(socket.SHUT_WR)
                    if (got := receive_all(sock)) != text[::-1]:
                        failures.append(got)

        callers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        for _ in servers:
            with make() as sock:
                sock.connect(address)
                sock.sendall(b"stop")
        for server in servers:
            server.join()
        say("80 calls", failures)


@group
def signals() -> None:
    """The same calls under a storm of signals."""
    storms = 0

    def handler(*_: object) -> None:
        nonlocal storms
        storms += 1

    signal.signal(signal.SIGALRM, handler)
    signal.siginterrupt(signal.SIGALRM, False)  # noqa: FBT003
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(20):
            caller, accepted = pair()
            caller.sendall(b"through the storm")
            caller.shutdown(socket.SHUT_WR)
            data = receive_all(accepted)
            assert data == b"through the storm", data
            caller.close()
            accepted.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    say("calm again", storms > 0)


# T13: names


@group
def names() -> None:
    say("literal", socket.getaddrinfo("10.1.2.3", 80, type=socket.SOCK_STREAM))
    say("passive", socket.getaddrinfo(None, 80, socket.AF_INET, socket.SOCK_STREAM, 0, 1))
    say("loopback", socket.getaddrinfo(None, 80, socket.AF_INET, socket.SOCK_STREAM))
    say("service", socket.getaddrinfo("10.1.2.3", "http", type=socket.SOCK_STREAM)[0][4])
    say("localhost", socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM))
    say("gethostbyname", socket.gethostbyname("localhost"))
    say("numeric", socket.getnameinfo(("10.1.2.3", 80), 3))
    for text, arguments in (
        ("no such literal", ("not.a.literal", 80, 0, 1, 0, socket.AI_NUMERICHOST)),
        ("no such service", ("10.1.2.3", "no-such-service", 0, 1)),
        ("other family", ("10.1.2.3", 80, socket.AF_INET6, 1)),
        ("nothing", (None, None)),
    ):
        try:
            say(text, socket.getaddrinfo(*arguments))
        except socket.gaierror as exc:
            say(text, exc.errno)


def main() -> None:
    chosen = sys.argv[1:] or list(GROUPS)
    for name in chosen:
        print(f"== {name}", flush=True)
        GROUPS[name]()


if __name__ == "__main__":
    main()
