"""Check what a verifier says of a candidate, and read a candidate's answer."""

from __future__ import annotations

import asyncio
import math
import numbers
from collections.abc import Sequence
from typing import Any

from tts_plugins._calls.caller import asked_to_cancel, words
from tts_plugins._calls.context import SCOPE, Scope
from tts_plugins._internal.config import in_unit
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.values import is_ours
from tts_plugins.answers import Answer, AnswerKey, extract, remembered, unfinished
from tts_plugins.engine._blocking import ask_verifier
from tts_plugins.engine._state import SolveState
from tts_plugins.engine._tasks import Failure
from tts_plugins.errors import InvalidScore, TTSError, VerifierError
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Run, SetVerifier
from tts_plugins.types import Candidate, Score, Scored, well_formed


async def score_together(
    state: SolveState, run: Run, verifier: SetVerifier, candidates: Sequence[Scored], hold: Hold
) -> tuple[list[Scored], list[Failure]]:
    """Return the candidates with their scores, and why some have none. `hold` pays, and is closed in any case.

    Raises:
        VerifierError: there are no scores at all.
    """
    event = state.trace.open("score_set", state.root, verifier=verifier.name, n=len(candidates))
    path = ("score_set", candidates[0].index)
    outer, scope = SCOPE.get(), Scope(state.ledger, hold, state.deadline, "verifier", event, state.seed, path)
    SCOPE.set(scope)
    try:
        with failing_alone(verifier.name):
            scores = await ask_verifier(state.held, verifier, verifier.score_set, run, candidates)
            if len(scores) != len(candidates):
                raise InvalidScore(f"{verifier.name} gave {len(scores)} scores for {len(candidates)} candidates")
    except BaseException as error:
        state.trace.close(event, error=words(error))
        raise
    finally:
        scope.leave_for(outer)
        hold.release()
    scored, failures = list[Scored](), list[Failure]()
    for candidate, score in zip(candidates, scores, strict=True):
        try:
            scored.append(scored_by(verifier.name, candidate, score))
        except InvalidScore as error:
            failures.append(Failure(error, candidate))
            state.trace.note("failure", event, error=words(error), candidate=candidate.id)
    state.trace.close(event, scores=[{"candidate": c.id, "score": c.score} for c in scored])
    return scored, failures


class failing_alone:
    """Turn whatever a verifier raises into a `VerifierError`, even a cancellation that nobody asked for."""

    __slots__ = ("_joint", "_verifier")

    def __init__(self, verifier: str, joint: str = ": ") -> None:
        self._verifier, self._joint = verifier, joint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # KeyboardInterrupt and its like are the program's, not the verifier's.
        if error is None or isinstance(error, TTSError | GeneratorExit | KeyboardInterrupt | SystemExit):
            return
        if isinstance(error, asyncio.CancelledError):
            if not asked_to_cancel():
                raise VerifierError(f"{self._verifier}: it was cancelled from inside") from error
            return
        # It need not be an Exception either: an example is a test framework's.
        raise VerifierError(f"{self._verifier}{self._joint}{words(error)}") from error


def scored_by(verifier: str, candidate: Candidate, score: Score) -> Scored:
    """Return the candidate with its score.

    Raises:
        InvalidScore: a score is not in [0, 1], or there are too few or too many step scores.
    """
    given: object = score
    if not isinstance(given, Score):
        raise InvalidScore(
            f"{verifier}: of candidate {candidate.id} it returned {given!r}, not a Score; return Score(value=…)"
        )
    value, steps = given.value, tuple(given.steps)
    # As nearly all are; else it is found out which is not, and why.
    if not all([type(v) is float and 0.0 <= v <= 1.0 for v in (value, *steps)]):
        value = _in_unit(verifier, candidate, "score", value)
        steps = tuple([_in_unit(verifier, candidate, f"step score {i}", v) for i, v in enumerate(steps)])
    if steps and candidate.steps and len(steps) != len(candidate.steps):
        raise InvalidScore(f"{verifier}: {len(steps)} step scores for {len(candidate.steps)} steps")
    feedback = well_formed(given.feedback) if isinstance(given.feedback, str) else given.feedback
    return Scored.of(candidate, score=value, step_scores=steps, feedback=feedback, details=given.details)


def _in_unit(verifier: str, candidate: Candidate, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | numbers.Real) or not math.isfinite(value):
        raise InvalidScore(f"{verifier}: {name} of candidate {candidate.id} is {value!r}, not a finite number")
    if (score := in_unit(float(value))) is None:
        raise InvalidScore(
            f"{verifier}: {name} of candidate {candidate.id} is {value!r}; scores are from 0 to 1. For raw "
            "rewards fit a verifiers.Calibration and use verifiers.Calibrated, or return 1 / (1 + exp(-reward))"
        )
    return score


_extracted = remembered(extract)


def _read(key: AnswerKey, text: str) -> object:
    return _extracted(text) if key is extract else key(text)


def is_quick(key: AnswerKey) -> bool:
    """Return whether an answer key can be asked on the loop: those of this package, if they are not `slow`."""
    return key is extract or (is_ours(key) and not getattr(key, "slow", False))


async def with_answer(candidate: Candidate, key: AnswerKey, run: Run) -> Candidate:
    """Return the candidate with the answer that its text gives, by the user's key or ours.

    A key with a method `relate` compares the answer with those of the run by their meaning.
    """
    if is_quick(key):
        said = answered(candidate.text, key)
    else:  # it may take long, and runs on a thread
        with _reading:
            answer: object = await in_thread(key, candidate.text)
        said = _told(answer, candidate.text)
    candidate = candidate.replace(**said)
    relate = getattr(key, "relate", None)
    if relate is None or candidate.vote is None:
        return candidate
    related = await relate(run, candidate.vote, candidate.answer or candidate.vote, candidate.problem)
    return candidate.replace(answer_key=related)


def answered(text: str, key: AnswerKey) -> dict[str, Any]:
    """Return the fields of a candidate that tell the answer in its text, by a key that is ours.

    Raises:
        VerifierError: the key function failed.
    """
    with _reading:
        answer: object = _read(key, text)
    return _told(answer, text)


_reading = failing_alone("answer: the key function failed", ", ")


def _told(answer: object, text: str) -> dict[str, Any]:
    cut = {"truncated": True} if unfinished(text) else {}  # it was cut while it thought
    if answer is None:
        return cut
    if isinstance(answer, Answer):
        return {"answer": well_formed(answer.raw), "answer_key": well_formed(str(answer)), **cut}
    return {"answer": well_formed(str(answer)), **cut}  # a number votes by its text
