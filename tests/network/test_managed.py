"""What a wire's network sets: addresses, routes, MTU; and whom it does not let in."""

from __future__ import annotations

import socket
from ipaddress import ip_interface

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from zttrio import AccessDenied, Config, Network, NetworkNotFound
from zttrio.header.address import BROADCAST_MAC, multicast_mac, packed
from zttrio.wire import Link, MemorySegment

from .managed_wire import ManagedWire, settings

DENIED = AccessDenied("8056c2e21c000001", "89e92ceee5")


@pytest.fixture
def segment() -> MemorySegment:
    return MemorySegment(link=Link(mtu=9000))


def _addresses(net: Network) -> list[str]:
    return [str(i) for i in net.addresses if not i.ip.is_link_local]


async def test_a_network_is_online_when_its_wire_has_configured_it(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a")
    async with Network(wire=wire, addresses=["10.9.0.1/24"]) as net:
        with trio.move_on_after(10) as waiting:
            await net.wait_online()
        assert waiting.cancelled_caught
        wire.port.configure(settings("10.1.0.1/16", "fd00::1/64"))
        online = await net.wait_online()
        assert [str(i) for i in online if not i.ip.is_link_local] == [
            "10.9.0.1/24",
            "10.1.0.1/16",
            "fd00::1/64",
        ]


async def test_settings_that_come_before_the_stack_are_kept_for_it(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a", early=settings("10.1.0.1/16", mtu=2800))
    async with Network(wire=wire) as net:
        assert ip_interface("10.1.0.1/16") in await net.wait_online()
        assert net.status().mtu == 2800


async def test_a_refusal_is_raised_and_may_be_over_later(
    autojump_clock: MockClock, segment: MemorySegment, nursery: trio.Nursery
) -> None:
    wire = ManagedWire(segment, "a")
    async with Network(wire=wire) as net:

        async def refuse() -> None:
            await trio.sleep(5)
            wire.fail(DENIED)

        nursery.start_soon(refuse)
        with pytest.raises(AccessDenied) as caught:
            await net.wait_online()
        assert caught.value.node_address == "89e92ceee5"
        assert trio.current_time() == 5
        wire.fail(NetworkNotFound("8056c2e21c000001"))
        with pytest.raises(NetworkNotFound):
            await net.wait_online()
        wire.fail(None)
        wire.port.configure(settings("10.1.0.1/16"))
        await net.wait_online()
        wire.fail(DENIED)  # what we were given still counts
        await net.wait_online()


async def test_only_what_differs_is_changed_and_connections_live_on(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    one, two = ManagedWire(segment, "a"), ManagedWire(segment, "b")
    async with Network(wire=one) as a, Network(wire=two) as b:
        one.port.configure(settings("10.1.0.1/16", "10.5.0.1/24", routes=["10.7.0.0/16"]))
        two.port.configure(settings("10.1.0.2/16"))
        [listener] = await b.open_tcp_listeners(7, host="10.1.0.2")
        stream = await a.open_tcp_stream("10.1.0.2", 7)
        served = await listener.accept()
        before = list(a._driver.stack.addresses.entries.values())

        one.port.configure(
            settings("10.1.0.1/16", "10.6.0.1/24", routes=["10.8.0.0/16 via 10.1.0.2"])
        )
        assert _addresses(a) == ["10.1.0.1/16", "10.6.0.1/24"]
        kept = list(a._driver.stack.addresses.entries.values())
        assert any(old is new for old in before for new in kept if old.packed == packed("10.1.0.1"))
        routes = set(map(str, a._driver.stack.routes))
        assert {r for r in routes if r.startswith("10.")} == {
            "10.1.0.0/16",
            "10.6.0.0/24",
            "10.8.0.0/16 via 10.1.0.2",
        }
        await served.send_all(b"still here")
        assert await stream.receive_some() == b"still here"
        await wait_all_tasks_blocked()  # acknowledged

        sent = len(one.sent)
        one.port.configure(
            settings("10.1.0.1/16", "10.6.0.1/24", routes=["10.8.0.0/16 via 10.1.0.2"])
        )
        await wait_all_tasks_blocked()
        assert len(one.sent) == sent  # nothing was announced anew


async def test_what_the_user_has_set_stays_the_users(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a")
    async with Network(wire=wire, addresses=["10.1.0.1/24"]) as net:
        net.add_route("10.7.0.0/16", "10.1.0.9")
        wire.port.configure(
            settings("10.1.0.1/16", "10.2.0.1/24", routes=["10.7.0.0/16 via 10.1.0.9"])
        )
        assert _addresses(net) == ["10.1.0.1/24", "10.2.0.1/24"]
        wire.port.configure(settings())
        assert _addresses(net) == ["10.1.0.1/24"]
        net.remove_route("10.7.0.0/16", "10.1.0.9")  # KeyError if it were gone


async def test_a_new_prefix_length_replaces_the_old_one(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a", early=settings("10.1.0.1/16"))
    async with Network(wire=wire) as net:
        wire.port.configure(settings("10.1.0.1/24"))
        assert _addresses(net) == ["10.1.0.1/24"]
        with pytest.raises(OSError, match="no route"):
            net._driver.stack.ip.select_source(packed("10.1.5.5"))


async def test_what_cannot_be_set_is_counted_and_the_rest_is_set(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a")
    async with Network(wire=wire) as net:
        bad = settings(
            *("10.1.0.255/24", "224.0.0.5/24", "10.2.0.1/24"),
            routes=["10.3.0.0/24 via fd00::1", "10.4.0.0/24"],
            mtu=40,
        )
        wire.port.configure(bad)
        assert _addresses(net) == ["10.2.0.1/24"]
        assert "10.4.0.0/24" in map(str, net._driver.stack.routes)
        assert net.status().counters["settings_refused"] == 4
        wire.port.configure(settings())
        assert _addresses(net) == []


async def test_a_smaller_mtu_holds_at_once_also_for_connections(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    one = ManagedWire(segment, "a", early=settings("10.1.0.1/16", "fd00::1/64", mtu=2800))
    two = ManagedWire(segment, "b", early=settings("10.1.0.2/16", "fd00::2/64", mtu=2800))
    data = bytes(range(256)) * 400
    async with Network(wire=one) as a, Network(wire=two) as b:
        for host in ("10.1.0.2", "fd00::2"):
            [listener] = await b.open_tcp_listeners(7, host=host)
            stream = await a.open_tcp_stream(host, 7)
            served = await listener.accept()
            for mtu in (2800, 1280):
                one.port.configure(settings("10.1.0.1/16", "fd00::1/64", mtu=mtu))
                one.sent.clear()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, data)
                    received = bytearray()
                    while len(received) < len(data):
                        received += await served.receive_some()
                assert received == data
                assert max(len(frame) - 14 for frame in one.sent) == mtu
            one.port.configure(settings("10.1.0.1/16", "fd00::1/64", mtu=2800))


async def test_tcp_keeps_to_the_preferred_packet_and_others_do_not(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    early = settings("10.1.0.1/16", mtu=2800)
    one = ManagedWire(segment, "a", early=early, preferred=1394)
    two = ManagedWire(segment, "b", early=settings("10.1.0.2/16", mtu=2800))
    async with Network(wire=one) as a, Network(wire=two) as b:
        [listener] = await b.open_tcp_listeners(7, host="10.1.0.2")
        stream = await a.open_tcp_stream("10.1.0.2", 7)
        served = await listener.accept()
        for sender, receiver in ((stream, served), (served, stream)):
            one.sent.clear()
            two.sent.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sender.send_all, bytes(100_000))
                left = 100_000
                while left:
                    left -= len(await receiver.receive_some())
            assert max(len(frame) - 14 for frame in one.sent + two.sent) == 1394
        inbox = await b.open_udp_socket(9)
        outbox = await a.open_udp_socket()
        await outbox.sendto(bytes(2772), ("10.1.0.2", 9))
        assert len(await inbox.recv(5000)) == 2772
        assert max(len(frame) - 14 for frame in one.sent) == 2800


async def test_a_wire_that_wants_to_know_hears_what_the_stack_listens_to(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a")
    async with Network(wire=wire, config=Config(ipv6=False)) as net:
        assert wire.followed[-1][0] == set()
        assert BROADCAST_MAC in wire.followed[-1][1]
        wire.port.configure(settings("10.1.0.1/16", "fd00::12:3456/64"))
        solicited = multicast_mac(packed("ff02::1:ff12:3456"))
        assert wire.followed[-1][0] >= {packed("10.1.0.1"), packed("fd00::12:3456")}
        assert solicited in wire.followed[-1][1]
        count = len(wire.followed)
        await net.ping("127.0.0.1")
        assert len(wire.followed) == count  # only when something has changed

        group = multicast_mac(packed("239.1.2.3"))
        sock = await net.open_udp_socket(5000)
        membership = packed("239.1.2.3") + bytes(4)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        assert group in wire.followed[-1][1]
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
        assert group not in wire.followed[-1][1]
        wire.port.configure(settings())
        assert packed("10.1.0.1") not in wire.followed[-1][0]
        assert solicited not in wire.followed[-1][1]


async def test_the_members_of_a_managed_network_cannot_be_its_routers(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a", early=settings("fd00::1/64"))
    async with Network(wire=wire) as net:
        await net.wait_online()
        await trio.sleep(60)
        assert not any(frame[54] == 133 for frame in wire.sent if frame[12:14] == b"\x86\xdd")
        assert net._driver.stack.routers.sizes["routers"] == 0


async def test_an_address_that_turned_out_to_be_somebody_elses_is_gone_for_good(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    wire = ManagedWire(segment, "a", early=settings("fd00::1/64"))
    async with Network(wire=wire) as net:
        await net.wait_online()
        stack = net._driver.stack
        entry = stack.addresses.entries[packed("fd00::1")]
        stack._addressing.address_duplicated(entry, trio.current_time())
        assert _addresses(net) == []
        wire.port.configure(settings("10.1.0.1/16"))  # which takes it back, although it is gone
        assert _addresses(net) == ["10.1.0.1/16"]


async def test_a_first_contact_may_take_some_seconds(
    autojump_clock: MockClock, segment: MemorySegment
) -> None:
    one = ManagedWire(segment, "a", early=settings("10.1.0.1/16"))
    two = ManagedWire(segment, "b", early=settings("10.1.0.2/16"))
    async with Network(wire=one) as a, Network(wire=two):
        segment.partition(["a"], ["b"])
        async with trio.open_nursery() as nursery:

            async def heal() -> None:
                await trio.sleep(6.5)
                segment.heal()

            nursery.start_soon(heal)
            await a.ping("10.1.0.2")
        assert 6.5 < trio.current_time() < 8
        with pytest.raises(OSError, match="No route to host"):
            await a.ping("10.1.0.3")
        assert trio.current_time() < 16
