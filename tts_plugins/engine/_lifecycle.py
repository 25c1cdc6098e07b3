"""One solve from start to result: its account, its deadline, its strategy, and what is settled when it ends."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from tts_plugins._calls import running_solves
from tts_plugins._calls.context import SCOPE, Scope
from tts_plugins._calls.unknown_waits import escape_warnings, note_escape
from tts_plugins._internal.config import Configured
from tts_plugins._trace.otel import live_spans
from tts_plugins._trace.recorder import Listener, Trace
from tts_plugins._trace.wording import CUT_SHORT, cut_short
from tts_plugins.answers import AnswerKey, extract
from tts_plugins.budget import Budget
from tts_plugins.engine._blocking import warnings
from tts_plugins.engine._run import SolveRun
from tts_plugins.engine._state import SolveState
from tts_plugins.errors import BudgetExhausted, DeadlineExceeded, LowConfidence, ModelError, SolveCancelled, TTSError
from tts_plugins.ledger import Ledger
from tts_plugins.options import CommonSettings
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier
from tts_plugins.selection import fallback, prefer_content
from tts_plugins.strategies.abstaining import ALWAYS_ANSWERING, Abstaining, Verdict
from tts_plugins.types import Problem, Result, Scored, Usage

# Seconds after the deadline in which a strategy may still choose among what it has, and after which it is left behind.
_GRACE, _LAST = 0.15, 0.2


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """The settings of one solve, checked and complete."""

    model: Model
    strategy: Strategy
    seed: int
    verifier: Verifier | SetVerifier | None = None
    budget: Budget | Ledger | None = None
    answer: AnswerKey = extract
    attempts: int = 4
    listener: Listener | None = None
    abstaining: Abstaining = ALWAYS_ANSWERING


class Solving:
    def __init__(self, problem: Problem, settings: Settings) -> None:
        self._problem, self._settings = problem, settings
        self._trace = Trace(settings.listener, live_spans())
        self._state: SolveState | None = None
        self._halt_first = False
        self._timers: Sequence[asyncio.TimerHandle] = ()
        self._strategy: asyncio.Task[Scored] | None = None

    def halt(self) -> None:
        if self._state is not None:
            self._state.halt("cancelled")
        self._halt_first = True

    async def run(self) -> Result:
        s, now = self._settings, time.monotonic()
        ledger, deadline = _account(s.budget, now)
        root = self._trace.open(
            "solve", None, problem=self._problem.text, model=s.model.name, seed=s.seed,
            strategy=s.strategy if isinstance(s.strategy, Configured) else repr(s.strategy),  # the first is frozen
            verifier=None if s.verifier is None else s.verifier.name,
            **_limits(s.budget),
        )  # fmt: skip
        state = self._state = SolveState(
            model=s.model, verifier=s.verifier, ledger=ledger, trace=self._trace, root=root, seed=s.seed,
            deadline=deadline, attempts=s.attempts, answer=s.answer,
        )  # fmt: skip
        try:
            loop = running_solves.begun(state)
            try:
                self._start(state, Scope(ledger, None, deadline, "model", root, s.seed, ("strategy",)), loop)
                # The task itself is not awaited: a strategy that swallows its cancellation must not delay the caller.
                await self._over
                best = self._outcome(state, self._strategy)
            finally:
                try:
                    for timer in self._timers:
                        timer.cancel()
                    if isinstance(sys.exception(), GeneratorExit):
                        state.give_up()  # nobody runs this any more, so that nothing can be waited for
                    else:
                        await state.close()
                finally:
                    self._strategy = None  # it has the error, whose traceback has this frame
                    running_solves.ended(state, loop)
            if SCOPE.get() is None:
                note_escape()
        except BaseException as error:
            usage = _usage(ledger, now)
            self._trace.close(root, error=type(error).__name__, message=str(error), stopped=state.stopped, usage=usage)
            raise
        return self._result(state, best, _usage(ledger, now))

    def _start(self, state: SolveState, scope: Scope, loop: asyncio.AbstractEventLoop) -> None:
        self._over: asyncio.Future[None] = loop.create_future()
        self._strategy = state.tasks.spawn(self._in_scope(SolveRun(state), scope), owner=self)
        state.driver = self
        if scope.deadline is not None:
            left = scope.deadline - time.monotonic()
            if left > 0:
                self._timers = (loop.call_later(left, state.halt, "deadline"),)
            else:
                state.halt("deadline")
        if self._halt_first:
            state.halt("cancelled")

    def _result(self, state: SolveState, best: Scored, usage: Usage) -> Result:
        s, verdict = self._settings, self._verdict(state, best)
        self._trace.close(
            state.root, chosen=best.id, answer=best.vote, score=best.score, confidence=verdict.confidence,
            agreement=verdict.agreement, stopped=state.stopped, usage=usage, **_withheld(verdict),
        )  # fmt: skip
        result = Result(
            problem=self._problem,
            best=best,
            candidates=tuple(sorted(state.seen, key=attrgetter("index"))),
            usage=usage,
            stopped=state.stopped,
            trace=self._trace,
            seed=s.seed,
            warnings=(
                *cut_short(self._trace.of_kind(*CUT_SHORT)),
                *warnings(state.held),
                *escape_warnings(state.ledger),
            ),
            **vars(verdict),
        )
        if verdict.abstained is not None and s.abstaining.on == "raise":
            raise LowConfidence.of(result)
        return result

    def _verdict(self, state: SolveState, best: Scored) -> Verdict:
        below, further = self._settings.abstaining.below, self._settings.abstaining.escalation
        below = state.below if below is None else below
        doubts = () if below is None else map(_in_words, self._trace.of_kind("doubt", "escalation_failed"))
        return Verdict.of(best, state.seen, state.choices.get(best.id), below, tuple(doubts),
                          person=further is not None and further.person)  # fmt: skip

    async def _in_scope(self, run: SolveRun, scope: Scope) -> Scored:
        SCOPE.set(scope)
        try:
            return await self._settings.abstaining.choose(self._settings.strategy, run, self._problem)
        finally:
            self._wake()  # here already, which saves a turn of the loop

    def end_soon(self) -> None:
        """Give the strategy a little time to choose among what it has, and then go on without it."""
        loop = asyncio.get_running_loop()
        assert self._strategy is not None
        further = loop.call_later(_GRACE, self._strategy.cancel), loop.call_later(_LAST, self._wake)
        self._timers = (*self._timers, *further)

    def task_failed(self, error: BaseException) -> None:
        """Go on where the strategy was cancelled before its first step."""
        self._wake()

    def _wake(self) -> None:
        if not self._over.done() and not self._over.get_loop().is_closed():
            self._over.set_result(None)

    def _outcome(self, state: SolveState, task: asyncio.Task[Scored] | None) -> Scored:
        """Return what the strategy chose, or the best candidate seen if it was cut short."""
        refuse = self._settings.on_exhausted == "raise"
        error: BaseException | None = asyncio.CancelledError()
        assert task is not None
        if task.done() and not task.cancelled():
            error = task.exception()
        if isinstance(error, BudgetExhausted):
            state.exhausted(error)
        state.share_end()
        if error is None:
            best: object = task.result()
            if not isinstance(best, Scored):
                raise TTSError(f"strategy {self._settings.strategy!r} returned {best!r}; it must return a Scored")
        elif state.seen and isinstance(error, ModelError) and error.fatal:
            if state.stopped != "error":  # else it was recorded where it arrived
                state.failed_for_all(error)
            best = fallback(state.seen)
        elif not state.seen or not (state.halted or isinstance(error, BudgetExhausted)) or not _cut_short(error):
            try:
                raise _for_caller(error, state, self._settings.strategy) from error.__cause__
            finally:
                del error, task  # its traceback has this frame: it would refer to itself, and be freed late
        else:
            best = fallback(state.seen)
        if state.stopped == "budget" and refuse:
            raised = BudgetExhausted(
                f"the budget ended the search after {len(state.seen)} candidates; raise it, or lower n"
            )
            raised.ledger = None if state.refused is None else state.refused.ledger
            try:
                raise raised from state.refused
            finally:
                del raised  # as above
        return prefer_content(best, state.seen)


def _cut_short(error: BaseException) -> bool:
    return isinstance(error, BudgetExhausted | DeadlineExceeded | SolveCancelled | asyncio.CancelledError)


def _for_caller(error: BaseException, state: SolveState, strategy: Strategy) -> BaseException:
    """Return the error as the caller gets it: it did not ask for a cancellation."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    if state.halted == "deadline":
        return DeadlineExceeded("the deadline passed before the first candidate was complete")
    if state.halted == "cancelled":
        return SolveCancelled("the solve was cancelled before the first candidate was complete")
    return TTSError(f"strategy {strategy!r} ended by a cancellation from inside")


