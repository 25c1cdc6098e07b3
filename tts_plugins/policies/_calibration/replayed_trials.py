"""Replays strategies on recorded samples: where each stops, what it then chooses, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from tts_plugins.policies._stopping.features import TIE, ahead, basis
from tts_plugins.policies._stopping.threshold_rules import share_of
from tts_plugins.policies._stopping.token_costs import Bill, Least, prompts_of
from tts_plugins.policies._stopping.walks import Bools, Floats, Ints, Paths, Samples, walk
from tts_plugins.policies.difficulty import Signal, predicted
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.protocols import StopRule
from tts_plugins.selection import Aggregate, Select, choose
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.types import Problem, Scored

Sampling = BestOfN | SelfConsistency


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A strategy's outcome on every walk: whether it was right (or the share), and what was paid for.

    Attributes:
        rounds: requests that wait for each other, so that their times add up; NaN where it is not known.
    """

    right: Floats
    tokens: Floats
    samples: Floats
    rounds: Floats

    def where(self, mask: Bools, other: Outcome) -> Outcome:
        """Take the other outcome where the mask is true, else this one."""
        return Outcome(**{name: np.where(mask, theirs, mine) for name, mine, theirs in self._with(other)})

    def after(self, before: Outcome) -> Outcome:
        """Add what was paid for before."""
        paid = {name: mine + theirs for name, mine, theirs in self._with(before)}
        return Outcome(**{**paid, "right": self.right})

    def _with(self, other: Outcome) -> Iterator[tuple[str, Floats, Floats]]:
        for f in fields(self):
            yield f.name, getattr(self, f.name), getattr(other, f.name)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A strategy's mean outcome on each problem, measured elsewhere, in the pool's order."""

    right: Floats
    tokens: Floats
    samples: Floats
    rounds: Floats


def select_of(strategy: Sampling) -> Select:
    """Return how the strategy chooses."""
    return "majority" if isinstance(strategy, SelfConsistency) else strategy.select


def learned_stops(rule: LearnedStopping, paths: Paths) -> Bools:
    """Return where a learned rule stops, (walks, n); `paths` were walked with a reference of 1."""
    counted = paths.tokens.cumsum(1) > 0
    if not rule.weights:
        return _by_numbers(rule, paths) | paths.decided(rule.n, rule.select)
    state = paths.state._replace(
        length=np.where(counted & (rule.reference > 0), paths.state.length / (rule.reference or 1.0), 1.0)
    )
    functions = np.stack(np.broadcast_arrays(*basis(state, rule.n, rule.select, np)), axis=-1)
    worth = rule.weights[0] + functions @ np.array(rule.weights[1:])
    stops: Bools = (worth <= 0) & (state.count >= rule.begin) & paths.heard
    return stops | _by_numbers(rule, paths) | paths.decided(rule.n, rule.select)


def _by_numbers(rule: LearnedStopping, paths: Paths) -> Bools:
    stops = np.zeros(paths.blanks.shape, dtype=np.bool_)
    if rule.enough is not None:
        share = share_of(np.arange(1, paths.blanks.shape[1] + 1) - paths.blanks)
        stops |= ahead(paths.state, rule.select) >= rule.enough - rule.fade * share - TIE
    if rule.at_most is not None:
        stops |= paths.state.count >= rule.at_most
    return stops & paths.heard


def least_after(rule: LearnedStopping, paths: Paths) -> Ints:
    """Return the fewest further samples after which a learned rule could stop, (walks, 0 to n samples so far)."""
    walks, n = paths.blanks.shape
    start = np.zeros((walks, 1))
    heard = np.concatenate([start, np.arange(1, n + 1) - paths.blanks], axis=1)
    lead = np.concatenate([start, np.where(paths.heard, ahead(paths.state, rule.select), 0.0)], axis=1)
    needs = [rule.begin - heard] if rule.weights else []
    if rule.select == "best":
        needs.append(np.ones_like(heard))
    else:  # after k more for the leader its lead is lead + k, and left - k may follow
        needs.append(np.floor((rule.n - np.arange(n + 1) - lead) / 2) + 1)
    if rule.at_most is not None:
        needs.append(rule.at_most - heard)
    if rule.enough is not None:
        whole = np.maximum(heard + np.arange(n + 1)[::-1], 1)
        short = rule.enough - rule.fade * heard / whole - lead - TIE
        needs.append(np.ones_like(heard) if rule.select == "best" else np.ceil(short / (1 + rule.fade / whole)))
    found: Ints = np.maximum(np.minimum.reduce(needs), 1).astype(np.int64)
    return found


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
        return replace(paid, right=right, tokens=self.price * paid.tokens)


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
            self.graded = samples.graded  # whether scores are more than a yes or a no, of the last way to choose
            paths = walk(samples, n, select, orders=orders, seed=seed, reference=1.0)
            self.paths = {**self.paths, select: paths}
            self._right[select] = paths.labels(samples.correct)
        first = next(iter(self.paths.values()))
        self.problem, self._taken = first.problem, first.taken
        self._bill = Bill(first.tokens, prompts_of(problems)[self.problem], extra=extra, batch=batch)
        self._problems, self._how = problems, how

    @cached_property
    def _seen(self) -> list[list[Scored]]:
        return [[_scored(c, self._how, i) for i, c in enumerate(p.candidates)] for p in self._problems]

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
            return _first(learned_stops(rule, self.paths[rule.select]))
        return np.array([self._first_stop(rule, row, strategy.n) for row in range(rows)])

    def _first_stop(self, rule: StopRule, row: int, n: int) -> int:
        said = [(i, c) for i, c in enumerate(self.seen(row, n), 1) if not c.output.blank]
        seen = [c for _, c in said]
        for i, (count, _) in enumerate(said, 1):
            if count < n and rule(seen[:i], n - count):
                return count
        return n

    def decided_at(self, select: Select, n: int) -> Ints:
        """Return the number of samples, of `n`, after which the choice can no longer change, for each walk."""
        return _first(self.paths[select].decided(n, select)[:, :n])

    def outcome(self, strategy: Sampling, at: Ints, floor: int) -> Outcome:
        """Return the outcome of stopping at `at`, but not before `floor` samples, which are already paid for."""
        right = self.right(strategy, np.maximum(at, max(floor, 1)))
        return replace(self.paid(strategy, at, floor, self.n), right=right)

    def right(self, strategy: Sampling, ends: Ints) -> Floats:
        """Return whether the choice among the first samples of each walk is right: 1 or 0."""
        return self._right[select_of(strategy)][np.arange(len(ends)), ends - 1]

    def paid(self, strategy: Sampling, at: Ints, start: int, until: int) -> Outcome:
        """Return what the strategy pays from `start` samples to its stop, or to `until`; `right` is left open."""
        paid = self._bill.paid(strategy, at, start, until, self._least(strategy))
        return Outcome(right=np.zeros(len(at)), **paid._asdict())

    def _least(self, strategy: Sampling) -> Least:
        rule = strategy.stop
        if isinstance(rule, LearnedStopping) and rule.n == self.n:
            needs = least_after(rule, self.paths[rule.select])
            return lambda rows, sent: needs[rows, sent]

        def asked(row: int, sent: int) -> int:
            said = [c for c in self.seen(row, sent) if not c.output.blank]
            return rule.least(said, strategy.n - sent) if rule is not None else 1

        return lambda rows, sent: np.array([asked(r, k) for r, k in zip(rows, sent, strict=True)])

    def nothing(self) -> Outcome:
        """Return the outcome before the first sample: nothing paid."""
        none = np.zeros(len(self.problem))
        return Outcome(right=none, tokens=none, samples=none, rounds=none)

    def elsewhere(self, recorded: Recorded) -> Outcome:
        """Return the outcome of a strategy that was measured elsewhere and uses none of these samples."""
        return Outcome(**{f.name: getattr(recorded, f.name)[self.problem] for f in fields(recorded)})

    def eases(self, signal: Signal, count: int) -> Floats:
        """Return the predicted ease of each walk's problem after `count` samples; NaN if they say nothing."""
        found = [predicted(self.seen(row, count), signal) for row in range(len(self.problem))]
        return np.array([np.nan if ease is None else ease for ease in found])

    def by_problem(self, values: Floats) -> list[list[float]]:
        """Group a figure of each walk into one list for each problem."""
        return [list(map(float, row)) for row in values.reshape(-1, self.orders)]


def _first(stops: Bools) -> Ints:
    """Return the number of samples at the first stop of each walk; all of them where there is none."""
    stops = stops.copy()
    stops[:, -1] = True
    ends: Ints = stops.argmax(1) + 1
    return ends


def _scored(c: PoolCandidate, how: Aggregate, index: int) -> Scored:
    logprob, all_ = c.extra.get("logprob"), c.extra.get("logprobs")  # the mean over its tokens, or one for each token
    return Scored(
        _NOTHING, text=c.text or "", answer=c.answer, tokens=c.tokens, truncated=c.truncated, finished=True,
        score=c.scored(how), index=index, output=c,
        logprobs=(float(logprob),) if isinstance(logprob, int | float) else tuple(map(float, all_)) if all_ else None,
    )  # fmt: skip


_NOTHING = Problem("recorded")
