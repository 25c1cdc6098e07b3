"""What happened, call by call: a flat list of events, each with its parent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


class Trace:
    """The events of one solve, in order of their start; JSON-serialisable at any moment.

    An event has `id`, `kind`, `parent`, `at` and `end` (seconds since the start; `end` is None while it runs), and
    what its kind brings: `solve`, `wave`, `request`, `candidate`, `stop`, `retry`, `budget`, `deadline`, …
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.started = datetime.now(UTC)
        self._origin = time.monotonic()
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._listener = listener

    def open(self, kind: str, parent: int | None, **data: Any) -> int:
        """Record the start of something; returns its id for `close`."""
        with self._lock:
            event = {"id": len(self._events), "kind": kind, "parent": parent, "at": self._now(), "end": None, **data}
            self._events.append(event)
        self._tell(event)
        return int(event["id"])

    def close(self, event_id: int, **data: Any) -> None:
        """Record the end of something, and what came of it."""
        event = self._events[event_id]
        event.update(data)
        event["end"] = self._now()
        self._tell(event)

    def note(self, kind: str, parent: int | None, **data: Any) -> None:
        """Record something that takes no time."""
        with self._lock:
            now = self._now()
            event = {"id": len(self._events), "kind": kind, "parent": parent, "at": now, "end": now, **data}
            self._events.append(event)
        self._tell(event)

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(list(self._events))

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {"version": 1, "started": self.started.isoformat(), "events": [dict(e) for e in self._events]}

    def tree(self) -> str:
        """The events as a tree of text, for a terminal."""
        from tts_plugins.engine._render import tree

        return tree(self.to_dict())

    def html(self) -> str:
        """One self-contained HTML page."""
        from tts_plugins.engine._render import page

        return page(self.to_dict())

    def _repr_html_(self) -> str:
        from tts_plugins.engine._render import fragment

        return fragment(self.to_dict())

    def _now(self) -> float:
        return round(time.monotonic() - self._origin, 6)

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(dict(event))
