"""When a host says which groups it listens to: what IGMPv3 and MLDv2 have in common.

RFC 3376 section 5 and RFC 3810 section 6, for hosts that want a group from every source.  Routers
that speak an older version are answered in theirs (RFC 3376 section 7.2, RFC 3810 section 8.2).  A
change is noted at once and told by the next timer, so that whoever makes it needs no clock.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs

from zttrio.header.membership import (
    CHANGE_TO_EXCLUDE,
    CHANGE_TO_INCLUDE,
    MODE_IS_EXCLUDE,
    MODE_IS_INCLUDE,
    GroupRecord,
)

if TYPE_CHECKING:
    import random

    from .groups import Groups
    from .timers import TimerQueue

__all__ = ["Membership", "MembershipSender"]

ROBUSTNESS = 2  # RFC 3376 8.1, RFC 3810 9.1
MAX_ROBUSTNESS = 7  # what three bits can say
UNSOLICITED_REPORT_INTERVAL = 1.0  # RFC 3376 8.11, RFC 3810 9.11
QUERY_INTERVAL = 125.0  # RFC 3376 8.2, RFC 3810 9.2
MAX_SOURCES = 64  # of a query for certain senders; asked for more, we answer for all.  Arbitrary.
CHANGE_LIMIT = 2048  # changes not told yet; arbitrary


class MembershipSender(Protocol):
    """Who turns this into packets: IGMP or MLD."""

    def may_report(self, group: bytes) -> bool:
        """False for groups that routers do not care about."""

    def send_report(self, records: list[GroupRecord]) -> None:
        """Send records in the current version, in as many packets as they need."""

    def send_old_report(self, group: bytes, version: int) -> None:
        """Say in an older version that we are a member."""

    def send_old_leave(self, group: bytes, version: int) -> None:
        """Say in an older version that we are no longer a member."""


@attrs.define
class _Change:
    """A change that has to be told.

    Attributes:
        kind: CHANGE_TO_EXCLUDE (joined) or CHANGE_TO_INCLUDE (left).
        left: how often it is still to be told.
        due: when next.
    """

    kind: int
    left: int
    due: float


@attrs.define
class _Answer:
    """A group that was asked about.

    Attributes:
        due: when to answer.
        sources: if only about these senders; empty for all.
    """

    due: float
    sources: frozenset[bytes]


class Membership:
    """The reports of one stack for one family; a timer owner and a `GroupListener`.

    Args:
        current: the version that is spoken by default, 3 for IGMP and 2 for MLD.
        octets: of an address.
        groups: what we are in.
        sender: makes packets.
        timers: where the one deadline is kept.
        rng: spreads answers.

    Attributes:
        version: what the routers of the link understand.
    """

    def __init__(
        self,
        current: int,
        octets: int,
        groups: Groups,
        sender: MembershipSender,
        timers: TimerQueue,
        rng: random.Random,
    ) -> None:
        self.deadline = inf
        self.queued = inf
        self.version = current
        self._current = current
        self._octets = octets
        self._groups = groups
        self._sender = sender
        self._timers = timers
        self._rng = rng
        self._robustness = ROBUSTNESS
        self._changes: dict[bytes, _Change] = {}
        self._answers: dict[bytes, _Answer] = {}
        self._answer_all_at = inf
        self._old_until: dict[int, float] = {}

    def joined(self, group: bytes) -> None:
        """We have become a member."""
        self._change(group, CHANGE_TO_EXCLUDE)

    def left(self, group: bytes) -> None:
        """We are no longer a member."""
        self._answers.pop(group, None)
        self._change(group, CHANGE_TO_INCLUDE)

    def repeat(self) -> None:
        """Tell everything again: nobody could know it was us (RFC 3590)."""
        for group in self._groups.of_family(self._octets):
            self._change(group, CHANGE_TO_EXCLUDE)

    def receive_query(
        self,
        group: bytes,
        sources: tuple[bytes, ...],
        max_delay: float,
        version: int,
        now: float,
        *,
        robustness: int = 0,
        query_interval: float = 0.0,
    ) -> None:
        """A router asks (RFC 3376 5.2, RFC 3810 6.2).

        Args:
            group: packed; unspecified if it asks about all.
            sources: if it asks about these senders only.
            max_delay: seconds within which to answer.
            version: the query's.
            now: seconds.
            robustness: the router's, 0 if it does not say.
            query_interval: the router's, in seconds, 0 if it does not say.
        """
        if version < self._current:
            interval = query_interval or QUERY_INTERVAL
            self._old_until[version] = now + self._robustness * interval + max_delay
            self._choose_version(now)
        else:
            self._robustness = min(robustness or ROBUSTNESS, MAX_ROBUSTNESS)
        if any(group):
            if group in self._groups and self._sender.may_report(group):
                self._answer(group, sources, max_delay, now)
        elif self.version < self._current:
            for member in self._groups.of_family(self._octets):
                if self._sender.may_report(member):
                    self._answer(member, (), max_delay, now)
        else:
            self._answer_all_at = min(self._answer_all_at, now + self._delay(max_delay))
        self._rearm()

    def receive_old_report(self, group: bytes) -> None:
        """Another member has answered in an old version: once is enough (RFC 2236 section 3)."""
        if self.version < self._current:
            self._answers.pop(group, None)

    def handle_timer(self, now: float) -> None:
        """Tell what is due."""
        self._choose_version(now)
        records: list[GroupRecord] = []
        for group, change in list(self._changes.items()):
            if change.due <= now:
                self._tell(group, change, records, now)
        if self._answer_all_at <= now:
            self._answer_all_at = inf
            self._answers.clear()
            records += [
                GroupRecord(MODE_IS_EXCLUDE, group)
                for group in self._groups.of_family(self._octets)
                if self._sender.may_report(group)
            ]
        for group, answer in list(self._answers.items()):
            if answer.due <= now:
                del self._answers[group]
                if self.version < self._current:
                    self._sender.send_old_report(group, self.version)
                elif answer.sources:
                    records.append(
                        GroupRecord(MODE_IS_INCLUDE, group, tuple(sorted(answer.sources)))
                    )
                else:
                    records.append(GroupRecord(MODE_IS_EXCLUDE, group))
        if records:
            self._sender.send_report(records)
        self._rearm()

    @property
    def sizes(self) -> int:
        """How many changes and answers wait."""
        return len(self._changes) + len(self._answers)

    def _change(self, group: bytes, kind: int) -> None:
        if not self._sender.may_report(group):
            return
        self._changes.pop(group, None)
        if len(self._changes) >= CHANGE_LIMIT:
            del self._changes[next(iter(self._changes))]
        self._changes[group] = _Change(kind, self._robustness, 0.0)
        self._rearm()

    def _tell(self, group: bytes, change: _Change, records: list[GroupRecord], now: float) -> None:
        change.left -= 1
        change.due = now + self._delay(UNSOLICITED_REPORT_INTERVAL)
        if self.version == self._current:
            records.append(GroupRecord(change.kind, group))
        elif change.kind == CHANGE_TO_EXCLUDE:
            self._sender.send_old_report(group, self.version)
        else:
            self._sender.send_old_leave(group, self.version)
            change.left = 0
        if not change.left:
            del self._changes[group]

    def _answer(
        self, group: bytes, sources: tuple[bytes, ...], max_delay: float, now: float
    ) -> None:
        due = now + self._delay(max_delay)
        if self._answer_all_at <= due:
            return
        known = self._answers.get(group)
        wanted = frozenset(sources)
        if known is not None:
            due = min(due, known.due)
            # an answer about all senders answers every question
            wanted = wanted | known.sources if wanted and known.sources else frozenset()
        if len(wanted) > MAX_SOURCES:
            wanted = frozenset()
        self._answers[group] = _Answer(due, wanted)

    def _delay(self, limit: float) -> float:
        return self._rng.uniform(0, limit)

    def _choose_version(self, now: float) -> None:
        """The oldest version that a router has spoken lately."""
        for version, until in list(self._old_until.items()):
            if until <= now:
                del self._old_until[version]
        version = min(self._old_until, default=self._current)
        if version != self.version:
            self.version = version
            self._answers.clear()  # RFC 3376 7.2.1: pending answers are of the wrong version
            self._answer_all_at = inf

    def _rearm(self) -> None:
        self.deadline = min(
            self._answer_all_at,
            min((change.due for change in self._changes.values()), default=inf),
            min((answer.due for answer in self._answers.values()), default=inf),
        )
        self._timers.schedule(self)
