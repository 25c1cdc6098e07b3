"""The strategies that a calibration tries: fixed numbers, ladders of simple rules, and learned rules at many prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._calibration.replayed_trials import Recorded, Sampling, Trials, select_of
from tts_plugins.policies._calibration.table import Option
from tts_plugins.policies._stopping.fitting import Fitter
from tts_plugins.policies._stopping.risk_bounds import LEAST_LEARNED
from tts_plugins.policies._stopping.threshold_rules import NEVER, ThresholdRule, ladders
from tts_plugins.policies._stopping.token_costs import prompts_of
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.policies.plan import Measured
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate, Select
from tts_plugins.stopping import Rule
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency

LEARNED = tuple(10 ** (e / 4) for e in range(-13, -4))  # the price of an average candidate, in accuracy: 0.0006 to 0.06
_NEEDS: Mapping[Select, str] = {
    "majority": "answers", "weighted": "scores and answers for all samples", "best": "scores for all samples",
}  # fmt: skip
PROMISED = LEARNED[1::2]  # few, since each is one more test that may fail


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a pool is read.

    Attributes:
        extra: tokens that a sample costs besides its own.
        aggregate: how step scores become one score.
        orders: shuffled orders in which each problem is walked through.
        waves: the wave sizes in which strategies with a stop rule are tried.
        batch: the most samples that one request gives.
        priced: whether a price is the goal, for which learned rules of many prices are tried.
        lossless: whether tokens cost nothing, so that only what cannot lose is tried.
    """

    extra: float
    aggregate: Aggregate
    orders: int
    seed: int
    waves: tuple[int | None, ...]
    batch: int | None
    priced: bool = True
    lossless: bool = False


def selects_of(pool: Pool, how: Aggregate) -> tuple[Select, ...]:
    """Return the ways to choose that a pool has the records for.

    Raises:
        DataError: there are neither answers nor scores.
    """
    candidates = [c for p in pool.problems for c in p.candidates]
    answers = any(c.answer is not None for c in candidates)
    scored = all(c.scored(how) is not None for c in candidates)
    if not scored and not answers:
        raise DataError("the pool has neither answers nor scores: there is nothing to choose by; record either")
    found: list[Select] = ["majority"] if answers else []
    if scored:
        found += ["weighted", "best"] if answers else ["best"]
    return tuple(found)


def sampling(select: Select, n: int, stop: Rule | None, wave: int | None) -> Sampling:
    """Return the strategy that takes up to `n` samples and chooses by `select`."""
    own = None if stop is None else wave
    if select == "majority":
        return SelfConsistency(n=n, stop=stop, wave=own)
    return BestOfN(n=n, select="best" if select == "best" else "weighted", stop=stop, wave=own)


def gather(
    pool: Pool, trials: Trials, given: Sequence[BaseStrategy] | None, measured: Sequence[Measured], s: Setting
) -> list[Option]:  # fmt: skip
    """Return all options with the sample after which each stops.

    Learned rules are tried only on problems that they were not fitted to.
    """
    options: list[Option] = []
    for number, strategy in enumerate(() if given is None else given):
        if not isinstance(strategy, BestOfN | SelfConsistency):
            raise ConfigurationError(
                f"calibrate: {strategy!r} cannot be tried on recorded samples; run it, and pass its outcomes as "
                "measured=[Measured(…)]"
            )
        if (select := select_of(strategy)) not in trials.paths:
            raise ConfigurationError(
                f"calibrate: {strategy!r} chooses by {select!r}, and the pool has no {_NEEDS[select]}; record them, or "
                "leave it out"
            )
        if strategy.n <= trials.n:
            options.append(_option(strategy, trials, ladder=f"given {number}", given=True))
    if given is None:
        for select in trials.paths:
            options += simple(pool, trials, select, s)
        # With scores at hand, a rule that was learned on votes alone knows less.
        scored = "best" in trials.paths
        informed = s.priced or (trials.graded and len(pool.problems) >= LEAST_LEARNED)
        for select in (select for select in trials.paths if select != "majority" or (s.priced and not scored)):
            if informed and trials.n > 2 and not s.lossless:
                options += _learned(pool, trials, select, s)
    options += [
        Option(
            name=repr(m.strategy), strategy=m.strategy, recorded=recorded(m, pool), ladder=f"measured {i}", given=True
        )
        for i, m in enumerate(measured)
    ]
    if not options:
        raise ConfigurationError(f"calibrate: no strategy fits into a budget of {trials.n}; give some of smaller n")
    return options


def simple(pool: Pool, trials: Trials, select: Select, s: Setting) -> Iterator[Option]:
    """Yield the strategies that need no fit: some samples in one request, and the ladders in each kind of waves."""
    n = trials.n
    for k in (n,) if s.lossless else sorted({n, *(2**i for i in range(n.bit_length()) if 2**i <= n)}):
        yield _option(sampling(select, k, None, None), trials)
    if n < 2:
        return
    rungs = [("decided", NEVER)]
    climbs = () if s.lossless else ladders(select, n)
    rungs += [(f"{select} {i}", rule) for i, ladder in enumerate(climbs) for rule in ladder]
    for ladder, numbers in rungs:
        rule = numbered(pool, n, select, numbers)
        for wave in s.waves:
            yield _option(sampling(select, n, rule, wave), trials, ladder=None if ladder == "decided" else ladder)


def numbered(pool: Pool, n: int, select: Select, rule: ThresholdRule) -> LearnedStopping:
    """Return the threshold rule for samples of a pool."""
    return LearnedStopping(
        n=n, select=select, **rule._asdict(), model=pool.header.model,
        verifier=None if select == "majority" else pool.header.verifier,
    )  # fmt: skip


def _option(strategy: Sampling, trials: Trials, *, ladder: str | None = None, given: bool = False) -> Option:
    return Option(
        name=repr(strategy), strategy=strategy, sampling=strategy, at=trials.stops_at(strategy), ladder=ladder,
        full=strategy.stop is None and strategy.n == trials.n, given=given,
    )  # fmt: skip


def _learned(pool: Pool, trials: Trials, select: Select, s: Setting) -> Iterator[Option]:
    # What a sample costs besides its own tokens when it is requested alone.
    extra = s.extra + float(prompts_of(pool.problems).mean())
    fitter = Fitter(pool.problems, trials.n, select, how=s.aggregate, orders=s.orders, seed=s.seed, extra=extra)
    unit = max(fitter.reference + extra, 1e-9)
    prices = [p / unit for p in (LEARNED if s.priced else PROMISED)]
    for price, found in zip(prices, fitter.fit(prices, 0.9), strict=True):
        rule = LearnedStopping.of_fit(found, fitter, pool.header)
        for wave in s.waves:
            strategy = sampling(select, trials.n, rule, wave)
            yield Option(
                name=f"{select}, learned at {price:.3g}", strategy=strategy, sampling=strategy, at=found.ends,
                learned_at=price, ladder=f"{select} learned",
            )  # fmt: skip


def recorded(measured: Measured, pool: Pool) -> Recorded:
    tables = (measured.right, measured.tokens, measured.samples)
    for p in pool.problems:
        if any(p.id not in table for table in tables):
            raise DataError(f"measured {measured.strategy!r}: problem {p.id!r} of the pool is missing; measure it too")
    right, tokens, samples = (np.array([table[p.id] for p in pool.problems], dtype=float) for table in tables)
    return Recorded(right=right, tokens=tokens, samples=samples, rounds=np.full(len(right), np.nan))
