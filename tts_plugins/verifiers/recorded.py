"""A verifier for replays, which gives the scores that a pool has."""

from __future__ import annotations

from typing import Self

from tts_plugins.errors import VerifierError
from tts_plugins.pools import Pool, PoolCandidate
from tts_plugins.protocols import Run
from tts_plugins.selection import Aggregate
from tts_plugins.selection import aggregate as combine
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers._free import FreeVerifier


class RecordedVerifier(FreeVerifier):
    """Gives each replayed candidate the score that was recorded with it.

    It reads `score` and `step_scores` of the pool, and never `correct`.

    Args:
        aggregate: how step scores become one score; a recorded `score` stands as it is.
        stands_for: the verifier whose scores they are, for a policy that was fitted to it; see `of`.
    """

    inline = True  # a look-up

    def __init__(self, *, aggregate: Aggregate = "last", stands_for: str | None = None) -> None:
        combine([1.0], aggregate)  # raises where the name is not known
        self.name = f"RecordedVerifier({aggregate})"
        self.aggregate, self.stands_for = aggregate, stands_for

    def __repr__(self) -> str:
        return self.name

    def of(self, pool: Pool) -> Self:
        """The same, standing for the verifier that the pool's header names."""
        return type(self)(aggregate=self.aggregate, stands_for=self.stands_for or pool.header.verifier)

    def where_needed(self, pool: Pool, needs_scores: bool) -> Self | None:
        """The same for a pool; None for a strategy that needs no scores where some of them are missing."""
        missing = any(c.scored(self.aggregate) is None for p in pool.problems for c in p.candidates)
        return None if missing and not needs_scores else self.of(pool)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The recorded score.

        Raises:
            VerifierError: the candidate is not from a `ReplayModel`, or has no score on record.
        """
        recorded = candidate.output
        if not isinstance(recorded, PoolCandidate):
            raise VerifierError(f"{self.name}: candidate {candidate.id} is not from a ReplayModel; it has no record")
        value = recorded.scored(self.aggregate)
        if value is None:
            raise VerifierError(f"{self.name}: candidate {candidate.id} has no score on record; add scores to the pool")
        return Score(value=value, steps=recorded.step_scores)
