"""Turns the outcome of a solve into rows of a store. Pure."""

from __future__ import annotations

from typing import Any

from tts_plugins.bench.grading import Grade, graded
from tts_plugins.bench.storage.rows import CandidateRow, SolveKey, SolveRow
from tts_plugins.types import Problem, Result, Scored, Usage

# The trace notes in which policies report a choice, and the field that holds it: `ComputeOptimal`'s plan, its choice
# at a stage, and the choice of any other policy.
_CHOICES = {"plan": "fixed", "difficulty": "chosen", "policy": "chosen_strategy"}


def outcome(
    key: SolveKey, problem: Problem, result: Result, grade: Grade, *, texts: bool
) -> tuple[SolveRow, list[CandidateRow]]:
    """Return a result and its candidates as graded rows; without texts if a pool has them."""
    places = {c.id: i for i, c in enumerate(result.candidates)}
    grades = [graded(grade, problem, c) for c in result.candidates]
    place = places.get(result.best.id)
    row = SolveRow(
        **_key(key), correct=graded(grade, problem, result.best) if place is None else grades[place],
        answer=result.best.vote, score=result.score, chosen=place, stopped=result.stopped, choice=_choice(result),
        text=result.best.text if texts and place is None else None,
        confidence=result.confidence, abstained=result.abstained is not None,
        **_costs(result.usage, result.usage.seconds),
    )  # fmt: skip
    return row, [_candidate(i, c, grades[i], texts) for i, c in enumerate(result.candidates)]


def failure(key: SolveKey, error: Exception, usage: Usage, seconds: float, *, gradable: bool = True) -> SolveRow:
    """Return the row of a solve that failed: wrong if the problem can be graded, with the usage it had."""
    return SolveRow(
        **_key(key), correct=False if gradable else None, answer=None, score=None, chosen=None, stopped="failed",
        error=f"{type(error).__name__}: {error}", **_costs(usage, seconds),
    )  # fmt: skip


def _key(key: SolveKey) -> dict[str, Any]:
    return {"problem": key.problem, "arm": key.arm, "seed": key.seed}


def _costs(usage: Usage, seconds: float) -> dict[str, Any]:
    verifier = usage.by_role.get("verifier")
    return {
        "calls": usage.calls, "requests": usage.requests, "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens, "verifier_tokens": 0 if verifier is None else verifier.tokens,
        "usd": usage.usd, "seconds": round(seconds, 6), "exact": usage.exact,
    }  # fmt: skip


def _candidate(place: int, c: Scored, correct: bool | None, texts: bool) -> CandidateRow:
    return CandidateRow(
        place=place, answer=c.vote, correct=correct, score=c.score, tokens=c.tokens, truncated=c.truncated,
        finished=c.finished, step_scores=c.step_scores, logprobs=c.logprobs or (), sent_seed=c.seed,
        text=c.text if texts else None,
    )  # fmt: skip


def _choice(result: Result) -> str | None:
    """Return the last strategy that a policy reported; None if it reported none."""
    notes = [event for event in result.trace if event["kind"] in _CHOICES]
    return str(notes[-1].get(_CHOICES[notes[-1]["kind"]])) if notes else None
