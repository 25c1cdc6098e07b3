"""Rules measured on walks of recorded problems: accuracy and tokens of each, problem by problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tts_plugins.metrics import Estimate, paired_bootstrap
from tts_plugins.policies import LearnedStopping
from tts_plugins.policies._calibration.replayed_trials import learned_stops
from tts_plugins.policies._stopping.features import decided
from tts_plugins.policies._stopping.walks import Paths, Samples, walk
from tts_plugins.pools import Pool
from tts_plugins.selection import Select

Stops = np.ndarray[Any, np.dtype[np.bool_]]
Table = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A setting's outcome: (problems, orders) arrays of right or wrong, samples, tokens."""

    name: str
    right: Table
    samples: Table
    tokens: Table

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def cost(self) -> float:
        return float(self.tokens.mean())

    def over(self, other: Measured) -> Estimate:
        """Paired difference in accuracy."""
        return paired_bootstrap(list(self.right), list(other.right))

    def saved(self, other: Measured) -> Estimate:
        """How many times this one's tokens the other takes, paired."""
        return paired_bootstrap(list(other.tokens), list(self.tokens), ratio=True)


class Ground:
    """Walks through the problems of a pool, on which every rule is measured alike."""

    def __init__(self, pool: Pool, n: int, select: Select, *, orders: int, seed: int) -> None:
        self.pool, self.n, self.select, self.orders = pool, n, select, orders
        self.samples = Samples.of(pool.problems, n, select, "last")
        self._seed = seed
        self.paths = self._walk(select)
        self.votes = self._walk("majority")  # the same walks, seen by their votes
        self._right = self.paths.labels(self.samples.correct)
        self._tokens = self.paths.tokens.cumsum(1)

    def _walk(self, select: Select) -> Paths:
        return walk(self.samples, self.n, select, orders=self.orders, seed=self._seed, reference=1.0)

    def measure(self, name: str, stops: Stops) -> Measured:
        """The outcome of stopping where `stops` (walks, n) first says so, and at the end."""
        ends = stops.copy()
        ends[:, -1] = True
        at, rows = ends.argmax(1), np.arange(len(ends))
        shape = (-1, self.orders)
        return Measured(
            name=name, right=self._right[rows, at].reshape(shape), samples=(at + 1.0).reshape(shape),
            tokens=self._tokens[rows, at].reshape(shape),
        )  # fmt: skip

    def fixed(self, k: int) -> Measured:
        """The first `k`, whatever they say."""
        return self.measure(f"fixed {k}", np.broadcast_to(self.paths.state.count >= k, self._right.shape))

    def learned(self, rule: LearnedStopping) -> Measured:
        """A rule that was fitted elsewhere."""
        return self.measure(f"learned {rule.price * rule.reference:.2g}", learned_stops(rule, self.paths))

    def clairvoyant(self) -> Measured:
        """Sees grades: one sample where all `n` would be wrong, else until the choice is right for the first time."""
        hopeless = self._right[:, -1:] == 0
        return self.measure("clairvoyant", np.where(hopeless, True, self._right == 1))

    def knows_hopeless(self, stops: Stops, name: str) -> Measured:
        """A simple rule that is told which walks are hopeless, and takes one sample there."""
        return self.measure(f"{name} + told hopeless", (self._right[:, -1:] == 0) | stops)

    def simple(self) -> Mapping[str, Stops]:
        """The rules of `tts_plugins.stopping` and fixed numbers, in the settings that are tried."""
        s, v = self.paths.state, self.votes.state
        out: dict[str, Stops] = {f"fixed {k}": np.broadcast_to(s.count >= k, self._right.shape) for k in _ks(self.n)}
        if self.select == "best":
            out["first pass"] = s.best >= 1.0
            for k in _ks(self.n):
                out[f"first pass, at most {k}"] = (s.best >= 1.0) | (s.count >= k)
            return out
        out["VoteDecided"] = np.asarray(decided(s, self.n, self.select))
        for k in range(1, 9):
            out[f"VoteLead({k})"] = v.votes - v.others >= k
            if self.select == "weighted":
                out[f"VoteLead({k}, weighted)"] = s.first - s.second >= k - 1e-9
        sure = np.vectorize(_beta)(v.votes, v.others)
        for p in (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99):
            out[f"BetaConfident({p})"] = (v.votes > 0) & (sure >= p)
        for w in range(2, 9):
            out[f"Unanimous({w})"] = self._unanimous(w)
        return out

    def _unanimous(self, window: int) -> Stops:
        a = self.paths.answers
        out = np.zeros(a.shape, dtype=bool)
        for t in range(window - 1, self.n):
            last = a[:, t - window + 1 : t + 1]
            out[:, t] = (last[:, 0] >= 0) & (last == last[:, :1]).all(1)
        return out


@cache
def _beta(first: float, second: float) -> float:
    n = int(first + second) + 1
    return float(sum(math.comb(n, k) for k in range(int(first) + 1)) / 2**n)


def _ks(n: int) -> list[int]:
    return [k for k in (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64) if k < n]


def joined(name: str, parts: Sequence[Measured]) -> Measured:
    """The folds' problems as one."""
    return Measured(
        name=name, right=np.concatenate([p.right for p in parts]), samples=np.concatenate([p.samples for p in parts]),
        tokens=np.concatenate([p.tokens for p in parts]),
    )  # fmt: skip


def cheapest(settings: Sequence[Measured], accuracy: float) -> Measured | None:
    """The setting of the fewest tokens that reaches an accuracy; None where none does."""
    good = [m for m in settings if m.accuracy >= accuracy - 1e-9]
    return min(good, key=lambda m: m.cost) if good else None


def frontier(settings: Sequence[Measured]) -> list[Measured]:
    """Those that no other one beats in accuracy without costing more, by rising tokens."""
    out: list[Measured] = []
    for m in sorted(settings, key=lambda m: (m.cost, -m.accuracy)):
        if not out or m.accuracy > out[-1].accuracy:
            out.append(m)
    return out


def undominated(simple: Sequence[Measured], learned: Sequence[Measured], *, mixed: bool) -> list[Measured]:
    """Simple settings that nothing learned matches: at least their accuracy for no more tokens.

    With `mixed`, two learned settings may be drawn between at random, problem by problem: the straight line that
    joins them in accuracy and tokens.
    """
    line = frontier(learned)
    costs, accuracies = [m.cost for m in line], [m.accuracy for m in line]

    def reached(cost: float) -> float:
        if cost < costs[0]:
            return -1.0
        if mixed:
            return float(np.interp(cost, costs, accuracies))
        return max(a for c, a in zip(costs, accuracies, strict=True) if c <= cost)

    return [s for s in simple if reached(s.cost) < s.accuracy - 1e-9]
