"""What a solve's events say so far: its candidates and its mishaps. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._trace.wording import number, oneline


@dataclass
class Row:
    """One candidate."""

    index: int
    text: str
    answer: str | None = None
    score: float | None = None
    error: str | None = None
    done: bool = False


@dataclass
class Seen:
    """Fed with every event of a solve; holds what a watcher wants to know. `scored`: there is a verifier."""

    n: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    scored: bool = False
    said: str = ""
    open_requests: set[int] = field(default_factory=set)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event, at its start or at its end."""
        kind = event["kind"]
        if kind == "candidate":
            self._candidate(event)
        elif kind == "score_set":
            for entry in event.get("scores", ()):
                if entry["candidate"] in self.rows:
                    self.rows[entry["candidate"]].score = entry["score"]
        elif kind == "wave":
            self.n = max(self.n, int(event.get("of", 0)))
        elif kind == "request":
            (self.open_requests.add if event["end"] is None else self.open_requests.discard)(event["id"])
        elif kind == "failure":
            self.said = oneline(event.get("error"))

    def _candidate(self, event: Mapping[str, Any]) -> None:
        row = self.rows.setdefault(event["candidate"], Row(event["index"], oneline(event["text"])))
        if event["end"] is not None:
            row.done = True
            row.answer, row.error = event.get("answer"), event.get("error")
            row.score = number(event.get("score"))

    @property
    def good(self) -> list[Row]:
        """The candidates that remain, in order of arrival."""
        return [row for row in self.rows.values() if row.done and row.error is None]

    @property
    def leader(self) -> Row | None:
        """The best so far: by score, else by votes, else the first."""
        good = self.good
        if not good:
            return None
        if any(row.score is not None for row in good):
            return max(good, key=lambda row: -1.0 if row.score is None else row.score)
        votes = self.votes
        return max(good, key=lambda row: votes[row.answer] if row.answer is not None else 0)

    @property
    def votes(self) -> Counter[str]:
        """Candidates by answer."""
        return Counter(row.answer for row in self.good if row.answer is not None)

    def line(self) -> str:
        """Return the current state in a few words."""
        good, leader = self.good, self.leader
        words = f"{len(good)} of {self.n} candidates" if self.n else "starting"
        if leader is not None and leader.score is not None:
            words += f", best score {leader.score:.2f}"
        elif leader is not None and leader.answer is not None:
            words += f", {self.votes[leader.answer]} for {oneline(leader.answer)[:40]}"
        return words
