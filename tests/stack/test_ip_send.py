"""Packets on their way out: headers, routes, fragments, loopback, and what is not sent."""

from __future__ import annotations

import errno
import random
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import attrs
import pytest

from zttrio.header.address import BROADCAST_MAC, packed
from zttrio.header.checksum import fold, pseudo_header, transport_checksum
from zttrio.header.frame import CHECKSUM_PARTIAL, Frame
from zttrio.header.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP
from zttrio.header.offload import split
from zttrio.header.tcp import ACK, TcpHeader
from zttrio.stack.fragmentation import finish_partial
from zttrio.stack.ip import ERROR_LIMIT, LOOPBACK_LIMIT, OUTBOX_LIMIT
from zttrio.stack.paths import LOOPBACK_MTU, PATH_LIMIT
from zttrio.stack.stack import Stack

from .stack_host import BROADCAST, MAC, PEER, PEER_MAC, US, Host

if TYPE_CHECKING:
    from zttrio.header.frame import Buffer
    from zttrio.stack.packet import Packet, PathError

TESTING = 253  # RFC 3692: a protocol number for experiments
FAR = packed("192.0.2.9")


@attrs.define
class Recorder:
    """A transport that remembers."""

    packets: list[Packet] = attrs.Factory(list)
    errors: list[PathError] = attrs.Factory(list)

    def receive_packet(self, packet: Packet, now: float) -> None:
        del now
        self.packets.append(packet)

    def receive_error(self, error: PathError, now: float) -> None:
        del now
        self.errors.append(error)


def make(*addresses: str, mtu: int = 1500, checksum_offload: bool = False) -> tuple[Host, Recorder]:
    host = Host(*addresses, mtu=mtu, checksum_offload=checksum_offload)
    host.meet()
    recorder = Recorder()
    host.stack.ip.register(TESTING, recorder)
    return host, recorder


def test_the_header_says_what_was_asked_for() -> None:
    host, _ = make()
    host.stack.ip.send(
        US, PEER, TESTING, b"head", b"load", host.now, hop_limit=7, traffic_class=0x2E
    )
    (sent,) = host.take()
    header = sent.ip  # parsing verifies the checksum
    assert (header.source, header.destination) == (US, PEER)
    assert (header.protocol, header.ttl, header.traffic_class) == (TESTING, 7, 0x2E)
    assert header.dont_fragment
    assert header.total_length == 28
    assert sent.content == b"headload"
    assert sent.destination_mac == PEER_MAC


def test_the_header_checksum_is_right_whatever_the_fields() -> None:
    host, _ = make("10.0.0.1/24", "10.0.0.200/24")
    for number in range(300):
        host.stack.ip.send(
            (US, packed("10.0.0.200"))[number & 1],
            PEER,
            number % 256,
            bytes(number),
            b"",
            host.now,
            hop_limit=number % 255 + 1,
            traffic_class=number * 7 % 256,
            dont_fragment=bool(number % 3),
        )
    sent = host.take()
    assert len(sent) == 300
    assert all(packet.ip.ttl == number % 255 + 1 for number, packet in enumerate(sent))


@pytest.mark.parametrize("mtu", [576, 1500])
@pytest.mark.parametrize("reported", [None, 40])
def test_a_run_of_packets_is_what_one_by_one_would_be(mtu: int, reported: int | None) -> None:
    segments: list[tuple[bytes, Buffer]] = []
    segments += [(bytes([number]) * 20, bytes([number]) * 600) for number in range(9)]
    segments += [(b"twenty octets of mine", b""), (bytes(21), b"x" * 300)]
    seen = []
    for at_once in (True, False):
        host, recorder = make(mtu=mtu)
        if reported is not None:
            host.stack.ip.lower_path_mtu(PEER, reported, host.now)
        ip = host.stack.ip
        if at_once:
            ip.send_run(
                US,
                PEER,
                TESTING,
                segments,
                host.now,
                checksum=CHECKSUM_PARTIAL,
                gso_size=500,
                hop_limit=9,
                traffic_class=4,
            )
        else:
            for header, payload in segments:
                ip.send(
                    US,
                    PEER,
                    TESTING,
                    header,
                    payload,
                    host.now,
                    checksum=CHECKSUM_PARTIAL,
                    gso_size=500 if len(payload) > 500 else 0,
                    hop_limit=9,
                    traffic_class=4,
                )
        frames = [sent.frame for sent in host.take()]
        if reported is not None:  # the identification is the only thing that chance decides
            for frame in frames:
                header = bytes(frame.header)
                frame.header = header[:18] + header[26:]
        seen.append((frames, len(recorder.errors), host.counters))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) >= 2


