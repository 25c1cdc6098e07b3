"""One chat request, solved: within its tenant's budget, watched, and settled whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tts_plugins._internal.values import linked
from tts_plugins.budget import Budget
from tts_plugins.engine import solve
from tts_plugins.errors import TTSError
from tts_plugins.ledger import Ledger
from tts_plugins.selection import fallback, ranked
from tts_plugins.server.budgets.accounts import Accounts, StoreFailed
from tts_plugins.server.budgets.tenants import Tenant, tightest
from tts_plugins.server.errors import APIError
from tts_plugins.server.requests.fields import ChatRequest
from tts_plugins.server.requests.forms import base_of, choice_of, completion_of, tts_of, withheld
from tts_plugins.server.requests.profiles import Profiles, Search
from tts_plugins.server.settings import ServerSettings
from tts_plugins.server.upstream import Kind, Upstream
from tts_plugins.server.upstream_model import EXCHANGE, Exchange
from tts_plugins.types import REQUEST, Problem, Result, Scored, Usage

_log = logging.getLogger("tts_plugins.server")
Listener = Callable[[Mapping[str, Any]], None]


class Observer(Protocol):
    """Watches requests: metrics, and the viewer."""

    def begin(self, name: str, tenant: Tenant, search: Search, ledger: Ledger) -> Listener | None:
        """Note that a solve begins on this account; what is returned, if anything, hears its events."""
        ...

    def end(self, name: str, search: Search, usage: Usage, result: Result | None, error: BaseException | None) -> None:
        """Note that a solve has ended."""
        ...

    def counted(self, endpoint: str, usage: Usage) -> None:
        """Note what a request without a search has spent."""
        ...


@dataclass(frozen=True)
class Service:
    """What requests share."""

    settings: ServerSettings
    upstream: Upstream
    profiles: Profiles
    accounts: Accounts
    observer: Observer
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Start a task that is kept until it has settled what it took, even if its caller disconnects."""
        task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asked, so that asyncio does not complain of errors that nobody waits for any more


@dataclass(frozen=True)
class Outcome:
    """A solve that has ended."""

    result: Result
    usage: Usage
    exchange: Exchange

    def chosen(self, prefix: str = "") -> Scored:
        """Return the chosen candidate; if `prefix` was sent already, the best of those that begin with it."""
        best = self.result.best
        if best.text.startswith(prefix):
            return best
        others = [c for c in self.result.candidates if c.text.startswith(prefix)]
        return fallback(others) if others else best


class ChatCall:
    """One chat request of a tenant.

    Args:
        tap: called with each chunk as it arrives, where the answer is a single sample.
        listener: called with each event of the trace.

    Raises:
        APIError: the profile, the model or the settings do not fit.
    """

    def __init__(self, service: Service, tenant: Tenant, request: ChatRequest) -> None:
        self.service, self.tenant, self.request = service, tenant, request
        self.search = service.profiles.search(request, service.upstream.models)
        self.name = f"chatcmpl-tts-{uuid.uuid4().hex}"

    async def run(self, tap: Callable[[Any], None] | None = None, listener: Listener | None = None) -> Outcome:
        """Solve the request.

        Raises:
            APIError, TTSError: the search failed.
        """
        settings, request, search = self.service.settings, self.request, self.search
        limits = tightest(search.budget, Budget(seconds=settings.timeout))
        grant = await self.service.accounts.grant(self.tenant, limits)
        ledger = Ledger(grant.budget)
        exchange = Exchange(tap=tap if search.single else None, seed=request.seed if search.single else None)
        listening = _together(self.service.observer.begin(self.name, self.tenant, search, ledger), listener)
        result, failed = None, None
        token = EXCHANGE.set(exchange)
        try:
            result = await self._solve(ledger, listening)
            return Outcome(result, ledger.usage, exchange)
        except BaseException as error:
            failed = error
            grant.explain(error)
            raise
        finally:
            EXCHANGE.reset(token)
            self.service.observer.end(self.name, search, ledger.usage, result, failed)
            failed = None
            await self._settle(grant, ledger)

    async def _solve(self, ledger: Ledger, listener: Listener | None) -> Result:
        request, search = self.request, self.search
        model = await self.service.upstream.model(
            Kind(
                model=search.upstream, temperature=request.temperature, limit=request.limit,
                max_tokens=self._max_tokens(ledger),
            )
        )  # fmt: skip
        fields = dict(request.forwarded)
        metadata = {REQUEST: fields, "request": {"messages": request.messages, **fields}}
        try:
            return await solve(
                Problem(request.messages, metadata=metadata), model=model, strategy=search.strategy,
                verifier=search.verifier, budget=ledger, seed=search.seed, profile=None, listener=listener,
                abstain_below=search.abstain_below,
                on_exhausted="raise" if request.on_exhausted == "raise" else "return",
            )  # fmt: skip
        except TTSError as error:
            own = next((found for found in linked(error) if isinstance(found, APIError)), None)
            if own is not None:  # raised inside a call, and wrapped by the engine
                raise own from None
            raise

    def _max_tokens(self, ledger: Ledger) -> int | None:
        if self.request.max_tokens is not None:
            return self.request.max_tokens
        if self.service.upstream.local:
            return min(512, self.service.settings.max_tokens)
        bound = ledger.limits("tokens") or ledger.limits("usd")
        return self.service.settings.max_tokens if bound else None

    async def _settle(self, grant: Any, ledger: Ledger) -> None:
        try:
            await self.service.accounts.settle(grant, ledger.spent)
        except StoreFailed:
            _log.error("what a request of %s did not use could not be given back, and stays charged", self.tenant.name)

    def completion(self, outcome: Outcome) -> dict[str, Any]:
        """Return the whole answer."""
        best = outcome.chosen()
        return completion_of(
            self.name, self.request.model, self.choices(outcome, best), outcome.usage, self.tts(outcome, best),
            base_of(outcome.exchange.choice_of, best),
        )  # fmt: skip

    def choices(self, outcome: Outcome, best: Scored) -> list[dict[str, Any]]:
        """Return the choices that were requested, the best first; a refusal if the search gives no answer."""
        if outcome.result.abstained is not None:
            return [withheld(outcome.result.abstained)]
        chosen = ranked(best, outcome.result.candidates)[: self.request.n]
        return [choice_of(c, i, outcome.exchange.choice_of) for i, c in enumerate(chosen)]

    def tts(self, outcome: Outcome, best: Scored) -> dict[str, Any]:
        """Return what the answer says of the search."""
        return tts_of(outcome.result, best, self.search.profile)


def _together(one: Listener | None, other: Listener | None) -> Listener | None:
    """Return one listener of both, or None if nobody listens: events are prepared only for whoever does."""
    if one is None or other is None:
        return one or other

    def listen(event: Mapping[str, Any]) -> None:
        one(event)
        other(event)

    return listen
