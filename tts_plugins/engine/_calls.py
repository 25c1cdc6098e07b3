"""One request to a model: held before it is sent, retried while that helps, settled at what it took."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from tts_plugins.budget import Amount, Bound
from tts_plugins.engine._halt import End
from tts_plugins.engine._limiter import limiter_of
from tts_plugins.engine._room import acquire
from tts_plugins.engine._scope import SCOPE, Scope, seeds_of
from tts_plugins.engine._trace import Trace
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    MalformedResponse,
    ModelError,
    TTSError,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Model, Role
from tts_plugins.types import Generation, Problem, Reply, Usage

__all__ = ["Caller", "acquire", "asked_to_cancel", "check_bounds", "words"]

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
    """Sends requests for one solve. `unit` is what a candidate holds: its generation and its verification.

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
        unit: Amount,
        hold: Hold,
        within: Hold | None,
        role: Role,
        parent: int | None,
        send: Send | None = None,
    ) -> tuple[Reply, Hold, int]:
        """The reply, the hold that is left for what follows, and the request's event.

        The hold is closed when this raises. `send` asks for something else than whole solutions of the problem.

        Raises:
            ModelError: the last attempt's error.
            BudgetExhausted: a retry found no room.
        """
        event = self.trace.open("request", parent, role=role, model=model.name, n=len(seeds), seeds=list(seeds))
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
                # Nobody waits while holding room: what was kept for the verifier goes back too.
                hold.release()
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

    def abandon(self) -> None:
        """Charge what is still in flight at its bound: nobody waits for it any more, and its server may work on it."""
        for inner, sent in list(self._flying.items()):
            self._settle(inner, _unreported(sent.bound, inner, sent.count), sent.role)
            sent.hold.release()

    def _stop(self, state: RetryCallState) -> bool:
        if stop_after_attempt(self.attempts)(state):
            return True
        # A wait that would outlast the deadline is not begun: the error is reported while there is time.
        return self.deadline is not None and time.monotonic() + (state.upcoming_sleep or 0.0) >= self.deadline

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
        count = len(seeds)
        usage: Usage | None = Usage()  # until it is sent
        inner = None if bound is None else self.ledger.reserve(bound.amount.times(count), within=hold)
        token = SCOPE.set(Scope(self.ledger, inner or hold, self.deadline, role, event, seeds_of(seeds[0] or 0, "in")))
        try:
            async with limiter_of(model).place(0 if bound is None else bound.amount.tokens * count, inner):
                usage, started = None, time.monotonic()
                if bound is not None and inner is not None:
                    self._flying[inner] = _Sent(bound=bound, count=count, hold=hold, role=role)
                reply = await _generate(model, call, seeds)
                usage = replace(_counted(reply, bound, inner, count), seconds=time.monotonic() - started)
            return replace(reply, usage=usage)
        except ModelError as error:
            if error.charge != "reserve":
                usage = Usage() if bound is None or error.charge == "nothing" else bound.usage(tokens=False)
            raise
        except (ConfigurationError, BudgetExhausted, DeadlineExceeded, AllCandidatesFailed):
            usage = Usage()  # refused before it was sent, or raised by a solve inside, which has paid for itself
            raise
        finally:
            SCOPE.reset(token)
            if inner is not None and inner.open:
                over = self._settle(inner, usage or _unreported(bound, inner, count), role)
                if over.tokens or over.calls:
                    self.trace.note("overshoot", event, tokens=over.tokens, calls=over.calls)

    def _settle(self, inner: Hold, charged: Usage, role: Role) -> Amount:
        self._flying.pop(inner, None)
        return inner.settle(replace(charged, by_role={role: charged}))


async def _generate(model: Model, call: Send, seeds: Sequence[int | None]) -> Reply:
    try:
        reply = await call(seeds)
    except TTSError:
        raise
    except asyncio.CancelledError as error:
        if asked_to_cancel():
            raise
        raise UserCodeFailed(f"{model.name}: the call was cancelled from inside") from error
    except Exception as error:
        raise UserCodeFailed(f"{model.name}: {words(error)}") from error
    made = reply.generations if isinstance(reply, Reply) else None
    if made is None or not all(isinstance(g, Generation) and isinstance(g.text, str) for g in made):
        raise UserCodeFailed(f"{model.name} returned {str(reply)[:80]!r}; a model returns a Reply of Generations")
    if not made:
        raise MalformedResponse(f"{model.name} returned no generation for {len(seeds)} seeds")
    return reply


def asked_to_cancel() -> bool:
    """Whether the running task was cancelled from outside: code of a user raises CancelledError by itself too."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _counted(reply: Reply, bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """What a call took, as it says itself; never fewer calls than it brought, and never free where it has a price."""
    usage = reply.usage
    if usage is None:
        return replace(_unreported(bound, inner, count), requests=0)
    if bound is None or _paid_inside(inner):
        return usage
    if usage.usd is None and bound.usd is not None:
        usage = replace(usage, usd=bound.usd * count, exact=False)
    return replace(usage, calls=max(usage.calls, bound.calls * len(reply.generations)))


def _unreported(bound: Bound | None, inner: Hold | None, count: int) -> Usage:
    """What a call is charged that cannot say what it took: its bound, unless solves inside it paid already."""
    if bound is None or inner is None or _paid_inside(inner):
        return Usage()
    usage = bound.usage(count)
    return replace(usage, exact=usage.tokens == 0)


def _paid_inside(inner: Hold | None) -> bool:
    return inner is not None and inner.amount != inner.size


class UserCodeFailed(ModelError):
    """A function of the user raised: not retried, since it is not known to be safe, and charged at its reserve."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def check_bounds(model: _Named, bound: Bound | None, ledger: Ledger) -> None:
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
    return _full_jitter(state) if asked is None or not math.isfinite(asked) else max(asked, 0.0)


def words(error: BaseException) -> str:
    """An error in one line: its type and its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
