"""Dual agreement (CodeT, Chen et al. 2022, 2207.10397): programs that pass the same tests vote together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_BELOW_ONE = 1 - 1e-6


def dual_agreement(passed: Sequence[Sequence[bool]]) -> list[float]:
    """For each program, from which tests it passes: (share of programs that pass just these) x (share of tests).

    The paper's score of a consensus set is |solutions| x |tests|; here it is divided by its largest possible value.
    """
    votes = Counter(tuple(row) for row in passed)
    return [votes[tuple(row)] / len(passed) * sum(row) / max(1, len(row)) for row in passed]


def known_first(known: Sequence[Sequence[bool]], agreement: Sequence[float]) -> list[float]:
    """Those that pass more of the known tests stand first; among equals agreement decides. In [0, 1]."""
    return [
        (sum(row) + agreed * (_BELOW_ONE if row else 1.0)) / (len(row) + 1)
        for row, agreed in zip(known, agreement, strict=True)
    ]
