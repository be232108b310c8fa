"""Whole networks in virtual time: a root, a controller written by hand, and members of ours."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from zttrio.zerotier import messages
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import CredentialsMessage, Revocation
from zttrio.zerotier.network.derived import arp_group
from zttrio.zerotier.network.frames import NetworkError
from zttrio.zerotier.network.netconf import NetworkConfig
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.network.piece import cut
from zttrio.zerotier.network.rules import ACCEPT, Rule

from .lab import EPOCH, Lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.events import Message
    from zttrio.zerotier.network.dictionary import Dictionary
    from zttrio.zerotier.network.member_config import MemberConfig
    from zttrio.zerotier.network.membership import Membership
    from zttrio.zerotier.world import World

    from .lab import Host

WINDOW = 1_800_000
IPV4 = b"\x08\x00"
ARP = b"\x08\x06"
BROADCAST = b"\xff" * 6


class HandMadeController:
    """A controller that knows what it is told, and nothing of the one that is under test elsewhere.

    Attributes:
        authorised: who gets a configuration.
        fields: what a configuration says, by member or (None) for all.
        requests: when whom a request came from.
    """

    def __init__(self, host: Host, number: int = 1) -> None:
        self.host = host
        self.network_id = int.from_bytes(host.address, "big") << 24 | number
        self.authorised: set[bytes] = set()
        self.fields: dict[bytes | None, dict[str, Any]] = {None: {}}
        self.requests: list[tuple[float, bytes]] = []
        self.metadata: dict[bytes, Dictionary] = {}
        self.is_silent = False
        self.error = messages.ACCESS_DENIED

    def receive_request(
        self, message: Message, network_id: int, metadata: Dictionary, now: float
    ) -> None:
        address = message.peer.address
        self.requests.append((now, address))
        self.metadata[address] = metadata
        if self.is_silent or network_id != self.network_id:
            return
        if address not in self.authorised:
            error = messages.emit_error(
                message.verb, message.packet_id, self.error, NetworkError(network_id).emit()
            )
            self.host.node.send(address, messages.ERROR, error, now)
            return
        config = self.config(address, now)
        for piece in cut(network_id, config.emit(), self.update_id(), self.host.node.identity):
            answer = messages.emit_ok(message.verb, message.packet_id, piece.emit())
            self.host.node.send(address, messages.OK, answer, now)

    def answers_for(self, network_id: int, address: bytes, now: float) -> bool:
        last = max((when for when, who in self.requests if who == address), default=-1e9)
        return network_id == self.network_id and address in self.authorised and now - last < 180

    def update_id(self) -> int:
        return self.host.lab.random.getrandbits(63) + 1

    def config(self, address: bytes, now: float) -> NetworkConfig:
        """What a member gets at this time."""
        timestamp = int((now + EPOCH) * 1000)
        peer = self.host.node.topology.peers[address]
        fields: dict[str, Any] = {
            "network_id": self.network_id,
            "address": address,
            "timestamp": timestamp,
            "window": WINDOW,
            "revision": 1,
            "name": "lab",
            "multicast_limit": 32,
            "flags": 2,
            "rules": (Rule(ACCEPT),),
            "membership": MembershipCertificate.issue(
                self.host.node.identity,
                network_id=self.network_id,
                member=peer.identity,
                timestamp=timestamp,
                window=WINDOW,
            ),
        }
        return NetworkConfig(**{**fields, **self.fields[None], **self.fields.get(address, {})})

    def push(self, address: bytes) -> None:
        """Send a member a configuration that it has not asked for."""
        now = self.host.lab.now
        config = self.config(address, now).emit()
        for piece in cut(self.network_id, config, self.update_id(), self.host.node.identity):
            self.host.node.send(address, messages.NETWORK_CONFIG, piece.emit(), now)
        self.host.flush()

    def revoke(self, target: bytes, tell: bytes, flags: int = 1) -> None:
        """Take a member's certificates back, and tell another one."""
        now = self.host.lab.now
        revocation = Revocation.issue(
            self.host.node.identity,
            network_id=self.network_id,
            id=self.host.lab.random.getrandbits(32),
            threshold=int((now + EPOCH) * 1000),
            target=target,
            flags=flags,
        )
        [payload] = CredentialsMessage(revocations=(revocation,)).emit()
        self.host.node.send(tell, messages.NETWORK_CREDENTIALS, payload, now)
        self.host.flush()


