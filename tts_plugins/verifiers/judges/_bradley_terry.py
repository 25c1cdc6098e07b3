"""From comparisons to a ranking. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Each has won and lost so much against one of strength 1, so that no strength is zero or infinite.
_PRIOR = 0.5
Outcome = tuple[int, int, float]  # i, j, and the share of the win that is i's: 1, 0, or 0.5 for a tie


def bradley_terry(n: int, outcomes: Sequence[Outcome]) -> list[float]:
    """Strengths by minorisation-maximisation (Hunter 2004, algorithm 1), their geometric mean near 1."""
    wins = [_PRIOR] * n
    pairs: dict[tuple[int, int], int] = {}
    for i, j, share in outcomes:
        wins[i] += share
        wins[j] += 1.0 - share
        pairs[min(i, j), max(i, j)] = pairs.get((min(i, j), max(i, j)), 0) + 1
    strengths = [1.0] * n
    for _ in range(200):
        weights = [2 * _PRIOR / (s + 1.0) for s in strengths]
        for (i, j), count in pairs.items():
            share = count / (strengths[i] + strengths[j])
            weights[i] += share
            weights[j] += share
        new = [w / d for w, d in zip(wins, weights, strict=True)]
        moved = max(abs(math.log(a / b)) for a, b in zip(new, strengths, strict=True))
        strengths = new
        if moved < 1e-9:
            break
    return strengths


def win_rates(strengths: Sequence[float]) -> list[float]:
    """For each, the mean probability of winning against the others; 0.5 for one that is alone."""
    total = len(strengths) - 1
    if total < 1:
        return [0.5] * len(strengths)
    return [math.fsum(a / (a + b) for j, b in enumerate(strengths) if j != i) / total for i, a in enumerate(strengths)]


def knockout_pairs(alive: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Neighbours meet; an odd one out passes to the next round."""
    return list(zip(alive[::2], alive[1::2], strict=False)), list(alive[len(alive) // 2 * 2 :])


def swiss_pairs(n: int, points: Mapping[int, float], met: set[tuple[int, int]], turn: int) -> list[tuple[int, int]]:
    """Those of like points meet, each with the nearest that it has not met; with an odd number one rests, in turns."""
    resting = {n - 1 - turn % n} if n % 2 else set()
    waiting = sorted((i for i in range(n) if i not in resting), key=lambda i: -points.get(i, 0.0))
    pairs = []
    while len(waiting) > 1:
        first = waiting.pop(0)
        other = next((j for j in waiting if (min(first, j), max(first, j)) not in met), waiting[0])
        waiting.remove(other)
        pairs.append((first, other))
    return pairs
