"""One request to a model: held before it is sent, retried while that helps, settled at what it took."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from tts_plugins._calls.cancellation import End
from tts_plugins._calls.charging import counted, failure, unreported
from tts_plugins._calls.context import SCOPE, Scope, seeds_of
from tts_plugins._calls.limiter import limiter_of
from tts_plugins._calls.reservation import acquire
from tts_plugins._concurrency.thread_pool import NoThread
from tts_plugins._internal.request_sent import Departure
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
from tts_plugins.types import Generation, Problem, Reply, Usage

__all__ = ["Caller", "Send", "acquire", "asked_to_cancel", "check_bounds", "words"]

# Seconds that a server may have us wait (Retry-After) in a solve that has no deadline: with one, that decides.
LONGEST_WAIT = 120.0
_full_jitter = wait_random_exponential(multiplier=0.5, max=20)


Send = Callable[[Sequence[int | None]], Awaitable[Reply]]


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A request in flight: what it may cost, what it was drawn from, and who asked."""

    bound: Bound
    count: int
    hold: Hold
    role: Role


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Sends requests for one solve. `unit` is what candidates hold: their generation and their verification.

    Nothing is sent after its `end`, even by code that ignored its cancellation.
    """

    ledger: Ledger
    trace: Trace
    deadline: float | None
    attempts: int
    end: End
    _flying: dict[Hold, _Sent] = field(default_factory=dict)

    async def request(
        self,
        model: Model,
        problem: Problem,
        seeds: Sequence[int | None],
        *,
        bound: Bound | None,
        unit: Need,
        hold: Hold,
        within: Hold | None,
        role: Role,
        parent: int | None,
        send: Send | None = None,
        indices: Sequence[int] = (),
    ) -> tuple[Reply, Hold, int]:
        """Send a request; return the reply, the hold that is left for what follows, and the request's event.

        The hold is closed when this raises. `send` asks for something other than whole solutions of the problem;
        `indices` are the places of the candidates that it asks for, for the trace.

        Raises:
            ModelError: the last attempt's error.
            BudgetExhausted: a retry found no room.
        """
        places = {"indices": compact(indices)} if indices else {}
        event = self.trace.open(
            "request", parent, role=role, model=model.name, n=len(seeds), seeds=compact(seeds), **places
        )
        failed: ModelError | None = None
        call = send or partial(model.generate, problem)

        async def once() -> Reply:
            nonlocal failed, hold, seeds
            self.end.check()
            if failed is not None:
                hold = await acquire(self.ledger, unit, at_most=len(seeds), within=within)
                seeds = seeds[: hold.units]
            try:
                return await self._attempt(model, call, seeds, bound, hold, role, event)
            except ModelError as error:
                failed = error
                # Nobody waits while holding a reservation: release what was kept for the verifier too.
                hold.release()
                raise

        try:
            try:
                reply = await once()
            except ModelError as error:
                if not (_retryable(error) or _asked_wait(error) > LONGEST_WAIT):
                    raise  # without the machinery of retries, whose frames refer to the error
                reply = await self._again(once, error)
            self.trace.close(event, usage=(reply.usage or NOTHING).to_dict(), n=len(seeds))
            return reply, hold, event
        except BaseException as error:
            hold.release()
            self.trace.close(event, error=words(error))
            if isinstance(error, BudgetExhausted) and failed is not None:
                raise error from failed
            raise
        finally:
            failed = None  # its traceback has this frame, and would keep the whole call in a reference cycle

    async def _again(self, once: Callable[[], Awaitable[Reply]], first: ModelError) -> Reply:
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
                    return await once()
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

    def abandon(self) -> None:
        """Charge what is still in flight at its bound: its server may work on it, though nobody waits now."""
        for inner, sent in list(self._flying.items()):
            self._settle(inner, unreported(sent.bound, inner, sent.count), sent.role)
            sent.hold.release()

    async def _attempt(
        self,
        model: Model,
        call: Send,
        seeds: Sequence[int | None],
        bound: Bound | None,
        hold: Hold,
        role: Role,
        event: int,
    ) -> Reply:
        count, departure = len(seeds), Departure(model)
        usage: Usage | None = NOTHING  # until it is sent
        failed: BaseException | None = None
        inner = None if bound is None else self.ledger.reserve(bound.need.times(count), within=hold)
        token = SCOPE.set(Scope(self.ledger, inner or hold, self.deadline, role, event, seeds_of(seeds[0] or 0, "in")))
        try:
            async with limiter_of(model).place(0 if inner is None else inner.size.tokens, inner or hold):
                self.ledger.check_sound()
                usage, started = None, time.monotonic()
                if bound is not None and inner is not None:
                    self._flying[inner] = _Sent(bound=bound, count=count, hold=hold, role=role)
                with departure:
                    reply = await _generate(model, call, seeds)
                usage = counted(reply, bound, inner, count).timed(time.monotonic() - started)
            return Reply(generations=reply.generations, usage=usage)
        except ModelError as error:
            unsent = departure.waiting and error.charge == "reserve"
            failed, usage = error, NOTHING if unsent else failure(error, bound, inner, count)
            raise
        except (ConfigurationError, BudgetExhausted, DeadlineExceeded, AllCandidatesFailed):
            usage = NOTHING  # refused before it was sent, or raised by a solve inside, which has paid for itself
            raise
        except BaseException as error:
            failed, usage = error, NOTHING if departure.waiting else usage
            raise
        finally:
            charged = usage or unreported(bound, inner, count)
            if failed is not None:
                self._tell(event, failed, charged)
            if inner is not None and inner.open:
                over = self._settle(inner, charged, role, bounded=bound is None or bound.completion_tokens is not None)
                if over.tokens or over.calls:
                    self.trace.note("overshoot", event, tokens=over.tokens, calls=over.calls)
            failed = None  # as in `request`
            SCOPE.reset(token)  # last: it raises where the coroutine is closed by another task or thread

    def _tell(self, event: int, error: BaseException, charged: Usage) -> None:
        """Record what an attempt without a reply is charged: in its failure, or in its request if it was cancelled."""
        if isinstance(error, ModelError):
            self.trace.note("failure", event, error=words(error), retryable=error.retryable, usage=charged.to_dict())
        elif charged.calls or charged.tokens:
            self.trace.mark(event, usage=charged.to_dict())

    def _settle(self, inner: Hold, charged: Usage, role: Role, *, bounded: bool = True) -> Amount:
        self._flying.pop(inner, None)
        return inner.settle(charged.of_role(role), bounded=bounded)


async def _generate(model: Model, call: Send, seeds: Sequence[int | None]) -> Reply:
    try:
        reply = await call(seeds)
    except TTSError:
        raise
    except asyncio.CancelledError as error:
        if asked_to_cancel():
            raise
        raise UserCodeFailed(f"{model.name}: the call was cancelled from inside") from error
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        raise  # of the program, not of the model
    except BaseException as error:
        kind = NotBegun if isinstance(error, NoThread) else UserCodeFailed
        raise kind(f"{model.name}: {words(error)}") from error
    made = reply.generations if isinstance(reply, Reply) else None
    if made is None or not all(isinstance(g, Generation) and isinstance(g.text, str) for g in made):
        raise UserCodeFailed(f"{model.name} returned {str(reply)[:80]!r}; a model returns a Reply of Generations")
    if not made:
        raise MalformedResponse(f"{model.name} returned no generation for {len(seeds)} seeds")
    return reply


def asked_to_cancel() -> bool:
    """Return whether the running task was cancelled from outside: users' code may raise CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class UserCodeFailed(ModelError):
    """A function of the user raised. It is not retried, which may not be safe, and is charged at its reserve."""


class NotBegun(UserCodeFailed):
    """No thread could be had for a function of the user: it did not run, and costs nothing."""

    charge: Charge = "nothing"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def check_bounds(model: _Named, bound: Bound | None, ledger: Ledger) -> None:
    """Raise before anything is spent if the worst case of a call cannot be reserved.

    Raises:
        UnboundedCallError, UnknownPriceError: they name the model and what to set.
    """
    if bound is None:
        return
    if bound.completion_tokens is None and (ledger.limits("tokens") or ledger.limits("usd")):
        raise UnboundedCallError(
            f"{model.name}: max_tokens is not set, so a token or money budget cannot hold; set max_tokens on the model"
        )
    if bound.usd is None and ledger.limits("usd"):
        raise UnknownPriceError(
            f"{model.name}: its price is not known, so a usd limit cannot hold; give price=(dollars per million prompt "
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
