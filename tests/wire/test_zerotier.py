"""Networks on a ZeroTier network, with real threads, and a cable instead of UDP."""

from __future__ import annotations

import hashlib
import socket
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from examples import echo_client, echo_server, http_client
from tests.zerotier.data import node_identities
from zttrio import AccessDenied, JoinError, Network, NetworkNotFound, WireError
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.wire.shortcuts import COALESCE
from zttrio.wire.zerotier.wire import STRIDE, _merge
from zttrio.zerotier.endpoint import Endpoint
from zttrio.zerotier.network.networks import NetworkStatus, StatusChanged

from .zerotier_universe import ROOT, Universe, on_node, planet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for the worker threads, which are quick."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def universe(nursery: trio.Nursery) -> AsyncGenerator[Universe, None]:
    made = Universe()
    await nursery.start(made.root.run)
    with trio.fail_after(300):
        yield made


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send_all(data)


async def test_two_members_get_addresses_and_speak_tcp_udp_and_icmp(universe: Universe) -> None:
    network_id = universe.network(name="lab")
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        started = trio.current_time()
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        assert trio.current_time() - started < 10
        assert ip_interface(host).ip in ip_interface("10.99.0.0/24").network
        assert await a.ping(host) < 5
        await nursery.start(b.serve_tcp, echo, 7)
        data = bytes(range(256)) * 4000
        async with await a.open_tcp_stream(host, 7) as stream:
            nursery.start_soon(stream.send_all, data)
            received = bytearray()
            while len(received) < len(data):
                received += await stream.receive_some()
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        inbox = await b.open_udp_socket(9)
        outbox = await a.open_udp_socket()
        await outbox.sendto(b"x" * 2772, (host, 9))
        assert await inbox.recv(5000) == b"x" * 2772
        nursery.cancel_scope.cancel()


async def test_a_megabyte_arrives_intact_both_ways_and_uncut(universe: Universe) -> None:
    network_id = universe.network()
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    data = bytes(range(251)) * 4000
    digest = hashlib.sha256(data).digest()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            received = b"".join([bytes(chunk) async for chunk in stream])
            assert hashlib.sha256(received).digest() == digest
            await stream.send_all(data)

    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        await nursery.start(b.serve_tcp, answer, 7)
        before = [net.status().counters.get("node_fragment_completed", 0) for net in (a, b)]
        async with await a.open_tcp_stream(host, 7) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            received = b"".join([bytes(chunk) async for chunk in stream])
        assert hashlib.sha256(received).digest() == digest
        # Full segments fit one datagram each, so VL1 does not cut them.
        after = [net.status().counters.get("node_fragment_completed", 0) for net in (a, b)]
        assert after == before
        if COALESCE:
            counters = b.status().counters
            assert counters["frames_in"] < counters["frames_received"] / 4
        nursery.cancel_scope.cancel()


async def test_who_is_not_let_in_learns_which_node_to_authorise(
    clock: MockClock, universe: Universe
) -> None:
    network_id = universe.network()
    wire = on_node(network_id, universe.node(1))
    async with Network(wire=wire) as net:
        with pytest.raises(AccessDenied) as caught:
            await net.wait_online()
        assert caught.value.network_id == f"{network_id:016x}"
        assert caught.value.node_address == str(node_identities()[1])
        universe.authorize(network_id, 1)
        while True:
            try:
                await net.wait_online()
                break
            except AccessDenied:
                await trio.sleep(0.1)
        assert wire.failure is None


async def test_a_network_that_its_controller_does_not_know_is_not_found(
    universe: Universe,
) -> None:
    network_id = universe.network() ^ 0xFFFF
    async with Network(wire=on_node(network_id, universe.node(1))) as net:
        with pytest.raises(NetworkNotFound, match=f"{network_id:016x}"):
            await net.wait_online()


async def test_a_token_lets_in_without_the_administrator(universe: Universe) -> None:
    network_id = universe.network(authTokens={"secret": 0})
    wire = on_node(network_id, universe.node(1), token="secret")
    async with Network(wire=wire) as net:
        await net.wait_online()


async def test_settings_of_the_controller_change_while_connections_live_on(
    universe: Universe,
) -> None:
    network_id = universe.network(mtu=2800)
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        await nursery.start(b.serve_tcp, echo, 7)
        async with await a.open_tcp_stream(host, 7) as stream:
            assert a.status().mtu == 2800
            universe.change_network(network_id, mtu=1500, v6AssignMode={"rfc4193": True})
            while a.status().mtu != 1500 or b.status().mtu != 1500:  # noqa: ASYNC110
                await trio.sleep(0.05)
            assert sum(i.version == 6 and not i.ip.is_link_local for i in a.addresses) == 1
            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"
        six = next(str(i.ip) for i in b.addresses if i.version == 6 and not i.ip.is_link_local)
        assert await a.ping(six) < 5
        nursery.cancel_scope.cancel()


