"""What the demo found, as a table, as JSON and as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tts_plugins.metrics import mcnemar, wilson
from tts_plugins.types import Result, Usage


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One problem under one strategy. `possible`: whether a right answer was among the candidates."""

    problem: str
    level: str
    correct: bool
    possible: bool
    result: Result | None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy over all problems: accuracy with its 95 % Wilson interval, and all that was spent."""

    strategy: str
    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def correct(self) -> int:
        """Problems answered right."""
        return sum(o.correct for o in self.outcomes)

    @property
    def accuracy(self) -> float:
        """Share of problems answered right."""
        return self.correct / len(self.outcomes)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson(self.correct, len(self.outcomes))

    @property
    def usage(self) -> Usage:
        """All that its solves spent."""
        return sum((o.result.usage for o in self.outcomes if o.result is not None), Usage())

    def to_dict(self) -> dict[str, Any]:
        """The row of the table; `cached_tokens` are those that llama.cpp had no need to compute again."""
        low, high = self.interval
        return {
            "strategy": self.strategy,
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "tokens": self.usage.tokens,
            "calls": self.usage.calls,
            "seconds": round(self.seconds, 2),
            "correct": self.correct,
            "of": len(self.outcomes),
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "exact": self.usage.exact,
        }


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """The rows, in the order greedy, Best-of-N, Best-of-N with a stop rule, and the settings they ran under."""

    rows: tuple[Row, ...]
    settings: Mapping[str, Any]

    @property
    def p_value(self) -> float:
        """Best-of-N against greedy on the same problems: exact two-sided McNemar test."""
        greedy, best = self.rows[0], self.rows[1]
        return mcnemar([o.correct for o in greedy.outcomes], [o.correct for o in best.outcomes])

    @property
    def room(self) -> float:
        """Share of problems with a right answer among Best-of-N's candidates: what a perfect verifier would reach."""
        outcomes = self.rows[1].outcomes
        return sum(o.possible for o in outcomes) / len(outcomes)

    @property
    def saved(self) -> float:
        """Best-of-N's tokens over those that it takes with the stop rule."""
        return self.rows[1].usage.tokens / max(1, self.rows[2].usage.tokens)

    def levels(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Right answers and problems, by level and strategy."""
        table: dict[str, dict[str, tuple[int, int]]] = {}
        for row in self.rows:
            for o in row.outcomes:
                right, of = table.setdefault(o.level, {}).get(row.strategy, (0, 0))
                table[o.level][row.strategy] = (right + o.correct, of + 1)
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable: the rows, the paired test, the room, by level, and the settings."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "p_value": self.p_value,
            "room": self.room,
            "tokens_saved": self.saved,
            "levels": {
                level: {name: {"correct": right, "of": of} for name, (right, of) in by.items()}
                for level, by in self.levels().items()
            },
            "settings": dict(self.settings),
        }

    def html(self) -> str:
        """One self-contained page: the table, and the trace of every problem under every strategy."""
        from tts_plugins._trace.terminal import pages

        traces = [
            (f"{row.strategy} · {o.problem} · {'right' if o.correct else 'wrong'}", o.result.trace.to_dict())
            for row in self.rows
            for o in row.outcomes
            if o.result is not None
        ]
        return pages(traces, title="tts-plugins demo", note=self.sentence())

    def sentence(self) -> str:
        """Describe in words what was measured."""
        greedy, best, stopped = self.rows
        of, possible = len(greedy.outcomes), round(self.room * len(greedy.outcomes))
        rest = "the rest is the verifier's to gain" if possible > best.correct else "no verifier could have got more"
        return (
            f"Of {of} texts, one greedy answer got {greedy.correct} records right, the best of {self.settings['n']} "
            f"{best.correct} (paired exact test: p = {self.p_value:.2g}), and with the stop rule {stopped.correct} for "
            f"{_share(stopped.usage.tokens, best.usage.tokens)} of the tokens. A right record stood among the "
            f"candidates for {possible} texts: {rest}.{_few(of)}"
        )


def _few(of: int) -> str:
    """Return a warning if there are too few problems to tell two rows apart."""
    least = mcnemar([True] * of, [False] * of)
    return "" if least < 0.05 else f" {of} texts prove nothing: p cannot fall below {least:.2g}; leave --limit out."


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"
