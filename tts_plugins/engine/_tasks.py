"""The tasks of one solve: what they pay from, how they end, and where what they bring arrives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, NamedTuple, Protocol

from tts_plugins._calls.caller import words
from tts_plugins._calls.context import End, Halt
from tts_plugins.ledger import Hold
from tts_plugins.types import Candidate, Scored

# Seconds that what was cancelled gets to clean up; less at the deadline, which code that swallows its
# cancellation must not move.
_PATIENCE, _AT_DEADLINE = 0.5, 0.1
# Cancelled at once: ending one takes some 0.1 ms, during which the loop does nothing else.
_AT_ONCE = 64


class Owner(Protocol):
    """Who has started tasks."""

    def task_failed(self, error: BaseException) -> None:
        """Hear of one that failed or was cancelled."""
        ...


class Work(Coroutine[Any, Any, Any]):
    """What a task runs: a coroutine, and what has to happen when it ends, however it does.

    It happens in the task's last step. A callback of the task would do the same a turn of the loop later, and all that
    the task refers to would live until then: thousands of tasks that end in the same turn would be thousands more
    objects for the collector of cycles. A `finally` in the coroutine is not enough: nothing of it runs where the task
    is cancelled before its first step.
    """

    __slots__ = ("_coroutine", "_group", "_owner", "_tasks", "hold")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        tasks: Tasks,
        group: Group | None,
        hold: Hold | None,
        owner: Owner | None,
    ) -> None:
        self._coroutine, self._tasks, self._group, self.hold, self._owner = coroutine, tasks, group, hold, owner

    def send(self, value: Any) -> Any:
        """Go on to the next wait."""
        try:
            return self._coroutine.send(value)
        except StopIteration:
            self._end()
            raise
        except BaseException as error:
            self._fail(error)
            raise

    def throw(self, error: Any, *more: Any) -> Any:
        """Go on with an error, which is thrown where it waits."""
        try:
            return self._coroutine.throw(error, *more)
        except StopIteration:
            self._end()
            raise
        except BaseException as raised:
            self._fail(raised)
            raise
        finally:
            del error, more  # its traceback has this frame: it would refer to itself

    def close(self) -> None:
        """End it where it waits."""
        try:
            self._coroutine.close()
        finally:
            self._end()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def _fail(self, error: BaseException) -> None:
        owner = self._owner
        self._end()
        if not isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) is not None:
            task.add_done_callback(_look_at)
        if owner is not None:
            owner.task_failed(error)

    def _end(self) -> None:
        self._tasks.ended(self)
        if self._group is not None:
            self._group.pop(self, None)
        self._owner = None
        if (hold := self.hold) is not None:
            self.hold = None
            hold.release()


def _look_at(failed: asyncio.Task[Any]) -> None:
    """Have asyncio not complain that nobody asked for the error: the owner was told."""
    failed.exception()


Group = dict[Work, "asyncio.Task[Any]"]


class Tasks:
    """Tasks in groups, each of which ends with its group, and with the solve.

    A task never leaves its hold open: not where it is cancelled before its first step, so that none of its own
    clean-up runs, and not where it swallows its cancellation and is left behind.
    """

    __slots__ = ("_deadline", "_end", "_left_behind", "_running")

    def __init__(self, end: End, deadline: float | None) -> None:
        self._end, self._deadline = end, deadline
        self._running: Group = {}
        self._left_behind: set[Work] | None = None

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        group: Group | None = None,
        hold: Hold | None = None,
        owner: Owner | None = None,
    ) -> asyncio.Task[Any]:
        """Start a task that pays from a hold; `owner` hears where it fails or is cancelled."""
        work = Work(coroutine, self, group, hold, owner)
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        if not task.done():  # which it is already where the loop starts its tasks eagerly
            self._running[work] = task
            if group is not None:
                group[work] = task
        if self._end.closed:
            task.cancel()
        return task

    def carry(self, hold: Hold | None) -> None:
        """The running task goes on with another hold than the one that it was spawned with, or with none."""
        task = asyncio.current_task()
        if task is not None and isinstance(work := task.get_coro(), Work):
            work.hold = hold

    def holds(self) -> list[Hold]:
        """What the tasks pay from."""
        return [hold for work in list(self._running) if (hold := work.hold) is not None and hold.open]

    def ended(self, work: Work) -> None:
        """Forget what has ended."""
        self._running.pop(work, None)
        if self._left_behind is not None:
            self._left_behind.discard(work)

    async def cancel(self, group: Group) -> None:
        """Cancel a group and wait until it has ended; what swallows its cancellation is left behind."""
        if not group:
            return
        current = asyncio.current_task()
        now = time.monotonic()
        end = now + _PATIENCE if self._deadline is None else min(now + _PATIENCE, self._deadline + _AT_DEADLINE)
        end = max(end, now + 0.03)
        for share in (0.8, 1.0):
            behind = self._left_behind or ()
            waiting = [task for work, task in group.items() if task is not current and work not in behind]
            if not waiting:
                return
            # A second time only where the first was swallowed, or cleaning up takes long: it would break that off.
            await _cancel_all([task for task in waiting if share == 1.0 or not task.cancelling()])
            await asyncio.wait(waiting, timeout=max(now + (end - now) * share - time.monotonic(), 0.0))
        left = {work for work, task in group.items() if task is not current}
        self._left_behind = left if self._left_behind is None else self._left_behind | left

    async def close(self) -> None:
        """Cancel all that is left, and wait until it has ended."""
        await self.cancel(self._running)

    def give_up(self) -> None:
        """Cancel all that is left without waiting for it, and let go of what it holds."""
        for work, task in list(self._running.items()):
            try:
                task.cancel()
            except RuntimeError:  # its loop is closed, so that nothing of it runs again but what is closed here
                with contextlib.suppress(Exception):
                    work.close()
            self._let_go(work)

    def release_left_behind(self) -> None:
        """Let go of what those hold that swallowed their cancellation."""
        for work in self._left_behind or ():
            self._let_go(work)

    @staticmethod
    def _let_go(work: Work) -> None:
        if (hold := work.hold) is not None:
            work.hold = None
            hold.release()


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


class Inbox(deque[Arrival]):
    """A queue with one reader, on one loop; `asyncio.Queue` does more, and takes several times as long.

    The reader takes from the left, and awaits `filled()` where it is empty.
    """

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        super().__init__()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, arrival: Arrival) -> None:
        """Add what has arrived, and wake the reader."""
        self.append(arrival)
        if (waiter := self._waiter) is not None:
            self._waiter = None
            if not waiter.done():  # it is where the reader was cancelled
                waiter.set_result(None)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def filled(self) -> asyncio.Future[None]:
        """Return what is done once something has arrived."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter
