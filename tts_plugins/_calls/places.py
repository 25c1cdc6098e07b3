"""Places at a server, of which a request has one as long as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tts_plugins._concurrency.wait_graph import GRAPH, Holder, Resource, Wait, deliver
from tts_plugins.ledger import Hold


class Place(Holder):
    """A request's stay at a server."""

    __slots__ = ("hold", "limiter", "outer", "turns")
    resource: Places  # set when it gets one of them

    def __init__(self, limiter: object, hold: Hold | None, outer: Place | None) -> None:
        self.limiter, self.hold, self.outer = limiter, hold, outer
        self.turns: Places | None = None  # of the requests inside this one to the same server
        self.open, self.blocked = False, 0

    def leave(self) -> None:
        """Hand it on."""
        if self.open:
            self.resource.leave(self)

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
        place.resource, place.open = self, True
        if place.hold is not None and place.hold.open:
            place.hold.place = place
        GRAPH.opened(place)
