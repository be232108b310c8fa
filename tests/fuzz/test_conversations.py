"""Two stacks talk over a cable that loses, repeats and damages: what arrives is what was sent.

Deeper than single frames reach: connections, retransmissions and reassembly are under way while
the damage is done.
"""

from __future__ import annotations

import random
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.header.frame import Frame
from zttrio.stack.stack import Stack

from .seeds import spoil
from .victim import CONFIG, LIMITS, MAC, PEER, PEER_MAC, US

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection

PORT = 80


class Pair:
    """Two stacks and the cable between them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.damage = 0.2
        self.one, self.other = (
            Stack(mac=mac, mtu=1500, rng=random.Random(seed + number), config=CONFIG)
            for number, mac in enumerate((MAC, PEER_MAC))
        )
        self.one.add_address(ip_interface("10.0.0.1/24"), 0.0)
        self.other.add_address(ip_interface("10.0.0.2/24"), 0.0)

    def exchange(self) -> bool:
        """Carry what both have to say; False if nobody has said anything."""
        bursts = [
            (receiver, self.cable(sender.frames_to_send(self.now, 50)))
            for sender, receiver in ((self.one, self.other), (self.other, self.one))
        ]
        for receiver, frames in bursts:
            receiver.receive(frames, self.now)
        return any(frames for _, frames in bursts)

    def cable(self, frames: list[Frame]) -> list[Frame]:
        found = []
        for frame in frames:
            luck = self.rng.random()
            if luck >= self.damage:
                found.append(frame)
            elif luck < self.damage * 0.3:
                continue
            elif luck < self.damage * 0.5:
                found += [frame, frame]
            else:
                # A damaged checksum field that happens to fit is no damage: repaired frames are
                # the business of the other tests.
                octets = bytes(frame)
                cut = self.rng.randrange(len(octets))
                changed = octets[:cut] + bytes((octets[cut] ^ 0x55,)) + octets[cut + 1 :]
                found.append(Frame(changed))
        return found

    def wait(self) -> None:
        """Let time pass until the next timer."""
        due = [stack.next_timer() for stack in (self.one, self.other)]
        self.now = max(self.now + 0.001, min((when for when in due if when is not None), default=0))
        for stack in (self.one, self.other):
            stack.handle_timers(self.now)

    def check(self) -> None:
        for stack in (self.one, self.other):
            for name, size in stack.sizes.items():
                assert size <= LIMITS[name], name


def pump(connection: TcpConnection, data: bytes, offset: int, now: float) -> int:
    return (
        offset + connection.send(data[offset : offset + 8000], now)
        if offset < len(data)
        else offset
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_a_stream_survives_a_damaged_cable(seed: int) -> None:
    pair = Pair(seed)
    server = pair.other.tcp.listen(pair.other.tcp.bind(None, PORT), 4, 0.0)
    client = pair.one.tcp.connect((PEER, PORT), 0.0)
    # An ARP exchange that fails three times ends the attempt to connect, and rightly so.
    damage, pair.damage = pair.damage, 0.0
    pair.exchange()
    pair.exchange()
    pair.damage = damage
    data = pair.rng.randbytes(60_000)
    accepted: TcpConnection | None = None
    got = bytearray()
    offset = 0
    is_at_end = False
    for _ in range(5000):
        if not pair.exchange():
            pair.wait()
        if client.state == "ESTABLISHED":
            offset = pump(client, data, offset, pair.now)
            if offset == len(data):
                client.shutdown_write(pair.now)
        if accepted is None:
            accepted = server.accept(pair.now)
        while accepted is not None and (chunk := accepted.receive(10_000, pair.now)) is not None:
            got += chunk
            if not chunk:
                is_at_end = True
                break
        if is_at_end:
            break
    assert is_at_end
    assert bytes(got) == data
    pair.check()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_a_spoiled_conversation_does_no_harm(seed: int) -> None:
    pair = Pair(seed)
    pair.damage = 0.0
    server = pair.other.tcp.listen(pair.other.tcp.bind(None, PORT), 4, 0.0)
    datagrams = pair.other.udp.open()
    datagrams.bind(None, 5000)
    sender = pair.one.udp.open()
    clients = [pair.one.tcp.connect((PEER, PORT), 0.0) for _ in range(3)]
    accepted: list[TcpConnection] = []
    for _ in range(100):
        sender.send(bytes(pair.rng.randrange(4000)), (PEER, 5000), pair.now)
        pair.one.icmp.ping(PEER, pair.now).close()
        for connection in [*clients, *accepted]:
            try:
                connection.send(bytes(pair.rng.randrange(5000)), pair.now)
                connection.receive(pair.rng.randrange(1, 5000), pair.now)
            except OSError:
                continue  # a forged reset is a reset
        while (newcomer := server.accept(pair.now)) is not None:
            accepted.append(newcomer)
        frames = pair.one.frames_to_send(pair.now, 200)
        forged = [
            Frame(spoil(pair.rng, bytes(frame))) for frame in frames if pair.rng.random() < 0.3
        ]
        pair.other.receive(frames + forged, pair.now)
        pair.one.receive(pair.other.frames_to_send(pair.now, 200), pair.now)
        if pair.rng.random() < 0.2:
            pair.wait()
        for number in range(5):
            datagrams.peek() if number else datagrams.receive()
        pair.check()
    assert US in pair.one.addresses.ours
