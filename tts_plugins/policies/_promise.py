"""How much accuracy a saving may lose at most, given the evidence of some problems; and the cheapest within that.

The loss that was seen of the cheapest setting among many is biased: it was chosen because it looked small. So nothing
is promised for a mean that was seen, but for a bound on it, and settings are tested in an order that was fixed before,
from the safest on, until the first that fails (fixed-sequence testing; Angelopoulos et al. 2021, 2110.01052, "Learn
then Test"): the chance that a chosen one loses more than the target is that of a single test.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_plugins.policies._paths import Floats, Ints

CONFIDENCE = 0.9
_PARTS = 5
_STEPS = tuple(3.0 - 0.5 * i for i in range(7))  # standard errors on the safe side, beyond those of the confidence
Bools = NDArray[np.bool_]


def quantile(confidence: float, problems: int) -> float:
    """Of Student's t, one-sided, by the first term of its expansion around the normal one."""
    z = float(NormalDist().inv_cdf(confidence))
    return z + z * (z * z + 1) / (4 * max(problems - 1, 1))


def lost_at_most(lost: Any, confidence: float = CONFIDENCE, more: float = 0.0) -> float:
    """The mean loss's one-sided bound; `lost` is each problem's, `more` are standard errors besides.

    Where no problem gained, losses are rare events of one kind, of which a sample without any says little: one more
    problem counts as wholly lost. For n problems without a loss that gives nearly the exact binomial bound.
    """
    values = np.asarray(lost, dtype=float)
    if (values >= 0).all():
        values = np.append(values, 1.0)
    if len(values) < 2:
        return 1.0
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    bound: float = float(values.mean()) + (quantile(confidence, len(values)) + more) * error
    return min(1.0, bound)


def kept(bounds: Sequence[float], target: float) -> int:
    """How many of a sequence, the safest first, stay within the target before the first that does not."""
    return next((i for i, bound in enumerate(bounds) if bound > target + 1e-9), len(bounds))


def cheapest(lost: Floats, lossless: Bools, tokens: Floats, target: float, confidence: float) -> int:
    """The setting of the fewest tokens whose loss stays within the target with that confidence.

    Args:
        lost, tokens: (settings, problems); lost accuracy against all samples, and tokens paid for.
        lossless: (settings,), whether a setting cannot lose, whatever the problem; one at least.

    Which of many is cheapest is a choice that itself sees the losses. So what is tested is the choice: with ever
    smaller safety margins, made on four fifths of the problems and measured on the fifth that it has not seen. The
    smallest margin whose choices kept the target there is the one that chooses.
    """
    problems = lost.shape[1]
    part: Ints = np.random.default_rng(problems).permutation(problems) % min(_PARTS, problems)
    chosen = _pick(lost, lossless, tokens, target, confidence, np.inf)
    for more in _STEPS:
        unseen, sure = np.zeros(problems), True
        for out in range(int(part.max()) + 1 if problems > 1 else 0):
            rows = part != out
            found = _pick(lost[:, rows], lossless, tokens[:, rows], target, confidence, more)
            unseen[~rows], sure = lost[found, ~rows], sure and bool(lossless[found])
        if not sure and lost_at_most(unseen, confidence) > target + 1e-9:
            break
        chosen = _pick(lost, lossless, tokens, target, confidence, more)
    return chosen


def _pick(lost: Floats, lossless: Bools, tokens: Floats, target: float, confidence: float, more: float) -> int:
    cost = tokens.mean(1)
    for i in np.argsort(cost, kind="stable"):
        if lossless[i] or (np.isfinite(more) and lost_at_most(lost[i], confidence, more) <= target + 1e-9):
            return int(i)
    raise AssertionError("one setting is lossless")  # all samples are
