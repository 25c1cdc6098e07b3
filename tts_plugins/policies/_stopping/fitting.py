"""Fits stop rules to recorded problems that are walked through in many orders.

Learned weights follow Longstaff & Schwartz 2001 (least-squares Monte Carlo for optimal stopping). The gain that a walk
realises after a state under the current rule is regressed on functions of the state; the new rule goes on where the
fitted gain is above zero; repeat. A pool has few problems, and two things keep the fit from memorising them: the gain
is counted partly in calibrated probabilities of being right instead of in the grades themselves, and the strength of
that and of the ridge is chosen by cross-validation over problems. A rule of two numbers replaces the weights if it was
worth more in that cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tts_plugins.policies._stopping.features import ahead, basis
from tts_plugins.policies._stopping.regression import Solver, calibrated
from tts_plugins.policies._stopping.risk_bounds import LEAST_LEARNED, least_problems, lost_at_most, within
from tts_plugins.policies._stopping.threshold_rules import NEVER, ThresholdRule, ThresholdRules, Totals, ladders
from tts_plugins.policies._stopping.walks import Bools, Floats, Ints, Samples, walk
from tts_plugins.pools import PoolProblem
from tts_plugins.selection import Aggregate, Select

RIDGES = (0.01, 0.1, 1.0, 30.0)
SMOOTHINGS = (0.0, 0.5, 1.0)
_LEARNED_ORDERS = 10


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted rule: weights of the basis (the constant first) or none, the earliest stop, and its outcomes.

    `ends` is where it stops each walk of the fit: by weights or a grid, as fitted without the walk's problem.
    """

    price: float
    weights: tuple[float, ...]
    begin: int
    simple: ThresholdRule
    accuracy: float
    full_accuracy: float
    tokens: float
    samples: float
    lost_at_most: float
    ends: Ints


@dataclass(frozen=True, kw_only=True)
class _Features:
    """Functions of the states of walks; `counts` marks those that depend on the number of candidates alone."""

    z: Floats
    centre: Floats
    scale: Floats
    counts: Bools


