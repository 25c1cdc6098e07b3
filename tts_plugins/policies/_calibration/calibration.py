"""Does the work of `calibrate`: tries options on recorded samples, chooses on folds, and makes a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from tts_plugins.policies._calibration.answering import answering
from tts_plugins.policies._calibration.larger_model import LargerPool, larger_options, moved
from tts_plugins.policies._calibration.options import Setting, gather, recorded, sampling, selects_of
from tts_plugins.policies._calibration.replayed_trials import Outcome, Trials
from tts_plugins.policies._calibration.selection import choose, full_of
from tts_plugins.policies._calibration.table import Choice, Goal, Option, Table, follow, value
from tts_plugins.policies._stopping.risk_bounds import least_problems
from tts_plugins.policies._stopping.walks import Floats
from tts_plugins.policies.difficulty import Signal
from tts_plugins.policies.ladder import Ladder, Rung
from tts_plugins.policies.plan import Alternative, Compared, Expected, Interval, Measured, Plan, Stage
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate
from tts_plugins.strategies import BaseStrategy


class Calibration:
    """Calibrates one pool; `plan` makes the plan for one budget."""

    def __init__(
        self, pool: Pool, *, signal: Signal | None, bins: int, options: Sequence[BaseStrategy] | None,
        measured: Sequence[Measured], aggregate: Aggregate, orders: int, extra: float, seed: int,
        wave: int | Literal["auto"] | None = "auto", batch: int | None = None, larger: LargerPool | None = None,
        price: float | None = None, held_out: Pool | None = None,
        abstain_risk: float | None = None,
    ) -> None:  # fmt: skip
        self.pool, self._bins, self._given, self._measured = pool, bins, options, measured
        self._held_out, self._risk = held_out or pool, abstain_risk
        self._fewest = min(pool.fewest, self._held_out.fewest)
        self._larger = None if larger is None else larger.of(pool)
        self._larger_beside = None if larger is None else larger.of(self._held_out)
        self._setting = Setting(
            extra=extra, aggregate=aggregate, orders=orders, seed=seed, batch=batch, priced=price is not None,
            lossless=price == 0, waves=(1, None) if wave == "auto" else (wave,),
        )  # fmt: skip
        self._selects = selects_of(pool, aggregate)
        self.scored = "best" in self._selects
        self._signal: Signal = signal or ("score" if self.scored else "agreement")
        order = np.random.default_rng(seed + 2).permutation(len(pool.problems))
        self._fold = np.empty(len(order), dtype=np.int64)
        self._fold[order] = np.arange(len(order)) % 2

    @property
    def scores(self) -> Interval | None:
        """The 1 %, 50 % and 99 % quantiles of the recorded scores; None if there are no scores."""
        if not self.scored:
            return None
        found = [c.scored(self._setting.aggregate) or 0.0 for p in self.pool.problems for c in p.candidates]
        low, middle, high = np.quantile(found, (0.01, 0.5, 0.99))
        return float(low), float(middle), float(high)

    def table(self, budget: int) -> Table:
        """Try every option on every walk; for a policy that abstains, keep those that can answer most."""
        s, n = self._setting, min(budget, self._fewest)
        trials = self._trials(self.pool, n)
        options = gather(self.pool, trials, self._given, self._measured, s)
        if self._larger is not None:
            options += larger_options(self._larger, self._selects, budget, s)
        options, notes = (options, ()) if self._risk is None else answering(options, trials, self._risk)
        counts = [2**i for i in range(1, n.bit_length()) if 2**i < n]
        return Table(
            trials=trials, options=options, signal=self._signal, bins=self._bins, counts=counts, budget=budget,
            notes=notes,
        )  # fmt: skip

    def _trials(self, pool: Pool, n: int) -> Trials:
        s = self._setting
        return Trials(
            pool.problems, n, self._selects, how=s.aggregate, orders=s.orders, seed=s.seed, extra=s.extra, batch=s.batch
        )

    def plan(self, goal: Goal, table: Table) -> Plan:
        """Return the plan that serves the goal within the table's budget, measured on the problems held out."""
        choice = self.decide(table, goal)
        full = full_of(table, np.ones(len(self._fold), dtype=bool))
        shown = self._elsewhere(table, choice, full)
        ours, alike, all_ = follow(shown, choice), follow(shown, choice.alike), shown.outcome(full, 0)
        one, trials = shown.outcome(len(shown.options) - 1, 0), shown.trials
        others = tuple(
            Alternative(strategy=table.options[i].strategy, expected=_expected(trials, shown.outcome(i, 0)))
            for i in choice.others
        )
        ladder, over_full = ladder_of(table, choice), _compared(trials, ours, all_)
        return Plan(
            budget=table.budget, price=choice.price, fixed=ladder or table.options[choice.fixed].strategy,
            stages=() if ladder else _stages(table, choice), others=others, expected=_expected(trials, ours),
            expected_fixed=_expected(trials, alike), expected_full=_expected(trials, all_),
            expected_one=_expected(trials, one), over_full=over_full,
            over_fixed=_compared(trials, ours, alike), lost_at_most=choice.lost_at_most,
            target=goal.target if goal.price is None else None, 
            notes=(*table.notes, *self._notes(goal, choice), *self._worse(choice, over_full)),
        )  # fmt: skip

    def _elsewhere(self, table: Table, choice: Choice, full: int) -> Table:
        """Return the options that are shown, and one sample as the last, on the problems that were held out."""
        trials = self._trials(self._held_out, table.trials.n)
        gates = [gate.option for point in choice.checkpoints for gate in point.gates if gate.option is not None]
        used = {choice.fixed, choice.alike.fixed, full, *choice.others, *gates}
        options = [self._moved(o, trials) if i in used else o for i, o in enumerate(table.options)]
        one = sampling(self._selects[0], 1, None, None)
        options.append(Option(name="one", strategy=one, sampling=one, at=trials.stops_at(one)))
        return replace(table, trials=trials, options=options, _eases={}, _outcomes={}, _paid={})

    def _moved(self, option: Option, trials: Trials) -> Option:
        if option.sampling is not None:
            return replace(option, at=trials.stops_at(option.sampling))
        if option.larger:
            assert self._larger_beside is not None
            return moved(option, self._larger_beside, self._selects, self._setting)
        measured = next(m for m in self._measured if m.strategy is option.strategy)
        return replace(option, recorded=recorded(measured, self._held_out))

    def _notes(self, goal: Goal, choice: Choice) -> Iterator[str]:
        problems, held = len(self.pool.problems), len(self._held_out.problems)
        if self._held_out is self.pool:
            yield "the figures are of the problems that it was fitted to, and so a little too good; hold some out"
        elif held < _FEW:
            yield f"{held} problems were held out, so the intervals are wide; {_FEW} would do"
        if goal.price is not None:
            if problems < _FEW:
                yield f"it was fitted to {problems} problems; on fewer than {_FEW} a price is often taken too high"
            return
        least = least_problems(goal.target)
        if goal.target and not choice.lost_at_most and (problems < least or choice.problems is not None):
            needed = max(least, choice.problems or 0)
            whole = math.ceil(needed * (problems + (0 if self._held_out is self.pool else held)) / problems)
            apart = "" if whole == needed else f" ({whole} in all, with those held out)"
            yield (
                f"{problems} problems are too few to promise a loss of at most {goal.target:g} with a confidence of "
                f"{goal.confidence:g}, so that it stops only where nothing can be lost; about {needed} would do"
                f"{apart}; a larger target takes fewer, and the rule stop='balanced' of a strategy takes none"
            )

    def _worse(self, choice: Choice, measured: Compared) -> Iterator[str]:
        """Say that the problems held out lost more than the bound of the fit, if the interval is above it."""
        value, most, least = (-gained for gained in measured.accuracy)
        bound, held = choice.lost_at_most, len(self._held_out.problems)
        if bound is not None and least > bound + 1e-9 and self._held_out is not self.pool:
            yield (
                f"the {held} problems held out lost {value:.3f} ({least:.3f} to {most:.3f}), more than the fit's bound "
                f"of {bound:.3f}: about one time in ten that is chance; if they are like those of the fit, fit it to "
                "more problems, or take a smaller target"
            )

    def decide(self, table: Table, goal: Goal) -> Choice:
        """Return the choice for a goal; bins of difficulty only where they paid on problems they were not chosen on."""
        choice = choose(table, np.ones(len(self._fold), dtype=bool), goal)
        if goal.price is None or not choice.checkpoints:
            return choice
        ours, alike = self.crossed(table, goal)
        return choice if (value(ours, choice.price) - value(alike, choice.price)).mean() > 0 else choice.alike

    def crossed(self, table: Table, goal: Goal) -> tuple[Outcome, Outcome]:
        """Return the outcomes of the choice and of its one strategy for all problems.

        Each problem's outcome comes from the fold that did not choose with it.
        """
        parts = []
        for part in (0, 1):
            choice = choose(table, self._fold != part, goal)
            parts.append((follow(table, choice), follow(table, choice.alike)))
        second = (self._fold == 1)[table.trials.problem]
        ours, alike = (a.where(second, b) for a, b in zip(*parts, strict=True))
        return ours, alike


