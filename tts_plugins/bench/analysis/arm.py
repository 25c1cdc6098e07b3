"""The figures of one arm of a benchmark, with intervals over problems. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

from tts_plugins.bench.analysis import flops
from tts_plugins.bench.storage.rows import CandidateRow, SolveRow
from tts_plugins.errors import DataError
from tts_plugins.metrics import (
    Estimate,
    clustered_bootstrap,
    expected_best,
    expected_majority,
    expected_weighted,
    paired_bootstrap,
    pass_at_k,
)

Key = tuple[str, str, int]
Figure = Callable[[SolveRow], float]
OUTCOMES = ("right", "chosen wrongly", "not among them", "cut or without answer", "failed")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """How tokens become FLOPs: the generator's parameters, and the verifier's if it is a model."""

    parameters: float
    verifier_parameters: float = 0.0

    def of(self, solve: SolveRow) -> float:
        """Return 2 N D of one solve for tokens read and written; prompts without counts are left out."""
        mine = flops.inference(self.parameters, solve.model_tokens)
        tokens = solve.verifier_tokens
        return mine + (flops.inference(self.verifier_parameters, tokens) if tokens and self.verifier_parameters else 0)


@dataclass(frozen=True)
class Arm:
    """The solves of one strategy within one budget, by problem.

    Every mean is over problems, each of which is the mean over its seeds, and its interval (95 %) is from
    resampling problems.
    """

    name: str
    solves: Mapping[str, Sequence[SolveRow]]
    candidates: Mapping[Key, Sequence[CandidateRow]]

    @cached_property
    def accuracy(self) -> Estimate | None:
        """The share of right answers; None if nothing was graded."""
        return None if not self.rights else clustered_bootstrap(list(self.rights.values()))

    @cached_property
    def rights(self) -> dict[str, list[float]]:
        """The grades by problem: 1 for a right solve, 0 for a wrong or failed one; without ungraded solves."""
        graded = {p: [float(s.correct) for s in rows if s.correct is not None] for p, rows in self.solves.items()}
        return {problem: rows for problem, rows in graded.items() if rows}

    @property
    def lone(self) -> bool:
        """Whether only one problem was graded, so that there is no interval."""
        return len(self.rights) == 1

    @property
    def exact(self) -> bool:
        """Whether the tokens of all solves were counted; else some are bounds or estimates."""
        return all(s.exact for s in self.all)

    @cached_property
    def prompts(self) -> bool:
        """Whether the tokens of prompts were counted, or charged at their bound."""
        return any(s.prompt_tokens for s in self.all)

    @cached_property
    def unknown(self) -> bool:
        """Whether tokens of some solves are not known at all: a pool has null for them. They are not zero."""
        return any(not s.exact and self._unknown(self._of(s), s.completion_tokens) for s in self.all)

    @staticmethod
    def _unknown(candidates: Sequence[CandidateRow], charged: int) -> bool:
        # What could not be counted live is charged at its bound, and so more than what is known of it.
        known = sum(c.tokens for c in candidates if c.tokens is not None)
        return any(c.tokens is None for c in candidates) and charged <= known

    @property
    def failed(self) -> list[SolveRow]:
        """Solves that ended with an error instead of an answer."""
        return [s for s in self.all if s.error is not None]

    @property
    def answered(self) -> tuple[int, int] | None:
        """How many graded solves were answered, and how many of these answers are right; None if all were answered."""
        if not any(s.abstained for s in self.all):
            return None
        given = [s.correct for s in self.all if s.correct is not None and not s.abstained]
        return len(given), given.count(True)

    @cached_property
    def tokens(self) -> Estimate:
        """Tokens of a solve."""
        return self.mean(lambda s: float(s.tokens))

    @cached_property
    def calls(self) -> Estimate:
        """Generations of a solve, the verifier's included."""
        return self.mean(lambda s: float(s.calls))

    @cached_property
    def samples(self) -> Estimate:
        """Candidates of a solve."""
        return self.mean(lambda s: float(len(self._of(s))))

    @cached_property
    def seconds(self) -> Estimate:
        """Wall time of a solve, including waits for the model that other solves share."""
        return self.mean(lambda s: s.seconds)

    @cached_property
    def usd(self) -> Estimate | None:
        """Dollars of a solve; None if a price is unknown."""
        return None if any(s.usd is None for s in self.all) else self.mean(lambda s: s.usd or 0.0)

    @property
    def all(self) -> list[SolveRow]:
        """The number of solves."""
        return [s for solves in self.solves.values() for s in solves]

    def mean(self, figure: Figure) -> Estimate:
        """Return a figure's mean with its interval."""
        return clustered_bootstrap([[figure(s) for s in solves] for solves in self.solves.values()])

    def flops(self, costs: Costs) -> Estimate:
        """Return FLOPs of a solve.

        Raises:
            DataError: they are not known, since some tokens are not.
        """
        self.check_known()
        return self.mean(costs.of)

    def check_known(self) -> None:
        """Raise unless its tokens are known.

        Raises:
            DataError: some are null in the pool that was replayed.
        """
        if self.unknown:
            raise DataError(
                f"{self.name}: tokens of some candidates are null in its pool, which means unknown and not 0, so that "
                "nothing can be said of its tokens or FLOPs; count them, or leave out --params"
            )

    def over(self, other: Arm) -> Estimate:
        """Return how much more accurate it is than the other arm, paired by problem."""
        if (found := self.gain(other)) is None:
            raise DataError(f"{self.name} and {other.name} have no graded problem in common")
        return found

    def gain(self, other: Arm) -> Estimate | None:
        """Return how much more accurate it is than the other arm, paired; None if no problem was graded in both."""
        shared = [p for p in self.rights if p in other.rights]
        return paired_bootstrap(*([arm.rights[p] for p in shared] for arm in (self, other))) if shared else None

    def outcomes(self, problems: Sequence[str] | None = None) -> dict[str, float]:
        """Return the shares of graded solves that ended right; wrong with a right candidate; wrong without one; with
        every candidate truncated or unreadable; with no candidate."""
        counts: Counter[str] = Counter()
        chosen = [s for s in self.all if s.correct is not None and (problems is None or s.problem in problems)]
        for s in chosen:
            counts[_outcome(s, self._of(s))] += 1
        return {name: counts[name] / max(1, len(chosen)) for name in OUTCOMES}

    @property
    def truncated(self) -> float:
        """The share of candidates that a length limit cut."""
        rows = [c for s in self.all for c in self._of(s)]
        return sum(c.truncated for c in rows) / max(1, len(rows))

    def selections(self) -> dict[str, float | None]:
        """Return the accuracy that each way to choose among its candidates would have reached, ties in expectation.

        "any" is the share of solves with a right one among them; "one" that of a single candidate. A failed solve
        without candidates has none that could be right, and counts.
        """
        graded = [rows for s in self.all if (rows := self._of(s)) and all(c.correct is not None for c in rows)]
        lost = sum(s.correct is not None and not self._of(s) for s in self.all)
        if not graded:
            return dict.fromkeys(("one", "majority", "best", "weighted", "any"), 0.0 if lost else None)
        rights = [[bool(c.correct) for c in rows] for rows in graded]
        scores = [[c.score or 0.0 for c in rows] for rows in graded]
        answers = [[c.answer for c in rows] for rows in graded]
        scored = all(c.score is not None for rows in graded for c in rows)

        def share(values: Iterable[float]) -> float:
            return math.fsum(values) / (len(graded) + lost)

        return {
            "one": share(sum(r) / len(r) for r in rights),
            "majority": share(map(expected_majority, answers, rights)),
            "best": share(map(expected_best, scores, rights)) if scored else None,
            "weighted": share(map(expected_weighted, answers, scores, rights)) if scored else None,
            "any": share(float(any(r)) for r in rights),
        }

    def pass_at(self, k: int) -> float | None:
        """Return the unbiased pass@k over its solves; None if one has fewer than `k` candidates or was stopped early.

        After an early stop the number of candidates depends on their answers."""
        if any(s.stopped != "complete" for s in self.all):
            return None
        rows = [self._of(s) for s in self.all if s.correct is not None]
        if not rows or any(len(r) < k or any(c.correct is None for c in r) for r in rows):
            return None
        return mean(pass_at_k(len(r), sum(bool(c.correct) for c in r), k) for r in rows)

    def _of(self, solve: SolveRow) -> Sequence[CandidateRow]:
        return self.candidates.get((solve.problem, solve.arm, solve.seed), ())


def accuracy_in(arm: Arm, problems: Sequence[str]) -> Estimate | None:
    """Return an arm's accuracy on some problems; None if none of them was graded."""
    rows = [arm.rights[p] for p in problems if p in arm.rights]
    return clustered_bootstrap(rows, resamples=1000) if rows else None


def _outcome(solve: SolveRow, rows: Sequence[CandidateRow]) -> str:
    if solve.correct:
        return OUTCOMES[0]
    if not rows:
        return OUTCOMES[4]
    if any(c.correct for c in rows):
        return OUTCOMES[1]
    return OUTCOMES[3] if all(c.truncated or c.answer is None for c in rows) else OUTCOMES[2]
