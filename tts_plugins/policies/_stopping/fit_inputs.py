"""Checks what a fit of a stop rule is given, and makes its fitter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies._base import check_list
from tts_plugins.selection import Aggregate, Select

if TYPE_CHECKING:
    from tts_plugins.policies._stopping.fitting import Fitter
    from tts_plugins.pools import Pool, PoolProblem

_SELECTS: tuple[Select, ...] = ("majority", "weighted", "best")


def fitter_of(
    records: Pool | Sequence[PoolProblem], n: int, select: Select, how: Aggregate, extra: float, confidence: float,
    orders: int, seed: int,
) -> Fitter:  # fmt: skip
    """Return a fitter of a pool's problems, or of these.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    from tts_plugins.policies._stopping.fitting import Fitter  # numpy
    from tts_plugins.pools import PoolProblem

    check_count("LearnedStopping.fit", "n", n, least=2)
    check_count("LearnedStopping.fit", "orders", orders)
    check_select(select)
    check_amount("extra_tokens", extra)
    check_confidence("LearnedStopping.fit", confidence)
    check_count("LearnedStopping.fit", "seed", seed, least=0)
    problems: Any = getattr(records, "problems", records)
    check_list("LearnedStopping.fit", "records", problems)
    if (odd := next((p for p in problems if not isinstance(p, PoolProblem)), None)) is not None:
        raise ConfigurationError(f"LearnedStopping.fit: records has {odd!r:.80}, which is not a PoolProblem")
    return Fitter(problems, n, select, how=how, orders=orders, seed=seed, extra=extra)


def check_confidence(who: str, value: object) -> None:
    """Raise unless `value` is a confidence, from 0.5 and below 1."""
    if not is_number(value) or not 0.5 <= value < 1:
        raise ConfigurationError(f"{who}: confidence={value!r} must be a number from 0.5 and below 1")


def check_amount(name: str, value: object) -> None:
    """Raise unless `value` is a number from 0."""
    if not is_number(value) or value < 0:
        raise ConfigurationError(f"LearnedStopping.fit: {name}={value!r} must be a number from 0")


def check_select(select: object) -> None:
    """Raise unless it is a way to choose."""
    if select not in _SELECTS:
        raise ConfigurationError(
            f"LearnedStopping: select={select!r} is not known; use 'majority', 'weighted' or 'best'"
        )
