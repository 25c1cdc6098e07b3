"""A strategy's last choice, and what its user should know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tts_plugins._internal.values import name_of
from tts_plugins.confidence import Support, support
from tts_plugins.protocols import Run
from tts_plugins.selection import Ballots, Select, choose, grouped, leaders, tally
from tts_plugins.stopping import Rule
from tts_plugins.types import Scored

_SHOWN, _LONG = 3, 40


def chosen(run: Run, candidates: Sequence[Scored], how: Select, stop: object = None) -> Scored:
    """Choose a candidate, and say how sure the choice is.

    What makes it doubtful goes to the trace and to `Result.warnings`: a tie, votes without a readable answer, or a stop
    rule that was fitted to another model or verifier.
    """
    candidates = Ballots(candidates)
    best = choose(candidates, how)
    note_choice(run, best, support(candidates, best, how))
    unlike = stop.doubts(name_of(run.model) or run.model.name, run.verifier) if isinstance(stop, Rule) else ()
    for doubt in (*unlike, *doubts(candidates, how)):
        run.note("doubt", said=doubt)
    return best


def note_choice(run: Run, best: Scored, found: Support) -> None:
    """Say how sure the choice of this candidate is, for the result; see `Run.note`."""
    run.note("choice", candidate=best.id, confidence=found.confidence, agreement=found.agreement)


def doubts(candidates: Sequence[Scored], how: Select) -> Iterator[str]:
    """What makes a choice among several candidates doubtful, in words."""
    if len(candidates) < 2:
        return
    if how == "best":
        yield from _equal_scores(candidates)
        return
    votes = tally(candidates, weighted=how == "weighted")
    if not votes:
        yield (
            f"none of {len(candidates)} candidates had a readable answer, so there was no vote; "
            "pass answer=… with a function that reads them"
        )
    elif len(first := leaders(candidates, votes)) > 1:
        unit = "summed score" if how == "weighted" else "votes"
        yield f"a tie: {_listed(first)} have the same {unit}, {votes[first[0]]:g} each; {_short(first[0])} was taken"


def _equal_scores(candidates: Sequence[Scored]) -> Iterator[str]:
    score = max([c.score for c in candidates if c.score is not None], default=None)
    top = [c for c in candidates if c.score is not None and c.score == score]
    whole = [c for c in top if c.finished and not c.truncated] or top
    groups = grouped(candidates)
    answers = list(dict.fromkeys([groups[vote] for c in whole if (vote := c.vote) is not None]))
    if len(answers) > 1:
        yield f"a tie: {_listed(answers)} have the same score, {score:g}; {_short(answers[0])} was taken"


def _listed(answers: Sequence[str]) -> str:
    more = len(answers) - _SHOWN
    return ", ".join(map(_short, answers[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _short(answer: str) -> str:
    return repr(answer if len(answer) <= _LONG else answer[: _LONG - 1] + "…")
