"""Verifiers in a row: a cheap one decides if it is sure, and an expensive one decides the rest."""

from __future__ import annotations

from tts_plugins._internal.config import check_share
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.protocols import Run, Verifier
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._model_calls import total


class Cascade:
    """Scores by the first verifier if it is sure, else by the second.

    Args:
        cheap: the first verifier. If it fails, the second decides, and `details` has the error.
        dear: the second verifier, for first scores strictly between `low` and `high`.
        low: a first score of at most this is final; negative for never.
        high: a first score of at least this is final; above 1 for never.
        name: as it appears in traces.

    Its worst case is the cost of both. `Veto(verifier, by)` is the cascade in which a cheap check can only refuse.

    Raises:
        ConfigurationError: a part does not score single candidates, or `low` is not below `high`.
    """

    def __init__(
        self, cheap: Verifier, dear: Verifier, *, low: float = 0.05, high: float = 0.95, name: str = "Cascade"
    ) -> None:
        check_verifier(name, "cheap", cheap)
        check_verifier(name, "dear", dear)
        if not low < high:
            raise ConfigurationError(f"{name}: low={low!r} must be below high={high!r}")
        self.name, self.cheap, self.dear, self.low, self.high = name, cheap, dear, low, high

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self.cheap!r}, {self.dear!r})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of both together."""
        return total([await self.cheap.bound(problem, tokens), await self.dear.bound(problem, tokens)])

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return the score of the verifier that decides; `details["decided_by"]` names it.

        Raises:
            VerifierError: the second one failed.
        """
        try:
            first = await self.cheap.score(run, candidate)
        except VerifierError as error:
            second = await self.dear.score(run, candidate)
            return _decided(second, self.dear.name, {"first_error": str(error)})
        if first.value <= self.low or first.value >= self.high:
            return _decided(first, self.cheap.name, {})
        return _decided(await self.dear.score(run, candidate), self.dear.name, {"first_score": first.value})


class Veto:
    """A local check that can only refuse. Its refusal is final; the verifier scores everything else.

    Args:
        verifier: scores what is not refused.
        by: a cheap verifier, such as a `CallableVerifier`, `JSONSchemaVerifier` or `Screen`.
        below: a score of `by` under this refuses.
        name: as it appears in traces.

    A refused candidate scores 0 with the check's feedback. An error of the check is an error of the candidate.
    """

    def __init__(self, verifier: Verifier, by: Verifier, *, below: float = 0.5, name: str = "Veto") -> None:
        check_verifier(name, "verifier", verifier)
        check_verifier(name, "by", by)
        check_share(name, "below", below)
        self.name, self.verifier, self.by, self.below = name, verifier, by, below

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self.verifier!r}, by={self.by!r})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of both together."""
        return total([await self.verifier.bound(problem, tokens), await self.by.bound(problem, tokens)])

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return 0 if the check refuses, else the verifier's score.

        Raises:
            VerifierError: the check or the verifier failed.
        """
        check = await self.by.score(run, candidate)
        if check.value < self.below:
            return Score(value=0.0, feedback=check.feedback, details={**check.details, "vetoed_by": self.by.name})
        return await self.verifier.score(run, candidate)


def check_verifier(who: str, field: str, value: object) -> None:
    """Raise unless `value` can score a single candidate."""
    if not isinstance(value, Verifier):
        raise ConfigurationError(
            f"{who}: {field}={value!r} does not score single candidates; wrap a function "
            "with CallableVerifier(function)"
        )


def _decided(score: Score, who: str, more: dict[str, object]) -> Score:
    return Score(
        value=score.value, steps=score.steps, feedback=score.feedback,
        details={**score.details, "decided_by": who, **more},
    )  # fmt: skip
