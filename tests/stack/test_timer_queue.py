"""The heap of deadlines and the queue of events: nothing early, nothing late, nothing twice."""

from __future__ import annotations

import random
from math import inf

from zttrio.stack.events import ERR, RD, WR, Endpoint, EventQueue
from zttrio.stack.timers import TimerQueue


class Owner:
    def __init__(self, deadline: float, log: list[tuple[float, float]]) -> None:
        self.deadline = deadline
        self.queued = inf
        self.log = log
        self.again: float = inf

    def handle_timer(self, now: float) -> None:
        self.log.append((self.deadline, now))
        self.deadline, self.again = self.again, inf


def test_owners_are_called_in_order_of_their_deadlines() -> None:
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    for deadline in (3.0, 1.0, 2.0):
        timers.schedule(Owner(deadline, log))
    assert timers.next_timer() == 1.0
    timers.handle_timers(2.5)
    assert log == [(1.0, 2.5), (2.0, 2.5)]
    assert timers.next_timer() == 3.0


def test_moving_a_deadline_later_needs_no_call() -> None:
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    owner = Owner(1.0, log)
    timers.schedule(owner)
    owner.deadline = 5.0
    timers.handle_timers(1.0)
    assert log == []
    assert timers.next_timer() == 5.0


def test_moving_a_deadline_earlier_is_noticed_and_the_old_entry_is_ignored() -> None:
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    owner = Owner(5.0, log)
    timers.schedule(owner)
    owner.deadline = 2.0
    timers.schedule(owner)
    timers.handle_timers(2.0)
    assert log == [(2.0, 2.0)]
    assert timers.next_timer() is None
    timers.handle_timers(9.0)
    assert len(log) == 1


def test_an_owner_that_sets_a_new_deadline_is_called_again() -> None:
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    owner = Owner(1.0, log)
    owner.again = 2.0
    timers.schedule(owner)
    timers.handle_timers(1.0)
    assert timers.next_timer() == 2.0
    timers.handle_timers(10.0)
    assert log == [(1.0, 1.0), (2.0, 10.0)]


def test_a_cancelled_deadline_never_fires() -> None:
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    owner = Owner(1.0, log)
    timers.schedule(owner)
    owner.deadline = inf
    assert timers.next_timer() is None
    assert len(timers) == 0
    owner.deadline = 3.0
    timers.schedule(owner)
    assert timers.next_timer() == 3.0


def test_random_moves_fire_each_owner_exactly_at_its_deadline() -> None:
    rng = random.Random(5)
    timers = TimerQueue()
    log: list[tuple[float, float]] = []
    owners = [Owner(inf, log) for _ in range(20)]
    now = 0.0
    for _ in range(2000):
        owner = rng.choice(owners)
        owner.deadline = now + rng.random() if rng.random() < 0.9 else inf
        timers.schedule(owner)
        if rng.random() < 0.5:
            due = min(owner.deadline for owner in owners)
            found = timers.next_timer()
            assert found == (None if due == inf else due)
            if found is not None:
                now = found
                timers.handle_timers(now)
                assert log[-1] == (now, now)


def test_an_endpoint_is_listed_once_with_all_that_was_wanted() -> None:
    queue = EventQueue()
    endpoint = Endpoint()
    queue.raise_event(endpoint, RD)
    assert queue.take() == []
    endpoint.wanted = RD | WR
    queue.raise_event(endpoint, RD | ERR)
    queue.raise_event(endpoint, RD)  # reported already: nobody wants it any more
    queue.raise_event(endpoint, WR)
    assert queue.take() == [endpoint]
    assert endpoint.ready == RD | WR
    assert queue.take() == []
