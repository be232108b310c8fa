"""How a Network begins and ends, in peace and otherwise."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from zttrio import Config, LocalError, Network, WireError
from zttrio.abc import Instrument, Wire
from zttrio.testing import Lab, Link

from .conftest import open_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zttrio.abc import WirePort
    from zttrio.header.frame import Frame


class FragileWire(Wire):
    """Swallows everything, until told to die."""

    name = "fragile"
    mac = b"\x02\0\0\0\0\x01"
    mtu = 1500

    def __init__(self) -> None:
        self.broken = trio.Event()

    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await self.broken.wait()
        raise WireError("fragile: cut")

    def send(self, frames: Sequence[Frame]) -> int:
        return len(frames)


class StubbornWire(FragileWire):
    """Takes no frames at all."""

    def send(self, frames: Sequence[Frame]) -> int:
        return 0


class UnopenableWire(FragileWire):
    async def run(
        self, port: WirePort, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        raise WireError("cannot open: go away")


async def test_a_wire_that_cannot_open_raises_on_entry() -> None:
    with pytest.raises(WireError, match="go away"):
        async with Network(wire=UnopenableWire(), addresses=["10.0.0.1/24"]):
            pytest.fail("the body must not run")


async def test_a_wire_that_dies_ends_the_block_with_its_error() -> None:
    wire = FragileWire()
    stream_error: list[BaseException] = []

    with pytest.raises(WireError, match="cut"):
        async with Network(wire=wire, addresses=["10.0.0.1/24"]) as net:
            (listener,) = await net.open_tcp_listeners(7, host="127.0.0.1")
            one = await net.open_tcp_stream("127.0.0.1", 7)
            await listener.accept()

            async def read() -> None:
                with trio.CancelScope(shield=True):
                    try:
                        await one.receive_some()
                    except trio.BrokenResourceError as exc:
                        stream_error.append(exc)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                wire.broken.set()
    assert len(stream_error) == 1
    cause = stream_error[0].__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.ENETDOWN
    assert "cut" in str(cause)


async def test_the_body_s_error_leaves_as_the_same_object(
    autojump_clock: trio.testing.MockClock,
) -> None:
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        async with Network(wire=FragileWire(), addresses=["10.0.0.1/24"]):
            raise error
    assert caught.value is error


async def test_leaving_delivers_what_was_sent_and_says_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lab = Lab(seed=1, link=Link(delay=0.05))
    async with lab.network("b") as b:
        await b.wait_online()
        (listener,) = await b.open_tcp_listeners(7, host="0.0.0.0")
        async with lab.network("a") as a:
            await a.wait_online()
            stream = await a.open_tcp_stream(str(b.addresses[0].ip), 7)
            await stream.send_all(b"last words" * 1000)
        other = await listener.accept()
        received = b""
        async for chunk in other:
            received += chunk
        assert received == b"last words" * 1000
        with pytest.raises(trio.BrokenResourceError, match="down"):
            await stream.send_all(b"too late")


async def test_a_cancelled_body_says_goodbye_too(autojump_clock: trio.testing.MockClock) -> None:
    lab = Lab(seed=1, link=Link(delay=0.05))
    async with lab.network("b") as b:
        await b.wait_online()
        (listener,) = await b.open_tcp_listeners(7, host="0.0.0.0")
        with trio.move_on_after(3):
            async with lab.network("a") as a:
                await a.wait_online()
                stream = await a.open_tcp_stream(str(b.addresses[0].ip), 7)
                await stream.send_all(b"hello")
                await trio.sleep_forever()
        other = await listener.accept()
        assert await other.receive_some() == b"hello"
        assert await other.receive_some() == b""


async def test_leaving_resets_a_peer_that_does_not_finish_within_linger(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lab = Lab(seed=1, link=Link(delay=0.001))
    async with lab.network("b") as b:
        await b.wait_online()
        (listener,) = await b.open_tcp_listeners(7, host="0.0.0.0")
        async with lab.network("a", config=Config(linger=1.5)) as a:
            await a.wait_online()
            await a.open_tcp_stream(str(b.addresses[0].ip), 7)
            other = await listener.accept()
            left = trio.current_time()
        assert trio.current_time() - left == pytest.approx(1.5, abs=0.01)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await other.send_all(b"still here")
                await trio.sleep(0.1)


async def test_a_wire_that_takes_nothing_does_not_hold_up_leaving(
    autojump_clock: trio.testing.MockClock,
) -> None:
    started = trio.current_time()
    async with Network(wire=StubbornWire(), addresses=["10.0.0.1/24"]) as net:
        with trio.move_on_after(1):
            await net.open_tcp_stream("10.0.0.2", 7)
    assert trio.current_time() - started <= 1 + Config().linger + 0.01


async def test_an_object_serves_one_block() -> None:
    net = Network(wire=FragileWire(), addresses=["10.0.0.1/24"])
    with pytest.raises(LocalError, match="async with"):
        await net.open_tcp_stream("10.0.0.2", 7)
    async with net:
        pass
    with pytest.raises(LocalError, match="one block"):
        async with net:
            pytest.fail("the body must not run")


async def test_after_the_block_sockets_say_that_the_network_is_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Network(wire=FragileWire(), addresses=["10.0.0.1/24"]) as net:
        sock = net.socket()
        udp = await net.open_udp_socket()
    for call in (sock.connect(("10.0.0.2", 7)), udp.sendto(b"x", ("10.0.0.2", 7)), udp.recv(1)):
        with pytest.raises(OSError, match="down") as caught:
            await call
        assert caught.value.errno == errno.ENETDOWN
    with pytest.raises(OSError, match="down"):
        net.socket()


@pytest.mark.timeout(10)  # a loop without a checkpoint is beyond trio's reach
async def test_after_the_block_a_listener_does_not_listen_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Network(wire=FragileWire(), addresses=["10.0.0.1/24"]) as net:
        [listener, _] = await net.open_tcp_listeners(7)
    with pytest.raises(OSError, match="any more: network is down: the Network is closed") as caught:
        await listener.accept()  # ENETDOWN means one connection to trio, which tries again
    assert caught.value.errno == errno.EINVAL


async def test_a_wire_that_dies_wakes_who_accepts(autojump_clock: trio.testing.MockClock) -> None:
    wire = FragileWire()
    caught: list[OSError] = []

    async def accept(listener: trio.SocketListener) -> None:
        try:
            await listener.socket.accept()
        except OSError as exc:
            caught.append(exc)

    with pytest.raises(WireError, match="cut"):
        async with Network(wire=wire, addresses=["10.0.0.1/24"]) as net:
            [listener, _] = await net.open_tcp_listeners(7)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept, listener)
                await trio.testing.wait_all_tasks_blocked()
                wire.broken.set()
    assert [exc.errno for exc in caught] == [errno.EINVAL]
    assert "fragile: cut" in str(caught[0])


async def test_instruments_see_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    class Counting(Instrument):
        received = sent = 0

        def frames_received(self, frames: Sequence[Frame], now: float) -> None:
            self.received += len(frames)

        def frames_sent(self, frames: Sequence[Frame], now: float) -> None:
            self.sent += len(frames)

    counting = Counting()
    lab = Lab(seed=1)
    async with lab.network("a", instruments=[counting]) as a, lab.network("b") as b:
        await a.wait_online()
        await b.wait_online()
        await a.ping(str(b.addresses[0].ip))
    assert counting.received >= 2
    assert counting.sent >= 2


async def test_an_idle_network_does_not_wake_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        await pair.a.ping(pair.b_host)
        await trio.sleep(3600)
        steps: list[str] = []

        class Steps(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                steps.append(task.name)

        watcher = Steps()
        trio.lowlevel.add_instrument(watcher)
        await trio.sleep(3600)
        trio.lowlevel.remove_instrument(watcher)
        assert [name for name in steps if "zttrio" in name] == []


@pytest.mark.parametrize("address", ["169.254.7.7/16", "fe80::7/64"])
async def test_a_link_local_address_is_enough_if_it_was_asked_for(
    autojump_clock: trio.testing.MockClock, address: str
) -> None:
    async with Network(wire=FragileWire(), addresses=[address]) as network:
        with trio.fail_after(5):
            assert address in map(str, await network.wait_online())


async def test_a_link_local_address_that_comes_by_itself_is_not_enough(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with Network(wire=FragileWire(), addresses=[]) as network:
        with trio.move_on_after(60) as scope:
            await network.wait_online()
        assert scope.cancelled_caught
        assert network.addresses
