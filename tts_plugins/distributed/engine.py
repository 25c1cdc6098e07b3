"""`RayEngine`: jobs on the workers of a Ray cluster, with their outcomes streaming back as they come."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tts_plugins._internal.config import check_count
from tts_plugins.budget import DIMENSIONS, PICO, Amount, Budget
from tts_plugins.distributed._fleet import Fleet
from tts_plugins.distributed._pickling import pickled_work
from tts_plugins.distributed.account import ZERO
from tts_plugins.distributed.connection import connect, ray_module
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.engine.many import Outcomes, Work
from tts_plugins.errors import BudgetExhausted, ConfigurationError, TTSError
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.types import Usage


@dataclass(frozen=True, kw_only=True)
class RayStats:
    """What a run has come to.

    Attributes:
        workers_lost: workers that died and were replaced.
        repeated: jobs that they had been given and had not reported, so that they were done again. The calls of those
            that had begun are paid twice.
        spent: calls, tokens and money of all workers, those included that died; counted where there is a budget or a
            ledger.
        messages: to the account.
    """

    workers_lost: int = 0
    repeated: int = 0
    spent: Amount = ZERO
    messages: int = 0


class RayEngine:
    """Runs solves on a Ray cluster: `solve_many(problems, …, engine=RayEngine(workers=4))`.

    Each worker is a process with an event loop, on which `in_flight` solves wait for servers side by side. What is
    sent to workers is pickled: give models as a `Factory`.

    Args:
        address: "host:port" of the cluster's head, or "auto" for the one that runs on this machine. Left out, the
            cluster that this process is in, or a new one on this machine.
        workers: how many.
        in_flight: solves under way at once in each of them.
        budget: limits of all solves together. A `Ledger` as `budget` of `solve_many` does the same.
        account: an SQLite file that remembers what was spent, so that a later run goes on with the same budget.
        cpus: CPUs that each worker takes of the cluster; 0 places no limit on how many fit on a node.
        options: further options of each worker, for Ray: `runtime_env`, `resources`, `scheduling_strategy`.

    Raises:
        ConfigurationError: a setting is wrong.

    `stats` tells of the latest run.
    """

    def __init__(
        self, address: str | None = None, *, workers: int = 2, in_flight: int = 64, budget: Budget | None = None,
        account: str | Path | None = None, cpus: float = 0, options: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        check_count("RayEngine", "workers", workers)
        check_count("RayEngine", "in_flight", in_flight)
        if address is not None and not isinstance(address, str):
            raise ConfigurationError(f"RayEngine: address={address!r} must be a text, such as '10.0.0.5:6379'")
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigurationError(f"RayEngine: budget={budget!r} is not a Budget; pass Budget(calls=32), or None")
        self.address, self.workers, self.in_flight, self.budget = address, workers, in_flight, budget
        self.account, self.options = account, {"num_cpus": cpus, **(options or {})}
        self.stats = RayStats()

    async def run(self, jobs: Iterable[Any], work: Work, *, ledger: Ledger | None = None) -> Outcomes:
        """See `Engine.run`."""
        sent = pickled_work(work)
        if ledger is not None and self.budget is not None:
            raise ConfigurationError("RayEngine: give the budget to the engine or as a Ledger, not both")
        ray_module()
        await asyncio.to_thread(connect, self.address)
        taken, limits = (None, self.budget) if ledger is None else _all_of(ledger)
        bill = _Bill()
        try:
            run = self._run(jobs, sent, limits, bill, counted=ledger is not None or limits is not None)
            async with contextlib.aclosing(run) as outcomes:  # what it has spent is known once it is closed
                async for each in outcomes:
                    yield each
        finally:
            if taken is not None:
                _settle(taken, bill.usage or taken.bound)

    async def _run(
        self, jobs: Iterable[Any], work: bytes, limits: Budget | None, bill: _Bill, *, counted: bool
    ) -> Outcomes:
        account = await asyncio.to_thread(SharedBudget, limits, path=self.account, workers=self.workers)
        bill.usage = None
        fleet = Fleet(account, work, self.workers, self.in_flight, self.options, counted=counted)
        try:
            await fleet.begin()
            async with contextlib.aclosing(fleet.outcomes(jobs)) as outcomes:
                async for each in outcomes:
                    yield each
        finally:
            usage = await fleet.end()
            try:
                figures = await asyncio.to_thread(account.settled)
            except (ray_module().exceptions.RayError, TTSError) as error:
                said = error if isinstance(error, TTSError) else type(error).__name__
                raise TTSError(
                    f"RayEngine: the account of the budget is lost ({said}), and with it what was spent; all that was "
                    "left in a Ledger is charged"
                ) from error
            finally:
                await asyncio.to_thread(account.close)
            self.stats = RayStats(workers_lost=fleet.lost, repeated=fleet.repeated, spent=figures["spent"],
                                  messages=figures["messages"])  # fmt: skip
            bill.usage = _whole(usage, self.stats.spent)


@dataclass
class _Bill:
    """What one run has used: nothing before it begins, and None if it cannot be known."""

    usage: Usage | None = field(default_factory=Usage)


class _Taken(NamedTuple):
    """All that was left in a ledger: its hold, and the room that it was; None where there is no limit."""

    ledger: Ledger
    hold: Hold
    room: list[int | None]

    @property
    def bound(self) -> Usage:
        """All of it, for a run of which nobody can say what it has spent."""
        calls, tokens, money = (left or 0 for left in self.room)
        return Usage(calls=calls, prompt_tokens=tokens, usd=money / PICO, exact=False)


def _all_of(ledger: Ledger) -> tuple[_Taken, Budget | None]:
    """Reserve all that is left in a ledger, and return it as limits."""
    room: list[int | None] = [None, None, None]
    for account, _ in ledger.chain(None):
        balance = account.balance
        for i, limit in enumerate(balance.limits):
            if limit is not None:
                left = limit - balance.spent[i] - balance.held[i]
                room[i] = left if room[i] is None else min(left, room[i] or 0)
    if empty := [name for name, left in zip(DIMENSIONS, room, strict=True) if left is not None and left <= 0]:
        raise BudgetExhausted(f"{ledger!r}: no {empty[0]} are left; raise the limit")
    until = ledger.deadline(now := time.monotonic())
    given: dict[str, Any] = {"calls": room[0], "tokens": room[1], "usd": None if room[2] is None else room[2] / PICO,
             "seconds": None if until is None else max(until - now, 0.001)}  # fmt: skip
    hold = ledger.reserve(Amount(*(left or 0 for left in room)))
    limits = {name: value for name, value in given.items() if value is not None}
    return _Taken(ledger, hold, room), Budget(**limits) if limits else None


def _settle(taken: _Taken, usage: Usage) -> None:
    """Charge what was used. Nothing was held of what has no limit, and it went beyond nothing."""
    used, hold = Amount.used(usage), taken.hold
    unlimited = Amount(*(n if left is None else 0 for n, left in zip(used, taken.room, strict=True)))
    if any(unlimited):
        hold = taken.ledger.join([hold, taken.ledger.reserve(unlimited)])
    hold.settle(usage)


def _whole(usage: Usage, spent: Amount) -> Usage:
    """Return the usage that workers reported, and what those spent that died before they could report."""
    lost = spent.excess(Amount.used(usage))
    if not any(lost):
        return usage
    return usage + Usage(calls=lost.calls, prompt_tokens=lost.tokens, usd=lost.usd, exact=False)
