"""What is found out once in a run, and whom a call that waits for it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.waiting import LIMIT
from tts_plugins import Budget, Ledger
from tts_plugins._calls.caller import acquire
from tts_plugins._calls.context import SCOPE, Scope, current_hold
from tts_plugins.budget import Amount
from tts_plugins.errors import BudgetExhausted, ServerFailed
from tts_plugins.verifiers._memo import Once

CALL = Amount(calls=1)
T = TypeVar("T")


class _Run:
    """A run, of which only its identity counts."""


class _Calls:
    """Calls of one run that look for the same, each with a reservation of one call."""

    def __init__(self, calls: int) -> None:
        self.ledger, self.fails, self.searches = Ledger(Budget(calls=calls)), asyncio.Event(), 0
        self._once, self._run = Once[int](), _Run()

    async def find(self) -> int:
        """Fail the first time; then take one call more than is reserved."""
        self.searches += 1
        if self.searches == 1:
            await self.fails.wait()
            raise ServerFailed("overloaded")
        (await acquire(self.ledger, Amount(calls=2), within=current_hold())).release()
        return 7

    async def get(self) -> tuple[int, bool]:
        return await self._once.get(self._run, "key", self.find)

    async def paid(self, work: Callable[[], Awaitable[T]]) -> T:
        hold = await acquire(self.ledger, CALL)
        SCOPE.set(Scope(self.ledger, hold, None, "verifier", None, 0, ()))
        try:
            return await work()
        finally:
            hold.release()

    async def again(self) -> tuple[int, bool]:
        try:
            return await self.get()
        except ServerFailed:
            return await self.get()


async def test_who_asks_again_after_a_failure_keeps_no_room_from_who_waited() -> None:
    """Regression: it waited for the one that was to look next, and that one for its room, for ever."""
    calls = _Calls(2)
    tasks = [asyncio.create_task(calls.paid(calls.again)) for _ in range(2)]
    await asyncio.sleep(0)
    calls.fails.set()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LIMIT)
    assert isinstance(ends[0], BudgetExhausted) and ends[1] == (7, False)
    assert calls.ledger.open_holds == 0


async def test_a_call_that_waited_for_itself_keeps_no_room_from_who_looks_next() -> None:
    """Regression: it waited on as if its own search still ran."""
    calls = _Calls(2)

    async def twice() -> tuple[int, bool]:
        first = asyncio.create_task(calls.get())
        await asyncio.sleep(0)
        other = asyncio.create_task(calls.paid(calls.get))
        await asyncio.sleep(0)
        second = asyncio.create_task(calls.get())
        await asyncio.sleep(0)
        calls.fails.set()
        ends = await asyncio.gather(first, other, return_exceptions=True)
        assert isinstance(ends[0], ServerFailed) and isinstance(ends[1], BudgetExhausted)
        return await second

    assert await asyncio.wait_for(calls.paid(twice), LIMIT) == (7, False)
    assert calls.ledger.open_holds == 0


async def test_a_search_that_is_cancelled_is_made_by_who_waited() -> None:
    calls = _Calls(3)
    tasks = [asyncio.create_task(calls.paid(calls.get)) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await asyncio.wait_for(tasks[1], LIMIT) == (7, False)
    assert await calls.get() == (7, True) and calls.searches == 2 and calls.ledger.open_holds == 0


async def test_one_of_several_waits_that_ends_leaves_the_others_waiting() -> None:
    """Regression: an ensemble's second verdict was waited for as if the candidate went on, by both, for ever."""
    calls, run, once, found = _Calls(2), _Run(), Once[int](), asyncio.Event()

    async def quick() -> int:
        await found.wait()
        return 1

    async def slow() -> int:
        await calls.fails.wait()
        (await acquire(calls.ledger, Amount(calls=2), within=current_hold())).release()
        return 2

    async def both() -> list[object]:
        return await asyncio.gather(once.get(run, "a", quick), once.get(run, "b", slow), return_exceptions=True)

    tasks = [asyncio.create_task(calls.paid(both)) for _ in range(2)]
    for event in (found, calls.fails):
        for _ in range(9):
            await asyncio.sleep(0)
        event.set()
    first, second = await asyncio.wait_for(asyncio.gather(*tasks), LIMIT)
    assert first[0] == (1, False) and isinstance(first[1], BudgetExhausted)
    assert second == [(1, True), (2, False)] and not calls.ledger.open_holds
