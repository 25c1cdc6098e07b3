"""A benchmark while it runs, and its table when it has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tts_plugins._trace.wording import bounded, money, seconds
from tts_plugins.bench.analysis.arm import Arm
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.report import Placing, Run, flops_of, remarks, share_words, tokens_of
from tts_plugins.bench.runner import Progress
from tts_plugins.bench.storage.rows import SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.cli._display.console import EVERY, say, stdout
from tts_plugins.metrics import Estimate


class BenchView:
    """Progress on stderr: a live table in a terminal, a line every few seconds elsewhere, nothing when quiet."""

    def __init__(self, console: Console, plan: Plan, store: Store, *, quiet: bool) -> None:
        self._solves: dict[str, list[SolveRow]] = {arm.name: [] for arm in plan.arms}
        for solve in store.solves():
            self._solves[solve.arm].append(solve)
        self._each = len(plan.problems) * len(plan.seeds)
        self._quiet, self._reported = quiet, time.monotonic()
        self._progress: Progress | None = None
        self._before = sum(map(len, self._solves.values()))
        live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)
        self._show = live if console.is_terminal and not quiet else None

    def __enter__(self) -> Self:
        if self._before and not self._quiet:
            say(f"{self._before:,} of {self._each * len(self._solves):,} solves are done already")
        if self._show is not None:
            self._show.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._show is not None:
            self._show.stop()

    def add(self, progress: Progress) -> None:
        """Add one more solve."""
        self._solves[progress.solve.arm].append(progress.solve)
        self._progress = progress
        if self._show is None and not self._quiet and time.monotonic() - self._reported > EVERY:
            self._reported = time.monotonic()
            say(self.line())

    def line(self) -> str:
        """Return the current state in a few words."""
        solves = [s for rows in self._solves.values() for s in rows]
        tokens = bounded({"exact": all(s.exact for s in solves)}, sum(s.tokens for s in solves))
        spent = f"{sum(s.calls for s in solves):,} calls, {tokens} tokens{_spent(solves)}"
        p = self._progress
        pace = "" if p is None else f", {p.fresh / max(p.seconds, 1e-9):.1f} a second, {_time(p.left)} left"
        return f"{len(solves):,} of {self._each * len(self._solves):,} solves{pace}; {spent}"

    def render(self) -> RenderableType:
        """Return the current display."""
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("", "done", "right", "calls", "tokens", "time"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True, overflow="ellipsis")
        for name, rows in self._solves.items():
            graded = [s for s in rows if s.correct is not None]
            right = f"{sum(s.correct or False for s in graded) / len(graded):.3f}" if graded else ""
            means = [f"{_mean([s.calls for s in rows]):.1f}", _tokens(rows),
                     seconds(_mean([s.seconds for s in rows]))] if rows else ["", "", ""]  # fmt: skip
            table.add_row(name, f"{len(rows)}/{self._each}", right, *means)
        return Group(table, Text(self.line()))


def show(run: Run, place: Placing | None) -> None:
    """Print the table of a run on stdout."""
    console = stdout()
    arms, frontier = run.summary.arms, run.frontier(place)
    gains = [None if arm is arms[0] else arm.gain(arms[0]) for arm in arms]
    found = [arm.selections()["any"] for arm in arms]
    columns = {
        "": [("★ " if arm in frontier else "  ") + arm.name for arm in arms],
        "right": [_estimate(arm.accuracy, arm.lone) for arm in arms],
        "over the first": [_signed(gain, arm.lone) if gain else "" for arm, gain in zip(arms, gains, strict=True)],
        "n": [f"{arm.samples.value:.1f}" for arm in arms],
        "tokens": [tokens_of(arm) for arm in arms],
        "FLOPs": [] if place is None else [flops_of(arm, place.costs) for arm in arms],
        "cost": ["unknown" if arm.usd is None else money({"usd": arm.usd.value}) or "$0" for arm in arms],
        "time": [] if run.config.get("pool") else [seconds(arm.seconds.value) for arm in arms],
        "any": ["" if share is None else f"{share:.3f}" for share in found],
    }
    if set(columns["cost"]) == {"$0"}:
        columns["cost"] = []
    shown = {name: cells for name, cells in columns.items() if cells}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        # Figures stay whole; names are cut if the terminal is narrow.
        wide = max(map(len, [name, *shown[name]])) if name else 12
        table.add_column(name, justify="right" if name else "left", no_wrap=True, overflow="ellipsis", min_width=wide)
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
    note = (
        "★ on the frontier: nothing is as right for less. n: candidates of a solve; any: solves with a right one among "
        "them. Intervals are for 95 %, resampled by problem."
    )
    if columns["time"]:
        note += (
            " Time: of a solve beside the others, waiting for the model included; --concurrency 1 has none beside it."
        )
    console.print(Text(note, style="dim"), soft_wrap=True)
    # What the table does not say, and what failed: of an arm that failed everywhere, the command ends with the line.
    lost = [failed_line(arm) for arm in run.summary.arms if 0 < len(arm.failed) < len(arm.all)]
    for line in remarks(run.summary) + lost:
        console.print(Text(line), soft_wrap=True)
    if place is not None and place.larger is not None:
        console.print(_matches(run, place))


def failed_line(arm: Arm) -> str:
    """Return how many of an arm's solves failed, and why the first did."""
    return f"{arm.name}: {len(arm.failed)} of {len(arm.all)} solves failed; the first: {arm.failed[0].error}"


def _matches(run: Run, place: Placing) -> Table:
    assert place.larger is not None
    larger = place.larger
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"Beside one answer of {larger.name}, at the same FLOPs")
    for name in ("pretraining", "allowed", "best within it", "right", larger.name, "difference"):
        table.add_column(name, justify="right" if name not in ("pretraining", "best within it") else "left")
    lone = any(arm.lone for arm in run.summary.arms)
    for m in place.matches(run.summary):
        table.add_row(
            share_words(m.share), f"{m.allowed:.2e}", m.arm or "nothing fits", _estimate(m.accuracy, lone),
            _estimate(m.larger, lone), "" if m.difference is None else _signed(m.difference, lone),
        )  # fmt: skip
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tokens(rows: Sequence[SolveRow]) -> str:
    return bounded({"exact": all(s.exact for s in rows)}, _mean([s.tokens for s in rows]))


def _estimate(value: Estimate | None, lone: bool) -> str:
    if value is None:
        return "not graded"
    return f"{value.value:.3f}" + ("" if lone else f" [{value.low:.2f}, {value.high:.2f}]")


def _signed(e: Estimate, lone: bool) -> str:
    return f"{e.value:+.3f}" + ("" if lone else f" [{e.low:+.2f}, {e.high:+.2f}]")


def _spent(solves: Sequence[SolveRow]) -> str:
    known = sum(s.usd or 0.0 for s in solves)
    return f", {money({'usd': known})}" if known else ""


def _time(left: float) -> str:
    return f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min" if left < 7200 else f"{left / 3600:.1f} h"