_FEW = 100  # problems; an interval of accuracy is then about 0.2 wide


def ladder_of(table: Table, choice: Choice) -> Ladder | None:
    """Return a cascade to the larger model as the ladder that does the same; None if the choice is none."""
    then = next((g.option for point in choice.checkpoints for g in point.gates if g.option is not None), None)
    if then is None or not table.options[then].larger:
        return None
    (point,) = choice.checkpoints
    first = Rung(strategy=table.options[choice.fixed].strategy, enough=point.difficulty.edges[0])
    return Ladder((first, *table.options[then].strategy.rungs), signal=point.difficulty.signal)


def _stages(table: Table, choice: Choice) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            count=point.count, difficulty=point.difficulty,
            choices=tuple(None if g.option is None else table.options[g.option].strategy for g in point.gates),
        )
        for point in choice.checkpoints
    )  # fmt: skip


def _expected(trials: Trials, outcome: Outcome) -> Expected:
    from tts_plugins.metrics import clustered_bootstrap

    found: dict[str, Interval] = {}
    for name in ("right", "samples", "tokens", "rounds"):
        values = getattr(outcome, name)
        if not np.isnan(values).any():
            e = clustered_bootstrap(trials.by_problem(values))
            found["accuracy" if name == "right" else name] = (e.value, e.low, e.high)
    return Expected(**found)


def _compared(trials: Trials, ours: Outcome, other: Outcome) -> Compared:
    return Compared(
        accuracy=_paired(trials, ours.right, other.right),
        tokens=_paired(trials, other.tokens, ours.tokens, ratio=True) if ours.tokens.any() else None,
    )


def _paired(trials: Trials, first: Floats, second: Floats, **how: Any) -> Interval:
    from tts_plugins.metrics import paired_bootstrap

    e = paired_bootstrap(trials.by_problem(first), trials.by_problem(second), **how)
    return e.value, e.low, e.high
