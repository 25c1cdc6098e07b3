"""One score from several verifiers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Literal

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound
from tts_plugins.errors import CandidateError, ConfigurationError, VerifierError
from tts_plugins.protocols import Run, Verifier
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._model_calls import total
from tts_plugins.verifiers.combined.cascade import check_verifier

Combine = Literal["mean", "min", "median", "vote"]


class Ensemble:
    """Asks all of its verifiers at once and combines their scores.

    Args:
        verifiers: two or more that score single candidates.
        combine: "mean"; "min", by which each can refuse; "median", which one outlier does not move; "vote", the share
            of them that give at least 0.5.
        weights: how much each counts in "mean", "median" and "vote"; equally if left out.
        quorum: how many must give a score; all of them if left out. The errors of the others are in `details`.
        name: as it appears in traces.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        verifiers: Sequence[Verifier],
        *,
        combine: Combine = "mean",
        weights: Sequence[float] | None = None,
        quorum: int | None = None,
        name: str = "Ensemble",
    ) -> None:
        if len(verifiers) < 1:
            raise ConfigurationError(f"{name}: verifiers={list(verifiers)!r} is empty; give at least one")
        for verifier in verifiers:
            check_verifier(name, "verifiers", verifier)
        if combine not in ("mean", "min", "median", "vote"):
            raise ConfigurationError(f"{name}: combine={combine!r} is not known; use 'mean', 'min', 'median' or 'vote'")
        given = [1.0] * len(verifiers) if weights is None else [float(w) for w in weights]
        if len(given) != len(verifiers) or not all(math.isfinite(w) and w > 0 for w in given):
            raise ConfigurationError(f"{name}: weights={weights!r} must be {len(verifiers)} numbers above 0")
        quorum = len(verifiers) if quorum is None else quorum
        check_count(name, "quorum", quorum)
        if quorum > len(verifiers):
            raise ConfigurationError(f"{name}: quorum={quorum} is more than the {len(verifiers)} verifiers; lower it")
        self.name, self.verifiers, self.combine = name, tuple(verifiers), combine
        self.weights, self.quorum = tuple(given), quorum

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.verifiers))}, {self.combine})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of all of them together."""
        return total([await verifier.bound(problem, tokens) for verifier in self.verifiers])

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return the combined score; `details` has the parts, and the feedback is that of the lowest.

        Raises:
            VerifierError: fewer than the quorum gave a score.
        """
        asked = await asyncio.gather(*(v.score(run, candidate) for v in self.verifiers), return_exceptions=True)
        got, errors = list[tuple[Score, float, str]](), list[CandidateError]()
        for verifier, weight, answer in zip(self.verifiers, self.weights, asked, strict=True):
            if isinstance(answer, CandidateError):
                errors.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                got.append((answer, weight, verifier.name))
        if len(got) < self.quorum:
            raise VerifierError(
                f"{self.name}: {len(got)} of {len(self.verifiers)} verifiers gave a score, "
                f"quorum={self.quorum}; {errors[0]}"
            ) from errors[0]
        lowest = min(got, key=lambda entry: entry[0].value)[0]
        parts = [{"verifier": name, "score": score.value, "feedback": score.feedback} for score, _, name in got]
        return Score(
            value=combined([s.value for s, _, _ in got], [w for _, w, _ in got], self.combine),
            feedback=lowest.feedback,
            details={"parts": parts, "errors": [str(error) for error in errors]},
        )


def combined(values: Sequence[float], weights: Sequence[float], how: Combine) -> float:
    """Combine scores and their weights into one score."""
    whole = math.fsum(weights)
    if how == "min":
        return min(values)
    if how == "vote":
        return math.fsum(w for v, w in zip(values, weights, strict=True) if v >= 0.5) / whole
    if how == "mean":
        return min(1.0, math.fsum(v * w for v, w in zip(values, weights, strict=True)) / whole)
    below = 0.0
    ordered = sorted(zip(values, weights, strict=True))
    for i, (value, weight) in enumerate(ordered):
        below += weight
        if math.isclose(below, whole / 2) and i + 1 < len(ordered):
            return (value + ordered[i + 1][0]) / 2
        if below > whole / 2:
            return value
    return ordered[-1][0]
