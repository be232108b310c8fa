"""Addresses and a way out from radvd, the router that Linux has."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from contextlib import contextmanager
from ipaddress import IPv6Interface, IPv6Network, ip_network
from typing import TYPE_CHECKING

import pytest
import trio

from zttrio import Network
from zttrio.wire import Tap

from .conftest import OURS, inside, run
from .test_both_families import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import Far

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.usefixtures("namespace"),
    pytest.mark.skipif(shutil.which("radvd") is None, reason="radvd is not installed"),
]

PREFIX = IPv6Network("2001:db8:7::/64")
ROUTER = "2001:db8:7::1"
VALID = 8  # seconds; radvd sends every 3 to 4
CONFIGURATION = f"""
interface tap7 {{
  AdvSendAdvert on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval 4;
  AdvDefaultLifetime {VALID};
  AdvLinkMTU 1400;
  prefix {PREFIX} {{
    AdvOnLink on;
    AdvAutonomous on;
    AdvValidLifetime {VALID};
    AdvPreferredLifetime 5;
  }};
}};
"""


@pytest.fixture
def router(far: Far, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Radvd on the kernel's side of tap7, with a host behind it at 2001:db8:8::2."""
    run("ip", "tuntap", "add", "dev", "tap7", "mode", "tap")
    run("ip", "address", "add", f"{ROUTER}/64", "dev", "tap7", "nodad")
    run("ip", "link", "set", "tap7", "up")
    far.connect("2001:db8:8::1", "2001:db8:8::2")
    configuration = tmp_path / "radvd.conf"
    configuration.write_text(CONFIGURATION)
    configuration.chmod(0o644)
    process = subprocess.Popen(
        inside(
            *("radvd", "--nodaemon", "--logmethod", "stderr", "--debug", "1"),
            *("--config", str(configuration), "--pidfile", str(tmp_path / "pid")),
        ),
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def given(network: Network) -> list[IPv6Interface]:
    """The addresses of the advertised prefix."""
    return [
        interface
        for interface in network.addresses
        if isinstance(interface, IPv6Interface) and interface.ip in PREFIX
    ]


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    assert not scope.cancelled_caught, f"not within {seconds} s: {what}"


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110 - the stack has no event for it
        await trio.sleep(0.05)


async def test_a_host_takes_its_address_and_its_way_out_from_the_router(
    router: subprocess.Popen[bytes], far: Far
) -> None:
    async with Network(wire=Tap("tap7"), addresses=[f"{OURS}/24"]) as network:
        with within(10, "an address of the prefix"):
            await until(lambda: given(network))
        (own,) = given(network)
        assert own.network == PREFIX
        stack = network._driver.stack
        with within(5, "it is no longer tentative"):
            await until(lambda: not stack.addresses.entries[own.ip.packed].is_optimistic)

        # To the router itself, and through it to a host that only a default route leads to.
        with within(5, "the router answers"):
            await network.ping(ROUTER)
        with far.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
            await server.bind(("2001:db8:8::2", 7))
            server.listen()
            with within(20, "a stream to a host behind the router"):
                ours = await network.open_tcp_stream("2001:db8:8::2", 7)
                theirs, address = await server.accept()
                assert address[0] == str(own.ip)
                await exchange(ours, trio.SocketStream(theirs))
        packed = socket.inet_pton(socket.AF_INET6, "2001:db8:8::2")
        assert stack.ip.path_mtu(packed) == 1400  # as the router says

        # The advertisements are repeated, and so the address outlives its first lifetime.
        await trio.sleep(VALID + 2)
        assert given(network) == [own]

        # Nobody says good-bye when a router loses its power: what it said lapses by itself.
        router.kill()
        before = trio.current_time()
        with within(VALID + 4, "the address lapses"):
            await until(lambda: not given(network))
        assert trio.current_time() - before > VALID - 5
        with pytest.raises(OSError, match="2001:db8:8::2") as caught:
            await network.open_tcp_stream("2001:db8:8::2", 7)
        assert caught.value.errno == errno.ENETUNREACH


async def test_a_router_that_stops_is_no_router_at_once(
    router: subprocess.Popen[bytes],
) -> None:
    async with Network(wire=Tap("tap7"), addresses=[f"{OURS}/24"]) as network:
        with within(10, "an address of the prefix"):
            await until(lambda: given(network))
        routes = network._driver.stack.routers
        assert routes.sizes["routers"] == 1, routes.sizes
        router.terminate()  # it sends a router lifetime of 0 (RFC 4861 6.2.5)
        with within(2, "the router is forgotten"):
            await until(lambda: not routes.sizes["routers"])
        assert given(network)  # the prefix has a lifetime of its own


async def test_the_same_router_gives_the_same_prefix_to_two_hosts_but_not_the_same_address(
    router: subprocess.Popen[bytes],
) -> None:
    del router
    seen = set()
    for _ in range(2):
        async with Network(wire=Tap("tap7"), addresses=[f"{OURS}/24"]) as network:
            with within(10, "an address of the prefix"):
                await until(lambda n=network: given(n))  # type: ignore[misc]
            (own,) = given(network)
            assert own.network == ip_network(PREFIX)
            seen.add(own)
    assert len(seen) == 2  # another hardware address, and another secret (RFC 7217)
