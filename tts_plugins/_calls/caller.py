"""One request to a model: held before it is sent, retried while that helps, settled at what it took."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from tts_plugins._calls.charging import counted, failure, unreported
from tts_plugins._calls.context import SCOPE, End, Scope
from tts_plugins._calls.limiter import limiter_of
from tts_plugins._calls.places import Place
from tts_plugins._calls.reservation import acquire
from tts_plugins._concurrency.thread_pool import NoThread
from tts_plugins._trace.recorder import Trace, compact
from tts_plugins.budget import Amount, Bound, Need
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    Charge,
    ConfigurationError,
    DeadlineExceeded,
    MalformedResponse,
    ModelError,
    TTSError,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.ledger import NOTHING, Hold, Ledger
from tts_plugins.protocols import Model, Role
from tts_plugins.types import Generation, Reply, Usage

__all__ = ["Ask", "Caller", "acquire", "asked_to_cancel", "check_bounds", "words"]

# Seconds that a server may have us wait (Retry-After) in a solve that has no deadline: with one, that decides.
LONGEST_WAIT = 120.0
_full_jitter = wait_random_exponential(multiplier=0.5, max=20)


class Ask(Protocol):
    """What is asked of a model."""

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The request."""
        ...


class _Request:
    """One request: what it asks for, what it may cost, and what it is drawn from. Settled once for each attempt.

    Attributes:
        unit: what one choice takes in all, from which a retry reserves anew.
        need: what of it is the request's own; all of it where nothing follows.
        hold: what is left of what was reserved for it and for what follows.
        alone: nothing follows, so that the hold is the request's own.
        failed: the last attempt's error, as long as there are further ones.
    """

    __slots__ = ("alone", "ask", "bound", "event", "failed", "hold", "model", "need", "role", "seeds", "unit",
                 "within")  # fmt: skip

    def __init__(
        self,
        model: Model,
        ask: Ask,
        seeds: Sequence[int | None],
        bound: Bound | None,
        unit: Need,
        need: Need,
        hold: Hold,
        within: Hold | None,
        role: Role,
        event: int,
        alone: bool,
    ) -> None:
        self.model, self.ask, self.seeds, self.bound, self.unit = model, ask, seeds, bound, unit
        self.need, self.hold, self.within, self.role, self.event, self.alone = need, hold, within, role, event, alone
        self.failed: ModelError | None = None


