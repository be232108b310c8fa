"""IPv4 addresses that are chosen, probed, announced and defended (RFC 5227, RFC 3927).

`Config.probe_interval` scales the RFC's times: it is RFC 5227's PROBE_MAX, and with 2 s all of
them are as the RFC has them.  A cable within one machine needs no second to carry a frame.
"""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Protocol

from zttrio.header import arp
from zttrio.header.address import IPV4_UNSPECIFIED, ip_text, packed

from .events import CONN, ERR, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zttrio.config import Config

    from .arp import ArpSender
    from .counters import Counters
    from .events import EventQueue
    from .timers import TimerQueue

__all__ = ["ANNOUNCING", "BOUND", "CONFLICT", "PROBING", "RELEASED", "Claim", "Claims"]

PROBING = "PROBING"
ANNOUNCING = "ANNOUNCING"
BOUND = "BOUND"
CONFLICT = "CONFLICT"
RELEASED = "RELEASED"

MAX_CONFLICTS = 10  # RFC 5227 1.1
RATE_LIMIT_INTERVAL = 60.0  # RFC 5227 1.1; not scaled: this is what keeps a broken cable quiet
DEFEND_INTERVAL = 10.0  # RFC 5227 1.1

_FIRST = int.from_bytes(packed("169.254.1.0"))  # RFC 3927 2.1 keeps the first and last 256
_COUNT = 254 * 256
LINK_LOCAL_PREFIX_LENGTH = 16


class ClaimUser(Protocol):
    """Who claims work for."""

    def gain_address(self, address: bytes, prefix_length: int, now: float) -> None:
        """Make a claimed address ours."""

    def lose_address(self, address: bytes, now: float) -> None:
        """Make it no longer ours: another host has it and does not yield."""


class Claim(Endpoint):
    """One address on its way to being ours.  Reports CONN when it is, and ERR when it is lost.

    Attributes:
        address: packed; of an automatic claim it changes with every conflict.
        prefix_length: bits.
        is_automatic: a conflict makes it try another link-local address (RFC 3927) instead of
            giving up.
        state: PROBING, ANNOUNCING (ours already), BOUND, CONFLICT (given up) or RELEASED.
        conflicts: how often another host had the address, or wanted it too.
        deadline: when something is due, in seconds.
        queued: bookkeeping of the timers.
    """

    __slots__ = (
        "_claims",
        "_defended_at",
        "_sent",
        "address",
        "conflicts",
        "deadline",
        "is_automatic",
        "prefix_length",
        "queued",
        "state",
    )

    def __init__(
        self, claims: Claims, address: bytes, prefix_length: int, *, is_automatic: bool
    ) -> None:
        super().__init__()
        self.address = address
        self.prefix_length = prefix_length
        self.is_automatic = is_automatic
        self.state = PROBING
        self.conflicts = 0
        self.deadline = inf
        self.queued = inf
        self._sent = 0
        self._defended_at = -inf
        self._claims = claims

    @property
    def is_ours(self) -> bool:
        """True once the address may be used."""
        return self.state in (ANNOUNCING, BOUND)

    def release(self, now: float) -> None:
        """Stop claiming; the address is no longer ours."""
        self._claims.release(self, now)

    def handle_timer(self, now: float) -> None:
        """Send the probe or the announcement that is due."""
        self._claims.step(self, now)

    def __str__(self) -> str:
        return f"{ip_text(self.address)}/{self.prefix_length} {self.state}"


