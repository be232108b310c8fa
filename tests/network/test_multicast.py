"""Groups, their options, and ancillary data, through sockets of a Network."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from zttrio.header.address import INTERFACE_INDEX

from .conftest import Pair, address_family, host_of, open_pair, wildcard

if TYPE_CHECKING:
    from zttrio import Network

pytestmark = pytest.mark.usefixtures("family")

GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
JOIN = {4: (IP, socket.IP_ADD_MEMBERSHIP), 6: (IPV6, socket.IPV6_JOIN_GROUP)}
LEAVE = {4: (IP, socket.IP_DROP_MEMBERSHIP), 6: (IPV6, socket.IPV6_LEAVE_GROUP)}
HOPS = {4: (IP, socket.IP_MULTICAST_TTL), 6: (IPV6, socket.IPV6_MULTICAST_HOPS)}
LOOP = {4: (IP, socket.IP_MULTICAST_LOOP), 6: (IPV6, socket.IPV6_MULTICAST_LOOP)}
IP_PKTINFO, IP_RECVTTL = 8, 12  # Linux's; Python 3.11 has no names for them
PKTINFO = {4: (IP, IP_PKTINFO), 6: (IPV6, socket.IPV6_RECVPKTINFO)}
RECVHOPS = {4: (IP, IP_RECVTTL), 6: (IPV6, socket.IPV6_RECVHOPLIMIT)}
RECVCLASS = {4: (IP, socket.IP_RECVTOS), 6: (IPV6, socket.IPV6_RECVTCLASS)}
CLASS = {4: (IP, socket.IP_TOS), 6: (IPV6, socket.IPV6_TCLASS)}


def octets(address: str) -> bytes:
    return socket.inet_pton(address_family(), address)


def membership(family: int, group: str = "", index: int = 0) -> bytes:
    """A struct ip_mreqn or ipv6_mreq."""
    packed = octets(group or GROUP[family])
    if family == 4:
        return struct.pack("@4s4si", packed, bytes(4), index)
    return struct.pack("@16si", packed, index)


async def open_member(network: Network, family: int, port: int = 5000) -> trio.socket.SocketType:
    sock = network.socket(address_family(), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await sock.bind((wildcard(), port))
    sock.setsockopt(*JOIN[family], membership(family))
    return sock


async def is_silent(sock: trio.socket.SocketType) -> bool:
    with trio.move_on_after(1) as scope:
        await sock.recv(100)
    return scope.cancelled_caught


async def test_members_hear_their_group_until_they_leave(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.b.open_udp_socket(5001, host=wildcard()) as other_port,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            await sender.sendto(b"all of you", (GROUP[family], 5000))
            data, source = await member.recvfrom(100)
            assert data == b"all of you"
            assert source[:2] == (host_of(pair.a), sender.getsockname()[1])
            assert await is_silent(other_port)

            member.setsockopt(*LEAVE[family], membership(family))
            await sender.sendto(b"all of you", (GROUP[family], 5000))
            assert await is_silent(member)
        await pair.check_nothing_is_left()


async def test_a_long_datagram_reaches_its_group_in_fragments(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            await sender.sendto(bytes(4000), (GROUP[family], 5000))
            assert await member.recv(5000) == bytes(4000)


async def test_closing_a_member_leaves_the_group(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        groups = pair.b._driver.stack.groups
        with await open_member(pair.b, family) as one, await open_member(pair.b, family) as two:
            assert octets(GROUP[family]) in groups
            one.close()
            assert octets(GROUP[family]) in groups
            two.close()
            assert octets(GROUP[family]) not in groups


async def test_every_member_of_one_host_gets_a_copy(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as one,
            await open_member(pair.b, family) as two,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            await sender.sendto(b"copy", (GROUP[family], 5000))
            assert await one.recv(100) == b"copy"
            assert await two.recv(100) == b"copy"


async def test_the_sender_hears_itself_unless_it_does_not_want_to(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with await open_member(pair.a, family) as here, await open_member(pair.b, family) as there:
            assert here.getsockopt(*LOOP[family]) == 1
            await here.sendto(b"loop", (GROUP[family], 5000))
            assert await here.recv(100) == b"loop"
            assert await there.recv(100) == b"loop"
            here.setsockopt(*LOOP[family], 0)
            await here.sendto(b"no loop", (GROUP[family], 5000))
            assert await there.recv(100) == b"no loop"
            assert await is_silent(here)
            here.setsockopt(*LOOP[family], 1)
            here.setsockopt(*HOPS[family], 0)
            await here.sendto(b"not out", (GROUP[family], 5000))
            assert await here.recv(100) == b"not out"
            assert await is_silent(there)


async def test_the_hop_limit_for_groups_is_one_until_somebody_says_otherwise(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            member.setsockopt(*RECVHOPS[family], 1)
            seen = []
            for hops in (None, 7, -1, 255):
                if hops is not None:
                    sender.setsockopt(*HOPS[family], hops)
                await sender.sendto(b"x", (GROUP[family], 5000))
                _, ((_, _, value),), _, _ = await member.recvmsg(10, 100)
                seen.append((sender.getsockopt(*HOPS[family]), struct.unpack("i", value)[0]))
            assert seen == [(1, 1), (7, 7), (1, 1), (255, 255)]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("short", errno.EINVAL),
        ("number", errno.EINVAL),
        ("no group", errno.EINVAL),
        ("no interface", errno.ENODEV),
        ("twice", errno.EADDRINUSE),
    ],
)
async def test_what_cannot_be_joined_is_refused_as_on_linux(
    family: int, value: str, code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with await open_member(pair.a, family) as sock:
            wrong: Any = {
                "short": b"1234",
                "number": 17,
                "no group": membership(family, pair.b_host),
                "no interface": membership(family, "ff15::9" if family == 6 else "239.9.9.9", 77),
                "twice": membership(family),
            }[value]
            before = len(pair.a._driver.stack.groups)
            with pytest.raises(OSError) as caught:
                sock.setsockopt(*JOIN[family], wrong)
            assert caught.value.errno == code
            assert len(pair.a._driver.stack.groups) == before


async def test_leaving_what_was_not_joined_is_an_error(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with pair.a.socket(address_family(), socket.SOCK_DGRAM) as sock:
            with pytest.raises(OSError) as caught:
                sock.setsockopt(*LEAVE[family], membership(family))
            assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_streams_join_nothing(family: int, autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair() as pair:
        with pair.a.socket(address_family(), socket.SOCK_STREAM) as sock:
            with pytest.raises(OSError) as caught:
                sock.setsockopt(*JOIN[family], membership(family))
            assert caught.value.errno == errno.EPROTO
            with pytest.raises(OSError) as caught:
                sock.setsockopt(*HOPS[family], 1)
            assert caught.value.errno == (errno.EINVAL if family == 4 else errno.ENOPROTOOPT)


async def test_the_interface_for_groups_is_ours_or_none(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            pair.a.socket(address_family(), socket.SOCK_DGRAM) as sock,
            await open_member(pair.b, family) as member,
        ):
            if family == 4:
                option = (IP, socket.IP_MULTICAST_IF)
                assert sock.getsockopt(*option, 4) == bytes(4)
                sock.setsockopt(*option, octets(pair.a_host))
                assert sock.getsockopt(*option, 4) == octets(pair.a_host)
                with pytest.raises(OSError) as caught:
                    sock.setsockopt(*option, octets(pair.b_host))
                assert caught.value.errno == errno.EADDRNOTAVAIL
            else:
                option = (IPV6, socket.IPV6_MULTICAST_IF)
                assert sock.getsockopt(*option) == 0
                sock.setsockopt(*option, INTERFACE_INDEX)
                assert sock.getsockopt(*option) == INTERFACE_INDEX
                with pytest.raises(OSError) as caught:
                    sock.setsockopt(*option, 77)
                assert caught.value.errno == errno.ENODEV
            await sock.sendto(b"from there", (GROUP[family], 5000))
            data, source = await member.recvfrom(100)
            assert (data, source[0]) == (b"from there", pair.a_host)


async def test_the_interface_s_address_is_the_source(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        second = IPv4Interface("10.77.0.1/24")
        pair.a._driver.stack.add_address(second, trio.current_time())
        with (
            pair.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            pair.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as member,
        ):
            await member.bind(("", 5000))
            group = socket.inet_aton(GROUP[4])
            member.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, group + bytes(4))
            seen = []
            for chosen in (bytes(4), second.packed, bytes(4)):
                sock.setsockopt(IP, socket.IP_MULTICAST_IF, group + chosen)
                await sock.sendto(b"x", (GROUP[4], 5000))
                seen.append((await member.recvfrom(10))[1][0])
            usual = next(str(i.ip) for i in pair.a.addresses if i.version == 4)
            assert seen == [usual, "10.77.0.1", usual]


async def test_what_was_asked_for_comes_with_a_datagram(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            for option in (PKTINFO, RECVHOPS, RECVCLASS):
                assert member.getsockopt(*option[family]) == 0
                member.setsockopt(*option[family], 1)
            sender.setsockopt(*CLASS[family], 0x2E << 2)
            for host in (pair.b_host, GROUP[family]):
                await sender.sendto(b"x", (host, 5000))
                data, ancillary, flags, source = await member.recvmsg(10, 200)
                hops = 64 if host == pair.b_host else 1
                assert isinstance(source, tuple)
                assert (data, flags, source[0]) == (b"x", 0, pair.a_host)
                if family == 4:
                    own = octets(pair.b_host)
                    assert ancillary == [
                        (IP, IP_PKTINFO, struct.pack("@i4s4s", INTERFACE_INDEX, own, octets(host))),
                        (IP, socket.IP_TTL, struct.pack("i", hops)),
                        (IP, socket.IP_TOS, b"\xb8"),
                    ]
                else:
                    assert ancillary == [
                        (
                            IPV6,
                            socket.IPV6_PKTINFO,
                            struct.pack("@16si", octets(host), INTERFACE_INDEX),
                        ),
                        (IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", hops)),
                        (IPV6, socket.IPV6_TCLASS, struct.pack("i", 0xB8)),
                    ]


async def test_ancillary_data_without_room_is_cut_and_said_to_be(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            member.setsockopt(*RECVHOPS[family], 1)
            member.setsockopt(*RECVCLASS[family], 1)
            lengths = []
            for room in (0, socket.CMSG_LEN(2), socket.CMSG_LEN(4), socket.CMSG_SPACE(4), 200):
                await sender.sendto(b"x", (pair.b_host, 5000))
                _, ancillary, flags, _ = await member.recvmsg(10, room)
                assert flags in (0, socket.MSG_CTRUNC)
                lengths.append(([len(data) for _, _, data in ancillary], flags != 0))
            second = 1 if family == 4 else 4
            assert lengths == [
                ([], True),
                ([2], True),
                ([4], True),
                ([4], True),
                ([4, second], False),
            ]


async def test_one_datagram_may_differ_from_its_socket(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        with (
            await open_member(pair.b, family) as member,
            await pair.a.open_udp_socket(host=wildcard()) as sender,
        ):
            member.setsockopt(*RECVHOPS[family], 1)
            member.setsockopt(*RECVCLASS[family], 1)
            own = octets(pair.a_host)
            said: list[tuple[int, int, bytes]]
            if family == 4:
                said = [
                    (IP, IP_PKTINFO, struct.pack("@i4s4s", 0, own, bytes(4))),
                    (IP, socket.IP_TTL, struct.pack("i", 9)),
                    (IP, socket.IP_TOS, b"\x28"),
                ]
            else:
                said = [
                    (IPV6, socket.IPV6_PKTINFO, struct.pack("@16si", own, INTERFACE_INDEX)),
                    (IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", 9)),
                    (IPV6, socket.IPV6_TCLASS, struct.pack("i", 0x28)),
                ]
            await sender.sendmsg([b"o", b"ne"], said, 0, (pair.b_host, 5000))
            data, ancillary, _, source = await member.recvmsg(10, 200)
            assert isinstance(source, tuple)
            assert (data, source[0]) == (b"one", pair.a_host)
            assert [int.from_bytes(value, "little") for _, _, value in ancillary] == [9, 0x28]
            await sender.sendto(b"as usual", (pair.b_host, 5000))
            _, ancillary, _, _ = await member.recvmsg(10, 200)
            assert [int.from_bytes(value, "little") for _, _, value in ancillary] == [64, 0]


async def refuse(pair: Pair, code: int, message: tuple[int, int, bytes]) -> None:
    with pair.a.socket(address_family(), socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError) as caught:
            await sock.sendmsg([b"x"], [message], 0, (pair.b_host, 5000))
        assert caught.value.errno == code


async def test_a_datagram_cannot_pretend_or_say_nonsense(
    family: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_pair() as pair:
        stranger = octets(pair.b_host)
        if family == 4:
            await refuse(
                pair, errno.EINVAL, (IP, IP_PKTINFO, struct.pack("@i4s4s", 0, stranger, bytes(4)))
            )
            await refuse(pair, errno.EINVAL, (IP, IP_PKTINFO, bytes(4)))
            await refuse(pair, errno.EINVAL, (IP, socket.IP_TTL, struct.pack("i", 256)))
        else:
            info = socket.IPV6_PKTINFO
            await refuse(pair, errno.EINVAL, (IPV6, info, struct.pack("@16si", stranger, 0)))
            await refuse(
                pair, errno.ENODEV, (IPV6, info, struct.pack("@16si", octets(pair.a_host), 7))
            )
            await refuse(pair, errno.EINVAL, (IPV6, socket.IPV6_HOPLIMIT, b"\x01"))
        await refuse(pair, errno.EINVAL, (socket.SOL_SOCKET, 77, b""))
        assert pair.a._driver.stack.counters.udp_out == 0


async def test_one_octet_is_enough_for_the_options_that_bsd_had(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair() as pair:
        with pair.a.socket(address_family(), socket.SOCK_DGRAM) as sock:
            sock.setsockopt(IP, socket.IP_MULTICAST_TTL, b"\x05")
            assert sock.getsockopt(IP, socket.IP_MULTICAST_TTL, 1) == b"\x05"
            with pytest.raises(OSError) as caught:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, b"\x05")
            assert caught.value.errno == errno.EINVAL


async def test_v6_only_is_decided_before_there_is_a_port(
    autojump_clock: trio.testing.MockClock,
) -> None:
    option = (IPV6, socket.IPV6_V6ONLY)
    async with open_pair() as pair:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with pair.a.socket(socket.AF_INET6, kind) as sock:
                sock.setsockopt(*option, 1)
                sock.setsockopt(*option, 0)
                await sock.bind(("::", 0))
                with pytest.raises(OSError) as caught:
                    sock.setsockopt(*option, 1)
                assert caught.value.errno == errno.EINVAL
                assert sock.getsockopt(*option) == 0
            with pair.a.socket(socket.AF_INET, kind) as sock:
                with pytest.raises(OSError) as caught:
                    sock.setsockopt(*option, 1)
                assert caught.value.errno == errno.ENOPROTOOPT
