"""IPv6 beside Linux on one link: a real router, long pings, groups."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Network
from zttrio.header.address import packed
from zttrio.wire import Tap

from .conftest import inside, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

RADVD = """
interface tap7 {
  AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvLinkMTU 1400;
  prefix 2001:db8:1::/64 { AdvOnLink on; AdvAutonomous on; };
};
"""


def set_up() -> Network:
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", "10.99.0.2/24", "dev", "tap7")
    for address in ("fd00:99::2/64", "2001:db8:1::2/64"):
        run("ip", "-6", "address", "add", address, "dev", "tap7", "nodad")
    run("ip", "link", "set", "tap7", "up")
    return Network(wire=Tap("tap7"), addresses=["10.99.0.1/24", "fd00:99::1/64"])


def autoconfigured(network: Network) -> list[str]:
    """Our addresses in the router's prefix."""
    texts = [str(interface.ip) for interface in network.addresses]
    return [text for text in texts if text.startswith("2001:db8:1:")]


async def output_of(*command: str) -> str:
    """What *command* prints, run while our stack goes on working."""
    done = await trio.run_process(inside(*command), capture_stdout=True, check=False)
    return done.stdout.decode()


async def until_ping(target: str, *options: str) -> None:
    """Ping until it works: a busy machine may lose some, a broken stack loses all."""
    while True:
        if " 0% packet loss" in await output_of("ping", "-c", "2", "-W", "5", *options, target):
            return


@pytest.mark.skipif(shutil.which("radvd") is None, reason="needs radvd")
async def test_a_real_router_configures_us_and_long_pings_come_back(tmp_path: Path) -> None:
    (tmp_path / "radvd.conf").write_text(RADVD)
    with trio.fail_after(110):
        async with set_up() as network:
            run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
            files = ("-C", str(tmp_path / "radvd.conf"), "-p", str(tmp_path / "pid"))
            async with trio.open_nursery() as nursery:
                command = inside("radvd", "-n", "-m", "stderr", *files)
                nursery.start_soon(partial(trio.run_process, command, stderr=subprocess.DEVNULL))
                # Nobody reports new addresses.
                while not (ours := autoconfigured(network)):  # noqa: ASYNC110
                    await trio.sleep(0.05)
                await until_ping(ours[0], "-6")
                await until_ping("fd00:99::1", "-6", "-s", "60000")
                await until_ping("10.99.0.1", "-s", "60000")
                assert await network.ping("2001:db8:1::2") > 0
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("group", ["239.1.2.3", "ff05::1234"])
async def test_groups_work_both_ways(group: str) -> None:
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with trio.fail_after(110):
        async with set_up() as network:
            sock = network.socket(family, socket.SOCK_DGRAM)
            index = socket.if_nametoindex("tap7")
            with sock, socket.socket(family, socket.SOCK_DGRAM) as theirs:
                await sock.bind(("::" if ":" in group else "0.0.0.0", 5555))
                theirs.bind(("", 6666))
                member = packed(group)
                if family == socket.AF_INET6:
                    sock.setsockopt(
                        socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member + struct.pack("I", 0)
                    )
                    theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                    theirs.setsockopt(
                        socket.IPPROTO_IPV6,
                        socket.IPV6_JOIN_GROUP,
                        member + struct.pack("I", index),
                    )
                else:
                    near, far = packed("10.99.0.1"), packed("10.99.0.2")
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member + near)
                    theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, far)
                    theirs.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member + far)
                received: tuple[bytes, object] | None = None
                while received is None:
                    theirs.sendto(b"from Linux", (group, 5555))
                    with trio.move_on_after(1):
                        received = await sock.recvfrom(100)
                assert received[0] == b"from Linux"
                theirs.setblocking(False)
                answer = b""
                while answer != b"from us":
                    await sock.sendto(b"from us", (group, 6666))
                    with trio.move_on_after(1):
                        await trio.lowlevel.wait_readable(theirs)
                        answer = theirs.recv(100)
