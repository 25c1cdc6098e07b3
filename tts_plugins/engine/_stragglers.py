"""Children of a level that take far longer than the others: cancelled, so that the level goes on without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager


class Stragglers:
    """The clock of one level's children.

    A child's time runs from its request's first sending, and not while it waits for a place or for the budget, to its
    score. Once half of the children have one, the others have `factor` times the median.

    Args:
        factor: times the median, at least 1.
        children: of the level, all of them.
    """

    def __init__(self, factor: float, children: int) -> None:
        self.factor = factor
        self.limit: float | None = None  # seconds
        self._half = (children + 1) // 2
        self._sent: dict[int, float] = {}
        self._took: list[float] = []
        self._open: dict[asyncio.Timeout, Sequence[int]] = {}

    def waiting(self, indices: Sequence[int]) -> None:
        """A request for these children is about to be made; what they took before does not count."""
        for index in indices:
            self._sent.pop(index, None)

    def sent(self, indices: Sequence[int]) -> None:
        """It has a place, and goes out; its retries are part of the same time."""
        now = asyncio.get_running_loop().time()
        for index in indices:
            self._sent.setdefault(index, now)
        self._aim()

    def scored(self, index: int) -> None:
        """The child is there."""
        self._took.append(asyncio.get_running_loop().time() - self._sent[index])
        if len(self._took) >= self._half:
            # Of all children, and not of those that are there, which are the quick ones.
            self.limit = self.factor * sorted(self._took)[self._half - 1]
            self._aim()

    @asynccontextmanager
    async def within(self, indices: Sequence[int]) -> AsyncIterator[None]:
        """What is done for these children ends at their limit.

        Raises:
            TimeoutError: it was reached.
        """
        async with asyncio.timeout(None) as timeout:
            self._open[timeout] = indices
            self._aim()
            try:
                yield
            finally:
                del self._open[timeout]

    def _aim(self) -> None:
        for timeout, indices in self._open.items():
            sent = self._sent.get(indices[0])  # they went out together
            if self.limit is not None and sent is not None and not timeout.expired():
                timeout.reschedule(sent + self.limit)
