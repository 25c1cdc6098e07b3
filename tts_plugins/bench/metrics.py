"""Figures over problems, with their uncertainty. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share (95 % by default); it stays inside [0, 1] and is no point at 0 or 1.

    Raises:
        ValueError: no trials, or successes outside of 0 … trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson: {successes} successes of {trials} trials make no share")
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The exact two-sided McNemar test of two paired series of outcomes: the p-value of «they are equally good».

    Only problems on which the two differ speak: under equality each is a fair coin.

    Raises:
        ValueError: the series differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"mcnemar: {len(first)} and {len(second)} outcomes are no pairs")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return float(min(1.0, 2 * tail))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate that one of `k` samples is right, from `correct` of `n` (Chen et al. 2021, 2107.03374).

    Raises:
        ValueError: k is not in 1 … n, or correct not in 0 … n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass_at_k: n={n}, correct={correct}, k={k} do not go together")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)
