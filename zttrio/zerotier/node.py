"""One ZeroTier node: datagrams, time and randomness in; datagrams, messages and events out.

`Node` puts the parts together and sorts what comes in; what happens to a message is `handlers`'
business, how one leaves is `sender`'s.  Nothing here reads a clock, opens a socket or starts a
thread: `zttrio.wire.zerotier` does.
"""

from __future__ import annotations

from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING

from zttrio.errors import HeaderError

from . import messages
from .armor import FRAGMENTED, SUITE_AES, SUITE_PLAIN, SUITE_TRUSTED
from .compression import MAX_PAYLOAD, decompress
from .config import NodeConfig
from .constants import MAX_PACKET, TICK, WHOIS_RETRY, is_reserved
from .counters import Counters
from .events import Events, Message, PeerLost
from .fragment import FRAGMENT_HEADER, Reassembler
from .handlers import Handlers
from .hello import Greeter
from .learning import Learning
from .root import Relay
from .sender import Sender
from .surface import Surface
from .topology import Topology
from .upkeep import Upkeep
from .whois import Whois

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from .config import RelayConfig
    from .crypto import Backend
    from .endpoint import Endpoint
    from .events import Event, NetworkLayer
    from .identity import Identity, Randomness
    from .peer import Peer
    from .sender import Datagram
    from .world import World

__all__ = ["Node"]

_OPENED = ("opened_plain", "opened_salsa", "opened_trusted", "opened_aes")  # by suite
_MINIMUM = 28  # the shortest packet
_BEACON = 13
_READABLE = frozenset((messages.ACK, messages.QOS_MEASUREMENT, messages.PATH_NEGOTIATION_REQUEST))
_KIND = FRAGMENTED | 7 << 3  # of the octet that says this
_WHOLE_AES = SUITE_AES << 3
_MAY_REPEAT = frozenset((messages.HELLO, messages.ECHO))  # they come by several paths (21)


