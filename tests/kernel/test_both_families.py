"""TCP, UDP, echo and groups between our stack and the kernel's, over IPv4 and over IPv6."""

from __future__ import annotations

import errno
import hashlib
import random
import socket
import struct
from functools import partial
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio.header.address import INTERFACE_INDEX

from .conftest import KERNEL, KERNEL6, OURS, OURS6, open_tap_network, run
from .verdict import explains

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zttrio import Network

    from .conftest import Far

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

SIZE = 3_000_000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}


class Family:
    """Names and numbers of one family."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.number = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
        self.ours = {4: OURS, 6: OURS6}[version]
        self.kernels = {4: KERNEL, 6: KERNEL6}[version]
        self.wildcard = {4: "0.0.0.0", 6: "::"}[version]
        self.group = GROUP[version]

    def join(self, sock: trio.socket.SocketType, interface: int, address: str) -> None:
        """Become a member of the group on one interface."""
        group = socket.inet_pton(self.number, self.group)
        if self.version == 4:
            request = group + socket.inet_aton(address)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            request = group + struct.pack("@I", interface)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    """Run the test over both."""
    return Family(request.param)  # type: ignore[return-value]


async def exchange(one: trio.SocketStream, other: trio.SocketStream) -> None:
    """Megabytes in both directions at once; both must arrive as they were."""

    async def send(stream: trio.SocketStream, data: bytes) -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async def check(stream: trio.SocketStream, expected: bytes) -> None:
        digest = hashlib.sha256()
        async for chunk in stream:
            digest.update(chunk)
        assert digest.digest() == hashlib.sha256(expected).digest()

    there, back = (random.Random(seed).randbytes(SIZE) for seed in (1, 2))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, one, there)
            nursery.start_soon(send, other, back)
            nursery.start_soon(check, one, back)
            nursery.start_soon(check, other, there)
    await one.aclose()
    await other.aclose()


async def test_streams_that_we_open_arrive_whole(family: Family) -> None:
    async with open_tap_network() as network:
        (listener,) = await trio.open_tcp_listeners(0, host=family.kernels)
        port = listener.socket.getsockname()[1]
        ours = await network.open_tcp_stream(family.kernels, port)
        theirs = await listener.accept()
        assert theirs.socket.getpeername()[0] == family.ours
        await exchange(ours, theirs)
        await listener.aclose()


async def test_streams_that_the_kernel_opens_arrive_whole(family: Family) -> None:
    async with open_tap_network() as network:
        (listener,) = await network.open_tcp_listeners(7, host=family.wildcard)
        theirs = await trio.open_tcp_stream(family.ours, 7)
        ours = await listener.accept()
        assert ours.socket.getpeername()[0] == family.kernels
        await exchange(ours, theirs)
        await listener.aclose()


async def test_one_listener_serves_the_kernel_s_clients_of_both_families() -> None:
    async with open_tap_network() as network:
        with network.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
            await listener.bind(("::", 7))
            listener.listen()
            for host, seen in ((OURS, f"::ffff:{KERNEL}"), (OURS6, KERNEL6)):
                async with await trio.open_tcp_stream(host, 7) as theirs:
                    sock, address = await listener.accept()
                    assert address[0] == seen
                    await exchange(trio.SocketStream(sock), theirs)


async def test_datagrams_arrive_whole_both_ways(family: Family) -> None:
    rng = random.Random(3)
    async with open_tap_network() as network:
        with (
            await network.open_udp_socket(7, host=family.wildcard) as ours,
            trio.socket.socket(family.number, socket.SOCK_DGRAM) as theirs,
            trio.fail_after(30),
        ):
            await theirs.bind((family.kernels, 0))
            for size in (0, 1, 500, 1452, 1453, 1472, 1473, 8000, 30_001, 60_000, 65_487):
                there, back = rng.randbytes(size), rng.randbytes(size)
                await theirs.sendto(there, (family.ours, 7))
                data, address = await ours.recvfrom(65_536)
                assert hashlib.sha256(data).digest() == hashlib.sha256(there).digest()
                await ours.sendto(back, address)
                data, address = await theirs.recvfrom(65_536)
                assert hashlib.sha256(data).digest() == hashlib.sha256(back).digest()
                assert address[:2] == (family.ours, 7)


@pytest.mark.parametrize("size", ["56", "1452", "8000", "60000"])
async def test_the_kernel_s_ping_is_answered(family: Family, size: str) -> None:
    async with open_tap_network() as network:
        ping = partial(run, "ping", f"-{family.version}", "-c", "3", "-i", "0.2", "-W", "2")
        said = await trio.to_thread.run_sync(ping, "-s", size, family.ours)
        assert b"3 received, 0% packet loss" in said
        counters = network.status().counters
        assert ("reassembled" in " ".join(counters)) is (int(size) > 1480), counters


async def test_the_kernel_answers_our_ping(family: Family) -> None:
    async with open_tap_network() as network:
        with trio.fail_after(5):
            assert 0 < await network.ping(family.kernels) < 5


@explains("TcpOutRsts", "TcpAttemptFails")  # both sides refuse
async def test_nobody_home_is_told_at_once(family: Family) -> None:
    """A closed port, the kernel's and ours, and what ICMP says of UDP."""
    async with open_tap_network() as network:
        with pytest.raises(ConnectionRefusedError), trio.fail_after(5):
            await network.open_tcp_stream(family.kernels, 9)
        with pytest.raises(OSError, match="all attempts"), trio.fail_after(5):
            await trio.open_tcp_stream(family.ours, 9)
        with (
            network.socket(family.number, socket.SOCK_DGRAM) as ours,
            trio.socket.socket(family.number, socket.SOCK_DGRAM) as theirs,
        ):
            await ours.connect((family.kernels, 9))
            await theirs.connect((family.ours, 9))
            for sock in (ours, theirs):
                await sock.send(b"anybody?")
                with pytest.raises(ConnectionRefusedError), trio.fail_after(5):
                    await sock.recv(1)


