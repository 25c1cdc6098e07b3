"""Steps: children of candidates, with lookahead. Equal texts are continued and scored once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from functools import partial

from tts_plugins._calls.caller import acquire, asked_to_cancel
from tts_plugins._calls.context import SCOPE
from tts_plugins.budget import FREE, Amount, Bound, Need
from tts_plugins.engine._jobs import Ask, Job, NextStep
from tts_plugins.engine._sampling import Sampling
from tts_plugins.engine._scoring import failing_alone, scored_by, with_answer
from tts_plugins.engine._sending import Cost, bounds
from tts_plugins.engine._state import SolveState
from tts_plugins.engine._stragglers import Stragglers, TooLate
from tts_plugins.errors import CallTimedOut, ConfigurationError, MalformedResponse, VerifierError
from tts_plugins.ledger import Hold
from tts_plugins.protocols import Run, SetVerifier, StepModel, Verifier
from tts_plugins.types import Candidate, Reply, Score, Scored

_STEP_VERIFIERS = (
    "ProcessJudge (any chat model), ProcessVerifierHTTP (a process reward model), or a CallableVerifier whose function "
    "returns a list with a score for each of candidate.steps"
)


class Expansion(Sampling):
    """One `expand` of a run."""

    def __init__(
        self,
        state: SolveState,
        run: Run,
        model: StepModel,
        jobs: Sequence[Job],
        lookahead: int,
        straggler: float | None,
    ) -> None:
        super().__init__(state, run, jobs)
        self._at_once = False  # lookahead sends requests of its own
        self._model, self._lookahead = model, lookahead
        self._stragglers = None if straggler is None else Stragglers(straggler, len(jobs))
        self._judging: dict[tuple[int, str, bool], asyncio.Future[Score]] = {}
        self._waiting: Counter[asyncio.Future[Score]] = Counter()

    async def _bounds(self, ask: Ask) -> tuple[Bound | None, Amount]:
        gen, after = await bounds(self._state, ask, 1 + self._lookahead)
        assert isinstance(ask, NextStep)
        for ahead in range(1, self._lookahead + 1):
            bound = await self._model.step_bound(ask.parent, ahead)
            after = after.plus((bound or FREE).amount)
        return gen, after

    async def _request(
        self, ask: Ask, indices: Sequence[int], seeds: Sequence[int], hold: Hold, cost: Cost, event: int
    ) -> tuple[Reply, Hold, int]:
        late = self._stragglers
        if late is None:
            return await super()._request(ask, indices, seeds, hold, cost, event)
        late.waiting(indices)
        assert isinstance(ask, NextStep)
        ask = replace(ask, sent=partial(late.sent, indices))
        try:
            async with late.within(indices):
                return await super()._request(ask, indices, seeds, hold, cost, event)
        except TooLate as error:
            raise CallTimedOut(self._too_late(self._state.model.name, event, late, indices, error)) from error
        except Exception:
            late.failed(indices)
            raise

    async def _room(self, unit: Need, at_most: int, waiting: int, waits: bool) -> Hold | None:
        late, queued = self._stragglers, False
        if late is None or not waits:
            return await super()._room(unit, at_most, waiting, waits)

        def note() -> None:
            nonlocal queued
            queued = True
            late.without(waiting)

        # If there is room, it is taken before anything else runs. If there is none, the children that would free some
        # may be the ones that hang, and the level must not wait for those before it sends the others.
        soon = asyncio.get_running_loop().call_soon(note)
        try:
            return await super()._room(unit, at_most, waiting, waits)
        finally:
            soon.cancel()
            if queued:
                late.without(-waiting)

    def _unsent(self, jobs: int) -> None:
        if self._stragglers is not None:
            self._stragglers.without(jobs)

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            if self._stragglers is not None:
                self._stragglers.stop()

    async def _judge(self, candidate: Candidate, hold: Hold | None, event: int) -> Scored:
        assert hold is not None  # steps are never taken at once
        self._enter(candidate, hold, event)
        late = self._stragglers
        if late is None:
            return await self._judged(candidate, hold, event)
        try:
            async with late.within([candidate.index]):
                scored = await self._judged(candidate, hold, event)
        except TooLate as error:
            name = self._alone.name if self._alone is not None else self._state.model.name
            raise VerifierError(self._too_late(name, event, late, [candidate.index], error)) from error
        except Exception:
            late.failed([candidate.index])
            raise
        late.scored(candidate.index)
        return scored

    def _too_late(self, name: str, event: int, late: Stragglers, indices: Sequence[int], error: TooLate) -> str:
        limit = f"{error.limit:.2g} s, {late.factor:g} times the median of its level"
        self._state.trace.note("straggler", event, indices=list(indices), limit=limit)
        return f"{name}: not done in {limit}; the level goes on without it (raise straggler to wait longer)"

    async def _judged(self, candidate: Candidate, hold: Hold, event: int) -> Scored:
        state, verifier = self._state, self._alone
        if not candidate.text.strip():
            raise MalformedResponse(f"{state.model.name} wrote no step at all: its first one is empty")
        if candidate.finished:  # a part of a solution does not vote
            candidate = await with_answer(candidate, state.answer, self._run)
        if verifier is None:
            return Scored.of(candidate)
        score = await self._shared(candidate, verifier, hold, event)
        if self._lookahead and "lookahead" in score.details:
            score = replace(score, steps=score.steps[: len(candidate.steps)])
        scored = scored_by(verifier.name, candidate, score)
        if not scored.step_scores:
            raise ConfigurationError(
                f"{verifier.name} gives no step scores, which a search over steps needs; use {_STEP_VERIFIERS}"
            )
        return scored

    async def _shared(self, candidate: Candidate, verifier: Verifier, hold: Hold, event: int) -> Score:
        """Return the score of the candidate's text. It is computed once, however many children have this text."""
        key = (id(candidate.problem), candidate.text, candidate.finished)
        known = self._judging.get(key)
        if known is None and self._stragglers is None:
            # In this task: whatever ends it ends the level, and the others that wait for it too.
            known = self._judging[key] = asyncio.get_running_loop().create_future()
            await self._fill(known, self._ahead(candidate, verifier, hold, event))
            return known.result()
        # Nobody waits while holding a reservation: the child that is scored may need more of the budget.
        self._state.tasks.carry(None)
        if known is None:
            known = self._judging[key] = self._apart(candidate, verifier, hold, event)
        hold.release()
        self._waiting[known] += 1
        try:
            await asyncio.wait([known])
            return known.result()
        except asyncio.CancelledError as error:
            if asked_to_cancel():
                raise
            raise VerifierError(f"{verifier.name}: scoring the same text was cancelled") from error
        finally:
            self._waiting[known] -= 1
            if isinstance(known, asyncio.Task) and not known.done() and not self._waiting[known]:
                del self._judging[key]  # a later child starts anew
                known.cancel()

    @staticmethod
    async def _fill(known: asyncio.Future[Score], work: Awaitable[Score]) -> None:
        try:
            known.set_result(await work)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                known.cancel()
            else:
                known.set_exception(error)
                known.exception()  # so that asyncio does not complain if nobody else waits for it
            raise

    def _apart(self, candidate: Candidate, verifier: Verifier, hold: Hold, event: int) -> asyncio.Task[Score]:
        """Score it in a task of its own, which outlives the child that started it: only that child may be too late."""
        own, scope = self._state.ledger.reserve(hold.amount, within=hold), SCOPE.get()
        assert scope is not None

        async def work() -> Score:
            SCOPE.set(scope.paying(own))
            return await self._ahead(candidate, verifier, own, event)

        return self._state.tasks.spawn(work(), self._tasks, own)

    async def _ahead(self, candidate: Candidate, verifier: Verifier, hold: Hold, event: int) -> Score:
        """Write the steps of the lookahead, and return the verifier's score at their end."""
        state, end = self._state, candidate
        for ahead in range(1, self._lookahead + 1):
            if end.finished:
                break
            ask = NextStep(self._model, end, greedy=True)
            bound = await ask.bound()
            unit = (bound or FREE).need
            seed = state.derive("ahead", candidate.seed, ahead)
            own = await acquire(state.ledger, unit, within=hold)
            reply, rest, _ = await state.caller.request(
                self._model, ask, [seed], bound=bound, unit=unit, hold=own, within=hold, role="model", parent=event,
            )  # fmt: skip
            rest.release()
            end = ask.make(reply.generations[0], candidate.index, seed)
        if end is not candidate and end.finished:
            end = await with_answer(end, state.answer, self._run)
        with failing_alone(verifier.name):
            score = await self._asked(verifier, end)
        if self._lookahead:
            scored_by(verifier.name, end, score)  # check it against the steps that were scored, before they are cut off
        return score if end is candidate else replace(score, details={**score.details, "lookahead": end.text})


