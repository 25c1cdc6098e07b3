"""Concurrency and rates of one server, for whichever solves, loops and threads call it."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, Token
from types import MappingProxyType

from tts_plugins._calls.deadlocks import Circles, Wait
from tts_plugins.budget import Limits
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Model

WINDOW = 60.0
_ALONE = Limits(concurrency=1)


class Limiter:
    """Places, given in order of arrival; rates over a sliding window of `window` seconds.

    A request made inside another one to the same server, by a solve in a model's function, takes over the place of
    the outer one, which does nothing meanwhile; several of them take turns. Where requests wait for each other's
    places in a circle, the one that closes it takes over a place in the same way (see `_circles`).
    """

    def __init__(self, limits: Limits, window: float = WINDOW) -> None:
        self._limits, self._window = limits, window
        self._lock = threading.Lock()
        self._holders: dict[object, Hold | None] = {}
        self._waiters: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        self._sent: deque[tuple[float, int]] = deque()

    def place(self, tokens: int, hold: Hold | None) -> AbstractAsyncContextManager[None]:
        """A place for one request that may take `tokens`; `hold` is what it has reserved."""
        return _Place(self, tokens, hold)

    async def _enter(self, key: object, hold: Hold | None, around: frozenset[object] = frozenset()) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._free() and not self._waiters:
                self._holders[key] = hold
                return
            self._waiters.append((loop, future))
        wait = Wait(self, future, around)
        if around and _circles.closes(wait):
            # Those who hold the places wait for this one to end; a place more than there are leaves them all idle.
            with self._lock:
                if (loop, future) in self._waiters:
                    self._waiters.remove((loop, future))
                self._holders.pop(future, None)
                self._holders[key] = hold
            return
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
            _circles.ended(wait)
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
            while self._waiters and self._free():
                self._give(*self._waiters.popleft())
            # There was a place too many, which only a circle has, and may need again.
            over = bool(self._waiters) and not self._free()
        if over and (stuck := _circles.stuck_in(self)) is not None:
            with self._lock:
                for waiter in [w for w in self._waiters if w[1] is stuck]:
                    self._waiters.remove(waiter)
                    self._give(*waiter)

    def _give(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._holders[future] = None  # keeps the place until the waiter wakes and takes it
        try:
            loop.call_soon_threadsafe(_wake, future)
        except RuntimeError:  # its loop is closed, and nobody waits there any more
            del self._holders[future]

    def holders_if_waits(self, future: object) -> frozenset[object] | None:
        """Who holds the places; None where this wait has one already, or has ended."""
        with self._lock:
            return frozenset(self._holders) if any(f is future for _, f in self._waiters) else None

    def _free(self) -> bool:
        return self._limits.concurrency is None or len(self._holders) < self._limits.concurrency

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
                while self._sent and self._sent[0][0] <= now - self._window:
                    self._sent.popleft()
                taken = sum(t for _, t in self._sent)
                # One request above the whole window's rate goes alone; it could never go otherwise.
                fits = requests is None or not self._sent or len(self._sent) + 1 <= requests
                fits = fits and (per_minute is None or not self._sent or taken + tokens <= per_minute)
                if fits:
                    self._sent.append((now, tokens))
                    return
                delay = self._sent[0][0] + self._window - now
            await asyncio.sleep(max(delay, 0.001))


class _Place:
    """A request's stay in a limiter: `async with` enters and leaves."""

    def __init__(self, limiter: Limiter, tokens: int, hold: Hold | None) -> None:
        self._limiter, self._tokens, self._hold = limiter, tokens, hold
        self._turns = Limiter(_ALONE)  # of the requests inside this one
        self._around: frozenset[object] = frozenset()  # the places that cannot be left before this one
        self._queue: Limiter | None = None
        self._token: Token[Mapping[Limiter, _Place]] | None = None

    async def __aenter__(self) -> None:
        limiter, around = self._limiter, _PLACES.get()
        if limiter._limits.concurrency is not None:
            outer = around.get(limiter)
            queue = limiter if outer is None or outer._queue is None else outer._turns
            self._around = frozenset(around.values()).union(*(place._around for place in around.values()))
            await queue._enter(self, self._hold, self._around)
            self._queue = queue
            self._token = _PLACES.set({**around, limiter: self})
        try:
            await limiter._pace(self._tokens)
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None and self._token is not None:
            _PLACES.reset(self._token)
            queue._leave(self)


_circles = Circles()

# The places that the requests around this one hold.
_PLACES: ContextVar[Mapping[Limiter, _Place]] = ContextVar("tts_plugins_places", default=MappingProxyType({}))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# By identity: models of others may be unhashable, or equal to another one of the same settings.
_limiters: dict[int, tuple[weakref.ref[Model] | Model, Limiter]] = {}
_lock = threading.RLock()  # a model may be collected, and forgotten, while the lock is held


def limiter_of(model: Model) -> Limiter:
    """The limiter that all solves of this model share."""
    name = id(model)
    with _lock:
        if name not in _limiters:
            try:
                kept: weakref.ref[Model] | Model = weakref.ref(model, lambda _: _forget(name))
            except TypeError:  # a class with slots and no place for a weak reference
                kept = model
            _limiters[name] = kept, Limiter(model.limits)
        return _limiters[name][1]


def _forget(name: int) -> None:
    with _lock:
        _limiters.pop(name, None)
