"""Where candidates and failures arrive, and whoever asked for them waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from tts_plugins._calls.caller import words
from tts_plugins._calls.cancellation import Halt
from tts_plugins.types import Candidate, Scored

_TOLD = 2_000  # characters of a failure's text that a revision is shown


class Failure(NamedTuple):
    """A candidate that is lost: why, and what there is of it."""

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
