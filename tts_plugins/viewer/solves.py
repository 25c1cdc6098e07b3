"""The latest solves and their events, kept in memory for the viewer. Bounded: the oldest give way."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from tts_plugins._internal.untrusted_text import REMOVED, neutralise
from tts_plugins._trace.outline import View
from tts_plugins._trace.wording import number, oneline, shorten
from tts_plugins.budget import Amount

Event = Mapping[str, Any]
Figures = Mapping[str, float | None]
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,40}\b(?:instructions?|prompts?|rules|above)\b"
    r"|\b(?:grader|judge|verifier|evaluator)s?\b.{0,40}\b(?:score|rate|accept|must|give)\b",
    re.IGNORECASE | re.DOTALL,
)
_SIGNS = re.compile(r"<\||\[INST|</?s>|<<SYS|<start_of|<extra_|</?think|＜")
# The most events that are kept of one solve; of those that come later, only updates of earlier ones are heard.
_MOST_EVENTS = 60_000


class Account(Protocol):
    """What a running solve has spent and holds; a `Ledger` is one."""

    @property
    def spent(self) -> Amount:
        """What has been charged."""
        ...

    @property
    def held(self) -> Amount:
        """What is reserved for calls in flight."""
        ...


class Solve:
    """One solve: `events` by their id, as the recorder reports them.

    Args:
        account: what it spends from, where that can be asked.

    Attributes:
        gone: whether it gave way to newer ones.
    """

    def __init__(self, name: str, owner: str, profile: str, title: str, account: Account | None) -> None:
        self.name, self.owner, self.profile, self.title = name, owner, profile, title
        self._account = account
        self._spent: Figures | None = None
        self.gone = False
        self.started = datetime.now(UTC).isoformat()
        self.begun = time.monotonic()
        self.events: dict[int, dict[str, Any]] = {}
        self.done = False
        self.changed = 0
        self._view: tuple[int, View] | None = None
        self._suspicious: dict[int, bool] = {}

    def trace(self) -> dict[str, Any]:
        """Return the trace in the form of `Trace.to_dict()`."""
        return {"version": 1, "started": self.started, "events": [self.events[i] for i in sorted(self.events)]}

    def view(self) -> View:
        """Return the trace, ready to be read; it is prepared once for each change."""
        if self._view is None or self._view[0] != self.changed:
            self._view = (self.changed, View(self.trace()))
        return self._view[1]

    def summary(self) -> dict[str, Any]:
        """Return one row of the list."""
        top = self.events.get(0, {})
        counts = self._counts()
        spent, held = self._spending(top.get("usage") or counts)
        unclosed = "unfinished" if self.done else "running"
        seconds = number(top.get("end")) or (0.0 if self.done else round(time.monotonic() - self.begun, 2))
        return {
            "id": self.name, "owner": self.owner, "profile": self.profile,
            "title": self.title or shorten(oneline(top.get("problem") or ""), 120),
            "model": oneline(top.get("model") or ""),
            "strategy": shorten(oneline(top.get("strategy") or ""), 80), "started": self.started,
            "stopped": "failed" if top.get("error") else str(top.get("stopped") or unclosed),
            "score": number(top.get("score")), "confidence": number(top.get("confidence")),
            "agreement": number(top.get("agreement")), "abstained": oneline(top.get("abstained") or ""),
            "escalated": bool(top.get("escalated")), "answer": shorten(oneline(top.get("answer") or ""), 80),
            "budget": top.get("budget"), "spent": {**spent, "seconds": seconds}, "held": held,
            "candidates": counts["candidates"], **counts["flags"],
        }  # fmt: skip

    def _spending(self, usage: Mapping[str, Any]) -> tuple[Figures, Figures]:
        if self._account is not None:
            return _figures(self._account.spent), _figures(self._account.held)
        return self._spent or {name: number(usage.get(name)) for name in ("calls", "tokens", "usd")}, {}

    def end(self) -> None:
        """Let go of its account: what it spent stays, and nothing is held any more."""
        self.done = True
        if self._account is not None:
            self._spent, self._account = _figures(self._account.spent), None

    def suspicious(self, event: Event) -> bool:
        """Return whether a candidate speaks to its reader; each is read once."""
        known = self._suspicious.get(event["id"])
        if known is None:
            known = self._suspicious[event["id"]] = suspicious(str(event.get("text") or ""))
        return known

    def _counts(self) -> dict[str, Any]:
        candidates, truncated, failed, injected, tokens, calls = 0, False, 0, False, 0, 0
        for event in self.events.values():
            kind = event.get("kind")
            if kind == "candidate":
                candidates += event.get("end") is not None
                truncated |= event.get("finish_reason") == "length" or bool(event.get("truncated"))
                failed += bool(event.get("error"))
                injected = injected or self.suspicious(event)
            elif kind == "request":
                usage = event.get("usage") or {}
                tokens += int(number(usage.get("tokens")) or 0)
                calls += int(number(usage.get("calls")) or 0)
        flags = {"truncated": truncated, "failed": failed, "injected": injected}
        return {"candidates": candidates, "tokens": tokens, "calls": calls, "flags": flags}


def _figures(amount: Amount) -> Figures:
    return {"calls": amount.calls, "tokens": amount.tokens, "usd": amount.usd}


def suspicious(text: str) -> bool:
    """Return whether a candidate speaks to its reader: control tokens of chat templates, or orders to a judge."""
    if _ORDERS.search(text):
        return True
    return _SIGNS.search(text) is not None and neutralise(text).count(REMOVED) > text.count(REMOVED)


class Watcher:
    """Where changed solves wait for one reader: each once, however often it changes and however slow the reader is."""

    def __init__(self) -> None:
        self._changed: dict[str, Solve] = {}
        self._woken = asyncio.Event()

    def put(self, solve: Solve | None) -> None:
        """Note that a solve has changed; None only wakes the reader."""
        if solve is not None:
            self._changed[solve.name] = solve
        self._woken.set()

    async def changed(self) -> list[Solve]:
        """Wait for changes, and take them; empty when it was only woken."""
        await self._woken.wait()
        self._woken.clear()
        found, self._changed = list(self._changed.values()), {}
        return found


class Solves:
    """The latest solves.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int = 200) -> None:
        self._keep = keep
        self._solves: OrderedDict[str, Solve] = OrderedDict()
        self._watchers: set[Watcher] = set()
        self.closed = False

    def begin(
        self, name: str, *, owner: str = "", profile: str = "", title: str = "", account: Account | None = None
    ) -> Callable[[Event], None]:
        """Add a solve that begins; returns the function that takes its events."""
        solve = self._solves[name] = Solve(name, owner, profile, title, account)
        while len(self._solves) > self._keep:
            _, oldest = self._solves.popitem(last=False)
            oldest.gone = True
            self._announce(oldest)
        self._announce(solve)

        def hear(event: Event) -> None:
            if len(solve.events) < _MOST_EVENTS or event["id"] in solve.events:
                solve.events[event["id"]] = dict(event)
                solve.changed += 1
                self._announce(solve)

        return hear

    def end(self, name: str) -> None:
        """Mark a solve as ended: nothing more is held for it."""
        if (solve := self._solves.get(name)) is not None:
            solve.end()
            self._announce(solve)

    def add(self, name: str, trace: Mapping[str, Any], *, owner: str = "", profile: str = "", title: str = "") -> None:
        """Add a trace that was kept."""
        hear = self.begin(name, owner=owner, profile=profile, title=title)
        solve = self._solves[name]
        solve.started = str(trace.get("started") or "")
        for i, event in enumerate(e for e in trace.get("events") or () if isinstance(e, Mapping)):
            hear({**event, "id": event.get("id") if isinstance(event.get("id"), int) else i})
        self.end(name)

    def get(self, name: str) -> Solve | None:
        """Return the solve of that name."""
        return self._solves.get(name)

    def all(self, owner: str | None = None) -> Iterable[Solve]:
        """Return those of an owner, or of all, the latest first."""
        return [s for s in reversed(self._solves.values()) if owner is None or s.owner == owner]

    def watch(self) -> Watcher:
        """Begin to watch; `unwatch` ends it."""
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Stop watching."""
        self._watchers.discard(watcher)

    def close(self) -> None:
        """End all watching."""
        self.closed = True
        for watcher in self._watchers:
            watcher.put(None)

    def _announce(self, solve: Solve) -> None:
        for watcher in self._watchers:
            watcher.put(solve)
