"""The two tricks that make a pair of AF_UNIX sockets show what a TCP socket shows."""

from __future__ import annotations

import errno
import random
import select
import socket
from typing import TYPE_CHECKING

import pytest

from zttrio.tap.relay import CHUNK
from zttrio.tap.standin import BULK, REST, StreamEnd, keeps_residue_harmless, make_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENTS = select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP | select.POLLRDHUP


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    service, app, _ = make_pair(socket.SOCK_STREAM)
    app.setblocking(False)
    with service, app:
        yield service, app


def mask(sock: socket.socket) -> str:
    poll = select.poll()
    poll.register(sock, EVENTS)
    events = poll.poll(0)
    return f"{events[0][1]:x}" if events else "0"


def plug(app: socket.socket) -> int:
    total = 0
    for size in (131072, 8192, 1):
        while True:
            try:
                total += app.send(bytes(size))
            except BlockingIOError:
                break
    return total


def test_two_pairs_have_different_cookies() -> None:
    one, two = make_pair(socket.SOCK_STREAM), make_pair(socket.SOCK_SEQPACKET)
    assert one[2] != two[2]
    for end in (*one[:2], *two[:2]):
        end.close()


def test_this_kernel_takes_residues() -> None:
    assert keeps_residue_harmless()


def test_a_plugged_socket_is_neither_readable_nor_writable(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    assert mask(app) == "4"
    length = plug(app)
    assert mask(app) == "0"
    end = StreamEnd(service, keeps_residue=True)
    assert end.queued == length
    end.swallow_plug(length, keep_last=True)
    assert mask(app) == "4"
    assert (end.residue, end.queued) == (1, 0)


def test_swallowing_the_plug_wakes_an_edge_triggered_poller(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    with select.epoll() as epoll:
        epoll.register(app, select.EPOLLOUT | select.EPOLLET)
        epoll.poll(0)
        length = plug(app)
        assert epoll.poll(0) == []
        StreamEnd(service, keeps_residue=True).swallow_plug(length, keep_last=True)
        assert epoll.poll(0) == [(app.fileno(), select.EPOLLOUT)]


def test_data_behind_the_plug_is_not_swallowed(pair: tuple[socket.socket, socket.socket]) -> None:
    service, app = pair
    app.send(b"plug" * 10)
    app.send(b"data")
    end = StreamEnd(service, keeps_residue=True)
    end.swallow_plug(40, keep_last=True)
    assert end.take(100) == b"data"
    assert end.residue == 1


def test_closing_with_the_residue_inside_is_a_reset(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    app.send(b"data")
    end = StreamEnd(service, keeps_residue=True)
    assert end.take(100) == b"data"
    end.give([b"last words"])
    service.close()
    assert mask(app) == "201d"
    assert app.recv(100) == b"last words"
    with pytest.raises(ConnectionResetError):
        app.recv(100)
    assert app.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        app.send(b"x")


def test_closing_without_the_residue_is_the_end_of_the_stream(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    app.send(b"data")
    end = StreamEnd(service, keeps_residue=True)
    assert end.take(100) == b"data"
    end.drop_residue()
    service.close()
    assert app.recv(100) == b""


def test_of_much_data_the_end_waits_for_the_next_turn_and_is_a_residue_until_then(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    data = random.Random(2).randbytes(BULK + 1)
    app.send(data)
    end = StreamEnd(service, keeps_residue=True)
    first = end.take(1 << 20)
    assert len(first) == BULK + 1 - REST
    assert (end.residue, end.queued, end.has_more) == (0, REST, True)
    assert first + end.take(1 << 20) == data
    assert (end.residue, end.queued, end.has_more) == (1, 0, False)
    app.send(data)
    end.take(1 << 20)
    service.close()
    assert mask(app) == "201d"


def test_what_is_given_in_pieces_is_one_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    assert end.give([b"one ", memoryview(b"and two ")[4:], b"three"]) == 13
    assert app.recv(100) == b"one two three"


def test_what_a_program_sends_arrives_whole_whatever_the_pieces(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    rng = random.Random(1)
    end = StreamEnd(service, keeps_residue=True)
    sent = received = b""
    for _ in range(300):
        piece = rng.randbytes(rng.choice((1, 2, 100, 5000, 70_000)))
        if rng.random() < 0.6 and len(sent) - len(received) + len(piece) < 100_000:
            sent += piece
            assert app.send(piece) == len(piece)
        else:
            received += end.take(rng.choice((1, 50, 4096, 1 << 20)))
            assert end.has_more == (len(received) < len(sent))
    while piece := end.take(1 << 20):
        received += piece
    assert received == sent
    assert end.residue == 1


def test_without_residues_everything_is_consumed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=False)
    app.send(b"data")
    assert (end.take(100), end.residue) == (b"data", 0)
    app.send(b"plug")
    end.swallow_plug(4, keep_last=True)
    assert (end.residue, end.queued) == (0, 0)


def test_no_room_takes_nothing_and_says_that_there_may_be_more(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    app.send(b"data")
    assert end.take(0) == b""
    assert end.has_more
    assert end.take(2) == b"da"
    assert end.has_more
    assert end.take(2) == b"ta"
    assert not end.has_more


def test_a_program_that_left_something_unread_is_told_from_one_that_did_not(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    end.give([b"unread"])
    app.send(b"last words")
    app.close()
    assert end.take(100) == b"last words"
    assert end.is_reset
    assert end.is_reset  # the kernel tells once, we remember
    other, program, _ = make_pair(socket.SOCK_STREAM)
    with other:
        program.close()
        assert not StreamEnd(other, keeps_residue=True).is_reset


def test_a_reset_is_remembered_when_reading_hears_of_it_first(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    end.give([b"unread"])
    app.close()
    assert end.give([b"more"]) == -1
    assert end.is_reset


def test_a_program_that_reads_late_finds_a_whole_chunk(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, _ = pair
    assert StreamEnd(service, keeps_residue=True).give([bytes(CHUNK)]) == CHUNK


def test_a_full_program_takes_what_it_can(pair: tuple[socket.socket, socket.socket]) -> None:
    service, _ = pair
    end = StreamEnd(service, keeps_residue=True)
    taken = 0
    while (step := end.give([bytes(1 << 20)])) > 0:
        taken += step
    assert step == 0
    assert 100_000 < taken < 1 << 20


def test_finishing_twice_is_finishing_once(pair: tuple[socket.socket, socket.socket]) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    end.finish()
    end.finish()
    assert app.recv(1) == b""
    app.send(b"still")
    assert end.take(100) == b"still"


def test_an_urgent_octet_does_not_stop_the_reader(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    service, app = pair
    end = StreamEnd(service, keeps_residue=True)
    app.send(b"before")
    try:
        app.send(b"!", socket.MSG_OOB)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this kernel has no urgent data on AF_UNIX")
    app.send(b"after")
    data = b""
    for _ in range(5):
        data += end.take(100)
    assert data == b"before!after"
