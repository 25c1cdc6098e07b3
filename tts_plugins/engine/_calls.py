"""One request to a model: held before it is sent, retried while that helps, settled at what it took."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from tts_plugins.budget import Amount, Bound
from tts_plugins.engine._limiter import limiter_of
from tts_plugins.engine._scope import SCOPE, Scope
from tts_plugins.engine._trace import Trace
from tts_plugins.errors import (
    BudgetExhausted,
    ModelError,
    TTSError,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Model, Role
from tts_plugins.types import Problem, Reply, Usage

_full_jitter = wait_random_exponential(multiplier=0.5, max=20)


async def acquire(ledger: Ledger, unit: Amount, *, at_most: int = 1, within: Hold | None = None) -> Hold:
    """A hold on up to `at_most` units, waiting for others to settle where there is no room.

    Raises:
        BudgetExhausted: there is no room, and nobody in flight will make any.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Hold] = loop.create_future()

    def deliver(answer: object) -> None:
        if future.done():
            if isinstance(answer, Hold):
                answer.release()
        elif isinstance(answer, Hold):
            future.set_result(answer)
        else:
            assert isinstance(answer, BudgetExhausted)
            future.set_exception(answer)

    def ready(answer: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, answer)
        elif isinstance(answer, Hold):
            answer.release()

    if ledger.idle_queue:
        # The usual case, without a detour through the loop; where it does not fit it is asked again, and may wait.
        with contextlib.suppress(BudgetExhausted):
            return ledger.reserve(unit, at_most=at_most, within=within)
    ticket = ledger.ask(unit, ready, at_most=at_most, within=within)
    try:
        while not future.done():
            # A place in a limiter may have come free or been blocked, which no ledger hears of.
            await asyncio.wait([future], timeout=1.0)
            ledger.pump()
        return future.result()
    except asyncio.CancelledError:
        ticket.cancel()
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().release()
        else:
            future.cancel()
        raise


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Sends requests for one solve. `unit` is what a candidate holds: its generation and its verification."""

    ledger: Ledger
    trace: Trace
    deadline: float | None
    attempts: int

    async def request(
        self,
        model: Model,
        problem: Problem,
        seeds: Sequence[int | None],
        *,
        bound: Bound | None,
        unit: Amount,
        hold: Hold | None,
        within: Hold | None,
        role: Role,
        parent: int | None,
    ) -> tuple[Reply, Hold | None, int]:
        """The reply, the hold that is left for what follows, and the request's event.

        The hold is closed when this raises.

        Raises:
            ModelError: the last attempt's error.
            BudgetExhausted: a retry found no room.
        """
        event = self.trace.open("request", parent, role=role, model=model.name, n=len(seeds), seeds=list(seeds))
        failed: ModelError | None = None

        async def once() -> Reply:
            nonlocal failed, hold, seeds
            if failed is not None and hold is not None:
                # Nobody waits for room while holding some: what was kept for the verifier goes back too.
                hold.release()
                hold = await acquire(self.ledger, unit, at_most=len(seeds), within=within)
                seeds = seeds[: hold.units]
            try:
                return await self._attempt(model, problem, seeds, bound, hold, role, event)
            except ModelError as error:
                failed = error
                self.trace.note("failure", event, error=words(error), retryable=error.retryable)
                raise

        try:
            try:
                reply = await once()
            except ModelError as error:
                reply = await self._again(once, error)
            self.trace.close(event, usage=(reply.usage or Usage()).to_dict(), n=len(seeds))
            return reply, hold, event
        except BaseException as error:
            if hold is not None:
                hold.release()
            self.trace.close(event, error=words(error))
            if isinstance(error, BudgetExhausted) and failed is not None:
                raise error from failed
            raise

    async def _again(self, once: Callable[[], Awaitable[Reply]], first: ModelError) -> Reply:
        """What follows a failure. Apart, since the machinery of retries takes more than the rest of a good call."""
        known: ModelError | None = first
        retrying = AsyncRetrying(retry=retry_if_exception(_retryable), wait=_wait, stop=self._stop, reraise=True)
        async for attempt in retrying:
            with attempt:
                if known is not None:
                    known = None
                    raise first
                return await once()
        raise AssertionError("tenacity raises the last error")

    def _stop(self, state: RetryCallState) -> bool:
        if stop_after_attempt(self.attempts)(state):
            return True
        # A wait that would outlast the deadline is not begun: the error is reported while there is time.
        return self.deadline is not None and time.monotonic() + (state.upcoming_sleep or 0.0) >= self.deadline

    async def _attempt(
        self,
        model: Model,
        problem: Problem,
        seeds: Sequence[int | None],
        bound: Bound | None,
        hold: Hold | None,
        role: Role,
        event: int,
    ) -> Reply:
        count, sent = len(seeds), False
        usage: Usage | None = None
        inner = None if bound is None else self.ledger.reserve(bound.amount.times(count), within=hold)
        token = SCOPE.set(Scope(self.ledger, inner or hold, self.deadline, role, event))
        try:
            async with limiter_of(model).place(0 if bound is None else bound.amount.tokens * count, inner):
                sent, started = True, time.monotonic()
                reply = await _generate(model, problem, seeds)
                usage = reply.usage or replace(_unreported(bound, inner, count), requests=0)
                usage = replace(usage, seconds=time.monotonic() - started)
            return replace(reply, usage=usage)
        except ModelError as error:
            if error.charge != "reserve":
                usage = Usage() if bound is None or error.charge == "nothing" else bound.usage(tokens=False)
            raise
        except TTSError:
            usage = Usage()  # refused before it was sent, or raised by a solve inside, which has paid for itself
            raise
        finally:
            SCOPE.reset(token)
            if inner is not None:
                charged = usage or (_unreported(bound, inner, count) if sent else Usage())
                over = inner.settle(replace(charged, by_role={role: charged}))
                if over.tokens or over.calls:
                    self.trace.note("overshoot", event, tokens=over.tokens, calls=over.calls)


async def _generate(model: Model, problem: Problem, seeds: Sequence[int | None]) -> Reply:
    try:
        return await model.generate(problem, seeds)
    except TTSError:
        raise
    except Exception as error:
        raise UserCodeFailed(f"{model.name}: {words(error)}") from error


def _unreported(bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """What a call is charged that cannot say what it took: its bound, unless solves inside it paid already."""
    if bound is None or inner is None or inner.amount != inner.size:
        return Usage()
    usage = bound.usage(count)
    return replace(usage, exact=usage.tokens == 0)


class UserCodeFailed(ModelError):
    """A function of the user raised: not retried, since it is not known to be safe, and charged at its reserve."""


def check_bounds(model: Model, bound: Bound | None, ledger: Ledger) -> None:
    """Refuse a call whose worst case cannot be held, before anything is spent.

    Raises:
        UnboundedCallError, UnknownPriceError: naming the model and the mend.
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


def _wait(state: RetryCallState) -> float:
    error = None if state.outcome is None else state.outcome.exception()
    asked = error.retry_after if isinstance(error, ModelError) else None
    return _full_jitter(state) if asked is None else max(asked, 0.0)


def words(error: BaseException) -> str:
    """An error in one line: its type and its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
