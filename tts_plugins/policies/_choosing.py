"""Which strategy for which bin: chosen on one half of the problems, tested on the other (2408.03314, section 3.2).

The paper takes each bin's best strategy. With some tens of problems the best of many is mostly luck, so here a bin's
choice stands only where, chosen on one half and measured on the other, it beats going on as before; else there is no
gain, and the run goes on as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tts_plugins.policies._paths import Floats, Ints
from tts_plugins.policies._trials import Bools, Outcome, Recorded, Sampling, Trials
from tts_plugins.policies.difficulty import Difficulty, Signal

_LEAST = 10  # problems in a bin, below which a bootstrap knows nothing
_DOUBT = 0.05  # shared among all the bins that are tested


@dataclass(frozen=True, kw_only=True)
class Option:
    """A strategy that may be chosen: one that samples, with where it stops on each walk; or one recorded elsewhere.

    `learned_at` is the price of a learned rule, which is fitted anew to all problems once it is chosen.
    """

    name: str
    strategy: Any  # as it runs; for a learned rule, the price that it is fitted at when it is chosen
    sampling: Sampling | None = None
    at: Ints | None = None
    recorded: Recorded | None = None
    learned_at: float | None = None


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
    """The option that is best for all alike, and where bins part from it."""

    fixed: int
    price: float
    checkpoints: tuple[Checkpoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The most accuracy less the price of its tokens; or the fewest tokens, for at most `target` accuracy lost."""

    price: float | None = None
    target: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Table:
    """Options on the same walks, and how they are valued: accuracy less the price of their tokens."""

    trials: Trials
    options: Sequence[Option]
    signal: Signal
    bins: int
    counts: Sequence[int]
    _eases: dict[int, Floats] = field(default_factory=dict)
    _outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)

    def outcome(self, number: int, floor: int) -> Outcome:
        """An option's, where `floor` samples were taken before it was chosen."""
        if (number, floor) not in self._outcomes:
            o = self.options[number]
            if o.sampling is None or o.at is None:
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

    def open_at(self, number: int, count: int) -> bool:
        """Whether an option can still be chosen after `count` samples."""
        sampling = self.options[number].sampling
        return sampling is None or sampling.n >= count


def choose(table: Table, train: Bools, goal: Goal) -> Choice:
    """The best option for all problems of `train`, and for each bin at each checkpoint what beats going on."""
    rows = train[table.trials.problem]
    fixed, price = _for_all(table, train, goal)
    current = table.outcome(fixed, 0)
    going = np.full(len(rows), table.options[fixed].sampling is not None)
    made = []
    for count in table.counts:
        active = going & (current.samples > count) & ~np.isnan(table.eases(count))
        if not (active & rows).any():
            break
        point = _checkpoint(table, train, price, count, current, active)
        if any(gate.option is not None for gate in point.gates):
            made.append(point)
            current, going = _apply(table, point, current, active, going)
    return Choice(fixed=fixed, price=price, checkpoints=tuple(made))


def full_of(table: Table, train: Bools) -> int:
    """The option that takes all samples without a rule, chosen from in the way that is best on `train`."""
    rows = train[table.trials.problem]
    accuracy = [float(table.outcome(i, 0).right[rows].mean()) for i in range(len(table.options))]
    n = table.trials.n
    plain = [i for i, o in enumerate(table.options) if o.sampling and o.sampling.n == n and o.sampling.stop is None]
    return max(plain or range(len(accuracy)), key=lambda i: accuracy[i])


def _for_all(table: Table, train: Bools, goal: Goal) -> tuple[int, float]:
    """The option that is best for all alike, and the price of a token."""
    if goal.price is None:
        return _cheapest(table, train, goal.target)
    learned = [i for i, o in enumerate(table.options) if o.learned_at is not None]
    rows, orders = train[table.trials.problem], table.trials.orders
    values = np.stack([value(table.outcome(i, 0), goal.price) for i in range(len(table.options))])[:, rows]
    if not learned:
        return int(values.mean(1).argmax()), goal.price
    # A learned rule was made for this very goal, and the best of some tens of others on as many problems is mostly the
    # luckiest. Another one takes the place where its gain stands, as a bin's does.
    near = min(_apart(table.options[i], goal.price) for i in learned)
    made = [i for i in learned if _apart(table.options[i], goal.price) <= near + 1e-9]
    first = max(made, key=lambda i: float(values[i].mean()))
    gains = (values - values[first]).reshape(len(values), -1, orders).mean(2)
    gate = _gate(gains, range(len(values)), tests=1)
    return first if gate.option is None else gate.option, goal.price


