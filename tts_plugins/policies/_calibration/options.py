"""The strategies that a calibration tries: fixed numbers, the simple rules, and learned rules at many prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._calibration.measured import Measured
from tts_plugins.policies._calibration.replayed_trials import (
    Bools,
    Recorded,
    Sampling,
    Trials,
    learned_stops,
    select_of,
)
from tts_plugins.policies._calibration.table import Option
from tts_plugins.policies._stopping.token_costs import prompts_of
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.policies.plan import Larger
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate, Select
from tts_plugins.stopping import BetaConfident, Rule, Threshold, Unanimous, VoteDecided, VoteLead
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency

_PARTS = 5  # folds; a learned rule is fitted on all but one
LEARNED = tuple(10 ** (e / 4) for e in range(-13, -4))  # the price of an average candidate, in accuracy: 0.0006 to 0.06


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a pool is read.

    Attributes:
        extra: tokens that a sample costs besides its own.
        aggregate: how step scores become one score.
        orders: shuffled orders in which each problem is walked through.
        waves: the wave sizes in which strategies with a stop rule are tried.
        batch: the most samples that one request gives.
    """

    extra: float
    aggregate: Aggregate
    orders: int
    seed: int
    waves: tuple[int | None, ...]
    batch: int | None


def selects_of(pool: Pool, how: Aggregate) -> tuple[Select, ...]:
    """Return the ways to choose that a pool has the records for.

    Raises:
        DataError: some candidates have scores, and one has none; or there are neither answers nor scores.
    """
    candidates = [(p, i, c) for p in pool.problems for i, c in enumerate(p.candidates)]
    scored = [c.scored(how) is not None for _, _, c in candidates]
    answers = any(c.answer is not None for _, _, c in candidates)
    if any(scored) and not all(scored):
        p, i, _ = candidates[scored.index(False)]
        raise DataError(f"problem {p.id!r}, candidates[{i}], score: is null, and others have one; score all or none")
    if not any(scored) and not answers:
        raise DataError("the pool has neither answers nor scores: there is nothing to choose by; record either")
    found: list[Select] = ["majority"] if answers else []
    if any(scored):
        found += ["weighted", "best"] if answers else ["best"]
    return tuple(found)


def sampling(select: Select, n: int, stop: Rule | None, wave: int | None) -> Sampling:
    """Return the strategy that takes up to `n` samples and chooses by `select`."""
    own = None if stop is None else wave
    if select == "majority":
        return SelfConsistency(n=n, stop=stop, wave=own)
    return BestOfN(n=n, select="best" if select == "best" else "weighted", stop=stop, wave=own)


def simple(select: Select, n: int, waves: Sequence[int | None]) -> Iterator[Sampling]:
    """Yield the strategies that need no fit: all samples in one request, or a simple rule in each kind of waves."""
    sizes = sorted({n, *(2**i for i in range(n.bit_length()) if 2**i <= n)})
    for k in sizes:
        yield sampling(select, k, None, None)
    if select == "best":
        for k in sizes[1:]:
            for score in (1.0, 0.95, 0.9, 0.8):
                yield from (sampling(select, k, Threshold(score), wave) for wave in waves)
        return
    rules: list[Rule] = [VoteDecided(weighted=select == "weighted"), *map(VoteLead, (1, 2, 3, 4, 6))]
    rules += [*map(BetaConfident, (0.8, 0.9, 0.95)), *map(Unanimous, (2, 3, 4))]
    if select == "weighted":
        rules += [VoteLead(k, weighted=True) for k in (1, 2, 3, 4)]
    for rule in rules:
        yield from (sampling(select, n, rule, wave) for wave in waves)


