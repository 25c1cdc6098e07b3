"""The table that a policy is chosen from: the outcomes of all options on the same walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tts_plugins.policies._calibration.replayed_trials import (
    Beside,
    Outcome,
    Recorded,
    Sampling,
    Trials,
    select_of,
)
from tts_plugins.policies._stopping.risk_bounds import CONFIDENCE
from tts_plugins.policies._stopping.walks import Bools, Floats, Ints
from tts_plugins.policies.difficulty import Difficulty, Signal
from tts_plugins.policies.ladder import Ladder
from tts_plugins.selection import Select
from tts_plugins.strategies import BestOfN, SelfConsistency


@dataclass(frozen=True, kw_only=True)
class Option:
    """A strategy that may be chosen.

    Attributes:
        at: (walks,), the number of samples after which it stops.
        recorded: its outcomes, if it was measured elsewhere instead.
        learned_at: the price of a learned rule.
        full: whether it takes all samples without a rule.
        ladder: the ladder it is a rung of: a sequence from cautious to bold, in the order of the options. The same
            rung in other waves loses the same.
        given: whether the user named it: it is tested whatever the way to choose.
        larger: the most samples that it asks of the larger model.
    """

    name: str
    strategy: Any  # as it runs
    sampling: Sampling | None = None
    at: Ints | None = None
    recorded: Recorded | None = None
    beside: Beside | None = None
    learned_at: float | None = None
    full: bool = False
    ladder: str | None = None
    given: bool = False
    larger: int = 0

    @property
    def select(self) -> Select | None:
        """How it chooses among the samples of one model; None if it was measured elsewhere."""
        strategy = self.strategy.rungs[-1].strategy if isinstance(self.strategy, Ladder) else self.strategy
        return select_of(strategy) if isinstance(strategy, BestOfN | SelfConsistency) else None


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A bin's choice: an option's number or None, how many problems it saw, and its tested gain with an interval."""

    option: int | None
    problems: int
    gain: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A look at the difficulty after `count` samples, and what each bin goes on with."""

    count: int
    difficulty: Difficulty
    gates: tuple[Gate, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best option for all problems, and the checkpoints where bins depart from it.

    In a cascade, `instead` is the best option that never asks the larger model.

    Attributes:
        lost_at_most: the bound on its loss, where a target was the goal; problems: how many would do for a bolder one.
        others: the best option in each other kind of waves.
    """

    fixed: int
    price: float
    checkpoints: tuple[Checkpoint, ...] = ()
    instead: int | None = None
    lost_at_most: float | None = None
    problems: int | None = None
    others: tuple[int, ...] = ()

    @property
    def alike(self) -> Choice:
        """The choice without any look at the difficulty."""
        return Choice(fixed=self.fixed if self.instead is None else self.instead, price=self.price)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to optimise: accuracy less the price of tokens, or the fewest tokens that lose at most `target`."""

    price: float | None = None
    target: float = 0.01
    confidence: float = CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Course:
    """The state of the walks after `count` samples.

    Attributes:
        current: the outcome of each walk if no further checkpoint comes.
        under: (walks,), the option that each walk follows.
        spent: what each has paid so far.
        going: whether it samples, so that a checkpoint can redirect it.
    """

    current: Outcome
    under: Ints
    spent: Outcome
    count: int
    going: Bools


@dataclass(frozen=True, kw_only=True)
class Table:
    """The outcomes of options on the same walks; `notes` say why these options."""

    trials: Trials
    options: Sequence[Option]
    signal: Signal
    bins: int
    counts: Sequence[int]
    budget: int
    notes: tuple[str, ...] = ()
    _eases: dict[int, Floats] = field(default_factory=dict)
    _outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    _paid: dict[tuple[int, int, int], Outcome] = field(default_factory=dict)

    @property
    def singles(self) -> int:
        """How many options can start a run; those after them continue from samples of the smaller model."""
        return next((i for i, o in enumerate(self.options) if o.beside is not None), len(self.options))

    def outcome(self, number: int, floor: int) -> Outcome:
        """Return an option's outcome if it is chosen after `floor` samples, which are already paid for."""
        if (number, floor) not in self._outcomes:
            o = self.options[number]
            if o.beside is not None:
                self._outcomes[number, floor] = o.beside.outcome(self.trials, floor)
            elif o.sampling is None or o.at is None:
                assert o.recorded is not None
                self._outcomes[number, floor] = self.trials.elsewhere(o.recorded)
            else:
                self._outcomes[number, floor] = self.trials.outcome(o.sampling, o.at, floor)
        return self._outcomes[number, floor]

    def paid(self, number: int, start: int, until: int) -> Outcome:
        """Return what a sampling option pays from `start` samples to `until` at most."""
        if (number, start, until) not in self._paid:
            o = self.options[number]
            assert o.sampling is not None and o.at is not None
            self._paid[number, start, until] = self.trials.paid(o.sampling, o.at, start, until)
        return self._paid[number, start, until]

    def eases(self, count: int) -> Floats:
        """Return the predicted ease of each walk's problem after `count` samples."""
        if count not in self._eases:
            self._eases[count] = self.trials.eases(self.signal, count)
        return self._eases[count]

    def never_loses(self, number: int, full: int) -> bool:
        """Whether an option always chooses as `full` does: it stops only when that choice is decided."""
        o, all_ = self.options[number], self.options[full]
        if o.sampling is None or o.at is None or all_.sampling is None:
            return number == full
        select = select_of(all_.sampling)
        same = select_of(o.sampling) == select and o.sampling.n == all_.sampling.n
        return same and bool((o.at >= self.trials.decided_at(select, o.sampling.n)).all())

    def open_at(self, number: int, count: int) -> bool:
        """Whether an option can still be chosen after `count` samples, within the budget."""
        o = self.options[number]
        return count + o.larger <= self.budget if o.sampling is None else o.sampling.n >= count

    def begun(self, number: int) -> Course:
        """Start all walks under one option."""
        rows = len(self.trials.problem)
        return Course(
            current=self.outcome(number, 0), under=np.full(rows, number), spent=self.trials.nothing(), count=0,
            going=np.full(rows, self.options[number].sampling is not None),
        )  # fmt: skip

    def paused(self, course: Course, count: int) -> Course:
        """Advance the walks to `count` samples; a wave ends there, and what follows is a new request."""
        spent, current = course.spent, course.current
        for number in map(int, np.unique(course.under[course.going])):
            own = course.going & (course.under == number)
            spent = spent.where(own, self.paid(number, course.count, count).after(spent))
            whole = self.outcome(number, count).after(spent)
            current = current.where(own, replace(whole, right=current.right))
        return replace(course, spent=spent, current=current, count=count)

    def looked_at(self, fixed: int, paused: Course) -> Bools:
        """Return the walks that a checkpoint can redirect: they would go on, or have all that `fixed` asks for."""
        first = self.options[fixed].sampling
        whole = first is not None and first.stop is None and first.n == paused.count
        more = paused.current.samples > paused.spent.samples
        looked: Bools = paused.going & (more | whole) & ~np.isnan(self.eases(paused.count))
        return looked

    def by_problem(self, values: Sequence[Floats], train: Bools) -> Floats:
        """Average over the walks of each problem: (values, problems of `train`)."""
        rows = np.stack(values)[:, train[self.trials.problem]]
        made: Floats = rows.reshape(len(values), -1, self.trials.orders).mean(2)
        return made


