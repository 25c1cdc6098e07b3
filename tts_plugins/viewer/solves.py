"""The latest solves and their events, kept in memory for the viewer. Bounded: the oldest give way."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tts_plugins._internal.untrusted_text import REMOVED, neutralise
from tts_plugins._trace.outline import View
from tts_plugins._trace.wording import number, oneline, shorten

Event = Mapping[str, Any]
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instructions?|prompts?|rules|above)\b"
    r"|\b(?:grader|judge|verifier|evaluator)s?\b.{0,40}\b(?:score|rate|accept|must|give)\b",
    re.IGNORECASE | re.DOTALL,
)
_SIGNS = re.compile(r"<\||\[INST|</?s>|<<SYS|<start_of|<extra_|</?think|＜")
# Events of one solve: beyond them only its end is heard.
_MOST_EVENTS = 60_000
_SECONDS_BETWEEN = 0.2  # two tellings of one solve's progress


class Solve:
    """One solve: `events` by their id, as the recorder tells them."""

    def __init__(self, name: str, owner: str, profile: str, title: str) -> None:
        self.name, self.owner, self.profile, self.title = name, owner, profile, title
        self.started = datetime.now(UTC).isoformat()
        self.begun = time.monotonic()
        self.events: dict[int, dict[str, Any]] = {}
        self.done = False
        self.changed = 0
        self._view: tuple[int, View] | None = None
        self._suspicious: dict[int, bool] = {}

    def trace(self) -> dict[str, Any]:
        """As `Trace.to_dict()` has it."""
        return {"version": 1, "started": self.started, "events": [self.events[i] for i in sorted(self.events)]}

    def view(self) -> View:
        """The trace, ready to be read; read once for each change."""
        if self._view is None or self._view[0] != self.changed:
            self._view = (self.changed, View(self.trace()))
        return self._view[1]

    def summary(self) -> dict[str, Any]:
        """One row of the list."""
        top = self.events.get(0, {})
        counts = self._counts()
        usage = top.get("usage") or {}
        stopped = "failed" if top.get("error") else str(top.get("stopped") or "running")
        return {
            "id": self.name, "owner": self.owner, "profile": self.profile,
            "title": self.title or shorten(oneline(top.get("problem") or ""), 120),
            "model": oneline(top.get("model") or ""),
            "strategy": shorten(oneline(top.get("strategy") or ""), 80), "started": self.started,
            "seconds": number(top.get("end")) or (0.0 if self.done else round(time.monotonic() - self.begun, 2)),
            "stopped": stopped, "score": number(top.get("score")), "confidence": number(top.get("confidence")),
            "agreement": number(top.get("agreement")), "abstained": oneline(top.get("abstained") or ""),
            "escalated": bool(top.get("escalated")),
            "answer": shorten(oneline(top.get("answer") or ""), 80),
            "tokens": number(usage.get("tokens")) or counts["tokens"], "usd": number(usage.get("usd")),
            "budget": top.get("budget"), "calls": number(usage.get("calls")) or counts["calls"], **counts["flags"],
            "candidates": counts["candidates"],
        }  # fmt: skip

    def suspicious(self, event: Event) -> bool:
        """Whether a candidate speaks to its reader; read once."""
        known = self._suspicious.get(event["id"])
        if known is None:
            known = self._suspicious[event["id"]] = suspicious(str(event.get("text") or ""))
        return known

    def _counts(self) -> dict[str, Any]:
        candidates, truncated, lost, injected, tokens, calls, held = 0, False, 0, False, 0, 0, 0
        for event in self.events.values():
            kind = event.get("kind")
            if kind == "candidate":
                candidates += event.get("end") is not None
                truncated |= event.get("finish_reason") == "length" or bool(event.get("truncated"))
                lost += bool(event.get("error"))
                injected = injected or self.suspicious(event)
            elif kind == "request":
                usage = event.get("usage") or {}
                tokens += int(number(usage.get("tokens")) or 0)
                calls += int(number(usage.get("calls")) or 0)
                held += 0 if event.get("end") is not None else int(number(event.get("n")) or 1)
        return {
            "candidates": candidates, "tokens": tokens, "calls": calls,
            "flags": {"truncated": truncated, "lost": lost, "injected": injected, "held": held},
        }  # fmt: skip


def suspicious(text: str) -> bool:
    """Whether a candidate speaks to its reader: control tokens of chat templates, or orders to a judge."""
    if _ORDERS.search(text):
        return True
    return _SIGNS.search(text) is not None and neutralise(text).count(REMOVED) > text.count(REMOVED)


class Solves:
    """The latest solves.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int = 200) -> None:
        self._keep = keep
        self._solves: OrderedDict[str, Solve] = OrderedDict()
        self._watchers: set[asyncio.Queue[str | None]] = set()
        self._told: dict[str, float] = {}
        self.closed = False

    def begin(self, name: str, *, owner: str = "", profile: str = "", title: str = "") -> Callable[[Event], None]:
        """A solve begins; what is returned hears its events."""
        solve = self._solves[name] = Solve(name, owner, profile, title)
        while len(self._solves) > self._keep:
            self._solves.popitem(last=False)
        self._tell(name, at_once=True)

        def hear(event: Event) -> None:
            if len(solve.events) < _MOST_EVENTS or event["id"] in solve.events:
                solve.events[event["id"]] = dict(event)
                solve.changed += 1
                self._tell(name)

        return hear

    def end(self, name: str, trace: Mapping[str, Any] | None = None) -> None:
        """It has ended; its whole trace knows what was marked afterwards, such as what was pruned."""
        if (solve := self._solves.get(name)) is not None:
            if trace is not None:
                solve.events = {event["id"]: event for event in trace["events"]}
                solve.changed += 1
            solve.done = True
            self._tell(name, at_once=True)

    def add(self, name: str, trace: Mapping[str, Any], *, owner: str = "", profile: str = "", title: str = "") -> None:
        """A trace that was kept."""
        hear = self.begin(name, owner=owner, profile=profile, title=title)
        solve = self._solves[name]
        solve.started = str(trace.get("started") or "")
        for i, event in enumerate(e for e in trace.get("events") or () if isinstance(e, Mapping)):
            hear({**event, "id": event.get("id") if isinstance(event.get("id"), int) else i})
        self.end(name)

    def get(self, name: str) -> Solve | None:
        """The solve of that name."""
        return self._solves.get(name)

    def all(self, owner: str | None = None) -> Iterable[Solve]:
        """Those of an owner, or of all, the latest first."""
        return [s for s in reversed(self._solves.values()) if owner is None or s.owner == owner]

    def watch(self) -> asyncio.Queue[str | None]:
        """The names of solves as they change; None at the end."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[str | None]) -> None:
        """Hear no more."""
        self._watchers.discard(queue)

    def close(self) -> None:
        """End all watching."""
        self.closed = True
        for queue in self._watchers:
            queue.put_nowait(None)

    def _tell(self, name: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not self._watchers or (not at_once and now - self._told.get(name, 0.0) < _SECONDS_BETWEEN):
            return
        self._told[name] = now
        for queue in self._watchers:
            queue.put_nowait(name)
        if at_once and self._solves[name].done:
            self._told.pop(name, None)
