"""Candidates in waves: each is generated, then scored, then handed over as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tts_plugins._calls.caller import Send, acquire, check_bounds, words
from tts_plugins._calls.cancellation import Halt
from tts_plugins._calls.context import SCOPE, Scope, seeds_of
from tts_plugins.budget import FREE, Amount, Bound
from tts_plugins.engine._jobs import Ask, Job, Jobs
from tts_plugins.engine._scoring import failing_alone, score_together, scored_by, with_answer
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    ModelError,
    SolveCancelled,
    TTSError,
)
from tts_plugins.ledger import Hold
from tts_plugins.protocols import SetVerifier, StopRule, is_set_verifier, is_verifier
from tts_plugins.types import Candidate, Reply, Scored

if TYPE_CHECKING:
    from tts_plugins.engine._run import SolveRun

# Candidates that are thought of at once: more than any server bears, so that a huge n costs nothing by itself.
_MOST = 4096

# Characters of a failure's text that a revision is shown.
_TOLD = 2_000


class Failure(NamedTuple):
    """A candidate that is lost: why, and what there is of it."""

    error: BaseException
    candidate: Candidate

    def attempt(self) -> Scored:
        """The candidate as an attempt that a revision can build on: the failure is its feedback."""
        written = self.candidate.text or str(getattr(self.error, "written", ""))
        return Scored.of(self.candidate.replace(text=written), feedback=words(self.error)[:_TOLD])


Arrival = Scored | Failure | BaseException | Halt


class Sampling:
    """One `sample` or `revise` of a run; `_expansion` has what steps need besides."""

    def __init__(
        self, run: SolveRun, jobs: Sequence[Job] | Jobs, stop: StopRule | None = None, wave: int | None = None
    ) -> None:
        self._run, self._jobs, self._stop, self._wave = run, jobs, stop, wave
        self._inbox: asyncio.Queue[Arrival] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seen: list[Scored] = []
        self._failures: list[BaseException] = []
        self._attempts: list[Scored] = []  # what there is of those that failed
        self._unscored = 0  # of the failures, those of a verification
        self._refused: BudgetExhausted | None = None
        self._closed = False
        self._kept: dict[str, Hold] = {}  # what is held for scoring all of them together, by candidate
        # Asked once: what a protocol is, is slow to find out.
        self._whole = run.verifier if is_set_verifier(run.verifier) else None
        self._alone = run.verifier if is_verifier(run.verifier) else None
        run.inboxes.add(self._inbox)

    async def candidates(self) -> AsyncIterator[Scored]:
        run, n = self._run, len(self._jobs)
        run.raise_if_halted()
        if run.stopped == "stop_rule":  # of an earlier sampling, after which the search went on
            run.stopped = "complete"
        whole, launched, size, done = self._whole, 0, 0, False
        while launched < n and self._refused is None and not done:
            size = self._wave_size(n - launched, size)
            jobs = self._jobs[launched : launched + size]
            launched += len(jobs)
            event = run.trace.open("wave", run.root, n=len(jobs), of=n)
            try:
                self._spawn(self._feed(jobs, event))
                for _ in jobs:
                    arrival = await self._inbox.get()
                    if isinstance(arrival, str):
                        done = True
                        break
                    if not isinstance(arrival, Scored):
                        try:
                            self._lost(arrival)
                        finally:
                            # Its traceback may have this frame: it would refer to itself, and be freed late.
                            del arrival
                        continue
                    self._seen.append(arrival)
                    if whole is None:
                        run.seen.append(arrival)
                        yield arrival
                    if self._decided(n):
                        done = True
                        break
            finally:
                run.trace.close(event)
        await self._stop_sending()
        if whole is not None and self._seen:
            for scored in await self._score_set(whole):
                yield scored
        if not self._seen:
            raise self._nothing()

    async def close(self) -> None:
        """Cancel what is in flight, and wait until it is settled."""
        try:
            await self._stop_sending()
        finally:
            for hold in self._kept.values():
                hold.release()
            # Their tracebacks have frames that refer to this: a circle, which would keep all of the solve.
            self._failures, self._attempts, self._refused = [], [], None

    async def _stop_sending(self) -> None:
        self._closed = True
        self._run.inboxes.discard(self._inbox)
        await self._run.cancel(self._tasks)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], hold: Hold | None = None) -> None:
        self._run.spawn(coroutine, self._tasks, hold, self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """A task that ended by itself without an arrival is a defect, and must not be waited for."""
        if not self._closed:
            cause = None if task.cancelled() else task.exception()
            error: BaseException = RuntimeError(
                f"a task of the engine ended by {'cancellation' if cause is None else words(cause)}"
            )
            error.__cause__ = cause
            self._inbox.put_nowait(cause if isinstance(cause, SystemExit | KeyboardInterrupt) else error)

    def _wave_size(self, left: int, before: int) -> int:
        if self._wave is not None:
            return min(self._wave, left)
        if self._stop is None:
            return min(left, _MOST)
        least = self._stop.least(self._seen, left)
        return min(left, _MOST, max(least, 2 * before, 1))

    def _decided(self, n: int) -> bool:
        left = n - len(self._seen) - len(self._failures)
        if self._stop is None or left <= 0 or not self._stop(self._seen, left):
            return False
        if self._run.stopped == "complete" or self._refused is not None:
            self._run.stopped = "stop_rule"  # what the budget refused was not needed
        self._run.note("stop", rule=repr(self._stop), seen=len(self._seen), left=left)
        return True

    def _lost(self, arrival: Failure | BaseException) -> None:
        error = arrival.error if isinstance(arrival, Failure) else arrival
        if isinstance(error, BudgetExhausted) and self._run.exhausted(error):
            self._refused = self._refused or error
            return
        self._failures.append(error)
        hopeless = isinstance(error, ConfigurationError) or (isinstance(error, ModelError) and error.fatal)
        if not isinstance(error, TTSError) or (hopeless and not self._seen):
            try:
                raise error  # a defect, or what no other candidate can escape either
            finally:
                del error, arrival
        if isinstance(arrival, Failure):
            self._attempts.append(arrival.attempt())

    def _nothing(self) -> BaseException:
        run, first = self._run, next(iter(self._failures), None)
        if run.halted == "cancelled":
            error: TTSError = SolveCancelled("the solve was cancelled before the first candidate was complete")
        elif run.halted == "deadline":
            error = DeadlineExceeded(
                "the deadline passed before the first candidate was complete"
                + (f"; first failure: {words(first)}" if first else "; give more seconds, or a faster model")
            )
        elif self._refused is not None:
            error = self._refused
            first = first or error.__cause__
        else:
            return self._all_failed()
        error.__cause__ = first
        return error

    async def _feed(self, jobs: Sequence[Job], event: int) -> None:
        """Reserve for as many candidates as fit, and send a request for each group of them that asks the same."""
        todo = list(jobs)
        asked: Ask | None = None
        try:
            while todo:
                if todo[0].ask is not asked:
                    asked = todo[0].ask
                    gen, after = await self._bounds(asked)
                    unit = (gen or FREE).amount.plus(after)
                alike = sum(1 for job in todo if job.ask is asked)  # they stand together
                try:
                    hold = await self._room(unit, min(alike, max(1, asked.model.batch)), len(todo))
                except BudgetExhausted:
                    # While it waited, what the first prompts took may have become known: it may need less room now.
                    before = unit
                    gen, after = await self._bounds(asked)
                    unit = (gen or FREE).amount.plus(after)
                    if not any(before.excess(unit)):
                        raise
                    continue
                group, todo = todo[: hold.units], todo[hold.units :]
                self._spawn(self._group(group, hold, gen, after, event), hold)
        except Exception as error:  # noqa: BLE001 - each candidate that was not sent is lost to it, whatever it is
            self._unsent(len(todo))
            for _ in todo:
                self._inbox.put_nowait(error)

    async def _room(self, unit: Amount, at_most: int, waiting: int) -> Hold:
        """Room for some of those that wait for it."""
        return await acquire(self._run.ledger, unit, at_most=at_most)

    def _unsent(self, jobs: int) -> None:
        """So many will never be sent."""

    async def _bounds(self, ask: Ask) -> tuple[Bound | None, Amount]:
        return await bounds(self._run, ask)

    async def _group(self, jobs: Sequence[Job], hold: Hold, gen: Bound | None, after: Amount, event: int) -> None:
        run, ask = self._run, jobs[0].ask
        try:
            reply, rest, request = await self._request(jobs, hold, gen, after, event, ask.send)
        except Exception as error:  # noqa: BLE001 - `_lost` decides what becomes of it
            for job in jobs:
                lost = Candidate(problem=ask.problem, index=job.index, seed=job.seed)
                self._inbox.put_nowait(Failure(error, lost))
            return
        got = list(zip(jobs, reply.generations, strict=False))
        # Each candidate's verification draws from what the request still holds, and then stands alone.
        made = [(ask.make(g, job.index, job.seed), run.ledger.reserve(after, within=rest)) for job, g in got]
        rest.release()
        if self._whole is not None:
            for candidate, own in made:
                # Kept until all are there. It can end no call, so nobody waits for it.
                self._kept[candidate.id] = own
                own.park()
        if len(jobs) == 1:
            # On in this task: through another one, its connection would lie idle while others take the pool's time.
            await self._verify(*made[0], request)
            return
        for candidate, own in made:
            self._spawn(self._verify(candidate, own, request), None if candidate.id in self._kept else own)
        if missing := jobs[len(got) :]:
            run.trace.note("top_up", request, missing=len(missing))
            await self._feed(missing, event)

    async def _request(
        self, jobs: Sequence[Job], hold: Hold, gen: Bound | None, after: Amount, event: int, send: Send
    ) -> tuple[Reply, Hold, int]:
        return await self._run.caller.request(
            jobs[0].ask.model, jobs[0].ask.problem, [job.seed for job in jobs], bound=gen,
            unit=(gen or FREE).amount.plus(after), hold=hold, within=None, role="model", parent=event, send=send,
            indices=[job.index for job in jobs],
        )  # fmt: skip

    async def _verify(self, candidate: Candidate, hold: Hold, parent: int) -> None:
        run = self._run
        run.carry(None if candidate.id in self._kept else hold)
        event = run.trace.open(
            "candidate", parent, candidate=candidate.id, index=candidate.index, text=candidate.text,
            finish_reason=candidate.finish_reason, **_said(parent_candidate=candidate.parent),
        )  # fmt: skip
        run.events[candidate.id] = event
        seeds = seeds_of(run.seed, "verify", candidate.index)
        SCOPE.set(Scope(run.ledger, hold, run.deadline, "verifier", event, seeds))
        try:
            scored = await self._judge(candidate, hold, event)
        except Exception as error:  # noqa: BLE001 - `_lost` decides what becomes of it
            self._unscored += 1
            run.trace.close(event, error=words(error))
            self._inbox.put_nowait(Failure(error, candidate))
        except BaseException:
            run.trace.close(event, error="cancelled")
            raise
        else:
            run.trace.close(
                event, answer=scored.vote, score=scored.score, feedback=scored.feedback,
                **_said(step_scores=scored.step_scores),
            )  # fmt: skip
            self._inbox.put_nowait(scored)
            if candidate.id in self._kept:
                return  # its hold is for scoring all of them
        self._kept.pop(candidate.id, None)
        hold.release()

    async def _judge(self, candidate: Candidate, hold: Hold, event: int) -> Scored:
        """The candidate with its answer and its score."""
        run, verifier = self._run, self._alone
        candidate = await with_answer(candidate, run.answer)
        if verifier is None:
            return Scored.of(candidate)
        with failing_alone(verifier.name):
            return scored_by(verifier.name, candidate, await verifier.score(run, candidate))

    async def _score_set(self, verifier: SetVerifier) -> list[Scored]:
        """All candidates, scored together; each whose score is none is lost alone."""
        run, ordered = self._run, sorted(self._seen, key=lambda c: c.index)
        run.seen += ordered  # without scores, they are what there is if scoring does not come to an end
        hold = run.ledger.join([self._kept[c.id] for c in ordered])
        scored, failures = await score_together(run, verifier, ordered, hold)
        self._failures += failures
        self._unscored += len(failures)
        if not scored:
            self._attempts += [Failure(why, c).attempt() for why, c in zip(failures, ordered, strict=True)]
            raise self._all_failed()
        ids = {c.id for c in ordered}
        run.seen[:] = [c for c in run.seen if c.id not in ids] + scored
        return scored

    def _all_failed(self) -> AllCandidatesFailed:
        first = next(iter(self._failures), None)
        error = AllCandidatesFailed(
            f"all {len(self._failures)} candidates failed; the first because of {words(first) if first else '?'}",
            self._failures,
            unscored=self._unscored,
            attempts=self._attempts,
        )
        error.__cause__ = first
        return error


async def bounds(run: SolveRun, ask: Ask) -> tuple[Bound | None, Amount]:
    """What one generation can cost, and what follows it."""
    gen = await ask.bound()
    check_bounds(ask.model, gen, run.ledger)
    if run.verifier is None:
        return gen, FREE.amount
    # Tokens at most of what the verifier is shown.
    length = None if gen is None or gen.completion_tokens is None else ask.written + gen.completion_tokens
    ver = await run.verifier.bound(ask.problem, length)
    check_bounds(run.verifier, ver, run.ledger)
    return gen, ver.amount


def _said(**data: Any) -> dict[str, Any]:
    """What there is of it: most candidates have neither parents nor steps."""
    return {name: value for name, value in data.items() if value}
