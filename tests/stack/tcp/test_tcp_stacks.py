"""Two whole stacks back to back: TCP over IP over Ethernet, both families, and loopback."""

from __future__ import annotations

import random
import tracemalloc
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from zttrio.config import Config
from zttrio.header.offload import split
from zttrio.stack.stack import Stack
from zttrio.stack.tcp.state import CLOSED, ESTABLISHED, TIME_WAIT

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection


class Hosts:
    """Two hosts on one cable; super-segments are cut on it, as the edge of a wire does."""

    def __init__(self, family: int, mtu: int, *, offload: bool, config: Config) -> None:
        self.now = 0.0
        self.mtu = mtu
        self.stacks = [
            Stack(
                mac=bytes((2, 0, 0, 0, 0, number)),
                mtu=mtu,
                rng=random.Random(number),
                config=config,
                max_segment=61_440 if offload else 0,
                checksum_offload=offload,
            )
            for number in (1, 2)
        ]
        texts = ("10.0.0.1/24", "10.0.0.2/24") if family == 4 else ("fd00::1/64", "fd00::2/64")
        self.addresses = [ip_interface(text).ip.packed for text in texts]
        for stack, text in zip(self.stacks, texts, strict=True):
            stack.add_address(ip_interface(text), self.now)
        self.run(until=3.0)  # duplicate address detection

    def exchange(self) -> bool:
        moved = False
        for number in (0, 1):
            frames = self.stacks[number].frames_to_send(self.now, 64)
            if frames:
                moved = True
                cut = [piece for frame in frames for piece in split(frame, self.mtu)]
                self.stacks[1 - number].receive(cut, self.now)
        return moved

    def run(self, *, until: float) -> None:
        while True:
            while self.exchange():
                pass
            due = [stack.next_timer() for stack in self.stacks]
            times = [when for when in due if when is not None and when <= until]
            if not times:
                self.now = until
                return
            self.now = max(self.now, min(times))
            for stack in self.stacks:
                stack.handle_timers(self.now)

    def settle(self) -> None:
        self.run(until=self.now)

    def connect(self) -> tuple[TcpConnection, TcpConnection]:
        server = self.stacks[1].tcp
        listener = server.listen(server.bind(None, 80), 10, self.now)
        client = self.stacks[0].tcp.connect((self.addresses[1], 80), self.now)
        self.settle()
        accepted = listener.accept(self.now)
        assert accepted is not None
        listener.close(self.now)
        assert client.state == accepted.state == ESTABLISHED
        return client, accepted


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("mtu", [1500, 65520])
def test_a_megabyte_crosses_in_both_directions(family: int, offload: bool, mtu: int) -> None:
    hosts = Hosts(family, mtu, offload=offload, config=Config())
    ends = hosts.connect()
    data = [random.Random(number).randbytes(1_000_000) for number in (1, 2)]
    unsent = [memoryview(each) for each in data]
    got: list[bytearray] = [bytearray(), bytearray()]
    rounds = 0
    while any(len(each) < 1_000_000 for each in got):
        for number, end in enumerate(ends):
            unsent[number] = unsent[number][end.send(unsent[number], hosts.now) :]
            while chunk := end.receive(1 << 20, hosts.now):
                got[1 - number] += chunk
        hosts.exchange()
        rounds += 1
        if rounds % 10 == 0:
            hosts.run(until=hosts.now + 0.05)  # delayed ACKs
        assert rounds < 20_000
    assert [bytes(each) for each in got] == data
    for end in ends:
        end.close(hosts.now)
        hosts.settle()
    assert [end.state for end in ends] == [TIME_WAIT, CLOSED]
    hosts.run(until=hosts.now + 61.0)
    for stack in hosts.stacks:
        assert stack.tcp.table == {}
        assert len(stack.ports) == 0
        assert stack.counters.tcp_retransmits == 0
        assert stack.counters.tcp_bad_checksum == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
def test_a_host_talks_to_itself(address: str) -> None:
    hosts = Hosts(4, 1500, offload=False, config=Config())
    tcp = hosts.stacks[0].tcp
    listener = tcp.listen(tcp.bind(None, 80), 10, hosts.now)
    client = tcp.connect((ip_address(address).packed, 80), hosts.now)
    hosts.settle()
    server = listener.accept(hosts.now)
    assert server is not None
    data = bytes(range(256)) * 2000
    sent = 0
    got = bytearray()
    while len(got) < len(data):
        sent += client.send(data[sent:], hosts.now)
        hosts.run(until=hosts.now + 0.05)
        while chunk := server.receive(1 << 20, hosts.now):
            got += chunk
    assert bytes(got) == data
    assert client.mss == 65535 - 40 - 12


def test_a_connection_to_its_own_port_opens_to_itself() -> None:
    hosts = Hosts(4, 1500, offload=False, config=Config(ephemeral_ports=(50000, 50000)))
    tcp = hosts.stacks[0].tcp
    connection = tcp.connect((hosts.addresses[0], 50000), hosts.now)
    hosts.settle()
    assert connection.state == ESTABLISHED
    connection.send(b"echo", hosts.now)
    hosts.settle()
    assert connection.receive(10, hosts.now) == b"echo"


def test_nobody_there_is_noticed_by_the_neighbor_cache() -> None:
    hosts = Hosts(4, 1500, offload=False, config=Config())
    connection = hosts.stacks[0].tcp.connect((bytes([10, 0, 0, 99]), 80), hosts.now)
    hosts.run(until=hosts.now + 10.0)
    assert connection.state == CLOSED
    with pytest.raises(OSError, match="host unreachable"):
        connection.receive(1, hosts.now)


def test_idle_connections_are_small() -> None:
    hosts = Hosts(4, 1500, offload=False, config=Config(ephemeral_ports=(20000, 60000)))
    server, client = hosts.stacks[1].tcp, hosts.stacks[0].tcp
    listener = server.listen(server.bind(None, 80), 5000, hosts.now)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = []
        for _ in range(4):
            kept += [client.connect((hosts.addresses[1], 80), hosts.now) for _ in range(50)]
            hosts.settle()
            while (accepted := listener.accept(hosts.now)) is not None:
                kept.append(accepted)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept) == 400
    assert used / len(kept) < 2800  # tables, bindings and timers included