class Claims:
    """The claims of one stack, and the defence of addresses that were configured.

    Args:
        mac: our hardware address; it decides which link-local addresses are tried.
        sender: takes ARP packets.
        user: takes and gives up addresses.
        timers: where deadlines are kept.
        events: where claims report.
        counters: what is counted.
        config: probe interval and count.
        rng: spreads the probes in time.
    """

    def __init__(
        self,
        mac: bytes,
        sender: ArpSender,
        user: ClaimUser,
        timers: TimerQueue,
        events: EventQueue,
        counters: Counters,
        config: Config,
        rng: random.Random,
    ) -> None:
        self._mac = mac
        self._sender = sender
        self._user = user
        self._timers = timers
        self._events = events
        self._counters = counters
        self._rng = rng
        # RFC 3927 2.1: the same host tries the same addresses after each start
        self._choice = random.Random(int.from_bytes(mac))
        self._interval = config.probe_interval
        self._probes = config.probe_count
        self._claims: dict[bytes, Claim] = {}
        self._defended: dict[bytes, float] = {}  # configured addresses: when last defended

    def claim(self, address: bytes, prefix_length: int, now: float) -> Claim:
        """Probe for *address*, and make it ours if nobody answers.

        Raises:
            ValueError: it is being claimed already.
        """
        if address in self._claims:
            raise ValueError(f"address {ip_text(address)}: already being claimed")
        claim = Claim(self, address, prefix_length, is_automatic=False)
        self._begin(claim, now, 0.0)
        return claim

    def claim_link_local(self, now: float) -> Claim:
        """Find an address in 169.254.0.0/16 that nobody has, and keep finding one (RFC 3927)."""
        claim = Claim(self, b"", LINK_LOCAL_PREFIX_LENGTH, is_automatic=True)
        claim.address = self._choose()
        self._begin(claim, now, 0.0)
        return claim

    def release(self, claim: Claim, now: float) -> None:
        """Stop claiming; the address is no longer ours."""
        if self._claims.get(claim.address) is claim:
            self._end(claim, RELEASED, now)

    def announce(self, address: bytes, now: float) -> None:
        """Tell everybody that the configured *address* is ours, and defend it from now on.

        It is kept whatever others say (RFC 5227 2.4 c), at one defence in DEFEND_INTERVAL.
        """
        if address not in self._claims:
            self._defended[address] = now
            self._send(address, address)

    def forget(self, address: bytes) -> None:
        """Stop defending a configured address."""
        self._defended.pop(address, None)

    def receive(self, packet: arp.ArpPacket, now: float) -> bool:
        """Look at an ARP packet that came in; True if it contests an address of ours.

        Packets of our own must not come here.
        """
        claim = self._claims.get(packet.sender_ip)
        if claim is None and packet.sender_ip == IPV4_UNSPECIFIED:
            # RFC 5227 2.1.1: somebody else probes for what we are probing for
            other = self._claims.get(packet.target_ip)
            if other is not None and other.state == PROBING and packet.operation == arp.REQUEST:
                claim = other
        if claim is not None:
            self._conflict(claim, now)
            return True
        defended_at = self._defended.get(packet.sender_ip)
        if defended_at is None:
            return False
        self._counters.claim_conflicts += 1
        if now - defended_at >= DEFEND_INTERVAL:
            self._defended[packet.sender_ip] = now
            self._counters.claim_defences += 1
            self._send(packet.sender_ip, packet.sender_ip)
        return True

    def step(self, claim: Claim, now: float) -> None:
        """Send what is due for *claim*; called by its timer."""
        claim.deadline = inf
        if claim.state == PROBING and claim._sent < self._probes:
            claim._sent += 1
            self._send(IPV4_UNSPECIFIED, claim.address)
            spread = self._rng.uniform(self._interval / 2, self._interval)  # PROBE_MIN, PROBE_MAX
            # the last wait is ANNOUNCE_WAIT
            claim.deadline = now + (spread if claim._sent < self._probes else self._interval)
        elif claim.state == PROBING:
            claim.state = ANNOUNCING
            self._user.gain_address(claim.address, claim.prefix_length, now)
            self._send(claim.address, claim.address)
            claim.deadline = now + self._interval  # ANNOUNCE_INTERVAL
            self._events.raise_event(claim, CONN)
        else:
            self._send(claim.address, claim.address)  # the second of two, RFC 5227 1.1 ANNOUNCE_NUM
            claim.state = BOUND

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims.values())

    def _begin(self, claim: Claim, now: float, delay: float) -> None:
        self._claims[claim.address] = claim
        claim.state = PROBING
        claim._sent = 0
        claim._defended_at = -inf
        claim.deadline = now + delay + self._rng.uniform(0, self._interval / 2)  # PROBE_WAIT
        self._timers.schedule(claim)

    def _end(self, claim: Claim, state: str, now: float) -> None:
        del self._claims[claim.address]
        was_ours = claim.is_ours
        claim.state = state
        claim.deadline = inf
        if was_ours:
            self._user.lose_address(claim.address, now)

    def _conflict(self, claim: Claim, now: float) -> None:
        self._counters.claim_conflicts += 1
        if claim.is_ours and now - claim._defended_at >= DEFEND_INTERVAL:
            claim._defended_at = now  # RFC 5227 2.4 b: say so once, and yield at the second time
            self._counters.claim_defences += 1
            self._send(claim.address, claim.address)
            return
        claim.conflicts += 1
        self._end(claim, CONFLICT, now)
        self._events.raise_event(claim, ERR)
        if claim.is_automatic:
            claim.address = self._choose()
            limited = claim.conflicts >= MAX_CONFLICTS
            self._begin(claim, now, RATE_LIMIT_INTERVAL if limited else 0.0)

    def _choose(self) -> bytes:
        while True:
            number = _FIRST + self._choice.randrange(_COUNT)
            address = number.to_bytes(4)
            if address not in self._claims:  # pragma: no branch - once in 65,024
                return address

    def _send(self, sender_ip: bytes, target_ip: bytes) -> None:
        packet = arp.ArpPacket(arp.REQUEST, self._mac, sender_ip, bytes(6), target_ip)
        self._sender.send_arp(packet, None)
