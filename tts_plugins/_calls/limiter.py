"""Concurrency and rates of one server, for whichever solves, loops and threads call it."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable

from tts_plugins._calls.places import Place, Places
from tts_plugins._calls.reservation import answered
from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import GRAPH
from tts_plugins.budget import Limits
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Model

WINDOW = 60.0
Pace = Callable[[int], Awaitable[None]]
Sharing = Callable[[Model], tuple[Limits, Pace | None]]


class Limiter:
    """Places, given in order of arrival; rates over a sliding window of `window` seconds.

    A request made inside another one to the same server, by a solve in a model's function, takes over the place of
    the outer one, which does nothing meanwhile; several of them take turns. If requests wait for each other's
    places in a circle, one of them takes over a place in the same way (see `_concurrency.wait_graph`).
    """

    def __init__(self, limits: Limits, window: float = WINDOW, shared: Pace | None = None) -> None:
        self._limits, self._window, self._shared = limits, window, shared
        rates = (limits.requests_per_minute, limits.tokens_per_minute)
        self._paced = shared is not None or rates != (None, None)
        self.places = None if limits.concurrency is None else Places(limits.concurrency)
        self._lock = forks.lock()
        self._sent: deque[tuple[float, int]] = deque()

    async def enter(self, tokens: int, hold: Hold | None, outer: Place | None) -> Place | None:
        """Wait for a place for one request, to be left after it; return None where there is no limit to them.

        Args:
            tokens: what it may take.
            hold: what it has reserved.
            outer: the place of the innermost request that it is made inside of.
        """
        place = None if self.places is None else await self._place(self.places, hold, outer)
        if self._paced:
            try:
                await self.pace(tokens)
            except BaseException:
                if place is not None:
                    place.leave()
                raise
        return place

    async def _place(self, places: Places, hold: Hold | None, outer: Place | None) -> Place:
        place, around = Place(self, hold, outer), outer
        while around is not None and around.limiter is not self:
            around = around.outer
        if around is not None and around.open:
            places = around.turns = around.turns or Places(1)
        if not places.enter_now(place):
            await answered(lambda ready: places.enter(place, ready), lambda _: places.leave(place))
        return place

    async def pace(self, tokens: int) -> None:
        """Wait until the rates allow a request of so many tokens."""
        if self._shared is not None:
            await self._shared(tokens)
            return
        requests, per_minute = self._limits.requests_per_minute, self._limits.tokens_per_minute
        while True:
            with self._lock:
                now = time.monotonic()
                while self._sent and self._sent[0][0] <= now - self._window:
                    self._sent.popleft()
                taken = sum(t for _, t in self._sent)
                # A request larger than the whole window's rate is sent alone; otherwise it could never be sent.
                fits = requests is None or not self._sent or len(self._sent) + 1 <= requests
                fits = fits and (per_minute is None or not self._sent or taken + tokens <= per_minute)
                if fits:
                    self._sent.append((now, tokens))
                    return
                delay = self._sent[0][0] + self._window - now
            await asyncio.sleep(max(delay, 0.001))


# By identity: models of others may be unhashable, or equal to another one of the same settings.
_limiters: dict[int, tuple[weakref.ref[Model] | Model, Limiter]] = {}
forks.on_fork(_limiters.clear)  # the places that are taken are those of the parent's requests


def limiter_of(model: Model) -> Limiter:
    """Return the limiter that all solves of this model share."""
    name = id(model)
    if (known := _limiters.get(name)) is not None:
        return known[1]
    with GRAPH.lock:  # which one thread may take twice: a model may be collected, and forgotten, meanwhile
        if name not in _limiters:
            try:
                kept: weakref.ref[Model] | Model = weakref.ref(model, lambda _: _forget(name))
            except TypeError:  # a class with slots and no place for a weak reference
                kept = model
            limits, pace = model.limits, None
            if _sharing is not None:
                limits, pace = _sharing(model)
            _limiters[name] = kept, Limiter(limits, shared=pace)
        return _limiters[name][1]


def share_limits(sharing: Sharing | None) -> None:
    """Have this process share each server's limits with others from now on; `sharing` says of a model what is its part.

    It returns the limits that this process keeps by itself, and a function that waits until the shared rates allow a
    request of so many tokens; None where it keeps the rates by itself.
    """
    global _sharing
    _sharing = sharing
    with GRAPH.lock:
        _limiters.clear()


_sharing: Sharing | None = None


def _forget(name: int) -> None:
    with GRAPH.lock:
        _limiters.pop(name, None)
