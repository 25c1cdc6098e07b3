"""One search over a module: the engine asks for candidates, and each is a call of the module itself."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import dspy

from tts_plugins import Generation, Ledger, Problem, Result, current_ledger, solve, solve_sync
from tts_plugins.adapters import (
    Attempts,
    CandidateLost,
    MeteredModel,
    Passing,
    SearchSettings,
    answer_key,
    call_user,
    cause_for,
    metered,
    searching,
    setting,
)
from tts_plugins.errors import TTSError
from tts_plugins.metering import Meter
from tts_plugins.protocols import Role, SetVerifier, Verifier
from tts_plugins.types import Reply, Usage
from tts_plugins_dspy._forms import generation_of, last_field, problem_of
from tts_plugins_dspy._verifying import verifying
from tts_plugins_dspy._scope import Scope, derive, ledger_around, scope_here, scoped
from tts_plugins_dspy.metering import Refused, cover

T = TypeVar("T")
METER: ContextVar[Meter | None] = ContextVar("tts_plugins_dspy_meter", default=None)


class Search:
    """One search. `run` and `arun` are its two ways; they differ in which methods of the module they drive."""

    def __init__(
        self,
        *,
        model: MeteredModel,
        module: Any,
        settings: SearchSettings,
        temperature: float,
        args: tuple[Any, ...],
        inputs: dict[str, Any],
        problem: Problem | None = None,
        read: Callable[[Any], Generation] = generation_of,
        verify: Callable[[Any, Any], Verifier | SetVerifier] = verifying,
        vote: Callable[[Any], str | None] = last_field,
        check_revision: Callable[[], None] = lambda: None,
        hints: bool = True,
    ) -> None:
        self._model, self._module, self._settings, self._temperature = model, module, settings, temperature
        self._args, self.inputs, self._hints = args, inputs, hints
        self._problem = problem_of(args, inputs) if problem is None else problem
        self._read, self._verify, self._vote = read, verify, vote
        self._outer, self._trace = scope_here(), dspy.settings.get("trace")
        self._check_revision, self._passing = check_revision, Passing()
        self._attempts: dict[int | None, Attempts | None] = {}
        self.traces: dict[int | None, list[Any]] = {}

    def run(self) -> Result:
        """Search on this thread; the module runs on threads of its own."""
        with self._passing.out(), searching(self):
            return self._told(solve_sync(self._problem, **self._arguments(sync=True)))

    async def arun(self) -> Result:
        """Search on this loop; the module's `aforward` runs there too, or its `forward` on threads if it has none."""
        with self._passing.out(), searching(self):
            sync = not hasattr(self._module, "aforward")
            return self._told(await solve(self._problem, **self._arguments(sync=sync)))

    def _arguments(self, *, sync: bool) -> dict[str, Any]:
        s = self._settings
        self._sync = sync
        return {
            **s.arguments(),
            "model": self._model,
            "verifier": None if s.verifier is None else self._verify(s.verifier, self),
            "budget": _account(s.budget),
            "seed": self._seed(),
            "answer": answer_key(s.answer or self._vote),
        }

    def _seed(self) -> int | None:
        """The same for the same call in the same place, so that DSPy's cache can answer it again."""
        outer = None if self._outer is None else self._outer.sample
        if self._settings.seed is None and outer is None and current_ledger() is not None:
            return None  # a solve around this one that is not DSPy's gives each of its candidates seeds of their own
        return derive(outer or 0, self._settings.seed or 0)

    def _told(self, result: Result) -> Result:
        """The winner's trace is the program's, as if it alone had run."""
        if self._trace is not None and (most := dspy.settings.max_trace_size) > 0:
            self._trace.extend(self.traces.get(result.best.seed, ()))
            del self._trace[: max(len(self._trace) - most, 0)]
        return result

    def check_revision(self) -> None:
        """That attempts can be shown to the module.

        Raises:
            ConfigurationError: they cannot.
        """
        self._check_revision()

    async def generate(self, problem: Problem, seed: int | None, attempts: Attempts | None = None) -> Reply:
        """One candidate, on the account of this search."""
        self._attempts[seed] = attempts
        one = self._one if self._sync else self._aone
        made, usage = await self.metered("model", lambda: call_user(one, seed))
        return Reply(generations=(made,), usage=usage)

    async def metered(self, role: Role, work: Callable[[], Awaitable[T]]) -> tuple[T, Usage]:
        """Do work whose model calls are metered."""
        try:
            return await metered(
                work, role=role, prices=self._settings.price, using=lambda meter: setting((METER, meter))
            )
        except BaseException as error:
            if (passed := self._passed(error, self._model.name)) is None:
                raise
            raise passed from error

    def _one(self, seed: int | None) -> Generation:
        self.traces[seed] = []
        try:
            with self._inside(seed):
                return self._kept(self._module(*self._args, **self.inputs))
        except BaseException as error:  # noqa: BLE001 - raised again
            raise (lost := self.lost(error, self._model.name, CandidateLost)) from cause_for(lost, error)

    async def _aone(self, seed: int | None) -> Generation:
        self.traces[seed] = []
        try:
            with self._inside(seed):
                return self._kept(await self._module.acall(*self._args, **self.inputs))
        except BaseException as error:  # noqa: BLE001 - raised again
            raise (lost := self.lost(error, self._model.name, CandidateLost)) from cause_for(lost, error)

    def _inside(self, seed: int | None) -> Any:
        attempts = self._attempts.get(seed)
        hints = () if self._outer is None else self._outer.hints
        if attempts is not None and self._hints:
            hints = (*hints, attempts.text())
        scope = self._scope(sample=seed or 0, temperature=self._temperature, attempts=attempts, hints=hints)
        return scoped(scope, trace=self.traces[seed], send_stream=None)

    def context(self, **settings: Any) -> Any:
        """DSPy's settings for the verification that runs here."""
        sample = None if self._outer is None else self._outer.sample
        return scoped(self._scope(sample=sample, temperature=self._temperature), send_stream=None, **settings)

    def _scope(self, **values: Any) -> Scope:
        meter = METER.get()
        assert meter is not None
        cover(type(dspy.settings.get("lm")))
        return Scope(meter=meter, ledger=current_ledger(), **values)

    def _kept(self, output: Any) -> Generation:
        if output is None:
            raise CandidateLost(f"{self._model.name} returned None; its forward has to return a dspy.Prediction")
        if inspect.isawaitable(output):
            raise CandidateLost(
                f"{self._model.name} returned {type(output).__name__}, which nobody awaits; give it an aforward, and "
                "call it by acall"
            )
        return self._read(output)

    def lost(self, error: BaseException, where: str, kind: Callable[[str], TTSError]) -> BaseException:
        """What to raise for an error: the budget's refusal, one candidate's loss, or what has to pass."""
        if (passed := self._passed(error, where)) is not None:
            return passed
        meter = METER.get()
        if meter is not None and meter.refusal is not None and not isinstance(error, TTSError):
            return meter.refusal  # the program wrapped it, or tried something else in vain
        if isinstance(error, TTSError) or not isinstance(error, Exception):
            return error
        return kind(f"{where}: {type(error).__name__}: {error}")

    def _passed(self, error: BaseException, where: str) -> BaseException | None:
        return None if isinstance(error, Refused) else self._passing.take(error, where)


def _account(budget: Any) -> Any:
    """The budget; inside a thread that lost its context, on the account of the search around it."""
    around = ledger_around() if current_ledger() is None else None
    if around is None or isinstance(budget, Ledger):
        return budget
    return around if budget is None else Ledger(budget, inside=around)
