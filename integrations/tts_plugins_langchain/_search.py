"""One search over a runnable: the engine asks for candidates, and each is a call of what was wrapped."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig

from tts_plugins import Candidate, Limits, Problem, Result, Score, solve, solve_sync
from tts_plugins.answers import extract
from tts_plugins.errors import BudgetExhausted, ModelError, TTSError
from tts_plugins.metering import Meter
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Role
from tts_plugins.types import Generation, Reply, Usage
from tts_plugins_langchain._forms import Text, generation_of
from tts_plugins_langchain._runs import Runs, Sample, awithin, within
from tts_plugins_langchain._settings import Settings
from tts_plugins_langchain._verifying import verifying
from tts_plugins_langchain.caching import SAMPLE, keep_samples_apart
from tts_plugins_langchain.metering import METERED, MeterHandler

T = TypeVar("T")


class CandidateLost(ModelError):
    """The wrapped runnable failed on one candidate; its error is the `__cause__`. It is not tried again."""

    charge = "nothing"  # what its calls took is on the account already


class _PassedThrough(ModelError):
    """Something that is nobody's failure is on its way out: an interrupt of LangGraph, or of the user."""

    fatal = True
    charge = "nothing"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is wrapped, both ways; each gets the config of one candidate and gives the candidate's output."""

    name: str
    invoke: Callable[[RunnableConfig], Any]
    ainvoke: Callable[[RunnableConfig], Awaitable[Any]]


class ChainModel:
    """The model as the engine sees it, metered. One object for each wrapper, so that its limits span all searches."""

    batch = 1

    def __init__(self, name: str, concurrency: int | None = None) -> None:
        self.name, self.limits = name, Limits(concurrency=concurrency)

    async def bound(self, problem: Problem) -> None:
        """Metered: the callbacks reserve."""
        return

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """One candidate of the search that this runs in."""
        search = _SEARCH.get()
        assert search is not None
        return await search.generate(problem, seeds[0])


_SEARCH: ContextVar[Search | None] = ContextVar("tts_plugins_langchain_search", default=None)


