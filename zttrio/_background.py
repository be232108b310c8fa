"""A nursery that outlives its body: background tasks behind an ``async with``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["open_background"]


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose tasks keep running until the body, and its cleanup, are done.

    An ordinary nursery cancels its children and its body together, so a body
    that wants to say goodbye finds the network already gone.  Here the children
    are shielded until the body has been left.  One failure leaves as itself;
    only two or more leave as a group.
    """
    errors: list[BaseException] = []
    try:
        async with trio.open_nursery() as outer:
            shield = trio.CancelScope(shield=True)
            opened: list[trio.Nursery] = []
            is_open = trio.Event()

            async def supervise() -> None:
                with shield:
                    async with trio.open_nursery() as background:
                        opened.append(background)
                        is_open.set()
                        await trio.sleep_forever()

            # Not `outer.start`: a cancellation that came meanwhile would wait there for a task
            # that the shield keeps from ending.
            outer.start_soon(supervise)
            with trio.CancelScope(shield=True):  # takes one pass of the scheduler
                await is_open.wait()
            try:
                await trio.lowlevel.checkpoint()
                yield opened[0]
            except BaseException as exc:  # noqa: ASYNC103 - raised again below
                # A Cancelled has to travel through the nursery to reach its own
                # scope; anything else keeps its identity by going around.
                if _holds_cancelled(exc):
                    raise
                errors.append(exc)
            finally:
                shield.cancel()
    except BaseExceptionGroup as group:
        errors += _unwrap(group)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several tasks failed", errors)


def _holds_cancelled(exc: BaseException) -> bool:
    if isinstance(exc, trio.Cancelled):
        return True
    return isinstance(exc, BaseExceptionGroup) and any(map(_holds_cancelled, _children(exc)))


def _unwrap(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Take off the two levels that open_background's own nurseries put on."""
    flat: list[BaseException] = []
    for child in group.exceptions:
        flat += _children(child) if isinstance(child, BaseExceptionGroup) else [child]
    return flat


def _children(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    return group.exceptions
