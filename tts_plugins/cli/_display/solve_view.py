"""A solve while it runs: what is spent, held and left, and the candidates as they arrive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tts_plugins._trace.wording import money, oneline
from tts_plugins.budget import Budget
from tts_plugins.cli._display.console import EVERY, say
from tts_plugins.cli._display.progress import Row, Seen
from tts_plugins.ledger import Ledger

SHOWN = 10  # candidates at once: the newest, and the leader


class SolveView:
    """Progress on stderr: a live display in a terminal, a line every few seconds elsewhere, nothing when quiet."""

    def __init__(self, console: Console, title: str, ledger: Ledger, *, scored: bool, quiet: bool) -> None:
        self.seen = Seen(scored=scored)
        self.notice = ""
        self.priced = True
        self._console, self._title, self._ledger, self._quiet = console, title, ledger, quiet
        self._started = self._reported = time.monotonic()
        live = console.is_terminal and not quiet
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=8, transient=True)
        self._show = self._live if live else None

    def __enter__(self) -> Self:
        if self._show is not None:
            self._show.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._show is not None:
            self._show.stop()

    def add(self, event: Mapping[str, Any]) -> None:
        """Add one more event of the solve."""
        self.seen.add(event)
        if self._show is None and not self._quiet and not self.notice and time.monotonic() - self._reported > EVERY:
            self._reported = time.monotonic()
            say(f"{self.seen.line()}; {self._ledger.spent.tokens:,} tokens spent")

    def notify(self, text: str) -> None:
        """Show something that the user should read now."""
        self.notice = text
        if self._show is None:
            say(f"tts-plugins: {text}")

    def render(self) -> RenderableType:
        """Return the current display."""
        parts: list[RenderableType] = [Text(self._title, style="dim", no_wrap=True, overflow="ellipsis"), self._money()]
        if self.seen.rows:
            parts.append(candidates(self._chosen_rows(), self.seen, self.seen.leader))
        waiting = len(self.seen.open_requests)
        flight = f"; {waiting} request{'' if waiting == 1 else 's'} in flight" if waiting else ""
        parts.append(Text(self.seen.line() + flight))
        said = filter(None, (self.seen.said, self.notice))
        parts += [Text(text, style="yellow", no_wrap=True, overflow="ellipsis") for text in said]
        return Group(*parts)

    def _chosen_rows(self) -> list[Row]:
        rows, leader = list(self.seen.rows.values()), self.seen.leader
        newest = rows[-SHOWN:]
        return newest if leader is None or leader in newest else [leader, *newest[1:]]

    def _money(self) -> Table:
        spent, held, left = self._ledger.spent, self._ledger.held, self._ledger.left()
        usage, budget = self._ledger.usage, self._ledger.budget
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("", "calls", "tokens", "cost", "time"):
            table.add_column(heading, justify="left" if not heading else "right", min_width=7)
        gone = time.monotonic() - self._started
        known = self.priced and usage.usd is not None
        dollars = _dollars(usage.usd) if known and usage.usd is not None else "unknown"
        table.add_row("spent", f"{spent.calls:,}", f"{spent.tokens:,}", dollars, f"{gone:.0f} s")
        table.add_row("held", f"{held.calls:,}", f"{held.tokens:,}", _dollars(held.usd) if known else "", "")
        if budget is not None:
            table.add_row("left", *_left(left), _time_left(budget, gone), style="bold")
        return table


def candidates(rows: list[Row], seen: Seen, leader: Row | None) -> Table:
    """Return the candidates with their scores, or with the votes for their answers if nobody scored."""
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    table.add_column("", width=1)
    table.add_column("#", justify="right", width=3)
    table.add_column("score" if seen.scored else "votes", width=11 if seen.scored else 5)
    table.add_column("answer", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        mark = Text("★" if row is leader else "✗" if row.error else " ", style="red" if row.error else "bold green")
        answer = "" if row.answer is None else oneline(row.answer)
        votes = "" if row.answer is None else str(seen.votes[row.answer])
        gauge = _gauge(row.score) if seen.scored else Text(votes)
        table.add_row(mark, str(row.index), gauge, Text(answer), Text(row.error or row.text, style="dim"))
    return table


def _gauge(score: float | None) -> Text:
    if score is None:
        return Text("")
    style = "green" if score >= 0.8 else "yellow" if score >= 0.5 else "red"
    return Text("━" * round(score * 6), style=style).append(
        " " * (6 - round(score * 6)) + f" {score:.2f}", style="none"
    )


def _left(left: Mapping[str, float | None]) -> list[str]:
    shown = []
    for name in ("calls", "tokens", "usd"):
        value = left[name]
        shown.append("no limit" if value is None else _dollars(value) if name == "usd" else f"{value:,.0f}")
    return shown


def _time_left(budget: Budget, gone: float) -> str:
    return "no limit" if budget.seconds is None else f"{max(budget.seconds - gone, 0):.0f} s"


def _dollars(usd: float) -> str:
    return money({"usd": usd}) or "$0"
