"""Stragglers: children of a level that take far longer than the others are cancelled, and the level goes on."""

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

    A child's time runs from when its request is first sent to when it has its score; waiting for a place or for the
    budget does not count. Once half of the children have a score, the others may take `factor` times the median.
    Children that failed, and those that the budget has no room for, do not count as children of the level.

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
        self._late: dict[int, float] = {}  # the limits that children have reached
        # One timer for all, set for the child that was sent first: one for each child, set at each score, is quadratic.
        self._line: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def waiting(self, indices: Sequence[int]) -> None:
        """Say that a request for these children is about to be made; what they took before does not count."""
        for index in indices:
            self._sent.pop(index, None)
            self._late.pop(index, None)

    def sent(self, indices: Sequence[int]) -> None:
        """Say that the request has a place and is sent; its retries are part of the same time."""
        now = asyncio.get_running_loop().time()
        for index in indices:
            if index not in self._sent:
                self._sent[index] = now
                self._line.append((now, index))
        if self._timer is None:
            self._aim()

    def scored(self, index: int) -> None:
        """Say that the child has its score."""
        insort(self._took, asyncio.get_running_loop().time() - self._sent.pop(index))
        self._measure()

    def failed(self, indices: Sequence[int]) -> None:
        """Say that these have no score, and will have none."""
        for index in indices:
            self._sent.pop(index, None)
        self.without(len(indices))

    def without(self, children: int) -> None:
        """Count on so many children fewer; on more again if `children` is negative."""
        self._children -= children
        self._measure()

    def stop(self) -> None:
        """Say that the level is over."""
        self._line.clear()
        self._aim()

    @asynccontextmanager
    async def within(self, indices: Sequence[int]) -> AsyncIterator[None]:
        """End the block when these children, which are sent together, reach their limit.

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
        # Half of all children, not of those that have arrived, which are the quick ones.
        half = max(1, (self._children + 1) // 2)
        limit = self.factor * self._took[half - 1] if len(self._took) >= half else None
        if limit != self.limit:
            self.limit = limit
            self._aim()

    def _aim(self) -> None:
        """Set the timer for the child that was sent first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._line and self._sent.get(self._line[0][1]) != self._line[0][0]:
            self._line.popleft()  # it is done, or is asked again
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