class Search:
    """One search. `run` and `arun` are its two ways; nothing else tells them apart but which methods they drive."""

    def __init__(
        self,
        *,
        model: ChainModel,
        target: Target,
        problem: Problem,
        settings: Settings,
        runs: Runs,
        sync: bool,
        shown: Callable[[Any], Any] = lambda output: output,
    ) -> None:
        self._model, self._target, self._problem, self._settings = model, target, problem, settings
        self._shown = shown  # from what the target gives to what is verified, voted on, and the result's output
        self.sync, self.runs, self.salt = sync, runs, SAMPLE.get()
        self._samples: dict[int | None, Sample] = {}
        self._passing: BaseException | None = None
        self._over = False
        self._caller = CallableModel(self._one if sync else self._aone, name=target.name)

    def run(self) -> Result:
        """Search on this thread; the target's synchronous methods run on threads of their own."""
        with self._entered():
            try:
                return self._checked(solve_sync(self._problem, **self._arguments()))
            finally:
                self._over = True
                for sample in self._samples.values():
                    self.runs.close_now(sample, *self._left(sample))

    async def arun(self) -> Result:
        """Search on this loop; the target's asynchronous methods run there too."""
        with self._entered():
            try:
                return self._checked(await solve(self._problem, **self._arguments()))
            finally:
                for sample in self._samples.values():
                    await self.runs.close(sample, *self._left(sample))

    @contextmanager
    def _entered(self) -> Iterator[None]:
        token = _SEARCH.set(self)
        try:
            yield
        except TTSError:
            if self._passing is not None:
                raise self._passing from None
            raise
        finally:
            _SEARCH.reset(token)

    def _checked(self, result: Result) -> Result:
        if self._passing is not None:
            raise self._passing
        return result

    def _arguments(self) -> dict[str, Any]:
        keep_samples_apart()
        s = self._settings
        return {
            "model": self._model,
            "strategy": s.strategy,
            "verifier": None if s.verifier is None else verifying(s.verifier, self),
            "budget": s.budget,
            "seed": s.seed,
            "answer": _answer(s.answer),
            "on_exhausted": s.on_exhausted,
        }

    async def generate(self, problem: Problem, seed: int | None) -> Reply:
        """One candidate: a run of its own, on the account of this search."""
        sample = self._samples.setdefault(seed, Sample(index=len(self._samples), seed=seed))
        number = f"{self.salt}/{sample.index}" + ("" if self._settings.seed is None else f"@{self._settings.seed}")
        reply, usage = await self.metered("model", number, lambda: self._caller.generate(problem, [seed]))
        if self._settings.verifier is None:
            await self.runs.close(sample, self.runs.ended(sample))
        return replace(reply, usage=usage)

    async def metered(self, role: Role, salt: str, work: Callable[[], Awaitable[T]]) -> tuple[T, Usage]:
        """Do work whose model calls are metered; where its first one found no room, wait for room and begin anew."""
        prepaid = None
        while True:
            meter = Meter.here(role=role, prices=self._settings.price, prepaid=prepaid)
            meters, salts = METERED.set(MeterHandler(meter)), SAMPLE.set(salt)
            try:
                return await work(), meter.close()
            except BudgetExhausted:
                if meter.refused is None or not meter.untouched:
                    raise
                prepaid = await meter.room()
            finally:
                METERED.reset(meters)
                SAMPLE.reset(salts)
                meter.close()

    def _one(self, content: Any, seed: int | None) -> Generation:
        sample = self._samples[seed]
        if self._ended():  # this thread came too late
            raise CandidateLost(f"{self._target.name}, candidate {sample.index}: the search has ended")
        manager = self.runs.manager(sample)
        assert isinstance(manager, CallbackManager)
        sample.begin(manager.on_chain_start(None, self.runs.asked, name=f"candidate {sample.index}"))
        try:
            return self._kept(sample, within(self.runs.inside(sample), self._target.invoke))
        except BaseException as error:
            self.runs.close_now(sample, None, error)
            raise self.lost(error, f"{self._target.name}, candidate {sample.index}", CandidateLost) from error
        finally:
            if self._ended():  # nobody waits for this thread any more
                self.runs.close_now(sample, *self._left(sample))

    async def _aone(self, content: Any, seed: int | None) -> Generation:
        sample = self._samples[seed]
        manager = self.runs.manager(sample)
        assert isinstance(manager, AsyncCallbackManager)
        sample.begin(await manager.on_chain_start(None, self.runs.asked, name=f"candidate {sample.index}"))
        try:
            return self._kept(sample, await awithin(self.runs.inside(sample), self._target.ainvoke))
        except BaseException as error:
            await self.runs.close(sample, None, error)
            raise self.lost(error, f"{self._target.name}, candidate {sample.index}", CandidateLost) from error

    def _kept(self, sample: Sample, output: Any) -> Generation:
        if output is None:
            raise CandidateLost(
                f"{self._target.name} gave None for candidate {sample.index}; a chain that is searched has to return "
                "its answer (a structured output is None where the model did not call the tool)"
            )
        sample.output = output
        return generation_of(self._shown(output))

    def lost(self, error: BaseException, where: str, kind: type[TTSError]) -> BaseException:
        """What to raise for an error: the budget's refusal, one candidate's loss, or what has to pass."""
        if isinstance(error, TTSError):
            return error
        if _passes(error):
            self._passing = self._passing or error
            return _PassedThrough(f"{where}: {type(error).__name__} passes through")
        if isinstance(error, asyncio.CancelledError) and _being_cancelled():
            return error
        handler = METERED.get()
        if handler is not None and handler.meter.refusal is not None:
            return handler.meter.refusal  # the chain wrapped it, or tried something else in vain
        return kind(f"{where}: {type(error).__name__}: {error}")

    def sample_of(self, candidate: Candidate) -> Sample | None:
        """A candidate on LangChain's side; None where it was made in another way."""
        return self._samples.get(candidate.seed)

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """A candidate got its score: its run ends with it."""
        if (sample := self.sample_of(candidate)) is not None:
            await self.runs.close(sample, self.runs.ended(sample, score.value, score.feedback))

    async def unscored(self, candidate: Candidate, error: BaseException) -> None:
        """A candidate is lost to its verifier."""
        if (sample := self.sample_of(candidate)) is not None:
            await self.runs.close(sample, None, error)

    def _ended(self) -> bool:
        return self._over  # set from another thread

    def _left(self, sample: Sample) -> tuple[dict[str, Any] | None, BaseException | None]:
        """How the run of a candidate ends that the search left behind: cancelled, or not scored in time."""
        if sample.output is None:
            return None, asyncio.CancelledError("the search ended before this candidate did")
        return self.runs.ended(sample), None


def _answer(answer: Callable[[Any], Any] | None) -> Callable[[str], Any]:
    if answer is None:
        return extract
    return lambda text: answer(text.native if isinstance(text, Text) else text)


def _being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return False
    return task is not None and task.cancelling() > 0


def _passes(error: BaseException) -> bool:
    if not isinstance(error, Exception):
        return not isinstance(error, asyncio.CancelledError)
    graph = sys.modules.get("langgraph.errors")  # nobody can raise its errors who has not imported it
    return graph is not None and isinstance(error, graph.GraphBubbleUp)
