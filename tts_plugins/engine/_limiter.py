"""Concurrency and rates of one server, for whichever solves, loops and threads call it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from tts_plugins.budget import Limits
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Model

WINDOW = 60.0


class Limiter:
    """Places, given in order of arrival; rates over a sliding minute."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._holders: dict[object, Hold | None] = {}
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._sent: deque[tuple[float, int]] = deque()

    @asynccontextmanager
    async def place(self, tokens: int, hold: Hold | None) -> AsyncIterator[None]:
        """A place for one request that may take `tokens`; `hold` is what it has reserved."""
        key = object()
        await self._enter(key, hold)
        try:
            await self._pace(tokens)
            yield
        finally:
            self._leave(key)

    async def _enter(self, key: object, hold: Hold | None) -> None:
        if self._limits.concurrency is None:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if len(self._holders) < self._limits.concurrency and not self._waiters:
                self._holders[key] = hold
                return
            self._waiters.append((loop, future))
        if hold is not None:
            hold.park(self._moves)
        try:
            await future
        except asyncio.CancelledError:
            with self._lock:
                if (loop, future) in self._waiters:
                    self._waiters.remove((loop, future))
                    raise
                self._holders.pop(future, None)
            self._hand_on()  # the place came while the wait was being cancelled
            raise
        finally:
            if hold is not None:
                hold.unpark()
        with self._lock:
            self._holders.pop(future, None)
            self._holders[key] = hold

    def _leave(self, key: object) -> None:
        with self._lock:
            left = self._holders.pop(key, key) is not key
        if left:
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            while self._waiters and len(self._holders) < (self._limits.concurrency or 0):
                loop, future = self._waiters.popleft()
                if loop.is_closed():
                    continue
                self._holders[future] = None  # keeps the place until the waiter wakes and takes it
                loop.call_soon_threadsafe(_wake, future)

    def _moves(self) -> bool:
        """Whether a place can come free without room in a ledger: some holder is not itself waiting for that."""
        with self._lock:
            return any(hold is None or not hold.blocked for hold in self._holders.values())

    async def _pace(self, tokens: int) -> None:
        requests, per_minute = self._limits.requests_per_minute, self._limits.tokens_per_minute
        if requests is None and per_minute is None:
            return
        while True:
            with self._lock:
                now = time.monotonic()
                while self._sent and self._sent[0][0] <= now - WINDOW:
                    self._sent.popleft()
                taken = sum(t for _, t in self._sent)
                fits = requests is None or len(self._sent) < requests
                # One request above the whole minute's tokens goes alone; it could never go otherwise.
                fits = fits and (per_minute is None or not self._sent or taken + tokens <= per_minute)
                if fits:
                    self._sent.append((now, tokens))
                    return
                delay = self._sent[0][0] + WINDOW - now
            await asyncio.sleep(max(delay, 0.001))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_limiters: WeakKeyDictionary[Model, Limiter] = WeakKeyDictionary()
_lock = threading.Lock()


def limiter_of(model: Model) -> Limiter:
    """The limiter that all solves of this model share."""
    with _lock:
        if model not in _limiters:
            _limiters[model] = Limiter(model.limits)
        return _limiters[model]
