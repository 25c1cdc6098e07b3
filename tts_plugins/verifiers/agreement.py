"""Agreement between candidates as the score: the share of votes for an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tts_plugins.protocols import Run
from tts_plugins.selection import grouped
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers._free import FreeVerifier


class AnswerAgreement(FreeVerifier):
    """Scores each candidate by the share of candidates that give its answer (self-consistency as a verifier).

    It compares candidates with each other, so it scores when all have arrived. An answer that cannot be read
    agrees with nothing: its score is 0.
    """

    name = "AnswerAgreement"

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        """One score for each candidate, in order."""
        groups = grouped(candidates)
        counts = Counter(groups[c.vote] for c in candidates if c.vote is not None)
        votes = {vote: counts[group] for vote, group in groups.items()}
        return [
            Score(value=0.0, feedback="no answer could be read")
            if c.vote is None
            else Score(
                value=votes[c.vote] / len(candidates),
                feedback=f"{votes[c.vote]} of {len(candidates)} candidates give this answer",
            )
            for c in candidates
        ]
