"""Concurrency and rates of one server, for whichever solves, loops and threads call it."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, Token

from tts_plugins._calls.reservation import answered
from tts_plugins._concurrency import forks
from tts_plugins._concurrency.wait_graph import GRAPH, Holder, Resource, Wait, deliver
from tts_plugins.budget import Limits
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Model

WINDOW = 60.0
Pace = Callable[[int], Awaitable[None]]
Sharing = Callable[[Model], tuple[Limits, Pace | None]]


class Place(Holder):
    """A request's stay at a server."""

    __slots__ = ("hold", "limiter", "outer", "places", "turns")

    def __init__(self, limiter: Limiter, hold: Hold | None, outer: Place | None) -> None:
        self.limiter, self.hold, self.outer = limiter, hold, outer
        self.places: Places | None = None  # whose it is, while it has one
        self.turns: Places | None = None  # of the requests inside this one to the same server
        self.open, self.blocked = False, 0

    @property
    def resource(self) -> Resource:
        """The places that it has one of."""
        assert self.places is not None
        return self.places

    def enclosers(self) -> Iterator[Holder]:
        """Yield what cannot end before this request does: what pays for it, and the requests around it."""
        if self.hold is not None:
            yield from self.hold.enclosers()
        place = self.outer
        while place is not None:
            if place.open:
                yield place
            if place.hold is not None:
                yield from place.hold.enclosers()
            place = place.outer


class _PlaceWait(Wait):
    __slots__ = ("place",)

    def __init__(self, place: Place, ready: Callable[[object], None]) -> None:
        super().__init__(ready, place.enclosers())
        self.place = place


class Places(Resource):
    """So many requests at once, in order of arrival."""

    extensible = True

    def __init__(self, concurrency: float) -> None:
        super().__init__()
        self._concurrency = concurrency

    def enter_now(self, place: Place) -> bool:
        """Take a place if one is free; return whether it was."""
        with GRAPH.lock:
            free = self.holders < self._concurrency and not self.waits
            if free:
                self._give(place)
            return free

    def enter(self, place: Place, ready: Callable[[object], None]) -> Wait:
        """Wait for a place; `ready` gets it."""
        wait = _PlaceWait(place, ready)
        with GRAPH.lock:
            GRAPH.begin(wait, self)
            if self.holders < self._concurrency:
                self.serve()
            answers = GRAPH.settle()
        deliver(answers)
        return wait

    def leave(self, place: Place) -> None:
        """Hand the place on."""
        with GRAPH.lock:
            if not place.open:
                return
            if place.hold is not None and place.hold.place is place:
                place.hold.place = None
            GRAPH.closed(place)
            answers = GRAPH.settle()
        deliver(answers)

    def serve(self) -> None:
        """Give the free places to those who came first."""
        while self.waits and self.holders < self._concurrency:
            self.give_up(self.waits[0])

    def give_up(self, wait: Wait) -> None:
        """Give a place, be it one more than there are: who has one does nothing before this wait has ended."""
        assert isinstance(wait, _PlaceWait)
        self._give(wait.place)
        GRAPH.answer(wait, wait.place)

    def _give(self, place: Place) -> None:
        place.places, place.open = self, True
        if place.hold is not None and place.hold.open:
            place.hold.place = place
        GRAPH.opened(place)


class Limiter:
    """Places, given in order of arrival; rates over a sliding window of `window` seconds.

    A request made inside another one to the same server, by a solve in a model's function, takes over the place of
    the outer one, which does nothing meanwhile; several of them take turns. If requests wait for each other's
    places in a circle, one of them takes over a place in the same way (see `_concurrency.wait_graph`).
    """

    def __init__(self, limits: Limits, window: float = WINDOW, shared: Pace | None = None) -> None:
        self._limits, self._window, self._shared = limits, window, shared
        self.places = None if limits.concurrency is None else Places(limits.concurrency)
        self._lock = forks.lock()
        self._sent: deque[tuple[float, int]] = deque()

    def place(self, tokens: int, hold: Hold | None) -> AbstractAsyncContextManager[None]:
        """Hold a place for one request that may take `tokens`; `hold` is what it has reserved."""
        return _Stay(self, tokens, hold)

    async def pace(self, tokens: int) -> None:
        """Wait until the rates allow a request of so many tokens."""
        if self._shared is not None:
            await self._shared(tokens)
            return
        requests, per_minute = self._limits.requests_per_minute, self._limits.tokens_per_minute
        if requests is None and per_minute is None:
            return
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


# The place of the innermost request that the code here runs inside of.
_PLACE: ContextVar[Place | None] = ContextVar("tts_plugins_place", default=None)


class _Stay:
    """`async with`: enters a limiter and leaves it."""

    def __init__(self, limiter: Limiter, tokens: int, hold: Hold | None) -> None:
        self._limiter, self._tokens, self._hold = limiter, tokens, hold
        self._place: Place | None = None
        self._token: Token[Place | None] | None = None

    async def __aenter__(self) -> None:
        limiter = self._limiter
        if limiter.places is not None:
            await self._enter(limiter.places)
        try:
            await limiter.pace(self._tokens)
        except BaseException:
            self._leave()
            raise

    async def _enter(self, places: Places) -> None:
        outer = _PLACE.get()
        place = Place(self._limiter, self._hold, outer)
        while outer is not None and outer.limiter is not self._limiter:
            outer = outer.outer
        if outer is not None and outer.open:
            places = outer.turns = outer.turns or Places(1)
        if not places.enter_now(place):
            await answered(lambda ready: places.enter(place, ready), lambda _: places.leave(place))
        self._place, self._token = place, _PLACE.set(place)

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        place, self._place = self._place, None
        if place is not None and place.places is not None and self._token is not None:
            place.places.leave(place)
            _PLACE.reset(self._token)  # last: it raises where the coroutine is closed by another task or thread


# By identity: models of others may be unhashable, or equal to another one of the same settings.
_limiters: dict[int, tuple[weakref.ref[Model] | Model, Limiter]] = {}
forks.on_fork(_limiters.clear)  # the places that are taken are those of the parent's requests


def limiter_of(model: Model) -> Limiter:
    """Return the limiter that all solves of this model share."""
    name = id(model)
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