class Caller(End):
    """Sends requests for one solve. `unit` is what candidates hold: their generation and their verification.

    Nothing is sent after its end, even by code that ignored its cancellation.
    """

    __slots__ = ("_flying", "attempts", "deadline", "ledger", "trace")

    def __init__(self, *, ledger: Ledger, trace: Trace, deadline: float | None, attempts: int) -> None:
        super().__init__()
        self.ledger, self.trace, self.deadline, self.attempts = ledger, trace, deadline, attempts
        self._flying: dict[Hold, _Request] = {}

    async def request(
        self,
        model: Model,
        ask: Ask,
        seeds: Sequence[int | None],
        *,
        bound: Bound | None,
        unit: Need,
        hold: Hold,
        within: Hold | None,
        role: Role,
        parent: int | None,
        need: Need | None = None,
        indices: Sequence[int] = (),
        alone: bool = False,
    ) -> tuple[Reply, Hold, int]:
        """Send a request; return the reply, the hold that is left for what follows, and the request's event.

        The hold is closed when this raises, and where the request is `alone`: nothing follows it. `need` is what
        of the unit it takes itself; `indices` are the places of the candidates that it asks for, for the trace.

        Raises:
            ModelError: the last attempt's error.
            BudgetExhausted: a retry found no room.
        """
        event = self.trace.open(
            "request", parent, role=role, model=model.name, n=len(seeds), seeds=compact(seeds),
            **({"indices": compact(indices)} if indices else {}),
        )  # fmt: skip
        request = _Request(model, ask, seeds, bound, unit, need or unit, hold, within, role, event, alone)
        try:
            try:
                reply = await self._attempt(request)
            except ModelError as error:
                request.hold.release()  # as in `_once_more`
                if not (_retryable(error) or _asked_wait(error) > LONGEST_WAIT):
                    raise  # without the machinery of retries, whose frames refer to the error
                request.failed = error
                reply = await self._again(request, error)
            self.trace.close(event, usage=(reply.usage or NOTHING).to_dict(), n=len(request.seeds))
            return reply, request.hold, event
        except BaseException as error:
            request.hold.release()
            self.trace.close(event, error=words(error))
            if isinstance(error, BudgetExhausted) and request.failed is not None:
                error.args = (f"{error}; the call was to be tried again, since it failed: {request.failed}",)
                raise error from request.failed
            raise
        finally:
            request.failed = None  # its traceback has this frame, and would keep the whole call in a reference cycle

    async def _again(self, request: _Request, first: ModelError) -> Reply:
        """Retry after a failure. It is separate because tenacity costs more than the rest of a call that succeeds."""
        known: ModelError | None = first
        # Some of tenacity's objects refer to each other, so none of them gets a reference to the solve.
        stop = partial(_no_more, self.attempts, self.deadline)
        retrying = AsyncRetrying(retry=retry_if_exception(_retryable), wait=_wait, stop=stop, reraise=True)
        try:
            async for attempt in retrying:
                with attempt:
                    del attempt  # as below: it has the errors
                    if known is not None:
                        known = None
                        raise first
                    return await self._once_more(request)
        except ModelError as error:
            if self.deadline is None and _asked_wait(error) > LONGEST_WAIT:
                error.args = (
                    f"{error}; it asks to wait {_asked_wait(error):.0f} s, and without a deadline at most "
                    f"{LONGEST_WAIT:.0f} s are waited: give Budget(seconds=…) to wait longer, or try again later",
                )
            raise
        finally:
            del first, known, retrying  # the errors' tracebacks have this frame: a reference cycle, as in `request`
        raise AssertionError("tenacity raises the last error")

    async def _once_more(self, request: _Request) -> Reply:
        """Make an attempt after one that failed, whose reservation was given back."""
        self.check()
        request.hold = await acquire(self.ledger, request.unit, at_most=len(request.seeds), within=request.within)
        request.seeds = request.seeds[: request.hold.units]
        try:
            return await self._attempt(request)
        except ModelError as error:
            request.failed = error
            # Nobody waits while holding a reservation: release what was kept for the verifier too.
            request.hold.release()
            raise

    def abandon(self) -> None:
        """Charge what is still in flight at its bound: its server may work on it, though nobody waits now."""
        for inner, request in list(self._flying.items()):
            self._settle(inner, unreported(request.bound, inner, len(request.seeds)), request.role)
            request.hold.release()

    async def _attempt(self, request: _Request) -> Reply:
        self.check()
        model, bound, hold, count = request.model, request.bound, request.hold, len(request.seeds)
        usage: Usage | None = NOTHING  # until it is sent
        failed: BaseException | None = None
        inner = None if bound is None else hold
        if bound is not None and not request.alone:
            inner = self.ledger.reserve(request.need.times(count), within=hold)
        scope = Scope(
            self.ledger, inner or hold, self.deadline, request.role, request.event,
            request.seeds[0] or 0, ("in",), model,
        )  # fmt: skip
        outer = SCOPE.get()  # not a token, which would be one more object for each request under way
        SCOPE.set(scope)
        place: Place | None = None
        try:
            size = 0 if inner is None else inner.size.tokens
            place = await limiter_of(model).enter(size, inner or hold, scope.place)
            scope.place = place or scope.place
            self.ledger.check_sound()
            usage, started = None, time.monotonic()
            if inner is not None:
                self._flying[inner] = request
            try:
                reply = await request.ask.send(tuple(request.seeds))
            except BaseException as error:
                _blame(model, error)
                raise
            _check_reply(model, reply, count)
            usage = counted(reply, bound, inner, count).timed(time.monotonic() - started)
            return Reply(generations=reply.generations, usage=usage)
        except ModelError as error:
            unsent = scope.waiting and error.charge == "reserve"
            failed, usage = error, NOTHING if unsent else failure(error, bound, inner, count)
            raise
        except (ConfigurationError, BudgetExhausted, DeadlineExceeded, AllCandidatesFailed):
            usage = NOTHING  # refused before it was sent, or raised by a solve inside, which has paid for itself
            raise
        except BaseException as error:
            failed, usage = error, NOTHING if scope.waiting else usage
            raise
        finally:
            if place is not None:
                place.leave()
            charged = usage or unreported(bound, inner, count)
            if failed is not None:
                self._tell(request.event, failed, charged)
            if inner is not None and inner.open:
                bounded = bound is None or bound.completion_tokens is not None
                over = self._settle(inner, charged, request.role, bounded=bounded)
                if over.tokens or over.calls:
                    self.trace.note("overshoot", request.event, tokens=over.tokens, calls=over.calls)
            failed = None  # as in `request`
            scope.leave_for(outer)

    def _tell(self, event: int, error: BaseException, charged: Usage) -> None:
        """Record what an attempt without a reply is charged: in its failure, or in its request if it was cancelled."""
        if isinstance(error, ModelError):
            self.trace.note("failure", event, error=words(error), retryable=error.retryable, usage=charged.to_dict())
        elif charged.calls or charged.tokens:
            self.trace.mark(event, usage=charged.to_dict())

    def _settle(self, inner: Hold, charged: Usage, role: Role, *, bounded: bool = True) -> Amount:
        self._flying.pop(inner, None)
        return inner.settle(charged, bounded=bounded, role=role)


