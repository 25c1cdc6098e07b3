"""Whether a candidate is right: for measuring only, after a solve has ended."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from tts_plugins.answers import equivalent
from tts_plugins.errors import DataError
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


def graded(grade: Grade, problem: Problem, candidate: Candidate) -> bool | None:
    """What a grade says, if it is one.

    Raises:
        DataError: it is neither true, false nor None, such as a coroutine, a word or NaN.
    """
    found: object = grade(problem, candidate)
    if found is None or isinstance(found, bool):
        return found
    if type(found).__name__ in ("bool", "bool_") and type(found).__module__ == "numpy":
        return bool(found)
    if inspect.iscoroutine(found):
        found.close()  # nobody will await it
    raise DataError(
        f"grade: problem {problem.id!r}: {str(found)[:60]!r} ({type(found).__name__}) is no grade; return True, False, "
        "or None for what cannot be graded, from a function that is not async"
    )


def can_grade(grade: Grade, problem: Problem) -> bool:
    """Whether an answer to this problem could be right or wrong."""
    return grade is not by_answer or isinstance(problem.metadata.get("answer"), str)
