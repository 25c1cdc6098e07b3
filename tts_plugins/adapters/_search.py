"""One search of an adapter whose framework makes the calls: what all such adapters do, with hooks for what they do not.

An adapter subclasses `BaseSearch`, and says how its framework is called (see `SearchHooks`). Everything else is here:
both ways to run, one candidate on a thread or on the loop, the account that pays for it, and what becomes of an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tts_plugins._calls.charging import cause_for
from tts_plugins._calls.context import SCOPE
from tts_plugins._concurrency import running_code
from tts_plugins._concurrency.thread_pool import as_exception
from tts_plugins._internal.threads import in_thread, on_engine_loop, on_user_loop
from tts_plugins.adapters._exception_passthrough import Passing
from tts_plugins.adapters._hooks import SearchHooks
from tts_plugins.adapters._metered import SEARCH, Attempts, CandidateLost, MeteredModel, meter_here
from tts_plugins.adapters._settings import SearchSettings
from tts_plugins.engine.solve import solve, solve_sync
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, TTSError
from tts_plugins.metering import Meter, Prices
from tts_plugins.protocols import Role, SetVerifier, Verifier
from tts_plugins.strategies.escalation import Escalation
from tts_plugins.types import Candidate, Problem, Reply, Result, Usage

T = TypeVar("T")
S = TypeVar("S")


class BaseSearch(SearchHooks[S]):
    """One search. `run` and `arun` are its two ways; they differ in which methods of the framework they drive.

    Attributes:
        sync: whether the search drives the synchronous methods; set when it runs.
        over: whether the search has ended: threads that come later are not waited for.
        prices: of its calls: those of the settings, else of the search around this one, whose budget pays.
    """

    sync = True
    over = False

    def __init__(self, *, model: MeteredModel, problem: Problem, settings: SearchSettings) -> None:
        self.model, self.problem, self.settings = model, problem, settings
        around = meter_here()
        self.prices: Prices = settings.price if around is None or settings.price is not None else around.prices
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

    def escalation(self) -> Any:
        """The `escalate` of `solve`: what the framework has itself is asked in the place of what is wrapped."""
        value = self.settings.escalate
        return Escalation(model=self.model.variant(model=value)) if isinstance(value, self.larger) else value

    @contextmanager
    def _around(self) -> Iterator[None]:
        with self.passing.out():
            token = SEARCH.set(self)
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
            finally:
                SEARCH.reset(token)
                self._judge = None  # it refers to this search: a cycle, with all candidates

    # A chain of coroutines is walked at each wake of its task, and each is an object while a request is under way: what
    # only passes a call on is a plain function.

    def generate(
        self, problem: Problem, seed: int | None, attempts: Attempts | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """One candidate, on the account of this search."""
        return self.candidate(self.begin(problem, seed, attempts))

    def candidate(self, sample: S) -> Coroutine[Any, Any, Reply]:
        """The framework's answer for a candidate that was begun."""
        return self.metered("model", BaseSearch._on_thread if self.sync else BaseSearch._on_loop, sample)

    def _on_thread(self, sample: S, meter: Meter) -> Awaitable[Reply]:
        return in_thread(self._one, sample, meter)

    def _on_loop(self, sample: S, meter: Meter) -> Awaitable[Reply]:
        return on_user_loop(self._aone, sample, meter) if on_engine_loop() else self._aone(sample, meter)

    async def metered(self, role: Role, work: Callable[[Any, Any, Meter], Awaitable[T]], sample: S | None = None) -> T:
        """Do work whose model calls are metered; if its first one found no room, wait for room and begin again."""
        outer, prepaid = SCOPE.get(), None
        assert outer is not None
        around = outer.meter
        while True:
            meter = self.meter(outer.ledger, role=role, prices=self.prices, prepaid=prepaid)
            # A strategy that asks its verifier itself, twice at once, has one scope for both.
            if (scope := outer).metering:
                scope = outer.paying(outer.hold)
                SCOPE.set(scope)
            scope.meter, scope.metering = meter, True
            try:
                return await work(self, sample, meter)
            except BudgetExhausted:
                if meter.refused is None or not meter.untouched:
                    raise
                prepaid = await meter.room()
            finally:
                self._spent.append(meter.close())
                meter.refusal = None  # its traceback has this frame, which has the meter: a cycle
                scope.meter, scope.metering = around, False
                if scope is not outer:
                    scope.leave_for(outer)

    async def judge(
        self,
        candidates: Sequence[Candidate],
        where: str,
        work: Callable[[], Awaitable[T]],
        kind_of: Callable[[BaseException], Callable[[str], TTSError]],
    ) -> T:
        """Return the metered verification of candidates; `kind_of` makes our error from one of the user's."""

        async def judged(_: object, __: object, meter: Meter) -> T:
            try:
                entered = self.enter(None, meter)
                try:
                    return _unrefused(await work(), meter)
                finally:
                    self.leave(entered)
            except BaseException as error:  # noqa: BLE001 - raised again
                raise (found := self.error_for(error, where, kind_of(error))) from cause_for(found, error)

        try:
            return await self.metered("verifier", judged)
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
        if (meter := meter_here()) is not None and meter.refusal is not None:
            return meter.refusal  # the framework wrapped it, or tried something else in vain
        if isinstance(error, TTSError | GeneratorExit):
            return error
        return kind(f"{where}: {self.described(error)}")

    def _reply(self, sample: S, output: Any, meter: Meter) -> Reply:
        made = self.read(sample, _unrefused(output, meter))
        return Reply(generations=(made,), usage=meter.close())

    def _one(self, sample: S, meter: Meter) -> Reply:
        try:
            if self.over:
                raise CandidateLost(f"{self.where(sample)}: the search has ended")  # this thread came too late
            entered = self.enter(sample, meter)
            try:
                return self._reply(sample, self.call(sample), meter)
            finally:
                self.leave(entered)
        except BaseException as error:  # noqa: BLE001 - raised again
            self.failed(sample, error)
            lost = CandidateLost.by(error)
            raise (found := self.error_for(error, self.where(sample), lost)) from cause_for(found, error)

    async def _aone(self, sample: S, meter: Meter) -> Reply:
        noted = running_code.begun_here()
        try:
            entered = self.enter(sample, meter)
            try:
                return self._reply(sample, await self.acall(sample), meter)
            except GeneratorExit as error:
                if running_code.is_here(noted):  # else this coroutine is closed from outside: the program did not raise
                    raise as_exception(error) from error
                raise
            finally:
                self.leave(entered)
        except BaseException as error:  # noqa: BLE001 - raised again
            await self.afailed(sample, error)
            lost = CandidateLost.by(error)
            raise (found := self.error_for(error, self.where(sample), lost)) from cause_for(found, error)
        finally:
            running_code.ended(noted)


def _unrefused(made: T, meter: Meter) -> T:
    """What user code returned, unless a call was refused on the way.

    A fallback, or an `except` of the user's, may have swallowed the refusal. What came back then is not what was asked
    for, and must not compete with answers that were paid for.
    """
    if meter.refusal is not None:
        raise meter.refusal  # by its traceback the meter refers to itself, until `metered` ends
    return made


def _being_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return False
    return task is not None and task.cancelling() > 0
