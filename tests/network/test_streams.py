"""Streams of a Network are trio streams in every respect."""

from __future__ import annotations

import errno
import hashlib
import random
from functools import partial
from ipaddress import ip_address

import attrs
import pytest
import trio
import trio.testing

from zttrio import Config
from zttrio.testing import Link

from .conftest import QUICK, elsewhere, loopback, open_pair, wildcard

pytestmark = pytest.mark.usefixtures("family")

SMALL = attrs.evolve(QUICK, send_buffer=20_000, receive_buffer=20_000)


async def test_streams_pass_trio_s_own_check(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(config=SMALL) as pair:
        await trio.testing.check_two_way_stream(pair.connect, None)
        await trio.testing.check_half_closeable_stream(pair.connect, None)
        await pair.check_nothing_is_left()


async def test_clogged_streams_pass_trio_s_own_check(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair(config=SMALL) as pair:

        async def connect_clogged() -> tuple[trio.SocketStream, trio.SocketStream]:
            one, other = await pair.connect()
            for stream in (one, other):
                # A sender is woken when a third of its buffer is free, but takes less than that
                # if it asks: only what does not move twice is really full.
                for _ in range(2):
                    with trio.move_on_after(5):
                        while True:
                            await stream.send_all(bytes(4096))
            return one, other

        await trio.testing.check_two_way_stream(pair.connect, connect_clogged)
        await trio.testing.check_half_closeable_stream(pair.connect, connect_clogged)
        await pair.check_nothing_is_left()


async def test_a_megabyte_each_way_arrives_whole(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        one, other = await pair.connect()
        payload = random.Random(1).randbytes(1 << 20)
        digests: list[str] = []

        async def send(stream: trio.SocketStream) -> None:
            await stream.send_all(payload)
            await stream.send_eof()

        async def receive(stream: trio.SocketStream) -> None:
            digest = hashlib.sha256()
            async for chunk in stream:
                digest.update(chunk)
            digests.append(digest.hexdigest())

        async with trio.open_nursery() as nursery:
            for stream in (one, other):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        assert digests == [hashlib.sha256(payload).hexdigest()] * 2
        await one.aclose()
        await other.aclose()
        await pair.check_nothing_is_left()


async def test_a_second_reader_is_busy(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        one, other = await pair.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await one.receive_some()
            await other.aclose()
        await one.aclose()


async def test_closing_wakes_the_reader(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        one, other = await pair.connect()

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        await other.aclose()
        await pair.check_nothing_is_left()


async def test_unread_data_turns_close_into_a_reset(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        one, other = await pair.connect()
        await one.send_all(b"never read")
        await trio.sleep(1)
        await other.aclose()
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await one.receive_some()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ECONNRESET
        await one.aclose()
        await pair.check_nothing_is_left()


async def test_nobody_listening_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        with pytest.raises(ConnectionRefusedError):
            await pair.a.open_tcp_stream(pair.b_host, 9)
        await pair.check_nothing_is_left()


async def test_silence_times_out_after_127_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        await pair.a.ping(pair.b_host)
        pair.lab.partition(["a"], ["b"])
        started = trio.current_time()
        with pytest.raises(OSError) as caught:
            await pair.a.open_tcp_stream(pair.b_host, 7)
        # The neighbor may be declared dead first: both are what Linux would say.
        assert caught.value.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
        assert trio.current_time() - started <= 127.5


async def test_an_address_that_is_nobody_s_is_unreachable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        silent = str(ip_address(pair.b_host) + 1000)
        started = trio.current_time()
        with pytest.raises(OSError) as caught:
            await pair.a.open_tcp_stream(silent, 7)
        assert caught.value.errno == errno.EHOSTUNREACH
        assert trio.current_time() - started == pytest.approx(3.0, abs=0.1)
        with pytest.raises(OSError) as caught:
            await pair.a.open_tcp_stream(elsewhere(), 7)
        assert caught.value.errno == errno.ENETUNREACH
        await pair.check_nothing_is_left()


async def test_loopback_works_without_the_wire(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        (listener,) = await pair.a.open_tcp_listeners(7000, host=loopback())
        for host in (loopback(), "localhost"):
            one = await pair.a.open_tcp_stream(host, 7000)
            other = await listener.accept()
            await one.send_all(b"hello")
            assert await other.receive_some() == b"hello"
            await one.aclose()
            assert await other.receive_some() == b""
            await other.aclose()
        await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            await pair.b.open_tcp_stream(loopback(), 7000)
        await pair.check_nothing_is_left()


async def test_serve_tcp_serves_many_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send_all(chunk)

    async with open_pair(link=Link(delay=0.01)) as pair:
        replies: list[bytes] = []

        async def ask(number: int, port: int) -> None:
            async with await pair.a.open_tcp_stream(pair.b_host, port) as stream:
                await stream.send_all(f"client {number}".encode())
                await stream.send_eof()
                reply = b""
                async for chunk in stream:
                    reply += chunk
                replies.append(reply)

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(pair.b.serve_tcp, echo, 0, host=wildcard()))
            port = listeners[0].socket.getsockname()[1]
            async with trio.open_nursery() as clients:
                for number in range(50):
                    clients.start_soon(ask, number, port)
            nursery.cancel_scope.cancel()
        assert sorted(replies) == sorted(f"client {n}".encode() for n in range(50))
        await pair.check_nothing_is_left()


async def test_a_handler_that_raises_ends_its_service(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def fail(stream: trio.SocketStream) -> None:
        raise KeyError("handler")

    async with open_pair() as pair:
        with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                listeners = await nursery.start(partial(pair.b.serve_tcp, fail, 0, host=wildcard()))
                port = listeners[0].socket.getsockname()[1]
                await pair.a.open_tcp_stream(pair.b_host, port)
                await trio.sleep_forever()


async def test_ping_takes_a_round_trip(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(link=Link(delay=0.01)) as pair:
        await pair.a.ping(pair.b_host)  # the first one also asks for the hardware address
        assert await pair.a.ping(pair.b_host) == pytest.approx(0.04, rel=0.01)
        assert await pair.a.ping(loopback()) == pytest.approx(0, abs=1e-6)


async def test_config_bounds_what_a_slow_reader_costs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    config = Config(send_buffer=50_000, receive_buffer=30_000, time_wait=1.0)
    async with open_pair(config=config) as pair:
        one, other = await pair.connect()
        sent = 0
        with trio.move_on_after(10):
            while True:
                await one.send_all(bytes(1000))
                sent += 1000
        assert 60_000 <= sent <= 85_000
        status = pair.b.status().connections[0]
        assert status.receive_queue <= 30_000
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.aclose)
            async for chunk in other:
                received += len(chunk)
        assert sent <= received <= sent + 1000
        await other.aclose()
        await pair.check_nothing_is_left()
