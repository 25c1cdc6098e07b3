"""One search over a runnable: each candidate is a call of what was wrapped, as a run of its own."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, var_child_runnable_config

from tts_plugins import Candidate, Problem, Result, Score, Scored
from tts_plugins.adapters import (
    Attempts,
    BaseSearch,
    CandidateLost,
    MeteredModel,
    SearchSettings,
    Text,
    Unparsed,
    answer_key,
    metered_verifier,
    parsed_only,
)
from tts_plugins.engine import Trace
from tts_plugins.errors import AllCandidatesFailed
from tts_plugins.metering import Meter
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.types import Generation, Reply
from tts_plugins_langchain._io.asked_form import AskedForm
from tts_plugins_langchain._io.attempt_inputs import Target
from tts_plugins_langchain._io.conversion import generation_of
from tts_plugins_langchain._io.graph_checks import check_finished
from tts_plugins_langchain._io.usage import UsageDetails
from tts_plugins_langchain._io.values import vote_of
from tts_plugins_langchain._runs import Runs, Sample, awithin, within
from tts_plugins_langchain._verifying import verifier_of
from tts_plugins_langchain.caching import samples_apart
from tts_plugins_langchain.metering import METERED, MeterHandler, sample_here

_VOTE = parsed_only(answer_key(vote_of))


class Search(BaseSearch[Sample]):
    """One search over a target.

    Args:
        shown: from what the target gives to what is verified, voted on, and the result's output.
        unparsed: why what the target gave is not what was asked for; None if it is.
    """

    larger, meter = (Runnable,), MeterHandler

    def __init__(
        self,
        *,
        model: MeteredModel,
        target: Target,
        problem: Problem,
        settings: SearchSettings,
        runs: Runs,
        shown: Callable[[Any], Any] = lambda output: output,
        unparsed: Callable[[Any], str | None] = lambda output: None,
    ) -> None:
        super().__init__(model=model, problem=problem, settings=settings)
        self._target, self._shown, self._unparsed, self._runs = target, shown, unparsed, runs
        self._form, self._salt = AskedForm(problem.metadata), sample_here()
        self._samples: dict[int | None, Sample] = {}
        self._apart = False
        self._unread: list[tuple[Sample, Generation]] = []
        around = METERED.get()
        self.details = UsageDetails(None if around is None else around.details)

    @property
    def input(self) -> Any:
        """What a first answer is asked with."""
        return self._target.input

    def arguments(self) -> dict[str, Any]:
        """Those of any search; a global cache keeps samples apart until it has ended."""
        samples_apart.begin()
        self._apart = True
        own = self.settings.answer
        return {**super().arguments(), "answer": _VOTE if own is None else parsed_only(answer_key(own))}

    def model_name(self) -> str | None:
        """The name of the chat model in the target, where there is one alone."""
        names = set(self._target.models())
        return names.pop() if len(names) == 1 else None

    def output_tokens(self) -> int | None:
        """What the target's models may write."""
        return self._output_tokens

    @cached_property
    def _output_tokens(self) -> int | None:
        return self._target.output_tokens()

    def check_revision(self) -> None:
        """Raise unless attempts can be shown to the target."""
        self._target.carrier.check()

    def verifier(self) -> Verifier | SetVerifier | None:
        """The user's, be it a runnable or a function."""
        given = self.settings.verifier
        if given is None:
            return None
        return metered_verifier(verifier_of(given, self._verifier_config, sync=self.sync), self)

    def begin(self, problem: Problem, seed: int | None, attempts: Attempts | None) -> Sample:
        """A candidate that is asked with the target's input."""
        parents = [] if attempts is None else [attempt.seed for attempt in attempts.history]
        sample = self._begun(seed, parents)
        sample.problem, sample.attempts = problem, attempts
        return sample

    def ask(
        self, seed: int | None, asked: Callable[[], Any], parents: Sequence[int | None] = ()
    ) -> Coroutine[Any, Any, Reply]:
        """The target's output for an input, as a run of its own that follows those of its parents."""
        sample = self._begun(seed, parents)
        sample.asked = asked
        return self.candidate(sample)

    def candidate(self, sample: Sample) -> Coroutine[Any, Any, Reply]:
        """A candidate, whose run ends here unless a verifier is to score it."""
        asked = super().candidate(sample)
        return asked if self.settings.verifier is not None else self._closed(sample, asked)

    async def _closed(self, sample: Sample, asked: Awaitable[Reply]) -> Reply:
        reply = await asked
        self._runs.tell(sample)
        await self._runs.close(sample, self._runs.ended(sample))
        return reply

    def _begun(self, seed: int | None, parents: Sequence[int | None]) -> Sample:
        sample = self._samples.get(seed)
        if sample is None:
            known = [self._samples[parent] for parent in parents if parent in self._samples]
            index = len(self._samples)
            sample = self._samples[seed] = Sample(index=index, seed=seed, place=str(index))
            if known:
                # By its parents and not by when it came, so that a cache finds it again.
                known[-1].children += 1
                path = "+".join(parent.place for parent in known)
                digest = hashlib.blake2b(path.encode(), digest_size=6).hexdigest()
                sample.place, sample.parent = f"{digest}.{known[-1].children}", known[-1].index
        return sample

    def _input(self, sample: Sample) -> Any:
        """What the candidate is asked with."""
        return sample.asked() if sample.asked else self._target.asked(sample.problem or self.problem, sample.attempts)

    def call(self, sample: Sample) -> Any:
        """The target's answer, in a run of its own."""
        self._runs.start(sample)
        return within(self._runs.inside(sample), self._target.invoke, self._input(sample))

    def acall(self, sample: Sample) -> Awaitable[Any]:
        """The target's answer, in a run of its own."""
        if self._runs.heard:
            return self._in_run(sample)
        self._runs.start(sample)
        return self._inside(sample)

    async def _in_run(self, sample: Sample) -> Any:
        await self._runs.astart(sample)
        return await self._inside(sample)

    def _inside(self, sample: Sample) -> Awaitable[Any]:
        return awithin(self._runs.inside(sample), self._target.ainvoke, self._input(sample))

    def read(self, sample: Sample, output: Any) -> Generation:
        """The answer, as verifiers and votes see it."""
        if output is None:
            raise CandidateLost(
                f"{self._target.name} gave None for candidate {sample.index}; a chain that is searched has to return "
                "its answer (a structured output is None where the model did not call the tool)"
            )
        check_finished(self._target.name, output)
        sample.output = output
        if self.over:  # nobody waits for this thread any more
            self._runs.close_now(sample, self._runs.ended(sample))
        shown = self._shown(output)
        made = generation_of(shown, self._unparsed(output) or self._form.misfit(shown))
        if isinstance(made.text, Text) and made.text.unparsed is not None:
            self._unread.append((sample, made))
        return made

    def instead(self, failed: AllCandidatesFailed) -> Result | None:
        """The first output, if none could be read as what was asked for: the bare model would have given it too."""
        if not self._unread or not all(isinstance(error, Unparsed) for error in failed.errors):
            return None
        sample, made = min(self._unread, key=lambda each: each[0].index)
        best = Scored(
            problem=self.problem, text=made.text, output=made.output, finished=True, finish_reason=made.finish_reason,
            seed=sample.seed, index=sample.index, feedback=str(failed.errors[0]),
        )  # fmt: skip
        return Result(
            problem=self.problem, best=best, candidates=(best,), usage=self.spent, stopped="complete", trace=Trace(),
            seed=self.settings.seed or 0, warnings=(str(failed),),
        )  # fmt: skip

    def show(self, result: Result, message: AIMessage | None = None) -> None:
        """Tell streams what happened inside the candidate that was chosen; `message` stands for its model's own."""
        if result.abstained is None and (sample := self.sample_of(result.best)) is not None:
            self._runs.show(sample, message)

    async def ashow(self, result: Result, message: AIMessage | None = None) -> None:
        """The same, from a loop."""
        if result.abstained is None and (sample := self.sample_of(result.best)) is not None:
            await self._runs.ashow(sample, message)

    def enter(self, sample: Sample | None, meter: Meter) -> MeterHandler:
        """Say where LangChain's callbacks find the meter, and to a cache the candidate's number."""
        assert isinstance(meter, MeterHandler)
        meter.details, meter.sample = self.details, self._salt
        if sample is not None:
            meter.sample += f"/{sample.place}" + ("" if self.settings.seed is None else f"@{self.settings.seed}")
        meter.around, meter.config = METERED.get(), var_child_runnable_config.get()
        METERED.set(meter)
        return meter

    def leave(self, entered: MeterHandler) -> None:
        """Set what was there before, the surrounding config too; not in a task that closes the coroutine of another."""
        if METERED.get() is entered:
            METERED.set(entered.around)
            var_child_runnable_config.set(entered.config)
        entered.around = entered.config = None

    def where(self, sample: Sample) -> str:
        """The target and the candidate's number."""
        return f"{self._target.name}, candidate {sample.index}"

    def failed(self, sample: Sample, error: BaseException) -> None:
        """Its run ends with the error."""
        self._runs.close_now(sample, None, error)

    async def afailed(self, sample: Sample, error: BaseException) -> None:
        """Its run ends with the error."""
        await self._runs.close(sample, None, error)

    def sample_of(self, candidate: Candidate) -> Sample | None:
        """A candidate on LangChain's side; None where it was made in another way."""
        return self._samples.get(candidate.seed)

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """Its run ends with its score."""
        if (sample := self.sample_of(candidate)) is not None:
            self._runs.tell(sample, score=score.value)
            if sample.run is not None:
                await self._runs.close(sample, self._runs.ended(sample, score.value, score.feedback))

    async def unscored(self, candidate: Candidate, error: BaseException) -> None:
        """Its run ends with the verifier's error."""
        if (sample := self.sample_of(candidate)) is not None:
            await self._runs.close(sample, None, error)

    def ended(self) -> None:
        """End the runs of candidates that were left behind."""
        for sample in self._left_behind():
            self._runs.close_now(sample, *self._left(sample))

    async def aended(self) -> None:
        """End the runs of candidates that were left behind."""
        for sample in self._left_behind():
            await self._runs.close(sample, *self._left(sample))

    def _left_behind(self) -> list[Sample]:
        """The candidates whose runs are open still; a global cache need not keep samples apart from here on."""
        if self._apart:
            self._apart = False
            samples_apart.end()
        return [sample for sample in self._samples.values() if sample.run is not None]

    def _left(self, sample: Sample) -> tuple[dict[str, Any] | None, BaseException | None]:
        """How the run of a candidate ends that the search left behind: cancelled, or not scored in time."""
        if sample.output is None:
            return None, asyncio.CancelledError("the search ended before this candidate did")
        return self._runs.ended(sample), None

    def _verifier_config(self, candidate: Candidate) -> RunnableConfig:
        """The config for a runnable that scores a candidate: inside of the candidate's run."""
        sample = self.sample_of(candidate)
        return ensure_config() if sample is None or sample.inner is None else self._runs.inside(sample, "verifier")
