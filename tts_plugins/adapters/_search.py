"""One search of an adapter whose framework makes the calls: what all such adapters do, with hooks for what they do not.

An adapter subclasses `BaseSearch`, and says how its framework is called. Everything else is here: both ways to run, one
candidate on a thread or on the loop, the account that pays for it, and what becomes of an error.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from tts_plugins._internal.threads import in_thread, on_user_loop
from tts_plugins.adapters._error_messages import described
from tts_plugins.adapters._exception_passthrough import Passing, cause_for
from tts_plugins.adapters._metered import METER, Attempts, CandidateLost, MeteredModel, searching, setting
from tts_plugins.adapters._settings import SearchSettings
from tts_plugins.engine.solve import solve, solve_sync
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, TTSError
from tts_plugins.metering import Meter
from tts_plugins.protocols import Role, SetVerifier, Verifier
from tts_plugins.strategies.escalation import Escalation
from tts_plugins.types import Candidate, Generation, Problem, Reply, Result, Score, Usage

T = TypeVar("T")
S = TypeVar("S")
_NOTHING: AbstractContextManager[Any] = nullcontext()


class BaseSearch(Generic[S]):
    """One search. `run` and `arun` are its two ways; they differ in which methods of the framework they drive.

    `S` is what an adapter keeps of one candidate: its seed, its input, its run in the framework's traces.

    A subclass has to say:

    - `begin`: the `S` of a new candidate.
    - `call` and `acall`: what the framework answers. They run on a thread and on the loop, inside of `context`.
    - `read`: the generation that an answer is. What it raises costs the candidate.

    It may say:

    - `context`: what is set around `call` and `read`, such as a framework's settings.
    - `variables`: how the framework's callbacks find the meter of what runs; `METER` has it in any case.
    - `verifier`: what scores the candidates; put it into `metered_verifier`, so that its calls are counted.
    - `model_name`: of the language model that is asked, for policies and rules that were fitted to one.
    - `larger`: the framework's classes of what unsure questions may go to, in place of what is wrapped.
    - `chosen`: what becomes of the result; `instead`: one where no candidate came through.
    - `failed`, `afailed`, `ended`, `aended`, `scored` and `unscored`: what goes to the framework's traces.
    - `output_tokens`: how long an output can be, so that a judge need not reserve for the longest text there is.
    - `without_async`: whether `arun` drives synchronous methods, since there are no others.
    - `described`: an error in words.

    Attributes:
        sync: whether the search drives the synchronous methods; set when it runs.
        over: whether the search has ended: threads that come later are not waited for.
    """

    sync = True
    over = False
    larger: ClassVar[tuple[type, ...]] = ()

    def __init__(self, *, model: MeteredModel, problem: Problem, settings: SearchSettings) -> None:
        self.model, self.problem, self.settings = model, problem, settings
        self.passing = Passing()
        self._spent: list[Usage] = []  # by the calls of the framework
        self._judge: Verifier | SetVerifier | None = None

    @property
    def spent(self) -> Usage:
        """What the calls of the framework took so far."""
        return Usage.sum(self._spent)

    def run(self) -> Result:
        """Search on this thread; the framework's synchronous methods run on threads of their own."""
        with self._around():
            try:
                return self.chosen(solve_sync(self.problem, **self.arguments()))
            except AllCandidatesFailed as failed:
                if (instead := self.instead(failed)) is None:
                    raise
                return instead
            finally:
                self.over = True
                self.ended()

    async def arun(self) -> Result:
        """Search on this loop; the framework's asynchronous methods run there too."""
        self.sync = self.without_async()
        with self._around():
            try:
                return self.chosen(await solve(self.problem, **self.arguments()))
            except AllCandidatesFailed as failed:
                if (instead := self.instead(failed)) is None:
                    raise
                return instead
            finally:
                self.over = True
                await self.aended()

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `solve`."""
        self._judge = self.verifier()
        return {
            **self.settings.arguments(),
            "model": self.model,
            "verifier": self._judge,
            "escalate": self.escalation(),
        }

    def model_name(self) -> str | None:
        """The name of the language model that is asked; None where it cannot be seen, or there are several."""
        return None

    def escalation(self) -> Any:
        """The `escalate` of `solve`: what the framework has itself is asked in the place of what is wrapped."""
        value = self.settings.escalate
        return Escalation(model=self.model.variant(model=value)) if isinstance(value, self.larger) else value

    @contextmanager
    def _around(self) -> Iterator[None]:
        with self.passing.out(), searching(self):
            try:
                yield
            except BudgetExhausted as error:
                bound = getattr(self._judge, "reserved", None)
                if self._judge is not None and bound is not None and bound.amount.tokens:
                    error.args = (
                        f"{error}; {bound.amount.tokens:,} tokens are for a verification by {self._judge.name}; lower "
                        "its limit= or votes=, its model's max_tokens, or that of the model that it judges",
                        *error.args[1:],
                    )
                raise

    # A chain of coroutines is walked at each wake of its task, and each is an object while a request is under way: what
    # only passes a call on is a plain function.

    def generate(
        self, problem: Problem, seed: int | None, attempts: Attempts | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """One candidate, on the account of this search."""
        return self.candidate(self.begin(problem, seed, attempts))

    def candidate(self, sample: S) -> Coroutine[Any, Any, Reply]:
        """The framework's answer for a candidate that was begun."""
        return self._replied(sample)

    async def _replied(self, sample: S) -> Reply:
        work = partial(in_thread, self._one, sample) if self.sync else partial(on_user_loop, self._aone, sample)
        made, usage = await self.metered("model", work, sample)
        return Reply(generations=(made,), usage=usage)

    async def metered(self, role: Role, work: Callable[[], Awaitable[T]], sample: S | None = None) -> tuple[T, Usage]:
        """Do work whose model calls are metered; if its first one found no room, wait for room and begin again."""
        prepaid = None
        while True:
            meter = Meter.here(role=role, prices=self.settings.price, prepaid=prepaid)
            try:
                with setting((METER, meter), *self.variables(meter, sample)):
                    return await work(), meter.close()
            except BudgetExhausted:
                if meter.refused is None or not meter.untouched:
                    raise
                prepaid = await meter.room()
            finally:
                self._spent.append(meter.close())
                meter.refusal = None  # its traceback has this frame, which has the meter: a cycle

    async def judge(
        self,
        candidates: Sequence[Candidate],
        where: str,
        work: Callable[[], Awaitable[T]],
        kind_of: Callable[[BaseException], Callable[[str], TTSError]],
    ) -> T:
        """Return the metered verification of candidates; `kind_of` makes our error from one of the user's."""

        async def judged() -> T:
            try:
                return _unrefused(await work())
            except BaseException as error:  # noqa: BLE001 - raised again
                raise (found := self.error_for(error, where, kind_of(error))) from cause_for(found, error)

        try:
            return (await self.metered("verifier", judged))[0]
        except BaseException as error:
            for candidate in candidates:
                await self.unscored(candidate, error)
            raise

    def error_for(self, error: BaseException, where: str, kind: Callable[[str], TTSError]) -> BaseException:
        """What to raise for an error: what has to pass, the budget's refusal, or one candidate's loss."""
        if (passed := self.passing.take(error, where)) is not None:
            return passed
        if isinstance(error, BudgetExhausted) or (isinstance(error, asyncio.CancelledError) and _being_cancelled()):
            return error
        if (refusal := _refusal()) is not None:
            return refusal  # the framework wrapped it, or tried something else in vain
        if isinstance(error, TTSError | GeneratorExit):
            return error
        return kind(f"{where}: {self.described(error)}")

    def _one(self, sample: S) -> Generation:
        try:
            if self.over:
                raise CandidateLost(f"{self.where(sample)}: the search has ended")  # this thread came too late
            with self.context(sample):
                return self.read(sample, _unrefused(self.call(sample)))
        except BaseException as error:  # noqa: BLE001 - raised again
            self.failed(sample, error)
            lost = CandidateLost.by(error)
            raise (found := self.error_for(error, self.where(sample), lost)) from cause_for(found, error)

    async def _aone(self, sample: S) -> Generation:
        try:
            with self.context(sample):
                return self.read(sample, _unrefused(await self.acall(sample)))
        except BaseException as error:  # noqa: BLE001 - raised again
            await self.afailed(sample, error)
            lost = CandidateLost.by(error)
            raise (found := self.error_for(error, self.where(sample), lost)) from cause_for(found, error)

    # What a subclass has to say.

    @abstractmethod
    def begin(self, problem: Problem, seed: int | None, attempts: Attempts | None) -> S:
        """A new candidate; a better one than the attempts, where there are some."""

    @abstractmethod
    def call(self, sample: S) -> Any:
        """The framework's answer, by its synchronous methods."""

    @abstractmethod
    def acall(self, sample: S) -> Awaitable[Any]:
        """The framework's answer, by its asynchronous methods."""

    @abstractmethod
    def read(self, sample: S, output: Any) -> Generation:
        """The answer as a generation.

        Raises:
            CandidateLost: it is not a valid output.
        """

    # What it may say.

    def where(self, sample: S) -> str:
        """What errors of a candidate begin with."""
        return self.model.name

    def described(self, error: BaseException) -> str:
        """An error in words."""
        return described(error)

    def without_async(self) -> bool:
        """Whether `arun` drives synchronous methods too, on threads."""
        return False

    def context(self, sample: S) -> AbstractContextManager[Any]:
        """What is set around `call`, `acall` and `read`."""
        return _NOTHING

    def variables(self, meter: Meter, sample: S | None) -> Sequence[tuple[ContextVar[Any], Any]]:
        """The context variables by which the framework's callbacks find the meter; no `sample` for a verification."""
        return ()

    def verifier(self) -> Verifier | SetVerifier | None:
        """What scores the candidates; see `metered_verifier`."""
        return None

    def output_tokens(self) -> int | None:
        """Tokens at most of one candidate's output, as far as known: what a verifier has to read. None if it is not."""
        return None

    def check_revision(self) -> None:
        """Raise unless attempts can be shown to what is wrapped."""

    def chosen(self, result: Result) -> Result:
        """The result as it goes to the caller."""
        return result

    def instead(self, failed: AllCandidatesFailed) -> Result | None:
        """What goes to the caller where no candidate came through; None raises the error."""
        return None

    def failed(self, sample: S, error: BaseException) -> None:
        """A candidate failed, on its thread."""

    async def afailed(self, sample: S, error: BaseException) -> None:
        """A candidate failed, on the loop."""

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """A candidate got its score."""

    async def unscored(self, candidate: Candidate, error: BaseException) -> None:
        """A candidate got no score."""

    def ended(self) -> None:
        """The search has ended, on the caller's thread."""

    async def aended(self) -> None:
        """The search has ended, on the caller's loop."""


def _refusal() -> BaseException | None:
    meter = METER.get()
    return None if meter is None else meter.refusal


def _unrefused(made: T) -> T:
    """What user code returned, unless a call was refused on the way.

    A fallback, or an `except` of the user's, may have swallowed the refusal. What came back then is not what was asked
    for, and must not compete with answers that were paid for.
    """
    refusal = _refusal()
    try:
        if refusal is not None:
            raise refusal
    finally:
        del refusal  # its traceback has this frame: it would refer to itself
    return made


def _being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return False
    return task is not None and task.cancelling() > 0
