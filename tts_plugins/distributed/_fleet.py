"""The workers of one run, as the driver sees them: what each has been given, and what becomes of it."""

from __future__ import annotations

import asyncio
import math
import os
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Any

from tts_plugins._version import __version__
from tts_plugins.distributed._actors import Crash, WorkerActor
from tts_plugins.distributed._pickling import NOTHING_ENDED, Job, pickled_jobs, unpickled_outcomes
from tts_plugins.distributed.connection import check_versions, membership, ray_module
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.errors import ConfigurationError, JobFailed, TTSError
from tts_plugins.types import Usage

_START, _STOP = 300.0, 30.0  # seconds that a worker has to start in, and to end in
# A worker that has not reported for some seconds is asked whether it lives, and has so many to answer in.
_LOOK, _QUIET, _SILENT = 1.0, 10.0, 45.0
# After one death jobs are done again few at a time, after two each alone; one that is alone at two more has failed.
_ALONE, _FAILED = 2, 4
_PULSE = "pulse"  # the group of calls that a worker answers on a thread of its own
_IN_A_ROW = 8  # deaths in one worker's place, without any outcome in between, that end the run


class _Silent(TTSError):
    """A worker does not answer, and is taken for dead."""


class _Worker:
    """One worker process, and the jobs that it was given and has not reported as ended."""

    def __init__(self, actor: Any, deaths: int) -> None:
        self.actor = actor
        self.deaths = deaths  # of those before it in its place, since there was an outcome
        self.given: dict[int, Any] = {}
        self.fresh: list[Job] = []  # of what is given, what is not sent yet
        self.suspects = 0  # of what is given, what was under way in a worker that died
        self.turn: asyncio.Future[bytes] | None = None  # its message that is under way; None if it waits for the driver
        self.pace = 0  # jobs that its latest message has ended
        self.heard = math.inf  # when it last reported, or said that it lives; never, while it starts

    def give(self, job: Job, *, suspect: bool) -> None:
        """Note a job that is sent with the next message."""
        self.given[job[0]] = job[1]
        self.fresh.append(job)
        self.suspects += suspect


