"""Fork, exec, descriptor passing, threads, signals, names."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

from .base import (
    HOST,
    group,
    listen,
    make,
    mask,
    outcome,
    pair,
    receive_all,
    say,
    settle,
)

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
    last = os.dup(0)
    os.dup2(target, last, inheritable=False)  # this one is dup3()
    os.close(target)
    os.write(last, b"through dup3")
    settle(accepted, "5")
    say("dup3", accepted.recv(100))
    say("close on exec", not os.get_inheritable(last))
    named = socket.socket(fileno=last)
    say("name of a copy", named.getpeername() == accepted.getsockname())
    named.close()
    say("last close", settle(accepted, "2005"))
    accepted.close()
    copied_datagrams()

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
        os.set_inheritable(listener.fileno(), True)
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


def copied_datagrams() -> None:
    first, peer = make(socket.SOCK_DGRAM), make(socket.SOCK_DGRAM)
    peer.bind((HOST, 0))
    first.connect(peer.getsockname())
    numbers = [os.dup(first.fileno()), fcntl.fcntl(first.fileno(), fcntl.F_DUPFD_CLOEXEC, 100)]
    for inheritable in (True, False):
        number = os.dup(0)
        numbers.append(os.dup2(first.fileno(), number, inheritable=inheritable))
    name = first.getsockname()
    first.close()
    for number in numbers:
        os.write(number, b"%d" % numbers.index(number))
        settle(peer, "5")
        data, source = peer.recvfrom(100)
        peer.sendto(data + b" back", source)
        settle(peer, "4")
        say("copied datagrams", (data, source == name, os.read(number, 100)))
        os.close(number)
    peer.close()


@group
def programs() -> None:
    """Sockets as standard input and output of other programs, and a clean environment."""
    with listen() as listener:
        with make() as sock:
            sock.connect(listener.getsockname())
            accepted, _ = listener.accept()
            child = subprocess.Popen(
                ["cat"], stdin=accepted.fileno(), stdout=accepted.fileno(), env={}
            )
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
    signal.siginterrupt(signal.SIGALRM, False)
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
