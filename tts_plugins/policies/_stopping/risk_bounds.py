"""Bounds on the accuracy that stopping early may lose, and the ladders of settings that are tested against them.

The observed loss of the cheapest of many settings is biased: it was chosen because it looked small. So a promise is
made for an upper confidence bound on the loss. Settings are tested in an order that was fixed beforehand, from the
safest on, until the first that fails (fixed-sequence testing; Angelopoulos et al. 2021, 2110.01052, "Learn then
Test"); then the probability that a setting which passed loses more than the target is that of a single test. Several
such ladders share the error level.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from tts_plugins.policies._stopping.walks import Floats

CONFIDENCE = 0.9
# Learned weights are a ladder of their own from so many problems on. With 50 they saved less than the simple rules at a
# target of .01 and .02 (1.45 and 1.52 times against 1.57 and 1.71, on maths with a process reward model), and their
# test takes a third of the error level; with 150 they saved more (2.29 and 2.72 against 1.69 and 1.88, drawn scores).
LEAST_LEARNED = 100
_MOST = 100_000  # problems; a bound that needs more counts as out of reach
T = TypeVar("T")


def quantile(confidence: float, problems: int) -> float:
    """Return the one-sided quantile of Student's t, by the first term of its expansion around the normal one."""
    z = float(NormalDist().inv_cdf(confidence))
    return z + z * (z * z + 1) / (4 * max(problems - 1, 1))


def lost_at_most(lost: Any, confidence: float = CONFIDENCE, *, rare: bool) -> float:
    """Return a one-sided upper bound on the mean loss of accuracy.

    One pessimistic problem is added to those observed. With votes, an early stop gains on some problems and loses on
    others; the added problem loses as much as the worst observed, and at least 1 / problems. With scores (`rare`),
    stopping early can mostly only lose, rarely and then completely; if no problem gained, the added one is a complete
    loss, which for n problems without any loss nearly gives the exact binomial bound.

    Args:
        lost: (problems,), each problem's loss.
    """
    values: Floats = np.asarray(lost, dtype=float)
    if not len(values):
        return 1.0
    worst = 1.0 if rare and (values >= 0).all() else max(float(np.abs(values).max()), 1 / len(values))
    values = np.append(values, worst)
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    bound: float = float(values.mean()) + quantile(confidence, len(values)) * error
    return min(1.0, bound)


def least_problems(target: float) -> int:
    """Return the fewest problems on which anything is promised.

    With 22 problems the bound kept a target of .01 in 81 to 97 % of draws, with 40 in 92 to 95 % (simulated, at a
    confidence of 90 %): so 50 for a target of .01, and never fewer than 20.
    """
    return max(20, math.ceil(0.5 / target - 1e-9)) if target > 0 else sys.maxsize


def within(target: float, ladder: Iterable[T], bound: Callable[[T], float]) -> Iterator[T]:
    """Climb a ladder from cautious to bold, and return its rungs up to the first whose bound is above the target."""
    return itertools.takewhile(lambda rung: bound(rung) <= target + 1e-9, ladder)


def problems_needed(lost: Any, target: float, confidence: float, *, rare: bool) -> int | None:
    """Return about how many problems would keep a setting within the target; None if no number would.

    It supposes that further problems lose as these do.
    """
    values: Floats = np.asarray(lost, dtype=float)
    least = least_problems(target)
    if not len(values) or values.mean() >= target:
        return None
    size = max(least, len(values))
    while size <= _MOST:
        if lost_at_most(np.resize(values, size), confidence, rare=rare) <= target:
            return size
        size = math.ceil(size * 1.2)
    return None