class Fleet:
    """Starts workers, keeps each of them busy, and replaces those that die."""

    def __init__(
        self, account: SharedBudget, work: bytes, count: int, in_flight: int, options: dict[str, Any],
        *, counted: bool,
    ) -> None:  # fmt: skip
        self._account, self._work, self._count, self._in_flight = account, work, count, in_flight
        self._options, self._counted = options, counted
        self._seconds, self._begun = (self._account.limits or {}).get("seconds"), time.monotonic()
        self.lost = self.repeated = 0  # workers that died, and jobs that they had been given
        self._joined = membership()
        self._watch: asyncio.Task[None] | None = None
        self._workers: list[_Worker] = []
        self._news: asyncio.Queue[tuple[_Worker, asyncio.Future[bytes]]] = asyncio.Queue()
        self._again: deque[Job] = deque()
        self._deaths: dict[int, int] = {}  # of jobs, by their numbers

    async def begin(self) -> None:
        """Start the workers.

        Raises:
            ConfigurationError: they have other versions, or cannot make what jobs need.
        """
        self._watch = asyncio.create_task(self._watched())
        for _ in range(self._count):
            self._open(self._new(), self._start)
        for _ in range(self._count):
            worker, started = await self._news.get()
            started.result()
            worker.turn = None

    async def outcomes(self, jobs: Iterable[Any]) -> AsyncGenerator[tuple[int, Any]]:
        """Yield the number of each job with what it came to, in the order in which they end."""
        source = enumerate(jobs)
        while True:
            self._check_joined()
            self._deal(source)
            if all(worker.turn is None for worker in self._workers):
                return
            worker, turn = await self._news.get()
            worker.turn, worker.heard = None, time.monotonic()
            try:
                ended = unpickled_outcomes(turn.result())
            except (ray_module().exceptions.RayError, _Silent) as error:
                for each in self._replace(worker, error):
                    yield each
                continue
            worker.pace = len(ended)
            for number, value in ended:
                worker.deaths = 0
                del worker.given[number]
                worker.suspects -= self._deaths.pop(number, 0) > 0
                if isinstance(value, Crash):
                    raise value.error
                yield number, value

    async def end(self) -> Usage:
        """Stop all workers; return what they say that they have spent."""
        ray = ray_module()
        if self._watch is not None:
            self._watch.cancel()
        if membership() != self._joined:
            return Usage()
        usages = [self._stopped(worker) for worker in self._workers]
        reported = [usage for usage in await asyncio.gather(*usages) if usage is not None]
        for worker in self._workers:
            if worker.turn is not None:
                worker.turn.cancel()
            ray.kill(worker.actor)
        return Usage.sum(reported)

    async def _stopped(self, worker: _Worker) -> Usage | None:
        try:
            async with asyncio.timeout(_STOP):
                usage: Usage = await worker.actor.stop.remote()
                return usage
        except (TimeoutError, ray_module().exceptions.RayError):
            return None  # its account is charged what it may have spent

    def _new(self, deaths: int = 0) -> _Worker:
        name = f"worker-{uuid.uuid4().hex[:12]}"
        made = ray_module().remote(concurrency_groups={_PULSE: 1})(WorkerActor)
        actor = made.options(max_restarts=0, **self._options).remote(name)
        self._workers.append(worker := _Worker(actor, deaths))
        return worker

    def _open(self, worker: _Worker, message: Callable[[_Worker], Awaitable[bytes]]) -> None:
        """Begin what a worker is awaited for; how it ended comes as news."""
        worker.turn = turn = asyncio.ensure_future(message(worker))
        turn.add_done_callback(lambda done: None if done.cancelled() else self._news.put_nowait((worker, done)))

    async def _start(self, worker: _Worker) -> bytes:
        ray = ray_module()
        try:
            async with asyncio.timeout(_START):
                check_versions(*await self._about(worker))
                await self._account.actor.bury.remote()  # who died before: it is charged, and the rest is free
                await worker.actor.start.remote(
                    self._work, self._account.actor, self._limits(), self._in_flight, self._count, os.getcwd(),
                    self._counted,
                )  # fmt: skip
        except TimeoutError:
            raise TTSError(
                f"RayEngine: a worker did not start within {_START:.0f} s; has the cluster the resources for "
                f"{self._count} workers with {self._options}?"
            ) from None
        except ray.exceptions.RayError as error:
            raise _plain(error) from error
        return NOTHING_ENDED

    def _limits(self) -> dict[str, Any] | None:
        """Return the limits for a worker that begins now: of their seconds, what is left."""
        limits = self._account.limits
        if limits is None or self._seconds is None:
            return limits
        return {**limits, "seconds": max(self._begun + self._seconds - time.monotonic(), 0.001)}

    async def _watched(self) -> None:
        """Look for workers that answer no more: stopped, or on a machine that is out of reach."""
        account = asyncio.create_task(self._account.keep_answering(_START, _QUIET, _SILENT))
        asked: set[asyncio.Task[None]] = set()
        try:
            while True:
                self._check_joined()
                if account.done():
                    account.result()
                quiet = time.monotonic() - _QUIET
                for worker in self._workers:
                    if worker.turn is not None and worker.heard < quiet:
                        worker.heard = math.inf  # until it has answered
                        asked.add(task := asyncio.create_task(self._ask_if_alive(worker, worker.turn)))
                        task.add_done_callback(asked.discard)
                await asyncio.sleep(_LOOK)
        except TTSError as error:
            self._tell(error)
        finally:
            for task in (account, *asked):
                task.cancel()

    def _check_joined(self) -> None:
        if membership() != self._joined:  # to call an actor would start a new Ray here
            raise TTSError("RayEngine: this process has left its cluster, as by ray.shutdown(), while solves ran")

    async def _ask_if_alive(self, worker: _Worker, turn: asyncio.Future[bytes]) -> None:
        try:
            async with asyncio.timeout(_SILENT):
                await worker.actor.pulse.options(concurrency_group=_PULSE).remote()
        except TimeoutError:
            if worker.turn is turn and not turn.done():
                turn.cancel()
                self._tell(_Silent(f"RayEngine: a worker did not answer for {_SILENT:.0f} s"), worker)
        except ray_module().exceptions.RayError:
            return  # it has died, as the answer to its message says
        worker.heard = time.monotonic()

    def _tell(self, error: TTSError, worker: _Worker | None = None) -> None:
        """Make an error the news of a worker, or of any where it ends the run."""
        told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        told.set_exception(error)
        self._news.put_nowait((worker or self._workers[0], told))

    async def _about(self, worker: _Worker) -> tuple[dict[str, str], str]:
        try:
            found: tuple[dict[str, str], str] = await worker.actor.about.remote()
            return found
        except ray_module().exceptions.RayActorError as error:
            said = str(error).strip().splitlines()[-1]  # above it is the traceback of Ray's own code
            raise ConfigurationError(
                f"RayEngine: a worker cannot be made ({said}); install tts-plugins {__version__} on each machine, "
                "with the extra ray"
            ) from error

    def _deal(self, source: Iterator[Job]) -> None:
        """Give workers what they lack, one job after the other, so that none has all that is left; and wait for them.

        A worker lacks what it works on, and what keeps it busy until the next message.
        """
        lacking = deque(worker for worker in self._workers if worker.turn is None)
        while lacking:
            worker = lacking.popleft()
            more = self._in_flight + 2 * worker.pace > len(worker.given)
            if more and (job := self._next(worker, source)) is not None:
                worker.give(job, suspect=job[0] in self._deaths)
                lacking.append(worker)
            elif worker.given:
                jobs, worker.fresh = pickled_jobs(worker.fresh), []
                worker.heard = time.monotonic()
                self._open(worker, lambda worker, jobs=jobs: worker.actor.turn.remote(jobs))  # type: ignore[misc]

    def _next(self, worker: _Worker, source: Iterator[Job]) -> Job | None:
        """Return a worker's next job; None if there is none, or what it has must end first."""
        if len(worker.given) == 1 and self._deaths.get(next(iter(worker.given)), 0) >= _ALONE:
            return None
        for place, job in enumerate(self._again):
            alone = self._deaths[job[0]] >= _ALONE
            if alone and worker.given:
                return None
            if alone or worker.suspects < max(1, self._in_flight // 8):
                del self._again[place]
                return job
        return next(source, None)

    def _replace(self, worker: _Worker, error: BaseException) -> Iterator[tuple[int, Any]]:
        """Start a worker for one that is lost; what it was given is done again, but for what has killed too many."""
        ray = ray_module()
        if isinstance(error, ray.exceptions.RayTaskError):
            raise _plain(error) from error
        ray.kill(worker.actor)  # where it lives, and is only out of reach
        self._workers.remove(worker)
        self.lost += 1
        self.repeated += len(worker.given)
        if worker.deaths + 1 >= _IN_A_ROW:
            raise TTSError(
                f"RayEngine: {_IN_A_ROW} workers died one after the other, and nothing was solved in between: "
                f"{_plain(error)}; does a verifier end its process, or is memory short?"
            ) from error
        self._open(self._new(worker.deaths + 1), self._start)
        for number, job in worker.given.items():
            self._deaths[number] = deaths = self._deaths.get(number, 0) + 1
            if deaths < _FAILED:
                self._again.insert(0 if deaths >= _ALONE else len(self._again), (number, job))
                continue
            del self._deaths[number]
            said = f"{deaths} workers died while problem {number} was under way ({_plain(error)})"
            yield number, JobFailed(f"{said}; does its verifier end the process, or need more memory than there is?")


def _plain(error: BaseException) -> TTSError:
    """Return the error of ours that Ray has wrapped, else its text in one line."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    if isinstance(cause, TTSError) and type(cause).__module__.startswith("tts_plugins"):
        return cause
    return TTSError(f"RayEngine: {type(cause).__name__}: {' '.join(str(cause).split())[:500]}")
