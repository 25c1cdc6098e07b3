"""A pool on which stop rules are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tts_plugins.metrics import clustered_bootstrap
from tts_plugins.policies import LearnedStopping
from tts_plugins.policies._calibration.options import sampling
from tts_plugins.policies._calibration.replayed_trials import Sampling, Trials, select_of
from tts_plugins.policies._stopping.fitting import Fitter
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import Rule


class Ground:
    """A pool on which rules are measured, all on the same walks."""

    def __init__(self, pool: Pool, n: int, selects: Sequence[Select], orders: int) -> None:
        self.n = n
        self._trials = Trials(pool.problems, n, selects, how="last", orders=orders, seed=3, extra=0.0)
        self._known: dict[str, tuple[float, float]] = {}

    def measure(self, select: Select, rule: Rule) -> tuple[float, float]:
        """Accuracy lost to all samples chosen from in the same way, and how many times fewer tokens the rule took."""
        full, own = self._run(select, None), self._run(select, rule)
        return full[0] - own[0], full[1] / own[1]

    def shipped(self, select: Select, rule: Rule) -> dict[str, Any]:
        """Accuracy lost to all samples, paired by problem; times fewer samples and tokens; rounds, in its own waves."""
        full, own = (
            self._trials.outcome(s, self._trials.stops_at(s), 0)
            for s in (sampling(select, self.n, stop, None) for stop in (None, rule))
        )
        lost = clustered_bootstrap(self._trials.by_problem(full.right - own.right))
        return {
            "lost": lost.value, "interval": (lost.low, lost.high), "rounds": float(own.rounds.mean()),
            "samples": float(full.samples.mean() / own.samples.mean()),
            "tokens": float(full.tokens.mean() / own.tokens.mean()),
        }  # fmt: skip

    def beside_the_best(self, strategy: Sampling) -> tuple[float, float]:
        """The same for a strategy, beside all samples chosen from in whichever way is best here."""
        full = max((self._run(select, None) for select in self._trials.paths), key=lambda found: found[0])
        if strategy.stop is None:
            found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
            own = float(found.right.mean()), float(found.tokens.mean())
        else:
            own = self._run(select_of(strategy), strategy.stop)
        return full[0] - own[0], full[1] / own[1]

    def _run(self, select: Select, rule: Rule | None) -> tuple[float, float]:
        # Rules that differ in nothing but what they report of their fit stop at the same places.
        key = (rule.enough, rule.fade, rule.at_most, rule.weights) if isinstance(rule, LearnedStopping) else rule
        name = f"{select} {key!r}"
        if name not in self._known:
            strategy = sampling(select, self.n, rule, 1)
            found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
            self._known[name] = (float(found.right.mean()), float(found.tokens.mean()))
        return self._known[name]


def fitted(
    pool: Pool, select: Select, targets: Sequence[float], *, n: int, orders: int, confidence: float
) -> Iterator[tuple[float, LearnedStopping]]:
    """What `LearnedStopping.fit` finds for each target, from the same walks."""
    fitter = Fitter(pool.problems, n, select, how="last", orders=orders, seed=0, extra=0.0)
    for target in targets:
        yield target, LearnedStopping.promised(target, confidence, fitter, pool.header)


def geometric(values: Sequence[float]) -> float:
    """Their geometric mean."""
    return float(np.exp(np.mean(np.log(values))))
