"""Requests that wait for each other's places, found when the last of them begins to wait: none waits for ever."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol


class Queue(Protocol):
    """Where places are waited for."""

    def holders_if_waits(self, future: object) -> frozenset[object] | None:
        """Who holds the places; None where this wait has one already, or has ended."""
        ...


@dataclass(frozen=True, eq=False)
class Wait:
    """A wait for a place, inside of others: `around` are the places that cannot be left before it ends."""

    queue: Queue
    future: object
    around: frozenset[object]


class Circles:
    """The waits of nested requests, over all limiters."""

    def __init__(self) -> None:
        self._waits: set[Wait] = set()
        self._lock = threading.Lock()

    def closes(self, wait: Wait) -> bool:
        """Whether nothing but another place can end this wait; else it is kept in mind until `ended`.

        A circle is closed by a wait that begins, or by one that was let into it and leaves: who has a place goes on.
        """
        with self._lock:
            self._waits.add(wait)
            closed = wait in self._hopeless()
            if closed:
                self._waits.discard(wait)
        return closed

    def stuck_in(self, queue: Queue) -> object | None:
        """The future of a wait in this queue that nothing but another place can end, where there is one."""
        with self._lock:
            return next((w.future for w in self._hopeless() if w.queue is queue), None)

    def ended(self, wait: Wait) -> None:
        """It has its place, or was cancelled."""
        with self._lock:
            self._waits.discard(wait)

    def _hopeless(self) -> set[Wait]:
        """The waits for places whose holders all wait themselves, and so on, for places held by such."""
        held = {w: holders for w in self._waits if (holders := w.queue.holders_if_waits(w.future)) is not None}
        # The largest set of waits that only each other could end: whoever waits for a place that may be left is out.
        while True:
            stuck = frozenset[object]().union(*(w.around for w in held))
            left = {w: holders for w, holders in held.items() if holders <= stuck}
            if len(left) == len(held):
                return set(held)
            held = left
