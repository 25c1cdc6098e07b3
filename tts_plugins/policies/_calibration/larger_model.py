"""Options that use a larger model's samples of the same problems, priced in tokens of the smaller model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._calibration.options import Setting, selects_of, simple
from tts_plugins.policies._calibration.replayed_trials import Beside, Recorded, Trials
from tts_plugins.policies._calibration.table import Option
from tts_plugins.policies._stopping.walks import Floats
from tts_plugins.policies.plan import Larger
from tts_plugins.pools import Pool
from tts_plugins.selection import Select


@dataclass(frozen=True, kw_only=True)
class LargerPool:
    """The larger model's samples, in the order of the smaller model's problems.

    Attributes:
        price: of one of its tokens, in tokens of the smaller model.
        extra: what a sample costs besides its own tokens and its request's prompt, in its own tokens.
    """

    pool: Pool
    price: float
    extra: float

    @classmethod
    def beside(cls, small: Pool, large: Pool, *, price: float, extra: float) -> LargerPool:
        """Match the larger model's pool to the smaller model's.

        Raises:
            DataError: a problem is missing in the larger pool, or has another prompt there.
            ConfigurationError: the pools are scored by different verifiers.
        """
        names = small.header.verifier, large.header.verifier
        if None not in names and names[0] != names[1]:
            raise ConfigurationError(
                f"calibrate: the pools are scored by {names[0]!r} and by {names[1]!r}; score both with one verifier"
            )
        by_id = {p.id: p for p in large.problems}
        for p in small.problems:
            if p.id not in by_id:
                raise DataError(f"larger: problem {p.id!r} of the smaller model's pool is missing; record it too")
            if None not in (p.prompt, by_id[p.id].prompt) and p.prompt != by_id[p.id].prompt:
                raise DataError(f"larger: problem {p.id!r}, prompt: is not that of the smaller model's pool")
        problems = tuple(by_id[p.id] for p in small.problems)
        return cls(pool=Pool(header=large.header, problems=problems), price=price, extra=extra)


def larger_options(larger: LargerPool, selects: Sequence[Select], budget: int, s: Setting) -> Iterator[Option]:
    """Return the simple strategies of the larger model, for the ways to choose that both pools have records for."""
    own = [select for select in selects_of(larger.pool, s.aggregate) if select in selects]
    if not own:
        raise DataError("larger: its pool has neither the answers nor the scores that the smaller model's has")
    n = min(budget, larger.pool.fewest)
    trials = Trials(
        larger.pool.problems, n, own, how=s.aggregate, orders=s.orders, seed=s.seed, extra=larger.extra, batch=s.batch,
    )  # fmt: skip
    for select in own:
        for strategy in simple(select, n, s.waves):
            found = trials.outcome(strategy, trials.stops_at(strategy), 0)

            def means(values: Floats) -> Floats:
                made: Floats = values.reshape(-1, s.orders).mean(1)
                return made

            recorded = Recorded(
                right=means(found.right), tokens=means(found.tokens) * larger.price, samples=means(found.samples)
            )
            yield Option(
                name=f"larger: {strategy!r}", strategy=Larger(strategy=strategy), recorded=recorded,
                full=strategy.stop is None and strategy.n == n, larger=strategy.n,
            )  # fmt: skip
    for select in own:
        for strategy in simple(select, n, s.waves):
            if strategy.stop is None:
                yield Option(
                    name=f"larger, beside: {strategy!r}", strategy=Larger(strategy=strategy, beside=True),
                    beside=Beside(trials=trials, n=strategy.n, select=select, price=larger.price), larger=strategy.n,
                )  # fmt: skip
