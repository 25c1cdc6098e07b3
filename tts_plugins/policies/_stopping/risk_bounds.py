"""How much accuracy a saving may lose at most, given the evidence of some problems; and the cheapest within that.

The loss that was seen of the cheapest setting among many is biased: it was chosen because it looked small. So nothing
is promised for a mean that was seen, but for a bound on it, and settings are tested in an order that was fixed before,
from the safest on, until the first that fails (fixed-sequence testing; Angelopoulos et al. 2021, 2110.01052, "Learn
then Test"): the chance that a chosen one loses more than the target is that of a single test.
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
_STEPS = tuple(3.0 - 0.5 * i for i in range(7))  # standard errors on the safe side, beyond those of the confidence
Bools = NDArray[np.bool_]


def quantile(confidence: float, problems: int) -> float:
    """Of Student's t, one-sided, by the first term of its expansion around the normal one."""
    z = float(NormalDist().inv_cdf(confidence))
    return z + z * (z * z + 1) / (4 * max(problems - 1, 1))


def lost_at_most(lost: Any, confidence: float = CONFIDENCE, *, rare: bool, more: float = 0.0) -> float:
    """The mean loss's one-sided bound; `lost` is each problem's, `more` are standard errors besides.

    One more problem is counted than there are. By votes, an early stop gains here and loses there, and the one more
    lost as much as the worst seen, and 1 / problems at least. By scores (`rare`) it mostly can but lose, rarely and
    then all; where no problem gained, the one more is wholly lost, which for n problems without any loss gives nearly
    the exact binomial bound.
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
    """Return how many problems it takes to promise anything at all.

    With 22 problems the bound kept a target of .01 in 81 to 97 % of draws, with 40 in 92 to 95 % (simulated, at a
    confidence of 90 %): so 50 for a target of .01, and never fewer than 20.
    """
    return max(20, math.ceil(0.5 / target - 1e-9)) if target > 0 else sys.maxsize


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be chosen from: (settings, problems) of lost accuracy and of tokens.

    `lossless` settings, one at least, cannot lose, whatever the problem; for `rare` ones see `lost_at_most`.
    """

    lost: Floats
    tokens: Floats
    lossless: Bools
    rare: Bools

    def first(self, count: int) -> Settings:
        """Without those after the first `count`."""
        return Settings(**{name: values[:count] for name, values in vars(self).items()})


def cheapest(settings: Settings, target: float, confidence: float) -> int:
    """The setting of the fewest tokens whose loss stays within the target with that confidence.

    Which of many is cheapest is a choice that itself sees the losses. So what is tested is the choice: with ever
    smaller safety margins, made on four fifths of the problems and measured on the fifth that it has not seen. The
    smallest margin whose choices kept the target there is the one that chooses.
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
    """The cheapest within the target by its own bound; without `more`, the cheapest that cannot lose."""
    for i in map(int, np.argsort(s.tokens[:, rows].mean(1), kind="stable")):
        if s.lossless[i]:
            return i
        if more is not None:
            bound = lost_at_most(s.lost[i, rows], confidence, rare=bool(s.rare[i]), more=more)
            if bound <= target + 1e-9:
                return i
    raise AssertionError("no setting is lossless")  # all samples without a rule are
