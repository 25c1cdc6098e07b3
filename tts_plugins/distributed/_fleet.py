"""The workers of one run, as the driver sees them: what each has been given, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import pickle
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from tts_plugins.distributed._actors import Crash, WorkerActor
from tts_plugins.distributed.connection import check_versions, ray_module
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.engine.many import Work
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.types import Usage

_START, _STOP = 300.0, 30.0  # seconds that a worker has to start in, and to end in
_DEATHS = 3  # in a row, without any outcome in between
Job = tuple[int, bytes]


class _Worker:
    """One worker process, and the jobs that it was given and has not reported as ended."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.given: dict[int, bytes] = {}
        self.reader: asyncio.Task[None] | None = None


class Fleet:
    """Starts workers, keeps each of them busy, and replaces those that die."""

    def __init__(
        self, account: SharedBudget, work: bytes, count: int, in_flight: int, options: dict[str, Any],
        *, counted: bool,
    ) -> None:  # fmt: skip
        self._account, self._work, self._count, self._in_flight = account, work, count, in_flight
        self._options, self._counted = options, counted
        self.lost = self.repeated = 0  # workers that died, and jobs that were under way there
        self._workers: list[_Worker] = []
        self._news: asyncio.Queue[tuple[_Worker, Any]] = asyncio.Queue()
        self._again: deque[Job] = deque()
        self._deaths = 0

    async def begin(self) -> None:
        """Start the workers.

        Raises:
            ConfigurationError: they have other versions, or cannot make what jobs need.
        """
        starting = [asyncio.create_task(self._start()) for _ in range(self._count)]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            raise

    async def outcomes(self, jobs: Iterable[Any]) -> AsyncGenerator[tuple[int, Any]]:
        """Yield the number of each job with what it came to, in the order in which they end."""
        source = self._pickled(jobs)
        while True:
            await self._fill(source)
            if not any(worker.given for worker in self._workers):
                return
            worker, news = await self._news.get()
            if isinstance(news, BaseException):
                await self._replace(worker, news)
                continue
            self._deaths = 0
            for number, value in news:
                if worker.given.pop(number, None) is None:
                    continue  # known already, from a worker that was taken for dead
                if isinstance(value, Crash):
                    raise value.error
                yield number, value

    async def end(self) -> Usage:
        """Stop all workers; return what they say that they have spent."""
        ray = ray_module()
        usages = [self._stopped(worker) for worker in self._workers]
        reported = [usage for usage in await asyncio.gather(*usages) if usage is not None]
        for worker in self._workers:
            if worker.reader is not None:
                worker.reader.cancel()
            ray.kill(worker.actor)
        return Usage.sum(reported)

    async def _stopped(self, worker: _Worker) -> Usage | None:
        try:
            async with asyncio.timeout(_STOP):
                usage: Usage = await worker.actor.stop.remote()
                return usage
        except (TimeoutError, ray_module().exceptions.RayError):
            return None  # its account is charged what it may have spent

    async def _start(self) -> None:
        ray = ray_module()
        name = f"worker-{uuid.uuid4().hex[:12]}"
        worker = _Worker(ray.remote(WorkerActor).options(max_restarts=0, **self._options).remote(name))
        self._workers.append(worker)
        try:
            async with asyncio.timeout(_START):
                theirs, node = await worker.actor.about.remote()
                check_versions(theirs, node)
                await worker.actor.start.remote(
                    self._work,
                    self._account.actor,
                    self._account.limits,
                    self._in_flight,
                    self._count,
                    os.getcwd(),
                    self._counted,
                )
        except TimeoutError:
            raise TTSError(
                f"RayEngine: a worker did not start within {_START:.0f} s; has the cluster the resources for "
                f"{self._count} workers with {self._options}?"
            ) from None
        except ray.exceptions.RayError as error:
            raise _plain(error) from error
        worker.reader = asyncio.create_task(self._read(worker))

    async def _read(self, worker: _Worker) -> None:
        try:
            stream = worker.actor.outcomes.options(num_returns="streaming").remote()
            async for ref in stream:
                self._news.put_nowait((worker, pickle.loads(await ref)))
        except Exception as error:  # noqa: BLE001 - whatever Ray raises: the driver decides what it means
            self._news.put_nowait((worker, error))

    async def _fill(self, source: Iterator[Job]) -> None:
        """Give each worker what it lacks, and some more, so that it need not wait for the driver."""
        ahead = self._in_flight + self._in_flight // 2 + 1
        for worker in self._workers:
            lacks = ahead - len(worker.given)
            if lacks <= self._in_flight // 4 and worker.given:
                continue
            jobs: list[Job] = []
            while len(jobs) < lacks:
                job = self._again.popleft() if self._again else next(source, None)
                if job is None:
                    break
                jobs.append(job)
            if jobs:
                worker.given |= dict(jobs)
                worker.actor.put.remote(jobs)

    async def _replace(self, worker: _Worker, error: BaseException) -> None:
        """Start a worker for one that died; what it was given is done again."""
        if not isinstance(error, ray_module().exceptions.RayActorError):
            raise _plain(error) from error
        self._deaths += 1
        self._workers.remove(worker)
        self.lost += 1
        self.repeated += min(len(worker.given), self._in_flight)
        self._again.extendleft(reversed(worker.given.items()))
        if self._deaths >= _DEATHS:
            raise TTSError(
                f"RayEngine: {self._deaths} workers died one after the other, and nothing was solved in between: "
                f"{_plain(error)}; does a verifier end its process, or is memory short?"
            ) from error
        await self._account.actor.bury.remote()
        await self._start()

    def _pickled(self, jobs: Iterable[Any]) -> Iterator[Job]:
        return ((number, pickled_job(number, job)) for number, job in enumerate(jobs))


def _plain(error: BaseException) -> TTSError:
    """Return the error of ours that Ray has wrapped, else its text in one line."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    if isinstance(cause, TTSError) and type(cause).__module__.startswith("tts_plugins"):
        return cause
    return TTSError(f"RayEngine: {type(cause).__name__}: {' '.join(str(cause).split())[:500]}")


def pickled(work: Work) -> bytes:
    """Pickle what workers need.

    Raises:
        ConfigurationError: names the part that cannot be pickled, and what to do.
    """
    from ray import cloudpickle

    try:
        return bytes(cloudpickle.dumps(work))
    except Exception as error:
        settings = getattr(work, "settings", None) or vars(work)
        for name, value in settings.items():
            try:
                cloudpickle.dumps(value)
            except Exception as cause:
                raise ConfigurationError(
                    f"RayEngine: {name}={type(value).__name__} cannot be pickled, so no worker gets it ({cause}); "
                    f"give a recipe: {name}=Factory({type(value).__name__}, …), which makes it there"
                ) from cause
        raise ConfigurationError(
            f"RayEngine: the work cannot be pickled, and so not sent to workers ({error})"
        ) from error


def pickled_job(number: int, job: Any) -> bytes:
    """Pickle one job.

    Raises:
        ConfigurationError: it cannot be pickled.
    """
    try:
        return pickle.dumps(job, protocol=5)
    except Exception as error:
        raise ConfigurationError(
            f"RayEngine: problem {number} cannot be pickled, and so not sent to a worker ({error}); pass plain data"
        ) from error
