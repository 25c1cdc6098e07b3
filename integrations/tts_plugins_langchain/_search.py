"""One search over a runnable: the engine asks for candidates, and each is a call of what was wrapped."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableConfig

from tts_plugins import Candidate, Problem, Result, Score, solve, solve_sync
from tts_plugins.adapters import (
    Attempts,
    CandidateLost,
    MeteredModel,
    Passing,
    SearchSettings,
    call_user,
    metered,
    searching,
    setting,
)
from tts_plugins.errors import TTSError
from tts_plugins.metering import Meter
from tts_plugins.protocols import Role
from tts_plugins.types import Generation, Reply, Usage
from tts_plugins_langchain._error_messages import words
from tts_plugins_langchain._io.attempt_inputs import Carrier
from tts_plugins_langchain._io.conversion import generation_of
from tts_plugins_langchain._io.graph_checks import check_finished
from tts_plugins_langchain._runs import Runs, Sample, awithin, within
from tts_plugins_langchain._verifying import verifying
from tts_plugins_langchain.caching import SAMPLE, keep_samples_apart
from tts_plugins_langchain.metering import METERED, MeterHandler

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is wrapped, both ways; each gets an input and the config of one candidate, and gives its output.

    Attributes:
        input: that of a first answer.
        carrier: how attempts are put into it.
    """

    name: str
    input: Any
    carrier: Carrier
    invoke: Callable[[Any, RunnableConfig], Any]
    ainvoke: Callable[[Any, RunnableConfig], Awaitable[Any]]

    def asked(self, problem: Problem, attempts: Attempts | None) -> Any:
        """The input for an answer, or for a better one."""
        if attempts is None:
            return self.carrier.first(self.input)
        return self.carrier.again(self.input, problem, attempts)


