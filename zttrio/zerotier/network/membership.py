"""A network that this node has joined: its configuration, its members, and its frames.

`Membership` is what the owner of a network holds.  How frames leave is in `.outbound`, how they
arrive in `.inbound`; messages come from `.networks`, which holds all memberships of a node.
Numbers in brackets are sections of the VL2 specification.
"""

from __future__ import annotations

import enum
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import TYPE_CHECKING, TypeAlias

import attrs

from .. import messages
from ..constants import TICK, WHOIS_RETRY, is_reserved
from .adhoc import adhoc_config, is_adhoc
from .config_request import ConfigRequest, request_metadata
from .credential import CredentialsMessage
from .derived import BROADCAST, Group, controller_of, mac_of
from .frames import MulticastLike
from .inbound import Inbound
from .member_table import MemberTable
from .outbound import Outbound
from .rule_policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..identity import Randomness
    from ..node import Node
    from .member_config import MemberConfig
    from .member_record import MemberRecord
    from .multicast import GroupTable
    from .netconf import NetworkConfig
    from .network_counters import NetworkCounters

__all__ = [
    "ConfigChanged",
    "Member",
    "Membership",
    "NetworkEvent",
    "NetworkStatus",
    "Shared",
    "StatusChanged",
]

REFRESH = 60.0  # (7.3)
_ANNOUNCE = 60.0  # (11.2)
_EAGER = 10.0  # arbitrary; how long after joining registries are looked for twice a second
_PUSH_AGAIN = 500.0  # (8.5)
_PUSH_INTERVAL = 1.0
_SPACING = 1.1  # between two messages with credentials: receivers want more than a second (5.4)
_TRUST = 130.0  # arbitrary; how long a peer that passed the gate is told our addresses
_LATER = 256  # arbitrary
_GROUPS = 4096  # arbitrary; groups of the local stack
_LIKES_PER_MESSAGE = 77  # that fit into one datagram


class NetworkStatus(enum.IntEnum):
    """How a network is (7.1); names and numbers are the reference's."""

    REQUESTING_CONFIGURATION = 0
    OK = 1
    ACCESS_DENIED = 2
    NOT_FOUND = 3
    PORT_ERROR = 4
    CLIENT_TOO_OLD = 5
    AUTHENTICATION_REQUIRED = 6


@attrs.frozen
class ConfigChanged:
    """A network has a configuration, or another one.

    Attributes:
        network_id: which network.
        config: what is in force now.
        stored: the octets to keep for the next start; empty if there is nothing to keep.
    """

    network_id: int
    config: NetworkConfig
    stored: bytes = attrs.field(repr=False)


@attrs.frozen
class StatusChanged:
    """A network's status has changed.

    Attributes:
        network_id: which network.
        status: the new one.
        url: where the user has to authenticate, if that is the trouble and known.
    """

    network_id: int
    status: NetworkStatus
    url: str = ""


NetworkEvent: TypeAlias = ConfigChanged | StatusChanged


@attrs.frozen
class Member:
    """Another member as we know it, for people who want to look.

    Attributes:
        address: 5 octets.
        mac: on this network.
        is_admitted: True if its frames are let in, as far as credentials go.
        certificate_timestamp: of its certificate of membership, or None.
    """

    address: bytes
    mac: bytes
    is_admitted: bool
    certificate_timestamp: int | None


@attrs.define(eq=False)
class Shared:
    """What the memberships of one node have in common.

    Attributes:
        node: sends the messages.
        config: every number.
        counters: what happened.
        groups: who listens to what.
        rng: unpredictable octets.
        epoch: seconds from 1970 to the zero of ``now``.
        events: by kind and network; a newer one replaces an older one that nobody has taken.
        random: for the rules' match by chance.
    """

    node: Node
    config: MemberConfig
    counters: NetworkCounters
    groups: GroupTable
    rng: Randomness
    epoch: float
    events: dict[tuple[type, int], NetworkEvent] = attrs.field(factory=dict)
    random: Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.rng(16))

    def add_event(self, event: NetworkEvent) -> None:
        """Tell the owner."""
        key = type(event), event.network_id
        self.events.pop(key, None)
        self.events[key] = event


