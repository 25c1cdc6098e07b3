"""Warm processes of a sandbox, each driven by a thread of its own; checks wait in one queue."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from tts_plugins._concurrency import forks
from tts_plugins.verifiers._sandbox.launch import Kind
from tts_plugins.verifiers._sandbox.worker_process import Cancelled, SandboxProcess


class _Job:
    """A check that waits or runs."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.request = request
        self.future: Future[dict[str, Any]] = Future()
        self.lock = threading.Lock()
        self.process: SandboxProcess | None = None
        self.unwanted = False

    def cancel(self) -> None:
        """Keep it from starting, or kill it if it has started: nobody waits for it any more."""
        with self.lock:
            self.unwanted = True
            if self.process is not None:
                self.process.cancel()


class Pool:
    """A pool of up to `workers` processes, which are started when they are needed.

    They end with `close`, when the pool is collected, and with the program, however that ends.
    """

    def __init__(self, kind: Kind, *, memory: int, workers: int) -> None:
        self._kind, self._memory, self._workers = kind, memory, workers
        self.renew()
        forks.renew(self)

    def renew(self) -> None:
        """Start without a process, as a forked child must: the processes of the parent answer only the parent."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = list[_Worker]()
        self._open = set[_Job]()  # that wait or run
        weakref.finalize(self, _stop, self._jobs, self._threads)

    async def check(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run one check and return its outcome. If it is cancelled, kill what runs.

        Raises:
            Broken: the sandbox failed.
            Cancelled: the pool was closed meanwhile.
        """
        job, unfinished = _Job(request), self._open
        unfinished.add(job)
        job.future.add_done_callback(lambda _: unfinished.discard(job))
        self._more_threads()
        self._jobs.put(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.cancel()
            raise

    def close(self) -> None:
        """End the processes and their checks; a later check starts new ones."""
        with self._lock:
            threads = list(self._threads)
            for job in list(self._open):
                job.cancel()
            _stop(self._jobs, self._threads)
        for thread in threads:
            thread.join()

    def _more_threads(self) -> None:
        with self._lock:
            self._threads[:] = [t for t in self._threads if t.is_alive()]
            if len(self._threads) < min(self._workers, len(self._open)):
                thread = _Worker(self._jobs, SandboxProcess(self._kind, memory=self._memory))
                self._threads.append(thread)
                thread.start()


class _Worker(threading.Thread):
    def __init__(self, jobs: queue.SimpleQueue[_Job | None], process: SandboxProcess) -> None:
        super().__init__(daemon=True, name="tts-plugins-sandbox")
        self._jobs, self._process = jobs, process

    def run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if job.future.set_running_or_notify_cancel():
                    self._work(job)
                del job  # what was checked is not kept until the next one comes
        finally:
            self._process.close()

    def _work(self, job: _Job) -> None:
        with job.lock:
            if job.unwanted:
                job.future.set_exception(Cancelled())
                return
            job.process = self._process
        try:
            result = self._process.ask(job.request)
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
        finally:
            with job.lock:
                job.process = None
            self._process.forget()  # a cancellation that came too late must not hit the next check


def _stop(jobs: queue.SimpleQueue[_Job | None], threads: list[_Worker]) -> None:
    for _ in threads:
        jobs.put(None)
    threads.clear()
