"""One search over a module: each candidate is a call of the module itself, under settings of its own."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import dspy

from tts_plugins import Generation, Ledger, Problem, Result, SelfConsistency, current_ledger
from tts_plugins.adapters import (
    Attempts,
    BaseSearch,
    CandidateLost,
    MeteredModel,
    SearchSettings,
    answer_key,
    candidates_of,
    causes_of,
    meter_here,
    metered_verifier,
)
from tts_plugins.errors import CandidateError, TTSError
from tts_plugins.metering import Meter
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins_dspy._calls.interception import Refused, cover
from tts_plugins_dspy._calls.own_threads import carry_into_threads
from tts_plugins_dspy._calls.scope import Scope, derive, ledger_around, scope_here, scoped
from tts_plugins_dspy._calls.usage import output_tokens_of
from tts_plugins_dspy._isolation import isolated
from tts_plugins_dspy._outputs.forms import generation_of, last_field, named_inputs, problem_of, written_of
from tts_plugins_dspy._outputs.verifying import verifier_of
from tts_plugins_dspy._streaming import Relay, SearchStream, in_worker_thread
from tts_plugins_dspy._variants import varied

_NONE: Mapping[int, Any] = MappingProxyType({})


@dataclass(slots=True)
class Sample:
    """A candidate on DSPy's side.

    Attributes:
        attempts: those that it is to improve on.
        module: the program, or the candidate's own copy of it.
        originals, copies: the program's modules by the ids of their copies, and the other way round.
        trace: of its program.
        relay: what its program streams to, where the caller reads a stream.
    """

    seed: int | None
    attempts: Attempts | None = None
    module: Any = None
    originals: Mapping[int, Any] = field(default_factory=lambda: _NONE)
    copies: Mapping[int, Any] = field(default_factory=lambda: _NONE)
    trace: list[Any] = field(default_factory=list)
    relay: Relay | None = None


class Search(BaseSearch[Sample]):
    """One search over a module.

    Args:
        read: from the module's output to a generation.
        verify: from what the user gave as `verifier`, and this search, to the verifier.
        vote: what votes of an output, unless the settings say.
        hints: whether the prompts of a candidate show the attempts that it is to improve on.
        fail_count: how many candidates may fail before the failure is raised; None for all but the last one.
        isolate: whether each candidate has a copy of the module; `deep`, of the other objects in it too.
    """

    larger = (dspy.Module, dspy.BaseLM)

    def __init__(
        self,
        *,
        model: MeteredModel,
        module: Any,
        settings: SearchSettings,
        temperature: float | None,
        args: tuple[Any, ...],
        inputs: dict[str, Any],
        problem: Problem | None = None,
        read: Callable[[Any], Generation] = generation_of,
        verify: Callable[[Any, Any], Verifier | SetVerifier] = verifier_of,
        vote: Callable[[Any], str | None] = last_field,
        check_revision: Callable[[], None] = lambda: None,
        hints: bool = True,
        fail_count: int | None = None,
        isolate: bool = False,
        deep: bool = False,
    ) -> None:
        self.inputs = named_inputs(module, args, inputs)
        super().__init__(model=model, problem=problem or problem_of(self.inputs), settings=settings)
        self._module, self._temperature, self._args, self._inputs = module, temperature, args, inputs
        self._read, self._verify, self._vote, self._check_revision = read, verify, vote, check_revision
        self._outer, self._trace, self._hints = scope_here(), dspy.settings.get("trace"), hints
        if self.prices is None and self._outer is not None:
            self.prices = self._outer.meter.prices  # in a thread that lost its context variables
        self._samples: dict[int | None, Sample] = {}
        self._fail_count, self._failures = fail_count, 0
        self._isolate, self._deep = isolate, deep
        self._stream: SearchStream | None = None
        self._winner: Sample | None = None
        self._lm = getattr(module, "lm", None) or dspy.settings.get("lm")

    def model_name(self) -> str | None:
        """The name of the module's own language model, else of the one that DSPy is configured with."""
        name = getattr(self._lm, "model", None)
        return name if isinstance(name, str) else None

    def run(self) -> Result:
        """Search on this thread; the module's `forward` runs on threads of its own."""
        self._stream = SearchStream.here(self._count, sync=True)
        return super().run()

    def arun(self) -> Coroutine[Any, Any, Result]:
        """Search on this loop; the module's `aforward` runs there too, or its `forward` on threads."""
        self._stream = SearchStream.here(self._count, sync=False)
        return super().arun()

    def arguments(self) -> dict[str, Any]:
        """Those of any search, with DSPy's account, seed and vote."""
        s = self.settings
        cover(type(dspy.settings.get("lm")))
        carry_into_threads()
        return {
            **super().arguments(),
            "budget": _account(s.budget),
            "seed": self._seed(),
            "answer": answer_key(s.answer or self._vote),
            "listener": None if self._stream is None else self._stream.listener,
        }

    @property
    def _count(self) -> int | None:
        strategy = self.settings.strategy
        return self.settings.n if strategy is None else candidates_of(strategy)

    def _streamed(self, sample: Sample) -> dict[str, Any]:
        if self._stream is None:
            return {"send_stream": None}
        sample.relay, settings = self._stream.for_candidate(sample.originals, sample.copies)
        return settings

    def _seed(self) -> int | None:
        """The same for the same call in the same place, so that DSPy's cache can answer it again."""
        outer = None if self._outer is None else self._outer.sample
        if self.settings.seed is None and outer is None and current_ledger() is not None:
            return None  # a solve around this one that is not DSPy's gives each of its candidates seeds of their own
        return derive(outer or 0, self.settings.seed or 0)

    def without_async(self) -> bool:
        """A module without an `aforward` runs its `forward` on threads."""
        return not hasattr(self._module, "aforward")

    def verifier(self) -> Verifier | SetVerifier | None:
        """Return the user's verifier, whether a metric, a module or a function."""
        given = self.settings.verifier
        return None if given is None else metered_verifier(self._verify(given, self), self)

    def output_tokens(self) -> int | None:
        """What the program's language models may write, a call of each predictor."""
        return output_tokens_of(self._module)

    def check_revision(self) -> None:
        """Raise unless attempts can be shown to the module."""
        self._check_revision()

    def begin(self, problem: Problem, seed: int | None, attempts: Attempts | None) -> Sample:
        """Return a new candidate; called again for its seed, it starts again."""
        sample = self._samples[seed] = Sample(seed, attempts)
        return sample

    def enter(self, sample: Sample | None, meter: Meter) -> Any:
        """DSPy's settings for one candidate; those for a verification depend on what judges."""
        if sample is None:
            return None
        sample.trace, sample.module, sample.originals, sample.copies = [], self._module, _NONE, _NONE
        if self._isolate:
            sample.module, sample.originals, sample.copies = isolated(self._module, deep=self._deep)
        hints = () if self._outer is None else self._outer.hints
        if self._hints and sample.attempts is not None:
            hints = (*hints, sample.attempts.text())
        written: list[str] | None = [] if hints else None
        scope = self._scope(meter, sample=sample.seed or 0, attempts=sample.attempts, hints=hints, written=written)
        scope.enter(trace=sample.trace, **self._streamed(sample), **varied(sample, self.model.name))
        return scope

    def leave(self, entered: Any) -> None:
        """The settings that were there before."""
        if entered is not None:
            entered.leave()

    def set(self, **settings: Any) -> Any:
        """DSPy's settings for a verification, whose calls are those of the program around this search."""
        sample = None if self._outer is None else self._outer.sample
        meter = meter_here()
        assert meter is not None
        return scoped(self._scope(meter, sample=sample), send_stream=None, **settings)

    def _scope(self, meter: Meter, **values: Any) -> Scope:
        return Scope(meter=meter, ledger=current_ledger(), temperature=self._temperature, **values)

    def call(self, sample: Sample) -> Any:
        """The module's prediction."""

        def predict() -> Any:
            return sample.module(*self._args, **self._inputs)

        return predict() if self._stream is None else in_worker_thread(predict)

    def acall(self, sample: Sample) -> Awaitable[Any]:
        """The module's prediction, by its `acall`."""
        called: Awaitable[Any] = sample.module.acall(*self._args, **self._inputs)
        return called

    def read(self, sample: Sample, output: Any) -> Generation:
        """The prediction, as verifiers and votes see it."""
        name = self.model.name
        if output is None:
            raise CandidateLost(f"{name} returned None; its forward has to return a dspy.Prediction")
        if not isinstance(output, dspy.Prediction) and inspect.isawaitable(output):
            raise CandidateLost(
                f"{name} returned {type(output).__name__}, which nobody awaits; give it an aforward, and call it by "
                "acall"
            )
        return self._read(output)

    def error_for(self, error: BaseException, where: str, kind: Callable[[str], TTSError]) -> BaseException:
        """As for any search; a call that was not made stands for why it was not."""
        for each in causes_of(error):
            if isinstance(each, Refused):
                return each.why
        found = super().error_for(error, where, kind)
        if isinstance(found, CandidateError) and found is not error:
            found.written = written_of(error)
            self._failures += 1
            if self._fail_count is not None and self._failures > self._fail_count:
                return self.passing.end(error, where)
        return found

    def trace_of(self, seed: int | None) -> list[Any]:
        """The trace of the program in a candidate, with the program's own predictors."""
        sample = self._samples.get(seed)
        if sample is None:
            return []
        return [(sample.originals.get(id(step[0]), step[0]), *step[1:]) for step in sample.trace]

    def chosen(self, result: Result) -> Result:
        """The winner's trace is the program's, as if it alone had run."""
        result = self._readable(result)
        self._winner = None if result.abstained is not None else self._samples.get(result.best.seed)
        if result.abstained is None and self._trace is not None and (most := dspy.settings.max_trace_size) > 0:
            self._trace.extend(self.trace_of(result.best.seed))
            del self._trace[: max(len(self._trace) - most, 0)]
        return result

    def _readable(self, result: Result) -> Result:
        """Choose a candidate that the program's adapter reads, with the same vote, or with one of as many votes."""
        parses, key = getattr(self._vote, "parses", None), result.answer_key
        if parses is None or key is None or self._judge is not None or parses(result.output):
            return result
        votes = Counter(c.vote for c in result.candidates)
        plain = isinstance(self.settings.strategy, SelfConsistency | None) and not result.escalated
        same = [c for c in result.candidates if c.vote == key]
        tied = [c for c in result.candidates if plain and c.vote is not None and votes[c.vote] == votes[key]]
        best = next((c for c in [*same, *tied] if parses(c.output)), result.best)
        return replace(result, best=best)

    @property
    def _winners_relay(self) -> Relay | None:
        return None if self._winner is None else self._winner.relay

    def ended(self) -> None:
        """Stream what the winner kept, and wait until all is sent."""
        if self._stream is not None:
            self._stream.end(self._winners_relay)

    async def aended(self) -> None:
        """`ended`, on the loop."""
        if self._stream is not None:
            await self._stream.aend(self._winners_relay)


def _account(budget: Any) -> Any:
    """The budget; inside a thread that lost its context, on the account of the search around it."""
    around = ledger_around() if current_ledger() is None else None
    if around is None or isinstance(budget, Ledger):
        return budget
    return around if budget is None else Ledger(budget, inside=around)
