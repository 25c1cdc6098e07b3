"""Another grade for what a benchmark has paid for already: its candidates are graded again, without any model call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tts_plugins.bench.grading import Grade, by_answer, can_grade, graded
from tts_plugins.bench.storage.rows import CandidateRow, SolveRow
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Problem, Scored

Key = tuple[str, str, int]
Rows = tuple[SolveRow, Sequence[CandidateRow]]


def regraded(
    problems: Mapping[str, Problem], solves: Sequence[SolveRow], candidates: Mapping[Key, Sequence[CandidateRow]],
    grade: Grade,
) -> list[Rows]:  # fmt: skip
    """Return every solve with its candidates, as they would have been kept under this grade.

    A grade gets candidates as a store has them: with text, answer, score and what else is in `CandidateRow`, without a
    native output. For an answer that is not one of its solve's candidates, it gets text, answer and score.

    Raises:
        ConfigurationError: such an answer's text was not kept, as by earlier releases, and the grade may read it.
        DataError: it is not a grade.
    """
    made = list[Rows]()
    for solve in solves:
        problem, rows = problems[solve.problem], candidates.get((solve.problem, solve.arm, solve.seed), ())
        made_of = [replace(row, correct=graded(grade, problem, _candidate(problem, row))) for row in rows]
        if solve.error is not None:
            correct = False if can_grade(grade, problem) else None
        elif solve.chosen is not None:
            correct = made_of[solve.chosen].correct
        else:
            correct = graded(grade, problem, _answered(problem, solve, by_answer=grade is by_answer))
        made.append((replace(solve, correct=correct), made_of))
    return made


def _answered(problem: Problem, solve: SolveRow, *, by_answer: bool) -> Scored:
    """Return the answer of a solve if it is not one of its candidates."""
    if solve.text is None and not by_answer:
        raise ConfigurationError(
            f"bench: problem {solve.problem!r}, {solve.arm}, seed {solve.seed}: its answer is not one of its "
            "candidates, and its text was not kept, so it cannot be graded again; give the grade that it was started "
            "with, or another --out"
        )
    return Scored(problem, text=solve.text or "", answer=solve.answer, finished=True, score=solve.score)


def _candidate(problem: Problem, row: CandidateRow) -> Scored:
    return Scored(
        problem, text=row.text or "", answer=row.answer, finished=row.finished, truncated=row.truncated,
        tokens=row.tokens, logprobs=row.logprobs or None, index=row.place, seed=row.sent_seed, score=row.score,
        step_scores=row.step_scores,
    )  # fmt: skip