class Search:
    """One search. `run` and `arun` are its two ways; nothing else tells them apart but which methods they drive."""

    def __init__(
        self,
        *,
        model: MeteredModel,
        target: Target,
        problem: Problem,
        settings: SearchSettings,
        runs: Runs,
        sync: bool,
        shown: Callable[[Any], Any] = lambda output: output,
    ) -> None:
        self._model, self._target, self._problem, self._settings = model, target, problem, settings
        self._shown = shown  # from what the target gives to what is verified, voted on, and the result's output
        self.sync, self.runs, self.salt = sync, runs, SAMPLE.get()
        self._samples: dict[int | None, Sample] = {}
        self._passing = Passing()
        self._over = False

    def run(self) -> Result:
        """Search on this thread; the target's synchronous methods run on threads of their own."""
        with self._passing.out(), searching(self):
            try:
                return solve_sync(self._problem, **self._arguments())
            finally:
                self._over = True
                for sample in self._samples.values():
                    self.runs.close_now(sample, *self._left(sample))

    async def arun(self) -> Result:
        """Search on this loop; the target's asynchronous methods run there too."""
        with self._passing.out(), searching(self):
            try:
                return await solve(self._problem, **self._arguments())
            finally:
                for sample in self._samples.values():
                    await self.runs.close(sample, *self._left(sample))

    def _arguments(self) -> dict[str, Any]:
        keep_samples_apart()
        s = self._settings
        return {
            **s.arguments(),
            "model": self._model,
            "verifier": None if s.verifier is None else verifying(s.verifier, self),
        }

    @property
    def input(self) -> Any:
        """What a first answer is asked with."""
        return self._target.input

    def check_revision(self) -> None:
        """That attempts can be shown to the target.

        Raises:
            ConfigurationError: they cannot.
        """
        self._target.carrier.check()

    async def generate(self, problem: Problem, seed: int | None, attempts: Attempts | None = None) -> Reply:
        """One candidate: a run of its own, on the account of this search."""
        parents = [] if attempts is None else [attempt.seed for attempt in attempts.history]
        return await self.call(problem, seed, lambda: self._target.asked(problem, attempts), parents)

    async def call(
        self, problem: Problem, seed: int | None, asked: Callable[[], Any], parents: Sequence[int | None] = ()
    ) -> Reply:
        """The target's output for an input, as a run of its own that follows those of its parents."""
        sample = self._samples.get(seed) or self._begun(seed, parents)
        sample.asked = asked
        number = f"{self.salt}/{sample.place}" + ("" if self._settings.seed is None else f"@{self._settings.seed}")
        one = self._one if self.sync else self._aone
        made, usage = await self.metered("model", number, lambda: call_user(one, sample))
        if self._settings.verifier is None:
            await self.runs.close(sample, self.runs.ended(sample))
        return Reply(generations=(made,), usage=usage)

    def _begun(self, seed: int | None, parents: Sequence[int | None]) -> Sample:
        known = [self._samples[parent] for parent in parents if parent in self._samples]
        index = len(self._samples)
        sample = Sample(index=index, seed=seed, place=str(index))
        if known:
            # By its parents and not by when it came, so that a cache finds it again.
            known[-1].children += 1
            path = "+".join(parent.place for parent in known)
            digest = hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
            sample.place, sample.parent = f"{digest}.{known[-1].children}", known[-1].index
        self._samples[seed] = sample
        return sample

    async def metered(self, role: Role, salt: str, work: Callable[[], Awaitable[T]]) -> tuple[T, Usage]:
        """Do work whose model calls are metered, as this sample."""

        def using(meter: Meter) -> AbstractContextManager[None]:
            return setting((METERED, MeterHandler(meter)), (SAMPLE, salt))

        return await metered(work, role=role, prices=self._settings.price, using=using)

    def _one(self, sample: Sample) -> Generation:
        if self._ended():  # this thread came too late
            raise CandidateLost(f"{self._target.name}, candidate {sample.index}: the search has ended")
        manager = self.runs.manager(sample)
        assert isinstance(manager, CallbackManager)
        sample.begin(manager.on_chain_start(None, self.runs.asked, name=f"candidate {sample.index}"))
        try:
            return self._kept(
                sample, within(self.runs.inside(sample), lambda c: self._target.invoke(sample.asked(), c))
            )
        except BaseException as error:  # noqa: BLE001 - `lose` raises
            self.runs.close_now(sample, None, error)
            self.lose(error, f"{self._target.name}, candidate {sample.index}", CandidateLost)
        finally:
            if self._ended():  # nobody waits for this thread any more
                self.runs.close_now(sample, *self._left(sample))

    async def _aone(self, sample: Sample) -> Generation:
        manager = self.runs.manager(sample)
        assert isinstance(manager, AsyncCallbackManager)
        sample.begin(await manager.on_chain_start(None, self.runs.asked, name=f"candidate {sample.index}"))
        try:
            config = self.runs.inside(sample)
            return self._kept(sample, await awithin(config, lambda c: self._target.ainvoke(sample.asked(), c)))
        except BaseException as error:  # noqa: BLE001 - `lose` raises
            await self.runs.close(sample, None, error)
            self.lose(error, f"{self._target.name}, candidate {sample.index}", CandidateLost)

    def _kept(self, sample: Sample, output: Any) -> Generation:
        if output is None:
            raise CandidateLost(
                f"{self._target.name} gave None for candidate {sample.index}; a chain that is searched has to return "
                "its answer (a structured output is None where the model did not call the tool)"
            )
        check_finished(self._target.name, output)
        sample.output = output
        return generation_of(self._shown(output))

    def lose(self, error: BaseException, where: str, kind: Callable[[str], TTSError]) -> NoReturn:
        """Raise for an error: the budget's refusal, one candidate's loss, or what has to pass."""
        if isinstance(error, TTSError):
            raise error
        if (passed := self._passing.take(error, where)) is not None:
            raise passed from error
        if isinstance(error, asyncio.CancelledError) and _being_cancelled():
            raise error
        handler = METERED.get()
        if handler is not None and handler.meter.refusal is not None:
            # The chain wrapped it, or tried something else in vain. It may be the cause of this error already.
            raise handler.meter.refusal from None
        raise kind(f"{where}: {words(error)}") from error

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


def _being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return False
    return task is not None and task.cancelling() > 0
