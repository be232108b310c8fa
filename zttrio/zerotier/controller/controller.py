"""The controller of the networks whose IDs begin with a node's address (VL2 spec, 16).

It decides who is a member, gives out addresses and signs configurations.  Requests come from the
node's network layer, changes from the owner (`zttrio.controller` has the HTTP interface); both
become records that have to be on disk before an answer leaves.
"""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from math import inf, nextafter
from typing import TYPE_CHECKING, Any

from zttrio.zerotier import messages
from zttrio.zerotier.gate import Gate
from zttrio.zerotier.network.derived import controller_of
from zttrio.zerotier.network.dictionary import Dictionary
from zttrio.zerotier.network.frames import NetworkError
from zttrio.zerotier.network.piece import MAX_CONFIGURATION, cut

from .admission import admit, versions, with_defaults
from .assignment import assign
from .configuration import build
from .events import MemberAsked, MemberConfigured, RecordMissing
from .journal import Journal
from .mail import Mail
from .records import MemberRecord, NetworkRecord, RecordError
from .state import REMEMBERED, ControllerCounters, NetworkState, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zttrio.zerotier.events import Message
    from zttrio.zerotier.identity import Identity, Randomness
    from zttrio.zerotier.node import Node

    from .journal import Batch, Write
    from .mail import Notice

__all__ = ["Controller"]

_SPACING = 1.0  # between two requests of a member; at exactly one second it is refused (1.2)
_GATE_KEYS = 65_536  # arbitrary
_MEMBERS = 100_000  # of a network that everybody may join; arbitrary
_STRANGERS = 4096  # records of a network that are there only because somebody asked; arbitrary
_PUSHES_AT_ONCE = 16  # of a few hundred microseconds each; arbitrary
_PUSH_PAUSE = 0.01
_EVENTS = 1024
_NUMBERS = (1 << 24) - 1


