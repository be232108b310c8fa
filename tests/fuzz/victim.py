"""A stack with something open in every room, small limits, and a check that they hold."""

from __future__ import annotations

import random
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from zttrio.config import Config
from zttrio.header import arp
from zttrio.header.address import packed
from zttrio.header.ethernet import ETHERTYPE_ARP, EthernetHeader
from zttrio.header.frame import Frame
from zttrio.stack import membership, neighbor, routers, selection
from zttrio.stack.counters import (
    ARP_OUTCOMES,
    FRAME_OUTCOMES,
    ICMP_OUTCOMES,
    IGMP_OUTCOMES,
    IP_OUTCOMES,
    LINK_OUTCOMES,
    UDP_OUTCOMES,
)
from zttrio.stack.groups import GROUP_LIMIT
from zttrio.stack.ip import ERROR_LIMIT, LOOPBACK_LIMIT, OUTBOX_LIMIT
from zttrio.stack.path import MTU_LIMIT
from zttrio.stack.paths import PATH_LIMIT
from zttrio.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

MAC = bytes.fromhex("02000a000001")
PEER_MAC = bytes.fromhex("02000a000002")
US = packed("10.0.0.1")
PEER = packed("10.0.0.2")
US6 = packed("fd00::1")
PEER6 = packed("fd00::2")
GROUPS = (packed("239.1.2.3"), packed("ff05::1234"))
TCP_PORT = 80
UDP_PORT = 5000

CONFIG = Config(
    backlog=4,
    syn_queue=16,
    connection_limit=32,
    time_wait_limit=16,
    receive_buffer=20_000,
    send_buffer=20_000,
    udp_receive_buffer=20_000,
    reassembly_memory=100_000,
    reassembly_packets=16,
    neighbor_limit=32,
    neighbor_queue=8,
)

LIMITS = {
    "paths": PATH_LIMIT,
    "path mtus": MTU_LIMIT,
    "outbox": OUTBOX_LIMIT,
    "loopback": LOOPBACK_LIMIT,
    "errors": ERROR_LIMIT,
    "udp endpoints": 2,
    # one datagram always fits
    "udp queues": 2 * (CONFIG.udp_receive_buffer + 0xFFFF),
    "neighbors": CONFIG.neighbor_limit,
    "octets that wait for neighbors": neighbor.TOTAL_QUEUE_OCTETS,
    "unfinished packets": CONFIG.reassembly_packets,
    "octets of unfinished packets": CONFIG.reassembly_memory,
    "routers": routers.MAX_ROUTERS,
    "prefixes on the link": routers.MAX_PREFIXES,
    "routes of routers": routers.MAX_ROUTES,
    "autoconfigured prefixes": routers.MAX_ADDRESSES,
    "name servers": routers.MAX_DNS_SERVERS,
    "redirects": selection.REDIRECT_LIMIT,
    "dead gateways": selection.DEAD_LIMIT,
    "addresses": 3 + routers.MAX_ADDRESSES,
    "addresses being verified": 2 + routers.MAX_ADDRESSES,
    "groups": 2 + 2 + 2 + routers.MAX_ADDRESSES + 1,
    "reports of membership": 2 * (membership.CHANGE_LIMIT + GROUP_LIMIT),
    "pings": 1,
    "ports": 8,
    # one for each connection, half-open connection and TIME_WAIT, stale ones, and a few tables
    "timers": 8 * (CONFIG.connection_limit + CONFIG.syn_queue + CONFIG.time_wait_limit) + 16,
}


class Victim:
    """The stack under fire."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stack = stack = Stack(mac=MAC, mtu=1500, rng=random.Random(1), config=CONFIG)
        stack.add_address(ip_interface("10.0.0.1/24"), self.now)
        stack.neighbors.use(PEER, US, self.now)
        answer = arp.ArpPacket(arp.REPLY, PEER_MAC, PEER, MAC, US).emit()
        self.put([Frame(EthernetHeader(MAC, PEER_MAC, ETHERTYPE_ARP).emit() + answer)])
        stack.add_address(ip_interface("fd00::1/64"), self.now)
        self.link_local = next(
            entry.packed for entry in stack.addresses.of_family(16) if entry.packed != US6
        )
        stack.neighbors.learn(PEER6, PEER_MAC, self.now)
        member = stack.udp.open()
        member.bind(None, UDP_PORT)
        for group in GROUPS:
            member.join_group(group)
        stack.udp.open().connect((PEER, 53), self.now)
        stack.icmp.ping(PEER, self.now)
        stack.tcp.listen(stack.tcp.bind(None, TCP_PORT), 4, self.now)
        stack.tcp.connect((PEER, 80), self.now)
        stack.tcp.connect((PEER6, 80), self.now)
        self.sent = stack.frames_to_send(self.now, 10_000)

    def put(self, frames: Sequence[Frame]) -> None:
        """A burst arrives; nothing may be raised and no limit passed."""
        stack = self.stack
        before = stack.counters.frames_in
        stack.receive(frames, self.now)
        assert stack.counters.frames_in == before + len(frames)
        self.check()

    def wait(self, seconds: float) -> None:
        """Time passes, and everything that is sent meanwhile is taken."""
        until = self.now + seconds
        for _ in range(10_000):
            self.sent = self.stack.frames_to_send(self.now, 10_000)
            due = self.stack.next_timer()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.stack.handle_timers(self.now)
        else:
            raise AssertionError("timers never come to rest")
        self.now = until
        self.check()

    def check(self) -> None:
        """Every table is within its limit, and every frame has one reason."""
        stack = self.stack
        for name, size in stack.sizes.items():
            assert size <= LIMITS[name], name
        assert sum(1 for _ in stack.tcp.connections()) <= CONFIG.connection_limit
        c = stack.counters.as_dict()
        assert c["frames_in"] == (
            sum(c[name] for name in FRAME_OUTCOMES) + c["ip_in"] - c["ip_loopback"]
        )
        assert c["arp_in"] == sum(c[name] for name in ARP_OUTCOMES)
        assert c["ip_in"] + c["reassembled"] == sum(c[name] for name in IP_OUTCOMES)
        assert c["icmp_in"] == sum(c[name] for name in ICMP_OUTCOMES)
        assert c["icmp_link_messages"] == sum(c[name] for name in LINK_OUTCOMES)
        assert c["igmp_in"] == sum(c[name] for name in IGMP_OUTCOMES)
        assert c["udp_in"] == sum(c[name] for name in UDP_OUTCOMES)
