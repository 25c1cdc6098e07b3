"""Optimal stopping, learned from recorded runs: goes on while one more candidate is worth its tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tts_plugins._config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import _files
from tts_plugins.policies._state import VERSION, State, basis, decided, least_decided, observe
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.selection import Aggregate, Select
from tts_plugins.stopping import Rule
from tts_plugins.types import Scored

FORMAT = "tts-stop-rule"
_SELECTS: tuple[Select, ...] = ("majority", "weighted", "best")
_PRICES = tuple(10 ** (e / 8) for e in range(-25, -9))  # of a candidate, in accuracy: 0.0007 to 0.06


@dataclass(frozen=True, kw_only=True, repr=False)
class LearnedStopping(Rule):
    """Stops when what another candidate may add is not worth its tokens, as recorded runs have shown.

    It weighs what has been seen: the count, votes or scores of the leader and the next, different answers, the best
    and the mean score, tokens so far. It also stops once nothing to come can change the choice. Make one with `fit`
    or `load`; the fields are what a fit found.

    Args:
        n: candidates at most, as in the fit; the strategy's `n` has to be the same.
        select: how the strategy chooses: "majority" (`SelfConsistency`), "weighted" or "best" (`BestOfN`).
        price: what a token costs, in accuracy: 1e-5 gives up 0.01 of accuracy to save 1,000 tokens a problem.
        reference: mean tokens of a candidate in the fit.
        begin: it never stops on its weights before so many candidates.
        weights: of the constant, then of each function of what has been seen.
        expected_accuracy, expected_tokens, expected_samples, full_accuracy: for each problem, on problems of the fit
            that the rule had not seen (cross-validated), and the accuracy of all `n`.
        model, verifier: whose runs it was fitted to.
        version: of the functions that are weighed.

    Raises:
        ConfigurationError: a field is out of range, or the version is another one.
    """

    n: int
    select: Select
    price: float
    reference: float
    begin: int
    weights: tuple[float, ...]
    expected_accuracy: float | None = None
    expected_tokens: float | None = None
    expected_samples: float | None = None
    full_accuracy: float | None = None
    model: str | None = None
    verifier: str | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigurationError(
                f"LearnedStopping: version={self.version!r} is not {VERSION}, which this release reads; fit it again"
            )
        check_count("LearnedStopping", "n", self.n)
        _check_select(self.select)
        check_count("LearnedStopping", "begin", self.begin)
        object.__setattr__(self, "weights", tuple(self.weights))
        wanted = 1 + len(basis(_START, self.n, self.select))
        if len(self.weights) != wanted or not all(map(_finite, self.weights)):
            raise ConfigurationError(f"LearnedStopping: weights must be {wanted} numbers for select={self.select!r}")
        for name in ("price", "reference"):
            if not _finite(getattr(self, name)) or getattr(self, name) < 0:
                raise ConfigurationError(f"LearnedStopping: {name}={getattr(self, name)!r} must be a number from 0")

    def __repr__(self) -> str:
        return f"LearnedStopping(n={self.n}, select={self.select!r}, price={self.price:.3g}, begin={self.begin})"

    @classmethod
    def fit(
        cls,
        records: Pool | Sequence[PoolProblem],
        *,
        n: int,
        select: Select = "majority",
        price: float | None = None,
        target: float | None = None,
        aggregate: Aggregate = "last",
        extra_tokens: float = 0.0,
        orders: int = 20,
        seed: int = 0,
    ) -> Self:
        """A rule from recorded, graded runs; needs numpy. The same records and seed give the same rule.

        Args:
            records: a pool or problems of one, with at least `n` graded candidates each. It reads `correct` here, so
                measure the rule on other problems.
            price: of a token in accuracy; or
            target: the most accuracy to lose against all `n`, such as 0.005: the dearest price that loses no more,
                by cross-validation. With few problems that estimate is rough.
            aggregate: how recorded step scores become one score.
            extra_tokens: what each candidate costs besides its own tokens: its prompt, its verification.
            orders: shuffled orders in which each problem is walked through.

        Raises:
            ConfigurationError: a setting is wrong, or there are no problems.
            DataError: a record lacks what the fit needs.
        """
        if (price is None) == (target is None):
            raise ConfigurationError("LearnedStopping.fit: give either price= or target=, not both")
        if price is not None:
            return cls.frontier(
                records, n=n, prices=[price], select=select, aggregate=aggregate, extra_tokens=extra_tokens,
                orders=orders, seed=seed,
            )[0]  # fmt: skip
        if not _finite(target) or not 0 <= (target or 0) < 1:
            raise ConfigurationError(f"LearnedStopping.fit: target={target!r} must be a number from 0 and below 1")
        rules = cls.frontier(
            records, n=n, select=select, aggregate=aggregate, extra_tokens=extra_tokens, orders=orders, seed=seed
        )
        good = [r for r in rules if (r.expected_accuracy or 0) >= (r.full_accuracy or 0) - (target or 0) - 1e-9]
        # Where not even the cheapest price holds the target, its rule loses the least that can be had.
        return min(good, key=lambda r: r.expected_tokens or 0.0) if good else rules[0]

    @classmethod
    def frontier(
        cls,
        records: Pool | Sequence[PoolProblem],
        *,
        n: int,
        prices: Sequence[float] | None = None,
        select: Select = "majority",
        aggregate: Aggregate = "last",
        extra_tokens: float = 0.0,
        orders: int = 20,
        seed: int = 0,
    ) -> tuple[Self, ...]:
        """A rule for each price, by rising price; as `fit`. `prices` left out are spread over what matters."""
        from tts_plugins.policies._fitting import Fitter  # numpy

        check_count("LearnedStopping.fit", "n", n, least=2)
        check_count("LearnedStopping.fit", "orders", orders)
        _check_select(select)
        for name, value in (("extra_tokens", extra_tokens), *(("price", p) for p in prices or ())):
            if not _finite(value) or value < 0:
                raise ConfigurationError(f"LearnedStopping.fit: {name}={value!r} must be a number from 0")
        pool = records if isinstance(records, Pool) else None
        fitter = Fitter(
            pool.problems if pool else list(records), n, select, how=aggregate, orders=orders, seed=seed,  # type: ignore[arg-type]
            extra=extra_tokens,
        )  # fmt: skip
        unit = max(fitter.reference + extra_tokens, 1e-9)
        given = [p / unit for p in _PRICES] if prices is None else sorted(prices)
        return tuple(
            cls(
                n=n, select=select, price=f.price, reference=fitter.reference, begin=f.begin, weights=f.weights,
                expected_accuracy=f.accuracy, expected_tokens=f.tokens, expected_samples=f.samples,
                full_accuracy=f.full_accuracy, model=pool.header.model if pool else None,
                verifier=pool.header.verifier if pool and select != "majority" else None,
            )
            for f in fitter.fit(given)
        )  # fmt: skip

    def suits(self, n: int, select: Select) -> None:
        """Refuse a strategy that it was not fitted for.

        Raises:
            ConfigurationError: another `n`, or another choice.
        """
        for name, mine, asked in (("n", self.n, n), ("select", self.select, select)):
            if mine != asked:
                raise ConfigurationError(
                    f"LearnedStopping: it was fitted to {name}={mine!r}, and the strategy has {asked!r}; "
                    "use the same, or fit it again"
                )

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        if not seen:
            return False
        self._check_left(seen, left)
        state = observe(seen, self.select, self.reference)
        # Candidates that failed are neither seen nor to come: what is left decides, not n.
        if decided(state, len(seen) + left, self.select):
            return True
        return len(seen) >= self.begin and self.value(state) <= 0

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """The fewest after which it could stop: by its weights not before `begin`, else when the choice is decided."""
        self._check_left(seen, left)
        state = observe(seen, self.select, self.reference) if seen else None
        return max(1, min(self.begin - len(seen), least_decided(state, len(seen) + left, self.select)))

    def value(self, state: State) -> float:
        """What going on is expected to be worth, in accuracy, after what it costs."""
        functions = basis(state, self.n, self.select)
        return self.weights[0] + math.fsum(w * f for w, f in zip(self.weights[1:], functions, strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        _files.write(path, FORMAT, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The rule in a file that `save` wrote.

        Raises:
            DataError: it is none, or of another version: names the file and the field.
        """
        return _files.read(path, FORMAT, cls, "stop rule")

    def _check_left(self, seen: Sequence[Scored], left: int) -> None:
        if len(seen) + left > self.n:
            raise ConfigurationError(
                f"LearnedStopping: it was fitted to n={self.n}, and {len(seen) + left} may come; use the same n"
            )


_START = State(*([1.0] * len(State._fields)))


def _check_select(select: object) -> None:
    if select not in _SELECTS:
        raise ConfigurationError(
            f"LearnedStopping: select={select!r} is not known; use 'majority', 'weighted' or 'best'"
        )


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