def follow(table: Table, choice: Choice) -> Outcome:
    """Return the outcome of a choice on every walk of the table."""
    course = table.begun(choice.fixed)
    for point in choice.checkpoints:
        paused = table.paused(course, point.count)
        course = apply(table, point, paused, table.looked_at(choice.fixed, paused))
    return course.current


def apply(table: Table, point: Checkpoint, paused: Course, active: Bools) -> Course:
    """Apply a checkpoint: the walks of a bin with a choice of its own follow that option."""
    current, under, going = paused.current, paused.under, paused.going
    bins = bins_of(table.eases(point.count), point.difficulty)
    for number, gate in enumerate(point.gates):
        if gate.option is not None:
            mask = active & (bins == number)
            current = current.where(mask, table.outcome(gate.option, point.count).after(paused.spent))
            under = np.where(mask, gate.option, under)
            if table.options[gate.option].sampling is None:
                going = going & ~mask
    return replace(paused, current=current, under=under, going=going)


def bins_of(eases: Floats, difficulty: Difficulty) -> Ints:
    found: Ints = (eases[:, None] < np.array(difficulty.edges)[None, :]).sum(1)
    return found


def value(outcome: Outcome, price: float) -> Floats:
    """Return accuracy less the price of tokens, for each walk."""
    return outcome.right - price * outcome.tokens
