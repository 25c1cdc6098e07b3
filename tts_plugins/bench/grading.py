"""Whether a candidate is right: for measuring only, after a solve has ended."""

from __future__ import annotations

from collections.abc import Callable

from tts_plugins.answers import equivalent
from tts_plugins.pools import PoolCandidate
from tts_plugins.types import Candidate, Problem

Grade = Callable[[Problem, Candidate], bool | None]


def by_answer(problem: Problem, candidate: Candidate) -> bool | None:
    """Whether its answer means the same as the problem's gold answer; None where there is no gold answer."""
    gold = problem.metadata.get("answer")
    if not isinstance(gold, str):
        return None
    return candidate.answer is not None and equivalent(candidate.answer, gold)


def by_record(problem: Problem, candidate: Candidate) -> bool | None:
    """What a pool says of a replayed candidate; None where it was not graded."""
    return candidate.output.correct if isinstance(candidate.output, PoolCandidate) else None


def can_grade(grade: Grade, problem: Problem) -> bool:
    """Whether an answer to this problem could be right or wrong."""
    return grade is not by_answer or isinstance(problem.metadata.get("answer"), str)
