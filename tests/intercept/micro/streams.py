"""Half close, resets, transfers, back-pressure."""

from __future__ import annotations

import hashlib
import os
import random
import select
import socket
import struct
import threading
import time

from .base import (
    HOST,
    error_of,
    group,
    linger_zero,
    mask,
    outcome,
    pair,
    quiet_pipe,
    receive_all,
    say,
    say_outcome,
    settle,
)

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
    time.sleep(0.05)  # long enough for everybody to have done what there is to do
    for name, sock in (("last", caller), ("first", accepted)):
        say(f"{name} long after", (mask(sock), outcome(sock.recv, 1), error_of(sock)))
        say_outcome(f"{name} long after name", sock.getpeername)
        say_outcome(f"{name} long after shutdown", sock.shutdown, socket.SHUT_WR)
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
    time.sleep(0.05)
    say("own SHUT_RDWR long after", (mask(caller), outcome(caller.recv, 1), error_of(caller)))
    caller.close()
    accepted.close()

    for how in (socket.SHUT_WR, socket.SHUT_RDWR):
        caller, accepted = pair()
        linger_zero(caller)
        if how == socket.SHUT_WR:
            accepted.shutdown(socket.SHUT_WR)
            settle(caller, "2005")
        caller.send(b"whole")
        caller.shutdown(how)
        say("linger 0 and shut", settle(caller, "2015"))
        say("linger 0 and shut peer", accepted.recv(10, socket.MSG_WAITALL))
        time.sleep(0.05)
        say("linger 0 and shut end", (outcome(accepted.recv, 1), error_of(accepted)))
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
    linger_zero(accepted)
    thread = threading.Timer(0.1, accepted.close)
    thread.start()
    say_outcome("blocked recv", caller.recv, 1)
    thread.join()
    caller.close()


# T7: transfers


@group
def transfers() -> None:
    for size, seed in ((1, 1), (100_000, 2), (8 << 20, 3)):
        transfer(size, seed)
    sendfile()
    vectors()


def transfer(size: int, seed: int) -> None:
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
