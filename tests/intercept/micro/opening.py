"""States, non-blocking and blocking connect, readiness, accept."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import termios
import threading
import time
from typing import Any

from .base import (
    HOST,
    PATIENCE,
    UNREACHABLE,
    Address,
    error_of,
    free_port,
    group,
    ioctl_number,
    listen,
    make,
    mask,
    nonblocking,
    outcome,
    pair,
    quiet_pipe,
    say,
    say_outcome,
    settle,
)

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
        time.sleep(0.02)  # ours may say so twice, while the filler is being taken out
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
            full.append(sock)
        settle(full[0], "4")
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
            connect_through_signal(listener, restart=restart)


def connect_through_signal(listener: socket.socket, *, restart: bool) -> None:
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
    result = connect_raw(call, listener.getsockname())
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(f"restart {restart}", result)
    say("handler ran", bool(seen))
    done.set()
    thread.join()
    if not restart:
        say("goes on", settle(call, "4", "2005") in ("4", "2005"))
        say("error", error_of(call))
    for sock in [*fill, call]:
        sock.close()


def connect_raw(sock: socket.socket, address: Address) -> str:
    """connect(2) as it is, without Python's retry after EINTR."""
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
    both: list[Any] = [accepted, read_end]
    say("select", len(select.select(both, [accepted], [], PATIENCE)[0]))
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


# T5: accept


@group
def accepting() -> None:
    with listen() as listener:
        callers = [make() for _ in range(3)]
        for caller in callers:
            caller.connect(listener.getsockname())
        listener.setblocking(False)
        accepted: list[socket.socket] = []
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
