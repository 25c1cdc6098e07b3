"""Candidates in waves: each is generated, then scored, then handed over as it arrives."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any

from tts_plugins._calls.caller import Send, acquire, check_bounds, words
from tts_plugins._calls.charging import shortage
from tts_plugins._calls.context import SCOPE, Scope, seeds_of
from tts_plugins.budget import FREE, Amount, Bound, Need
from tts_plugins.engine._jobs import Ask, Job, Jobs
from tts_plugins.engine._scoring import failing_alone, is_ours, score_together, scored_by, with_answer
from tts_plugins.engine._state import SolveState, is_fatal
from tts_plugins.engine._tasks import Failure, Group, Inbox
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    DeadlineExceeded,
    ModelError,
    SolveCancelled,
    TTSError,
)
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Model, Run, SetVerifier, StopRule, Verifier, is_set_verifier, is_verifier
from tts_plugins.selection import with_content
from tts_plugins.stopping import should_stop
from tts_plugins.types import Candidate, Reply, Score, Scored

# Candidates of one wave at most: more than any server bears, so that a huge n costs nothing by itself.
_MOST = 4096
# Requests that are begun before others get a turn on the loop: each runs for about 0.1 ms until it waits.
_AT_ONCE = 16


class Sampling:
    """One `sample` or `revise` of a run; `_expansion` has what steps need besides.

    A wave is fed by one task, which reserves for as many candidates as fit and starts a task for each request. What a
    request brings is scored, and goes into the inbox, from which `candidates` hands it on. So nothing waits for the
    slowest, and `candidates` is never blocked by anything but its inbox, where a deadline arrives too.
    """

    def __init__(
        self,
        state: SolveState,
        run: Run,
        jobs: Sequence[Job] | Jobs,
        stop: StopRule | None = None,
        wave: int | None = None,
    ) -> None:
        self._state, self._run, self._jobs, self._stop, self._wave = state, run, jobs, stop, wave
        self._inbox = Inbox()
        self._tasks: Group = set()
        self._seen: list[Scored] = []
        self._failures: list[BaseException] = []
        self._attempts: list[Scored] = []  # what there is of those that failed
        self._unscored = 0  # of the failures, those of a verification
        self._refused: BudgetExhausted | None = None
        self._closed = False
        self._kept: dict[str, Hold] = {}  # what is held for scoring all of them together, by candidate
        # Asked once: what a protocol is, is slow to find out.
        self._alone = state.verifier if is_verifier(state.verifier) else None
        self._whole = state.verifier if is_set_verifier(state.verifier) else None
        # A single candidate waits for nothing: it needs no task for itself, and no hold where its verifier is free.
        self._at_once = (
            is_ours(state.answer)
            and not hasattr(state.answer, "relate")
            and (state.verifier is None or getattr(self._alone, "inline", False))
        )

    async def candidates(self) -> AsyncGenerator[Scored, None]:
        """Each candidate as it arrives. When this ends, however it does, nothing is in flight any more."""
        state, n, launched, size, done = self._state, len(self._jobs), 0, 0, False
        try:
            state.raise_if_halted()
            state.raise_if_fatal(self._asked_model())
            state.inboxes.add(self._inbox)
            state.go_on()
            while launched < n and self._refused is None and not done:
                size = self._wave_size(n - launched, size)
                jobs = self._jobs[launched : launched + size]
                launched += len(jobs)
                event = state.trace.open("wave", state.root, n=len(jobs), of=n)
                try:
                    await self._begin(jobs, event)
                    for _ in range(len(jobs)):
                        arrival = await self._inbox.get()
                        if isinstance(arrival, Scored):
                            self._seen.append(arrival)
                            if self._whole is None:
                                state.seen.append(arrival)
                                yield arrival
                            done = self._decided(n)
                        elif isinstance(arrival, str):
                            done = True
                        else:
                            done = self._failed(arrival)
                        del arrival  # a failure's traceback may have this frame: it would refer to itself
                        if done:
                            break
                finally:
                    state.trace.close(event)
            await self._stop_sending()
            if self._whole is not None and self._seen:
                for scored in await self._score_set(self._whole):
                    yield scored
            if not self._seen:
                raise self._nothing()
        finally:
            await self.close()

    async def _begin(self, jobs: Sequence[Job] | Jobs, event: int) -> None:
        """Send a wave: at once as much as there is room for, and the rest by a task that may wait for room."""
        sent = await self._feed(jobs, event, waits=False)
        if sent < len(jobs):
            self._spawn(self._feed(jobs[sent:], event))

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
        self._state.inboxes.discard(self._inbox)
        await self._state.tasks.cancel(self._tasks)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], hold: Hold | None = None) -> None:
        self._state.tasks.spawn(coroutine, self._tasks, hold, self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Report a task that ended without an arrival: it is a defect, and nobody may wait for it."""
        if not self._closed:
            cause = None if task.cancelled() else task.exception()
            error: BaseException = RuntimeError(
                f"a task of the engine ended by {'cancellation' if cause is None else words(cause)}"
            )
            error.__cause__ = cause
            self._inbox.put(cause if isinstance(cause, SystemExit | KeyboardInterrupt) else error)

    def _wave_size(self, left: int, before: int) -> int:
        if self._wave is not None:
            return min(self._wave, left)
        if self._stop is None:
            return min(left, _MOST)
        least = self._stop.least(with_content(self._seen), left)
        return min(left, _MOST, max(least, 2 * before, 1))

    def _decided(self, n: int) -> bool:
        left = n - len(self._seen) - len(self._failures)
        if left <= 0 or not should_stop(self._stop, self._seen, left):
            return False
        if self._state.stopped == "complete" or self._refused is not None:
            self._state.stopped = "stop_rule"  # what the budget refused was not needed
        self._state.note("stop", rule=repr(self._stop), seen=len(self._seen), left=left)
        return True

    def _failed(self, arrival: Failure | BaseException) -> bool:
        """Record a failure; return whether it ends the search with the candidates that there are.

        Raises:
            BaseException: the error itself, if it is a defect, or if there is no candidate and can be none.
        """
        error = arrival.error if isinstance(arrival, Failure) else arrival
        if isinstance(error, BudgetExhausted) and self._state.exhausted(error):
            self._refused = self._refused or error
            return False
        self._failures.append(error)
        if (lacking := shortage(error)) is not None:
            self._state.note("shortage", error=lacking)
        fatal = is_fatal(error)
        if fatal and isinstance(error, ModelError):
            self._state.fatal.append((self._asked_model(), error))
        if not isinstance(error, TTSError) or (fatal and not self._seen):
            try:
                raise error
            finally:
                del error, arrival
        if isinstance(arrival, Failure):
            self._attempts.append(arrival.attempt())
        if fatal:
            self._state.failed_for_all(error)
        return fatal

    def _asked_model(self) -> Model:
        return next(iter(self._jobs)).ask.model

    def _nothing(self) -> BaseException:
        halted, first = self._state.halted, next(iter(self._failures), None)
        if halted == "cancelled":
            error: TTSError = SolveCancelled("the solve was cancelled before the first candidate was complete")
        elif halted == "deadline":
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

    async def _feed(self, jobs: Sequence[Job] | Jobs, event: int, *, waits: bool = True) -> int:
        """Reserve for as many candidates as fit, and send a request for each group of them that asks the same.

        Args:
            waits: whether to wait for room; else it ends where there is none, and where others should get a turn.

        Returns:
            How many were sent, or are lost.
        """
        source, left = iter(jobs), len(jobs)
        pending = deque(itertools.islice(source, 1))
        asked: Ask | None = None
        try:
            while pending:
                if pending[0].ask is not asked:
                    asked = pending[0].ask
                    gen, after, unit = await self._unit(asked)
                batch = max(1, asked.model.batch)
                pending.extend(itertools.islice(source, max(batch - len(pending), 0)))
                try:
                    hold = await self._room(unit, _alike(pending, batch), left, waits)
                except BudgetExhausted:
                    # While it waited, what the first prompts took may have become known: it may need less room now.
                    before = unit
                    gen, after, unit = await self._unit(asked)
                    if not any(before.times(1).excess(unit.times(1))):
                        raise
                    continue
                if hold is None:
                    break
                group = [pending.popleft() for _ in range(hold.units)]
                left -= len(group)
                self._spawn(self._group(group, hold, gen, after, event), hold)
                if left % _AT_ONCE < len(group) and left:
                    if not waits:
                        break
                    await asyncio.sleep(0)
                if not pending:
                    pending.extend(itertools.islice(source, 1))
        except Exception as error:  # noqa: BLE001 - each candidate that was not sent is lost to it, whatever it is
            self._unsent(left)
            for _ in range(left):
                self._inbox.put(error)
            left = 0
        return len(jobs) - left

    async def _room(self, unit: Need, at_most: int, waiting: int, waits: bool) -> Hold | None:
        """Reserve room for some of the `waiting` candidates; None if there is none, and `waits` is False."""
        ledger = self._state.ledger
        if waits:
            return await acquire(ledger, unit, at_most=at_most)
        try:
            return ledger.reserve(unit, at_most=at_most) if ledger.idle_queue else None
        except BudgetExhausted:
            return None

    def _unsent(self, jobs: int) -> None:
        """Say that so many jobs will never be sent."""

    async def _bounds(self, ask: Ask) -> tuple[Bound | None, Amount]:
        return await bounds(self._state, ask)

    async def _unit(self, ask: Ask) -> tuple[Bound | None, Amount, Need]:
        """The bound of a generation, what its verification may take, and what candidates take in all."""
        gen, after = await self._bounds(ask)
        return gen, after, (gen or FREE).need.plus(after)

    async def _group(self, jobs: Sequence[Job], hold: Hold, gen: Bound | None, after: Amount, event: int) -> None:
        state, ask = self._state, jobs[0].ask
        try:
            reply, rest, request = await self._request(jobs, hold, gen, after, event, ask.send)
        except Exception as error:  # noqa: BLE001 - `_failed` decides what becomes of it
            for job in jobs:
                lost = Candidate(problem=ask.problem, index=job.index, seed=job.seed)
                self._inbox.put(Failure(error, lost))
            return
        made = [ask.make(g, job.index, job.seed) for job, g in zip(jobs, reply.generations, strict=False)]
        if len(jobs) == 1:
            # The generation has drawn its part, so that the rest of the hold is the verification's. On in this task:
            # through another one, its connection would lie idle while others take the pool's time.
            if rest is not hold:
                state.tasks.carry(rest)
            await self._verify(self._kept_until_all(made[0], rest), rest, request)
            return
        at_once = self._at_once and after == FREE.amount
        # Each candidate's verification draws from what the request still holds, and then stands alone.
        holds = [] if at_once else [state.ledger.reserve(after, within=rest) for _ in made]
        rest.release()
        if missing := jobs[len(made) :]:
            state.trace.note("top_up", request, missing=len(missing))
            self._spawn(self._feed(missing, event))
        for candidate, own in zip(made, holds, strict=False):
            self._kept_until_all(candidate, own)
            self._spawn(self._verify(candidate, own, request), None if candidate.id in self._kept else own)
        if at_once:
            await self._verify_all(made, request)

    async def _verify_all(self, candidates: Sequence[Candidate], request: int) -> None:
        """Verify one after the other what takes no time, with a turn for others now and then."""
        for i, candidate in enumerate(candidates, 1):
            await self._verify(candidate, None, request)
            if i % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _kept_until_all(self, candidate: Candidate, own: Hold) -> Candidate:
        """Where all are scored together, keep what is held for that. It can end no call, so nobody waits for it."""
        if self._whole is not None:
            self._kept[candidate.id] = own
            own.park()
            self._state.tasks.carry(None)
        return candidate

    async def _request(
        self, jobs: Sequence[Job], hold: Hold, gen: Bound | None, after: Amount, event: int, send: Send
    ) -> tuple[Reply, Hold, int]:
        return await self._state.caller.request(
            jobs[0].ask.model, jobs[0].ask.problem, [job.seed for job in jobs], bound=gen,
            unit=(gen or FREE).need.plus(after), hold=hold, within=None, role="model", parent=event, send=send,
            indices=[job.index for job in jobs],
        )  # fmt: skip

    async def _verify(self, candidate: Candidate, hold: Hold | None, parent: int) -> None:
        trace = self._state.trace
        before = {} if candidate.parent is None else {"parent_candidate": candidate.parent}
        event = trace.open(
            "candidate", parent, candidate=candidate.id, index=candidate.index, text=candidate.text,
            finish_reason=candidate.finish_reason, **before,
        )  # fmt: skip
        self._state.events[candidate.id] = event
        try:
            scored = await self._judge(candidate, hold, event)
        except Exception as error:  # noqa: BLE001 - `_failed` decides what becomes of it
            self._unscored += 1
            trace.close(event, error=words(error))
            self._inbox.put(Failure(error, candidate))
        except BaseException:
            trace.close(event, error="cancelled")
            raise
        else:
            trace.close(
                event, answer=scored.answer, score=scored.score, feedback=scored.feedback,
                **({"step_scores": scored.step_scores} if scored.step_scores else {}),
            )  # fmt: skip
            self._inbox.put(scored)
            if candidate.id in self._kept:
                return  # its hold is for scoring all of them
        self._kept.pop(candidate.id, None)
        if hold is not None:
            hold.release()

    async def _judge(self, candidate: Candidate, hold: Hold | None, event: int) -> Scored:
        """Return the candidate with its answer and its score."""
        state, verifier = self._state, self._alone
        if verifier is not None or not self._at_once:
            self._enter(candidate, hold, event)
        candidate = await with_answer(candidate, state.answer, self._run)
        if verifier is None:
            return Scored.of(candidate)
        with failing_alone(verifier.name):
            return scored_by(verifier.name, candidate, await self._asked(verifier, candidate))

    async def _asked(self, verifier: Verifier, candidate: Candidate) -> Score:
        return await self._state.blocking.ask(verifier, verifier.score, self._run, candidate)

    def _enter(self, candidate: Candidate, hold: Hold | None, event: int) -> None:
        """Say that what this task asks for from here on is for the candidate's verification."""
        state, seeds = self._state, seeds_of(self._state.seed, "verify", candidate.index)
        SCOPE.set(Scope(state.ledger, hold, state.deadline, "verifier", event, seeds))

    async def _score_set(self, verifier: SetVerifier) -> list[Scored]:
        """Score all candidates together. One whose score is invalid is lost alone."""
        state, ordered = self._state, sorted(self._seen, key=lambda c: c.index)
        state.seen += ordered  # without scores, they are what there is if scoring does not come to an end
        hold = state.ledger.join([self._kept[c.id] for c in ordered])
        scored, failures = await score_together(state, self._run, verifier, ordered, hold)
        self._failures += failures
        self._unscored += len(failures)
        if not scored:
            self._attempts += [Failure(why, c).attempt() for why, c in zip(failures, ordered, strict=True)]
            raise self._all_failed()
        ids = {c.id for c in ordered}
        state.seen[:] = [c for c in state.seen if c.id not in ids] + scored
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


def _alike(pending: Iterable[Job], most: int) -> int:
    """How many of the first ones ask the same; `most` at most."""
    asks = [job.ask for job in itertools.islice(pending, most)]
    return next((i for i, ask in enumerate(asks) if ask is not asks[0]), len(asks))


async def bounds(state: SolveState, ask: Ask) -> tuple[Bound | None, Amount]:
    """What one generation can cost, and what follows it."""
    gen = await ask.bound()
    check_bounds(ask.model, gen, state.ledger)
    if state.verifier is None:
        return gen, FREE.amount
    # Tokens at most of what the verifier is shown.
    length = None if gen is None or gen.completion_tokens is None else ask.written + gen.completion_tokens
    ver = await state.verifier.bound(ask.problem, length)
    check_bounds(state.verifier, ver, state.ledger)
    return gen, ver.amount
