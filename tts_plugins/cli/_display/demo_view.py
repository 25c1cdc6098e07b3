"""The demo's three rows while they fill, and as they end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tts_plugins.cli._display.console import EVERY, say
from tts_plugins.metrics import wilson

if TYPE_CHECKING:
    from tts_plugins.demo import DemoEvent, DemoReport

ROWS = ("greedy", "best_of_n", "best_of_n_stop")


def label(row: str, n: int) -> str:
    """Return a row's name for a person."""
    return {"greedy": "1 greedy answer", "best_of_n": f"best of {n}", "best_of_n_stop": f"best of {n}, early stop"}[row]


@dataclass
class _Line:
    started: float | None = None
    ended: float | None = None
    last: DemoEvent | None = None
    reported: float = field(default=0.0)

    def seconds(self) -> float:
        return 0.0 if self.started is None else (self.ended or time.monotonic()) - self.started


class DemoView:
    """Progress on stderr: a live table in a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console, n: int, title: str) -> None:
        self._console, self._n, self._title = console, n, title
        self._lines = {row: _Line() for row in ROWS}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._lines[ROWS[0]].started = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=8, transient=True)
            self._live.start(refresh=True)
        else:
            say(self._title)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, event: DemoEvent) -> None:
        """Count one more finished text."""
        now, line = time.monotonic(), self._lines[event.row]
        line.last = event
        whole = event.done == event.of
        if whole:
            line.ended = now
            following = ROWS[ROWS.index(event.row) + 1 :]
            if following:
                self._lines[following[0]].started = now
        if self._live is None and (whole or now - line.reported > EVERY):
            line.reported = now
            name = label(event.row, self._n)
            say(f"{name}: {event.done} of {event.of} texts, {event.correct} right, {event.usage.tokens:,} tokens")

    def render(self) -> RenderableType:
        """Return the current table."""
        table = _table("texts")
        for row, line in self._lines.items():
            event = line.last
            if event is None:
                begun = line.started is not None
                clock = _clock(line.seconds()) if begun else ""
                table.add_row(label(row, self._n), "…" if begun else "", "", "", "", clock, style="dim")
                continue
            table.add_row(
                label(row, self._n), _bar(event.done, event.of), _accuracy(event.correct, event.done),
                f"{event.usage.tokens:,}", f"{event.usage.calls:,}", _clock(line.seconds()),
            )  # fmt: skip
        return Group(Text(self._title, style="dim"), table)


def report_table(report: DemoReport, n: int) -> RenderableType:
    """Return the outcome, and what it means in words."""
    table = _table("right")
    for row in report.rows:
        of = len(row.outcomes)
        table.add_row(
            label(row.strategy, n), f"{row.correct} of {of}", _accuracy(row.correct, of), f"{row.usage.tokens:,}",
            f"{row.usage.calls:,}", _clock(row.seconds),
        )  # fmt: skip
    return Group(table, Text(report.sentence()))


def _table(second: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column(second, no_wrap=True)
    table.add_column("accuracy (95 %)", no_wrap=True)
    for heading in ("tokens", "calls", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _bar(done: int, of: int) -> Text:
    full = 8 * done // of
    style = "green" if done == of else "cyan"
    return Text("━" * full, style=style).append("━" * (8 - full), style="bright_black").append(f" {done}/{of}", "none")


def _accuracy(correct: int, of: int) -> str:
    low, high = wilson(correct, of)
    return f"{100 * correct / of:.0f} % ({100 * low:.0f}–{100 * high:.0f})"


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s"
