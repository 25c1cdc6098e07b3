"""Diverse verifier tree search: independent subtrees, each greedy by the verifier (Beeching, Tunstall & Rush 2024,
"Scaling test-time compute with open models", huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute).
"""

from __future__ import annotations

from dataclasses import dataclass

from tts_plugins.errors import OVER, TTSError
from tts_plugins.protocols import Run
from tts_plugins.selection import best
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._search import BeamFields, conclude, grow, need_verifier, note_end
from tts_plugins.types import Candidate, Problem, Scored


@dataclass(frozen=True, kw_only=True)
class DVTS(BeamFields, BaseStrategy):
    """`n // beam_width` subtrees; each takes the best of `beam_width` next steps until it is finished.

    No subtree waits for another one.

    Args:
        n: candidates per level, over all subtrees together.
        beam_width: children of which a subtree follows the best.
        max_steps: steps of a subtree at most.
        lookahead: steps written greedily after each child before it is scored.
        select: how the subtrees' ends are chosen from.
        straggler: a subtree waits for a child at most this many times as long as its median child took; the late ones
            are cancelled, and charged. None waits for all.

    Raises:
        ConfigurationError: as for `BeamSearch`.
        AllCandidatesFailed: every subtree failed, in the verifier or before its first step.
    """

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if self.n > 1:
            need_verifier(run, f"DVTS(n={self.n})", "SelfConsistency")
        roots = [Candidate(problem, index=i) for i in range(self.n // self.beam_width)]
        ends = await run.together([self._subtree(run, root) for root in roots])
        leaves = [leaf for leaf in ends if isinstance(leaf, Scored)]
        errors = [error for error in ends if isinstance(error, TTSError)]
        if not leaves:
            raise errors[0]
        for error in errors:
            note_end(run, error)
        return conclude(run, [c for c in leaves if c.finished], [c for c in leaves if not c.finished], self.select)

    async def _subtree(self, run: Run, root: Candidate) -> Scored | TTSError:
        """Its end, or why it has none: not even a first step, or a verifier that failed on the next one."""
        leaf: Candidate = root
        for _ in range(self.max_steps):
            try:
                children = await grow(
                    run, [leaf], self.beam_width, whole=False, lookahead=self.lookahead, straggler=self.straggler
                )
            except OVER as error:
                return error
            if not children:
                break
            leaf = children[0] if run.verifier is None else best(children)
            run.prune([c for c in children if c is not leaf])
            if leaf.finished:
                break
        else:
            run.note("max_steps", steps=self.max_steps, candidate=leaf.id)
        assert isinstance(leaf, Scored)
        return leaf
