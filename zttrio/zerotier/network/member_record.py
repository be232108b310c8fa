"""What a node keeps about one other node on one network: its credentials, and when to do what.

Credentials are stored when they arrive and count when they are used: whether they do depends on
our own configuration, which changes every minute (4.7).
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeAlias

import attrs

from .capability import Capability
from .certificate import MEMBERSHIP
from .credential import CAPABILITY, OWNERSHIP, TAG, Ownership, Tag

if TYPE_CHECKING:
    from ..identity import Identity
    from .capability import Lookup
    from .certificate import MembershipCertificate
    from .credential import Revocation

__all__ = ["MemberRecord"]

Credential: TypeAlias = Capability | Tag | Ownership

_NEVER = -(1 << 63)  # before every timestamp
_LIMITS = {CAPABILITY: 128, TAG: 128, OWNERSHIP: 4}  # of one member (1.2)
_THRESHOLDS = 1024  # arbitrary; losing one is harmless, see `revoke`

NEW = "credentials_new"
KNOWN = "credentials_known"
OLD = "credentials_old"
REVOKED = "credentials_revoked"
FORGED = "credentials_forged"
FULL = "credentials_full"


@attrs.define(eq=False)
class MemberRecord:
    """One remote node on one network; `PeerCredentials` for the rules.

    An *era* is the time between two configurations of ours; what was found out in one is not
    believed in the next.

    Attributes:
        address: 5 octets.
        mac: on this network.
        certificate: its COM, signed by the controller, or None.
        certificate_threshold: a COM of this time or before counts no longer.
        fresh_in: the era that `tag`, `capabilities`, `owns_ip` and `owns_mac` answer for.
        admitted_in: the era in which it has passed the gate; -1 if it has to show itself again.
        pushed_in: the era of the credentials of ours that were sent to it last.
        pushed_at: when.
        announced_at: when our groups were sent to it last.
        last_used: when a frame to or from it was last looked at closely.
    """

    address: bytes
    mac: bytes
    certificate: MembershipCertificate | None = None
    certificate_threshold: int = _NEVER
    fresh_in: int = -1
    admitted_in: int = -1
    pushed_in: int = -1
    pushed_at: float = -inf
    announced_at: float = -inf
    last_used: float = -inf
    _stored: dict[int, dict[int, Credential]] = attrs.field(
        factory=lambda: {kind: {} for kind in _LIMITS}, init=False
    )
    _thresholds: dict[tuple[int, int], int] = attrs.field(factory=dict, init=False)
    _tag_values: dict[int, int] = attrs.field(factory=dict, init=False)
    _capabilities: tuple[Capability, ...] = attrs.field(default=(), init=False)
    _ownerships: tuple[Ownership, ...] = attrs.field(default=(), init=False)

    # arrivals: each returns the counter of what became of it

    def offer_certificate(self, certificate: MembershipCertificate, controller: Identity) -> str:
        """Take a certificate of membership that names this member (4.1)."""
        held = self.certificate
        if held == certificate:
            return KNOWN
        timestamp = certificate.timestamp
        if timestamp <= self.certificate_threshold:
            return REVOKED
        if held is not None and timestamp < held.timestamp:
            return OLD
        if not certificate.is_signed_by(controller):
            return FORGED
        self.certificate = certificate
        self.admitted_in = -1
        return NEW

    def offer(self, credential: Credential, controller: Identity, identity_of: Lookup) -> str:
        """Take a capability, tag or certificate of ownership issued to this member (4.7).

        Args:
            credential: what has arrived.
            controller: who must have signed it.
            identity_of: for capabilities that have passed through several hands.
        """
        stored = self._stored[credential.kind]
        held = stored.get(credential.id)
        if held is not None:
            if held == credential:
                return KNOWN
            if credential.timestamp < held.timestamp:
                return OLD
        if self._is_revoked(credential):
            return REVOKED
        if not _is_genuine(credential, controller, identity_of):
            return FORGED
        if held is None and len(stored) >= _LIMITS[credential.kind]:
            oldest = min(stored.values(), key=lambda one: one.timestamp)
            if oldest.timestamp >= credential.timestamp:
                return FULL
            del stored[oldest.id]
        stored[credential.id] = credential
        self.fresh_in = -1
        return NEW

    def revoke(self, revocation: Revocation, controller: Identity) -> str:
        """Take back what was issued to this member up to a certain time (13)."""
        kind, threshold = revocation.credential_type, revocation.threshold
        key = kind, revocation.credential_id
        if kind == MEMBERSHIP:
            stored = self.certificate_threshold
        elif kind in _LIMITS:
            stored = self._thresholds.get(key, _NEVER)
        else:
            return OLD
        if threshold <= stored:
            return KNOWN
        if not revocation.is_signed_by(controller):
            return FORGED
        if kind != MEMBERSHIP and (key in self._thresholds or len(self._thresholds) < _THRESHOLDS):
            self._thresholds[key] = threshold
        # Also for other types, as the reference does: the member stays out until it shows a
        # certificate that was issued after all this.
        self.certificate_threshold = max(self.certificate_threshold, threshold)
        self.admitted_in = -1
        self.fresh_in = -1
        return NEW

    # use

    def agrees(self, own: MembershipCertificate | None, identity: Identity) -> bool:
        """True if the member's certificate lets it talk to us, the holder of *own* (8.1)."""
        certificate = self.certificate
        return (
            own is not None
            and certificate is not None
            and certificate.timestamp > self.certificate_threshold
            and own.agrees_with(certificate, identity)
        )

    def refresh(self, timestamp: int, window: int, era: int) -> None:
        """Find out what counts in the era of a configuration.

        Args:
            timestamp: of the configuration, in milliseconds.
            window: how far from it a credential may be, in milliseconds.
            era: the era.
        """
        for stored in self._stored.values():
            for key in [k for k, one in stored.items() if timestamp - one.timestamp > window]:
                del stored[key]  # it will never count again
        valid = [
            one
            for stored in self._stored.values()
            for _, one in sorted(stored.items())
            if abs(one.timestamp - timestamp) <= window and not self._is_revoked(one)
        ]
        self._tag_values = {one.id: one.value for one in valid if isinstance(one, Tag)}
        self._capabilities = tuple(one for one in valid if isinstance(one, Capability))
        self._ownerships = tuple(one for one in valid if isinstance(one, Ownership))
        self.fresh_in = era

    def protects(self, timestamp: int, window: int) -> bool:
        """True if forgetting this record could let a revoked credential in again."""
        thresholds = (self.certificate_threshold, *self._thresholds.values())
        return any(threshold >= timestamp - window for threshold in thresholds)

    def tag(self, tag_id: int, /) -> int | None:
        """The value of a tag that counts, or None."""
        return self._tag_values.get(tag_id)

    def capabilities(self) -> tuple[Capability, ...]:
        """Capabilities that count, in ascending order."""
        return self._capabilities

    def owns_ip(self, ip: bytes, /) -> bool:
        """True if a certificate of ownership that counts lists this address."""
        return any(one.owns_ip(ip) for one in self._ownerships)

    def owns_mac(self, mac: bytes, /) -> bool:
        """True if a certificate of ownership that counts lists this MAC."""
        return any(one.owns_mac(mac) for one in self._ownerships)

    def _is_revoked(self, credential: Credential) -> bool:
        threshold = self._thresholds.get((credential.kind, credential.id))
        return threshold is not None and credential.timestamp <= threshold


def _is_genuine(credential: Credential, controller: Identity, identity_of: Lookup) -> bool:
    if isinstance(credential, Capability):
        return credential.is_signed_by(controller, identity_of)
    return credential.is_signed_by(controller)
