"""The work of `calibrate`: options tried on walks, chosen on folds, and a plan of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tts_plugins.policies._choosing import Choice, Goal, Table, choose, follow, full_of, value
from tts_plugins.policies._options import Setting, gather, selects_of, settled
from tts_plugins.policies._paths import Floats
from tts_plugins.policies._trials import Outcome, Trials
from tts_plugins.policies.calibrate import Measured
from tts_plugins.policies.compute_optimal import Expected, Interval, Plan, Stage
from tts_plugins.policies.difficulty import Signal
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate
from tts_plugins.strategies import BaseStrategy


class Calibration:
    """A pool and its settings; `plan` for one budget."""

    def __init__(
        self, pool: Pool, *, signal: Signal | None, bins: int, options: Sequence[BaseStrategy] | None,
        measured: Sequence[Measured], aggregate: Aggregate, orders: int, extra: float, wave: int | None, seed: int,
    ) -> None:  # fmt: skip
        self.pool, self._bins, self._given, self._measured = pool, bins, options, measured
        self._setting = Setting(extra=extra, aggregate=aggregate, orders=orders, seed=seed, wave=wave)
        self._selects = selects_of(pool, aggregate)
        self.scored = "best" in self._selects
        self._signal: Signal = signal or ("score" if self.scored else "agreement")
        order = np.random.default_rng(seed + 2).permutation(len(pool.problems))
        self._fold = np.empty(len(order), dtype=np.int64)
        self._fold[order] = np.arange(len(order)) % 2
        self._how = aggregate

    @property
    def scores(self) -> Interval | None:
        """Low, middle and high of the recorded scores; None without any."""
        if not self.scored:
            return None
        found = [c.scored(self._how) or 0.0 for p in self.pool.problems for c in p.candidates]
        low, middle, high = np.quantile(found, (0.01, 0.5, 0.99))
        return float(low), float(middle), float(high)

    def table(self, budget: int) -> Table:
        """Every option on every walk."""
        s = self._setting
        trials = Trials(
            self.pool.problems, budget, self._selects, how=s.aggregate, orders=s.orders, seed=s.seed, extra=s.extra
        )
        options = gather(self.pool, trials, self._given, self._measured, s)
        counts = [2**i for i in range(1, budget.bit_length()) if 2**i < budget]
        return Table(trials=trials, options=options, signal=self._signal, bins=self._bins, counts=counts)

    def plan(self, goal: Goal, table: Table) -> Plan:
        """The plan that serves the goal within the table's budget, and what is to be expected of it."""
        choice, (ours, fixed, full) = self.decide(table, goal)
        made: dict[int, BaseStrategy] = {}

        def strategy(number: int) -> BaseStrategy:
            if number not in made:
                made[number] = settled(table.options[number], self.pool, self._setting)
            return made[number]

        stages = tuple(
            Stage(
                count=point.count, difficulty=point.difficulty,
                choices=tuple(None if g.option is None else strategy(g.option) for g in point.gates),
            )
            for point in choice.checkpoints
        )  # fmt: skip
        trials = table.trials
        return Plan(
            budget=table.trials.n, price=choice.price, fixed=strategy(choice.fixed), stages=stages,
            expected=_expected(trials, ours), expected_fixed=_expected(trials, fixed),
            expected_full=_expected(trials, full), gain=_paired(trials, ours.right, fixed.right),
            saved=_ratio(trials, fixed.tokens, ours.tokens),
        )  # fmt: skip

    def decide(self, table: Table, goal: Goal) -> tuple[Choice, tuple[Outcome, Outcome, Outcome]]:
        """The choice for a goal, and what `crossed` says of it."""
        choice = choose(table, np.ones(len(self._fold), dtype=bool), goal)
        ours, fixed, full = self.crossed(table, goal)
        if not (value(ours, choice.price) - value(fixed, choice.price)).mean() > 0:
            # Bins that were chosen anew on either fold have not paid on the other: the strategy for all alike remains.
            choice, ours = Choice(fixed=choice.fixed, price=choice.price), fixed
        return choice, (ours, fixed, full)

    def crossed(self, table: Table, goal: Goal) -> tuple[Outcome, Outcome, Outcome]:
        """Of the policy, its strategy for all alike, and all samples; each on the fold that did not choose it."""
        parts = []
        for part in (0, 1):
            train = self._fold != part
            choice = choose(table, train, goal)
            alike = Choice(fixed=choice.fixed, price=choice.price)
            parts.append((follow(table, choice), follow(table, alike), table.outcome(full_of(table, train), 0)))
        second = (self._fold == 1)[table.trials.problem]
        ours, fixed, full = (a.where(second, b) for a, b in zip(*parts, strict=True))
        return ours, fixed, full


def _expected(trials: Trials, outcome: Outcome) -> Expected:
    from tts_plugins.bench.metrics import clustered_bootstrap

    parts = {name: clustered_bootstrap(trials.by_problem(getattr(outcome, name))) for name in _FIELDS}
    return Expected(**{_FIELDS[name]: (e.value, e.low, e.high) for name, e in parts.items()})


_FIELDS = {"right": "accuracy", "samples": "samples", "tokens": "tokens"}


def _paired(trials: Trials, first: Floats, second: Floats, **how: Any) -> Interval:
    from tts_plugins.bench.metrics import paired_bootstrap

    e = paired_bootstrap(trials.by_problem(first), trials.by_problem(second), **how)
    return e.value, e.low, e.high


def _ratio(trials: Trials, first: Floats, second: Floats) -> Interval | None:
    return _paired(trials, first, second, ratio=True) if second.any() else None