def _in_words(event: Mapping[str, Any]) -> str:
    failed = event["kind"] == "escalation_failed"
    return f"the escalation failed: {event['error']}" if failed else str(event["said"])


def _withheld(verdict: Verdict) -> dict[str, Any]:
    """Return what few solves have, so that the events of all others stay small."""
    said: dict[str, Any] = {"escalated": True} if verdict.escalated else {}
    return said if verdict.abstained is None else {**said, "abstained": verdict.abstained.reason}


def _account(budget: Budget | Ledger | None, now: float) -> tuple[Ledger, float | None]:
    """Return the ledger of this solve, inside whatever encloses it, and when its time ends."""
    outer = SCOPE.get()
    if outer is None:
        ledger = Ledger(inside=budget) if isinstance(budget, Ledger) else Ledger(budget)
    else:
        if outer.hold is not None and not outer.hold.open:
            raise SolveCancelled(
                "the candidate that this solve is a part of has ended, so that nobody waits for it; run what is to "
                "outlive its candidate in a context of its own: contextvars.Context().run(…)"
            )
        role = outer.role if outer.hold is not None else None  # a strategy's own solves are what they are
        if not isinstance(budget, Ledger):
            ledger = Ledger(budget, inside=outer.hold or outer.ledger, role=role)
        elif budget.pays_for(outer.ledger):
            # The enclosing call's hold is of the same account, and is drawn from first.
            ledger = Ledger(inside=outer.hold or outer.ledger, role=role)
        else:
            ledger = Ledger(inside=budget, around=outer.hold)
    limits = (None if outer is None else outer.deadline, ledger.deadline(now))
    given = [limit for limit in limits if limit is not None]
    return ledger, min(given) if given else None


def _limits(budget: Budget | Ledger | None) -> dict[str, Any]:
    """Return the limits, and whether they are those of an account that other solves share."""
    if isinstance(budget, Ledger):
        return {"budget": None if budget.budget is None else budget.budget.to_dict(), "shared": True}
    return {"budget": None if budget is None else budget.to_dict()}


def _usage(ledger: Ledger, started: float) -> Usage:
    return ledger.usage.timed(time.monotonic() - started, overshoot=ledger.overshoot.tokens)
