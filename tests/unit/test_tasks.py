"""The tasks of one solve: however one ends, its hold is released, its owner hears of it, and nothing refers to it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tts_plugins import Budget, Ledger
from tts_plugins._calls.context import End
from tts_plugins.budget import Amount
from tts_plugins.engine._tasks import Group, Tasks


class Owner:
    def __init__(self) -> None:
        self.heard: list[BaseException] = []

    def task_failed(self, error: BaseException) -> None:
        self.heard.append(error)


async def test_one_that_is_cancelled_before_its_first_step_lets_go_of_its_hold() -> None:
    ledger, owner, group, begun = Ledger(Budget(calls=3)), Owner(), Group(), list[int]()

    async def work() -> None:
        begun.append(1)

    task = Tasks(End(), None).spawn(work(), group, ledger.reserve(Amount(1)), owner)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not begun and not group and ledger.open_holds == 0
    assert [type(error) for error in owner.heard] == [asyncio.CancelledError]


async def test_one_that_fails_is_told_to_its_owner_and_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    owner, group = Owner(), Group()

    async def work() -> None:
        raise ZeroDivisionError

    task = Tasks(End(), None).spawn(work(), group, None, owner)
    await asyncio.wait([task])
    del task
    gc.collect()
    assert [type(error) for error in owner.heard] == [ZeroDivisionError] and not group and not caplog.records


async def test_what_swallowed_its_cancellation_is_left_behind_and_leaves_no_circle() -> None:
    """Regression: one that was left behind, and ended at last, was kept by its solve until the collector came."""
    ledger, tasks, group, may_end = Ledger(Budget(calls=3)), Tasks(End(), None), Group(), asyncio.Event()

    async def stubborn() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    running: Any = tasks.spawn(stubborn(), group, ledger.reserve(Amount(1)))
    await asyncio.sleep(0)
    await tasks.cancel(group)
    tasks.release_left_behind()
    assert not running.done() and ledger.open_holds == 0
    ours = id(tasks)
    gc.collect()
    gc.disable()
    try:
        may_end.set()
        await asyncio.wait([running])
        del running, tasks, group
        await asyncio.sleep(0)
        assert not [each for each in gc.get_objects() if isinstance(each, Tasks) and id(each) == ours]
    finally:
        gc.enable()
