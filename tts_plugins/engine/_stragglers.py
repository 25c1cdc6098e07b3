"""Children of a level that take far longer than the others: cancelled, so that the level goes on without them."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager


class TooLate(TimeoutError):
    """A child reached its level's limit, in seconds."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"not done in {self.limit:.2g} s"


class Stragglers:
    """The clock of one level's children.

    A child's time runs from its request's first sending, and not while it waits for a place or for the budget, to its
    score. Once half of the children have one, the others have `factor` times the median. Children that failed, and
    those that the budget has no room for, are none of the level's while that is so.

    Args:
        factor: times the median, at least 1.
        children: of the level, all of them.
    """

    def __init__(self, factor: float, children: int) -> None:
        self.factor = factor
        self.limit: float | None = None  # seconds
        self._children = children
        self._sent: dict[int, float] = {}
        self._took: list[float] = []  # sorted
        self._open: dict[int, asyncio.Timeout] = {}
        self._late: dict[int, float] = {}  # and the limits that they have reached
        # One timer for all, aimed at whoever was sent first: to aim one for each child, at each score, is quadratic.
        self._line: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def waiting(self, indices: Sequence[int]) -> None:
        """A request for these children is about to be made; what they took before does not count."""
        for index in indices:
            self._sent.pop(index, None)
            self._late.pop(index, None)

    def sent(self, indices: Sequence[int]) -> None:
        """It has a place, and goes out; its retries are part of the same time."""
        now = asyncio.get_running_loop().time()
        for index in indices:
            if index not in self._sent:
                self._sent[index] = now
                self._line.append((now, index))
        if self._timer is None:
            self._aim()

    def scored(self, index: int) -> None:
        """The child is there."""
        insort(self._took, asyncio.get_running_loop().time() - self._sent.pop(index))
        self._measure()

    def failed(self, indices: Sequence[int]) -> None:
        """These have no score, and will have none."""
        for index in indices:
            self._sent.pop(index, None)
        self.without(len(indices))

    def without(self, children: int) -> None:
        """So many more are not to be counted on; below 0, so many are again."""
        self._children -= children
        self._measure()

    def stop(self) -> None:
        """The level is over."""
        self._line.clear()
        self._aim()

    @asynccontextmanager
    async def within(self, indices: Sequence[int]) -> AsyncIterator[None]:
        """What is done for these children, which are sent together, ends at their limit.

        Raises:
            TooLate: it was reached.
        """
        first, timeout = indices[0], asyncio.timeout(None)
        try:
            async with timeout:
                self._open[first] = timeout
                if first in self._late:  # between its text and its score
                    self._end(timeout)
                try:
                    yield
                finally:
                    del self._open[first]
        except TimeoutError as error:
            if timeout.expired() and type(error) is TimeoutError:  # not the run's, whose time may be up too
                raise TooLate(self._late[first]) from error
            raise

    def _measure(self) -> None:
        # Half of all children, and not of those that are there, which are the quick ones.
        half = max(1, (self._children + 1) // 2)
        limit = self.factor * self._took[half - 1] if len(self._took) >= half else None
        if limit != self.limit:
            self.limit = limit
            self._aim()

    def _aim(self) -> None:
        """Set the timer to the end of the time of whoever was sent first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._line and self._sent.get(self._line[0][1]) != self._line[0][0]:
            self._line.popleft()  # it is done, or was asked again
        if self._line and self.limit is not None:
            self._timer = asyncio.get_running_loop().call_at(self._line[0][0] + self.limit, self._ring)

    def _ring(self) -> None:
        now, limit = asyncio.get_running_loop().time(), self.limit
        assert limit is not None  # else there is no timer
        while self._line and self._line[0][0] + limit <= now:
            sent, index = self._line.popleft()
            if self._sent.get(index) != sent:
                continue
            self._late[index] = limit
            if (timeout := self._open.get(index)) is not None:
                self._end(timeout)
        self._timer = None
        self._aim()

    @staticmethod
    def _end(timeout: asyncio.Timeout) -> None:
        if not timeout.expired():
            timeout.reschedule(asyncio.get_running_loop().time())