async def test_a_rule_of_the_network_keeps_a_port_closed(
    clock: MockClock, universe: Universe
) -> None:
    drop_80 = [
        {"type": "MATCH_IP_DEST_PORT_RANGE", "start": 80, "end": 80},
        {"type": "ACTION_DROP"},
        {"type": "ACTION_ACCEPT"},
    ]
    network_id = universe.network(rules=drop_80)
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        for port in (7, 80):
            await nursery.start(b.serve_tcp, echo, port)
        stream = await a.open_tcp_stream(host, 7)
        await stream.aclose()
        with trio.move_on_after(2.5) as waiting:
            await a.open_tcp_stream(host, 80)
        assert waiting.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_a_member_that_is_shut_out_is_heard_by_nobody(
    clock: MockClock, universe: Universe
) -> None:
    network_id = universe.network()
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        assert await a.ping(host) < 5
        await trio.sleep(1.1)  # a controller's clock has to move between the two decisions
        universe.authorize(network_id, 1, authorized=False)
        await trio.sleep(0.5)
        with trio.move_on_after(1.5) as waiting:
            await a.ping(host)
        assert waiting.cancelled_caught


async def test_multicast_reaches_who_is_in_the_group(universe: Universe) -> None:
    network_id = universe.network()
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b:
        await b.wait_online()
        await a.wait_online()
        inbox = await b.open_udp_socket(5353)
        group = socket.inet_aton("239.1.2.3")
        inbox.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + bytes(4))
        outbox = await a.open_udp_socket()
        with trio.fail_after(20):
            while True:  # datagrams may be lost before the group is known
                await outbox.sendto(b"to all", ("239.1.2.3", 5353))
                with trio.move_on_after(0.5):
                    assert await inbox.recv(100) == b"to all"
                    break


async def test_a_restart_keeps_the_identity_and_needs_no_controller(
    universe: Universe, tmp_path: Path
) -> None:
    network_id = universe.network(name="kept")
    universe.authorize(network_id, 1)
    node = universe.node(1, tmp_path)
    async with Network(wire=on_node(network_id, node, home=tmp_path)) as net:
        before = await net.wait_online()
    stored = tmp_path / "networks.d" / f"{network_id:016x}.conf"
    assert b"n=kept" in stored.read_bytes()
    universe.cable.cut.add(universe.cable.sockets[Endpoint.parse(ROOT)].endpoint)
    node = universe.node(1, tmp_path)
    async with Network(wire=on_node(network_id, node, home=tmp_path)) as net:
        with trio.fail_after(1):
            after = await net.wait_online()
        assert [i for i in after if i.version == 4] == [i for i in before if i.version == 4]


async def test_networks_of_one_home_are_one_node_and_any_of_them_may_go_first(
    universe: Universe, nursery: trio.Nursery
) -> None:
    ids = [universe.network(), universe.network()]
    node, peer = universe.node(1), universe.node(2)
    for network_id in ids:
        universe.authorize(network_id, 1)
        universe.authorize(network_id, 2)
    hosts = []
    for network_id in ids:
        net = await nursery.start(_stay, Network(wire=on_node(network_id, peer)))
        hosts.append(str((await net.wait_online())[0].ip))
    await nursery.start(net.serve_tcp, echo, 7)

    may_leave = trio.Event()
    one = await nursery.start(_stay, Network(wire=on_node(ids[0], node)), may_leave)
    await one.wait_online()
    assert await one.ping(hosts[0]) < 5
    async with Network(wire=on_node(ids[1], node)) as two:
        await two.wait_online()
        assert node.users == 2
        stream = await two.open_tcp_stream(hosts[1], 7)
        may_leave.set()
        while node.users == 2:  # noqa: ASYNC110 - it drove the node
            await trio.sleep(0.01)
        sock = universe.cable.sockets[Endpoint.parse("10.0.1.1/9993")]
        assert not sock.is_closed
        await stream.send_all(b"go on")
        assert await stream.receive_some() == b"go on"
        await stream.aclose()
    assert sock.is_closed


async def _stay(
    net: Network,
    until: trio.Event | None = None,
    *,
    task_status: trio.TaskStatus[Network] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with net:
        task_status.started(net)
        await (trio.Event() if until is None else until).wait()


async def test_a_node_is_on_a_network_once(universe: Universe) -> None:
    network_id = universe.network()
    node = universe.node(1)
    async with Network(wire=on_node(network_id, node)) as net:
        with pytest.raises(WireError, match="is on it already"):
            async with Network(wire=on_node(network_id, node)):
                pytest.fail("it has joined twice")
        assert node.users == 1
        assert net.status().wire == f"zerotier {network_id:016x}"


async def test_nothing_is_sent_without_a_planet_of_the_owners_choice(tmp_path: Path) -> None:
    for home in (None, tmp_path):
        with pytest.raises(WireError, match="did not choose"):
            async with Network("8056c2e21c000001", home=home):
                pytest.fail("which planet was that?")


def test_what_cannot_be_merged_stays_as_it_is_and_in_order() -> None:
    sizes = [60, STRIDE, 14, STRIDE + 1, 100, 9000, 200, 300, 400, 20]
    frames = [bytes((number,)) * size for number, size in enumerate(sizes)]
    assert list(map(bytes, _merge(frames))) == frames
    assert _merge([]) == []
    many = [bytes(100)] * 1000
    assert list(map(bytes, _merge(many))) == many


@pytest.mark.parametrize("text", ["", "8056c2e21c00000", "8056c2e21c00000g", "0" * 16, "host"])
def test_a_network_id_has_sixteen_hex_digits(text: str) -> None:
    with pytest.raises(ValueError, match="needs sixteen hex digits"):
        Network(text or "x")


async def test_the_examples_and_other_peoples_libraries_do_not_notice(
    universe: Universe,
) -> None:
    network_id = universe.network()
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        await nursery.start(echo_server.serve, b)
        line = b"a line\n" * 1000
        assert await echo_client.ask(a, host, echo_server.PORT, line) == line
        await nursery.start(http_client.serve_page, b, 80)
        assert (await http_client.fetch(a, f"http://{host}/")).content == http_client.PAGE
        nursery.cancel_scope.cancel()


async def test_datagrams_that_the_kernel_does_not_take_hold_the_stack_back(
    universe: Universe,
) -> None:
    network_id = universe.network()
    one, two = universe.wire(network_id, 1), universe.wire(network_id, 2)
    async with Network(wire=one) as a, Network(wire=two) as b:
        host = str((await b.wait_online())[0].ip)
        await a.wait_online()
        await a.ping(host)
        inbox, outbox = await b.open_udp_socket(9), await a.open_udp_socket()
        sock = universe.cable.sockets[Endpoint.parse("10.0.1.1/9993")]
        sock.is_blocked = True
        sent = 0
        with trio.move_on_after(1) as waiting:
            while True:
                await outbox.sendto(bytes((sent,)), (host, 9))
                sent += 1
        assert waiting.cancelled_caught
        assert sent == 2  # one waits for the kernel, one for the wire
        assert a.status().counters["blocked"] == 1
        sock.unblock()
        assert [await inbox.recv(9) for _ in range(sent)] == [b"\0", b"\1"]


async def test_a_status_says_who_we_are_and_how_others_are_reached(universe: Universe) -> None:
    network_id = universe.network()
    wire = on_node(network_id, universe.node(1))
    async with Network(wire=wire) as net:
        with pytest.raises(AccessDenied):
            await net.wait_online()
        status = net.status()
        assert status.identity == str(node_identities()[1])
        assert "has not authorised node" in status.failure
        assert status.peers == (f"{node_identities()[0]} at {ROOT} root",)
        assert f"node {status.identity}" in str(status)
        assert "refused: " in str(status)


async def test_a_network_without_a_controller_needs_only_a_root(universe: Universe) -> None:
    everything = 0xFF0000FFFF000000  # every TCP port from 0 to ffff
    one, two = (on_node(everything, universe.node(number)) for number in (1, 2))
    async with Network(wire=one) as a, Network(wire=two) as b, trio.open_nursery() as nursery:
        host = next(str(i.ip) for i in await b.wait_online() if not i.ip.is_link_local)
        assert host.startswith("fc")
        await a.wait_online()
        assert await a.ping(host) < 5
        await nursery.start(b.serve_tcp, echo, 7)
        async with await a.open_tcp_stream(host, 7) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_a_network_that_wants_a_login_says_where(universe: Universe) -> None:
    network_id = universe.network()
    wire = universe.wire(network_id, 1)
    async with Network(wire=wire) as net:
        for url, told in (("https://login.example", "https://login.example"), ("", "knows where")):
            event = StatusChanged(network_id, NetworkStatus.AUTHENTICATION_REQUIRED, url)
            wire.take_event(event)
            assert isinstance(wire.failure, JoinError)
            assert told in str(wire.failure)
            assert told in net.status().failure


async def test_a_wire_serves_one_network_once_and_then_counts_what_it_gets(
    universe: Universe,
) -> None:
    network_id = universe.network()
    wire = universe.wire(network_id, 1)
    frame = Frame(bytes(60))
    assert wire.send([frame]) == 1
    async with Network(wire=wire) as net:
        await net.wait_online()
        assert wire.send([Frame(bytes(60), b"", 0, CHECKSUM_PARTIAL)]) == 1
        assert wire.counters()["malformed"] == 1
    assert wire.send([frame, frame]) == 2
    assert wire.counters()["not_running"] == 3
    assert wire.peers() == []
    wire.follow(frozenset(), frozenset())
    with pytest.raises(WireError, match="serves one Network once"):
        async with Network(wire=wire):
            pytest.fail("it runs twice")


async def test_a_node_that_runs_is_not_taken_to_another_planet(universe: Universe) -> None:
    network_id = universe.network()
    node = universe.node(1)
    async with Network(wire=on_node(network_id, node)):
        wire = on_node(network_id ^ 1, node)
        wire._wanted_planet = planet(world_id=9)
        with pytest.raises(WireError, match="in use with another planet"):
            async with Network(wire=wire):
                pytest.fail("which planet is it on?")
        assert node.users == 1
