"""Bounds on the accuracy that stopping early may lose, and the choice of the cheapest setting within a target.

The observed loss of the cheapest of many settings is biased: it was chosen because it looked small. So a promise is
made for an upper confidence bound on the loss. Settings are tested in an order that was fixed beforehand, from the
safest on, until the first that fails (fixed-sequence testing; Angelopoulos et al. 2021, 2110.01052, "Learn then
Test"); then the probability that the chosen setting loses more than the target is that of a single test.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_plugins.policies._stopping.walks import Floats, Ints

CONFIDENCE = 0.9
_PARTS = 5
_STEPS = tuple(3.0 - 0.5 * i for i in range(7))  # safety margins in standard errors, beyond the confidence
Bools = NDArray[np.bool_]


def quantile(confidence: float, problems: int) -> float:
    """Return the one-sided quantile of Student's t, by the first term of its expansion around the normal one."""
    z = float(NormalDist().inv_cdf(confidence))
    return z + z * (z * z + 1) / (4 * max(problems - 1, 1))


def lost_at_most(lost: Any, confidence: float = CONFIDENCE, *, rare: bool, more: float = 0.0) -> float:
    """Return a one-sided upper bound on the mean loss of accuracy.

    One pessimistic problem is added to those observed. With votes, an early stop gains on some problems and loses on
    others; the added problem loses as much as the worst observed, and at least 1 / problems. With scores (`rare`),
    stopping early can mostly only lose, rarely and then completely; if no problem gained, the added one is a complete
    loss, which for n problems without any loss nearly gives the exact binomial bound.

    Args:
        lost: (problems,), each problem's loss.
        more: standard errors added to those of the confidence.
    """
    values: Floats = np.asarray(lost, dtype=float)
    if not len(values):
        return 1.0
    worst = 1.0 if rare and (values >= 0).all() else max(float(np.abs(values).max()), 1 / len(values))
    values = np.append(values, worst)
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    bound: float = float(values.mean()) + (quantile(confidence, len(values)) + more) * error
    return min(1.0, bound)


def least_problems(target: float) -> int:
    """Return the fewest problems on which anything is promised.

    With 22 problems the bound kept a target of .01 in 81 to 97 % of draws, with 40 in 92 to 95 % (simulated, at a
    confidence of 90 %): so 50 for a target of .01, and never fewer than 20.
    """
    return max(20, math.ceil(0.5 / target - 1e-9)) if target > 0 else sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings to choose from: lost accuracy and tokens, each (settings, problems).

    At least one setting is `lossless`: it cannot lose on any problem. For `rare` see `lost_at_most`.
    """

    lost: Floats
    tokens: Floats
    lossless: Bools
    rare: Bools

    def first(self, count: int) -> Settings:
        """Return the first `count` settings."""
        return Settings(**{name: values[:count] for name, values in vars(self).items()})


def cheapest(settings: Settings, target: float, confidence: float) -> int:
    """Return the setting of fewest tokens whose loss stays within the target, with the confidence.

    Choosing the cheapest of many settings uses the losses themselves. So the choice is what is tested: it is made on
    four fifths of the problems with a safety margin, and measured on the held-out fifth. Margins shrink until one
    fails; the smallest that kept the target chooses.
    """
    problems = settings.lost.shape[1]
    part: Ints = np.random.default_rng(problems).permutation(problems) % min(_PARTS, problems)
    chosen = _pick(settings, np.ones(problems, dtype=bool), target, confidence, None)
    for more in _STEPS if problems > 1 else ():
        unseen, found = np.zeros(problems), list[int]()
        for out in range(int(part.max()) + 1):
            found.append(_pick(settings, part != out, target, confidence, more))
            unseen[part == out] = settings.lost[found[-1], part == out]
        rare = bool(settings.rare[found].any())
        if not settings.lossless[found].all() and lost_at_most(unseen, confidence, rare=rare) > target + 1e-9:
            break
        chosen = _pick(settings, np.ones(problems, dtype=bool), target, confidence, more)
    return chosen


def _pick(s: Settings, rows: Bools, target: float, confidence: float, more: float | None) -> int:
    """Return the cheapest setting whose own bound is within the target; without `more`, the cheapest lossless one."""
    for i in map(int, np.argsort(s.tokens[:, rows].mean(1), kind="stable")):
        if s.lossless[i]:
            return i
        if more is not None:
            bound = lost_at_most(s.lost[i, rows], confidence, rare=bool(s.rare[i]), more=more)
            if bound <= target + 1e-9:
                return i
    raise AssertionError("no setting is lossless")  # taking all samples is
