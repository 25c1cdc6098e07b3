"""Summarises a benchmark's rows: all its arms, beside each other. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from tts_plugins.bench.analysis.arm import Arm, Key
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveRow


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All arms of a benchmark."""

    arms: tuple[Arm, ...]
    problems: tuple[ProblemRow, ...]
    of: int

    @classmethod
    def of_rows(
        cls, arms: Sequence[str], seeds: Sequence[int], problems: Sequence[ProblemRow], solves: Sequence[SolveRow],
        candidates: Mapping[Key, Sequence[CandidateRow]],
    ) -> Summary:  # fmt: skip
        """Summarise a store's rows; arms without a solve are left out."""
        by_arm: dict[str, dict[str, list[SolveRow]]] = {name: {} for name in arms}
        for s in _regraded(solves):
            by_arm.setdefault(s.arm, {}).setdefault(s.problem, []).append(s)
        made = tuple(Arm(name, rows, candidates) for name, rows in by_arm.items() if rows)
        return cls(arms=made, problems=tuple(problems), of=len(arms) * len(problems) * len(seeds))

    @property
    def done(self) -> int:
        """Solves that have ended."""
        return sum(len(a.all) for a in self.arms)

    @property
    def ungraded(self) -> list[str]:
        """Problems that were solved but never graded: they have no answer, and accuracies leave them out."""
        solved = {p for arm in self.arms for p in arm.solves}
        return sorted(solved - {p for arm in self.arms for p in arm.rights})

    def frontier(self, cost: Callable[[Arm], float]) -> list[Arm]:
        """Return the arms on the frontier of accuracy and cost, cheapest first, without those that were never right."""
        kept: list[Arm] = []
        graded = [a for a in self.arms if a.accuracy is not None and a.accuracy.value > 0 and not a.unknown]
        for arm in sorted(graded, key=lambda a: (cost(a), -_value(a))):
            if not kept or _value(arm) > _value(kept[-1]):
                kept.append(arm)
        return kept

    @cached_property
    def ease(self) -> dict[str, float]:
        """Each problem's share of right candidates over all arms, the paper's oracle difficulty."""
        rights: dict[str, list[bool]] = {}
        for arm in self.arms:
            for key, rows in arm.candidates.items():
                if key[1] == arm.name:
                    rights.setdefault(key[0], []).extend(bool(c.correct) for c in rows if c.correct is not None)
        return {problem: sum(r) / len(r) for problem, r in rights.items() if r}

    def bins(self, count: int = 5) -> list[tuple[str, ...]]:
        """Return the problems in up to `count` bins of nearly equal size, easiest first."""
        order = sorted(self.ease, key=lambda p: -self.ease[p])
        count = max(1, min(count, len(order) // 3))
        edges = [round(i * len(order) / count) for i in range(count + 1)]
        return [tuple(order[a:b]) for a, b in pairwise(edges) if b > a]


def _regraded(solves: Sequence[SolveRow]) -> list[SolveRow]:
    """Count failed solves as wrong, except on problems that other solves show to have no answer."""
    known = {s.problem for s in solves if s.error is None and s.correct is not None}
    bare = {s.problem for s in solves if s.error is None} - known
    return [replace(s, correct=None) if s.error is not None and s.problem in bare else s for s in solves]


def _value(arm: Arm) -> float:
    return math.nan if arm.accuracy is None else arm.accuracy.value
