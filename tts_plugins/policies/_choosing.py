"""Which strategy for which bin: chosen on one half of the problems, tested on the other (2408.03314, section 3.2).

The paper takes each bin's best strategy. With some tens of problems the best of many is mostly luck, so here a bin's
choice stands only where, chosen on one half and measured on the other, it beats going on as before; else there is no
gain, and the run goes on as before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tts_plugins.policies._paths import Floats, Ints
from tts_plugins.policies._promise import CONFIDENCE, Settings, cheapest
from tts_plugins.policies._trials import Beside, Bools, Outcome, Recorded, Sampling, Trials, select_of
from tts_plugins.policies.difficulty import Difficulty, Signal, quantile_edges

_EDGES = 5  # one cut less: where a cascade may part the problems
_LEAST = 10  # problems in a bin, below which a bootstrap knows nothing
_DOUBT = 0.05  # shared among all the bins that are tested


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


def choose(table: Table, train: Bools, goal: Goal) -> Choice:
    """The best option for all problems of `train`, and for each bin at each checkpoint what beats going on."""
    choice = _for_all(table, train, goal)
    if choice.checkpoints:
        return choice  # a cascade
    rows, fixed = train[table.trials.problem], choice.fixed
    current = table.outcome(fixed, 0)
    going = np.full(len(rows), table.options[fixed].sampling is not None)
    made = []
    for count in table.counts:
        active = table.looked_at(fixed, current, going, count)
        if not (active & rows).any():
            break
        point = _checkpoint(table, train, choice.price, count, current, active)
        if any(gate.option is not None for gate in point.gates):
            made.append(point)
            current, going = _apply(table, point, current, active, going)
    return replace(choice, checkpoints=tuple(made))


def full_of(table: Table, train: Bools) -> int:
    """The option that takes all samples without a rule, chosen from in the way that is best on `train`."""
    rows = train[table.trials.problem]
    plain = [i for i, o in enumerate(table.options) if o.full] or range(table.singles)
    return max(plain, key=lambda i: float(table.outcome(i, 0).right[rows].mean()))


def _for_all(table: Table, train: Bools, goal: Goal) -> Choice:
    """What is best for all alike, and the price of a token: an option, or a cascade to the larger model."""
    looks = cascades(table, train)
    if goal.price is None:
        return _cheapest(table, train, goal, looks)
    first = Choice(fixed=_worthiest(table, train, goal.price), price=goal.price)
    if looks:
        base = value(table.outcome(first.fixed, 0), goal.price)
        gains = table.by_problem([value(follow(table, c), goal.price) - base for c in looks], train)
        gate = _gate(gains, range(len(looks)), tests=1)
        if gate.option is not None:
            return replace(looks[gate.option], price=goal.price, instead=first.fixed)
    return first


def cascades(table: Table, train: Bools) -> list[Choice]:
    """The smaller model's first samples, and the larger one where they look harder than an edge."""
    rows, found = train[table.trials.problem], list[Choice]()
    options = list(enumerate(table.options))
    thens = _undominated(table, [i for i, o in options if o.larger and o.beside is None], rows)
    thens += [i for i, o in options if o.beside is not None]
    if not thens:
        return []
    for i, o in enumerate(table.options):
        first = o.sampling
        if first is None or first.stop is not None or np.isnan(table.eases(first.n)[rows]).all():
            continue
        eases = table.eases(first.n)[rows]
        for edge in quantile_edges(list(map(float, eases[~np.isnan(eases)])), _EDGES):
            look = Difficulty(signal=table.signal, edges=(edge,))
            for j in thens:
                if first.n + table.options[j].larger <= table.budget:
                    gates = (Gate(option=None, problems=0), Gate(option=j, problems=0))
                    point = Checkpoint(count=first.n, difficulty=look, gates=gates)
                    found.append(Choice(fixed=i, price=0.0, checkpoints=(point,)))
    return found


def _undominated(table: Table, options: Sequence[int], rows: Bools) -> list[int]:
    """Those that none of the others beats in accuracy without costing more."""
    means = {i: (float(o.tokens[rows].mean()), -float(o.right[rows].mean())) for i in options
             for o in (table.outcome(i, 0),)}  # fmt: skip
    found = list[int]()
    for i in sorted(options, key=lambda i: means[i]):
        if not found or means[i][1] < means[found[-1]][1] - 1e-9:
            found.append(i)
    return found


def _worthiest(table: Table, train: Bools, price: float) -> int:
    """The option that is worth most at a price."""
    learned = [i for i, o in enumerate(table.options) if o.learned_at is not None]
    values = table.by_problem([value(table.outcome(i, 0), price) for i in range(table.singles)], train)
    if not learned:
        return int(values.mean(1).argmax())
    # A learned rule was made for this very goal, and the best of some tens of others on as many problems is mostly the
    # luckiest. Another one takes the place where its gain stands, as a bin's does.
    near = min(_apart(table.options[i], price) for i in learned)
    made = [i for i in learned if _apart(table.options[i], price) <= near + 1e-9]
    first = max(made, key=lambda i: float(values[i].mean()))
    gate = _gate(values - values[first], range(len(values)), tests=1)
    return first if gate.option is None else gate.option


def _apart(option: Option, price: float) -> float:
    return abs(math.log(max(option.learned_at or 0.0, 1e-15) / max(price, 1e-15)))


def _cheapest(table: Table, train: Bools, goal: Goal, looks: Sequence[Choice]) -> Choice:
    """The fewest tokens that keep the target."""
    full_at = full_of(table, train)
    full = table.outcome(full_at, 0)
    choices = [*(Choice(fixed=i, price=0.0) for i in range(table.singles)), *looks]
    outcomes = [follow(table, c) for c in choices]
    own = [table.options[c.fixed].sampling for c in choices]
    settings = Settings(
        lost=table.by_problem([full.right - o.right for o in outcomes], train),
        tokens=table.by_problem([o.tokens for o in outcomes], train),
        lossless=np.array([not c.checkpoints and table.never_loses(c.fixed, full_at) for c in choices]),
        rare=np.array([s is not None and select_of(s) == "best" for s in own]),
    )
    found = cheapest(settings, goal.target, goal.confidence)
    single = found if found < table.singles else cheapest(settings.first(table.singles), goal.target,
                                                               goal.confidence)  # fmt: skip
    # What the target gives up for what it saves is what a token is worth to whoever named it.
    saved = float((full.tokens - outcomes[found].tokens)[train[table.trials.problem]].mean())
    return replace(choices[found], price=goal.target / saved if saved > 0 else 0.0, instead=single)


def follow(table: Table, choice: Choice) -> Outcome:
    """What a choice reaches on every walk of the table."""
    current = table.outcome(choice.fixed, 0)
    going = np.full(len(current.right), table.options[choice.fixed].sampling is not None)
    for point in choice.checkpoints:
        active = table.looked_at(choice.fixed, current, going, point.count)
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
