"""Credentials of others as they arrive: filed under whom they name, whoever delivers them (4, 13).

Checking a signature costs as much as a hundred frames, so how often anybody may make us do that is
limited, and what can be seen without it is looked at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from .. import messages
from ..gate import Buckets, Gate
from .certificate import MembershipCertificate
from .credential import CredentialsMessage, Revocation
from .member_record import FULL, NEW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..events import Message
    from ..identity import Identity
    from ..node import Node
    from ..peer import Peer
    from .member_record import Credential, MemberRecord
    from .membership import Membership
    from .network_counters import NetworkCounters

__all__ = ["CredentialIntake", "Taken"]

_INTERVAL = 1.0  # one message with credentials per peer (5.4)
_KEYS = 16_384  # arbitrary
# Controllers may revoke several members in one second, and members pass on what they are told: a
# revocation must not get lost because its bearer has just shown its own credentials.  Arbitrary.
_RATE = 10.0
_BURST = 50
_ONLY_REVOCATIONS = bytes(5)  # no certificates, capabilities and tags in front of them (5.4)


@attrs.define
class Taken:
    """What came of a message with credentials.

    Attributes:
        admitted: networks on which somebody has shown a new certificate of membership.
        is_incomplete: True if a controller's identity is not known yet: try again later.
    """

    admitted: set[int] = attrs.field(factory=set)
    is_incomplete: bool = False


class _Place(NamedTuple):
    """Where a credential belongs; the record may be new, and is kept only if the credential is."""

    membership: Membership
    record: MemberRecord
    controller: Identity


class CredentialIntake:
    """Looks at credentials, and files what is good.

    Args:
        node: knows the controllers' identities, or asks for them.
        counters: where each credential is counted by what became of it.
        networks: the memberships.
    """

    def __init__(
        self,
        node: Node,
        counters: NetworkCounters,
        networks: Mapping[int, Membership],
    ) -> None:
        self._node = node
        self._counters = counters
        self._networks = networks
        self._messages: Gate[bytes] = Gate(_INTERVAL, _KEYS)
        self._attached: Gate[bytes] = Gate(_INTERVAL, _KEYS)
        self._urgent: Buckets[bytes] = Buckets(_RATE, _BURST, _KEYS)

    def expire(self, now: float) -> None:
        """Forget who may speak again."""
        self._messages.expire(now)
        self._attached.expire(now)
        self._urgent.expire(now)

    def __len__(self) -> int:
        """How many peers' rates are watched."""
        return len(self._messages) + len(self._attached) + len(self._urgent)

    def receive(self, message: Message, now: float, *, is_again: bool) -> Taken | None:
        """Take in a NETWORK_CREDENTIALS; None if its sender has sent one too lately.

        Args:
            message: the message.
            now: seconds.
            is_again: True if it has been here before and had to wait.

        Raises:
            HeaderError: it is malformed.
        """
        if not is_again and not self._may_send(message, now):
            return None
        found = CredentialsMessage.parse(message.payload)
        taken = Taken()
        forged = self._counters.credentials_forged
        credentials: tuple[MembershipCertificate | Revocation | Credential, ...] = (
            *found.memberships,
            *found.capabilities,
            *found.tags,
            *found.revocations,
            *found.ownerships,
        )
        for credential in credentials:
            if isinstance(credential, MembershipCertificate):
                self._certificate(credential, taken, now)
            elif isinstance(credential, Revocation):
                self._revoke(credential, message.peer.address, taken, now)
            else:
                self._file(credential, taken, now)
            if self._counters.credentials_forged != forged:
                break  # honest nodes pass on nothing forged, and each check costs a lot
        return taken

    def take_attached(
        self, network_id: int, certificate: MembershipCertificate | None, peer: Peer, now: float
    ) -> None:
        """Take a certificate that came with a frame, as old nodes send them (8.3)."""
        if certificate is None:
            return
        membership = self._networks.get(network_id)
        if membership is None or certificate.network_id != network_id:
            self._counters.credentials_not_joined += 1
            return
        record = membership.members.get(certificate.issued_to)
        if record is not None and record.certificate == certificate:
            return  # it comes with every frame
        if self._attached.allows(peer.address, now):
            self._certificate(certificate, Taken(), now)

    def _may_send(self, message: Message, now: float) -> bool:
        address = message.peer.address
        head = message.payload[:7]
        is_urgent = (head[:5] == _ONLY_REVOCATIONS and any(head)) or any(
            address == one.controller for one in self._networks.values()
        )
        if not is_urgent:
            return self._messages.allows(address, now)
        return self._urgent.take(address, now)

    def _certificate(self, certificate: MembershipCertificate, taken: Taken, now: float) -> None:
        place = self._find_place(certificate.network_id, certificate.issued_to, taken, now)
        if place is not None and self._note(
            place, place.record.offer_certificate(certificate, place.controller)
        ):
            taken.admitted.add(certificate.network_id)

    def _file(self, credential: Credential, taken: Taken, now: float) -> None:
        place = self._find_place(credential.network_id, credential.issued_to, taken, now)
        if place is not None:
            self._note(place, place.record.offer(credential, place.controller, self._identity_of))

    def _revoke(self, revocation: Revocation, sender: bytes, taken: Taken, now: float) -> None:
        place = self._find_place(revocation.network_id, revocation.target, taken, now)
        if place is None:
            return
        is_new = self._note(place, place.record.revoke(revocation, place.controller))
        if is_new and revocation.is_fast:
            payload = CredentialsMessage(revocations=(revocation,)).emit()[0]
            self._counters.revocations_forwarded += place.membership.tell_members(
                messages.NETWORK_CREDENTIALS, payload, now, but_not=(sender, revocation.signer)
            )

    def _note(self, place: _Place, outcome: str) -> bool:
        """Count what became of a credential; True if it is new and there is room for it."""
        if outcome == NEW and not place.membership.members.keep(place.record):
            outcome = FULL
        self._counters.count(outcome)
        return outcome == NEW

    def _find_place(
        self, network_id: int, address: bytes, taken: Taken, now: float
    ) -> _Place | None:
        """Where a credential belongs, and whose signature it must have."""
        membership = self._networks.get(network_id)
        if membership is None:
            self._counters.credentials_not_joined += 1
            return None
        controller = self._node.find_identity(membership.controller, now)
        if controller is None:
            self._counters.credentials_no_controller += 1
            taken.is_incomplete = True
            return None
        record = membership.members.find(address, now)
        if record is None:
            self._counters.credentials_known += 1  # our own, or nobody's
            return None
        return _Place(membership, record, controller)

    def _identity_of(self, address: bytes) -> Identity | None:
        peer = self._node.topology.peers.get(address)
        return None if peer is None else peer.identity
