"""One request to a model: held before it is sent, retried while that helps, settled at what it took."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from tts_plugins._calls.charging import counted, failure, unreported
from tts_plugins._calls.context import SCOPE, End, Scope
from tts_plugins._calls.limiter import limiter_of
from tts_plugins._calls.places import Place
from tts_plugins._calls.reservation import acquire
from tts_plugins._concurrency.thread_pool import NoThread
from tts_plugins._trace.recorder import Trace
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
_jitter = wait_random_exponential(multiplier=0.5, max=20)
_NO_LOOP = AsyncRetrying()  # tenacity's state of a call names one


class Ask(Protocol):
    """What is asked of a model."""

    def send(self, seeds: Sequence[int | None]) -> Awaitable[Reply]:
        """The request."""
        ...


class _Request(Scope):
    """One attempt at a request, and the scope of what runs inside of it.

    Attributes:
        bound: the most that one choice can cost; None for a metered model.
        rest: what is left of what was reserved for it and for what follows.
        own: the part of that which is the request's own, settled when it ends; None for a metered model.
        sent: when it was sent; None before.
    """

    __slots__ = ("bound", "count", "own", "rest", "sent")

    def __init__(
        self, caller: Caller, model: Model, seeds: Sequence[int | None], bound: Bound | None, rest: Hold,
        own: Hold | None, role: Role, event: int,
    ) -> None:  # fmt: skip
        # It outlives the call, in contexts of connections and timers: the model and what it is asked must not.
        super().__init__(caller.ledger, own or rest, caller.deadline, role, event, seeds[0] or 0, ("in",), model)
        self.bound, self.count, self.rest, self.own = bound, len(seeds), rest, own
        self.sent: float | None = None

    @property
    def tokens(self) -> int:
        """What it may take."""
        return 0 if self.own is None else self.own.size.tokens

    def charge_for(self, error: BaseException) -> Usage:
        """Return what it is charged where it failed."""
        if isinstance(error, ModelError):
            unsent = self.waiting and error.charge == "reserve"
            return NOTHING if unsent else failure(error, self.bound, self.own, self.count)
        # Some are raised before anything is sent, or by a solve inside, which has paid for itself.
        refused = isinstance(error, ConfigurationError | BudgetExhausted | DeadlineExceeded | AllCandidatesFailed)
        return NOTHING if refused or self.sent is None or self.waiting else self.unreported()

    def unreported(self) -> Usage:
        """Return what it is charged without a reply."""
        return unreported(self.bound, self.own, self.count)


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
        self, model: Model, ask: Ask, seeds: Sequence[int | None], *, bound: Bound | None, unit: Need, hold: Hold,
        within: Hold | None, role: Role, parent: int | None, need: Need | None = None, indices: Sequence[int] = (),
        alone: bool = False,
    ) -> tuple[Reply, Hold, int]:  # fmt: skip
        """Send a request; return the reply, the hold that is left for what follows, and the request's event.

        The hold is closed when this raises, and where the request is `alone`: nothing follows it. `need` is what
        of the unit it takes itself; `indices` are the places of the candidates that it asks for, for the trace.

        Raises:
            ModelError: the last attempt's error.
            BudgetExhausted: a retry found no room.
        """
        places = {"indices": indices} if indices else {}
        event = self.trace.open("request", parent, role=role, model=model.name, n=len(seeds), seeds=seeds, **places)
        attempt, outer, failed = 0, SCOPE.get(), None
        try:
            while True:
                attempt, place = attempt + 1, None
                request = self._begun(model, seeds, bound, hold, hold if alone else need or unit, role, event)
                try:
                    place = await limiter_of(model).enter(request.tokens, request.hold, request.place)
                    request.place = place or request.place
                    started = self._send(request)
                    try:
                        reply = await ask.send(tuple(seeds))
                    except BaseException as error:
                        _blame(model, error)
                        raise
                    _check_reply(model, reply, len(seeds))
                    usage = counted(reply, bound, request.own, len(seeds)).timed(time.monotonic() - started)
                except BaseException as error:
                    self._end(request, place, request.charge_for(error), outer, error)
                    hold.release()  # nobody waits while holding a reservation, that of the verifier included
                    if (pause := self._pause(error, attempt)) is None:
                        raise
                    failed = error
                else:
                    self._end(request, place, usage, outer)
                    self.trace.close(event, usage=usage.to_dict(), n=len(seeds))
                    return Reply(generations=reply.generations, usage=usage), hold, event
                await asyncio.sleep(pause)
                self.check()
                hold = await acquire(self.ledger, unit, at_most=len(seeds), within=within)
                seeds = seeds[: hold.units]
        except BaseException as error:
            hold.release()
            self.trace.close(event, error=words(error))
            if isinstance(error, BudgetExhausted) and failed is not None:
                error.args = (f"{error}; the call was to be tried again, since it failed: {failed}",)
                raise error from failed
            raise
        finally:
            failed = None  # its traceback has this frame, and would keep the whole call in a reference cycle

    def abandon(self) -> None:
        """Charge what is still in flight at its bound: its server may work on it, though nobody waits now."""
        for own, request in list(self._flying.items()):
            self._flying.pop(own, None)
            usage = NOTHING if request.waiting else request.unreported()
            own.ledger.close(own, usage, role=request.role)  # not `settle`: the collector may close it at any step
            request.rest.release()

    def _begun(
        self, model: Model, seeds: Sequence[int | None], bound: Bound | None, hold: Hold, need: Need | Hold, role: Role,
        event: int,
    ) -> _Request:  # fmt: skip
        """Begin an attempt, which takes its `need` from the hold, or is the only one that it is for."""
        self.check()
        own = None
        if bound is not None:
            own = need if isinstance(need, Hold) else self.ledger.reserve(need.times(len(seeds)), within=hold)
        request = _Request(self, model, seeds, bound, hold, own, role, event)
        SCOPE.set(request)
        return request

    def _send(self, request: _Request) -> float:
        """Say that a request is sent now, which is returned."""
        self.ledger.check_sound()
        if request.own is not None:
            self._flying[request.own] = request
        request.sent = time.monotonic()
        return request.sent

    def _end(
        self, request: _Request, place: Place | None, usage: Usage, outer: Scope | None,
        error: BaseException | None = None,
    ) -> None:  # fmt: skip
        """Leave its place at the server, charge what it took, and record what an attempt without a reply is charged."""
        if place is not None:
            place.leave()
        event, bound, own = request.event, request.bound, request.own
        assert event is not None
        if isinstance(error, ModelError):
            self.trace.note("failure", event, error=words(error), retryable=error.retryable, usage=usage.to_dict())
        elif error is not None and (usage.calls or usage.tokens):  # it was cancelled, or an error of the program
            self.trace.mark(event, usage=usage.to_dict())
        if own is not None and own.open:
            bounded = bound is None or bound.completion_tokens is not None
            over = self._settle(own, usage, request.role, bounded=bounded)
            if over.tokens or over.calls:
                self.trace.note("overshoot", event, tokens=over.tokens, calls=over.calls)
        request.leave_for(outer)

    def _settle(self, own: Hold, usage: Usage, role: Role, *, bounded: bool = True) -> Amount:
        self._flying.pop(own, None)
        return own.settle(usage, bounded=bounded, role=role)

    def _pause(self, error: BaseException, attempt: int) -> float | None:
        """Return the seconds until the next attempt; None where there is none."""
        if not isinstance(error, ModelError):
            return None
        asked = error.retry_after
        asked = None if asked is None or not math.isfinite(asked) else max(asked, 0.0)
        if self.deadline is None and asked is not None and asked > LONGEST_WAIT:
            error.args = (
                f"{error}; it asks to wait {asked:.0f} s, and without a deadline at most {LONGEST_WAIT:.0f} s are "
                "waited: give Budget(seconds=…) to wait longer, or try again later",
            )
            return None
        if not error.retryable or attempt >= self.attempts:
            return None
        pause = _full_jitter(attempt) if asked is None else asked
        # Do not begin a wait that would outlast the deadline: report the error while there is time.
        return None if self.deadline is not None and time.monotonic() + pause >= self.deadline else pause


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


def _full_jitter(attempt: int) -> float:
    """Return the seconds to wait after this attempt, the first being 1: at random, up to a limit that doubles."""
    state = RetryCallState(_NO_LOOP, None, (), {})
    state.attempt_number = attempt
    return _jitter(state)


def words(error: BaseException) -> str:
    """Return an error in one line: its type and its message."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
