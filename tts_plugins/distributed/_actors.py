"""What runs in Ray's processes: the account, and the workers. They are plain classes, which `ray.remote` wraps.

Of Ray these use nothing but their own context, so that they can be tried without a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tts_plugins._calls.limiter import Pace, share_limits
from tts_plugins.budget import Amount, Budget, Limits
from tts_plugins.distributed._open_calls import Alive, OpenCalls, used_by_dead
from tts_plugins.distributed._pickling import pickled_outcomes
from tts_plugins.distributed._rates import RateAsk, RateGrant, Rates, SharedPace
from tts_plugins.distributed.account import Account, Ask, Grant
from tts_plugins.distributed.connection import versions
from tts_plugins.distributed.lease import LeasedLedger
from tts_plugins.engine.many import outcome
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.protocols import Model
from tts_plugins.types import Usage

# A message waits for so many outcomes, but not longer than so many times so many seconds; a fast worker sends more.
_ENOUGH, _WAITS, _WAIT = 16, 2, 0.1


class AccountActor:
    """The account of one budget, and the rates of the servers. Its calls answer at once, whatever they are asked."""

    def __init__(self, budget: dict[str, Any] | None, path: str, workers: int, node: str | None = None) -> None:
        self._others = _OtherNodes()
        self._account = Account(
            None if budget is None else Budget(**budget), path, workers=workers, node=node or node_id(),
            used_by=self._others.used_by,
        )  # fmt: skip
        self._rates = Rates(workers)
        self._account.bury()

    def ask(self, ask: Ask) -> Grant:
        """See `Account.ask`."""
        return self._account.ask(ask)

    def leave(self, worker: str, spent: Amount) -> None:
        """See `Account.leave`."""
        self._account.leave(worker, spent)

    def bury(self) -> int:
        """See `Account.bury`."""
        return self._account.bury()

    def pace(self, ask: RateAsk) -> RateGrant:
        """See `Rates.ask`."""
        return self._rates.ask(ask, time.monotonic())

    def close(self) -> None:
        """Close the file, for the next account on it."""
        self._account.close()

    def figures(self) -> dict[str, Any]:
        """Return what is spent and leased, and how many messages there were since the last start."""
        account = self._account
        return {"spent": account.spent, "leased": account.leased, "messages": account.messages,
                "workers_lost": account.lost, "process": os.getpid()}  # fmt: skip


class _OtherNodes:
    """Reads the files of open calls on other nodes, by tasks that run there. It never waits for one."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str], Any] = {}

    def used_by(self, node: str, path: str) -> Amount | None:
        """Return what a dead worker had used; None if its node is gone.

        Raises:
            Alive: the worker lives, or nobody knows yet.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not any(known["NodeID"] == node and known["Alive"] for known in ray.nodes()):
            return used_by_dead(path)  # its file is here where the cluster before this one ran on this machine
        asked = self._asked.get((node, path))
        if asked is None:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(look).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
            asked = self._asked[node, path] = task.remote(path)
        if not ray.wait([asked], timeout=0)[0]:
            raise Alive
        del self._asked[node, path]
        try:
            alive, used = ray.get(asked)
        except ray.exceptions.RayError as error:  # the node went meanwhile: it is looked at again
            raise Alive from error
        if alive:
            raise Alive
        return None if used is None else Amount(*used)


def look(path: str) -> tuple[bool, Amount | None]:
    """Return whether the worker that writes a file lives, and what it had used if not."""
    try:
        return False, used_by_dead(path)
    except Alive:
        return True, None


class WorkerActor:
    """Does jobs, many at a time, on its event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pending: deque[tuple[int, Any]] = deque()
        self._running: set[asyncio.Task[tuple[int, Any]]] = set()
        self._ended: list[tuple[int, Any]] = []
        self._news, self._idle = asyncio.Event(), asyncio.Event()
        self._ledger: LeasedLedger | None = None
        self._handle: Any = None
        self._closing = False

    async def about(self) -> tuple[dict[str, str], str]:
        """Return the versions here, and the node."""
        return versions(), node_id()

    async def start(
        self,
        work: bytes,
        account: Any,
        budget: dict[str, Any] | None,
        in_flight: int,
        workers: int,
        folder: str,
        counted: bool,
    ) -> None:
        """Make what the jobs need.

        Args:
            work: pickled, see `Engine.run`.
            account: the actor of the account.
            budget: its limits; None if nothing limits the jobs together.
            in_flight: jobs at once.
            workers: how many workers there are.
            counted: whether anybody asks what was spent; each call costs less where nobody does.
            folder: the driver's working directory, which relative names of files are meant in; kept where it is not.
        """
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._in_flight = in_flight
        make: Callable[..., Any] = pickle.loads(work)
        share_limits(sharing(workers, account.pace.remote))
        if counted:
            self._ledger = leased(self._name, account, budget)
            await self._ledger.register()
        self._handle = make(self._ledger)
        gc.freeze()  # what Ray has imported is never garbage: to look at it each time costs a tenth of all CPU

    async def turn(self, jobs: bytes) -> bytes:
        """Take jobs, wait until one ends, and return what has ended; both are pickled, with the jobs' numbers.

        A message costs both sides as much CPU as a solve or two, so what ends soon after the first is sent with it.
        """
        self._pending.extend(pickle.loads(jobs))
        self._fill()
        await self._news.wait()
        for _ in range(_WAITS):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _WAIT)
            if self._idle.is_set() or len(self._ended) >= _ENOUGH:
                break
        self._news.clear()
        ended, self._ended = self._ended, []
        return pickled_outcomes(ended)

    async def pulse(self) -> None:
        """Answer, on a thread of its own: what a verifier does with the event loop is no sign of death."""

    async def stop(self) -> Usage:
        """End what runs, settle the account, and return what was spent."""
        self._closing = True
        self._pending.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        close = getattr(self._handle, "aclose", None)
        if close is not None:
            await close()
        if self._ledger is None:
            return Usage()
        await self._ledger.aclose()
        return self._ledger.usage

    def _fill(self) -> None:
        while self._pending and len(self._running) < self._in_flight and not self._closing:
            number, job = self._pending.popleft()
            task = asyncio.create_task(outcome(number, job, self._handle))
            self._running.add(task)
            task.add_done_callback(lambda done, number=number: self._note(number, done))  # type: ignore[misc]
            self._idle.clear()

    def _note(self, number: int, task: asyncio.Task[tuple[int, Any]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            error = task.exception()
            if self._ledger is not None and self._ledger.failed is not None:
                error = self._ledger.failed
            self._ended.append(task.result() if error is None else (number, Crash(error)))
            self._news.set()
        self._fill()
        if not self._running:
            self._idle.set()
            if not self._closing and self._ledger is not None:
                self._ledger.return_soon()


class Crash:
    """An error that ends the whole run, and not one job."""

    def __init__(self, error: BaseException) -> None:
        self.error = error if isinstance(error, TTSError) else TTSError(f"{type(error).__name__}: {error}")


def leased(name: str, account: Any, budget: dict[str, Any] | None) -> LeasedLedger:
    """Return a ledger that draws on the actor of an account; one that only counts, without a budget."""
    user = os.getuid() if hasattr(os, "getuid") else ""  # others may not write into the folder of one of them
    file = OpenCalls(Path(tempfile.gettempdir()) / f"tts-plugins-open-calls-{user}" / name)
    return LeasedLedger(
        None if budget is None else Budget(**budget), account.ask.remote, account.leave.remote, worker=name,
        node=node_id(), file=file,
    )  # fmt: skip


def sharing(workers: int, pace: Callable[[RateAsk], Any]) -> Callable[[Model], tuple[Limits, Pace | None]]:
    """Return how a server's limits are shared: its places are divided, its rates are asked for at the account."""

    def shared(model: Model) -> tuple[Limits, Pace | None]:
        limits = model.limits
        if limits.concurrency is not None and limits.concurrency < workers:
            raise ConfigurationError(
                f"{model.name}: Limits(concurrency={limits.concurrency}) cannot be shared by {workers} workers; use at "
                f"most {limits.concurrency} workers"
            )
        own = Limits(concurrency=None if limits.concurrency is None else limits.concurrency // workers)
        rates = (limits.requests_per_minute, limits.tokens_per_minute)
        return own, SharedPace(getattr(model, "server", model.name), *rates, pace) if any(rates) else None

    return shared


def node_id() -> str:
    """Return Ray's name of this machine."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