class Membership:
    """One network of one node.

    The owner of the network gives it frames of the local stack, with `send` or `send_burst`, and
    takes frames for the stack with `take_frames`; time and messages come by way of `Networks`.

    Raises:
        ValueError: the token is longer than a request can be.

    Attributes:
        network_id: 64 bits.
        mac: ours on this network.
        config: what the controller says, None before it does.
        era: number of the configuration in force; what was found out under another is stale.
        members: who else there is.
        policy: the rules in force.
        is_bridge: True if we may send and receive for other MACs.
        credentials: what we show to others, as payloads.
        own_groups: what we announce.
        outbound: sends frames to other members.
        inbound: takes frames of other members in.
    """

    def __init__(self, shared: Shared, network_id: int, token: str | None, now: float) -> None:
        node = shared.node
        self.network_id = network_id
        self.id_octets = network_id.to_bytes(8, "big")
        self.controller = controller_of(network_id)
        self.mac = mac_of(node.address, network_id)
        self.shared = shared
        self.node = node
        self.counters = shared.counters
        self.config: NetworkConfig | None = None
        self.era = 0
        self.policy: Policy
        self.is_bridge = False
        self.credentials: list[bytes] = []
        self.own_groups: frozenset[Group] = frozenset()
        self.members = MemberTable(
            network_id, node.address, shared.config.record_limit, shared.counters
        )
        self.outbound = Outbound(self)
        self.inbound = Inbound(self)
        self._metadata = request_metadata(node.config.version, token=token)
        ConfigRequest(network_id, self._metadata).emit()  # does the token fit?
        self._stack_groups: frozenset[Group] = frozenset()
        self._failure: NetworkStatus | None = None
        self._url = ""
        self._told: NetworkStatus = NetworkStatus.REQUESTING_CONFIGURATION
        self._data = b""
        self._accepted_at = -inf
        self._next_tick = now
        self._show_again = _PUSH_AGAIN
        self._next_introduction = inf
        self._eager_until = now + _EAGER
        self._announced: dict[bytes, float] = {}
        self._later: list[tuple[float, int, bytes, bytes]] = []
        self._ring: list[bytes] = []
        self._ring_limit = shared.config.ring

    # the local stack

    def send(self, frame: bytes, now: float) -> None:
        """Send a whole Ethernet frame of the local stack, with its 14 octets of header."""
        self.counters.frames_out += 1
        self.counters.count(self.outbound.send(frame, now))

    def send_burst(self, frames: Iterable[bytes], now: float) -> None:
        """Send frames of the local stack."""
        self.outbound.send_burst(frames, now)

    def take_frames(self) -> list[bytes]:
        """Whole Ethernet frames for the local stack, in order."""
        frames = self._ring
        if frames:
            self._ring = []
        return frames

    def set_groups(self, groups: frozenset[Group], now: float) -> None:
        """Say which groups the local stack listens to; new ones are announced at once (11.2).

        Of more than 4096 only the first ones count.
        """
        if len(groups) > _GROUPS:
            self.counters.groups_refused += len(groups) - _GROUPS
            groups = frozenset(sorted(groups)[:_GROUPS])
        self._stack_groups = groups
        self.find_own_groups(now)

    def deliver(self, frame: bytes) -> bool:
        """Give the local stack a frame; False if there is no room."""
        if len(self._ring) >= self._ring_limit:
            return False
        self._ring.append(frame)
        return True

    # what there is to see

    @property
    def status(self) -> NetworkStatus:
        """How the network is."""
        if self._failure is not None:
            return self._failure
        if self.config is None:
            return NetworkStatus.REQUESTING_CONFIGURATION
        return NetworkStatus.OK

    @property
    def url(self) -> str:
        """Where the user has to authenticate, if that is the trouble and known."""
        return self._url

    def peers(self) -> list[Member]:
        """The other members that we have to do with."""
        return [
            Member(
                record.address,
                record.mac,
                self._is_member(record),
                None if record.certificate is None else record.certificate.timestamp,
            )
            for record in self.members
        ]

    def sizes(self) -> dict[str, int]:
        """How full the tables are; each is bounded."""
        return {
            "members": len(self.members),
            "ring": len(self._ring),
            "later": len(self._later),
            **self.outbound.sizes(),
        }

    # the configuration

    def accept(self, data: bytes, config: NetworkConfig, now: float, *, is_direct: bool) -> str:
        """Put a configuration in force, if it is for us and newer (6.3).

        Args:
            data: its dictionary, to be stored; empty for one that is not.
            config: the same, parsed.
            now: seconds.
            is_direct: True if the controller itself has sent it: only then it may be older than
                what we have, or whoever has recorded one could take us back there.

        Returns:
            The counter of what became of it.
        """
        if config.network_id != self.network_id or config.address != self.node.address:
            return "config_not_ours"
        held = self.config
        if held is not None:
            if (data and data == self._data) or config == held:
                return "config_unchanged"
            if config.timestamp < held.timestamp and not is_direct:
                return "config_old"
        self._accepted_at = now
        self._failure = None
        self._url = ""
        self._put_in_force(data, config, now)
        return "config_accepted"

    def use_stored(self, data: bytes, config: NetworkConfig, now: float) -> bool:
        """Put a configuration of our own storage in force until the controller has a newer one."""
        if config.network_id != self.network_id or config.address != self.node.address:
            return False
        self._put_in_force(data, config, now)
        return True

    def fail(self, status: NetworkStatus, url: str = "") -> None:
        """Note that the controller refuses us; what we have stays in force until it is too old."""
        if status != self._failure or url != self._url:
            self._failure = status
            self._url = url
            self._tell_status(again=True)

    def _put_in_force(self, data: bytes, config: NetworkConfig, now: float) -> None:
        self.config = config
        self._data = data
        self.era += 1
        self.policy = Policy.of(
            config, self.shared.random, is_strict=self.shared.config.strict_ownership
        )
        self.is_bridge = self.node.address in config.active_bridges
        own = CredentialsMessage(
            memberships=() if config.membership is None else (config.membership,),
            capabilities=config.capabilities,
            tags=config.tags,
            ownerships=config.ownerships,
        )
        self.credentials = [] if own == CredentialsMessage() else own.emit()
        self._show_again = min(_PUSH_AGAIN, config.window / 2000)  # half of it, in seconds
        self.members.set_window(config.timestamp, config.window)
        self.outbound.configure(config)
        self.inbound.configure(config)
        is_first = self.era == 1
        if is_first:
            self._next_tick = min(self._next_tick, now)  # to announce our groups
        self.find_own_groups(now, is_quiet=is_first)
        self.shared.add_event(ConfigChanged(self.network_id, config, data))
        self._tell_status()

    def _tell_status(self, *, again: bool = False) -> None:
        status = self.status
        if again or status != self._told:
            self._told = status
            self.shared.add_event(StatusChanged(self.network_id, status, self._url))

    # time

    def start(self, now: float) -> None:
        """Begin; a network that we can compute is there at once."""
        if is_adhoc(self.network_id):
            self._compute(now)
        elif is_reserved(self.controller):
            self.fail(NetworkStatus.NOT_FOUND)

    def next_timer(self) -> float:
        """When `handle_timers` must be called next."""
        earliest = min(self._next_tick, self._next_introduction)
        return min(earliest, self._later[0][0]) if self._later else earliest

    def handle_timers(self, now: float) -> None:
        """Do what is due at *now*."""
        while self._later and self._later[0][0] <= now:
            _, _, address, payload = heappop(self._later)
            self.node.send(address, messages.NETWORK_CREDENTIALS, payload, now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)
        elif now >= self._next_introduction:
            self._tell_registries(now)

    def _tick(self, now: float) -> None:
        if self.config is None or now - self._accepted_at >= REFRESH:
            if is_adhoc(self.network_id):
                self._compute(now)
            else:
                self._request(now)
        if self.outbound.expire(now):
            self.find_own_groups(now)
        self.members.expire(now)
        self._tell_registries(now)
        for record in self.members:
            if (
                now - record.announced_at >= _ANNOUNCE
                and self._can_reach(record.address, now)
                and self._is_member(record)
            ):
                self._greet(record, now)

    def _tell_registries(self, now: float) -> None:
        """Announce our groups to the registries that have not heard of them for a minute."""
        self._next_introduction = inf
        config = self.config
        if config is None:
            return
        registries = self._registries(config)
        self._announced = {a: self._announced.get(a, -inf) for a in registries}
        for address, last in self._announced.items():
            if now - last < _ANNOUNCE:
                continue
            if self._can_reach(address, now):
                self._announced[address] = now
                self._announce(address, self.own_groups, now)
            elif now < self._eager_until:
                # A node that has just started meets its root in a moment, and until then nobody
                # can ask for its addresses.
                self._next_introduction = now + WHOIS_RETRY

    def _compute(self, now: float) -> None:
        config = adhoc_config(self.network_id, self.node.address, self.milliseconds(now))
        if config is None:
            self.fail(NetworkStatus.NOT_FOUND)
        else:
            self.counters.count(self.accept(b"", config, now, is_direct=True))

    def _request(self, now: float) -> None:
        if self.controller == self.node.address or is_reserved(self.controller):
            return  # the first knows how to reach itself, the second is nobody
        held = self.config
        request = ConfigRequest(
            self.network_id,
            self._metadata,
            0 if held is None else held.revision,
            0 if held is None else held.timestamp & ((1 << 64) - 1),
        )
        self.counters.requests_out += 1
        self.node.send(
            self.controller,
            messages.NETWORK_CONFIG_REQUEST,
            request.emit(),
            now,
            compress=True,
            context=self.network_id,
        )

    def milliseconds(self, now: float) -> int:
        """*now* as the controllers count."""
        return int((now + self.shared.epoch) * 1000)

    # the gate

    def admit(self, address: bytes, now: float) -> MemberRecord | None:
        """The record of a peer that may talk to us, or None if it may not (8.1)."""
        record = self.members.get(address)
        if record is None:
            config = self.config
            if config is None or not config.is_public:
                return None
            record = self.members.obtain(address, now)
            if record is None:
                return None
        if record.admitted_in != self.era and not self._is_member(record):
            return None
        if now - record.announced_at >= _ANNOUNCE:
            self._greet(record, now)
        return record

    def _is_member(self, record: MemberRecord) -> bool:
        config = self.config
        if config is None:
            return False
        if record.admitted_in == self.era:
            return True
        if not config.is_public:
            peer = self.node.topology.peers.get(record.address)
            if peer is None or not record.agrees(config.membership, peer.identity):
                return False
        self.freshen(record)
        record.admitted_in = self.era
        return True

    def freshen(self, record: MemberRecord) -> None:
        """Make a record's credentials those of this era."""
        config = self.config
        if record.fresh_in != self.era and config is not None:
            record.refresh(config.timestamp, config.window, self.era)

    def _greet(self, record: MemberRecord, now: float) -> None:
        """Tell a member, which has passed the gate, what we listen to; once a minute."""
        record.announced_at = now
        self.members.touch(record, now)
        self.node.trust(record.address, now + _TRUST)
        # It would not believe what follows without our credentials; but what it has seen once it
        # believes for long, so that they are not needed every minute.
        if self.shared.config.push_always and now - record.pushed_at >= self._show_again:
            self._push(record, now)
        self._announce(record.address, self.own_groups, now)

    # our own groups

    def _registries(self, config: NetworkConfig) -> list[bytes]:
        """Who keeps track of groups for others: controller, roots, anchors, replicators (11.2)."""
        special = sorted(config.anchors | config.replicators)
        listed = dict.fromkeys((self.controller, *self.node.topology.roots, *special))
        mine = self.node.address
        return [address for address in listed if address != mine and not is_reserved(address)]

    def find_own_groups(self, now: float, *, is_quiet: bool = False) -> None:
        """Find out what we listen to, and announce what is new, unless it has time."""
        config = self.config
        groups = self._stack_groups | self.outbound.groups_behind()
        if config is not None and config.broadcast:
            groups |= {BROADCAST}
        new = groups - self.own_groups
        self.own_groups = groups
        if is_quiet or not new or config is None:
            return
        for address in self._registries(config):
            if self._can_reach(address, now):
                self._announce(address, new, now)
        for record in self.members:
            if record.admitted_in == self.era and self._can_reach(record.address, now):
                self._announce(record.address, new, now)

    def _announce(self, address: bytes, groups: frozenset[Group], now: float) -> None:
        listed = sorted(groups)
        for at in range(0, len(listed), _LIKES_PER_MESSAGE):
            part = listed[at : at + _LIKES_PER_MESSAGE]
            like = MulticastLike(tuple((self.network_id, group) for group in part))
            self.node.send(address, messages.MULTICAST_LIKE, like.emit(), now)

    def _can_reach(self, address: bytes, now: float) -> bool:
        return self.node.can_reach(address, now)

    # our own credentials

    def push_if_due(self, record: MemberRecord, now: float) -> None:
        """Show our credentials before a frame, if they are new or it is long ago (8.5)."""
        if record.pushed_in != self.era or now - record.pushed_at >= _PUSH_AGAIN:
            self._push(record, now)

    def push_on_demand(self, address: bytes, now: float) -> None:
        """Show our credentials to a peer that says it needs them (8.5)."""
        record = self.members.obtain(address, now)
        if record is not None and (
            record.pushed_in != self.era or now - record.pushed_at > _PUSH_INTERVAL
        ):
            self._push(record, now)

    def _push(self, record: MemberRecord, now: float) -> None:
        record.pushed_in = self.era
        record.pushed_at = now
        self.members.touch(record, now)
        for number, payload in enumerate(self.credentials):
            self.counters.credentials_pushed += 1
            if not number:
                self.node.send(record.address, messages.NETWORK_CREDENTIALS, payload, now)
            else:
                self._send_later(record.address, payload, now + number * _SPACING)

    def tell_members(
        self, verb: int, payload: bytes, now: float, *, but_not: Sequence[bytes]
    ) -> int:
        """Send on something that the controller has signed to everybody we know (6.2, 13).

        Returns:
            To how many.
        """
        count = 0
        for record in self.members:
            if record.address in but_not:
                continue
            count += 1
            self.node.send(record.address, verb, payload, now)
            free_at = record.pushed_at + _SPACING
            if verb == messages.NETWORK_CREDENTIALS and now < free_at:
                # The reference does not look at a second message within a second (5.4).
                self._send_later(record.address, payload, free_at)
        return count

    def _send_later(self, address: bytes, credentials: bytes, when: float) -> None:
        if len(self._later) < _LATER:
            heappush(self._later, (when, self.era, address, credentials))
