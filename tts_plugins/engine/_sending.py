"""From jobs to scored candidates in an inbox: room is reserved, requests are sent, and what they bring is scored."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from tts_plugins._calls.caller import acquire, check_bounds, words
from tts_plugins._calls.context import SCOPE, Scope
from tts_plugins._trace.recorder import compact
from tts_plugins.budget import FREE, Amount, Bound, Need
from tts_plugins.engine._blocking import ask_verifier
from tts_plugins.engine._jobs import Ask, Job, Jobs
from tts_plugins.engine._scoring import answered, failing_alone, is_quick, scored_by, with_answer
from tts_plugins.engine._state import SolveState
from tts_plugins.engine._tasks import Failure, Group, Inbox
from tts_plugins.errors import BudgetExhausted
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Run, Verifier, is_set_verifier, is_verifier
from tts_plugins.types import Candidate, Reply, Score, Scored

# Requests that are begun before others get a turn on the loop: each runs for about 0.1 ms until it waits.
_AT_ONCE = 16
_NOBODY = failing_alone("nobody")


class Cost(NamedTuple):
    """What one candidate may cost.

    Attributes:
        gen: the bound of its generation; None for a metered model.
        after: what its verification may take.
        need: what its generation takes.
        unit: both.
        alone: nothing follows a request that needs what is left of its reservation.
    """

    gen: Bound | None
    after: Amount
    need: Need
    unit: Need
    alone: bool


class Sending:
    """Sends requests for candidates, and puts each one into the inbox once it is scored, or why it failed.

    A wave is fed by one task, which reserves for as many candidates as fit and starts a task for each request. Nothing
    waits for the slowest.
    """

    def __init__(self, state: SolveState, run: Run) -> None:
        self._state, self._run = state, run
        self._inbox = Inbox()
        self._tasks: Group = {}
        self._closed = False
        self._unscored = 0  # failures of a verification
        self._kept: dict[str, Hold] = {}  # what is held for scoring all of them together, by candidate
        # Asked once: what a protocol is, is slow to find out.
        self._alone = state.verifier if is_verifier(state.verifier) else None
        self._whole = state.verifier if is_set_verifier(state.verifier) else None
        self._failing = _NOBODY if self._alone is None else failing_alone(self._alone.name)
        # A single candidate waits for nothing: it needs no task for itself, and no hold where its verifier is free.
        self._reads_at_once = is_quick(state.answer) and not hasattr(state.answer, "relate")
        self._at_once = self._reads_at_once and (state.verifier is None or getattr(self._alone, "inline", False))

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], hold: Hold | None = None) -> None:
        self._state.tasks.spawn(coroutine, self._tasks, hold, self)

    def task_failed(self, error: BaseException) -> None:
        """Report a task that ended without an arrival: it is a defect, and nobody may wait for it."""
        if self._closed:
            return
        if not isinstance(error, SystemExit | KeyboardInterrupt):
            cancelled = isinstance(error, asyncio.CancelledError)
            said = "cancellation" if cancelled else words(error)
            cause, error = error, RuntimeError(f"a task of the engine ended by {said}")
            error.__cause__ = None if cancelled else cause
        self._inbox.put(error)

    async def _begin(self, jobs: Sequence[Job] | Jobs, event: int) -> None:
        """Send a wave: at once as much as there is room for, and the rest by a task that may wait for room."""
        sent = await self._feed(jobs, event, waits=False)
        if sent < len(jobs):
            self._spawn(self._feed(jobs[sent:], event))

    async def _feed(self, jobs: Sequence[Job] | Jobs, event: int, *, waits: bool = True) -> int:
        """Reserve for as many candidates as fit, and send a request for each group of them that asks the same.

        Args:
            waits: whether to wait for room; else it ends where there is none, and where others should get a turn.

        Returns:
            How many were sent, or failed.
        """
        source, left = iter(jobs), len(jobs)
        pending = deque(itertools.islice(source, 1))
        asked: Ask | None = None
        try:
            while pending:
                if pending[0].ask is not asked:
                    asked = pending[0].ask
                    cost = await self._cost(asked)
                batch = max(1, asked.model.batch)
                pending.extend(itertools.islice(source, max(batch - len(pending), 0)))
                try:
                    alike = _alike(pending, batch) if batch > 1 else 1
                    hold = await self._room(cost.unit, alike, left, waits)
                except BudgetExhausted:
                    # While it waited, what the first prompts took may have become known: it may need less room now.
                    before, cost = cost, await self._cost(asked)
                    if not any(before.unit.times(1).excess(cost.unit.times(1))):
                        raise
                    continue
                if hold is None:
                    break
                group = [pending.popleft() for _ in range(hold.units)]
                left -= len(group)
                indices, seeds = compact([job.index for job in group]), compact([job.seed for job in group])
                self._spawn(self._group(asked, indices, seeds, hold, cost, event), hold)
                if left % _AT_ONCE < len(group) and left:
                    if not waits:
                        break
                    await asyncio.sleep(0)
                if not pending:
                    pending.extend(itertools.islice(source, 1))
        except Exception as error:  # noqa: BLE001 - it fails each candidate that was not sent, whatever it is
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

    async def _cost(self, ask: Ask) -> Cost:
        gen, after = await self._bounds(ask)
        free = after == FREE.amount
        need = (gen or FREE).need
        return Cost(gen, after, need, need if free else need.plus(after), free and self._at_once)

    async def _group(
        self, ask: Ask, indices: Sequence[int], seeds: Sequence[int], hold: Hold, cost: Cost, event: int
    ) -> None:
        """Send one request, and verify what it brings."""
        try:
            reply, rest, request = await self._request(ask, indices, seeds, hold, cost, event)
        except Exception as error:  # noqa: BLE001 - `_failed` decides what becomes of it
            for index, seed in zip(indices, seeds, strict=True):
                self._inbox.put(Failure(error, Candidate(problem=ask.problem, index=index, seed=seed)))
            return
        made = list(map(ask.make, reply.generations, indices, seeds))
        if len(seeds) == 1 and not cost.alone:
            # The generation has drawn its part, so that the rest of the hold is the verification's. On in this task:
            # through another one, its connection would lie idle while others take the pool's time.
            if rest is not hold:
                self._state.tasks.carry(rest)
            self._keep_until_all(made[0], rest)
            await self._verify(made[0], rest, request)
            return
        if not cost.alone:
            self._verify_apart(made, rest, cost.after, request)
        rest.release()
        if len(made) < len(seeds):
            self._top_up(ask, indices[len(made) :], seeds[len(made) :], event, request)
        if cost.alone:
            await self._verify_all(made, request)

    def _top_up(self, ask: Ask, indices: Sequence[int], seeds: Sequence[int], event: int, request: int) -> None:
        """Ask again for the choices that a request did not bring."""
        missing = [Job(index, seed, ask) for index, seed in zip(indices, seeds, strict=True)]
        self._state.trace.note("top_up", request, missing=len(missing))
        self._spawn(self._feed(missing, event))

    def _verify_apart(self, candidates: Sequence[Candidate], rest: Hold, after: Amount, request: int) -> None:
        """Verify each in a task of its own, which draws from what the request still holds, and then stands alone."""
        holds = [self._state.ledger.reserve(after, within=rest) for _ in candidates]
        for candidate, own in zip(candidates, holds, strict=True):
            self._keep_until_all(candidate, own)
            self._spawn(self._verify(candidate, own, request), None if candidate.id in self._kept else own)

    async def _verify_all(self, candidates: Sequence[Candidate], request: int) -> None:
        """Verify one after the other what takes no time, with a turn for others now and then."""
        for i, candidate in enumerate(candidates, 1):
            await self._verify(candidate, None, request)
            if i % _AT_ONCE == 0 and i < len(candidates):
                await asyncio.sleep(0)

    def _keep_until_all(self, candidate: Candidate, own: Hold) -> None:
        """Where all are scored together, keep what is held for that. It can end no call, so nobody waits for it."""
        if self._whole is not None:
            self._kept[candidate.id] = own
            own.park()
            self._state.tasks.carry(None)

    def _request(
        self, ask: Ask, indices: Sequence[int], seeds: Sequence[int], hold: Hold, cost: Cost, event: int
    ) -> Coroutine[Any, Any, tuple[Reply, Hold, int]]:
        return self._state.caller.request(
            ask.model, ask, seeds, bound=cost.gen, unit=cost.unit, need=cost.need, hold=hold, within=None, role="model",
            parent=event, indices=indices, alone=cost.alone,
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
        if hold is not None:
            self._kept.pop(candidate.id, None)
            hold.release()

    async def _judge(self, candidate: Candidate, hold: Hold | None, event: int) -> Scored:
        """Return the candidate with its answer and its score."""
        state, verifier = self._state, self._alone
        if hold is not None or not self._at_once:  # else it asks for nothing
            self._enter(candidate, hold, event)
        if not self._reads_at_once:
            candidate = await with_answer(candidate, state.answer, self._run)
        elif verifier is None:
            return Scored.of(candidate, **answered(candidate.text, state.answer))
        else:
            candidate = candidate.replace(**answered(candidate.text, state.answer))
        if verifier is None:
            return Scored.of(candidate)
        with self._failing:
            return scored_by(verifier.name, candidate, await self._asked(verifier, candidate))

    def _asked(self, verifier: Verifier, candidate: Candidate) -> Awaitable[Score]:
        return ask_verifier(self._state.held, verifier, verifier.score, self._run, candidate)

    def _enter(self, candidate: Candidate, hold: Hold | None, event: int) -> None:
        """Say that what this task asks for from here on is for the candidate's verification."""
        state = self._state
        path = ("verify", candidate.index)
        SCOPE.set(Scope(state.ledger, hold, state.deadline, "verifier", event, state.seed, path))


def _alike(pending: Iterable[Job], most: int) -> int:
    """How many of the first ones ask the same; `most` at most."""
    asks = [job.ask for job in itertools.islice(pending, most)]
    if len(set(map(id, asks))) == 1:  # as nearly always
        return len(asks)
    return next(i for i, ask in enumerate(asks) if ask is not asks[0])


async def bounds(state: SolveState, ask: Ask, generations: int = 1) -> tuple[Bound | None, Amount]:
    """What one generation can cost, and what its verification can.

    Args:
        generations: how many write what the verifier is shown, one after the other.
    """
    gen = await ask.bound()
    check_bounds(ask.model.name, gen, state.ledger)
    if state.verifier is None:
        return gen, FREE.amount
    # Tokens at most of what the verifier is shown.
    most = None if gen is None else gen.completion_tokens
    length = None if most is None else ask.written + most * generations
    ver = await state.verifier.bound(ask.problem, length)
    check_bounds(state.verifier.name, ver, state.ledger)
    return gen, ver.amount
