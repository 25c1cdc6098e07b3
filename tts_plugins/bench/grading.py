"""Grades candidates, for measuring only, after a solve has ended."""

from __future__ import annotations

import atexit
import functools
import inspect
import numbers
from collections.abc import Callable

from tts_plugins.answers import equivalent
from tts_plugins.errors import DataError, MissingExtraError
from tts_plugins.pools import PoolCandidate
from tts_plugins.types import Candidate, Problem
from tts_plugins.verifiers.math_answer import MathAnswer

Grade = Callable[[Problem, Candidate], bool | None]


def by_answer(problem: Problem, candidate: Candidate) -> bool | None:
    """Return whether the answer means the same as the problem's gold answer; None if there is no gold answer."""
    gold = problem.metadata.get("answer")
    if not isinstance(gold, str):
        return None
    return candidate.answer is not None and equal_answers(candidate.answer, gold)


def equal_answers(answer: str, gold: str) -> bool:
    """Return whether an answer means the same as a gold answer, on any thread.

    With the extra `math` equal formulas are the same: math-verify runs in a process of its own, behind guards, and what
    takes it more than 5 s counts as different. Without it keys and numbers are compared.
    """
    grader = _grader()
    return equivalent(answer, gold) if grader is None else grader.equal_here(answer, gold)


@functools.cache
def _grader() -> MathAnswer | None:
    try:
        made = MathAnswer(timeout=5.0)
    except MissingExtraError:
        return None
    atexit.register(made.close)
    return made


def by_record(problem: Problem, candidate: Candidate) -> bool | None:
    """Return the recorded grade of a replayed candidate; None if it was not graded."""
    return candidate.output.correct if isinstance(candidate.output, PoolCandidate) else None


def graded(grade: Grade, problem: Problem, candidate: Candidate) -> bool | None:
    """Return what a grade function says of a result.

    Raises:
        DataError: the value is not a grade (see `truth`), or the function is async.
    """
    found: object = grade(problem, candidate)
    if inspect.iscoroutine(found):
        found.close()  # nobody will await it
        raise DataError(f"grade: problem {problem.id!r}: the function is async; give a synchronous one")
    return truth(problem, found)


def truth(problem: Problem, found: object) -> bool | None:
    """Read what a grade function returned: true and false, 1 and 0 as numbers of any kind, or None.

    Raises:
        DataError: any other value, such as a word, NaN, or a share; names the problem and the value.
    """
    if found is None or isinstance(found, bool):
        return found
    numpy_s = type(found).__name__ in ("bool", "bool_") and type(found).__module__ == "numpy"
    if numpy_s or (isinstance(found, numbers.Real) and found in (0, 1)):
        return bool(found)
    raise DataError(
        f"grade: problem {problem.id!r}: {str(found)[:60]!r} ({type(found).__name__}) is not a grade; "
        "return True, False, or None for what cannot be graded"
    )


def can_grade(grade: Grade, problem: Problem) -> bool:
    """Return whether an answer to this problem can be right or wrong."""
    return grade is not by_answer or isinstance(problem.metadata.get("answer"), str)
