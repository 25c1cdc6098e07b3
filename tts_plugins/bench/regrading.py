"""Another grade for what a benchmark has paid for already: its candidates are graded again, and nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tts_plugins.bench.grading import Grade, can_grade
from tts_plugins.bench.rows import CandidateRow, SolveRow
from tts_plugins.types import Candidate, Problem, Scored

Key = tuple[str, str, int]
Rows = tuple[SolveRow, Sequence[CandidateRow]]


def regraded(
    problems: Mapping[str, Problem], solves: Sequence[SolveRow], candidates: Mapping[Key, Sequence[CandidateRow]],
    grade: Grade,
) -> list[Rows]:  # fmt: skip
    """Every solve with its candidates, as they would have been kept under this grade.

    A grade gets candidates as a store has them: with text, answer, score and what else is in `CandidateRow`, without a
    native output.
    """
    made = list[Rows]()
    for solve in solves:
        problem, rows = problems[solve.problem], candidates.get((solve.problem, solve.arm, solve.seed), ())
        graded = [replace(row, correct=grade(problem, _candidate(problem, row))) for row in rows]
        if solve.error is not None:
            correct = False if can_grade(grade, problem) else None
        elif solve.chosen is not None:
            correct = graded[solve.chosen].correct
        else:  # none of those that were kept was returned
            correct = grade(problem, Candidate(problem, answer=solve.answer, finished=True))
        made.append((replace(solve, correct=correct), graded))
    return made


def _candidate(problem: Problem, row: CandidateRow) -> Scored:
    return Scored(
        problem, text=row.text or "", answer=row.answer, finished=row.finished, truncated=row.truncated,
        tokens=row.tokens, logprobs=row.logprobs or None, index=row.place, seed=row.sent_seed, score=row.score,
        step_scores=row.step_scores,
    )  # fmt: skip
