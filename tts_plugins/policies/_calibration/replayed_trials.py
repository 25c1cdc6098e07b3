"""Replays strategies on recorded samples: where each stops, what it then chooses, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tts_plugins.policies._stopping.features import TIE, ahead, basis, decided
from tts_plugins.policies._stopping.token_costs import Bill, prompts_of
from tts_plugins.policies._stopping.walks import Floats, Ints, Paths, Samples, walk
from tts_plugins.policies.difficulty import Signal, predicted
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.protocols import StopRule
from tts_plugins.selection import Aggregate, Select, choose
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.types import Problem, Scored

Sampling = BestOfN | SelfConsistency
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A strategy's outcome on every walk: whether it was right (or the share), and the tokens and samples paid for."""

    right: Floats
    tokens: Floats
    samples: Floats

    def where(self, mask: Bools, other: Outcome) -> Outcome:
        """Take the other outcome where the mask is true, else this one."""
        return Outcome(
            right=np.where(mask, other.right, self.right), tokens=np.where(mask, other.tokens, self.tokens),
            samples=np.where(mask, other.samples, self.samples),
        )  # fmt: skip

    def after(self, before: Outcome) -> Outcome:
        """Add what was paid for before."""
        return Outcome(
            right=self.right, tokens=before.tokens + self.tokens, samples=before.samples + self.samples
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A strategy's mean outcome on each problem, measured elsewhere, in the pool's order."""

    right: Floats
    tokens: Floats
    samples: Floats


def select_of(strategy: Sampling) -> Select:
    """Return how the strategy chooses."""
    return "majority" if isinstance(strategy, SelfConsistency) else strategy.select


def learned_stops(rule: LearnedStopping, paths: Paths) -> Bools:
    """Return where a learned rule stops, (walks, n); `paths` were walked with a reference of 1."""
    counted = paths.tokens.cumsum(1) > 0
    state = paths.state._replace(
        length=np.where(counted & (rule.reference > 0), paths.state.length / (rule.reference or 1.0), 1.0)
    )
    functions = np.stack(np.broadcast_arrays(*basis(state, rule.n, rule.select, np)), axis=-1)
    worth = rule.weights[0] + functions @ np.array(rule.weights[1:])
    stops: Bools = ((worth <= 0) & (state.count >= rule.begin)) | np.asarray(decided(state, rule.n, rule.select))
    if rule.enough is not None:
        stops |= ahead(state, rule.select) >= rule.enough - TIE
    if rule.at_most is not None:
        stops |= state.count >= rule.at_most
    return stops


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A larger model's first `n` samples, pooled with the samples that a walk has already.

    Attributes:
        trials: walks through the larger model's pool, in the rows of the smaller model's walks.
        price: of one of its tokens, in tokens of the smaller model.
    """

    trials: Trials
    n: int
    select: Select
    price: float

    def outcome(self, small: Trials, floor: int) -> Outcome:
        """Return the outcome after `floor` samples of the smaller model; the larger model's come in one request."""
        rows = range(len(small.problem))
        chosen = [choose([*small.seen(r, floor), *self.trials.seen(r, self.n)], self.select) for r in rows]
        paid = self.trials.paid(SelfConsistency(n=self.n), np.full(len(rows), self.n), 0, self.n)
        right = np.array([float(bool(c.output.correct)) for c in chosen])
        return Outcome(right=right, tokens=self.price * paid.tokens, samples=paid.samples)


class Trials:
    """Walks of up to `n` samples through problems, the same for every strategy that is tried.

    Attributes:
        problem: (walks,), the row of each walk's problem.
        orders: walks for each problem.

    A sample costs its tokens and `extra`; a request the problem's `prompt_tokens`, for `batch` samples at most.
    """

    def __init__(
        self, problems: Sequence[PoolProblem], n: int, selects: Sequence[Select], *, how: Aggregate, orders: int,
        seed: int, extra: float, batch: int | None = None,
    ) -> None:  # fmt: skip
        self.n, self.orders = n, orders
        self.paths: Mapping[Select, Paths] = {}
        self._right: dict[Select, Floats] = {}
        for select in selects:
            samples = Samples.of(problems, n, select, how)
            paths = walk(samples, n, select, orders=orders, seed=seed, reference=1.0)
            self.paths = {**self.paths, select: paths}
            self._right[select] = paths.labels(samples.correct)
        first = next(iter(self.paths.values()))
        self.problem, self._taken = first.problem, first.taken
        self._bill = Bill(first.tokens, prompts_of(problems)[self.problem], extra=extra, batch=batch)
        self._seen = [[_scored(c, how, i) for i, c in enumerate(p.candidates)] for p in problems]

    def seen(self, row: int, count: int) -> list[Scored]:
        """Return the first samples of a walk."""
        records = self._seen[self.problem[row]]
        return [records[place] for place in self._taken[row, :count]]

    def stops_at(self, strategy: Sampling) -> Ints:
        """Return the number of samples after which the strategy stops, for each walk."""
        rule, rows = strategy.stop, len(self.problem)
        if rule is None:
            return np.full(rows, strategy.n)
        if isinstance(rule, LearnedStopping) and rule.n == self.n:
            stops = learned_stops(rule, self.paths[rule.select])
            stops[:, -1] = True
            ends: Ints = stops.argmax(1) + 1
            return ends
        return np.array([_first_stop(rule, self.seen(row, strategy.n)) for row in range(rows)])

    def decided_at(self, select: Select, n: int) -> Ints:
        """Return the number of samples, of `n`, after which the choice can no longer change, for each walk."""
        over = np.asarray(decided(self.paths[select].state, n, select)).copy()
        over[:, n - 1] = True
        ends: Ints = over.argmax(1) + 1
        return ends

    def outcome(self, strategy: Sampling, at: Ints, floor: int) -> Outcome:
        """Return the outcome of stopping at `at`, but not before `floor` samples, which are already paid for."""
        ends, rows = np.maximum(at, max(floor, 1)), np.arange(len(at))
        paid = self.paid(strategy, at, floor, self.n)
        return replace(paid, right=self._right[select_of(strategy)][rows, ends - 1])

    def paid(self, strategy: Sampling, at: Ints, start: int, until: int) -> Outcome:
        """Return what the strategy pays from `start` samples to its stop, or to `until`; `right` is left open."""
        tokens, samples = self._bill.paid(strategy, at, start, until, self.seen)
        return Outcome(right=np.zeros(len(at)), tokens=tokens, samples=samples)

    def nothing(self) -> Outcome:
        """Return the outcome before the first sample: nothing paid."""
        none = np.zeros(len(self.problem))
        return Outcome(right=none, tokens=none, samples=none)

    def elsewhere(self, recorded: Recorded) -> Outcome:
        """Return the outcome of a strategy that was measured elsewhere and uses none of these samples."""
        return Outcome(right=recorded.right[self.problem], tokens=recorded.tokens[self.problem],
                       samples=recorded.samples[self.problem])  # fmt: skip

    def eases(self, signal: Signal, count: int) -> Floats:
        """Return the predicted ease of each walk's problem after `count` samples; NaN if they say nothing."""
        found = [predicted(self.seen(row, count), signal) for row in range(len(self.problem))]
        return np.array([np.nan if ease is None else ease for ease in found])

    def by_problem(self, values: Floats) -> list[list[float]]:
        """Group a figure of each walk into one list for each problem."""
        return [list(map(float, row)) for row in values.reshape(-1, self.orders)]


def _first_stop(rule: StopRule, seen: Sequence[Scored]) -> int:
    for count in range(1, len(seen)):
        if rule(seen[:count], len(seen) - count):
            return count
    return len(seen)


def _scored(c: PoolCandidate, how: Aggregate, index: int) -> Scored:
    logprob, all_ = c.extra.get("logprob"), c.extra.get("logprobs")  # the mean over its tokens, or one for each token
    return Scored(
        _NOTHING, text=c.text or "", answer=c.answer, tokens=c.tokens, truncated=c.truncated, finished=True,
        score=c.scored(how), index=index, output=c,
        logprobs=(float(logprob),) if isinstance(logprob, int | float) else tuple(map(float, all_)) if all_ else None,
    )  # fmt: skip


_NOTHING = Problem("recorded")
