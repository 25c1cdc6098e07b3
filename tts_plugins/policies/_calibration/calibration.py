"""Does the work of `calibrate`: tries options on recorded samples, chooses on folds, and makes a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tts_plugins.policies._calibration.larger_model import LargerPool, larger_options
from tts_plugins.policies._calibration.measured import Measured
from tts_plugins.policies._calibration.options import Setting, gather, selects_of, settled
from tts_plugins.policies._calibration.replayed_trials import Outcome, Trials
from tts_plugins.policies._calibration.selection import choose, full_of
from tts_plugins.policies._calibration.table import Choice, Goal, Table, follow, value
from tts_plugins.policies._stopping.risk_bounds import lost_at_most
from tts_plugins.policies._stopping.walks import Floats
from tts_plugins.policies.difficulty import Signal
from tts_plugins.policies.plan import Expected, Interval, Larger, Plan, Stage
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate
from tts_plugins.strategies import BaseStrategy


class Calibration:
    """Calibrates one pool; `plan` makes the plan for one budget."""

    def __init__(
        self, pool: Pool, *, signal: Signal | None, bins: int, options: Sequence[BaseStrategy] | None,
        measured: Sequence[Measured], aggregate: Aggregate, orders: int, extra: float, seed: int,
        wave: int | Literal["auto"] | None = "auto", batch: int | None = None, larger: LargerPool | None = None,
    ) -> None:  # fmt: skip
        self.pool, self._bins, self._given, self._measured = pool, bins, options, measured
        self._larger = larger
        # Without prompts to share, waves save nothing.
        asked = any(p.prompt_tokens for each in (pool, larger and larger.pool) if each for p in each.problems)
        waves = ((1, None) if asked else (1,)) if wave == "auto" else (wave,)
        self._setting = Setting(
            extra=extra, aggregate=aggregate, orders=orders, seed=seed, waves=waves, batch=batch
        )  # fmt: skip
        self._selects = selects_of(pool, aggregate)
        self.scored = "best" in self._selects
        self._signal: Signal = signal or ("score" if self.scored else "agreement")
        order = np.random.default_rng(seed + 2).permutation(len(pool.problems))
        self._fold = np.empty(len(order), dtype=np.int64)
        self._fold[order] = np.arange(len(order)) % 2
        self._how = aggregate

    @property
    def scores(self) -> Interval | None:
        """The 1 %, 50 % and 99 % quantiles of the recorded scores; None if there are no scores."""
        if not self.scored:
            return None
        found = [c.scored(self._how) or 0.0 for p in self.pool.problems for c in p.candidates]
        low, middle, high = np.quantile(found, (0.01, 0.5, 0.99))
        return float(low), float(middle), float(high)

    def table(self, budget: int) -> Table:
        """Try every option on every walk."""
        s, n = self._setting, min(budget, self.pool.fewest)
        trials = Trials(
            self.pool.problems,
            n,
            self._selects,
            how=s.aggregate,
            orders=s.orders,
            seed=s.seed,
            extra=s.extra,
            batch=s.batch,
        )
        options = gather(self.pool, trials, self._given, self._measured, s)
        if self._larger is not None:
            options += larger_options(self._larger, self._selects, budget, s)
        counts = [2**i for i in range(1, n.bit_length()) if 2**i < n]
        return Table(trials=trials, options=options, signal=self._signal, bins=self._bins, counts=counts, budget=budget)

    def plan(self, goal: Goal, table: Table) -> Plan:
        """Return the plan that serves the goal within the table's budget, with its expected figures."""
        choice, (ours, fixed, full) = self.decide(table, goal)
        made: dict[int, BaseStrategy | Larger] = {}

        def strategy(number: int) -> BaseStrategy | Larger:
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
            budget=table.budget, price=choice.price, fixed=strategy(choice.fixed), stages=stages,
            expected=_expected(trials, ours), expected_fixed=_expected(trials, fixed),
            expected_full=_expected(trials, full), gain=_paired(trials, ours.right, fixed.right),
            saved=_ratio(trials, fixed.tokens, ours.tokens),
        )  # fmt: skip

    def decide(self, table: Table, goal: Goal) -> tuple[Choice, tuple[Outcome, Outcome, Outcome]]:
        """Return the choice for a goal, and the cross-validated outcomes of `crossed`."""
        choice = choose(table, np.ones(len(self._fold), dtype=bool), goal)
        ours, fixed, full = self.crossed(table, goal)
        if not (value(ours, choice.price) - value(fixed, choice.price)).mean() > 0:
            # Choosing by difficulty did not pay on the held-out folds, so keep one strategy for all problems.
            choice, ours = choice.alike, fixed
        elif goal.price is None and choice.checkpoints and not self._within(table, goal, ours, full):
            choice, ours = choice.alike, fixed
        return choice, (ours, fixed, full)

    def _within(self, table: Table, goal: Goal, ours: Outcome, full: Outcome) -> bool:
        """Whether choosing by difficulty keeps the target as well."""
        lost = (full.right - ours.right).reshape(-1, table.trials.orders).mean(1)
        return lost_at_most(lost, goal.confidence, rare=False) <= goal.target + 1e-9

    def crossed(self, table: Table, goal: Goal) -> tuple[Outcome, Outcome, Outcome]:
        """Return the outcomes of the policy, of its one strategy for all problems, and of all samples.

        Each problem's outcome comes from the fold that did not choose with it.
        """
        parts = []
        for part in (0, 1):
            train = self._fold != part
            choice = choose(table, train, goal)
            full = table.outcome(full_of(table, train), 0)
            parts.append((follow(table, choice), follow(table, choice.alike), full))
        second = (self._fold == 1)[table.trials.problem]
        ours, fixed, all_ = (a.where(second, b) for a, b in zip(*parts, strict=True))
        return ours, fixed, all_


def _expected(trials: Trials, outcome: Outcome) -> Expected:
    from tts_plugins.metrics import clustered_bootstrap

    parts = {name: clustered_bootstrap(trials.by_problem(getattr(outcome, name))) for name in _FIELDS}
    return Expected(**{_FIELDS[name]: (e.value, e.low, e.high) for name, e in parts.items()})


_FIELDS = {"right": "accuracy", "samples": "samples", "tokens": "tokens"}


def _paired(trials: Trials, first: Floats, second: Floats, **how: Any) -> Interval:
    from tts_plugins.metrics import paired_bootstrap

    e = paired_bootstrap(trials.by_problem(first), trials.by_problem(second), **how)
    return e.value, e.low, e.high


def _ratio(trials: Trials, first: Floats, second: Floats) -> Interval | None:
    return _paired(trials, first, second, ratio=True) if second.any() else None
