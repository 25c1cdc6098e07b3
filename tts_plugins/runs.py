"""Runs that wrap another one, and change a part of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Model, Run, SetVerifier, Verifier
from tts_plugins.types import Candidate, Problem, Reply, Scored

if TYPE_CHECKING:
    from random import Random

T = TypeVar("T")


async def passed_on(
    candidates: AsyncIterator[Scored], hear: Callable[[Scored], object]
) -> AsyncGenerator[Scored, None]:
    """Pass candidates on, and tell `hear` of each; where the reader stops early, what is in flight ends first.

    A generator that is only dropped ends some turns of the loop later, and its requests go on until then.
    """
    try:
        async for candidate in candidates:
            hear(candidate)
            yield candidate
    finally:
        if (close := getattr(candidates, "aclose", None)) is not None:  # a run of the user's may give any iterator
            await close()


class ForwardingRun(Run):
    """Base of runs that wrap another one: it passes everything on, so that a wrapper defines what it changes alone."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def seed(self) -> int:
        """The wrapped run's."""
        return self._run.seed

    @property
    def model(self) -> Model:
        """The wrapped run's."""
        return self._run.model

    @property
    def verifier(self) -> Verifier | SetVerifier | None:
        """The wrapped run's."""
        return self._run.verifier

    @property
    def rng(self) -> Random:
        return self._run.rng

    def sample(self, problem: Problem, n: int, **how: Any) -> AsyncIterator[Scored]:
        return self._run.sample(problem, n, **how)

    def expand(self, candidates: Sequence[Candidate], total: int, **how: Any) -> AsyncIterator[Scored]:
        return self._run.expand(candidates, total, **how)

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        return await self._run.revise(problem, history, merge=merge)

    async def together(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        return await self._run.together(parts)

    def prune(self, candidates: Sequence[Candidate]) -> None:
        self._run.prune(candidates)

    async def room(self, problem: Problem, at_most: int, *, model: Model | None = None) -> int:
        return await self._run.room(problem, at_most, model=model)

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        return await self._run.generate(model, problem, n)

    def note(self, kind: str, **data: Any) -> None:
        self._run.note(kind, **data)


class OtherModelRun(ForwardingRun):
    """A run whose whole answers come from another model; that of the run itself where `model` is None.

    Steps and revisions are the run's own, so with another model they are refused.
    """

    def __init__(self, run: Run, model: Model | None = None) -> None:
        super().__init__(run)
        self._model = model

    @property
    def model(self) -> Model:
        """The one that is asked."""
        return self._model or self._run.model

    def sample(self, problem: Problem, n: int, **how: Any) -> AsyncIterator[Scored]:
        return self._run.sample(problem, n, **{**how, "model": how.get("model") or self._model})

    def expand(self, candidates: Sequence[Candidate], total: int, **how: Any) -> AsyncIterator[Scored]:
        self._whole_answers_only()
        return super().expand(candidates, total, **how)

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        self._whole_answers_only()
        return await super().revise(problem, history, merge=merge)

    async def room(self, problem: Problem, at_most: int, *, model: Model | None = None) -> int:
        return await self._run.room(problem, at_most, model=model or self._model)

    def _whole_answers_only(self) -> None:
        if self._model is not None:
            raise ConfigurationError(f"{self._model.name} gives whole answers only; use BestOfN or SelfConsistency")
