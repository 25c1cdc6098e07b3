"""The context of one solve. All calls pass through here, so that no strategy repeats what all of them need."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from tts_plugins._calls.caller import acquire, check_bounds
from tts_plugins._calls.context import SCOPE
from tts_plugins._internal.config import check_straggler
from tts_plugins._internal.values import is_whole
from tts_plugins.budget import FREE
from tts_plugins.engine._expansion import expansion
from tts_plugins.engine._jobs import Job, Jobs, Revised, Whole
from tts_plugins.engine._sampling import Sampling
from tts_plugins.engine._sending import bounds
from tts_plugins.engine._state import SolveState
from tts_plugins.engine._tasks import Group
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.protocols import Model, ReviseModel, SetVerifier, StopRule, Verifier
from tts_plugins.types import Candidate, Generation, Problem, Reply, Scored, Usage

T = TypeVar("T")


class SolveRun:
    """The `Run` of a solve: only the methods of `protocols.Run`. Its data is in `SolveState`."""

    def __init__(self, state: SolveState) -> None:
        self._state = state

    @property
    def seed(self) -> int:
        return self._state.seed

    @property
    def model(self) -> Model:
        return self._state.model

    @property
    def verifier(self) -> Verifier | SetVerifier | None:
        return self._state.verifier

    @functools.cached_property
    def rng(self) -> random.Random:
        return random.Random(self._state.derive("rng"))

    def sample(
        self,
        problem: Problem,
        n: int,
        *,
        stop: StopRule | None = None,
        wave: int | None = None,
        model: Model | None = None,
    ) -> AsyncIterator[Scored]:
        _check_count("sample", n)
        state = self._state
        jobs = Jobs(model or state.model, problem, indices=state.take_indices(n), seed=state.seed)
        return Sampling(state, self, jobs, stop, wave).candidates()

    async def expand(
        self, candidates: Sequence[Candidate], total: int, *, lookahead: int = 0, straggler: float | None = None
    ) -> AsyncIterator[Scored]:
        _check_count("expand", total, "total")
        if not is_whole(lookahead, 0):
            raise ConfigurationError(f"Run.expand: lookahead={lookahead!r} must be a whole number of at least 0")
        check_straggler("Run.expand", straggler)
        self._state.raise_if_halted()
        try:
            batch = await expansion(self._state, self, candidates, total, lookahead, straggler)
        except BudgetExhausted as error:
            self._state.exhausted(error)
            raise
        async with contextlib.aclosing(batch.candidates()) as children:
            async for child in children:
                yield child

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        if not history:
            raise ConfigurationError("Run.revise: history is empty; give the attempt that is to be revised")
        if not isinstance(self.model, ReviseModel):
            raise ConfigurationError(
                f"{self.model.name} ({type(self.model).__name__}) cannot revise; use OpenAICompatibleModel, LocalModel "
                "or CallableModel(function, revise=…), or give yours the methods of protocols.ReviseModel"
            )
        state, last = self._state, history[-1]
        place = state.children[last.id] = state.children.get(last.id, 0) + 1
        # From the attempt before, so that what happens in other chains changes nothing here.
        seed = state.derive("revise", last.seed, last.index, place)
        ask = Revised(self.model, problem, tuple(history), merge)
        batch = Sampling(state, self, [Job(state.take_index(), seed, ask)])
        (revised,) = [candidate async for candidate in batch.candidates()]
        return revised

    async def together(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        tasks: Group = {}
        started = [self._state.tasks.spawn(part, tasks) for part in parts]
        try:
            if started:
                await asyncio.wait(started, return_when=asyncio.FIRST_EXCEPTION)
            for task in started:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            return [task.result() for task in started]
        finally:
            await self._state.tasks.cancel(tasks)

    def prune(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if (event := self._state.events.get(candidate.id)) is not None:
                self._state.trace.mark(event, pruned=True)

    async def room(self, problem: Problem, at_most: int, *, model: Model | None = None) -> int:
        _check_count("room", at_most, "at_most")
        gen, after = await bounds(self._state, Whole(model or self.model, problem))
        return self._state.ledger.fits((gen or FREE).amount.plus(after), at_most)

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        _check_count("generate", n)
        state, scope = self._state, SCOPE.get()
        state.raise_if_halted()
        inside = scope is not None and scope.ledger is state.ledger
        role, within = ("model", None) if scope is None else (scope.role, scope.hold if inside else None)
        parent = scope.event if scope is not None and inside else state.root
        # Taken before anything is waited for: whose turn comes first must not change who gets which.
        seeds = [state.next_seed() if scope is None else scope.next_seed() for _ in range(n)]
        bound = await model.bound(problem)
        check_bounds(model.name, bound, state.ledger)
        unit = (bound or FREE).need
        ask, made, usage = Whole(model, problem), list[Generation](), Usage()
        while seeds:
            try:
                hold = await acquire(state.ledger, unit, at_most=min(len(seeds), max(1, model.batch)), within=within)
                reply, rest, _ = await state.caller.request(
                    model, ask, seeds[: hold.units], bound=bound, unit=unit, hold=hold, within=within, role=role,
                    parent=parent, alone=True,
                )  # fmt: skip
            except BudgetExhausted:
                if not made:
                    raise
                break  # fewer came than were asked for
            rest.release()
            made += reply.generations
            usage += reply.usage or Usage()
            seeds = seeds[len(reply.generations) :]
        return Reply(generations=tuple(made), usage=usage)

    def note(self, kind: str, **data: Any) -> None:
        self._state.note_of_strategy(kind, **data)


def _check_count(who: str, n: object, name: str = "n") -> None:
    if not is_whole(n, 1):
        raise ConfigurationError(f"Run.{who}: {name}={n!r} must be a whole number of at least 1")
