"""Requests and tokens a minute of one server, shared by many workers.

The account grants permits, which a worker uses within `LEASE` seconds or returns. They count from their grant until
`LEASE` seconds and a whole window later, so that in no window more requests are sent than the limit allows, whenever
within its time a permit was used.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

LEASE, WINDOW = 2.0, 60.0
_MARGIN = 0.9  # of its time, that a worker uses a permit in: the rest is for the message's way


class RateAsk(NamedTuple):
    """A worker's wish: permits for one request of so many tokens at least; and what it returns of an earlier lease."""

    server: str
    requests_per_minute: float | None
    tokens_per_minute: float | None
    tokens: int
    returned: tuple[int, int, int] | None = None  # the lease, and its unused requests and tokens


class RateGrant(NamedTuple):
    """Permits of one lease; or none, and the seconds after which to ask again."""

    lease: int
    requests: int
    tokens: int
    wait: float = 0.0


class Rates:
    """The account's side. Pure but for the time, which is passed in."""

    def __init__(self, workers: int, window: float = WINDOW) -> None:
        self._workers, self._window, self._next = workers, window, 0
        self._log: dict[str, deque[list[float]]] = {}  # of each server: until when, lease, requests, tokens

    def ask(self, ask: RateAsk, now: float) -> RateGrant:
        """Grant permits, or say how long to wait."""
        log = self._log.setdefault(ask.server, deque())
        if ask.returned is not None:
            lease, requests, tokens = ask.returned
            for entry in log:
                if entry[1] == lease:
                    entry[2], entry[3] = entry[2] - requests, entry[3] - tokens
        while log and (log[0][0] <= now or not log[0][2]):
            log.popleft()
        free, room = self._free(ask, log)
        if free < 1 or room < ask.tokens:
            return RateGrant(0, 0, 0, max(log[0][0] - now, 0.001) if log else 0.001)
        share = 2 * self._workers
        self._next += 1
        grant = RateGrant(self._next, int(max(1, free // share)), int(max(ask.tokens, room // share)))
        log.append([now + LEASE + self._window, grant.lease, grant.requests, grant.tokens])
        return grant

    def _free(self, ask: RateAsk, log: deque[list[float]]) -> tuple[float, float]:
        if not log:  # a request larger than a whole window's rate is sent alone; it could never be sent otherwise
            return max(1, ask.requests_per_minute or _MANY), max(ask.tokens, ask.tokens_per_minute or _MANY)
        requests = (ask.requests_per_minute or _MANY) - sum(entry[2] for entry in log)
        return requests, (ask.tokens_per_minute or _MANY) - sum(entry[3] for entry in log)


_MANY = 1_000_000_000


class SharedPace:
    """A worker's side: waits until the rates allow a request.

    Args:
        send: brings a wish to the account.
    """

    def __init__(
        self, server: str, requests: float | None, tokens: float | None, send: Callable[[RateAsk], Awaitable[RateGrant]]
    ) -> None:
        self._wish, self._send = RateAsk(server, requests, tokens, 0), send
        self._lease, self._requests, self._tokens, self._until = 0, 0, 0, 0.0
        self._turn = asyncio.Lock()

    async def __call__(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be sent."""
        async with self._turn:  # in order of arrival
            while not self._take(tokens):
                asked, back = time.monotonic(), None
                if self._lease and (self._requests or self._tokens):
                    back = (self._lease, self._requests, self._tokens)
                self._lease, self._requests, self._tokens = 0, 0, 0
                grant = await self._send(self._wish._replace(tokens=tokens, returned=back))
                if grant.requests:
                    self._lease, self._requests, self._tokens = grant[:3]
                    self._until = asked + LEASE * _MARGIN
                else:
                    await asyncio.sleep(grant.wait)

    def _take(self, tokens: int) -> bool:
        if self._requests < 1 or self._tokens < tokens or time.monotonic() >= self._until:
            return False
        self._requests, self._tokens = self._requests - 1, self._tokens - tokens
        return True
