"""Chooses the strategy for each bin of difficulty (2408.03314, section 3.2), and tests the choice on held-out problems.

The paper takes each bin's best strategy. With a few dozen problems the best of many is mostly luck. So a bin gets a
strategy of its own only if that strategy, chosen on one half of the problems, beats the common one on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tts_plugins.policies._calibration.table import (
    Checkpoint,
    Choice,
    Course,
    Gate,
    Goal,
    Option,
    Table,
    apply,
    bins_of,
    follow,
    value,
)
from tts_plugins.policies._stopping.risk_bounds import least_problems, lost_at_most, problems_needed, within
from tts_plugins.policies._stopping.walks import Bools, Floats
from tts_plugins.policies.difficulty import Difficulty, quantile_edges
from tts_plugins.selection import Select

_EDGES = 5  # a cascade may split the problems at the cuts between so many quantiles
_LEAST = 10  # the fewest problems in a bin for a bootstrap
_DOUBT = 0.05  # the error level, shared by all the bins that are tested


def choose(table: Table, train: Bools, goal: Goal) -> Choice:
    """Return the best option for all problems of `train`, and for each bin at each checkpoint what beats it."""
    choice = _for_all(table, train, goal)
    if choice.checkpoints or goal.price is None:
        return choice  # a cascade, or what keeps a target: the promise is for that alone
    rows, course = train[table.trials.problem], table.begun(choice.fixed)
    made = []
    for count in table.counts:
        paused = table.paused(course, count)
        active = table.looked_at(choice.fixed, paused)
        if not (active & rows).any():
            break
        point = _checkpoint(table, train, choice.price, paused, active)
        if any(gate.option is not None for gate in point.gates):
            made.append(point)
            course = apply(table, point, paused, active)
    return replace(choice, checkpoints=tuple(made))


def full_of(table: Table, train: Bools) -> int:
    """Return the option that takes all samples without a rule and chooses in the way that is best on `train`.

    Of equals it takes the choice by best score, which an exact check ends earliest.
    """
    rows = train[table.trials.problem]
    plain = [i for i, o in enumerate(table.options) if o.full] or range(table.singles)
    return max(
        plain, key=lambda i: (float(table.outcome(i, 0).right[rows].mean()), table.options[i].select == "best", -i)
    )


def _for_all(table: Table, train: Bools, goal: Goal) -> Choice:
    """Return what is best for all problems together: an option, or a cascade to the larger model."""
    looks = cascades(table, train)
    if goal.price is None:
        return promised(table, train, goal, looks)
    first = Choice(fixed=_worthiest(table, train, goal.price), price=goal.price)
    if looks:
        base = value(table.outcome(first.fixed, 0), goal.price)
        gains = table.by_problem([value(follow(table, c), goal.price) - base for c in looks], train)
        gate = _gate(gains, range(len(looks)), tests=1)
        if gate.option is not None:
            return replace(looks[gate.option], price=goal.price, instead=first.fixed)
    return first


def cascades(table: Table, train: Bools) -> list[Choice]:
    """Return the cascades: the smaller model's first samples, then the larger model where they look hard.

    Those of the same first samples and the same larger strategy stand together, those first that ask it most often.
    """
    rows, found = train[table.trials.problem], list[Choice]()
    options = list(enumerate(table.options))
    thens = _undominated(table, [i for i, o in options if o.larger and o.beside is None], rows)
    thens += [i for i, o in options if o.beside is not None]
    for i, o in options if thens else ():
        first = o.sampling
        if first is None or first.stop is not None or np.isnan(table.eases(first.n)[rows]).all():
            continue
        eases = table.eases(first.n)[rows]
        edges = quantile_edges(list(map(float, eases[~np.isnan(eases)])), _EDGES)
        looks = [Difficulty(signal=table.signal, edges=(edge,)) for edge in reversed(edges)]
        for j in (j for j in thens if first.n + table.options[j].larger <= table.budget):
            gates = (Gate(option=None, problems=0), Gate(option=j, problems=0))
            points = (Checkpoint(count=first.n, difficulty=look, gates=gates) for look in looks)
            found += [Choice(fixed=i, price=0.0, checkpoints=(point,)) for point in points]
    return found


def _undominated(table: Table, options: Sequence[int], rows: Bools) -> list[int]:
    """Return the options on the frontier of accuracy and tokens."""
    means = {i: (float(o.tokens[rows].mean()), -float(o.right[rows].mean())) for i in options
             for o in (table.outcome(i, 0),)}  # fmt: skip
    found = list[int]()
    for i in sorted(options, key=lambda i: means[i]):
        if not found or means[i][1] < means[found[-1]][1] - 1e-9:
            found.append(i)
    return found


def _worthiest(table: Table, train: Bools, price: float) -> int:
    """Return the option that is worth most at a price."""
    learned = [i for i, o in enumerate(table.options) if o.learned_at is not None]
    values = table.by_problem([value(table.outcome(i, 0), price) for i in range(table.singles)], train)
    rows = train[table.trials.problem]
    if not learned:  # of equals the cheapest
        worth = [(round(float(each.mean()), 9), -_tokens(table, Choice(fixed=i, price=price), rows))
                 for i, each in enumerate(values)]  # fmt: skip
        return worth.index(max(worth))
    # Prefer the learned rule, which was fitted for this price: the best of many other options on few problems is
    # mostly the luckiest. Another option replaces it only if its gain passes the test of a bin.
    near = min(_apart(table.options[i], price) for i in learned)
    made = [i for i in learned if _apart(table.options[i], price) <= near + 1e-9]
    first = max(made, key=lambda i: (round(float(values[i].mean()), 9), -table.outcome(i, 0).rounds[rows].mean()))
    gate = _gate(values - values[first], range(len(values)), tests=1)
    return first if gate.option is None else gate.option


def _apart(option: Option, price: float) -> float:
    return abs(math.log(max(option.learned_at or 0.0, 1e-15) / max(price, 1e-15)))


def promised(table: Table, train: Bools, goal: Goal, looks: Sequence[Choice]) -> Choice:
    """Return the choice of fewest tokens that keeps the target, with the confidence.

    All that is tested is compared with all samples, chosen from in the best way. Ladders share the error level, and
    each is climbed to its first rung that may lose more than the target: what passed keeps the promise, so that the
    cheapest of it may be taken.
    """
    rows, full_at = train[table.trials.problem], full_of(table, train)
    full = table.outcome(full_at, 0)
    climbs = _ladders(table, table.options[full_at].select, looks)
    level = 1 - (1 - goal.confidence) / max(1, len(climbs))

    def lost(choice: Choice) -> dict[str, Any]:
        each = table.by_problem([full.right - follow(table, choice).right], train)[0]
        return {"lost": each, "rare": table.options[choice.fixed].select == "best"}

    def bound(choice: Choice) -> float:
        return lost_at_most(**lost(choice), confidence=level)

    lossless = [i for i in range(table.singles) if i == full_at or table.never_loses(i, full_at)]
    passed = {Choice(fixed=i, price=0.0): 0.0 for i in lossless}
    if train.sum() >= least_problems(goal.target):
        passed |= {choice: bound(choice) for ladder in climbs for choice in within(goal.target, ladder, bound)}
    needed = None
    if len(passed) == len(lossless):  # nothing was promised: how many problems would do?
        found = (problems_needed(**lost(c[0]), target=goal.target, confidence=level) for c in climbs)
        needed = min((k for k in found if k is not None), default=None)
    best, single = (
        min(among, key=lambda choice: _cost(table, choice, rows))
        for among in (passed, [choice for choice in passed if not choice.checkpoints])
    )
    # The accuracy that the target gives up, divided by the tokens that it saves, is the price it puts on a token.
    saved = float(full.tokens[rows].mean()) - _tokens(table, best, rows)
    return replace(
        best, price=goal.target / saved if saved > 0 else 0.0, instead=single.fixed, lost_at_most=passed[best],
        problems=needed, others=_other_waves(table, best, passed, rows, float(full.tokens[rows].mean())),
    )  # fmt: skip


def _ladders(table: Table, select: Select | None, looks: Sequence[Choice]) -> list[list[Choice]]:
    """Return the sequences that are tested: those that choose as all samples do, or by exact checks; and the looks."""
    made: dict[object, list[Choice]] = {}
    exact = "best" in table.trials.paths and not table.trials.graded
    for i, o in enumerate(table.options[: table.singles]):
        if o.ladder is not None and (o.given or o.select == select or (exact and o.select == "best")):
            made.setdefault(o.ladder, []).append(Choice(fixed=i, price=0.0))
    for look in looks:
        first, then = table.options[look.fixed], table.options[look.checkpoints[0].gates[-1].option or 0]
        if first.select == then.select == select and (then.full or then.beside is not None):
            made.setdefault((look.fixed, then.name), []).append(look)
    return list(made.values())


def _tokens(table: Table, choice: Choice, rows: Bools) -> float:
    return float(follow(table, choice).tokens[rows].mean())


def _cost(table: Table, choice: Choice, rows: Bools) -> tuple[float, float]:
    """Return tokens, then rounds: of equally cheap choices the one that waits least."""
    outcome = follow(table, choice)
    return round(float(outcome.tokens[rows].mean()), 6), float(np.nan_to_num(outcome.rounds[rows]).mean())


def _other_waves(
    table: Table, best: Choice, passed: Iterable[Choice], rows: Bools, most: float
) -> tuple[int, ...]:  # fmt: skip
    """Return the cheapest of what passed in each other kind of waves, if it takes fewer tokens than all samples do."""
    found: dict[int | None, Choice] = {}
    for choice in sorted(passed, key=lambda choice: _cost(table, choice, rows)):
        own = table.options[choice.fixed].sampling
        cheaper = own is not None and own.stop is not None and _tokens(table, choice, rows) < most
        if own is not None and cheaper and not choice.checkpoints:
            found.setdefault(own.wave, choice)
    mine = table.options[best.fixed].sampling
    return tuple(c.fixed for wave, c in found.items() if mine is None or mine.stop is None or wave != mine.wave)


def _checkpoint(table: Table, train: Bools, price: float, paused: Course, active: Bools) -> Checkpoint:
    trials, count = table.trials, paused.count
    seen = active & train[trials.problem]
    difficulty = Difficulty.fit(list(map(float, table.eases(count)[seen])), signal=table.signal, bins=table.bins)
    bins, now = bins_of(table.eases(count), difficulty), value(paused.current, price)
    open_ = [i for i in range(len(table.options)) if not table.options[i].larger and table.open_at(i, count)]
    more = np.stack([value(table.outcome(i, count).after(paused.spent), price) - now for i in open_])
    gates = []
    for number in range(difficulty.bins):
        mask = seen & (bins == number)
        share = np.add.reduceat(mask, np.arange(0, len(mask), trials.orders)) > 0
        # A problem counts by the share of its walks that fall into this bin.
        gains = np.add.reduceat(more * mask, np.arange(0, len(mask), trials.orders), axis=1)[:, share] / trials.orders
        gates.append(_gate(gains, open_, tests=len(table.counts) * difficulty.bins))
    return Checkpoint(count=count, difficulty=difficulty, gates=tuple(gates))


def _gate(gains: Floats, options: Sequence[int], tests: int) -> Gate:
    """Test whether any option beats going on as before; `gains` is (options, problems of the bin)."""
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
    from tts_plugins.metrics import clustered_bootstrap

    if not values.mean() > 0:  # it cannot pass, whatever the interval
        return float(values.mean()), float(values.min()), float(values.max())
    e = clustered_bootstrap([[float(v)] for v in values], level=1 - _DOUBT / tests)
    return e.value, e.low, e.high
