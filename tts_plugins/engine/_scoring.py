"""Check what a verifier says of a candidate, and read a candidate's answer."""

from __future__ import annotations

import asyncio
import math
import numbers
from collections.abc import Sequence

from tts_plugins._calls.caller import asked_to_cancel, words
from tts_plugins._calls.context import SCOPE, Scope
from tts_plugins._internal.config import in_unit
from tts_plugins._internal.threads import in_thread
from tts_plugins.answers import Answer, AnswerKey, extract, remembered, unfinished
from tts_plugins.engine._state import SolveState
from tts_plugins.errors import InvalidScore, TTSError, VerifierError
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Run, SetVerifier
from tts_plugins.types import Candidate, Score, Scored, well_formed


async def score_together(
    state: SolveState, run: Run, verifier: SetVerifier, candidates: Sequence[Scored], hold: Hold
) -> tuple[list[Scored], list[InvalidScore]]:
    """Return the candidates with their scores, and why some have none. `hold` pays, and is closed in any case.

    Raises:
        VerifierError: there are no scores at all.
    """
    event = state.trace.open("score_set", state.root, verifier=verifier.name, n=len(candidates))
    path = (state.seed, "score_set", candidates[0].index)
    token = SCOPE.set(Scope(state.ledger, hold, state.deadline, "verifier", event, path))
    try:
        with failing_alone(verifier.name):
            scores = await state.blocking.ask(verifier, verifier.score_set, run, candidates)
            if len(scores) != len(candidates):
                raise InvalidScore(f"{verifier.name} gave {len(scores)} scores for {len(candidates)} candidates")
    except BaseException as error:
        state.trace.close(event, error=words(error))
        raise
    finally:
        SCOPE.reset(token)
        hold.release()
    scored, failures = list[Scored](), list[InvalidScore]()
    for candidate, score in zip(candidates, scores, strict=True):
        try:
            scored.append(scored_by(verifier.name, candidate, score))
        except InvalidScore as error:
            failures.append(error)
            state.trace.note("failure", event, error=words(error), candidate=candidate.id)
    state.trace.close(event, scores=[{"candidate": c.id, "score": c.score} for c in scored])
    return scored, failures


class failing_alone:
    """Turn whatever a verifier raises into a `VerifierError`, even a cancellation that nobody asked for."""

    __slots__ = ("_verifier",)

    def __init__(self, verifier: str) -> None:
        self._verifier = verifier

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
        raise VerifierError(f"{self._verifier}: {words(error)}") from error


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
    value = _in_unit(verifier, candidate, "score", given.value)
    steps = tuple([_in_unit(verifier, candidate, f"step score {i}", v) for i, v in enumerate(given.steps)])
    if steps and candidate.steps and len(steps) != len(candidate.steps):
        raise InvalidScore(f"{verifier}: {len(steps)} step scores for {len(candidate.steps)} steps")
    feedback = well_formed(given.feedback) if isinstance(given.feedback, str) else given.feedback
    return Scored.of(candidate, score=value, step_scores=steps, feedback=feedback, details=given.details)


def _in_unit(verifier: str, candidate: Candidate, name: str, value: object) -> float:
    if type(value) is float and 0.0 <= value <= 1.0:
        return value  # as nearly all are
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


def is_ours(key: AnswerKey) -> bool:
    """Whether an answer key is one of this package's, which are quick."""
    return key is extract or str(getattr(key, "__module__", "")).startswith(("tts_plugins.", "tts_plugins_"))


async def with_answer(candidate: Candidate, key: AnswerKey, run: Run) -> Candidate:
    """Return the candidate with the answer that its text gives, by the user's key or ours.

    A key with a method `relate` compares the answer with those of the run by their meaning.
    """
    candidate = await _answered(candidate, key)
    relate = getattr(key, "relate", None)
    if relate is None or candidate.vote is None:
        return candidate
    key = await relate(run, candidate.vote, candidate.answer or candidate.vote, candidate.problem)
    return candidate.replace(answer_key=key)


async def _answered(candidate: Candidate, key: AnswerKey) -> Candidate:
    # A key of the user may take long, and runs on a thread; ours are quick.
    try:
        answer: object = _read(key, candidate.text) if is_ours(key) else await in_thread(key, candidate.text)
    except TTSError:
        raise
    except Exception as error:
        raise VerifierError(f"answer: the key function failed, {words(error)}") from error
    if unfinished(candidate.text):
        candidate = candidate.replace(truncated=True)  # it was cut while it thought
    if isinstance(answer, Answer):
        return candidate.replace(answer=well_formed(answer.raw), answer_key=well_formed(str(answer)))
    # A number votes by its text.
    return candidate.replace(answer=None if answer is None else well_formed(str(answer)))