def _blame(model: Model, error: BaseException) -> None:
    """Raise what code of the user raised as the failure of its call; return if it is to be raised as it is."""
    if isinstance(error, TTSError):
        return
    if isinstance(error, asyncio.CancelledError):
        if asked_to_cancel():
            return
        raise UserCodeFailed(f"{model.name}: the call was cancelled from inside") from error
    if isinstance(error, GeneratorExit | KeyboardInterrupt | SystemExit):
        return  # of the program, not of the model
    kind = NotBegun if isinstance(error, NoThread) else UserCodeFailed
    raise kind(f"{model.name}: {words(error)}") from error


def _check_reply(model: Model, reply: object, asked: int) -> None:
    made = reply.generations if isinstance(reply, Reply) else None
    if made is None or not all([isinstance(g, Generation) and isinstance(g.text, str) for g in made]):
        raise UserCodeFailed(f"{model.name} returned {str(reply)[:80]!r}; a model returns a Reply of Generations")
    if not made:
        raise MalformedResponse(f"{model.name} returned no generation for {asked} seeds")


def asked_to_cancel() -> bool:
    """Return whether the running task was cancelled from outside: users' code may raise CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class UserCodeFailed(ModelError):
    """A function of the user raised. It is not retried, which may not be safe, and is charged at its reserve."""


class NotBegun(UserCodeFailed):
    """No thread could be had for a function of the user: it did not run, and costs nothing."""

    charge: Charge = "nothing"


def check_bounds(model: str, bound: Bound | None, ledger: Ledger) -> None:
    """Raise before anything is spent if the worst case of a call cannot be reserved.

    Raises:
        UnboundedCallError, UnknownPriceError: they name the model and what to set.
    """
    if bound is None:
        return
    if bound.completion_tokens is None and (ledger.limits("tokens") or ledger.limits("usd")):
        raise UnboundedCallError(
            f"{model}: max_tokens is not set, so a token or money budget cannot hold; set max_tokens on the model"
        )
    if bound.usd is None and ledger.limits("usd"):
        raise UnknownPriceError(
            f"{model}: its price is not known, so a usd limit cannot hold; give price=(dollars per million prompt "
            "tokens, per million completion tokens), or install 'tts-plugins[prices]' for the published ones"
        )


def _retryable(error: BaseException) -> bool:
    return isinstance(error, ModelError) and error.retryable


def _no_more(attempts: int, deadline: float | None, state: RetryCallState) -> bool:
    if stop_after_attempt(attempts)(state):
        return True
    # Do not begin a wait that would outlast the deadline: report the error while there is time.
    if deadline is None:
        return (state.upcoming_sleep or 0.0) > LONGEST_WAIT
    return time.monotonic() + (state.upcoming_sleep or 0.0) >= deadline


def _wait(state: RetryCallState) -> float:
    error = None if state.outcome is None else state.outcome.exception()
    asked = _asked_wait(error)
    return _full_jitter(state) if asked < 0 else asked


def _asked_wait(error: BaseException | None) -> float:
    """Return the seconds that the server asked to wait; below 0 if it did not."""
    asked = error.retry_after if isinstance(error, ModelError) else None
    return -1.0 if asked is None or not math.isfinite(asked) else max(asked, 0.0)


def words(error: BaseException) -> str:
    """Return an error in one line: its type and its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
