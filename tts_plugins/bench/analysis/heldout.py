"""Measures a process verifier on problems that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tts_plugins.bench.analysis.reliability import Reliability
from tts_plugins.metrics import (
    Estimate,
    clustered_auc,
    clustered_bootstrap,
    expected_best,
    expected_majority,
    expected_weighted,
    paired_bootstrap,
)
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.selection import Aggregate, aggregate

# With fewer problems a bootstrap interval means nothing.
ENOUGH = 5

Steps = Sequence[Sequence[float]]  # of one problem: the step scores of each candidate


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Figures over held-out problems, with 95 % intervals from resampling problems.

    Attributes:
        problems, solutions: how many there are.
        auc: the probability that a right solution scores above a wrong one, over all problems together.
        auc_within: the same among solutions of one problem; None if each problem's are all right or all wrong.
        reliability: of the step scores against the labels.
        accuracy: of what is chosen among a problem's solutions: by "verifier", "weighted" votes, "majority", at
            "random", and by an "oracle".
        gain: of the verifier over "random" and over "majority", on the same problems.
    """

    problems: int
    solutions: int
    auc: Estimate
    auc_within: Estimate | None
    reliability: Reliability
    accuracy: Mapping[str, Estimate]
    gain: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON; an estimate is its value and the ends of its interval."""

        def plain(estimate: Estimate | None) -> list[float] | None:
            return None if estimate is None else [estimate.value, estimate.low, estimate.high]

        r = self.reliability
        return {
            "problems": self.problems, "solutions": self.solutions,
            "auc": plain(self.auc), "auc_within": plain(self.auc_within),
            "accuracy": {name: plain(value) for name, value in self.accuracy.items()},
            "gain": {name: plain(value) for name, value in self.gain.items()},
            "reliability": {
                "error": r.error, "brier": r.brier, "base_brier": r.base_brier,
                "bins": [[b.predicted, b.observed, b.count] for b in r.bins],
            },
        }  # fmt: skip

    def text(self) -> str:
        """Return the figures as text for a terminal."""
        lines = [
            f"held out: {self.problems} problems, {self.solutions} solutions",
            f"AUC {self.auc}; among solutions of one problem {self.auc_within or 'not defined'}",
            "right, of what is chosen among a problem's solutions:",
            *(f"  {name:10} {value}" for name, value in self.accuracy.items()),
            *(f"  verifier - {name:8} {value.value:+.3f} ({value.low:+.3f} to {value.high:+.3f})"
              for name, value in self.gain.items()),
            f"step scores: calibration error {self.reliability.error:.3f}, Brier {self.reliability.brier:.3f} "
            f"({self.reliability.base_brier:.3f} for who always says the mean)",
            self.reliability.text(),
        ]  # fmt: skip
        return "\n".join(lines)


def measure(
    problems: Sequence[PoolProblem], scores: Sequence[Steps], how: Aggregate, *, seed: int = 0, resamples: int = 1000
) -> Heldout:
    """Return the figures.

    Args:
        problems: with graded candidates that have labels as step scores; those without candidates are left out.
        scores: for each problem the step scores of each candidate, as the verifier gave them.
        how: how step scores become one.

    Raises:
        ValueError: no problem has candidates, or all candidates are right, or none is.
    """
    kept = [(p.candidates, s) for p, s in zip(problems, scores, strict=True) if p.candidates]
    values = [[aggregate(steps, how) for steps in given] for _, given in kept]
    right = [[bool(c.correct) for c in candidates] for candidates, _ in kept]
    pairs = [list(zip(v, r, strict=True)) for v, r in zip(values, right, strict=True)]
    mixed = any(len(set(r)) > 1 for r in right)
    rules: dict[str, Callable[[Sequence[PoolCandidate], Sequence[float], Sequence[bool]], float]] = {
        "verifier": lambda c, v, r: expected_best(v, r),
        "weighted": lambda c, v, r: expected_weighted([x.answer for x in c], v, r),
        "majority": lambda c, v, r: expected_majority([x.answer for x in c], r),
        "random": lambda c, v, r: sum(r) / len(r),
        "oracle": lambda c, v, r: float(any(r)),
    }
    outcomes = {
        name: [[rule(c, v, r)] for (c, _), v, r in zip(kept, values, right, strict=True)]
        for name, rule in rules.items()
    }
    predicted = [s for _, given in kept for steps in given for s in steps]
    labels = [label for candidates, _ in kept for c in candidates for label in c.step_scores]
    return Heldout(
        problems=len(kept),
        solutions=sum(map(len, values)),
        auc=clustered_auc(pairs, seed=seed, resamples=resamples),
        auc_within=clustered_auc(pairs, within=True, seed=seed, resamples=resamples) if mixed else None,
        reliability=Reliability.of(predicted, labels),
        accuracy={name: clustered_bootstrap(o, seed=seed, resamples=resamples) for name, o in outcomes.items()},
        gain={
            name: paired_bootstrap(outcomes["verifier"], outcomes[name], seed=seed, resamples=resamples)
            for name in ("random", "majority")
        },
    )
