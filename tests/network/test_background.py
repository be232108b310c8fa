"""Tasks behind an ``async with`` outlive the block's cleanup and do not change its exceptions."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from zttrio._background import open_background


async def test_the_body_s_own_error_leaves_as_the_same_object() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error
    assert caught.value is error


async def test_the_body_s_own_group_leaves_as_the_same_object() -> None:
    group = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_background():
            raise group
    assert caught.value is group


async def test_a_task_s_error_cancels_the_body_and_leaves_unwrapped() -> None:
    async def fail() -> None:
        raise KeyError("task")

    cleaned = False
    with pytest.raises(KeyError, match="task"):
        async with open_background() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                cleaned = True
    assert cleaned


async def test_two_errors_leave_as_one_flat_group() -> None:
    async def fail() -> None:
        raise KeyError("task")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_background() as nursery:
            nursery.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("body")
    assert {type(child) for child in caught.value.exceptions} == {KeyError, ValueError}


async def test_cancelling_outside_lets_the_body_clean_up_with_the_tasks_alive() -> None:
    said: list[str] = []
    to_task, incoming = trio.open_memory_channel[trio.Event](1)

    async def answer() -> None:
        async for event in incoming:
            said.append("answered")
            event.set()

    with trio.CancelScope() as scope:
        async with open_background() as nursery:
            nursery.start_soon(answer)
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    event = trio.Event()
                    to_task.send_nowait(event)
                    await event.wait()
                    said.append("heard")
    assert scope.cancelled_caught
    assert said == ["answered", "heard"]


async def test_tasks_stop_when_the_body_is_done() -> None:
    stopped = False

    async def run() -> None:
        nonlocal stopped
        try:
            await trio.sleep_forever()
        finally:
            stopped = True

    async with open_background() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
    assert stopped


async def test_keyboard_interrupt_leaves_as_itself() -> None:
    with pytest.raises(KeyboardInterrupt):
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyboardInterrupt


async def test_a_cancellation_while_it_opens_does_not_leave_the_shield_behind() -> None:
    with trio.fail_after(5), trio.CancelScope() as scope:
        scope.cancel()
        async with open_background():
            pytest.fail("the body must not run")
    assert scope.cancelled_caught