def _apart(option: Option, price: float) -> float:
    return abs(math.log(max(option.learned_at or 0.0, 1e-15) / max(price, 1e-15)))


def _cheapest(table: Table, train: Bools, target: float) -> tuple[int, float]:
    rows, kept = train[table.trials.problem], list[tuple[float, int]]()
    full = table.outcome(full_of(table, train), 0)
    for i in range(len(table.options)):
        o = table.outcome(i, 0)
        lost = (o.right - full.right)[rows].reshape(-1, table.trials.orders).mean(1)
        # One standard error on the safe side: the cheapest of many is else the luckiest of them.
        doubt = float(lost.std(ddof=1)) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
        if float(lost.mean()) - doubt >= -target - 1e-9:
            kept.append((float(o.tokens[rows].mean()), i))
    tokens, fixed = min(kept)  # `full` loses nothing, so there is one
    # What the target gives up for what it saves is what a token is worth to whoever named it.
    saved = float(full.tokens[rows].mean()) - tokens
    return fixed, target / saved if saved > 0 else 0.0


def follow(table: Table, choice: Choice) -> Outcome:
    """What a choice reaches on every walk of the table."""
    current = table.outcome(choice.fixed, 0)
    going = np.full(len(current.right), table.options[choice.fixed].sampling is not None)
    for point in choice.checkpoints:
        active = going & (current.samples > point.count) & ~np.isnan(table.eases(point.count))
        current, going = _apply(table, point, current, active, going)
    return current


def _apply(table: Table, point: Checkpoint, current: Outcome, active: Bools, going: Bools) -> tuple[Outcome, Bools]:
    bins = _bins(table.eases(point.count), point.difficulty)
    for number, gate in enumerate(point.gates):
        if gate.option is not None:
            mask = active & (bins == number)
            current = current.where(mask, table.outcome(gate.option, point.count))
            if table.options[gate.option].sampling is None:
                going = going & ~mask
    return current, going


def _bins(eases: Floats, difficulty: Difficulty) -> Ints:
    found: Ints = (eases[:, None] < np.array(difficulty.edges)[None, :]).sum(1)
    return found


def _checkpoint(table: Table, train: Bools, price: float, count: int, current: Outcome, active: Bools) -> Checkpoint:
    trials = table.trials
    seen = active & train[trials.problem]
    difficulty = Difficulty.fit(list(map(float, table.eases(count)[seen])), signal=table.signal, bins=table.bins)
    bins, now = _bins(table.eases(count), difficulty), value(current, price)
    open_ = [i for i in range(len(table.options)) if table.open_at(i, count)]
    more = np.stack([value(table.outcome(i, count), price) - now for i in open_])
    gates = []
    for number in range(difficulty.bins):
        mask = seen & (bins == number)
        share = np.add.reduceat(mask, np.arange(0, len(mask), trials.orders)) > 0
        # A problem counts by the share of its walks that come to this bin.
        gains = np.add.reduceat(more * mask, np.arange(0, len(mask), trials.orders), axis=1)[:, share] / trials.orders
        gates.append(_gate(gains, open_, tests=len(table.counts) * difficulty.bins))
    return Checkpoint(count=count, difficulty=difficulty, gates=tuple(gates))


def _gate(gains: Floats, options: Sequence[int], tests: int) -> Gate:
    """Whether any option's gain over going on stands; `gains` is (options, problems of the bin)."""
    size = gains.shape[1]
    if size < _LEAST:
        return Gate(option=None, problems=size)
    halves = np.arange(size) % 2
    tested = np.empty(size)
    for half in (0, 1):
        best = int(gains[:, halves != half].mean(1).argmax())
        tested[halves == half] = gains[best, halves == half]
    final = int(gains.mean(1).argmax())
    gain, own = _interval(tested, tests), _interval(gains[final], tests)
    stands = gain[1] > 0 and own[1] > 0
    return Gate(option=options[final] if stands else None, problems=size, gain=gain)


def _interval(values: Floats, tests: int) -> tuple[float, float, float]:
    # Pure statistics, which lie in the row of those who measure; nothing of theirs is used but the function.
    from tts_plugins.bench.metrics import clustered_bootstrap

    if not values.mean() > 0:  # it cannot stand, whatever the interval
        return float(values.mean()), float(values.min()), float(values.max())
    e = clustered_bootstrap([[float(v)] for v in values], level=1 - _DOUBT / tests)
    return e.value, e.low, e.high


def value(outcome: Outcome, price: float) -> Floats:
    """Of each walk: accuracy less what its tokens cost."""
    return outcome.right - price * outcome.tokens