class Fitter:
    """Fits rules to the walks of a pool; what all rules need is computed once."""

    def __init__(
        self, problems: Sequence[PoolProblem], n: int, select: Select, *, how: Aggregate, orders: int, seed: int,
        extra: float,
    ) -> None:  # fmt: skip
        self.n, self.select, self._orders = n, select, orders
        self._made_of = (problems, how, seed, extra)
        self._learned = dict[tuple[float, ...], list[Fitted]]()  # one fitter serves many targets
        self.samples = Samples.of(problems, n, select, how)
        used = np.arange(self.samples.tokens.shape[1]) < self.samples.sizes[:, None]
        self.reference = float(self.samples.tokens[used].mean())
        self._paths = walk(self.samples, n, select, orders=orders, seed=seed, reference=self.reference)
        self._decided = self._paths.decided(n, select)
        self._cost = self._paths.tokens + extra
        self._cumulated = self._cost.cumsum(1)
        self._right = self._paths.labels(self.samples.correct)
        self._full = self._right[:, -1].reshape(-1, orders).mean(1)
        self._thresholds = ThresholdRules(
            ahead(self._paths.state, select), np.arange(1, n + 1) - self._paths.blanks, self._decided, self._right,
            self._cumulated, orders, select,
        )  # fmt: skip
        rows = np.random.default_rng(seed + 1).permutation(len(problems))
        self._fold = np.empty(len(problems), dtype=np.int64)
        self._fold[rows] = np.arange(len(problems)) % min(5, len(problems))

    @cached_property
    def _features(self) -> _Features:
        """The standardised functions of the states, (walks, n, functions), the constant first."""
        functions = np.stack(np.broadcast_arrays(*basis(self._paths.state, self.n, self.select, np)), axis=-1)
        rows = functions[:, :-1].reshape(-1, functions.shape[-1])
        spread = rows.std(0)
        scale = np.where(spread > 1e-9, spread, np.inf)  # a function that never varied gets no weight
        scaled = (functions - rows.mean(0)) / scale
        within = functions.max(0) - functions.min(0)
        return _Features(
            z=np.concatenate([np.ones((*scaled.shape[:2], 1)), scaled], axis=-1), centre=rows.mean(0), scale=scale,
            counts=np.concatenate([[True], (within < 1e-12).all(0)]),
        )  # fmt: skip

    def fit(self, prices: Sequence[float], confidence: float) -> list[Fitted]:
        """Fit a rule for each price; smoothing and ridge are chosen once, by cross-validation over all the prices.

        Where tokens cost nothing, the rule is patient: what was learned would only seem to gain by stopping earlier.
        """
        if not any(prices):
            return [self.patient(0.0, confidence) for _ in prices]
        tried = sorted({p * f for p in prices for f in ((0.5, 1.0, 2.0) if len(prices) < 3 else (1.0,))})
        few = tried[:: max(1, len(tried) // 3)]
        # Average over some of the prices, each on its own scale.
        worth = {
            (smoothing, ridge): float(np.mean([_worth(self._thresholds.totals_at(ends), p) for p, ends in each]))
            for smoothing in SMOOTHINGS
            for ridge, each in self._validate(few, smoothing, RIDGES).items()
        }
        smoothing, ridge = max(worth, key=lambda key: worth[key])
        hard, soft = self._labels(np.arange(len(self.samples.sizes)))
        label = (1 - smoothing) * hard + smoothing * soft
        solver = Solver(self._features.z, self._decided, self._features.counts).with_ridge(ridge)
        found = dict(self._validate(prices, smoothing, (ridge,))[ridge])
        return [
            self._rule(solver, label, price, found[price], confidence) if price else self.patient(price, confidence)
            for price in prices
        ]

    def patient(self, price: float, confidence: float) -> Fitted:
        """Return the rule that goes on until the choice is decided, which loses nothing."""
        return self._fitted(price, self._thresholds.ends_of(NEVER), confidence, lossless=True)

    def within(self, target: float, confidence: float, prices: Sequence[float]) -> Fitted:
        """Return the cheapest rule that loses at most `target` accuracy, with the confidence.

        Each ladder is a sequence of tests that was fixed before: it is climbed from the cautious end until the first
        rule whose bound is above the target (fixed-sequence testing), and the ladders share the error level. What
        passed on any ladder keeps the promise, so the cheapest of all of it may be taken. Learned weights are one
        more ladder, of rising prices, where scores tell something and there are at least `LEAST_LEARNED` problems.
        Where nothing passes, the rule is patient.

        Args:
            target: accuracy to lose against all `n`, at most.
            confidence: of the promise as a whole.
            prices: of the learned ladder, rising; what a token costs, in accuracy.
        """
        safe = self.patient(prices[0], confidence)
        if len(self._fold) < least_problems(target):
            return safe
        learned = self.select != "majority" and self.samples.graded and len(self._fold) >= LEAST_LEARNED
        climbs = ladders(self.select, self.n)
        level = 1 - (1 - confidence) / (len(climbs) + learned)

        simple = (
            (self._fitted(prices[0], self._thresholds.ends_of(rule), level, simple=rule) for rule in ladder)
            for ladder in climbs
        )
        passed = [safe, *(found for ladder in simple for found in within(target, ladder, _bound))]
        best = min(passed, key=lambda found: found.tokens)
        for found in within(target, self._priced(prices, level), _bound) if learned else ():
            # The tokens of a price that was chosen are slightly optimistic, so the price must be clearly cheaper.
            if found.tokens < 0.9 * best.tokens:
                best = found
        return best

    def _priced(self, prices: Sequence[float], level: float) -> list[Fitted]:
        """Return the learned ladder, from fewer walks: a regression is slow and gains little from more."""
        key = (level, *prices)
        if key not in self._learned:
            problems, how, seed, extra = self._made_of
            few = min(self._orders, _LEARNED_ORDERS)
            fitter = self if few == self._orders else Fitter(
                problems, self.n, self.select, how=how, orders=few, seed=seed, extra=extra
            )  # fmt: skip
            self._learned[key] = fitter.fit(prices, level)
        return self._learned[key]

    def _rule(self, solver: Solver, label: Floats, price: float, ends: Ints, confidence: float) -> Fitted:
        """Return the kind of rule that was worth most on held-out problems."""
        every, grid_ends = np.arange(len(self._fold)), self._thresholds.validated(price, self._fold)
        learned, grid = self._thresholds.totals_at(ends), self._thresholds.totals_at(grid_ends)
        best = max(_worth(learned, price), _worth(grid, price))
        # By best score, stopping before the choice is decided can only lose accuracy. That none of a few problems was
        # lost is weak evidence, so count half a problem as lost.
        doubt = 0.5 / len(self._fold) if self.select == "best" else 0.0
        if _worth(self._thresholds.totals_of(NEVER), price) >= best - doubt:
            return self.patient(price, confidence)
        if _worth(grid, price) >= _worth(learned, price) - self._parsimony(learned, grid, price):
            rule = self._thresholds.rules[self._thresholds.best(price, every)]
            return self._fitted(price, grid_ends, confidence, simple=rule)
        weights = solver.improve(label, price * self._cost)
        stops = (self._features.z @ weights <= 0) | self._decided
        stops[:, -1] = True
        raw = weights[1:] / self._features.scale
        return self._fitted(
            price, ends, confidence, weights=(float(weights[0] - raw @ self._features.centre), *map(float, raw)),
            begin=int(stops.argmax(1).min()) + 1,
        )  # fmt: skip

    def _parsimony(self, seen: Totals, plain: Totals, price: float) -> float:
        """Return how much better weights must be than a rule of two numbers: for best score, one standard error.

        There all failures look alike, and weights mostly memorise which problems failed. (The one-standard-error rule;
        Breiman et al. 1984, "Classification and Regression Trees", 3.4.3.)
        """
        if self.select != "best" or len(self._fold) < 2:
            return 0.0
        apart = seen.right - plain.right - price * (seen.cost - plain.cost)
        error: float = float(apart.std(ddof=1)) / len(apart) ** 0.5
        return error

    def _fitted(
        self, price: float, ends: Ints, confidence: float, *, simple: ThresholdRule = NEVER,
        weights: tuple[float, ...] = (), begin: int | None = None, lossless: bool = False,
    ) -> Fitted:  # fmt: skip
        """Build the result; without weights, the rule stops by its two numbers only."""
        seen = self._thresholds.totals_at(ends)
        lost = 0.0 if lossless else lost_at_most(self._full - seen.right, confidence, rare=self.select == "best")
        return Fitted(
            price=price, weights=weights, begin=begin or 1,
            simple=simple, accuracy=float(seen.right.mean()), tokens=float(seen.cost.mean()),
            samples=float(seen.samples.mean()), full_accuracy=float(self._full.mean()), lost_at_most=lost,
            ends=ends,
        )  # fmt: skip

    def _labels(self, train: Ints) -> tuple[Floats, Floats]:
        return self._right, self._paths.labels(calibrated(self.samples, self.select, train))

    def _validate(
        self, prices: Sequence[float], smoothing: float, ridges: Sequence[float]
    ) -> dict[float, list[tuple[float, Ints]]]:
        """Return where rules stop each walk that were fitted without its problem: for each ridge, by price."""
        walks = len(self._paths.problem)
        made = {ridge: [(price, np.empty(walks, dtype=np.int64)) for price in prices] for ridge in ridges}
        for fold in range(int(self._fold.max()) + 1):
            out = self._fold[self._paths.problem] == fold
            train = np.flatnonzero(self._fold != fold) if self._fold.max() else np.arange(1)
            inside = np.isin(self._paths.problem, train)
            hard, soft = self._labels(train)
            label = ((1 - smoothing) * hard + smoothing * soft)[inside]
            solver = Solver(self._features.z[inside], self._decided[inside], self._features.counts)
            for ridge, by_price in made.items():
                ridged = solver.with_ridge(ridge)
                for price, ends in by_price:
                    weights = ridged.improve(label, price * self._cost[inside])
                    stops = ((self._features.z[out] @ weights <= 0) & self._paths.heard[out]) | self._decided[out]
                    stops[:, -1] = True
                    ends[out] = stops.argmax(1) + 1
        return made


def _bound(found: Fitted) -> float:
    return found.lost_at_most


def _worth(totals: Totals, price: float) -> float:
    return float((totals.right - price * totals.cost).mean())