class Controller:
    """Networks, members, and what they are told.

    The owner calls `handle_timers` no later than `next_timer` says, gives what `take_writes`
    returns to a disk and then calls `written`.  All that this sends goes through the node, which
    has to be flushed after each call.

    Args:
        node: ours; its secret signs.
        rng: unpredictable octets.
        epoch: seconds from 1970 to the zero of ``now``.
        records: everything that was stored.

    Attributes:
        counters: what happened.

    Raises:
        RecordError: a stored record makes no sense, or belongs to another controller.
    """

    def __init__(
        self,
        node: Node,
        *,
        rng: Randomness,
        epoch: float,
        records: Iterable[Write] = (),
    ) -> None:
        self.counters = ControllerCounters()
        self._node = node
        self._identity = node.identity
        self._rng = rng
        self._epoch = epoch
        self._networks: dict[int, NetworkState] = {}
        self._journal = Journal()
        self._mail = Mail(node, rng, self.counters)
        self._pushes: dict[tuple[int, bytes], None] = {}
        self._push_at = 0.0
        self._events: deque[MemberAsked | MemberConfigured] = deque(maxlen=_EVENTS)
        spacing = nextafter(_SPACING, 2)
        self._asked: Gate[tuple[int, bytes]] = Gate(spacing, _GATE_KEYS)
        self._asked_for_unknown: Gate[bytes] = Gate(spacing, _GATE_KEYS)
        for record in records:
            self._load(record)

    # what the network layer wants

    def receive_request(
        self, message: Message, network_id: int, metadata: Dictionary, now: float
    ) -> None:
        """Take in a NETWORK_CONFIG_REQUEST; see `ControllerLayer`."""
        self.counters.requests += 1
        if not self._is_ours(network_id):
            self.counters.not_ours += 1
            return
        peer = message.peer
        state = self._networks.get(network_id)
        # What is asked for must not fill the gate that everybody else needs.
        gate_is_open = (
            self._asked_for_unknown.allows(peer.address, now)
            if state is None
            else self._asked.allows((network_id, peer.address), now)
        )
        if not gate_is_open:
            self.counters.too_soon += 1
        elif state is None:
            self.counters.network_unknown += 1
            self._refuse(network_id, peer.address, message.packet_id, messages.NOT_FOUND, now)
        else:
            self._answer(state, peer.identity, metadata, message.packet_id, now)

    def answers_for(self, network_id: int, address: bytes, now: float) -> bool:
        """True for members that were sent a configuration lately; see `ControllerLayer`."""
        state = self._networks.get(network_id)
        session = None if state is None else state.sessions.get(address)
        return session is not None and now - session.configured_at <= REMEMBERED

    # what the owner of the networks wants

    def networks(self) -> list[int]:
        """The IDs of all networks, ascending."""
        return sorted(self._networks)

    def network(self, network_id: int) -> NetworkRecord:
        """A network's record.

        Raises:
            RecordMissing: there is none.
        """
        return self._state(network_id).record

    def create_network(self, changes: Mapping[str, Any], now: float) -> NetworkRecord:
        """A new network with a random number.

        Raises:
            RecordError: a field cannot have that value.
            RecordMissing: every number is taken.
        """
        first = int.from_bytes(self._rng(3), "big")
        own = int.from_bytes(self._identity.address, "big") << 24
        for offset in range(_NUMBERS):
            network_id = own | (first + offset) % _NUMBERS + 1
            if network_id not in self._networks:
                return self.change_network(network_id, changes, now)
        raise RecordMissing("network: all 16777215 numbers are taken")

    def change_network(
        self, network_id: int, changes: Mapping[str, Any], now: float
    ) -> NetworkRecord:
        """A network's record after *changes*; it is made if it is not there.

        Number 0, the last three octets, becomes 1.

        Raises:
            RecordError: a field cannot have that value, or the network would be another
                controller's.
        """
        if not self._is_ours(network_id):
            raise RecordError(f"network {network_id:016x}: belongs to another controller")
        if not network_id & _NUMBERS:
            network_id |= 1
        state = self._networks.get(network_id)
        if state is None:
            record = NetworkRecord.new(network_id, self.clock(now)).changed(changes)
            record = NetworkRecord(network_id, {**record.fields, "revision": 1})
            self._networks[network_id] = NetworkState(record)
        else:
            record = state.record.changed(changes)
            if record is state.record:
                return record
            state.record = record
            self._push_to_all(state, now)
        self._journal.put(network_id, None, record.fields)
        return record

    def delete_network(self, network_id: int, now: float) -> NetworkRecord:
        """Forget a network and its members, and tell those that are online; its last record.

        Raises:
            RecordMissing: there is none.
        """
        state = self._state(network_id)
        del self._networks[network_id]
        for address in state.members:
            self._journal.put(network_id, address, None)
        self._journal.put(network_id, None, None)
        authorized = [m.address for m in state.members.values() if m.is_authorized]
        self._revoke(state, authorized, self.clock(now), now)
        return state.record

    def members(self, network_id: int) -> list[MemberRecord]:
        """The members of a network by address, those that only asked included.

        Raises:
            RecordMissing: there is no such network.
        """
        members = self._state(network_id).members
        return [members[address] for address in sorted(members)]

    def member(self, network_id: int, address: bytes) -> MemberRecord:
        """A member's record.

        Raises:
            RecordMissing: there is none.
        """
        member = self._state(network_id).members.get(address)
        if member is None:
            raise RecordMissing(
                f"member {address.hex()} of network {network_id:016x}: there is none"
            )
        return member

    def change_member(
        self, network_id: int, address: bytes, changes: Mapping[str, Any], now: float
    ) -> MemberRecord:
        """A member's record after *changes*; it is made if it is not there.

        The first authorisation brings the network's default capabilities, unless *changes* says
        which ones the member is to have.

        Raises:
            RecordMissing: there is no such network.
            RecordError: a field cannot have that value.
        """
        state = self._state(network_id)
        clock = self.clock(now)
        old = state.members.get(address)
        new = MemberRecord.new(network_id, address, clock) if old is None else old
        member = new.changed(changes, clock)
        if "capabilities" not in changes:
            member = with_defaults(state.record, new, member)
        self._keep(state, member)
        if old is not None and member is not old:
            if old.is_authorized and not member.is_authorized:
                self._revoke(state, [address], member.deauthorized_at, now)
            else:
                self._push(network_id, address, now)
            if old.may_bridge != member.may_bridge:
                self._push_to_all(state, now)  # every configuration lists the bridges
        return member

    def delete_member(self, network_id: int, address: bytes, now: float) -> MemberRecord:
        """Forget a member, and tell those that are online; its last record.

        Raises:
            RecordMissing: there is none.
        """
        state = self._state(network_id)
        member = self.member(network_id, address)
        self._journal.put(network_id, address, None)
        if member.is_authorized:
            self._revoke(state, [address], self.clock(now), now)
        state.forget(address)
        state.sessions.pop(address, None)
        return member

    # disk, time, and what happened

    @property
    def number(self) -> int:
        """Of the last change; it is on disk when `durable` is as high."""
        return self._journal.number

    @property
    def durable(self) -> int:
        """Of the last change that is on disk."""
        return self._journal.durable

    @property
    def has_writes(self) -> bool:
        """True if there is something for the disk."""
        return self._journal.has_writes

    def take_writes(self) -> Batch:
        """What has to be written; call `written` with its number when it is."""
        return self._journal.take()

    def written(self, number: int, now: float) -> None:
        """Go on with what waited for the disk."""
        self._journal.written(number, now)

    def handle_timers(self, now: float) -> None:
        """Do what is due at *now*."""
        if self._pushes and now >= self._push_at:
            for _ in range(min(len(self._pushes), _PUSHES_AT_ONCE)):
                network_id, address = next(iter(self._pushes))
                del self._pushes[network_id, address]
                self._push_now(network_id, address, now)
            self._push_at = now + _PUSH_PAUSE
        self._mail.handle_timers(now)
        self._asked.expire(now)
        self._asked_for_unknown.expire(now)

    def next_timer(self) -> float | None:
        """When `handle_timers` must be called next, or None."""
        mail = self._mail.next_timer()
        if not self._pushes:
            return mail
        return self._push_at if mail is None else min(mail, self._push_at)

    def take_events(self) -> list[MemberAsked | MemberConfigured]:
        """What happened since the last call; of more than 1024 the newest."""
        events = list(self._events)
        self._events.clear()
        return events

    # inside: requests

    def _answer(
        self,
        state: NetworkState,
        identity: Identity,
        metadata: Dictionary,
        packet_id: bytes | None,
        now: float,
    ) -> None:
        """Do for a member what 16.2 says, from its third step; without a packet ID it is a push."""
        network_id, address = state.record.network_id, identity.address
        refuse = partial(self._refuse, network_id, address, packet_id)
        clock = self.clock(now)
        old = state.members.get(address)
        if old is None:
            if not self._make_room(state):
                self.counters.network_full += 1
                refuse(messages.ACCESS_DENIED, now)
                return
            old = MemberRecord.new(network_id, address, clock)
        member = old
        pinned = old.is_pinned_to(identity)
        if pinned is False:
            self.counters.wrong_identity += 1
            refuse(messages.ACCESS_DENIED, now)
            return
        if pinned is None:
            # Whoever comes first has the address; its first sight is no change of the record.
            member = MemberRecord(network_id, address, {**old.fields, "identity": identity.text()})
        member = admit(state.record, member, metadata, clock)
        if not member.is_authorized:
            self.counters.denied += 1
            if address not in state.members:
                self._events.append(MemberAsked(network_id, address))
            self._keep(state, member)
            refuse(messages.ACCESS_DENIED, now)
            return
        expiry = int(member.fields["authenticationExpiryTime"])
        if state.record.needs_sign_on and not member.fields["ssoExempt"] and expiry <= clock:
            self.counters.sign_on_due += 1
            self._keep(state, member)
            refuse(messages.AUTHENTICATION_REQUIRED, now)
            return
        if packet_id is not None:
            member = member.replaced(versions(metadata))
            self._note_request(state, identity, metadata, now)
        self._configure(state, member, identity, metadata, packet_id, now)

    def _make_room(self, state: NetworkState) -> bool:
        """Forget the stranger that asked first, if there are too many; True if one more fits."""
        if len(state.pristine) >= _STRANGERS:
            address = next(iter(state.pristine))
            state.forget(address)
            self._journal.put(state.record.network_id, address, None)
            self.counters.records_evicted += 1
        return len(state.members) < _MEMBERS

    def _note_request(
        self, state: NetworkState, identity: Identity, metadata: Dictionary, now: float
    ) -> None:
        session = state.sessions.get(identity.address)
        if session is None or not session.is_online(now):
            # It has missed what was said to those who were online.
            since = self.clock(now) - state.record.window
            missed = [notice for notice in state.shut_out.values() if notice.threshold >= since]
            if missed:
                self._journal.after(partial(self._post, [identity.address], missed), now)
        if session is None:
            self._events.append(MemberConfigured(state.record.network_id, identity.address))
            state.sessions[identity.address] = Session(identity, metadata, now)
        else:
            session.identity, session.metadata, session.asked_at = identity, metadata, now

    def _configure(
        self,
        state: NetworkState,
        member: MemberRecord,
        identity: Identity,
        metadata: Dictionary,
        packet_id: bytes | None,
        now: float,
    ) -> None:
        """Build a configuration, keep what it gives to the member, and send it (16.3)."""
        network = state.record
        assigned = assign(network, member, state.is_used, self._rng)
        values: dict[str, Any] = {}
        if assigned.given:
            held = [*member.fields["ipAssignments"], *map(str, assigned.given)]
            values["ipAssignments"] = held
        tags = {**network.tag_defaults, **member.tags}
        if tags != member.tags:
            values["tags"] = [[identifier, tags[identifier]] for identifier in sorted(tags)]
        member = member.replaced(values)
        self._keep(state, member)
        # A certificate as old as the revocation of the one before would be void too.
        timestamp = max(self.clock(now), member.deauthorized_at + 1)
        dictionary = build(
            self._identity,
            network,
            member,
            identity,
            assigned,
            bridges=state.bridges(),
            timestamp=timestamp,
            knows_rules=metadata.get_int("revr") > 0,
        ).emit()
        if len(dictionary) > MAX_CONFIGURATION:
            self.counters.too_large += 1
            return
        send = partial(self._send, network.network_id, member.address, packet_id, dictionary)
        self._journal.after(send, now, len(dictionary))

    def _send(
        self,
        network_id: int,
        address: bytes,
        packet_id: bytes | None,
        dictionary: bytes,
        now: float,
    ) -> None:
        state = self._networks.get(network_id)
        member = None if state is None else state.members.get(address)
        session = None if state is None else state.sessions.get(address)
        if member is None or session is None or not member.is_authorized:
            return  # deleted or shut out while the disk was busy
        session.configured_at = now
        if packet_id is None:
            self.counters.pushes += 1
        else:
            self.counters.configurations += 1
        update_id = int.from_bytes(self._rng(8), "big") or 1
        for piece in cut(network_id, dictionary, update_id, self._identity):
            verb, payload = messages.NETWORK_CONFIG, piece.emit()
            if packet_id is not None:
                payload = messages.emit_ok(messages.NETWORK_CONFIG_REQUEST, packet_id, payload)
                verb = messages.OK
            self._node.send(address, verb, payload, now, compress=True)

    def _refuse(
        self, network_id: int, address: bytes, packet_id: bytes | None, code: int, now: float
    ) -> None:
        """Answer a real request with an ERROR; a push that comes to nothing stays unsaid."""
        if packet_id is None:
            return
        sign_on = None
        if code == messages.AUTHENTICATION_REQUIRED:
            sign_on = Dictionary()
            sign_on.set_int("aV", 0)
            sign_on.set_text(
                "aU", self._networks[network_id].record.fields["authorizationEndpoint"]
            )
        error = NetworkError(network_id, sign_on=sign_on)
        payload = messages.emit_error(
            messages.NETWORK_CONFIG_REQUEST, packet_id, code, error.emit()
        )
        self._node.send(address, messages.ERROR, payload, now)

    # inside: pushes and revocations

    def _push(self, network_id: int, address: bytes, now: float) -> None:
        if not self._pushes:
            self._push_at = max(self._push_at, now)
        self._pushes[network_id, address] = None

    def _push_to_all(self, state: NetworkState, now: float) -> None:
        for address in state.online(now):
            self._push(state.record.network_id, address, now)

    def _push_now(self, network_id: int, address: bytes, now: float) -> None:
        state = self._networks.get(network_id)
        session = None if state is None else state.sessions.get(address)
        if state is not None and session is not None and session.is_online(now):
            self._answer(state, session.identity, session.metadata, None, now)

    def _revoke(
        self, state: NetworkState, addresses: Sequence[bytes], threshold: int, now: float
    ) -> None:
        """Tell everybody who is online that members are members no longer (16.7)."""
        online = state.online(now)
        if online:
            notices = [state.notice(address, threshold) for address in addresses]
            self._journal.after(partial(self._post, online, notices), now)
        for address in addresses:
            if address in state.sessions:
                state.sessions[address].configured_at = -inf

    def _post(self, addresses: Sequence[bytes], notices: Sequence[Notice], now: float) -> None:
        for address in addresses:
            self._mail.add(address, notices)
        self._mail.handle_timers(now)

    # inside: records

    def _load(self, stored: Write) -> None:
        name = f"{stored.network_id:016x}"
        try:
            fields = json.loads(stored.record or "null")
        except ValueError as exc:
            raise RecordError(f"network {name}: a stored record is damaged: {exc}") from exc
        if not isinstance(fields, dict) or not self._is_ours(stored.network_id):
            raise RecordError(f"network {name}: a stored record is not one of this controller's")
        if stored.address is None:
            record = NetworkRecord.load(stored.network_id, fields)
            self._networks[stored.network_id] = NetworkState(record)
        else:
            state = self._networks.get(stored.network_id)
            if state is None:
                raise RecordError(f"network {name}: it has stored members and no record")
            state.put(MemberRecord.load(stored.network_id, stored.address, fields))

    def _keep(self, state: NetworkState, member: MemberRecord) -> None:
        """Keep a member's record, if it has changed."""
        if state.members.get(member.address) is not member:
            state.put(member)
            self._journal.put(state.record.network_id, member.address, member.fields)

    def _state(self, network_id: int) -> NetworkState:
        state = self._networks.get(network_id)
        if state is None:
            raise RecordMissing(f"network {network_id:016x}: there is none")
        return state

    def _is_ours(self, network_id: int) -> bool:
        return controller_of(network_id) == self._identity.address

    def clock(self, now: float) -> int:
        """Milliseconds since 1970."""
        return int((now + self._epoch) * 1000)