def test_the_outbox_is_bounded_for_runs_too() -> None:
    host, _ = make()
    run: list[tuple[bytes, Buffer]] = [(b"head", b"load")] * (OUTBOX_LIMIT + 5)
    ip = host.stack.ip
    ip.send_run(
        US, PEER, TESTING, run, 0.0, checksum=0, gso_size=1000, hop_limit=0, traffic_class=0
    )
    assert host.stack.ip.sizes["outbox"] == OUTBOX_LIMIT
    assert host.counters.frames_out_full == 5


def test_the_payload_leaves_as_the_same_object() -> None:
    host, _ = make()
    payload = b"payload" * 100
    host.stack.ip.send(US, PEER, TESTING, b"header", payload, host.now)
    (sent,) = host.take()
    assert sent.frame.payload is payload


def test_identifications_differ_where_routers_may_cut() -> None:
    host, _ = make()
    for _ in range(50):
        host.stack.ip.send(US, PEER, TESTING, b"", b"", host.now, dont_fragment=False)
    assert len({packet.ip.identification for packet in host.take()}) == 50


def test_what_does_not_fit_is_dropped_and_reported_when_it_must_not_be_cut() -> None:
    host, recorder = make()
    host.stack.ip.send(US, PEER, TESTING, b"12345678", bytes(1473), host.now)
    assert host.take() == []
    (error,) = recorder.errors
    assert (error.error, error.mtu, error.quoted) == (errno.EMSGSIZE, 1500, b"12345678")
    assert host.counters.ip_out_too_big == 1
    host.stack.ip.send(US, PEER, TESTING, b"12345678", bytes(1472), host.now)
    assert len(host.take()) == 1


