"""What a policy is chosen from: options on the same walks of recorded problems, and what a choice of them reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tts_plugins.policies._paths import Floats, Ints
from tts_plugins.policies._promise import CONFIDENCE
from tts_plugins.policies._trials import Beside, Bools, Outcome, Recorded, Sampling, Trials, select_of
from tts_plugins.policies.difficulty import Difficulty, Signal


@dataclass(frozen=True, kw_only=True)
class Option:
    """A strategy that may be chosen: one that samples, with where it stops on each walk; or one recorded elsewhere.

    `learned_at` is the price of a learned rule, which is fitted anew to all problems once it is chosen. `full` ones
    take all samples without a rule. Those of the larger model ask for `larger` samples at most.
    """

    name: str
    strategy: Any  # as it runs; for a learned rule, the price that it is fitted at when it is chosen
    sampling: Sampling | None = None
    at: Ints | None = None
    recorded: Recorded | None = None
    beside: Beside | None = None
    learned_at: float | None = None
    full: bool = False
    larger: int = 0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A bin's choice: an option's number or None, the walks' problems it saw, and its tested gain with an interval."""

    option: int | None
    problems: int
    gain: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """After `count` samples: the difficulty that is looked at, and what each of its bins goes on with."""

    count: int
    difficulty: Difficulty
    gates: tuple[Gate, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The option that is best for all alike, and where bins part from it.

    A cascade begins with an option that looks at a problem for the larger model; then `instead` is the option that is
    best for all alike without a look.
    """

    fixed: int
    price: float
    checkpoints: tuple[Checkpoint, ...] = ()
    instead: int | None = None

    @property
    def alike(self) -> Choice:
        """Without any look at the difficulty."""
        return Choice(fixed=self.fixed if self.instead is None else self.instead, price=self.price)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The most accuracy less the price of its tokens; or the fewest tokens, for at most `target` accuracy lost.

    A target is kept with the confidence.
    """

    price: float | None = None
    target: float = 0.01
    confidence: float = CONFIDENCE


@dataclass(frozen=True, kw_only=True)
class Table:
    """Options on the same walks, and how they are valued: accuracy less the price of their tokens."""

    trials: Trials
    options: Sequence[Option]
    signal: Signal
    bins: int
    counts: Sequence[int]
    budget: int
    _eases: dict[int, Floats] = field(default_factory=dict)
    _outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)

    @property
    def singles(self) -> int:
        """The first so many options stand alone; those after them go on from samples of the smaller model."""
        return next((i for i, o in enumerate(self.options) if o.beside is not None), len(self.options))

    def outcome(self, number: int, floor: int) -> Outcome:
        """An option's, where `floor` samples were taken before it was chosen."""
        if (number, floor) not in self._outcomes:
            o = self.options[number]
            if o.beside is not None:
                self._outcomes[number, floor] = o.beside.outcome(self.trials, floor)
            elif o.sampling is None or o.at is None:
                assert o.recorded is not None
                self._outcomes[number, floor] = self.trials.elsewhere(o.recorded, floor)
            else:
                self._outcomes[number, floor] = self.trials.outcome(o.sampling, o.at, floor)
        return self._outcomes[number, floor]

    def eases(self, count: int) -> Floats:
        """Of each walk after `count` samples."""
        if count not in self._eases:
            self._eases[count] = self.trials.eases(self.signal, count)
        return self._eases[count]

    def never_loses(self, number: int, full: int) -> bool:
        """Whether an option cannot choose otherwise than `full`: it goes on until the same choice is decided."""
        o, all_ = self.options[number], self.options[full]
        if o.sampling is None or o.at is None or all_.sampling is None:
            return number == full
        select = select_of(all_.sampling)
        same = select_of(o.sampling) == select and o.sampling.n == all_.sampling.n
        return same and bool((o.at >= self.trials.decided_at(select, o.sampling.n)).all())

    def open_at(self, number: int, count: int) -> bool:
        """Whether an option can still be chosen after `count` samples."""
        o = self.options[number]
        return count + o.larger <= self.budget if o.sampling is None else o.sampling.n >= count

    def looked_at(self, fixed: int, current: Outcome, going: Bools, count: int) -> Bools:
        """The walks that come to a look after `count` samples: they would go on, or have all that `fixed` asks for."""
        first = self.options[fixed].sampling
        whole = first is not None and first.stop is None and first.n == count
        looked: Bools = going & ((current.samples > count) | whole) & ~np.isnan(self.eases(count))
        return looked

    def by_problem(self, values: Sequence[Floats], train: Bools) -> Floats:
        """(values, problems of `train`), means over the walks of each."""
        rows = np.stack(values)[:, train[self.trials.problem]]
        made: Floats = rows.reshape(len(values), -1, self.trials.orders).mean(2)
        return made


def follow(table: Table, choice: Choice) -> Outcome:
    """What a choice reaches on every walk of the table."""
    current = table.outcome(choice.fixed, 0)
    going = np.full(len(current.right), table.options[choice.fixed].sampling is not None)
    for point in choice.checkpoints:
        active = table.looked_at(choice.fixed, current, going, point.count)
        current, going = apply(table, point, current, active, going)
    return current


def apply(table: Table, point: Checkpoint, current: Outcome, active: Bools, going: Bools) -> tuple[Outcome, Bools]:
    bins = bins_of(table.eases(point.count), point.difficulty)
    for number, gate in enumerate(point.gates):
        if gate.option is not None:
            mask = active & (bins == number)
            current = current.where(mask, table.outcome(gate.option, point.count))
            if table.options[gate.option].sampling is None:
                going = going & ~mask
    return current, going


def bins_of(eases: Floats, difficulty: Difficulty) -> Ints:
    found: Ints = (eases[:, None] < np.array(difficulty.edges)[None, :]).sum(1)
    return found


def value(outcome: Outcome, price: float) -> Floats:
    """Of each walk: accuracy less what its tokens cost."""
    return outcome.right - price * outcome.tokens