def gather(
    pool: Pool, trials: Trials, given: Sequence[BaseStrategy] | None, measured: Sequence[Measured], s: Setting
) -> list[Option]:  # fmt: skip
    """Return all options with the sample after which each stops.

    Learned rules are tried only on problems that they were not fitted to.
    """
    options: list[Option] = []
    for strategy in given if given is not None else _simple(trials, s.waves):
        if not isinstance(strategy, BestOfN | SelfConsistency):
            raise ConfigurationError(
                f"calibrate: {strategy!r} cannot be tried on recorded samples; run it, and pass its outcomes as "
                "measured=[Measured(…)]"
            )
        if strategy.n <= trials.n:
            at = trials.stops_at(strategy)
            full = strategy.stop is None and strategy.n == trials.n
            options.append(Option(name=repr(strategy), strategy=strategy, sampling=strategy, at=at, full=full))
    if given is None and trials.n > 2:
        # With scores at hand, a rule that was learned on votes alone knows less.
        scored = "best" in trials.paths
        for select in (select for select in trials.paths if select != "majority" or not scored):
            options += _learned(pool, trials, select, s)
    options += [Option(name=repr(m.strategy), strategy=m.strategy, recorded=_recorded(m, pool)) for m in measured]
    if not options:
        raise ConfigurationError(f"calibrate: no strategy fits into a budget of {trials.n}; give some of smaller n")
    return options


def _simple(trials: Trials, waves: Sequence[int | None]) -> Iterator[Sampling]:
    for select in trials.paths:
        yield from simple(select, trials.n, waves)


def _learned(pool: Pool, trials: Trials, select: Select, s: Setting) -> Iterator[Option]:
    prices = _prices(pool, s)
    problems = len(pool.problems)
    part = np.empty(problems, dtype=np.int64)
    part[np.random.default_rng(s.seed + 1).permutation(problems)] = np.arange(problems) % min(_PARTS, problems)
    at = np.empty((len(prices), len(trials.problem)), dtype=np.int64)
    for out in range(int(part.max()) + 1):
        rules = _frontier(pool, part != out, trials.n, select, prices, s)
        rows = (part == out)[trials.problem]
        for i, rule in enumerate(rules):
            stops = learned_stops(rule, trials.paths[select])
            stops[:, -1] = True
            at[i, rows] = stops.argmax(1)[rows] + 1
    for i, price in enumerate(prices):
        name, rule = f"{select}, learned at {price:.3g}", replace(rules[i], price=price)
        for wave in s.waves:
            strategy = sampling(select, trials.n, rule, wave)
            yield Option(name=name, strategy=strategy, sampling=strategy, at=at[i], learned_at=price)


def _prices(pool: Pool, s: Setting) -> list[float]:
    tokens = [c.tokens or 0 for p in pool.problems for c in p.candidates]
    unit = max(sum(tokens) / len(tokens) + _beside(pool, s), 1e-9)
    return [p / unit for p in LEARNED]


def _beside(pool: Pool, s: Setting) -> float:
    """Return what a sample costs besides its own tokens when it is requested alone."""
    return s.extra + float(prompts_of(pool.problems).mean())


def _frontier(
    pool: Pool, keep: Bools, n: int, select: Select, prices: Sequence[float], s: Setting
) -> tuple[LearnedStopping, ...]:
    part = replace(pool, problems=tuple(p for p, k in zip(pool.problems, keep, strict=True) if k))
    return LearnedStopping.frontier(
        part, n=n, prices=prices, select=select, aggregate=s.aggregate, extra_tokens=_beside(pool, s), orders=s.orders,
        seed=s.seed,
    )  # fmt: skip


def _recorded(measured: Measured, pool: Pool) -> Recorded:
    tables = (measured.right, measured.tokens, measured.samples)
    for p in pool.problems:
        if any(p.id not in table for table in tables):
            raise DataError(f"measured {measured.strategy!r}: problem {p.id!r} of the pool is missing; measure it too")
    right, tokens, samples = (np.array([table[p.id] for p in pool.problems], dtype=float) for table in tables)
    return Recorded(right=right, tokens=tokens, samples=samples)


def settled(option: Option, pool: Pool, s: Setting) -> BaseStrategy | Larger:
    """Return the option's strategy as it is to run, with a learned rule fitted again to all problems."""
    strategy: BaseStrategy | Larger = option.strategy
    if not isinstance(strategy, BestOfN | SelfConsistency) or not isinstance(strategy.stop, LearnedStopping):
        return strategy
    if option.learned_at is None:
        return strategy  # a rule that the user gave is kept as it is
    everything = np.ones(len(pool.problems), dtype=np.bool_)
    # Fit at all prices, as in the trial: smoothing and ridge are chosen for all of them together.
    prices = _prices(pool, s)
    rules = _frontier(pool, everything, strategy.n, select_of(strategy), prices, s)
    found = rules[prices.index(option.learned_at)]
    return replace(strategy, stop=found)
