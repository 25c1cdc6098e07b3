"""What searches over steps share: one level of children, and the choice at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tts_plugins._internal.config import check_count, check_straggler
from tts_plugins.confidence import Support
from tts_plugins.errors import OVER, AllCandidatesFailed, ConfigurationError, TTSError
from tts_plugins.protocols import Run
from tts_plugins.selection import Select, best, spread
from tts_plugins.strategies._choice import chosen, note_choice
from tts_plugins.types import Candidate, Scored

SELECTS: tuple[Select, ...] = ("best", "weighted", "majority")


async def grow(
    run: Run, beams: Sequence[Candidate], total: int, *, whole: bool, lookahead: int = 0, straggler: float | None
) -> list[Scored]:
    """Return one level of children, by index; none if the search ends with what it has.

    Args:
        whole: there is a finished solution already, which stands whatever becomes of this level.

    Raises:
        BudgetExhausted, DeadlineExceeded, AllCandidatesFailed: there is not one step yet.
        AllCandidatesFailed: the verifier failed on the whole level, and nothing is finished. The best partial solution
            cannot stand in: its score is that of a verifier which fails on the next step.
    """
    try:
        children = [c async for c in run.expand(beams, total, lookahead=lookahead, straggler=straggler)]
    except OVER as error:
        if not any(isinstance(c, Scored) for c in beams):
            raise
        if isinstance(error, AllCandidatesFailed) and error.unscored and not whole:
            steps = max(len(c.steps) for c in beams)
            raise AllCandidatesFailed(
                f"nothing was finished, and after step {steps} {error}", error.errors, unscored=error.unscored
            ) from error.__cause__
        note_end(run, error)
        return []
    return sorted(children, key=lambda c: c.index)


def keep(run: Run, children: Sequence[Scored], count: int) -> list[Scored]:
    """Return the best unfinished children, ties shared among their parents, and prune the others."""
    unfinished = [c for c in children if not c.finished]
    kept = unfinished if run.verifier is None else spread(unfinished, count)
    names = {c.id for c in kept}
    run.prune([c for c in unfinished if c.id not in names])
    return kept


def conclude(run: Run, finished: Sequence[Scored], beams: Sequence[Scored], select: Select) -> Scored:
    """Choose among whole solutions, else among those cut by a length limit, else take the best partial one.

    A partial solution is marked as truncated: the search's own limit cut it.
    """
    whole = [c for c in finished if not c.truncated]
    if pool := whole or finished:
        return chosen(run, pool, "majority" if run.verifier is None else select)
    part = beams[0] if run.verifier is None else best(beams)
    note_choice(run, part, Support())  # nobody can say how sure a partial solution is
    return part.replace(truncated=True)


def note_end(run: Run, error: TTSError) -> None:
    """Record in the trace why a search chose among what it had."""
    run.note("search_ended", error=f"{type(error).__name__}: {error}")


def need_verifier(run: Run, owner: str, instead: str) -> None:
    """Raise unless there is a verifier to choose by.

    Raises:
        ConfigurationError: there is none.
    """
    if run.verifier is None:
        raise ConfigurationError(f"{owner} needs a verifier to choose by; pass verifier=…, or use {instead}")


@dataclass(frozen=True, kw_only=True)
class BeamFields:
    """The settings of searches that keep some beams of each level."""

    n: int = 16
    beam_width: int = 4
    max_steps: int = 40
    lookahead: int = 0
    select: Select = "weighted"
    straggler: float | None = None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_count(owner, "n", self.n)
        check_count(owner, "beam_width", self.beam_width)
        check_count(owner, "max_steps", self.max_steps)
        check_count(owner, "lookahead", self.lookahead, least=0)
        check_straggler(owner, self.straggler)
        if self.n % self.beam_width:
            near = self.beam_width * max(1, round(self.n / self.beam_width))
            raise ConfigurationError(
                f"{owner}: n={self.n} cannot be shared evenly by beam_width={self.beam_width}; use a multiple, such as "
                f"n={near}"
            )
        check_select(owner, self.select)

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it asks for."""
        return self.n, self.n * (self.lookahead + 1) * self.max_steps


def check_select(owner: str, select: object, known: Sequence[str] = SELECTS) -> None:
    """Raise unless `select` is a known way to choose."""
    if select not in known:
        raise ConfigurationError(f"{owner}: select={select!r} is not known; use one of {', '.join(map(repr, known))}")


def nothing_made(errors: Sequence[TTSError]) -> TTSError:
    """Return what to raise when no attempt has a score: what ended the search, or all the failures together."""
    failed = [error for error in errors if isinstance(error, AllCandidatesFailed)]
    if len(failed) < len(errors):
        return next(error for error in errors if not isinstance(error, AllCandidatesFailed))
    if len(failed) == 1:
        return failed[0]
    causes = [cause for error in failed for cause in error.errors]
    first = failed[0].__cause__
    raised = AllCandidatesFailed(
        f"all {len(causes)} attempts failed; the first because of {type(first).__name__}: {first}",
        causes,
        unscored=sum(error.unscored for error in failed),
        attempts=[attempt for error in failed for attempt in error.attempts],
    )
    raised.__cause__ = first
    return raised
