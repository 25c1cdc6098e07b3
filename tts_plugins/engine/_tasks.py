"""The tasks of one solve: what they pay from, how they end, and where what they bring arrives."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from tts_plugins._calls.caller import words
from tts_plugins._calls.cancellation import End, Halt
from tts_plugins.ledger import Hold
from tts_plugins.types import Candidate, Scored

# Seconds that what was cancelled gets to clean up; less at the deadline, which code that swallows its
# cancellation must not move.
_PATIENCE, _AT_DEADLINE = 0.5, 0.1
# Cancelled at once: ending one takes some 0.1 ms, during which the loop does nothing else.
_AT_ONCE = 64

Group = set["asyncio.Task[Any]"]


class Owner(Protocol):
    """Who has started tasks."""

    def task_failed(self, task: asyncio.Task[Any]) -> None:
        """Hear of one that failed or was cancelled."""
        ...


class Tasks:
    """Tasks in groups, each of which ends with its group, and with the solve.

    A task never leaves its hold open: not where it is cancelled before its first step, so that none of its own
    clean-up runs, and not where it swallows its cancellation and is left behind.
    """

    def __init__(self, end: End, deadline: float | None) -> None:
        self._end, self._deadline = end, deadline
        # Of each task: its group, the hold that it pays from, and who hears that it failed.
        self._running: dict[asyncio.Task[Any], tuple[Group, Hold | None, Owner | None]] = {}
        self._left_behind: Group = set()
        self._callback: Callable[[asyncio.Task[Any]], None] | None = None  # one for all tasks, as long as it is open

    def spawn(
        self, coroutine: Coroutine[Any, Any, Any], group: Group, hold: Hold | None = None, owner: Owner | None = None
    ) -> asyncio.Task[Any]:
        """Start a task of a group; `owner` hears where it fails or is cancelled."""
        context = contextvars.copy_context()  # one for both; they would take one each
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._running[task] = group, hold, owner
        group.add(task)
        if self._callback is None:
            self._callback = self._done
        task.add_done_callback(self._callback, context=context)
        if self._end.closed:
            self._callback = None  # it refers to this
            task.cancel()
        return task

    def carry(self, hold: Hold | None) -> None:
        """The running task goes on with another hold than the one that it was spawned with, or with none."""
        task = asyncio.current_task()
        if task is not None and (entry := self._running.get(task)) is not None:
            self._running[task] = entry[0], hold, entry[2]

    def holds(self) -> list[Hold]:
        """What the tasks pay from."""
        return [hold for _, hold, _ in list(self._running.values()) if hold is not None and hold.open]

    def _done(self, task: asyncio.Task[Any]) -> None:
        group, hold, owner = self._running.pop(task)
        group.discard(task)
        if self._left_behind:
            self._left_behind.discard(task)
        if hold is not None:
            hold.release()
        failed = task.cancelled() or task.exception() is not None  # asked, so that asyncio does not complain
        if failed and owner is not None:
            owner.task_failed(task)

    async def cancel(self, group: Group) -> None:
        """Cancel a group and wait until it has ended; what swallows its cancellation is left behind."""
        current = asyncio.current_task()
        if all(task is current or task.done() for task in group):
            return
        now = time.monotonic()
        end = now + _PATIENCE if self._deadline is None else min(now + _PATIENCE, self._deadline + _AT_DEADLINE)
        end = max(end, now + 0.03)
        for share in (0.8, 1.0):
            waiting = [t for t in group if t is not current and not t.done() and t not in self._left_behind]
            if not waiting:
                return
            # A second time only where the first was swallowed, or cleaning up takes long: it would break that off.
            await _cancel_all([task for task in waiting if share == 1.0 or not task.cancelling()])
            await asyncio.wait(waiting, timeout=max(now + (end - now) * share - time.monotonic(), 0.0))
        self._left_behind |= {t for t in group if t is not current and not t.done()}

    async def close(self) -> None:
        """Cancel all that is left, and wait until it has ended."""
        self._callback = None
        if self._running:
            await self.cancel(set(self._running))

    def give_up(self) -> None:
        """Cancel all that is left without waiting for it, and let go of what it holds."""
        self._callback = None
        for task, (group, hold, owner) in list(self._running.items()):
            try:
                task.cancel()
            except RuntimeError:  # its loop is closed, so that nothing of it runs again but what is closed here
                with contextlib.suppress(Exception):
                    task.get_coro().close()
            if hold is not None:
                hold.release()
            self._running[task] = group, None, owner

    def release_left_behind(self) -> None:
        """Let go of what those hold that swallowed their cancellation."""
        for task in self._left_behind:
            if (entry := self._running.get(task)) is not None and entry[1] is not None:
                entry[1].release()


async def _cancel_all(tasks: list[asyncio.Task[Any]]) -> None:
    for i, task in enumerate(tasks):
        if i and i % _AT_ONCE == 0:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                for other in tasks[i:]:  # all of them are, whatever becomes of this one
                    other.cancel()
                raise
        task.cancel()


_TOLD = 2_000  # characters of a failure's text that a revision is shown


class Failure(NamedTuple):
    """A candidate that failed: why, and what there is of it."""

    error: BaseException
    candidate: Candidate

    def attempt(self) -> Scored:
        """The candidate as an attempt that a revision can build on: the failure is its feedback."""
        written = self.candidate.text or str(getattr(self.error, "written", ""))
        return Scored.of(self.candidate.replace(text=written), feedback=words(self.error)[:_TOLD])


Arrival = Scored | Failure | BaseException | Halt


class Inbox:
    """A queue with one reader, on one loop; `asyncio.Queue` does more, and takes several times as long."""

    __slots__ = ("_arrived", "_waiter")

    def __init__(self) -> None:
        self._arrived: deque[Arrival] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, arrival: Arrival) -> None:
        """Add what has arrived, and wake the reader."""
        self._arrived.append(arrival)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Arrival:
        """The next arrival, in order."""
        while not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._arrived.popleft()
