"""A member under test: a real node with its networks, among puppets that have real credentials."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from zttrio.zerotier import messages
from zttrio.zerotier.config import NodeConfig
from zttrio.zerotier.network.certificate import MembershipCertificate
from zttrio.zerotier.network.credential import CredentialsMessage
from zttrio.zerotier.network.derived import mac_of
from zttrio.zerotier.network.netconf import NetworkConfig
from zttrio.zerotier.network.networks import Networks
from zttrio.zerotier.network.piece import cut
from zttrio.zerotier.network.rules import ACCEPT, Rule

from .bench import Bench
from .data import network_identity
from .lab import EPOCH

if TYPE_CHECKING:
    from zttrio.zerotier.controller.layer import ControllerLayer
    from zttrio.zerotier.identity import Identity
    from zttrio.zerotier.network.member_config import MemberConfig
    from zttrio.zerotier.network.membership import Membership, NetworkEvent

    from .bench import Puppet, Sent

NETWORK_ID = 0x072211D924ABCD01
WINDOW = 1_800_000
ACCEPT_ALL = (Rule(ACCEPT),)
VERBS = messages.NETWORK_VERBS | {messages.OK, messages.ERROR}


class MemberBench(Bench):
    """A `Bench` whose node is a member; the recorded identities play the other parts."""

    def __init__(
        self,
        *,
        member_config: MemberConfig | None = None,
        root: str | None = None,
        controller: ControllerLayer | None = None,
        is_registry: bool = False,
    ) -> None:
        super().__init__(
            config=NodeConfig(mtu=10_324),  # puppets do not put fragments together
            root=root,
            identity=network_identity("me"),
        )
        self.networks = Networks(
            self.node,
            rng=random.Random(6).randbytes,
            epoch=EPOCH,
            config=member_config,
            controller=controller,
            is_registry=is_registry,
        )
        self.network_events: list[NetworkEvent] = []
        self.node.set_network_layer(self.networks)
        self.controller = self.known("controller", "10.1.0.1/9993")
        self.peer = self.known("peer", "10.1.0.2/9993")
        self.peer2 = self.known("peer2", "10.1.0.3/9993")
        self.timestamp = self.clock

    @property
    def clock(self) -> int:
        """Milliseconds since 1970."""
        return int((self.now + EPOCH) * 1000)

    def known(self, name: str, endpoint: str) -> Puppet:
        """One of the recorded identities, as a peer with a confirmed path."""
        return self.befriend(network_identity(name), endpoint)

    def befriend(self, identity: Identity, endpoint: str) -> Puppet:
        """A peer with a confirmed path."""
        puppet = self.puppet(endpoint, identity)
        self.node.add_peer(identity.without_secret(), (), self.now)
        puppet.meet()
        self.now += 1.1
        return puppet

    # what passes

    def quiet(self, sent: list[Sent]) -> list[Sent]:
        """Without what VL1 says for itself."""
        return [s for s in sent if s.verb in VERBS]

    def collect(self) -> list[Sent]:
        if hasattr(self, "network_events"):
            self.network_events += self.networks.take_events()
        return super().collect()

    def sent(self) -> list[Sent]:
        """What the networks have sent since the last call."""
        return self.quiet(self.collect())

    def say(self, puppet: Puppet, verb: int, payload: bytes) -> list[Sent]:
        """Let a peer send something; returns what the networks send at once."""
        return self.quiet(puppet.send(verb, payload))

    def tick(self) -> list[Sent]:
        """Let the networks do what is due now; returns what they send."""
        self.networks.handle_timers(self.now)
        return self.sent()

    def pass_time(self, seconds: float) -> list[tuple[float, Sent]]:
        """Let time pass; returns what the networks send meanwhile, and when."""
        start, end = self.now, self.now + seconds
        sent: list[tuple[float, Sent]] = []
        while True:
            node, networks = self.node.next_timer(), self.networks.next_timer()
            when = min(t for t in (node, networks, end + 1) if t is not None)
            if when > end:
                break
            self.now = max(self.now, when)
            self.node.handle_timers(self.now)
            self.networks.handle_timers(self.now)
            sent += [(round(self.now - start, 6), s) for s in self.sent()]
        self.now = end
        return sent

    # the network

    def join(self, **fields: Any) -> Membership:
        """Join the network, and get a configuration for it."""
        membership = self.networks.join(NETWORK_ID, self.now)
        self.configure(**fields)
        self.sent()
        return membership

    def certificate(
        self,
        identity: Identity | None = None,
        *,
        timestamp: int | None = None,
        window: int = WINDOW,
    ) -> MembershipCertificate:
        """What the controller gives a member."""
        return MembershipCertificate.issue(
            network_identity("controller"),
            network_id=NETWORK_ID,
            member=self.node.identity if identity is None else identity,
            timestamp=self.timestamp if timestamp is None else timestamp,
            window=window,
        )

    def config(self, **fields: Any) -> NetworkConfig:
        """A configuration for the node; the clock of the controller is `timestamp`."""
        defaults: dict[str, Any] = {
            "network_id": NETWORK_ID,
            "address": self.node.address,
            "timestamp": self.timestamp,
            "window": WINDOW,
            "revision": 1,
            "name": "test",
            "multicast_limit": 32,
            "flags": 2,
            "rules": ACCEPT_ALL,
        }
        if not fields.get("is_public"):
            defaults["membership"] = self.certificate()
        return NetworkConfig(**{**defaults, **fields})

    def configure(self, *, by: Puppet | None = None, **fields: Any) -> list[Sent]:
        """Let the controller push a configuration; returns what the networks send at once."""
        return self.push(self.config(**fields).emit(), by=by)

    def push(
        self, dictionary: bytes, *, by: Puppet | None = None, update_id: int | None = None
    ) -> list[Sent]:
        """Deliver the octets of a configuration in signed pieces."""
        if update_id is None:
            update_id = self.random.getrandbits(63) + 1
        sent: list[Sent] = []
        for piece in cut(NETWORK_ID, dictionary, update_id, network_identity("controller")):
            sender = self.controller if by is None else by
            sent += self.say(sender, messages.NETWORK_CONFIG, piece.emit())
        return sent

    def present(self, puppet: Puppet, **fields: Any) -> list[Sent]:
        """Let a peer show its certificate, or other credentials."""
        if not fields:
            fields = {"memberships": (self.certificate(puppet.identity),)}
        sent: list[Sent] = []
        for payload in CredentialsMessage(**fields).emit():
            sent += self.say(puppet, messages.NETWORK_CREDENTIALS, payload)
        return sent

    def mac(self, puppet: Puppet | None = None) -> bytes:
        """A MAC on the network, ours by default."""
        return mac_of(self.node.address if puppet is None else puppet.address, NETWORK_ID)
