"""Optimal stopping, learned from recorded runs: sampling goes on while one more candidate is worth its tokens."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number, name_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import _json_files as _files
from tts_plugins.policies._base import check_kinds, check_list, same_name
from tts_plugins.policies._stopping.features import (
    TIE,
    VERSION,
    State,
    ahead,
    basis,
    decided,
    least_decided,
    observe,
    standing,
)
from tts_plugins.policies._stopping.fit_inputs import check_amount, check_select, fitter_of
from tts_plugins.selection import Aggregate, Select
from tts_plugins.stopping import Rule, faded
from tts_plugins.types import Scored

if TYPE_CHECKING:
    from tts_plugins.policies._stopping.fitting import Fitted, Fitter
    from tts_plugins.pools import Pool, PoolHeader, PoolProblem

FORMAT = "tts-stop-rule"
_PRICES = tuple(10 ** (e / 8) for e in range(-25, -9))  # the price of a candidate, in accuracy: 0.0007 to 0.06
_LADDER = _PRICES[::4]  # few, since each is one more test that may fail


@dataclass(frozen=True, kw_only=True, repr=False)
class LearnedStopping(Rule):
    """Stops when another candidate is not worth its tokens, as learned from recorded runs.

    A fit finds a lead, which may fade, and a cap on the candidates; or weights of what has been seen: the count, votes
    or scores of the first two answers, different answers, scores, lengths. The rule also stops once the choice is
    decided. Make one with `fit` or `load`.

    Args:
        n: candidates at most, as in the fit; the strategy's `n` has to be the same.
        select: how the strategy chooses, "majority" (`SelfConsistency`), "weighted" or "best" (`BestOfN`).
        price: what a token costs, in accuracy: 1e-5 gives up 0.01 of accuracy to save 1,000 tokens a problem.
        reference: mean tokens of a candidate in the fit.
        begin: the fewest candidates after which the weights may stop.
        weights: of the constant, then of each function of the state; none where it goes by the lead and the cap alone.
        enough: the lead (votes, summed scores) at which it stops; for "best", the score.
        fade: how much less of a lead it takes after all `n`: `enough - fade * seen / n`, as in `FadingLead`.
        at_most: the number of candidates after which it stops.
        expected_accuracy, expected_tokens, expected_samples: means over the problems of the fit, cross-validated for
            weights.
        full_accuracy: the accuracy of all `n`.
        lost_at_most: the bound on the accuracy lost against all `n`, with the fit's confidence.
        model, verifier: whose runs it was fitted to.
        version: of the functions of the state.

    Raises:
        ConfigurationError: a field is out of range, or the version is another one.
    """

    n: int
    select: Select
    price: float = 0.0
    reference: float = 0.0
    begin: int = 1
    weights: tuple[float, ...] = ()
    enough: float | None = None
    fade: float = 0.0
    at_most: int | None = None
    expected_accuracy: float | None = None
    expected_tokens: float | None = None
    expected_samples: float | None = None
    full_accuracy: float | None = None
    lost_at_most: float | None = None
    model: str | None = None
    verifier: str | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigurationError(
                f"LearnedStopping: version={self.version!r} is not {VERSION}, which this release reads; fit it again"
            )
        check_count("LearnedStopping", "n", self.n)
        check_select(self.select)
        check_count("LearnedStopping", "begin", self.begin)
        check_list("LearnedStopping", "weights", self.weights)
        object.__setattr__(self, "weights", tuple(self.weights))
        wanted = 1 + len(basis(_START, self.n, self.select))
        if len(self.weights) not in (0, wanted) or not all(map(is_number, self.weights)):
            raise ConfigurationError(
                f"LearnedStopping: weights must be {wanted} numbers for select={self.select!r}, or none"
            )
        if self.at_most is not None:
            check_count("LearnedStopping", "at_most", self.at_most)
        if self.enough is not None and not is_number(self.enough):
            raise ConfigurationError(f"LearnedStopping: enough={self.enough!r} must be a number, or None for never")
        for name in ("price", "reference", "fade"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ConfigurationError(f"LearnedStopping: {name}={getattr(self, name)!r} must be a number from 0")
        check_kinds(self)

    def __repr__(self) -> str:
        given = {"enough": self.enough, "fade": self.fade or None, "at_most": self.at_most}
        if self.weights:
            given = {"price": float(f"{self.price:.3g}"), "begin": self.begin, **given}
        shown = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"LearnedStopping(n={self.n}, select={self.select!r}{shown})"

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
        confidence: float = 0.9,
        orders: int = 200,
        seed: int = 0,
    ) -> Self:
        """Fit a rule to recorded, graded runs; needs numpy. The same records and seed give the same rule.

        Args:
            records: a pool or problems of one, with at least `n` graded candidates each. It reads `correct` here, so
                measure the rule on other problems.
            n: candidates at most, of the strategies that it is to serve.
            select: how those strategies choose: "majority", "weighted" or "best".
            price: of a token in accuracy; 0 gives up nothing, so that the rule goes on until the choice is decided; or
            target: the most accuracy to lose against all `n`, such as 0.01. Two ladders of simple rules (a lead; a lead
                that fades) are climbed from cautious to bold, each until the first rule whose `lost_at_most` is above
                the target, and the cheapest that passed is taken; learned weights only where scores make them a tenth
                cheaper. It takes max(20, 0.5 / target) problems to promise anything; with fewer, and where nothing
                passes, the rule goes on until the choice is decided, which loses nothing.
            aggregate: how recorded step scores become one score.
            extra_tokens: what each candidate costs besides its own tokens: its prompt, its verification.
            confidence: with which a target is kept, from 0.5 (an even chance) to below 1.
            orders: shuffled orders in which each problem is walked through.
            seed: of the shuffled orders.

        Raises:
            ConfigurationError: a setting is wrong, or there are no problems.
            DataError: a record lacks what the fit needs.
        """
        if (price is None) == (target is None):
            raise ConfigurationError("LearnedStopping.fit: give either price= or target=, not both")
        if price is not None:
            return cls.frontier(
                records, n=n, prices=[price], select=select, aggregate=aggregate, extra_tokens=extra_tokens,
                confidence=confidence, orders=orders, seed=seed,
            )[0]  # fmt: skip
        if not is_number(target) or not 0 <= (target or 0) < 1:
            raise ConfigurationError(f"LearnedStopping.fit: target={target!r} must be a number from 0 and below 1")
        fitter = fitter_of(records, n, select, aggregate, extra_tokens, confidence, orders, seed)
        return cls.promised(target or 0.0, confidence, fitter, _header(records), extra_tokens)

    @classmethod
    def promised(
        cls, target: float, confidence: float, fitter: Fitter, header: PoolHeader | None, extra: float = 0.0
    ) -> Self:
        """Return what `fit` finds for a target: one fitter serves many."""
        prices = [p / max(fitter.reference + extra, 1e-9) for p in _LADDER]
        return cls.of_fit(fitter.within(target, confidence, prices), fitter, header)

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
        confidence: float = 0.9,
        orders: int = 20,
        seed: int = 0,
    ) -> tuple[Self, ...]:
        """Fit a rule for each price, by rising price; see `fit`. By default, prices cover the useful range."""
        if prices is not None and not prices:
            raise ConfigurationError("LearnedStopping.fit: prices=() has none; give at least one, or leave them out")
        check_list("LearnedStopping.fit", "prices", prices or ())
        for value in prices or ():
            check_amount("price", value)
        fitter = fitter_of(records, n, select, aggregate, extra_tokens, confidence, orders, seed)
        unit = max(fitter.reference + extra_tokens, 1e-9)
        given = [p / unit for p in _PRICES] if prices is None else sorted(prices)
        return tuple(cls.of_fit(found, fitter, _header(records)) for found in fitter.fit(given, confidence))

    @classmethod
    def of_fit(cls, found: Fitted, fitter: Fitter, header: PoolHeader | None) -> Self:
        """Return the rule that a fitter found, for the model and verifier of a pool's header."""
        return cls(
            n=fitter.n, select=fitter.select, price=found.price, reference=fitter.reference, begin=found.begin,
            weights=found.weights, **found.simple._asdict(),
            expected_accuracy=found.accuracy, expected_tokens=found.tokens, expected_samples=found.samples,
            full_accuracy=found.full_accuracy, lost_at_most=found.lost_at_most,
            model=header.model if header else None,
            verifier=header.verifier if header and fitter.select != "majority" else None,
        )  # fmt: skip

    def suits(self, n: int, select: Select) -> None:
        """Raise unless the rule was fitted for such a strategy.

        Raises:
            ConfigurationError: another `n`, or another choice.
        """
        for name, mine, asked in (("n", self.n, n), ("select", self.select, select)):
            if mine != asked:
                raise ConfigurationError(
                    f"LearnedStopping: it was fitted to {name}={mine!r}, and the strategy has {asked!r}; "
                    "use the same, or fit it again"
                )

    def doubts(self, model: str, verifier: object) -> Iterator[str]:
        for kind, mine, theirs in (
            ("model", self.model, model), ("verifier", self.verifier, name_of(verifier)),
        ):  # fmt: skip
            if not same_name(mine, theirs):
                yield (
                    f"the stop rule was fitted to {kind} {mine!r}, and ran with {theirs!r}: what it promises does not "
                    "hold; fit it to that one's samples"
                )

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        if not seen:
            return False
        self._check_left(seen, left)
        state = standing(seen, self.select)
        # Failed candidates are neither seen nor left, so count what is left instead of using n.
        if decided(state, len(seen) + left, self.select):
            return True
        if self.at_most is not None and len(seen) >= self.at_most:
            return True
        if self.enough is not None:
            asked = faded(self.enough, self.fade, len(seen), left)
            if ahead(state, self.select) >= asked - TIE:
                return True
        if not self.weights or len(seen) < self.begin:
            return False
        return self.value(observe(seen, self.select, self.reference)) <= 0

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """Return the fewest further candidates after which the rule could stop."""
        self._check_left(seen, left)
        state = standing(seen, self.select) if seen else None
        counts = [self.begin - len(seen)] if self.weights else []
        counts.append(least_decided(state, len(seen) + left, self.select))
        if self.at_most is not None:
            counts.append(self.at_most - len(seen))
        if self.enough is not None:
            # One candidate adds at most 1 to a lead, while the lead that it takes fades; and may bring any score.
            lead = 0.0 if state is None else ahead(state, self.select)
            short = faded(self.enough, self.fade, len(seen), left) - lead - TIE
            step = 1 + self.fade / max(1, len(seen) + left)
            counts.append(1 if self.select == "best" else math.ceil(short / step))
        return max(1, min(counts))

    def value(self, state: State) -> float:
        """Return the expected gain of going on, in accuracy, less the price of its tokens."""
        functions = basis(state, self.n, self.select)
        return self.weights[0] + math.fsum(w * f for w, f in zip(self.weights[1:], functions, strict=True))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        _files.write(path, FORMAT, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read the rule in a file that `save` wrote.

        Raises:
            DataError: the file is not a rule, or of another version; names the file and the field.
        """
        return _files.read(path, FORMAT, cls, "stop rule")

    def _check_left(self, seen: Sequence[Scored], left: int) -> None:
        if len(seen) + left > self.n:
            raise ConfigurationError(
                f"LearnedStopping: it was fitted to n={self.n}, and {len(seen) + left} may come; use the same n"
            )


def _header(records: object) -> PoolHeader | None:
    return getattr(records, "header", None)


_START = State(*([1.0] * len(State._fields)))