class Node:
    """A node of VL1.

    The owner calls `start`, then `receive` and `handle_timers` with the current time, and after
    each burst of calls collects `datagrams_to_send`, `take_events` and `next_validation` until
    they are empty.  It calls `handle_timers` again no later than `next_timer` says.

    Args:
        identity: ours, with its secret.
        rng: unpredictable octets, `os.urandom` for instance.
        backend: for ciphers; this node's own.
        epoch: seconds from 1970 to the zero of ``now``.
        config: every number.
        relay: how to relay, if this node is to serve others as a root.

    Attributes:
        counters: what happened, by reason.
        topology: the peers and roots, for those who want to look.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        rng: Randomness,
        backend: Backend,
        epoch: float = 0.0,
        config: NodeConfig | None = None,
        relay: RelayConfig | None = None,
    ) -> None:
        self.identity = identity
        self.address = identity.address
        self.config = config = NodeConfig() if config is None else config
        self.counters = counters = Counters()
        self.topology = topology = Topology(identity, config, backend, counters)
        self._events = events = Events()
        self._sender = sender = Sender(topology, config, rng, counters, epoch)
        self._whois = sender.whois = Whois(topology, sender, counters)
        self._surface = surface = Surface()
        self._learning = Learning(topology, sender, surface, config, counters, events)
        self._greeter = Greeter(topology, sender, self._learning, config, counters, events)
        self._greeter.on_peer = self._peer_known
        self._upkeep = Upkeep(topology, sender, self._learning, config, rng, events)
        self._handlers = Handlers(
            identity,
            topology,
            sender,
            self._learning,
            self._greeter,
            config,
            relay,
            counters,
            events,
        )
        self._relay = None if relay is None else Relay(topology, sender, relay, rng, counters)
        self._reassembler = Reassembler(counters)
        self._next_tick = inf
        self._next_retry = inf

    # what the owner sets up

    def start(self, now: float) -> None:
        """Begin: contact the roots, and tick every 5 s from here on."""
        self._next_tick = now
        self.handle_timers(now)

    def set_sockets(self, sockets: Mapping[int, int], addresses: Iterable[Endpoint]) -> None:
        """Say which sockets there are.

        Args:
            sockets: the length of an address (4 or 16) by socket number.
            addresses: where they can be reached, as far as this machine knows.
        """
        self._sender.sockets = dict(sockets)
        self._learning.local_addresses = list(addresses)

    def set_network_layer(self, layer: NetworkLayer) -> None:
        """Hand messages of virtual networks to *layer* from now on."""
        self._handlers.network = layer

    def set_prohibited(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """Let no path lead into *networks*, which are inside our own virtual networks (12.2)."""
        self._learning.prohibited = tuple(networks)

    def set_world(self, world: World, now: float) -> None:
        """Trust a world from our own storage; its signature is not checked (13.3)."""
        self.topology.set_world(world, now)
        if self._next_tick < inf:
            for root in world.roots:
                if root.identity.address in self.topology.roots:
                    self._upkeep.contact_root(root.identity.address, now)

    def orbit(self, moon_id: int, seed: bytes, now: float) -> None:
        """Take the moon *moon_id* from the network, from the node *seed* that is one of its roots.

        Raises:
            ValueError: as many moons are held or wanted as may be.
        """
        topology = self.topology
        known = set(topology.moons) | set(topology.wanted_moons)
        if moon_id not in known and len(known) >= self.config.moon_limit:
            raise ValueError(f"moon {moon_id:016x}: {len(known)} moons are held or wanted already")
        topology.wanted_moons[moon_id] = seed
        self._upkeep.look_for_moons(now)

    def deorbit(self, moon_id: int, now: float) -> None:
        """Neither hold nor want a moon any longer."""
        self.topology.drop_moon(moon_id, now)

    def add_peer(self, identity: Identity, endpoints: Iterable[Endpoint], now: float) -> None:
        """Know a peer from our own storage, and try where it was (12.5).

        Args:
            identity: checked before it was stored.
            endpoints: hints; nothing is believed until it is answered from there.
            now: seconds.
        """
        peer = self.topology.add_peer(identity, now)
        if peer is not None:
            for endpoint in endpoints:
                self._upkeep.greet(peer, endpoint, now)

    # datagrams and time

    def receive(self, local: int, remote: Endpoint, datagram: bytes, now: float) -> None:
        """Take in a UDP payload that socket *local* got from *remote*.  Never raises."""
        counters = self.counters
        length = len(datagram)
        counters.datagrams_in += 1
        counters.octets_in += length
        if (
            _MINIMUM <= length <= MAX_PACKET
            and datagram[18] & _KIND == _WHOLE_AES
            and datagram[8:13] == self.address
            and (peer := self.topology.peers.get(datagram[13:18])) is not None
        ):  # nearly all; what is asked below is answered by our knowing the peer
            counters.packets_whole += 1
            counters.packets_in += 1
            self._open(peer, datagram, local, remote, now)
        elif length > MAX_PACKET:
            counters.datagram_too_long += 1
        elif length == _BEACON:
            counters.datagram_beacon += 1
        elif length > FRAGMENT_HEADER and datagram[13] == 0xFF:
            self._receive_fragment(local, remote, datagram, now)
        elif length < _MINIMUM:
            counters.datagram_ignored += 1
        elif datagram[13:18] == self.address:
            counters.datagram_reflected += 1
        elif is_reserved(datagram[13:18]):
            counters.datagram_bad_source += 1
        elif datagram[8:13] != self.address:
            if self._relay is None:
                counters.datagram_not_for_us += 1
            else:
                self._relay.relay_packet(datagram, local, remote, now)
        elif datagram[18] & FRAGMENTED:
            packet = self._reassembler.receive_head(datagram, local, remote, now)
            if packet is not None:
                self._receive_packet(packet, local, remote, now)
        else:
            counters.packets_whole += 1
            self._receive_packet(datagram, local, remote, now)

    def handle_timers(self, now: float) -> None:
        """Do what is due at *now*."""
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)
        if now >= self._next_retry:
            self._next_retry = inf
            self._retry(now)

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None before `start`."""
        earliest = min(self._next_tick, self._next_retry)
        return None if earliest == inf else earliest

    def datagrams_to_send(self) -> list[Datagram]:
        """What the sockets have to send, in order."""
        return self._sender.take()

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        return self._events.take()

    def next_validation(self) -> Identity | None:
        """The next identity that somebody else has to check with `Identity.is_valid`, or None.

        It takes a tenth of a second or more, so it is for a worker, one at a time; whoever takes
        one calls `identity_checked`.
        """
        return self._greeter.next_validation()

    @property
    def has_validations(self) -> bool:
        """True if `next_validation` has one to give."""
        return self._greeter.has_validations

    def identity_checked(self, identity: Identity, now: float, *, is_valid: bool) -> None:
        """Go on with an identity from `next_validation`."""
        self._greeter.checked(identity, now, is_valid=is_valid)

    # messages

    def send(
        self,
        address: bytes,
        verb: int,
        payload: bytes,
        now: float,
        *,
        compress: bool = False,
        context: object = None,
    ) -> None:
        """Send a message; it waits up to 5 s for its receiver's identity and a way there.

        Nothing tells whether it arrived, and a message that finds no way is dropped and counted.

        Args:
            address: whom it is for, 5 octets.
            verb: one of `messages`.
            payload: what stands behind the verb, at most 9996 octets.
            now: seconds.
            compress: True to try LZ4.
            context: comes back with an OK that answers this (`NetworkLayer.receive_ok`).

        Raises:
            ValueError: *address* is reserved, or ours, or *payload* is too long.
        """
        if is_reserved(address) or address == self.address:
            raise ValueError(f"node {address.hex()}: cannot be sent to")
        if len(payload) > MAX_PAYLOAD:
            raise ValueError(f"payload of {len(payload)} octets: at most {MAX_PAYLOAD}")
        self._sender.send(address, verb, payload, now, compress=compress, context=context)
        self._arm_retry(now)

    def send_burst(self, address: bytes, verb: int, payloads: Sequence[bytes], now: float) -> None:
        """Send messages that nobody answers to one node, in order; otherwise as `send`.

        Raises:
            ValueError: as for `send`; then none has been sent.
        """
        if is_reserved(address) or address == self.address:
            raise ValueError(f"node {address.hex()}: cannot be sent to")
        longest = max(map(len, payloads), default=0)
        if longest > MAX_PAYLOAD:
            raise ValueError(f"payload of {longest} octets: at most {MAX_PAYLOAD}")
        self._sender.send_burst(address, verb, payloads, now)
        self._arm_retry(now)

    def echo(self, address: bytes, payload: bytes, now: float, *, context: object) -> None:
        """Ask a node to send *payload* back: an `EchoAnswered` with *context*, or nothing.

        Raises:
            ValueError: as for `send`.
        """
        self.send(address, messages.ECHO, payload, now, context=context)

    def send_user_message(self, address: bytes, kind: int, data: bytes, now: float) -> None:
        """Send octets of *kind* (above 65535) to another node's application.

        Raises:
            ValueError: *kind* is reserved, or as for `send`.
        """
        if not 0xFFFF < kind < 1 << 64:
            raise ValueError(f"kind {kind}: must be above 65535 and below 2 ** 64")
        message = messages.UserMessage(kind, data)
        self.send(address, messages.USER_MESSAGE, message.emit(), now, compress=True)

    def find_identity(self, address: bytes, now: float) -> Identity | None:
        """Who has *address*; None if that is not known yet, and then the roots are asked."""
        if address == self.address:
            return self.identity.without_secret()
        peer = self.topology.peers.get(address)
        if peer is None:
            self._whois.ask(address, now)
            return None
        return peer.identity

    def keep_peers(self, addresses: Iterable[bytes]) -> None:
        """Never forget who has one of *addresses* once that is known; earlier ones are let go."""
        self.topology.kept = frozenset(addresses)

    def can_reach(self, address: bytes, now: float) -> bool:
        """True if a message to *address* would leave at once, by whatever way."""
        peer = self.topology.peers.get(address)
        if peer is None:
            return False
        path = peer.best_path(now)
        return path is not None or self.topology.best_root(now, but_not=address) is not None

    def trust(self, address: bytes, until: float) -> None:
        """Tell the peer our addresses while it is a member of one of our networks (11.7)."""
        peer = self.topology.peers.get(address)
        if peer is not None:
            peer.trusted_until = max(peer.trusted_until, until)

    # what there is to see

    @property
    def is_online(self) -> bool:
        """True if a root has been heard lately, or we are one."""
        return self._upkeep.is_online

    @property
    def waiting(self) -> int:
        """Packets that wait for their sender's identity, or for its check."""
        return len(self._whois) + self._greeter.waiting

    @property
    def events_dropped(self) -> int:
        """Events that were never taken and made room for newer ones."""
        return self._events.dropped

    def peers(self) -> list[Peer]:
        """Everybody we know."""
        return list(self.topology.peers.values())

    def surface(self, now: float) -> list[Endpoint]:
        """Our own addresses as others see them."""
        return self._surface.addresses(now)

    def sizes(self) -> dict[str, int]:
        """How full the tables are; each is bounded."""
        peers = self.topology.peers.values()
        return {
            "peers": len(peers),
            "paths": sum(len(peer.paths) for peer in peers),
            "replay": max((len(peer.replay) for peer in peers), default=0),
            "expected": len(self._sender.expected),
            "reassembly": len(self._reassembler),
            "waiting": len(self._whois),
            "questions": self._whois.open_questions,
            "validations": len(self._greeter),
            "surface": len(self._surface),
        }

    # inside

    def _receive_fragment(self, local: int, remote: Endpoint, datagram: bytes, now: float) -> None:
        if datagram[8:13] != self.address:
            if self._relay is None:
                self.counters.datagram_not_for_us += 1
            else:
                self._relay.relay_fragment(datagram, local, remote, now)
            return
        whole = self._reassembler.receive_tail(datagram, remote, now)
        if whole is not None:
            self._receive_packet(*whole, now)

    def _receive_packet(self, packet: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Take in a whole packet for us."""
        counters = self.counters
        counters.packets_in += 1
        suite = packet[18] >> 3 & 7
        if suite > SUITE_AES:
            counters.packet_bad_suite += 1
            return
        if suite == SUITE_PLAIN:
            verb = packet[27] & messages.VERB_MASK
            if verb == messages.HELLO:
                self._greeter.receive(packet, local, remote, now)
                return
            if verb not in _READABLE:
                counters.packet_plain += 1
                return
        peer = self.topology.peers.get(packet[13:18])
        if peer is None:
            self._whois.keep(packet, local, remote, now)
            self._arm_retry(now)
        else:
            self._open(peer, packet, local, remote, now)

    def _open(self, peer: Peer, packet: bytes, local: int, remote: Endpoint, now: float) -> None:
        """Authenticate a packet of a known peer and act on it."""
        counters = self.counters
        flags = packet[18]
        if flags >> 3 & 7 == SUITE_TRUSTED:
            if not self._is_trusted(packet, remote):
                counters.packet_untrusted += 1
                return
            envelope: bytes | None = packet[27:]
        else:
            envelope = peer.armor.open(packet)
        if envelope is None:
            counters.packet_unauthentic += 1
            peer.bad_packets += 1
            return
        if flags & _KIND == _WHOLE_AES:
            counters.opened_aes += 1
        else:
            name = _OPENED[flags >> 3 & 7]
            setattr(counters, name, getattr(counters, name) + 1)
        packet_id = packet[:8]
        verb = envelope[0] & messages.VERB_MASK
        if verb not in _MAY_REPEAT and peer.replay.has_seen(packet_id, now):
            counters.packet_replayed += 1
            return
        payload = envelope[1:]
        if envelope[0] & messages.COMPRESSED:
            try:
                payload = decompress(payload)
            except HeaderError:
                counters.packet_bad_compression += 1
                return
        message = Message(peer, local, remote, flags & 7, packet_id, verb, payload)
        try:
            outcome = self._handlers.handle(message, now)
        except HeaderError:
            outcome = "packet_malformed"
        if outcome == "packet_handled":
            counters.packet_handled += 1
        else:
            setattr(counters, outcome, getattr(counters, outcome) + 1)
        if verb == messages.OK and self._is_waiting and peer.address in self.topology.roots:
            self._retry(now)  # the root may just have become a way to everybody else

    def _is_trusted(self, packet: bytes, remote: Endpoint) -> bool:
        """True if a packet in suite 2 comes from where the owner allows it (16)."""
        trusted = self.config.trusted_paths
        if not trusted:
            return False
        address = ip_address(remote.ip)
        path_id = int.from_bytes(packet[19:27], "big")
        return any(t.path_id == path_id and address in t.network for t in trusted)

    def _peer_known(self, address: bytes, now: float) -> None:
        """Go on with everything that waited for a peer's identity."""
        peer = self.topology.peers[address]
        for packet, local, remote in self._whois.release(address):
            self._open(peer, packet, local, remote, now)
        self._handlers.peer_known(address, now)
        self._sender.retry(now)

    def _tick(self, now: float) -> None:
        for peer in self.topology.expire(now):
            self._events.add(PeerLost(peer.address))
        self._reassembler.expire(now)
        self._whois.expire(now)
        self._surface.expire(now)
        self._greeter.expire(now)
        self._handlers.expire(now)
        self._sender.expire(now)
        if self._relay is not None:
            self._relay.expire(now)
        self._upkeep.tick(now)
        self._arm_retry(now)

    def _retry(self, now: float) -> None:
        """Twice a second while something waits: ask again, and send what can be sent."""
        wanted = self._sender.waiting_addresses(now) + self._whois.waiting_addresses(now)
        for address in dict.fromkeys(wanted):
            if address not in self.topology.peers and not self._greeter.is_checking(address):
                self._whois.ask(address, now)
        self._sender.retry(now)
        self._arm_retry(now)

    def _arm_retry(self, now: float) -> None:
        if self._next_retry == inf and self._is_waiting:
            self._next_retry = now + WHOIS_RETRY

    @property
    def _is_waiting(self) -> bool:
        return self._sender.is_waiting or len(self._whois) > 0
