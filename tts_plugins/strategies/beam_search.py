"""Beam search against a process verifier, with lookahead (Snell et al. 2024, 2408.03314, section 5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tts_plugins.protocols import Run
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._search import BeamFields, conclude, grow, keep, need_verifier
from tts_plugins.types import Candidate, Problem, Scored


@dataclass(frozen=True, kw_only=True)
class BeamSearch(BeamFields, BaseStrategy):
    """`n` first steps, of which the best `n // beam_width` survive and get `beam_width` next steps each, and so on.

    Of equally good children, those of different parents survive first, so that a verifier of few values, such as a
    program's 0 and 1, does not narrow the search to one line. A beam that finishes leaves its place to others. It ends
    when none is unfinished, when there are `n` finished ones, or after `max_steps`.

    Args:
        n: candidates per level, over all beams together (N of the paper).
        beam_width: children per kept beam (M of the paper: 4, or the square root of N).
        max_steps: levels at most; what is unfinished then is returned only where nothing is finished, and is marked
            `truncated`.
        lookahead: steps written greedily after each child before it is scored (k of the paper).
        select: how the finished ones are chosen from: "weighted" by summed scores of equal answers, "best",
            "majority".
        straggler: a level waits for a child at most this many times as long as its median child took; the late ones
            are cancelled, and charged. None waits for all.

    Raises:
        ConfigurationError: a field is out of range; at the call, the model writes no steps, or the verifier gives no
            step scores.
        AllCandidatesFailed: a whole level failed, in the verifier or before its first step, and nothing was finished.
    """

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if self.n > 1:
            need_verifier(run, f"BeamSearch(n={self.n})", "SelfConsistency")
        beams: Sequence[Candidate] = [Candidate(problem)]
        finished: list[Scored] = []
        committed = 0
        for _ in range(self.max_steps):
            children = await grow(
                run, beams, self.n, whole=bool(finished), lookahead=self.lookahead, straggler=self.straggler
            )
            if not children:
                break
            finished += [c for c in children if c.finished]
            beams = keep(run, children, self.n // self.beam_width)
            committed = _commit(run, [*finished, *beams], committed)
            if not beams or len(finished) >= self.n:
                break
        else:
            run.note("max_steps", steps=self.max_steps, unfinished=len(beams))
        return conclude(run, finished, [c for c in beams if isinstance(c, Scored)], self.select)


def _commit(run: Run, alive: Sequence[Candidate], before: int) -> int:
    """Tell the steps that all which may still be chosen share: they are final, and can be shown already."""
    shared = 0
    for steps in zip(*(c.steps for c in alive), strict=False):
        if len(set(steps)) > 1:
            break
        shared += 1
    if shared > before:
        run.note("committed", steps=[step.text for step in alive[0].steps[:shared]])
    return max(shared, before)