async def test_groups_hear_both_ways(family: Family) -> None:
    async with open_tap_network() as network:
        await network.ping(family.kernels)  # a device that has just come up swallows a few frames
        index = socket.if_nametoindex("tap7")
        with (
            network.socket(family.number, socket.SOCK_DGRAM) as ours,
            trio.socket.socket(family.number, socket.SOCK_DGRAM) as theirs,
            trio.fail_after(10),
        ):
            await ours.bind((family.wildcard, 5000))
            await theirs.bind((family.wildcard, 5000))
            family.join(ours, INTERFACE_INDEX, OURS)
            family.join(theirs, index, KERNEL)
            if family.version == 4:
                out = socket.inet_aton(KERNEL)
                theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, out)
                theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                ours.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            else:
                theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
                ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            for size in (1, 1000, 4000):  # the last in fragments
                data = random.Random(size).randbytes(size)
                await theirs.sendto(data, (family.group, 5000))
                got, address = await ours.recvfrom(5000)
                assert (got, address[0]) == (data, family.kernels)
                await ours.sendto(data[::-1], (family.group, 5000))
                got, address = await theirs.recvfrom(5000)
                assert (got, address[0]) == (data[::-1], family.ours)


async def test_a_broadcast_reaches_the_kernel_and_one_of_its_own_us() -> None:
    async with open_tap_network() as network:
        await network.ping(KERNEL)
        with (
            await network.open_udp_socket(5000) as ours,
            trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
            trio.fail_after(10),
        ):
            await theirs.bind(("0.0.0.0", 5000))
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            await ours.sendto(b"from us", ("10.99.0.255", 5000))
            assert await theirs.recvfrom(100) == (b"from us", (OURS, 5000))
            assert await ours.recvfrom(100) == (b"from us", (OURS, 5000))  # ourselves, as on Linux
            await theirs.sendto(b"from them", ("10.99.0.255", 5000))
            assert await ours.recvfrom(100) == (b"from them", (KERNEL, 5000))


def route_to_far(network: Network, far: Far, family: Family) -> str:
    """Join the test's namespace and the far host; returns its address."""
    near, address = {
        4: ("10.98.0.1", "10.98.0.2"),
        6: ("fd00:98::1", "fd00:98::2"),
    }[family.version]
    far.connect(near, address)
    prefix = ip_network({4: "10.98.0.0/24", 6: "fd00:98::/64"}[family.version])
    gateway = ip_address(family.kernels)
    network.add_route(str(prefix), str(gateway))
    return address


async def test_a_narrow_path_is_learnt_from_the_router(family: Family, far: Far) -> None:
    async with open_tap_network() as network:
        host = route_to_far(network, far, family)
        run("ip", "link", "set", "near", "mtu", "1400")
        packed = socket.inet_pton(family.number, host)
        with far.socket(family.number, socket.SOCK_STREAM) as server:
            await server.bind((host, 7))
            server.listen()
            ours = await network.open_tcp_stream(host, 7)
            theirs, address = await server.accept()
            assert address[0] == family.ours
            await exchange(ours, trio.SocketStream(theirs))

        with (
            far.socket(family.number, socket.SOCK_DGRAM) as sink,
            network.socket(family.number, socket.SOCK_DGRAM) as sender,
            trio.fail_after(10),
        ):
            await sink.bind((host, 7))
            await sender.connect((host, 7))
            data = random.Random(1).randbytes(1420)
            got = b""
            attempts = 0
            while not got:
                attempts += 1
                try:
                    await sender.send(data)
                except OSError as exc:
                    assert exc.errno == errno.EMSGSIZE, exc  # noqa: PT017 - told of an earlier one
                with trio.move_on_after(0.5):
                    got = await sink.recv(2000)
            assert got == data
            assert attempts <= 3
        assert network._driver.stack.ip.path_mtu(packed) == 1400
        assert network.status().counters["pmtu_lowered"] == 1
