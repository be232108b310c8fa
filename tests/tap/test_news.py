"""Who attends to the news of connections, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import trio.testing

from zttrio.tap import broker

from .conftest import connected

if TYPE_CHECKING:
    from zttrio.tap.broker import Broker
    from zttrio.tap.connection import Connection

    from .conftest import Client, Tap


async def test_what_a_program_writes_reaches_the_other_before_any_task_has_a_turn(
    tap: Tap, client: Client
) -> None:
    _, caller, accepted = await connected(client)
    await trio.testing.wait_all_tasks_blocked()
    made = tap.service.broker
    caller.end.send(b"question")
    made.poller.dispatch()
    made.attend_news()
    assert accepted.end.recv(64) == b"question"
    accepted.end.send(b"answer")
    made.poller.dispatch()
    made.attend_news()
    assert caller.end.recv(64) == b"answer"
    assert not made.news


@attrs.define(eq=False)
class Restless:
    """A connection for which all that it does is news again."""

    broker: Broker
    attended: int = 0
    woken: int = 0

    def attend(self) -> None:
        self.attended += 1
        assert self.broker.is_attending
        self.broker.news[cast("Connection", self)] = None

    def wake(self) -> None:
        self.woken += 1


async def test_news_without_end_leave_the_others_their_turn(tap: Tap) -> None:
    made = tap.service.broker
    restless = Restless(made)
    made.news[cast("Connection", restless)] = None
    made.attend_news()
    assert (restless.attended, restless.woken) == (broker.ROUNDS, 1)
    made.news.clear()
