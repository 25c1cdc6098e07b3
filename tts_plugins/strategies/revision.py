"""Sequential revision in parallel chains (Snell et al. 2024, 2408.03314, section 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import OVER, AllCandidatesFailed, ConfigurationError, TTSError
from tts_plugins.protocols import Run
from tts_plugins.selection import Select, weighted_vote
from tts_plugins.stopping import Rule, check_rule, should_stop
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._choice import chosen
from tts_plugins.strategies._search import check_select, need_verifier, note_end, nothing_made
from tts_plugins.types import Problem, Scored

_SAME = 3  # equal answers in a row, after which a chain circles


@dataclass
class _Chain:
    """What became of one chain: its attempts that have a score, and why others have none."""

    attempts: list[Scored] = field(default_factory=list)
    errors: list[TTSError] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Revision(BaseStrategy):
    """`chains` first answers, each revised `rounds - 1` times in the light of the latest ones and their feedback.

    A revision may make a right answer wrong (38 % of them in the paper), so the choice is over all attempts, never
    the last ones: "weighted" votes by score within a chain, then among the chains' winners; "best" takes the highest
    score; "majority" counts all answers alike, and needs no verifier. Chains run side by side. A chain ends early
    when it circles: a text comes back, or three answers in a row are the same. An attempt that fails (it cannot be
    parsed, the verifier raises) counts as a round; the next one is shown the failure as its feedback.

    Args:
        chains: first answers (the parallel part).
        rounds: attempts in a chain at most, the first included (the sequential part).
        select: how the answer is chosen.
        history: latest attempts that a revision is shown; four in the paper.
        stop: a rule from `tts_plugins.stopping` that may end a chain, such as `Threshold(0.9)`.

    Raises:
        ConfigurationError: a field is out of range; at the call, the model cannot revise.
    """

    chains: int = 4
    rounds: int = 4
    select: Select = "weighted"
    history: int = 4
    stop: Rule | None = None

    def __post_init__(self) -> None:
        check_count("Revision", "chains", self.chains)
        check_count("Revision", "rounds", self.rounds)
        check_count("Revision", "history", self.history)
        check_select("Revision", self.select)
        if self.stop is not None:
            check_rule("Revision", "stop", self.stop)

    @classmethod
    def from_budget(cls, n: int, ratio: float, **settings: Any) -> Self:
        """Chains and rounds for at most `n` answers whose rounds are `ratio` times the chains, as nearly as can be.

        Easy problems want a high ratio (all sequential), hard ones a mix.

        >>> Revision.from_budget(n=64, ratio=4)
        Revision(chains=4, rounds=16, select='weighted', history=4, stop=None)
        """
        check_count("Revision.from_budget", "n", n)
        if not is_number(ratio) or ratio <= 0:
            raise ConfigurationError(f"Revision.from_budget: ratio={ratio!r} must be a finite number above 0")

        def misfit(chains: int) -> tuple[float, int]:
            rounds = n // chains
            return round(abs(math.log(rounds / chains / ratio)), 9), n - chains * rounds

        chains = min(range(1, n + 1), key=misfit)
        return cls(chains=chains, rounds=n // chains, **settings)

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it asks for."""
        least = 2 if self.stop is None else min(2, self.stop.least((), self.rounds))
        return self.chains * min(least, self.rounds), self.chains * self.rounds

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if self.select != "majority":
            need_verifier(run, f"Revision(select={self.select!r})", "Revision(select='majority')")
        chains = await run.together([self._chain(run, problem) for _ in range(self.chains)])
        attempts = [attempt for chain in chains for attempt in chain.attempts]
        if not attempts:
            raise nothing_made([error for chain in chains for error in chain.errors])
        if self.select == "weighted":
            attempts = [weighted_vote(chain.attempts) for chain in chains if chain.attempts]
        return chosen(run, attempts, self.select)

    async def _chain(self, run: Run, problem: Problem) -> _Chain:
        """One chain. A failed attempt counts as a round, and the next one is shown why it failed."""
        chain, shown = _Chain(), list[Scored]()
        while len(shown) < self.rounds:
            try:
                latest = await self._next(run, problem, shown)
            except AllCandidatesFailed as error:
                chain.errors.append(error)
                if not error.attempts:
                    break  # nothing says what went wrong
                shown.append(error.attempts[-1])
                continue
            except OVER as error:
                chain.errors.append(error)
                if chain.attempts:
                    note_end(run, error)
                break
            shown.append(latest)
            chain.attempts.append(latest)
            if len(shown) == self.rounds or self._ends(run, chain.attempts, self.rounds - len(shown)):
                break
        return chain

    async def _next(self, run: Run, problem: Problem, shown: Sequence[Scored]) -> Scored:
        if shown:
            return await run.revise(problem, shown[-self.history :])
        (first,) = [c async for c in run.sample(problem, 1)]
        return first

    def _ends(self, run: Run, attempts: Sequence[Scored], left: int) -> bool:
        if should_stop(self.stop, attempts, left):
            run.note("stop", rule=repr(self.stop), seen=len(attempts), left=left)
            return True
        if circles(attempts):
            run.note("circles", candidate=attempts[-1].id, seen=len(attempts), left=left)
            return True
        return False


def circles(attempts: Sequence[Scored]) -> bool:
    """Whether the last text stood there before, or the last three answers are the same."""
    texts = [" ".join(a.text.split()) for a in attempts]
    answers = [a.vote for a in attempts[-_SAME:]]
    same = len(answers) == _SAME and answers[0] is not None and len(set(answers)) == 1
    return same or texts[-1] in texts[:-1]
