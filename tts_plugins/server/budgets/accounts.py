"""What tenants have spent, by day and month. Hard: it is charged before it is spent, and given back after.

A request first takes the most that it may spend from its tenant's periods, in one transaction; when it ends, what it
did not use is given back. So the limits hold over any number of processes. A process that is killed gives nothing
back: what it had taken stays charged, since nobody can say what its requests cost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from tts_plugins.budget import PICO, Amount, Budget
from tts_plugins.errors import BudgetExhausted, DataError
from tts_plugins.server.budgets.tenants import Tenant, tightest
from tts_plugins.server.errors import APIError, busy, used_up

# The part of a period's limit that one request may take, where its tenant has no limit on requests.
SHARE = 16
NONE = Amount()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.3
Limits = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Period:
    """A span of time with limits on calls, tokens and picodollars; `key` names it, such as `day:2026-11-29`."""

    key: str
    limits: Limits
    seconds_left: float


@dataclass(frozen=True)
class Balance:
    """The amounts of a period: charged (with what requests in flight have taken), and truly spent."""

    charged: Amount = NONE
    spent: Amount = NONE


class StoreFailed(DataError):
    """The store cannot be read or written."""


class UsageStore(Protocol):
    """Where the balances are kept. Each method is one transaction."""

    async def take(self, tenant: str, periods: tuple[Period, ...], wanted: Amount, *, whole: bool) -> Amount | None:
        """Charge `wanted`, or what is left of it where not `whole`, to all periods; None where that is too little.

        Raises:
            StoreFailed: nothing was charged.
        """
        ...

    async def settle(self, tenant: str, periods: tuple[Period, ...], taken: Amount, used: Amount) -> None:
        """Give back what was taken and not used.

        Raises:
            StoreFailed: what was taken stays charged.
        """
        ...

    async def balances(self, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
        """Return the balance of each period, by its key."""
        ...

    async def close(self) -> None:
        """Close files and connections."""
        ...


def grantable(
    periods: tuple[Period, ...], balances: Mapping[str, Balance], wanted: Amount, whole: bool
) -> Amount | None:
    """Return how much of `wanted` every period can bear. Pure: stores that decide by themselves decide the same."""
    grant = list(wanted)
    for period in periods:
        charged = balances.get(period.key, Balance()).charged
        for i, limit in enumerate(period.limits):
            if limit is not None and wanted[i] > 0:
                grant[i] = min(grant[i], limit - charged[i])
                if grant[i] <= 0 or (whole and grant[i] < wanted[i]):
                    return None
    return Amount(*grant)


@dataclass(frozen=True)
class Grant:
    """What one request was allowed, and what of it is charged to its tenant's periods."""

    tenant: Tenant
    budget: Budget | None
    taken: Amount = NONE
    periods: tuple[Period, ...] = ()

    def explain(self, error: BaseException) -> None:
        """Add to the error of a request that does not fit what its caller cannot know of the limit."""
        if self.periods and self.tenant.request is None and isinstance(error, BudgetExhausted):
            error.args = (
                f"{error}. One request may reserve a {SHARE}th of its day's or month's budget, or what is left of it; "
                "the server's operator can set another limit as `request`",
            )


