"""Groups behind a bridge that asks who listens, and forwards to nobody else (RFC 4541)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Network
from zttrio.header.address import INTERFACE_INDEX
from zttrio.wire import Tap

from .conftest import KERNEL, KERNEL6, OURS, OURS6, run
from .test_both_families import Family

if TYPE_CHECKING:
    from .conftest import Far

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

# Hundredths of a second.
QUERY, RESPONSE, MEMBERSHIP = 100, 50, 400


def make_bridge(far: Far, *, igmp: int, mld: int) -> None:
    """Tap7 and the cable to the far host in one bridge, which is the querier."""
    settings = {
        "mcast_snooping": 1,
        "mcast_querier": 1,
        "mcast_igmp_version": igmp,
        "mcast_mld_version": mld,
        "mcast_query_interval": QUERY,
        "mcast_query_response_interval": RESPONSE,
        "mcast_startup_query_interval": 50,
        "mcast_membership_interval": MEMBERSHIP,
        "mcast_last_member_interval": 20,
        "mcast_last_member_count": 1,
    }
    words = [str(word) for pair in settings.items() for word in pair]
    run("ip", "link", "add", "br0", "type", "bridge", *words)
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    for device in ("tap7", "near"):
        run("ip", "link", "set", device, "master", "br0")
    for device in ("tap7", "near", "br0"):
        run("ip", "link", "set", device, "up")
    far.run("ip", "address", "add", f"{KERNEL}/24", "dev", "far")
    far.run("ip", "address", "add", f"{KERNEL6}/64", "dev", "far", "nodad")
    far.run("ip", "link", "set", "far", "up")
    far.run("ip", "route", "add", "224.0.0.0/4", "dev", "far")


def ports_of(group: str) -> set[str]:
    """The bridge's ports with members of *group*."""
    lines = run("bridge", "mdb", "show", "dev", "br0").decode().splitlines()
    words = [line.split() for line in lines if f"grp {group} " in line]
    return {each[each.index("port") + 1] for each in words}


async def until_ports(group: str, expected: set[str], seconds: float) -> None:
    """Wait until exactly the ports *expected* have members of *group*."""
    ports: set[str] = set()
    with trio.move_on_after(seconds):
        while (ports := ports_of(group)) != expected:  # noqa: ASYNC110 - the kernel has no event
            await trio.sleep(0.1)
    assert ports == expected


@pytest.mark.parametrize(
    ("version", "protocol"),
    [(4, 3), (4, 2), (6, 2), (6, 1)],
    ids=["igmp3", "igmp2", "mld2", "mld1"],
)
async def test_a_querier_knows_us_as_long_as_we_listen_and_no_longer(
    version: int, protocol: int, far: Far
) -> None:
    family = Family(version)
    igmp, mld = (protocol, 2) if version == 4 else (3, protocol)
    make_bridge(far, igmp=igmp, mld=mld)
    addresses = [f"{OURS}/24", f"{OURS6}/64"]
    async with Network(wire=Tap("tap7"), addresses=addresses) as network:
        with trio.fail_after(10):
            await network.ping(KERNEL)
        with (
            network.socket(family.number, socket.SOCK_DGRAM) as ours,
            far.socket(family.number, socket.SOCK_DGRAM) as theirs,
            trio.fail_after(30),
        ):
            await ours.bind((family.wildcard, 5000))
            if version == 6:
                shown = far.run("ip", "-o", "link", "show", "far")
                index = int(shown.partition(b":")[0])
                theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            family.join(ours, INTERFACE_INDEX, OURS)
            await until_ports(family.group, {"tap7"}, 3)
            # Twice as long as the bridge remembers anybody who does not answer its queries.
            for _ in range(8):
                await trio.sleep(MEMBERSHIP / 400)
                assert ports_of(family.group) == {"tap7"}
                await theirs.sendto(b"to all", (family.group, 5000))
                data, address = await ours.recvfrom(100)
                assert (data, address[0]) == (b"to all", family.kernels)
            counters = network.status().counters
            assert counters["igmp_queries" if version == 4 else "mld_queries"] >= 4

            if version == 4:
                group = socket.inet_aton(family.group)
                ours.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, group + bytes(4))
            else:
                group = socket.inet_pton(socket.AF_INET6, family.group)
                ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, group + bytes(4))
            # Sooner than it would forget us by itself.
            await until_ports(family.group, set(), MEMBERSHIP / 200)
