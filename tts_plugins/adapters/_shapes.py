"""Strategies by their bare name, for a number of candidates. Pure."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

from tts_plugins._internal.config import check_count
from tts_plugins.strategies import DVTS, BaseStrategy, BeamSearch, RecursiveAggregation, Revision


def candidates_of(strategy: Any) -> int | None:
    """How many whole answers it makes at most; None where it does not say."""
    if isinstance(strategy, Revision):
        return strategy.chains * strategy.rounds
    if isinstance(strategy, RecursiveAggregation):
        return strategy.population * strategy.loops
    n = getattr(strategy, "n", None)
    return n if isinstance(n, int) else None


def shaped(owner: str, strategy: Any, n: Any) -> BaseStrategy | None:
    """A strategy with its defaults, fitted to `n` candidates; None where it has no such number.

    Revision takes as many chains as divide n and are not more than its rounds; a recursive aggregation at most its own
    number of loops over two answers or more, which may leave one or two of n over; a beam search the greatest beam
    width that divides n, up to its own.

    Raises:
        ConfigurationError: n is not a whole number of at least 1.
    """
    check_count(owner, "n", n)
    if isinstance(strategy, Revision):
        chains = max(k for k in range(1, math.isqrt(n) + 1) if n % k == 0)
        return dataclasses.replace(strategy, chains=chains, rounds=n // chains)
    if isinstance(strategy, RecursiveAggregation):
        some = [k for k in range(2, strategy.loops + 1) if n // k > 1] or [1]
        loops = max(some, key=lambda k: (n // k * k, k))
        population = n // loops
        subset = min(strategy.subset, population, max(2, population // 2))
        return dataclasses.replace(strategy, population=population, loops=loops, subset=subset)
    if isinstance(strategy, BeamSearch | DVTS):
        width = max(k for k in range(1, strategy.beam_width + 1) if n % k == 0)
        return dataclasses.replace(strategy, n=n, beam_width=width)
    if any(field.name == "n" for field in dataclasses.fields(strategy)):
        return cast(BaseStrategy, dataclasses.replace(strategy, n=n))
    return None