async def expansion(
    state: SolveState,
    run: Run,
    candidates: Sequence[Candidate],
    total: int,
    lookahead: int,
    straggler: float | None,
) -> Expansion:
    """Prepare an `expand`. Children's seeds follow from their parent's, so that timing does not change them.

    Raises:
        ConfigurationError: the model or the verifier cannot serve a search over steps.
    """
    model, verifier = state.model, state.verifier
    if not isinstance(model, StepModel):
        raise ConfigurationError(
            f"{model.name} ({type(model).__name__}) writes no single steps, which a search over steps needs; use "
            "OpenAICompatibleModel or LocalModel, or give yours the methods of protocols.StepModel"
        )
    if isinstance(verifier, SetVerifier):
        raise ConfigurationError(
            f"{verifier.name} compares whole solutions and does not score steps; use {_STEP_VERIFIERS}"
        )
    if not candidates:
        raise ConfigurationError("Run.expand: candidates is empty; begin with Candidate(problem)")
    if lookahead or any(c.steps or c.text for c in candidates):
        await model.prepare(run)
    shares: dict[str, int] = {}
    parents = {c.id: c for c in candidates}
    for i, candidate in enumerate(candidates):
        share = total // len(candidates) + (i < total % len(candidates))
        shares[candidate.id] = shares.get(candidate.id, 0) + share
    jobs: list[Job] = []
    for name, share in shares.items():
        parent = parents[name]
        ask, first = NextStep(model, parent), state.children.get(name, 0)
        state.children[name] = first + share
        places = range(first, first + share)
        jobs += [Job(state.take_index(), state.derive("step", parent.seed, parent.index, j), ask) for j in places]
    return Expansion(state, run, model, jobs, lookahead, straggler)
