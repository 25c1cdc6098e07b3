"""What happened, call by call: a flat list of events, each with its parent."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tts_plugins._concurrency import forks
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import json_form

Event = Mapping[str, Any]
Listener = Callable[[Event], None]

_log = logging.getLogger(__name__)
_adding = forks.lock()  # one for all traces, since it is held for an append alone
_OWN = frozenset({"id", "kind", "parent", "at", "end"})


class Trace:
    """The events of one solve, in order of their start; JSON-serialisable at any moment.

    An event has `id`, `kind`, `parent`, `at` and `end` (seconds since the start; `end` is None while it runs), and
    what its kind brings: `solve`, `wave`, `request`, `candidate`, `stop`, `retry`, `budget`, `deadline`, …

    Most traces are never looked at, so that recording has to be cheap. What the engine records by `open` and `close`
    is kept as it came, since nobody changes it later, and becomes JSON when it is read. What users bring by `note` and
    `mark` may change the next moment, and becomes JSON at once. The dictionary of the keywords is the event: one of
    numbers and texts alone is an object that the garbage collector need not visit.
    """

    def __init__(self, listener: Listener | None = None, spans: Listener | None = None) -> None:
        self.started = datetime.now(UTC)
        self._origin = time.monotonic()
        self._events: list[dict[str, Any]] = []
        self._listener = listener
        self._spans = spans  # hears events as they are kept, and raises nothing
        self._heard = listener is not None or spans is not None

    def __getstate__(self) -> dict[str, Any]:
        """What can be pickled and copied: the events, without who listens."""
        # As they are, since to make JSON of them costs more than all else of a result; but for the first, which has
        # the strategy: its class need not be there where the trace is read.
        events: list[Any] = list(self._events)
        events[:1] = [_shaped(event) for event in events[:1]]
        try:
            packed = pickle.dumps(events, protocol=5)
        except Exception:  # noqa: BLE001 - whatever an object of the user's raises
            packed = pickle.dumps(list(self), protocol=5)
        return {"started": self.started, "origin": self._origin, "events": packed}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.started, self._origin, self._packed = state["started"], state["origin"], state["events"]
        self._listener = self._spans = None
        self._heard = False

    def __getattr__(self, name: str) -> Any:
        # Of many results that come from other processes, few traces are ever looked at.
        if name != "_events" or "_packed" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return vars(self).setdefault("_events", pickle.loads(self._packed))  # of two threads, the first one's

    def open(self, kind: str, parent: int | None, /, **data: Any) -> int:
        """Record the start of something; returns its id for `close`. Nothing in `data` may change later."""
        return self._add(kind, parent, data, ended=False)

    def close(self, event_id: int, **data: Any) -> None:
        """Record the end of something, and what came of it; the first end counts. Nothing in `data` may change."""
        event = self._events[event_id]
        if event["end"] is None:
            event.update(data)
            event["end"] = time.monotonic() - self._origin
            if self._heard:
                self._tell(event)

    def mark(self, event_id: int, /, **data: Any) -> None:
        """Add to an event later, and tell the listener again: a candidate is pruned by what comes after it."""
        event = self._events[event_id]
        event.update(json_form(data))
        self._tell(event)

    def note(self, kind: str, parent: int | None, /, **data: Any) -> None:
        """Record something that takes no time.

        Raises:
            ConfigurationError: `data` names a field that every event has.
        """
        if taken := _OWN & data.keys():
            raise ConfigurationError(f"note: {min(taken)}= is a field of every event; choose another name")
        self._add(kind, parent, json_form(data), ended=True)

    def of_kind(self, *kinds: str) -> list[Event]:
        """The events of these kinds, without the work of reading all others."""
        return [_shaped(event) for event in list(self._events) if event["kind"] in kinds]

    def abandon(self, above: int) -> None:
        """End all that still runs inside of an event: nobody waits for it any more."""
        for event in [event for event in self._events if event["end"] is None]:
            if event["id"] > above:
                self.close(event["id"], error="abandoned: it ignored its cancellation")

    def _add(self, kind: str, parent: int | None, data: dict[str, Any], *, ended: bool) -> int:
        data["kind"], data["parent"] = kind, parent
        with _adding:
            data["at"] = now = time.monotonic() - self._origin
            data["end"] = now if ended else None
            number = data["id"] = len(self._events)
            self._events.append(data)
        if self._heard:
            self._tell(data)
        return number

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return map(_shaped, list(self._events))

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {"version": 1, "started": self.started.isoformat(), "events": [dict(e) for e in self]}

    def tree(self) -> str:
        """The events as a tree of text, for a terminal."""
        from tts_plugins._trace.terminal import tree

        return tree(self.to_dict())

    def html(self) -> str:
        """One self-contained HTML page."""
        from tts_plugins._trace.terminal import page

        return page(self.to_dict())

    def _repr_html_(self) -> str:
        from tts_plugins._trace.terminal import fragment

        return fragment(self.to_dict())

    def _tell(self, event: dict[str, Any]) -> None:
        if self._spans is not None:
            self._spans(event)
        if self._listener is None:
            return
        try:
            self._listener(_shaped(event))
        except Exception as error:  # noqa: BLE001 - a broken display must not cost an answer that is paid for
            self._listener = None
            _log.exception("the listener of a solve failed, and is not called any more")
            self._add("listener_failed", 0, {"error": f"{type(error).__name__}: {error}"}, ended=True)


def compact(numbers: Sequence[int | None]) -> Any:
    """Whole numbers in a form that the garbage collector need not visit, where one follows the other."""
    if type(numbers) is range:
        return numbers
    first = numbers[0] if numbers else None
    if first is None or (len(numbers) > 1 and list(numbers) != list(range(first, first + len(numbers)))):
        return list(numbers)
    return range(first, first + len(numbers))


def _shaped(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as JSON has it; a copy, made in one step, since another thread may be adding to it."""
    raw = dict(event)
    own = {name: raw.pop(name) for name in ("id", "kind", "parent", "at", "end")}
    own["at"], own["end"] = round(own["at"], 6), None if own["end"] is None else round(own["end"], 6)
    return {**own, **json_form(raw)}