class MemberHost:
    """A member: a host of the lab and its membership, with the least of a stack."""

    def __init__(self, host: Host, membership: Membership, number: int) -> None:
        self.host = host
        self.membership = membership
        self.number = number
        self.ip = bytes((10, 5, 0, number))
        self.received: list[tuple[float, bytes]] = []
        self.answers_arp = True
        self.macs: dict[bytes, bytes] = {}
        """MACs by IP address, as learned by ARP."""

    @property
    def address(self) -> bytes:
        return self.host.address

    @property
    def mac(self) -> bytes:
        return self.membership.mac

    def listen(self) -> None:
        """Announce what a stack with one IPv4 address listens to."""
        self.membership.set_groups(frozenset((arp_group(self.ip),)), self.host.lab.now)
        self.host.flush()

    def send(self, destination: bytes, ethertype: bytes, payload: bytes) -> None:
        frame = b"".join((destination, self.mac, ethertype, payload))
        self.membership.send(frame, self.host.lab.now)
        self.host.flush()

    def say(self, other: MemberHost, text: bytes = b"hello") -> None:
        """Send a member an IPv4 packet, more or less."""
        self.send(other.mac, IPV4, packet(self.ip, other.ip, text))

    def ask(self, ip: bytes) -> None:
        """Ask who has an address."""
        self.send(BROADCAST, ARP, arp(1, self.mac, self.ip, bytes(6), ip))

    def take(self) -> None:
        """Do what a stack does with frames."""
        for frame in self.membership.take_frames():
            self.received.append((self.host.lab.now, frame))
            if frame[12:14] == ARP:
                self._take_arp(frame)

    def heard(self) -> list[bytes]:
        """What `say` has brought so far."""
        return [frame[34:] for _, frame in self.received if frame[12:14] == IPV4]

    def _take_arp(self, frame: bytes) -> None:
        operation, mac, ip, target = frame[21], frame[22:28], frame[28:32], frame[38:42]
        if operation == 2:
            self.macs[ip] = mac
        elif target == self.ip and self.answers_arp:
            self.send(mac, ARP, arp(2, self.mac, self.ip, mac, ip))


class NetworkLab(Lab):
    """A lab with one network."""

    def __init__(self, seed: int = 1, *, delay: float = 0.02, loss: float = 0.0) -> None:
        super().__init__(seed, delay=delay, loss=loss)
        self.root_host, self.planet = self.root(ip="50.0.0.1")
        self.add_networks(self.root_host, is_registry=True)
        self.controller_host = self.host("controller", "60.0.0.1", planet=self.planet)
        self.controller = HandMadeController(self.controller_host)
        self.add_networks(self.controller_host, controller=self.controller)
        self.members: dict[str, MemberHost] = {}
        self.agree_on_time()

    def agree_on_time(self) -> None:
        for host in (self.root_host, self.controller_host):
            self.at(self.now, host.start)
        self.run(1)

    def add_networks(
        self,
        host: Host,
        *,
        controller: HandMadeController | None = None,
        is_registry: bool = False,
        config: MemberConfig | None = None,
    ) -> Networks:
        """Give a node virtual networks."""
        host.networks = networks = Networks(
            host.node,
            rng=random.Random(self.random.random()).randbytes,
            epoch=EPOCH,
            controller=controller,
            is_registry=is_registry,
            config=config,
        )
        host.node.set_network_layer(networks)
        return networks

    def member(
        self,
        name: str,
        *,
        is_authorised: bool = True,
        stored: bytes | None = None,
        token: str | None = None,
        planet: World | None = None,
        config: MemberConfig | None = None,
        network_id: int | None = None,
    ) -> MemberHost:
        """Add a node that joins the network now."""
        number = len(self.members) + 1
        host = self.host(name, f"61.0.{number}.1", planet=self.planet if planet is None else planet)
        networks = self.add_networks(host, config=config)
        if is_authorised:
            self.controller.authorised.add(host.address)
        host.start()
        membership = networks.join(
            self.controller.network_id if network_id is None else network_id,
            self.now,
            stored=stored,
            token=token,
        )
        member = self.members[name] = MemberHost(host, membership, number)
        member.listen()
        return member

    def run(self, seconds: float) -> None:
        """Let virtual time pass, with stacks that take their frames at once."""
        super().run(seconds)

    def _arrive(self, *args: Any) -> None:
        super()._arrive(*args)
        for member in self.members.values():
            member.take()


def packet(source: bytes, destination: bytes, text: bytes) -> bytes:
    """An IPv4 packet of UDP without a checksum, as far as rules look at it."""
    return b"".join(
        (
            bytes((0x45, 0)),
            (20 + len(text)).to_bytes(2, "big"),
            bytes((0, 0, 0, 0, 64, 17, 0, 0)),
            source,
            destination,
            text,
        )
    )


def arp(operation: int, mac: bytes, ip: bytes, target_mac: bytes, target: bytes) -> bytes:
    """An ARP message for IPv4 over Ethernet (RFC 826)."""
    head = bytes.fromhex("0001080006040000")[:7] + bytes((operation,))
    return b"".join((head, mac, ip, target_mac, target))


def settled(lab: NetworkLab, condition: Callable[[], bool], within: float) -> float:
    """Run until something is so; returns how long that took.

    Raises:
        AssertionError: it did not become so.
    """
    start = lab.now
    while not condition():
        assert lab.now - start < within
        lab.run(0.05)
    return lab.now - start
