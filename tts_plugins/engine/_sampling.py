"""Whole solutions, in waves: each is generated, then scored, then handed over as it arrives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tts_plugins.budget import FREE, Bound
from tts_plugins.engine._calls import acquire, check_bounds, words
from tts_plugins.engine._scope import SCOPE, Scope
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    InvalidScore,
    ModelError,
    TTSError,
    VerifierError,
)
from tts_plugins.ledger import Hold
from tts_plugins.protocols import SetVerifier, StopRule, Verifier
from tts_plugins.types import Candidate, Generation, Problem, Score, Scored

if TYPE_CHECKING:
    from tts_plugins.engine._run import SolveRun

Halt = Literal["deadline", "cancelled"]
Arrival = Scored | BaseException | Halt


class Sampling:
    """One `sample` of a run."""

    def __init__(
        self, run: SolveRun, problem: Problem, indices: range, stop: StopRule | None, wave: int | None
    ) -> None:
        self._run, self._problem, self._indices, self._stop, self._wave = run, problem, indices, stop, wave
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen: list[Scored] = []
        self._failures: list[BaseException] = []
        self._refused: BudgetExhausted | None = None
        run.inboxes.add(self._inbox)

    async def candidates(self) -> AsyncIterator[Scored]:
        run, n = self._run, len(self._indices)
        run.raise_if_halted()
        whole = isinstance(run.verifier, SetVerifier)
        launched, size = 0, 0
        while launched < n and self._refused is None:
            size = self._wave_size(n - launched, size)
            indices = self._indices[launched : launched + size]
            event = run.trace.open("wave", run.root, n=len(indices), of=n)
            run.spawn(self._feed(indices, event), self._tasks)
            launched += len(indices)
            done = False
            for _ in indices:
                arrival = await self._inbox.get()
                if isinstance(arrival, str):
                    done = True
                    break
                if isinstance(arrival, BaseException):
                    self._lost(arrival)
                    continue
                self._seen.append(arrival)
                if not whole:
                    run.seen.append(arrival)
                    yield arrival
                if self._decided(n):
                    done = True
                    break
            run.trace.close(event)
            if done:
                break
        await self.close()
        if not self._seen:
            raise self._nothing()
        if whole:
            for scored in await self._score_set():
                run.seen.append(scored)
                yield scored

    async def close(self) -> None:
        """Cancel what is in flight, and wait until it is settled."""
        self._run.inboxes.discard(self._inbox)
        await cancel(self._tasks)

    def _wave_size(self, left: int, before: int) -> int:
        if self._wave is not None:
            return min(self._wave, left)
        if self._stop is None:
            return left
        least = self._stop.least(self._seen, left)
        return min(left, max(least, 2 * before, 1))

    def _decided(self, n: int) -> bool:
        left = n - len(self._seen) - len(self._failures)
        if self._stop is None or left <= 0 or not self._stop(self._seen, left):
            return False
        if self._run.stopped == "complete":
            self._run.stopped = "stop_rule"
        self._run.note("stop", rule=repr(self._stop), seen=len(self._seen), left=left)
        return True

    def _lost(self, error: BaseException) -> None:
        if isinstance(error, BudgetExhausted):
            self._refused = self._refused or error
            if self._run.stopped == "complete":
                self._run.stopped = "budget"
                self._run.note("budget", error=words(error))
            return
        self._failures.append(error)
        hopeless = isinstance(error, ConfigurationError) or (isinstance(error, ModelError) and error.fatal)
        if not isinstance(error, TTSError) or (hopeless and not self._seen):
            raise error  # a defect, or what no other candidate can escape either

    def _nothing(self) -> BaseException:
        run, first = self._run, next(iter(self._failures), None)
        if run.halted == "cancelled":
            return asyncio.CancelledError()
        if run.halted == "deadline":
            error: TTSError = DeadlineExceeded(
                "the deadline passed before the first candidate was complete"
                + (f"; first failure: {words(first)}" if first else "; give more seconds, or a faster model")
            )
        elif self._refused is not None:
            error = self._refused
            first = first or error.__cause__
        else:
            error = AllCandidatesFailed(
                f"all {len(self._failures)} candidates failed; the first because of {words(first) if first else '?'}",
                self._failures,
            )
        error.__cause__ = first
        return error

    async def _feed(self, indices: Sequence[int], event: int) -> None:
        """Reserve for as many candidates as fit, and send a request for each group of them."""
        run, todo = self._run, list(indices)
        try:
            gen, ver = await self._bounds()
            unit = (gen or FREE).amount.plus(ver.amount)
            while todo:
                hold = await acquire(run.ledger, unit, at_most=min(len(todo), max(1, run.model.batch)))
                group, todo = todo[: hold.units], todo[hold.units :]
                run.spawn(self._group(group, hold, gen, ver, event), self._tasks, hold)
        except Exception as error:  # noqa: BLE001 - each candidate that was not sent is lost to it, whatever it is
            for _ in todo:
                self._inbox.put_nowait(error)

    async def _bounds(self) -> tuple[Bound | None, Bound]:
        run = self._run
        gen = await run.model.bound(self._problem)
        check_bounds(run.model, gen, run.ledger)
        if run.verifier is None:
            return gen, FREE
        ver = await run.verifier.bound(self._problem, None if gen is None else gen.completion_tokens)
        return gen, ver

    async def _group(self, indices: list[int], hold: Hold, gen: Bound | None, ver: Bound, event: int) -> None:
        run = self._run
        unit = (gen or FREE).amount.plus(ver.amount)
        seeds = [run.derive("candidate", i) for i in indices]
        try:
            reply, rest, request = await run.caller.request(
                run.model,
                self._problem,
                seeds,
                bound=gen,
                unit=unit,
                hold=hold,
                within=None,
                role="model",
                parent=event,
            )
        except Exception as error:  # noqa: BLE001 - `_lost` decides what becomes of it
            for _ in indices:
                self._inbox.put_nowait(error)
            return
        got = list(zip(indices, seeds, reply.generations, strict=False))
        if len(indices) == 1 and got:
            # On in this task: through another one, its connection would lie idle while others take the pool's time.
            own = run.ledger.reserve(ver.amount, within=rest) if rest is not None else None
            if rest is not None:
                rest.release()
            await self._verify(self._candidate(got[0][2], indices[0], seeds[0]), own, request)
            return
        for index, seed, generation in got:
            # Each candidate's verification draws from what the request still holds, and then stands alone.
            own = run.ledger.reserve(ver.amount, within=rest) if rest is not None else None
            run.spawn(self._verify(self._candidate(generation, index, seed), own, request), self._tasks, own)
        if rest is not None:
            rest.release()
        if missing := indices[len(got) :]:
            run.trace.note("top_up", request, missing=len(missing))
            await self._feed(missing, event)

    def _candidate(self, generation: Generation, index: int, seed: int) -> Candidate:
        return Candidate(
            problem=self._problem,
            text=generation.text,
            output=generation.output,
            finished=True,
            truncated=generation.finish_reason == "length",
            finish_reason=generation.finish_reason,
            tokens=generation.tokens,
            logprobs=generation.logprobs,
            reasoning=generation.reasoning,
            index=index,
            seed=seed,
        )

    async def _verify(self, candidate: Candidate, hold: Hold | None, parent: int) -> None:
        run = self._run
        event = run.trace.open(
            "candidate", parent, candidate=candidate.id, index=candidate.index, text=candidate.text,
            finish_reason=candidate.finish_reason,
        )  # fmt: skip
        SCOPE.set(Scope(run.ledger, hold, run.deadline, "verifier", event))
        try:
            candidate = candidate.replace(answer=_read(run.answer, candidate.text))
            if isinstance(run.verifier, Verifier):
                score = await run.verifier.score(run, candidate)
                scored = _scored(candidate, score, run.verifier.name)
            else:
                scored = Scored.of(candidate)
        except Exception as error:  # noqa: BLE001 - a verifier may raise anything; it costs this candidate only
            lost = error if isinstance(error, TTSError) else VerifierError(f"candidate {candidate.id}: {words(error)}")
            if lost is not error:
                lost.__cause__ = error
            run.trace.close(event, error=words(lost))
            self._inbox.put_nowait(lost)
        except BaseException:
            run.trace.close(event, error="cancelled")
            raise
        else:
            run.trace.close(event, answer=scored.answer, score=scored.score, feedback=scored.feedback)
            self._inbox.put_nowait(scored)
        finally:
            if hold is not None:
                hold.release()

    async def _score_set(self) -> list[Scored]:
        run = self._run
        verifier = run.verifier
        assert isinstance(verifier, SetVerifier)
        run.raise_if_halted()
        ordered = sorted(self._seen, key=lambda c: c.index)
        event = run.trace.open("score_set", run.root, verifier=verifier.name, n=len(ordered))
        token = SCOPE.set(Scope(run.ledger, None, run.deadline, "verifier", event))
        try:
            scores = await verifier.score_set(run, ordered)
        finally:
            SCOPE.reset(token)
        if len(scores) != len(ordered):
            raise InvalidScore(f"{verifier.name} gave {len(scores)} scores for {len(ordered)} candidates")
        scored = [_scored(c, s, verifier.name) for c, s in zip(ordered, scores, strict=True)]
        run.trace.close(event, scores=[{"candidate": c.id, "score": c.score} for c in scored])
        return scored


def _scored(candidate: Candidate, score: Score, verifier: str) -> Scored:
    for name, value in (("score", score.value), *((f"step score {i}", v) for i, v in enumerate(score.steps))):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidScore(f"{verifier}: {name} of candidate {candidate.id} is {value!r}, not a finite number")
        if not 0 <= value <= 1:
            raise InvalidScore(f"{verifier}: {name} of candidate {candidate.id} is {value!r}; scores are from 0 to 1")
    if score.steps and candidate.steps and len(score.steps) != len(candidate.steps):
        raise InvalidScore(f"{verifier}: {len(score.steps)} step scores for {len(candidate.steps)} steps")
    return Scored.of(
        candidate,
        score=float(score.value),
        step_scores=tuple(float(v) for v in score.steps),
        feedback=score.feedback,
        details=score.details,
    )


def _read(key: Callable[[str], str | None], text: str) -> str | None:
    answer: object = key(text)
    return answer if answer is None or isinstance(answer, str) else str(answer)  # a number votes by its text


async def cancel(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until they have ended."""
    # They settle what they hold while they end. Code of a user that swallows its cancellation is not waited for.
    for _ in range(3):
        waiting = [task for task in tasks if task is not asyncio.current_task()]
        if not waiting:
            return
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=0.5)