@pytest.mark.parametrize("mtu", [68, 576, 1500, 1501])
def test_what_may_be_cut_is_cut_and_another_stack_puts_it_together(mtu: int) -> None:
    host, _ = make(mtu=mtu)
    other = Host("10.0.0.2/24", mac=PEER_MAC)
    recorder = Recorder()
    other.stack.ip.register(TESTING, recorder)
    payload = bytes(number * 7 % 256 for number in range(5000))
    host.stack.ip.send(US, PEER, TESTING, b"head", payload, host.now, dont_fragment=False)
    sent = host.take()
    assert len(sent) == -(-5004 // ((mtu - 20) // 8 * 8))
    assert all(packet.ip.total_length <= mtu for packet in sent)
    assert len({packet.ip.identification for packet in sent}) == 1
    assert not any(packet.ip.dont_fragment for packet in sent)
    for packet in sent:
        other.put(packet.frame)
    (whole,) = recorder.packets
    assert whole.data() == b"head" + payload
    other.check_books()


def test_an_unfinished_checksum_is_finished_before_cutting() -> None:
    host, _ = make(checksum_offload=True)
    other = Host("10.0.0.2/24", mac=PEER_MAC)
    endpoint = other.stack.udp.open()
    endpoint.bind(None, 5000)
    sender = host.stack.udp.open()
    sender.send(bytes(4000), (PEER, 5000), host.now)
    for packet in host.take():
        assert packet.frame.checksum != CHECKSUM_PARTIAL
        other.put(packet.frame)
    datagram = endpoint.receive()
    assert datagram is not None
    assert datagram.data == bytes(4000)


def test_with_offload_a_checksum_field_holds_the_pseudo_header_sum() -> None:
    host, _ = make(checksum_offload=True)
    assert not host.stack.ip.needs_checksum(PEER)
    host.stack.udp.open().send(b"data", (PEER, 5000), host.now)
    (sent,) = host.take()
    assert sent.frame.checksum == CHECKSUM_PARTIAL
    assert int.from_bytes(sent.content[6:8]) == fold(pseudo_header(US, PEER, PROTOCOL_UDP, 12))


def test_what_we_send_to_ourselves_comes_back_without_touching_the_wire() -> None:
    host, recorder = make()
    for source, destination in ((US, US), (packed("127.0.0.1"), packed("127.1.2.3"))):
        payload = b"payload"
        assert not host.stack.ip.needs_checksum(destination)
        assert host.stack.ip.path_mtu(destination) == LOOPBACK_MTU
        host.stack.ip.send(source, destination, TESTING, b"header", payload, host.now)
        assert recorder.packets == []  # not while the sender is still sending
        assert host.stack.next_timer() == 0.0
        assert host.take() == []
        packet = recorder.packets.pop()
        assert (packet.source, packet.destination) == (source, destination)
        assert packet.payload is payload
    assert host.counters.ip_loopback == 2
    host.check_books()


def test_loopback_is_bounded() -> None:
    host, recorder = make()
    for _ in range(LOOPBACK_LIMIT + 5):
        host.stack.ip.send(US, US, TESTING, b"", b"", host.now)
    host.take()
    assert len(recorder.packets) == LOOPBACK_LIMIT
    assert host.counters.loopback_full == 5


def test_the_outbox_is_bounded() -> None:
    host, _ = make()
    for _ in range(OUTBOX_LIMIT + 5):
        host.stack.ip.send(US, PEER, TESTING, b"", b"", host.now)
    assert host.counters.frames_out_full == 5
    assert len(host.take()) == OUTBOX_LIMIT


def test_frames_are_handed_out_as_the_wire_takes_them() -> None:
    host, _ = make()
    for number in range(5):
        host.stack.ip.send(US, PEER, TESTING, bytes([number]), b"", host.now)
    taken = [host.take(2), host.take(2), host.take(2)]
    assert [[packet.content[0] for packet in burst] for burst in taken] == [[0, 1], [2, 3], [4]]


def test_remembered_paths_are_bounded() -> None:
    host, _ = make("10.0.0.1/8")
    for number in range(PATH_LIMIT + 100):
        host.stack.ip.path_mtu((0x0A00_0100 + number).to_bytes(4))
    assert host.stack.sizes["paths"] == PATH_LIMIT


def test_a_packet_to_nowhere_is_counted_and_reported() -> None:
    host, recorder = make()
    assert host.stack.ip.path_mtu(FAR) == 1500
    with pytest.raises(OSError, match=r"192\.0\.2\.9: no route") as caught:
        host.stack.ip.select_source(FAR)
    assert caught.value.errno == errno.ENETUNREACH
    host.stack.ip.send(US, FAR, TESTING, b"12345678", b"", host.now)
    assert host.take() == []
    assert host.counters.ip_out_no_route == 1
    assert [error.error for error in recorder.errors] == [errno.ENETUNREACH]


def test_a_new_route_takes_effect_at_once_and_goes_through_its_gateway() -> None:
    host, _ = make()
    host.stack.ip.send(US, FAR, TESTING, b"", b"", host.now)
    route = host.stack.add_route(ip_network("0.0.0.0/0"), ip_address("10.0.0.2"))
    host.stack.ip.send(US, FAR, TESTING, b"", b"", host.now)
    (sent,) = host.take()
    assert sent.destination_mac == PEER_MAC
    assert sent.ip.destination == FAR
    host.stack.remove_route(route)
    host.stack.ip.send(US, FAR, TESTING, b"", b"", host.now)
    assert host.take() == []


def test_a_route_without_gateway_makes_destinations_neighbors() -> None:
    host, _ = make()
    host.stack.add_route(ip_network("192.0.2.0/24"), None)
    host.stack.ip.send(US, FAR, TESTING, b"", b"", host.now)
    (question,) = host.take()
    assert question.arp.target_ip == FAR


def test_the_source_is_the_address_on_the_next_hops_prefix() -> None:
    host, _ = make("10.0.0.1/24", "10.1.0.1/24")
    host.stack.add_route(ip_network("192.0.2.0/24"), ip_address("10.1.0.9"))
    select = host.stack.ip.select_source
    assert select(PEER) == US
    assert select(packed("10.1.0.5")) == packed("10.1.0.1")
    assert select(FAR) == packed("10.1.0.1")
    assert select(packed("10.1.0.255")) == packed("10.1.0.1")
    assert select(packed("255.255.255.255")) == US
    assert select(packed("127.0.0.1")) == packed("127.0.0.1")
    assert select(US) == US


def test_removing_an_address_removes_its_route_unless_another_needs_it() -> None:
    host, _ = make("10.0.0.1/24", "10.0.0.9/24")
    host.stack.remove_address(ip_interface("10.0.0.1/24"), host.now)
    assert host.stack.ip.select_source(PEER) == packed("10.0.0.9")
    host.stack.remove_address(ip_interface("10.0.0.9/24"), host.now)
    with pytest.raises(OSError, match="no route"):
        host.stack.ip.select_source(PEER)


def test_broadcasts_go_to_everybody_and_to_us() -> None:
    host, recorder = make()
    for destination in (BROADCAST, packed("255.255.255.255")):
        host.stack.ip.send(US, destination, TESTING, b"x", b"", host.now)
        (sent,) = host.take()
        assert sent.destination_mac == BROADCAST_MAC
        assert sent.ip.ttl == 64
        assert recorder.packets.pop().is_multicast


def test_multicasts_stay_on_the_link_and_come_back_to_members_only() -> None:
    host, recorder = make()
    group = packed("239.129.2.3")
    host.stack.ip.send(US, group, TESTING, b"x", b"", host.now)
    (sent,) = host.take()
    assert sent.destination_mac == bytes.fromhex("01005e010203")
    assert sent.ip.ttl == 1
    assert recorder.packets == []
    host.stack.groups.join(group)
    host.stack.ip.send(US, group, TESTING, b"x", b"", host.now)
    host.stack.ip.send(US, group, TESTING, b"x", b"", host.now, loop=False)
    assert len(host.take()) == 2
    assert len(recorder.packets) == 1


def test_what_may_be_bound() -> None:
    host, _ = make()
    may_bind = host.stack.ip.may_bind
    assert all(
        map(
            may_bind,
            (US, BROADCAST, packed("127.0.0.1"), packed("0.0.0.0"), packed("224.0.0.1")),
        )
    )
    assert not may_bind(PEER)


@pytest.mark.parametrize(
    ("mac", "mtu", "why"),
    [(bytes(6), 1500, "station"), (BROADCAST_MAC, 1500, "station"), (b"\2", 1500, "station")],
)
def test_a_stack_needs_a_station_address(mac: bytes, mtu: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Host(mac=mac, mtu=mtu)


def test_a_stack_needs_a_wire_for_ip() -> None:
    with pytest.raises(ValueError, match="MTU 67: IPv4 needs 68 octets"):
        Host(mtu=67)


def test_super_segments_leave_room_for_their_headers() -> None:
    stack = Stack(mac=MAC, mtu=1500, rng=random.Random(1), max_segment=0xFFFF)
    stack.add_address(ip_interface("10.0.0.1/24"), 0.0)
    limit = stack.ip.max_segment(PEER)
    assert limit == 65535 - 20 - 60
    assert stack.ip.max_segment(US) > 65535  # no header says how long it is
    stack.ip.send(US, PEER, 6, bytes(60), bytes(limit), 0.0, gso_size=1400)
    stack.frames_to_send(0.0, 1)
    assert stack.neighbors.waiting_octets == 14 + 20 + 60 + limit


def test_a_super_segment_of_segments_that_are_too_long_is_reported() -> None:
    host, recorder = make()
    host.stack.ip.send(US, PEER, TESTING, bytes(20), bytes(9000), 0.0, gso_size=1461)
    assert host.take() == []
    assert [error.error for error in recorder.errors] == [errno.EMSGSIZE]
    host.stack.ip.send(US, PEER, TESTING, bytes(20), bytes(9000), 0.0, gso_size=1460)
    (sent,) = host.take()
    assert sent.frame.gso_size == 1460
    assert isinstance(sent.frame, Frame)


def test_a_packet_of_more_than_64_kib_is_reported() -> None:
    host, recorder = make()
    host.stack.ip.send(US, PEER, TESTING, b"", bytes(65_516), host.now, dont_fragment=False)
    assert host.take() == []
    assert [error.error for error in recorder.errors] == [errno.EMSGSIZE]
    host.stack.ip.send(US, PEER, TESTING, b"", bytes(65_515), host.now, dont_fragment=False)
    assert len(host.take()) == 45


def test_of_a_lost_packet_in_fragments_the_first_is_reported() -> None:
    host, recorder = make()
    other = packed("10.0.0.9")
    host.stack.ip.send(US, other, TESTING, b"12345678", bytes(3000), host.now, dont_fragment=False)
    host.at(5.0)
    assert [error.quoted[:8] for error in recorder.errors] == [b"12345678"]
    assert host.counters.neighbor_packets_lost == 3


def test_news_of_lost_packets_is_bounded() -> None:
    host, recorder = make()
    for _ in range(ERROR_LIMIT + 5):
        host.stack.ip.send(US, FAR, TESTING, b"", b"", host.now)
    host.take()
    assert len(recorder.errors) == ERROR_LIMIT


def test_without_an_address_nothing_reaches_a_group() -> None:
    host, recorder = make()
    host.stack.remove_address(ip_interface("10.0.0.1/24"), host.now)
    host.stack.ip.send(US, packed("224.0.0.1"), TESTING, b"", b"", host.now)
    assert host.take() == []
    assert [error.error for error in recorder.errors] == [errno.ENETUNREACH]


@attrs.define
class Parrot(Recorder):
    """A transport that answers itself for ever."""

    host: Host | None = None

    def receive_packet(self, packet: Packet, now: float) -> None:
        assert self.host is not None
        self.packets.append(packet)
        self.host.stack.ip.send(US, US, TESTING, b"", b"", now)


def test_a_conversation_with_ourselves_that_never_ends_is_interrupted() -> None:
    host, _ = make()
    parrot = Parrot(host=host)
    host.stack.ip.register(TESTING, parrot)
    host.stack.ip.send(US, US, TESTING, b"", b"", host.now)
    host.stack.frames_to_send(host.now, 1)
    assert 0 < len(parrot.packets) <= 1000
    assert host.stack.next_timer() == 0.0  # and goes on at the next call


def test_a_full_wire_stays_full_until_enough_is_taken() -> None:
    host, _ = make()
    for _ in range(OUTBOX_LIMIT):
        host.stack.ip.send(US, PEER, TESTING, b"", b"", host.now)
    assert host.stack.ip.is_congested
    host.take(10)
    assert host.stack.ip.is_congested
    host.take(OUTBOX_LIMIT)
    assert host.counters.frames_out_full == 0
    assert host.stack.sizes["outbox"] == 0


def test_a_question_whose_address_is_gone_is_not_repeated() -> None:
    host, _ = make()
    host.stack.ip.send(US, packed("10.0.0.9"), TESTING, b"", b"", host.now)
    assert len(host.take()) == 1
    host.stack.remove_address(ip_interface("10.0.0.1/24"), host.now)
    assert host.at(5.0) == []


def test_a_neighbor_whose_address_becomes_ours_is_forgotten() -> None:
    host, _ = make()
    host.stack.add_address(ip_interface("10.0.0.2/24"), host.now)
    assert host.stack.neighbors.get(PEER) is None


@pytest.mark.parametrize(("protocol", "at"), [(6, 16), (17, 6), (58, 2)])
def test_every_transports_checksum_can_be_finished_before_cutting(protocol: int, at: int) -> None:
    header = bytearray(20)
    header[at : at + 2] = fold(pseudo_header(US, PEER, protocol, 3020)).to_bytes(2)
    finished = finish_partial(protocol, bytes(header) + bytes(3000))
    assert transport_checksum(US, PEER, protocol, finished) == 0


@pytest.mark.parametrize("size", [65_400, 65_495, 65_496, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("family", [4, 6])
def test_a_super_segment_may_be_longer_than_a_packet_where_the_wire_takes_it(
    size: int, family: int
) -> None:
    ours, theirs = (US, PEER) if family == 4 else (packed("fd00::1"), packed("fd00::2"))
    stacks = []
    for mac, address in ((MAC, ours), (PEER_MAC, theirs)):
        stack = Stack(mac=mac, mtu=1500, rng=random.Random(1), max_segment=1 << 20)
        if family == 6:
            stack.start_ipv6(0.0)
        prefix = 24 if family == 4 else 64
        stack.add_address(ip_interface((ip_address(address), prefix)), 0.0)
        stacks.append(stack)
    sender, receiver = stacks
    recorder = Recorder()
    receiver.ip.register(PROTOCOL_TCP, recorder)
    sender.ip.register(PROTOCOL_TCP, Recorder())
    payload = bytes(size)
    header = TcpHeader(1, 2, 3, 4, ACK, 5).emit()
    state = CHECKSUM_PARTIAL
    sender.ip.send(ours, theirs, PROTOCOL_TCP, header, payload, 0.0, checksum=state, gso_size=1000)
    seen = []
    for now in (0.0, 0.0, 2.0, 2.0, 4.0, 4.0):  # until addresses are known
        for here, there in ((sender, receiver), (receiver, sender)):
            here.handle_timers(now)
            frames = here.frames_to_send(now, 100)
            seen += frames
            there.receive(frames, now)
    (packet,) = recorder.packets
    assert packet.payload is payload
    assert bytes(packet.transport) == header
    (frame,) = [frame for frame in seen if frame.gso_size]
    pieces = split(frame)
    assert [len(piece.payload) for piece in pieces[:-1]] == [1000] * ((size - 1) // 1000)
    assert sum(len(piece.payload) for piece in pieces) == size
    before = recorder.packets[:]
    for broken in (
        Frame(frame.header, payload, 0, state),  # no super-segment at all
        Frame(bytes(frame), b"", 1000, state),
    ):
        receiver.receive([broken], 5.0)
    if size > 65_535:
        assert recorder.packets == before