class Accounts:
    """Grants for requests, from the tenants' balances.

    Args:
        store: None where no tenant has limits over many requests.
        patience: seconds that a request waits for others to give back what they took.
        clock: returns the time, which says what day and month it is.
    """

    def __init__(
        self, store: UsageStore | None, patience: float, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._patience, self._clock = store, patience, clock

    async def grant(self, tenant: Tenant, asked: Budget | None) -> Grant:
        """Return a budget for one request: all that `asked`, the tenant's limits and the periods leave it.

        Raises:
            APIError: 429 where a period is used up, 503 where the store fails.
        """
        budget = tightest(asked, tenant.request)
        if not tenant.periods or self._store is None:
            return Grant(tenant, budget)
        wanted = _wanted(budget, periods_of(tenant, self._clock()))
        try:
            taken, periods = await self._take(self._store, tenant, wanted)
        except StoreFailed as error:
            raise _unavailable() from error
        limits = {name: value for name, value in _as_limits(taken, wanted).items() if value}
        return Grant(tenant, tightest(budget, Budget(**limits)), taken, periods)

    async def settle(self, grant: Grant, used: Amount) -> None:
        """Give back what was not used.

        Raises:
            StoreFailed: what was taken stays charged.
        """
        if self._store is not None and grant.periods:
            await self._store.settle(grant.tenant.name, grant.periods, grant.taken, used)

    async def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            await self._store.close()

    async def _take(self, store: UsageStore, tenant: Tenant, wanted: Amount) -> tuple[Amount, tuple[Period, ...]]:
        end, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while True:
            periods = periods_of(tenant, self._clock())  # a new day may begin while it waits
            taken = await _taken(store, tenant, periods, wanted, whole=True)
            if taken is not None:
                return taken, periods
            balances = await store.balances(tenant.name, periods)
            # Were all in flight to give back all they took, would there be more for this one?
            settled = {key: Balance(charged=b.spent, spent=b.spent) for key, b in balances.items()}
            most, now = grantable(periods, settled, wanted, False), grantable(periods, balances, wanted, False)
            if most is None:
                raise used_up(f"{_used_up(periods, settled)} of {tenant.name} is used up.")
            if now == most and (taken := await _taken(store, tenant, periods, wanted, whole=False)) is not None:
                return taken, periods
            if time.monotonic() > end:
                raise busy("Requests in flight hold what is left of your budget; try again when they have ended.")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _taken(
    store: UsageStore, tenant: Tenant, periods: tuple[Period, ...], wanted: Amount, *, whole: bool
) -> Amount | None:
    """`store.take`; where the wait for it is cancelled, what it took is given back."""
    taking = asyncio.ensure_future(store.take(tenant.name, periods, wanted, whole=whole))
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        # A transaction that has begun is made all the same, and nobody else knows of it.
        if (taken := await taking) is not None:
            await store.settle(tenant.name, periods, taken, NONE)
        raise


def periods_of(tenant: Tenant, now: datetime) -> tuple[Period, ...]:
    """Return the day and the month, in UTC, for which the tenant has limits."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() + 86400
    later = now.replace(day=28, hour=0, minute=0, second=0, microsecond=0).timestamp() + 5 * 86400
    ends = {"day": (f"{now:%Y-%m-%d}", midnight), "month": (f"{now:%Y-%m}", later)}
    return tuple(
        Period(f"{kind}:{ends[kind][0]}", _limits(budget), ends[kind][1] - now.timestamp())
        for kind, budget in tenant.periods.items()
    )


def _limits(budget: Budget) -> Limits:
    return budget.calls, budget.tokens, budget.limit("picousd")


def _wanted(budget: Budget | None, periods: tuple[Period, ...]) -> Amount:
    """Return the most that a request may spend, in the dimensions that a period limits."""
    own = (None, None, None) if budget is None else _limits(budget)
    wanted = [0, 0, 0]
    for i in range(3):
        limits = [p.limits[i] for p in periods if p.limits[i] is not None]
        if limits:
            least = min(limit for limit in limits if limit is not None)
            mine = own[i]
            wanted[i] = max(1, least // SHARE) if mine is None else min(mine, least)
    return Amount(*wanted)


def _as_limits(taken: Amount, wanted: Amount) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if wanted.calls:
        out["calls"] = taken.calls
    if wanted.tokens:
        out["tokens"] = taken.tokens
    if wanted.picousd:
        out["usd"] = math.floor(taken.picousd) / PICO
    return out


def _used_up(periods: tuple[Period, ...], balances: Mapping[str, Balance]) -> str:
    for period in periods:
        spent = balances.get(period.key, Balance()).spent
        for name, limit, amount in zip(("calls", "tokens", "money"), period.limits, spent, strict=True):
            if limit is not None and amount >= limit:
                return f"The {period.key.partition(':')[0]}'s budget of {name}"
    return "The budget"


def _unavailable() -> APIError:
    return APIError(
        503, "The account of spending cannot be written, so nothing may be spent.", code="store_unavailable"
    )
